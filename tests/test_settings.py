"""Settings: what is read, what is refused and in which words, what never shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmchat.access import hash_of
from llmchat.errors import SettingsError
from llmchat.settings import Settings
from llmchat.variables import VARIABLES

DEPLOYED = {
    "SECRET_KEY": "k3Yw0rds-f0r-the-tests-0nly-4711-abcdef",
    "REDIS_URL": "redis://redis.internal:6379/0",
    "OPENAI_API_KEY": "sk-of-the-tests",
}


def read(**env: str) -> Settings:
    return Settings.read(env, local=False)


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # no .env of whoever runs the tests


def test_an_empty_environment_gives_the_defaults() -> None:
    assert read() == Settings(host="::", log_format="json")
    assert Settings.read({}, local=True) == Settings()


def test_every_field_that_a_variable_fills_is_named_like_it() -> None:
    composed = {"REDISHOST", "REDISPORT", "REDISUSER", "REDISPASSWORD", "RAILWAY_PUBLIC_DOMAIN"}
    fields = set(Settings.__dataclass_fields__) - {"local_label"}
    assert fields == {variable.name.lower() for variable in VARIABLES} - {name.lower() for name in composed}


def test_an_empty_variable_counts_as_not_set() -> None:
    assert read(**{variable.name: " " for variable in VARIABLES}) == read()


def test_the_settings_are_read_as_given() -> None:
    settings = read(
        OPENAI_API_KEY=" sk-1 ",
        OPENAI_BASE_URL="http://localhost:11434/v1",
        OPENAI_MODEL="large",
        OPENAI_MODELS="small, large,,small",
        LOCAL_MODEL="models/a.gguf",
        TEMPERATURE="0.5",
        SECRET_KEY_FALLBACKS="one,two",
        DEBUG="on",
        ALLOWED_HOSTS="chat.example.com,[::1]",
        CSRF_TRUSTED_ORIGINS="https://chat.example.com,http://[::1]:8000",
        TRUSTED_PROXY_HOPS="1",
        HOST="0.0.0.0",
        PORT="0",
        DATA_DIR="elsewhere",
        HISTORY_DAYS="0",
    )
    assert settings.openai_api_key == "sk-1"
    assert settings.openai_base_url == "http://localhost:11434/v1"
    assert settings.openai_models == ("large", "small")
    assert settings.local_model == Path("models/a.gguf")
    assert settings.temperature == 0.5
    assert settings.secret_key_fallbacks == ("one", "two")
    assert settings.debug
    assert settings.allowed_hosts == ("chat.example.com", "[::1]")
    assert settings.csrf_trusted_origins == ("https://chat.example.com", "http://[::1]:8000")
    assert (settings.trusted_proxy_hops, settings.host, settings.port) == (1, "0.0.0.0", 0)
    assert (settings.data_dir, settings.history_days) == (Path("elsewhere"), 0)


def test_the_first_model_offered_answers_where_none_is_named() -> None:
    settings = read(OPENAI_MODELS="one,two")
    assert settings.openai_model == "one"
    assert settings.openai_models == ("one", "two")


@pytest.mark.parametrize(
    ("env", "model", "models"),
    [
        ({"OPENAI_MODELS": "*"}, "gpt-4o-mini", ("*",)),
        ({"OPENAI_MODELS": "*,one", "OPENAI_MODEL": "two"}, "two", ("two", "one", "*")),
        ({"OPENAI_MODELS": "one, *"}, "one", ("one", "*")),
        ({"OPENAI_MODELS": "*", "OPENAI_MODEL": "two"}, "two", ("two", "*")),
    ],
)
def test_star_among_the_models_comes_last(env: dict[str, str], model: str, models: tuple[str, ...]) -> None:
    settings = read(**env)
    assert (settings.openai_model, settings.openai_models) == (model, models)


@pytest.mark.parametrize(
    ("env", "url"),
    [
        ({}, None),
        ({"REDISHOST": "cache"}, "redis://cache:6379"),
        ({"REDISHOST": "fd12::1", "REDISPORT": "7000"}, "redis://[fd12::1]:7000"),
        ({"REDISHOST": "cache", "REDISPASSWORD": "p@:/ss#"}, "redis://:p%40%3A%2Fss%23@cache:6379"),
        ({"REDISHOST": "cache", "REDISUSER": "u", "REDISPASSWORD": "p"}, "redis://u:p@cache:6379"),
        ({"REDISHOST": "cache", "REDIS_URL": "rediss://other:1/2"}, "rediss://other:1/2"),
        ({"REDIS_URL": "unix:///run/valkey.sock"}, "unix:///run/valkey.sock"),
    ],
)
def test_redis_is_named_by_url_or_by_its_parts(env: dict[str, str], url: str | None) -> None:
    assert read(**env).redis_url == url


OPENID = {"OIDC_ISSUER": "https://id.example.com/realms/people", "OIDC_CLIENT_ID": "llmchat"}


def test_the_openid_provider_is_called_by_its_host_unless_it_has_a_name() -> None:
    settings = read(**OPENID)
    assert (settings.oidc_issuer, settings.oidc_name) == (OPENID["OIDC_ISSUER"], "id.example.com")
    assert read(**OPENID, OIDC_NAME="Example").oidc_name == "Example"
    assert read(OIDC_ISSUER="http://127.0.0.1:9000", OIDC_CLIENT_ID="c").oidc_name == "127.0.0.1"


@pytest.mark.parametrize(
    ("env", "required", "shared"),
    [
        ({}, False, True),
        ({"OIDC_REQUIRED": "true"}, True, False),
        ({"OIDC_ALLOWED": "example.com, ann@example.org"}, True, False),
        ({"OIDC_ALLOWED": "example.com", "OIDC_REQUIRED": "false"}, False, True),
        ({"OIDC_REQUIRED": "true", "SHARE_LINKS": "true"}, True, True),
    ],
)
def test_signing_in_is_required_where_only_some_may(
    env: dict[str, str], required: bool, shared: bool
) -> None:
    settings = read(**OPENID, **env)
    assert (settings.oidc_required, settings.share_links) == (required, shared)


def test_issuer_with_more_than_its_name_is_refused() -> None:
    for more in ("/.well-known/openid-configuration", "?x=1"):
        with pytest.raises(SettingsError, match=r"^OIDC_ISSUER has more than the provider's name: leave off"):
            read(OIDC_ISSUER=f"https://id.example.com{more}", OIDC_CLIENT_ID="llmchat").check_openid()


@pytest.mark.parametrize("allowed", ["*.example.com", ".example.com", "https://example.com", "ann@"])
def test_what_is_neither_address_nor_domain_lets_nobody_in_and_is_refused(allowed: str) -> None:
    assert read(OIDC_ALLOWED="@example.org, ann@example.com").oidc_allowed
    with pytest.raises(SettingsError, match=r"^OIDC_ALLOWED is "):
        read(OIDC_ALLOWED=allowed)


@pytest.mark.parametrize(
    ("env", "named"),
    [
        ({"OIDC_CLIENT_ID": "llmchat"}, "OIDC_ISSUER"),
        ({"OIDC_ALLOWED": "example.com"}, "OIDC_ISSUER"),
        ({"OIDC_REQUIRED": "true"}, "OIDC_ISSUER"),
        ({"OIDC_ISSUER": "https://id.example.com"}, "OIDC_CLIENT_ID"),
    ],
)
def test_half_an_openid_provider_is_refused(env: dict[str, str], named: str) -> None:
    with pytest.raises(SettingsError, match=f"^{named} is not set"):
        read(**env).check_openid()


@pytest.mark.parametrize("name", ["TOKENS_PER_DAY", "TOKENS_PER_DAY_IN_ALL"])
def test_budget_that_is_never_enough_for_an_answer_is_refused_with_what_would_be(name: str) -> None:
    for tokens in ("0", "8500"):
        read(**{name: tokens}).check_budgets()
    with pytest.raises(SettingsError, match=rf"^{name} is 8499, and one answer may take 8500 "):
        read(**{name: "8499"}).check_budgets()


def test_the_domain_that_railway_gives_is_an_allowed_host() -> None:
    domain = "chat.up.railway.app"
    assert domain in read(RAILWAY_PUBLIC_DOMAIN=domain).allowed_hosts
    assert domain not in read(RAILWAY_PUBLIC_DOMAIN=domain, ALLOWED_HOSTS="other").allowed_hosts


def test_the_proxy_of_railway_is_believed_where_nothing_else_is_said() -> None:
    assert (read().trusted_proxy_hops, read().trusted_ip_header) == (0, "x-forwarded-for")
    railway = {"RAILWAY_PUBLIC_DOMAIN": "chat.up.railway.app"}
    assert (read(**railway).trusted_proxy_hops, read(**railway).trusted_ip_header) == (1, "x-real-ip")
    said = read(**railway, TRUSTED_PROXY_HOPS="2", TRUSTED_IP_HEADER="X-Forwarded-For")
    assert (said.trusted_proxy_hops, said.trusted_ip_header) == (2, "x-forwarded-for")


@pytest.mark.parametrize(
    ("password", "taken"),
    [
        ("eight ch", True),
        ("seven c", False),
        pytest.param(hash_of("eight ch"), True, id="hash"),
        ("$argon2id$v=19$m=65536", False),
        ("$argon2-is-no-hash", False),
        ("$argon2id$v=19$m=65536,t=3,p=4$AAAA$BBBB", False),
        pytest.param(hash_of("eight ch").rpartition("$")[0] + "$", False, id="hash without its end"),
        ("eight ch\udc80", False),
    ],
)
def test_a_password_is_long_enough_or_a_hash(password: str, taken: bool) -> None:
    if taken:
        assert read(ACCESS_PASSWORD=password).access_password == password
        return
    with pytest.raises(SettingsError) as raised:
        read(ACCESS_PASSWORD=password)
    assert password not in str(raised.value)


@pytest.mark.parametrize(
    "token",
    [
        "thirty-one-letters-------------",
        "with a space in it, and long enough",
        "with-ümlauts-in-it-and-long-enough",
    ],
)
def test_a_metrics_token_that_is_short_or_no_header_is_refused_and_not_told(token: str) -> None:
    long_enough = "thirty-two-letters--------------"
    assert read(METRICS_TOKEN=long_enough).metrics_token == long_enough
    with pytest.raises(
        SettingsError, match=r"^METRICS_TOKEN is malformed: it must be of at least 32"
    ) as raised:
        read(METRICS_TOKEN=token)
    assert token not in str(raised.value)


@pytest.mark.parametrize("host", ["::", "[::]", "0.0.0.0", "::1", "localhost"])
def test_every_address_may_be_listened_on(host: str) -> None:
    assert read(HOST=host).host == host


MALFORMED = [
    ("PORT", "eighty"),
    ("PORT", "70000"),
    ("PORT", "-1"),
    ("PORT", "80_80"),
    ("PORT", "８０８０"),
    ("OPENAI_MODELS", ","),
    ("REDISHOST", ":"),
    ("REDISPORT", "0"),
    ("CONTEXT_TOKENS", "1.5"),
    ("CONTEXT_TOKENS", "12"),
    ("MAX_PROMPT_CHARS", "0"),
    ("TEMPERATURE", "warm"),
    ("TEMPERATURE", "nan"),
    ("TEMPERATURE", "3"),
    ("DEBUG", "maybe"),
    ("TRUSTED_PROXY_HOPS", "-1"),
    ("TRUSTED_IP_HEADER", "X Real IP"),
    ("TRUSTED_IP_HEADER", "X-Real-IP: 1"),
    ("REDIS_WAIT_SECONDS", "long"),
    ("REQUIRE_DURABLE_REDIS", "perhaps"),
    ("PROMPTS_PER_MINUTE", "-1"),
    ("CONNECTIONS_PER_MINUTE", "1.5"),
    ("FRAMES_PER_MINUTE", "many"),
    ("PAGES_PER_MINUTE", "-1"),
    ("HISTORY_DAYS", "-1"),
    ("LOG_FORMAT", "xml"),
    ("REDIS_PREFIX", "{tag}"),
    ("REDIS_PREFIX", "-"),
    ("ALLOWED_HOSTS", "chat.example.com,https://other"),
    ("CSRF_TRUSTED_ORIGINS", "chat.example.com"),
    ("CSRF_TRUSTED_ORIGINS", "https://chat.example.com/path"),
    ("OIDC_ISSUER", "http://id.example.com"),
    ("OIDC_ISSUER", "id.example.com"),
    ("OIDC_ALLOWED", "example.com, two words"),
    ("OIDC_ALLOWED", "ann@"),
    ("OIDC_NAME", "x" * 41),
    ("OIDC_REQUIRED", "perhaps"),
    ("HOST", "local host"),
    ("REDISHOST", "user@host"),
    ("DATA_DIR", "~nobody-has-this-name/x"),
]


@pytest.mark.parametrize(("name", "value"), MALFORMED)
def test_a_malformed_value_is_one_line_with_name_value_and_form(name: str, value: str) -> None:
    with pytest.raises(SettingsError) as raised:
        read(**{name: value})
    form = next(variable.form for variable in VARIABLES if variable.name == name)
    assert str(raised.value) == f"{name} is {value!r}: it must be {form}."


@pytest.mark.parametrize("name", ["REDIS_URL", "OPENAI_BASE_URL"])
@pytest.mark.parametrize(
    "value",
    ["cache:hunter2", "ftp://u:hunter2@cache", "http://[hunter2", "redis://", "http://hun ter2/v1",
     "redis://cache/hunter2"],
)  # fmt: skip
def test_a_malformed_secret_is_not_told(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"^{name} is malformed: .*it must be an address like") as raised:
        read(**{name: value})
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize("name", ["OPENAI_BASE_URL", "OIDC_ISSUER"])
def test_login_in_an_address_is_refused_and_not_told(name: str) -> None:
    with pytest.raises(SettingsError, match=f"^{name} is malformed: it must be an") as raised:
        read(**{name: "https://u:hunter2@example.com/v1"})
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize("value", ["sk-ключ-hunter2", "sk hunter2", "sk\thunter2"])
def test_a_key_that_no_header_carries_is_refused_and_not_told(value: str) -> None:
    with pytest.raises(SettingsError, match="OPENAI_API_KEY is malformed") as raised:
        read(OPENAI_API_KEY=value)
    assert "hunter2" not in str(raised.value)


def test_the_settings_show_no_secret() -> None:
    secrets = {
        "OPENAI_API_KEY": "hunter2",
        "OPENAI_BASE_URL": "http://localhost/v1?key=hunter2",
        "REDISHOST": "cache",
        "REDISPASSWORD": "hunter2",
        "SECRET_KEY": "hunter2",
        "SECRET_KEY_FALLBACKS": "hunter2",
    }
    assert "hunter2" not in repr(read(**secrets))


def test_the_env_file_fills_in_for_the_environment_where_local(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("PORT=1234\nOPENAI_MODEL='from the file'\n")
    settings = Settings.read({"PORT": "4321"}, local=True)
    assert (settings.port, settings.openai_model) == (4321, "from the file")
    assert Settings.read({}, local=False).port == 8000


def test_an_empty_variable_silences_the_env_file(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("OPENAI_API_KEY=sk-1\n")
    assert Settings.read({"OPENAI_API_KEY": ""}, local=True).openai_api_key is None


def test_an_env_file_that_is_no_text_is_one_line(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match=r"^\.env cannot be read"):
        Settings.read({}, local=True)


def test_complete_settings_may_be_deployed() -> None:
    read(**DEPLOYED).check_deployed()
    read(**{**DEPLOYED, "OPENAI_API_KEY": "", "OPENAI_BASE_URL": "http://model:8080/v1"}).check_deployed()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"SECRET_KEY": ""}, "SECRET_KEY"),
        ({"SECRET_KEY": "too-short-a-key"}, "SECRET_KEY"),
        ({"SECRET_KEY": "a" * 64}, "SECRET_KEY"),
        ({"SECRET_KEY": "django-insecure-0123456789abcdefghijklmnop"}, "SECRET_KEY"),
        ({"SECRET_KEY": "ChangeMe-0123456789abcdefghijklmnopqrstuv"}, "SECRET_KEY"),
        ({"REDIS_URL": ""}, "REDIS_URL"),
        ({"OPENAI_API_KEY": ""}, "OPENAI_API_KEY"),
        ({"DEBUG": "true"}, "DEBUG"),
    ],
)
def test_unfit_settings_may_not_be_deployed(change: dict[str, str], named: str) -> None:
    with pytest.raises(SettingsError) as raised:
        read(**{**DEPLOYED, **change}).check_deployed()
    assert str(raised.value).startswith(named)
    assert change.get("SECRET_KEY") not in str(raised.value).split()


def test_the_local_model_is_called_by_its_label() -> None:
    settings = Settings(openai_model="small", local_label="Small (on this machine)")
    assert settings.label_of("small") == "Small (on this machine)"
    assert settings.label_of("other") == "other"
    assert Settings().label_of("gpt-4o-mini") == "gpt-4o-mini"
