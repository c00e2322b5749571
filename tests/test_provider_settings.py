"""Several providers in settings: what is read of each, what is on offer, what is refused and in which words."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmchat.errors import SettingsError
from llmchat.provider import Provider
from llmchat.settings import Settings
from llmchat.variables import PROVIDER_VARIABLES, VARIABLES

OPENAI = {"OPENAI_API_KEY": "sk-1"}
AZURE = {
    "AZURE_API_KEY": "key-2",
    "AZURE_BASE_URL": "https://chat.openai.azure.com/",
    "AZURE_MODELS": "gpt-4o=deployed, gpt-4o-mini = small-one",
    "AZURE_API_VERSION": "2024-10-21",
}
LOCAL = {"LOCAL_BASE_URL": "http://localhost:11434/v1", "LOCAL_MODELS": "llama3.2,*"}
ALL = {"PROVIDERS": "openai, azure, local", **OPENAI, **AZURE, **LOCAL}


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # no .env of whoever runs the tests


def read(env: dict[str, str], **more: str) -> Settings:
    return Settings.read({**env, **more}, local=False)


def test_providers_are_read_in_their_order_each_with_its_own_variables() -> None:
    settings = read(ALL)
    assert settings.asked == settings.providers
    assert settings.providers == (
        Provider(name="openai", models={"gpt-4o-mini": "gpt-4o-mini"}, api_key="sk-1"),
        Provider(
            name="azure",
            models={"gpt-4o": "deployed", "gpt-4o-mini": "small-one"},
            api_key="key-2",
            base_url="https://chat.openai.azure.com/",
            api_version="2024-10-21",
        ),
        Provider(
            name="local",
            models={"llama3.2": "llama3.2", "*": "*"},
            base_url="http://localhost:11434/v1",
        ),
    )
    assert settings.has_model
    assert "key-2" not in repr(settings)


def test_openai_alone_is_the_provider_where_none_are_named() -> None:
    settings = read(OPENAI, OPENAI_BASE_URL="http://localhost/v1", OPENAI_MODELS="a,*")
    assert settings.providers == ()
    assert settings.asked == (
        Provider(name="openai", models={"a": "a", "*": "*"}, api_key="sk-1", base_url="http://localhost/v1"),
    )
    assert not Settings.read({}, local=True).has_model


def test_openai_has_names_of_its_own_for_models_too() -> None:
    settings = read(OPENAI, OPENAI_MODELS="small=gpt-4o-mini,gpt-4o")
    assert (settings.openai_model, settings.openai_models) == ("small", ("small", "gpt-4o"))
    assert [each.own_name("small") for each in settings.asked] == ["gpt-4o-mini"]
    assert not Settings.read({"OPENAI_MODELS": "small=gpt-4o-mini"}, local=True).has_model


@pytest.mark.parametrize(
    ("change", "model", "models"),
    [
        ({}, "gpt-4o-mini", ("gpt-4o-mini", "gpt-4o", "llama3.2", "*")),
        ({"PROVIDERS": "local,azure"}, "llama3.2", ("llama3.2", "gpt-4o", "gpt-4o-mini", "*")),
        ({"OPENAI_MODEL": "gpt-4o"}, "gpt-4o", ("gpt-4o", "gpt-4o-mini", "llama3.2", "*")),
        ({"OPENAI_MODELS": "o3"}, "o3", ("o3", "gpt-4o", "gpt-4o-mini", "llama3.2", "*")),
        ({"PROVIDERS": "local", "LOCAL_MODELS": "*"}, "gpt-4o-mini", ("*",)),
        (
            {"PROVIDERS": "local", "OPENAI_MODEL": "on-its-list"},
            "on-its-list",
            ("on-its-list", "llama3.2", "*"),
        ),
    ],
)
def test_models_of_all_are_on_offer_in_order_and_the_default_first(
    change: dict[str, str], model: str, models: tuple[str, ...]
) -> None:
    settings = read(ALL, **change)
    assert (settings.openai_model, settings.openai_models) == (model, models)


@pytest.mark.parametrize(
    ("change", "models"),
    [
        ({"OPENAI_MODEL": "gpt-4o"}, {"gpt-4o"}),
        ({"OPENAI_MODEL": "gpt-4o", "OPENAI_MODELS": "o3"}, {"o3"}),  # it is another provider's
        ({"OPENAI_MODEL": "o1", "OPENAI_MODELS": "o3"}, {"o1", "o3"}),
    ],
)
def test_default_model_is_openais_unless_its_models_are_named_and_another_has_it(
    change: dict[str, str], models: set[str]
) -> None:
    assert set(read(ALL, **change).providers[0].models) == models


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"PROVIDERS": "Azure"}, "PROVIDERS is 'Azure': it must be names like"),
        ({"PROVIDERS": "4th"}, "PROVIDERS is '4th': it must be names like"),
        ({"PROVIDERS": "image"}, "PROVIDERS names image, and IMAGE_MODELS means something else"),
        ({"PROVIDERS": "azure,local,azure"}, "PROVIDERS is 'azure,local,azure': it names one twice"),
        ({"LOCAL_MODELS": "a=b,a=c"}, "LOCAL_MODELS is 'a=b,a=c': it gives one model two names; it must be"),
        ({"OPENAI_API_KEY": ""}, "OPENAI_API_KEY is not set, nor is OPENAI_BASE_URL"),
        ({"AZURE_BASE_URL": ""}, "AZURE_BASE_URL is not set: say where azure of PROVIDERS is"),
        ({"LOCAL_MODELS": ""}, "LOCAL_MODELS is not set: name the models of local"),
        ({"LOCAL_MODELS": "a="}, "LOCAL_MODELS is 'a=': it must be names"),
        ({"LOCAL_MODELS": "=a"}, "LOCAL_MODELS is '=a': it must be names"),
        ({"LOCAL_MODELS": "*=a"}, r"LOCAL_MODELS is '\*=a': it must be names"),
        ({"OPENAI_MODELS": "a="}, "OPENAI_MODELS is 'a=': it must be names"),
        ({"AZURE_MODELS": "*"}, "AZURE_MODELS has .*: name each, as in gpt-4o=deployment"),
        ({"AZURE_API_VERSION": "2024 10"}, "AZURE_API_VERSION is '2024 10': it must be a version"),
        ({"AZURE_BASE_URL": "https://chat.openai.azure.com/openai/v1"}, "AZURE_BASE_URL has a path"),
        ({"AZURE_BASE_URL": "chat.hunter2.com"}, "AZURE_BASE_URL is malformed: it must be an address"),
        ({"AZURE_API_KEY": "a hunter2"}, "AZURE_API_KEY is malformed: it must be of ASCII"),
        (
            {"PROVIDERS": "azure", "OPENAI_MODEL": "o3"},
            "OPENAI_MODEL is 'o3', which no provider has: name one of gpt-4o, gpt-4o-mini",
        ),
    ],
)
def test_provider_that_cannot_be_asked_is_refused_in_one_line(change: dict[str, str], told: str) -> None:
    with pytest.raises(SettingsError, match=f"^{told}") as raised:
        read(ALL, **change)
    assert "\n" not in str(raised.value)
    assert "hunter2" not in str(raised.value)


def test_variables_of_a_provider_that_is_not_named_are_not_read() -> None:
    assert read({"PROVIDERS": "openai", **OPENAI, "LOCAL_BASE_URL": "nonsense"}).has_model


def test_openai_has_the_variables_that_every_provider_has() -> None:
    assert {f"OPENAI_{each.name}" for each in PROVIDER_VARIABLES} - {each.name for each in VARIABLES} == {
        "OPENAI_API_VERSION"  # Azure's, under a name of its own
    }


def test_providers_may_be_deployed_without_openai() -> None:
    read(
        {"PROVIDERS": "azure", **AZURE},
        SECRET_KEY="k3Yw0rds-f0r-the-tests-0nly-4711-abcdef",
        REDIS_URL="redis://redis.internal:6379/0",
    ).check_deployed()
