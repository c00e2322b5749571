"""Every setting, read once from the environment into one typed object.

The only room that reads the environment. It does not know what a setting is used for.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard, TypeVar, cast
from urllib.parse import quote, urlsplit

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError, VerifyMismatchError
from environs import Env, EnvError

from llmchat.errors import SettingsError
from llmchat.provider import OPENAI, OWN_LIST, Provider
from llmchat.redis_url import RedisUrl
from llmchat.variables import (
    BY_NAME,
    PASSWORD_LENGTH,
    PIECE,
    PROVIDER_VARIABLES,
    SECRET_KEY_LENGTH,
    TOKEN_LENGTH,
    variable_of,
)

T = TypeVar("T")

WELL_KNOWN = ("changeme", "change-me", "change_me", "insecure", "your-secret", "your_secret", "placeholder")
WHOLE_NUMBER = re.compile(r"-?[0-9]{1,18}")
NAME_LENGTH = 40
LOOPBACK = {"localhost", "127.0.0.1", "::1"}
MAIL_OR_DOMAIN = re.compile(r"([^@\s]{0,64}@)?[\w-]+(\.[\w-]+)+")
LOGIN = re.compile(r"://[^/]*@")
"""In an address: who logs in there, which nobody is told."""
HEADER_NAME = re.compile(r"[A-Za-z0-9-]{1,64}")
PROVIDER_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
API_VERSION = re.compile(r"[A-Za-z0-9.-]{1,40}")
MAKE_A_KEY = 'python -c "import secrets; print(secrets.token_urlsafe(48))"'
MEGABYTE = 1_000_000
SESSION_PART = 4
"""One part in so many of all room for files is the most that a session may take."""
SEEING = re.compile(
    r"gpt-4o|gpt-4\.1|gpt-4-turbo|gpt-5|\bo[134]\b|claude|gemini|gemma-?3|llama-?4|llava|moondream|minicpm-v|"
    r"pixtral|internvl|mistral-(small-3|medium-3)|\bvl\b|[0-9]vl|vision",
    re.IGNORECASE,
)
BLIND = re.compile(
    r"audio|transcribe|tts|\bo[13]-mini|gemma-?3:?-?(270m|1b)|claude-(2|instant)|3-5-haiku", re.IGNORECASE
)
"""Names of models that are known to see, and of those among them that do not."""
TITLES_OFF = "off"
LOG_FORMATS = ("json", "text")
CONTINUATIONS = ("auto", "never", "flag", "last", "prefix")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings; the attribute is the variable's name in lower case. Its repr shows no secret.

    `openai_model` and `openai_models` are the default and all that is on offer, of whichever provider.
    """

    providers: tuple[Provider, ...] = ()
    openai_api_key: str | None = field(default=None, repr=False)
    openai_base_url: str | None = field(default=None, repr=False)
    openai_model: str = "gpt-4o-mini"
    openai_models: tuple[str, ...] = ("gpt-4o-mini",)
    local_model: Path | None = None
    local_label: str | None = None
    system_prompt: str = BY_NAME["SYSTEM_PROMPT"].default
    context_tokens: int = 8000
    title_model: str = ""
    max_prompt_chars: int = 16000
    temperature: float | None = None
    model_connect_seconds: float = 5.0
    model_first_seconds: float = 60.0
    model_between_seconds: float = 30.0
    model_answer_seconds: float = 300.0
    continuation: str = "auto"
    redis_url: str | None = field(default=None, repr=False)
    redis_prefix: str = "llmchat"
    secret_key: str | None = field(default=None, repr=False)
    secret_key_fallbacks: tuple[str, ...] = field(default=(), repr=False)
    debug: bool = False
    allowed_hosts: tuple[str, ...] = ("localhost", "127.0.0.1", "[::1]")
    redis_wait_seconds: int = 60
    require_durable_redis: bool = False
    csrf_trusted_origins: tuple[str, ...] = ()
    trusted_proxy_hops: int = 0
    trusted_ip_header: str = "x-forwarded-for"
    access_password: str | None = field(default=None, repr=False)
    metrics_token: str | None = field(default=None, repr=False)
    log_format: str = "text"
    oidc_issuer: str | None = None
    oidc_client_id: str = ""
    oidc_client_secret: str | None = field(default=None, repr=False)
    oidc_name: str = ""
    oidc_allowed: tuple[str, ...] = ()
    oidc_required: bool = False
    share_links: bool = True
    prompts_per_minute: int = 30
    connections_per_minute: int = 120
    frames_per_minute: int = 1200
    pages_per_minute: int = 300
    answers_at_once: int = 10
    tokens_per_day: int = 0
    tokens_per_day_in_all: int = 0
    answers_per_instance: int = 250
    host: str = "127.0.0.1"
    port: int = 8000
    data_dir: Path = Path(".llmchat")
    history_days: int = 400
    attachment_bytes: int = 5_000_000
    attachments_megabytes: int = 256
    attachment_days: int = 90
    import_bytes: int = 200_000_000
    image_models: tuple[str, ...] = ()

    @property
    def attachments_bytes(self) -> int:
        """How much of files is kept in all."""
        return self.attachments_megabytes * MEGABYTE

    @property
    def attachment_lifetime_days(self) -> int:
        """Days a file is kept after its last use; 0 is for ever."""
        return min((days for days in (self.attachment_days, self.history_days) if days), default=0)

    def sees(self, model: str) -> bool:
        """Whether `model` is sent pictures."""
        if self.image_models:
            return bool({"*", model} & set(self.image_models))
        return SEEING.search(model) is not None and BLIND.search(model) is None

    @property
    def has_model(self) -> bool:
        """Whether a provider or a model server is configured."""
        return bool(self.providers or self.openai_api_key or self.openai_base_url)

    @property
    def asked(self) -> tuple[Provider, ...]:
        """All providers, in order: where none are named, the one of OPENAI_API_KEY and OPENAI_BASE_URL."""
        return self.providers or (
            Provider(
                name=OPENAI,
                models={model: model for model in self.openai_models},
                api_key=self.openai_api_key,
                base_url=self.openai_base_url,
            ),
        )

    def label_of(self, model: str) -> str:
        """Return what people read where `model` answers."""
        return self.local_label if self.local_label and model == self.openai_model else model

    def titled_by(self, model: str) -> str | None:
        """Name the model that gives chats of a model their titles; None where none does."""
        if self.title_model:
            return None if self.title_model == TITLES_OFF else self.title_model
        return None if self.local_label else model

    def check_attachments(self) -> None:
        """Raise SettingsError where a session may not have a single file of the largest size."""
        most = self.attachments_bytes // SESSION_PART
        if self.attachment_bytes > most:
            raise SettingsError(
                f"ATTACHMENT_BYTES is {self.attachment_bytes}, and one session may have {most} (a quarter of "
                "ATTACHMENTS_MEGABYTES): lower it, or raise ATTACHMENTS_MEGABYTES."
            )

    def check_budgets(self) -> None:
        """Raise SettingsError where a day's tokens may never be enough for an answer: waiting would be in vain."""
        least = self.context_tokens + PIECE
        for name in ("TOKENS_PER_DAY", "TOKENS_PER_DAY_IN_ALL"):
            most = getattr(self, name.lower())
            if 0 < most < least:
                raise SettingsError(
                    f"{name} is {most}, and one answer may take {least} (CONTEXT_TOKENS and {PIECE}): raise it, "
                    "lower CONTEXT_TOKENS, or unset it for no limit."
                )

    def check_openid(self) -> None:
        """Raise SettingsError where an OpenID provider is half configured."""
        if self.oidc_issuer is None and (self.oidc_client_id or self.oidc_allowed or self.oidc_required):
            raise SettingsError("OIDC_ISSUER is not set, but another OIDC_… is: name the provider's address.")
        if self.oidc_issuer is not None and ("/.well-known/" in self.oidc_issuer or "?" in self.oidc_issuer):
            raise SettingsError(
                "OIDC_ISSUER has more than the provider's name: leave off /.well-known/… and all from a ? on."
            )
        if self.oidc_issuer is not None and not self.oidc_client_id:
            raise SettingsError(
                "OIDC_CLIENT_ID is not set: register this chat at OIDC_ISSUER, and name it here."
            )

    def check_deployed(self) -> None:
        """Raise SettingsError, one line naming the variable, where this may not face the public."""
        if self.debug:
            raise SettingsError("DEBUG is on; `serve` faces the public: unset it.")
        if self.secret_key is None:
            raise SettingsError(f"SECRET_KEY is not set; make one with: {MAKE_A_KEY}")
        if _guessable(self.secret_key):
            raise SettingsError(
                f"SECRET_KEY must be {BY_NAME['SECRET_KEY'].form}; make one with: {MAKE_A_KEY}"
            )
        if any(map(_guessable, self.secret_key_fallbacks)):
            raise SettingsError(
                f"SECRET_KEY_FALLBACKS must each be {BY_NAME['SECRET_KEY'].form}: they open what SECRET_KEY does."
            )
        if self.redis_url is None:
            raise SettingsError("REDIS_URL is not set, nor is REDISHOST: name the Redis to use.")
        if not self.has_model:
            raise SettingsError(
                "OPENAI_API_KEY is not set, nor is OPENAI_BASE_URL for a server that needs no key, nor PROVIDERS."
            )

    @classmethod
    def read(cls, env: Mapping[str, str] | None = None, *, local: bool) -> Settings:
        """Read `env` (the process' own where None), and where `local` the file .env for what it leaves out."""
        reader = _Reader(os.environ if env is None else env, local=local)
        railway = reader.optional("RAILWAY_PUBLIC_DOMAIN", _is_host)
        asked = _providers(reader)
        model, models = _on_offer(reader, asked)
        issuer = reader.optional("OIDC_ISSUER", is_secure_url)
        allowed = reader.given("OIDC_ALLOWED")
        required = reader.flag("OIDC_REQUIRED") if reader.given("OIDC_REQUIRED") else allowed
        return cls(
            providers=asked if reader.given("PROVIDERS") or _renames(asked) else (),
            openai_api_key=reader.optional("OPENAI_API_KEY", _is_header_value),
            openai_base_url=reader.optional("OPENAI_BASE_URL", _is_http_url),
            openai_model=model,
            openai_models=models,
            local_model=reader.path("LOCAL_MODEL"),
            system_prompt=reader.text("SYSTEM_PROMPT"),
            context_tokens=reader.number("CONTEXT_TOKENS", 256, 10_000_000),
            title_model=reader.text("TITLE_MODEL"),
            max_prompt_chars=reader.number("MAX_PROMPT_CHARS", 1, 60_000),
            temperature=reader.fraction("TEMPERATURE", 0, 2),
            model_connect_seconds=reader.seconds("MODEL_CONNECT_SECONDS"),
            model_first_seconds=reader.seconds("MODEL_FIRST_SECONDS"),
            model_between_seconds=reader.seconds("MODEL_BETWEEN_SECONDS"),
            model_answer_seconds=reader.seconds("MODEL_ANSWER_SECONDS"),
            continuation=reader.text("CONTINUATION", CONTINUATIONS.__contains__),
            redis_url=reader.optional("REDIS_URL", _is_redis_url) or _composed_redis_url(reader),
            redis_prefix=reader.text("REDIS_PREFIX", _is_prefix),
            redis_wait_seconds=reader.number("REDIS_WAIT_SECONDS", 0, 3600),
            require_durable_redis=reader.flag("REQUIRE_DURABLE_REDIS"),
            secret_key=reader.optional("SECRET_KEY"),
            secret_key_fallbacks=reader.names("SECRET_KEY_FALLBACKS"),
            debug=reader.flag("DEBUG"),
            allowed_hosts=reader.names("ALLOWED_HOSTS", _is_host) or _default_hosts(railway),
            csrf_trusted_origins=reader.names("CSRF_TRUSTED_ORIGINS", _is_origin),
            trusted_proxy_hops=reader.number("TRUSTED_PROXY_HOPS", 0, 10, default=1 if railway else 0),
            trusted_ip_header=(
                reader.text("TRUSTED_IP_HEADER", _is_header_name).lower()
                or ("x-real-ip" if railway else "x-forwarded-for")
            ),
            access_password=reader.optional("ACCESS_PASSWORD", _is_password),
            metrics_token=reader.optional("METRICS_TOKEN", _is_token),
            log_format=reader.text("LOG_FORMAT", LOG_FORMATS.__contains__) or ("text" if local else "json"),
            oidc_issuer=issuer,
            oidc_client_id=reader.text("OIDC_CLIENT_ID"),
            oidc_client_secret=reader.optional("OIDC_CLIENT_SECRET"),
            oidc_name=reader.text("OIDC_NAME", _is_short) or urlsplit(issuer or "").hostname or "",
            oidc_allowed=reader.names("OIDC_ALLOWED", _is_mail_or_domain),
            oidc_required=required,
            share_links=reader.flag("SHARE_LINKS")
            if reader.given("SHARE_LINKS")
            else not (reader.given("ACCESS_PASSWORD") or required),
            prompts_per_minute=reader.number("PROMPTS_PER_MINUTE", 0, 1_000_000),
            connections_per_minute=reader.number("CONNECTIONS_PER_MINUTE", 0, 1_000_000),
            frames_per_minute=reader.number("FRAMES_PER_MINUTE", 0, 1_000_000),
            pages_per_minute=reader.number("PAGES_PER_MINUTE", 0, 1_000_000),
            answers_at_once=reader.number("ANSWERS_AT_ONCE", 0, 1_000_000),
            tokens_per_day=reader.number("TOKENS_PER_DAY", 0, 10**12),
            tokens_per_day_in_all=reader.number("TOKENS_PER_DAY_IN_ALL", 0, 10**12),
            answers_per_instance=reader.number("ANSWERS_PER_INSTANCE", 1, 1_000_000),
            host=reader.optional("HOST", _is_address) or ("127.0.0.1" if local else "::"),
            port=reader.number("PORT", 0, 65535),
            data_dir=reader.path("DATA_DIR") or Path(),
            history_days=reader.number("HISTORY_DAYS", 0, 36_500),
            attachment_bytes=reader.number("ATTACHMENT_BYTES", 0, 20_000_000),
            attachments_megabytes=reader.number("ATTACHMENTS_MEGABYTES", 1, 1_000_000),
            attachment_days=reader.number("ATTACHMENT_DAYS", 0, 36_500),
            import_bytes=reader.number("IMPORT_BYTES", 0, 2_000_000_000),
            image_models=reader.names("IMAGE_MODELS"),
        )


class _Source(Env):
    """environs over a given mapping. An empty value counts as not set; a default is read like a value."""

    def __init__(self, given: Mapping[str, str]) -> None:
        super().__init__()
        self._given = given

    def find(self, name: str) -> str:
        value = self._given.get(name, self._environ.get(name, ""))
        return value if value.strip() else ""

    def _get_value(self, env_key: str, default: Any) -> Any:
        return self.find(env_key) or variable_of(env_key).default or default


class _Reader:
    """Reads one variable at a time; whatever is malformed becomes one SettingsError."""

    def __init__(self, env: Mapping[str, str], *, local: bool) -> None:
        self._source = _Source(env)
        if local:
            try:
                self._source.read_env(".env", recurse=False)
            except OSError as error:
                raise SettingsError(f".env cannot be read: {error.strerror}.") from error
            except ValueError as error:
                raise SettingsError(".env cannot be read: it must be a file of NAME=value lines.") from error

    def given(self, name: str) -> bool:
        return bool(self._source.find(name))

    def optional(self, name: str, fits: Callable[[str], bool] | None = None) -> str | None:
        value = self._checked(name, lambda: self._source.str(name, None))
        if value is None:
            return None
        value = value.strip()
        try:
            if fits and not fits(value):
                raise self._malformed(name)
        except ValueError as error:
            raise self._malformed(name, f"{error}; ") from None
        return value

    def text(self, name: str, fits: Callable[[str], bool] | None = None) -> str:
        return self.optional(name, fits) or ""

    def names(self, name: str, fits: Callable[[str], bool] | None = None) -> tuple[str, ...]:
        values = self._checked(name, lambda: self._source.list(name, [], subcast=str))
        names = tuple(stripped for value in values or () if (stripped := value.strip()))
        if (values and not names) or (fits and not all(map(fits, names))):
            raise self._malformed(name)
        return names

    def models(self, name: str) -> dict[str, str]:
        """Read names of models, and the provider's own name of each."""
        pairs = [[part.strip() for part in entry.split("=", 1)] for entry in self.names(name)]
        if not all(all(pair) and (pair[0] != OWN_LIST or len(pair) == 1) for pair in pairs):
            raise self._malformed(name)
        models = {pair[0]: pair[-1] for pair in pairs}
        if any(models[pair[0]] != pair[-1] for pair in pairs):
            raise self._malformed(name, "it gives one model two names; ")
        return models

    def number(self, name: str, low: int, high: int, *, default: int | None = None) -> int:
        if default is not None and not self.given(name):
            return default
        value = self._checked(name, lambda: self._source.str(name))
        if not WHOLE_NUMBER.fullmatch(value.strip()) or not low <= int(value) <= high:
            raise self._malformed(name)
        return int(value)

    def fraction(self, name: str, low: float, high: float) -> float | None:
        value = self._checked(name, lambda: self._source.float(name, None))
        if value is not None and not low <= value <= high:
            raise self._malformed(name)
        return value

    def seconds(self, name: str) -> float:
        return cast(float, self.fraction(name, 0.1, 3600))

    def flag(self, name: str) -> bool:
        return bool(self._checked(name, lambda: self._source.bool(name)))

    def path(self, name: str) -> Path | None:
        value = self._checked(name, lambda: self._source.path(name, None))
        try:
            return value.expanduser() if value else None
        except RuntimeError as error:
            raise self._malformed(name) from error

    def _checked(self, name: str, read: Callable[[], T]) -> T:
        try:
            return read()
        except EnvError as error:
            raise self._malformed(name) from error

    def _malformed(self, name: str, reason: str = "") -> SettingsError:
        variable = variable_of(name)
        if variable.secret or LOGIN.search(self._source.find(name)):
            return SettingsError(f"{name} is malformed: {reason}it must be {variable.form}.")
        return SettingsError(f"{name} is {self._source.find(name)!r}: {reason}it must be {variable.form}.")


def _providers(reader: _Reader) -> tuple[Provider, ...]:
    """Read those that are named, or OpenAI's variables alone."""
    names = reader.names("PROVIDERS", lambda name: PROVIDER_NAME.fullmatch(name) is not None) or (OPENAI,)
    if len(set(names)) < len(names):
        raise SettingsError(f"PROVIDERS is {','.join(names)!r}: it names one twice; each is asked once.")
    others = {name: _provider(reader, name) for name in names if name != OPENAI}
    return tuple(others.get(name) or _openai(reader, others.values()) for name in names)


def _openai(reader: _Reader, others: Collection[Provider]) -> Provider:
    models, model = reader.models("OPENAI_MODELS"), reader.text("OPENAI_MODEL")
    of_another = any(model in other.models for other in others)
    if not models or (reader.given("OPENAI_MODEL") and not of_another):
        models = {model: models.get(model, model), **models}
    provider = Provider(
        name=OPENAI,
        models=models,
        api_key=reader.optional("OPENAI_API_KEY", _is_header_value),
        base_url=reader.optional("OPENAI_BASE_URL", _is_http_url),
    )
    if reader.given("PROVIDERS") and not (provider.api_key or provider.base_url):
        raise SettingsError(
            "OPENAI_API_KEY is not set, nor is OPENAI_BASE_URL: set one, or leave openai out of PROVIDERS."
        )
    return provider


def _renames(providers: Collection[Provider]) -> bool:
    """Tell whether one that can be asked has names of its own for models."""
    return any(
        ours != theirs
        for provider in providers
        if provider.api_key or provider.base_url
        for ours, theirs in provider.models.items()
    )


def _provider(reader: _Reader, name: str) -> Provider:
    api_key, base_url, models, api_version = (f"{name.upper()}_{each.name}" for each in PROVIDER_VARIABLES)
    for taken in {api_key, base_url, models, api_version} & BY_NAME.keys():
        raise SettingsError(f"PROVIDERS names {name}, and {taken} means something else: name it otherwise.")
    provider = Provider(
        name=name,
        models=reader.models(models),
        api_key=reader.optional(api_key, _is_header_value),
        base_url=reader.optional(base_url, _is_http_url),
        api_version=reader.optional(api_version, lambda value: API_VERSION.fullmatch(value) is not None),
    )
    if provider.base_url is None:
        raise SettingsError(
            f"{base_url} is not set: say where {name} of PROVIDERS is, or leave it out there."
        )
    if not provider.models:
        raise SettingsError(
            f"{models} is not set: name the models of {name}, or * for those of its own list."
        )
    if provider.api_version and provider.has_own_list:
        raise SettingsError(
            f"{models} has *, and Azure lists no deployments: name each, as in gpt-4o=deployment."
        )
    if provider.api_version and urlsplit(provider.base_url).path.strip("/"):
        raise SettingsError(
            f"{base_url} has a path: beside {api_version} it is the endpoint alone; for Azure's v1 unset that one."
        )
    return provider


def _on_offer(reader: _Reader, providers: Sequence[Provider]) -> tuple[str, tuple[str, ...]]:
    """Choose the default model, and order all that are on offer: it first, lists of the providers' own last."""
    offered = dict.fromkeys(model for provider in providers for model in provider.models)
    named = [model for model in offered if model != OWN_LIST]
    own = [OWN_LIST] if OWN_LIST in offered else []
    chosen = reader.given("OPENAI_MODEL")
    model = named[0] if named and not chosen else reader.text("OPENAI_MODEL")
    if chosen and not own and model not in named:
        raise SettingsError(
            f"OPENAI_MODEL is {model!r}, which no provider has: name one of {', '.join(named)}, or add it to a provider's."
        )
    first = [model] if named or chosen else []
    return model, tuple(dict.fromkeys([*first, *named, *own]))


def _composed_redis_url(reader: _Reader) -> str | None:
    host = reader.optional("REDISHOST", _is_host)
    port = reader.number("REDISPORT", 1, 65535)
    if host is None:
        return None
    user, password = reader.text("REDISUSER"), reader.text("REDISPASSWORD")
    login = f"{quote(user, safe='')}:{quote(password, safe='')}@" if user or password else ""
    return f"redis://{login}{f'[{host}]' if ':' in host and not host.startswith('[') else host}:{port}"


def _default_hosts(railway: str | None) -> tuple[str, ...]:
    return ("localhost", "127.0.0.1", "[::1]", *((railway,) if railway else ()))


def _is_host(value: str) -> bool:
    strange = any(character.isspace() or character in "/@?#\\" for character in value)
    return not strange and bool(value.strip(":."))


def _is_address(value: str) -> bool:
    return value in {"::", "[::]"} or _is_host(value)


def _is_prefix(value: str) -> bool:
    # Braces would make a hash tag, and wildcards a pattern, of every key.
    return len(value) <= 40 and value.isascii() and value.translate({45: "", 46: "", 95: ""}).isalnum()


def _is_header_value(value: str) -> bool:
    return value.isascii() and value.isprintable() and " " not in value


def _is_token(value: str) -> bool:
    return len(value) >= TOKEN_LENGTH and _is_header_value(value)


def _is_header_name(value: str) -> bool:
    return HEADER_NAME.fullmatch(value) is not None


def _is_password(value: str) -> bool:
    if not value.startswith("$argon2"):
        return len(value) >= PASSWORD_LENGTH and value.isprintable()
    try:
        return PasswordHasher().verify(value, b"")
    except VerifyMismatchError:
        return True
    except (VerificationError, InvalidHashError):
        return False


def _is_http_url(value: str) -> bool:
    return _scheme_and_host(value, {"http", "https"})


def _is_origin(value: str) -> bool:
    return _is_http_url(value) and value.count("/") == 2 and _is_host(value.partition("://")[2])


def is_secure_url(value: object) -> TypeGuard[str]:
    """Tell whether a value is an https address, or an http one of this machine."""
    if not isinstance(value, str) or not _is_http_url(value):
        return False
    parts = urlsplit(value)
    return parts.scheme == "https" or parts.hostname in LOOPBACK


def _is_short(value: str) -> bool:
    return len(value) <= NAME_LENGTH and value.isprintable()


def _is_mail_or_domain(value: str) -> bool:
    return MAIL_OR_DOMAIN.fullmatch(value) is not None


def _is_redis_url(value: str) -> bool:
    RedisUrl.parse(value)
    return True


def _scheme_and_host(value: str, schemes: set[str]) -> bool:
    try:
        parts = urlsplit(value)
        fits = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0 and parts.username is None
        return fits and _is_host(parts.hostname or "")
    except ValueError:
        return False


def _guessable(key: str) -> bool:
    told = any(word in key.lower() for word in WELL_KNOWN)
    return told or len(key) < SECRET_KEY_LENGTH or len(set(key)) < 8
