"""Every environment variable: its name, default, meaning and form.

`VARIABLES` is the one source: the reader of settings, `--help` and the tests of the documents all use it. Reads nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

SECRET_KEY_LENGTH = 32
PASSWORD_LENGTH = 8
TOKEN_LENGTH = 32
ADDRESS_SHARE = 5
"""What an address may do more than a session: several people may be behind it."""
PIECE = 500
"""Tokens of an answer that are taken of a day's budget at once: with fewer left none is begun, nor goes on."""
SECONDS = "a number of seconds from 0.1 to 3600"


@dataclass(frozen=True, slots=True)
class Variable:
    """One environment variable. `default` is read like a given value; `shown` replaces it in documents."""

    name: str
    default: str
    meaning: str
    form: str = "a text"
    secret: bool = False
    shown: str = ""

    @property
    def default_shown(self) -> str:
        return self.shown or self.default or "none"


KEY_FORM = "of ASCII letters, digits and signs, without spaces"
MODELS_FORM = "names separated by commas, each alone or as name=its own name, or *"

VARIABLES = (
    Variable(
        "PROVIDERS",
        "",
        "the names of several providers, separated by commas, in the order in which they are asked; each has variables of its own, see Providers",
        "names like openai,azure,ollama: of lower case letters, digits and underscores",
        shown="`openai`, with the variables below",
    ),
    Variable(
        "OPENAI_API_KEY",
        "",
        "the key of the model's provider",
        KEY_FORM,
        secret=True,
    ),
    Variable(
        "OPENAI_BASE_URL",
        "",
        "another OpenAI-compatible server",
        "an address like http://localhost:11434/v1, without a login",
        secret=True,
        shown="the provider's own",
    ),
    Variable(
        "OPENAI_MODEL",
        "gpt-4o-mini",
        "the model that answers, of whichever provider",
        "a model's name",
    ),
    Variable(
        "OPENAI_MODELS",
        "",
        "the models offered, separated by commas; the first answers where OPENAI_MODEL is not set. `*` is those of the provider's own list",
        MODELS_FORM,
        shown="OPENAI_MODEL alone",
    ),
    Variable(
        "LOCAL_MODEL",
        "",
        "a GGUF file that answers on this machine where no key and no server is set (`run` only)",
        "the path of a GGUF file",
        shown="SmolLM2 135M",
    ),
    Variable(
        "SYSTEM_PROMPT",
        "You are helpful and friendly. Be short but concise as you can!",
        "what the model is told before every conversation; at most half of CONTEXT_TOKENS",
    ),
    Variable(
        "CONTEXT_TOKENS",
        "8000",
        "how much of a conversation the model is sent, in tokens",
        "a whole number from 256 to 10000000",
    ),
    Variable(
        "TITLE_MODEL",
        "",
        "the model that names chats, after their first answer; `off`: they keep their first words",
        "a model's name, or off",
        shown="the chat's own; none on this machine",
    ),
    Variable("MAX_PROMPT_CHARS", "16000", "the longest prompt accepted", "a whole number from 1 to 60000"),
    Variable(
        "TEMPERATURE",
        "",
        "how freely the model words",
        "a number from 0 to 2",
        shown="the model server's own",
    ),
    Variable("MODEL_CONNECT_SECONDS", "5", "how long the model server may take to be connected to", SECONDS),
    Variable(
        "MODEL_FIRST_SECONDS",
        "60",
        "how long it may take to its answer's first token; several providers share it",
        SECONDS,
    ),
    Variable("MODEL_BETWEEN_SECONDS", "30", "how long it may be silent between two tokens", SECONDS),
    Variable(
        "MODEL_ANSWER_SECONDS",
        "300",
        "how long a whole answer may take, once the model server is asked for it",
        SECONDS,
    ),
    Variable(
        "CONTINUATION",
        "auto",
        "how the model server is given the beginning of an answer to go on with: `auto` asks it (once an instance, provider and model, by one or two requests of a token at most), `never`, "
        "`flag` (vLLM, llama.cpp), `last` (the last message is enough), `prefix` (Mistral, DeepSeek)",
        "auto, never, flag, last or prefix",
    ),
    Variable(
        "REDIS_URL",
        "",
        "where Redis is; wins over REDISHOST",
        "an address like redis://localhost:6379/0, rediss://…, unix:///…, redis+sentinel://… or redis+cluster://…",
        secret=True,
        shown="an embedded Valkey (`serve`: required, or REDISHOST)",
    ),
    Variable("REDISHOST", "", "Redis' host name", "a host name or an IP address"),
    Variable("REDISPORT", "6379", "Redis' port", "a port from 1 to 65535"),
    Variable("REDISUSER", "", "Redis' user"),
    Variable("REDISPASSWORD", "", "Redis' password", secret=True),
    Variable(
        "REDIS_PREFIX",
        "llmchat",
        "what every key in Redis begins with",
        "up to 40 letters, digits, dots, dashes, underscores",
    ),
    Variable(
        "REDIS_WAIT_SECONDS",
        "60",
        "how long a start waits for a Redis that is not there yet",
        "a whole number from 0 to 3600",
    ),
    Variable(
        "REQUIRE_DURABLE_REDIS",
        "false",
        "refuse to start where Redis may lose history, or does not say",
        "true or false",
    ),
    Variable(
        "SECRET_KEY",
        "",
        f"signs the session cookie; `serve` wants at least {SECRET_KEY_LENGTH} characters",
        f"at least {SECRET_KEY_LENGTH} characters that nobody can guess",
        secret=True,
        shown="made once and kept in DATA_DIR (`serve`: required)",
    ),
    Variable(
        "SECRET_KEY_FALLBACKS",
        "",
        "earlier keys whose cookies are still read, separated by commas",
        "keys separated by commas",
        secret=True,
    ),
    Variable(
        "DEBUG",
        "false",
        "reload on change and tell more in the log (`run` only; `serve` refuses it)",
        "true or false",
    ),
    Variable(
        "ALLOWED_HOSTS",
        "",
        "the host names served, separated by commas",
        "host names separated by commas",
        shown="localhost, 127.0.0.1, [::1] and RAILWAY_PUBLIC_DOMAIN",
    ),
    Variable(
        "RAILWAY_PUBLIC_DOMAIN",
        "",
        "set by Railway; joins ALLOWED_HOSTS' default, and has Railway's proxy believed",
        "a host name",
    ),
    Variable(
        "CSRF_TRUSTED_ORIGINS",
        "",
        "origins trusted beside the page's own, separated by commas",
        "origins like https://chat.example.com, separated by commas",
    ),
    Variable(
        "TRUSTED_PROXY_HOPS",
        "",
        "how many proxies stand in front, whose X-Forwarded-Proto and TRUSTED_IP_HEADER are believed",
        "a whole number from 0 to 10",
        shown="0 (on Railway: 1)",
    ),
    Variable(
        "TRUSTED_IP_HEADER",
        "",
        "where the proxies write the visitor's address",
        "the name of a header, like X-Real-IP",
        shown="X-Forwarded-For (on Railway: X-Real-IP)",
    ),
    Variable(
        "ACCESS_PASSWORD",
        "",
        "asked of everybody who wants to chat; in the clear, or as `python -m llmchat hash` prints it",
        f"of at least {PASSWORD_LENGTH} characters, or an argon2 hash",
        secret=True,
    ),
    Variable(
        "METRICS_TOKEN",
        "",
        "what a Prometheus has to know to read `/metrics`, which is not there without it",
        f"of at least {TOKEN_LENGTH} ASCII letters, digits and signs, without spaces",
        secret=True,
    ),
    Variable(
        "LOG_FORMAT",
        "",
        "how the log is written: `json`, an object a line, or `text`, for a person",
        "json or text",
        shown="json (`run`: text)",
    ),
    Variable(
        "OIDC_ISSUER",
        "",
        "the OpenID provider by which people may sign in, as it calls itself",
        "an https address, or an http one of this machine",
    ),
    Variable("OIDC_CLIENT_ID", "", "what the provider calls this chat; required with OIDC_ISSUER"),
    Variable(
        "OIDC_CLIENT_SECRET",
        "",
        "the secret that goes with it; none for a public client",
        secret=True,
    ),
    Variable(
        "OIDC_NAME",
        "",
        "what people call the provider: on the page stands “Sign in with …”",
        "a name of at most 40 characters",
        shown="the provider's host",
    ),
    Variable(
        "OIDC_ALLOWED",
        "",
        "whose accounts may come in: mail addresses and domains of them, separated by commas, which the provider must have verified",
        "addresses and domains separated by commas, like ann@example.com, example.org",
        shown="all that the provider has",
    ),
    Variable(
        "OIDC_REQUIRED",
        "",
        "whether nobody chats without signing in; where ACCESS_PASSWORD is set, too, either is enough",
        "true or false",
        shown="`true` where OIDC_ALLOWED is set, else `false`",
    ),
    Variable(
        "SHARE_LINKS",
        "",
        "whether a chat can be shared by a link, which shows it to whoever has it, also without the password and without signing in",
        "true or false",
        shown="`true`; where a password is asked, or signing in is required, `false`",
    ),
    Variable(
        "PROMPTS_PER_MINUTE",
        "30",
        f"of one session, and {ADDRESS_SHARE} times as many of one address; 0 sets no limit",
        "a whole number from 0 to 1000000",
    ),
    Variable(
        "CONNECTIONS_PER_MINUTE",
        "120",
        "likewise, websockets opened",
        "a whole number from 0 to 1000000",
    ),
    Variable(
        "FRAMES_PER_MINUTE",
        "1200",
        "likewise, frames sent over websockets",
        "a whole number from 0 to 1000000",
    ),
    Variable(
        "PAGES_PER_MINUTE",
        "300",
        "likewise, pages asked for and forms sent",
        "a whole number from 0 to 1000000",
    ),
    Variable(
        "ANSWERS_AT_ONCE",
        "10",
        f"chats that are answered at once for one session, and {ADDRESS_SHARE} times as many for one address; 0 sets no limit",
        "a whole number from 0 to 1000000",
    ),
    Variable(
        "TOKENS_PER_DAY",
        "0",
        f"what one session may have the models read and write in a day of UTC, and {ADDRESS_SHARE} times as much one address: at least CONTEXT_TOKENS and {PIECE}; 0 sets no limit",
        "a whole number from 0 to 1000000000000",
    ),
    Variable(
        "TOKENS_PER_DAY_IN_ALL",
        "0",
        "likewise, all sessions together",
        "a whole number from 0 to 1000000000000",
    ),
    Variable(
        "ANSWERS_PER_INSTANCE",
        "250",
        "answers that one instance makes at once; further prompts are refused for a moment",
        "a whole number from 1 to 1000000",
    ),
    Variable(
        "HOST",
        "",
        "the address to listen on",
        "a host name or an IP address",
        shown="127.0.0.1 (`serve`: ::, which is IPv4 and IPv6)",
    ),
    Variable("PORT", "8000", "the port to listen on; 0 takes a free one", "a port from 0 to 65535"),
    Variable(
        "DATA_DIR",
        ".llmchat",
        "the folder of the embedded Valkey, its log and the made SECRET_KEY",
        "the path of a folder",
    ),
    Variable(
        "HISTORY_DAYS",
        "400",
        "days a conversation is kept after its last use; 0 keeps it for ever",
        "a whole number from 0 to 36500",
    ),
    Variable(
        "ATTACHMENT_BYTES",
        "5000000",
        "the largest picture or text file taken; 0 takes none",
        "a whole number from 0 to 20000000",
    ),
    Variable(
        "ATTACHMENTS_MEGABYTES",
        "256",
        "how much of them Redis keeps in all; of one session a quarter, which must hold the largest",
        "a whole number from 1 to 1000000",
    ),
    Variable(
        "ATTACHMENT_DAYS",
        "90",
        "days one is kept after it was last sent to the model, at most HISTORY_DAYS; 0 keeps it as long as that",
        "a whole number from 0 to 36500",
    ),
    Variable(
        "IMPORT_BYTES",
        "200000000",
        "the largest file of chats that is imported; 0 imports none",
        "a whole number from 0 to 2000000000",
    ),
    Variable(
        "IMAGE_MODELS",
        "",
        "the models that are sent pictures, separated by commas; `*` is all",
        "names separated by commas, or *",
        shown="those of names that are known to see",
    ),
)

PROVIDER_VARIABLES = (
    Variable("API_KEY", "", "its key, where it wants one", KEY_FORM, secret=True),
    Variable(
        "BASE_URL",
        "",
        "where it speaks OpenAI's protocol; `openai` alone has one of its own",
        "an address like https://llm.example.com/v1, without a login",
        secret=True,
    ),
    Variable(
        "MODELS",
        "",
        "its models, separated by commas; `name=its own name` where it has another for one, as Azure has deployments; `*` is those of its own list",
        MODELS_FORM,
    ),
    Variable(
        "API_VERSION",
        "",
        "of Azure's API by deployments, where BASE_URL is the resource's endpoint; all else, and Azure's v1, has none",
        "a version like 2024-10-21",
    ),
)
"""What each of PROVIDERS has, behind its name in capitals."""

BY_NAME = {each.name: each for each in VARIABLES}


def variable_of(name: str) -> Variable:
    """Find a setting; those of a provider are named behind it."""
    known = BY_NAME.get(name)
    return known or next(
        replace(each, name=name) for each in PROVIDER_VARIABLES if name.endswith(f"_{each.name}")
    )
