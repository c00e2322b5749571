"""What is on offer: the models that are named, and those of the provider's list that can chat."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchat import models as models_room
from llmchat.completion import Completions
from llmchat.model_stream import Deadlines
from llmchat.models import MOST, Models, chatting
from llmchat.settings import Settings
from tests.asking import asking, provider
from tests.fakes import Gate, Model
from tests.waiting import eventually, within

CHATTING = [
    "chatgpt-4o-latest", "claude-sonnet-4-5", "deepseek-reasoner", "gemini-2.5-pro", "gpt-4", "gpt-4o", "gpt-5-mini",
    "gpt-10", "gpt-oss:20b", "llama3.2:latest", "Meta-Llama-3.1-8B-Instruct", "mistralai/Mistral-7B-Instruct-v0.3",
    "o3", "qwen2.5-vl", "gpt-4o-2024-08-06", "gpt-4-0613",
]  # fmt: skip
OTHERS = [
    "text-embedding-3-small", "nomic-embed-text", "whisper-1", "tts-1-hd", "gpt-4o-mini-tts", "dall-e-3",
    "omni-moderation-latest", "gpt-4o-audio-preview", "gpt-image-1", "gpt-realtime", "gpt-4o-transcribe",
    "gpt-3.5-turbo-instruct", "davinci-002", "babbage-002", "sora-2", "o1-pro", "gpt-5-pro", "gpt-5-codex", "bge-m3",
    "o3-deep-research", "llama-guard-3-8b", "stable-diffusion-xl", "imagen-4.0", "veo-3.0", "mistral-ocr-latest",
]  # fmt: skip


def test_models_that_do_not_chat_are_left_out_and_those_of_one_day_come_last() -> None:
    assert chatting([*OTHERS, *CHATTING]) == [
        "chatgpt-4o-latest", "claude-sonnet-4-5", "deepseek-reasoner", "gemini-2.5-pro", "gpt-4", "gpt-4o",
        "gpt-5-mini", "gpt-10", "gpt-oss:20b", "llama3.2:latest", "Meta-Llama-3.1-8B-Instruct",
        "mistralai/Mistral-7B-Instruct-v0.3", "o3", "qwen2.5-vl", "gpt-4-0613", "gpt-4o-2024-08-06",
    ]  # fmt: skip


@given(st.lists(st.text()))
def test_whatever_a_provider_names_becomes_a_list_in_order(names: list[str]) -> None:
    found = chatting(names)
    assert found == chatting(reversed(found))
    assert set(found) <= set(names)
    assert all(name.isprintable() and " " not in name and name for name in found)


@pytest.fixture
async def completions(model: Model, settings: Settings) -> AsyncIterator[Completions]:
    made = Completions(settings.asked, Deadlines.of(settings))
    yield made
    await made.close()


@asynccontextmanager
async def offering(
    completions: Completions, settings: Settings, *names: str, model: str = "gpt-4o-mini"
) -> AsyncIterator[Models]:
    async with Models(replace(settings, openai_models=names, openai_model=model), completions) as models:
        yield models


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        (("small", "large"), ("small", "large")),
        (("*",), ("gpt-4o", "o3")),
        (("mine", "*"), ("mine", "gpt-4o", "o3")),
        (("o3", "*"), ("o3", "gpt-4o")),
    ],
)
async def test_named_models_come_before_those_of_the_providers_list(
    completions: Completions,
    settings: Settings,
    model: Model,
    named: tuple[str, ...],
    expected: tuple[str, ...],
) -> None:
    model.models = ("o3", "gpt-4o", "whisper-1")
    async with offering(completions, settings, *named) as models:
        await models.settled()
        assert models.offered == expected


async def test_default_model_is_the_first_of_the_list_that_has_it_where_none_is_named(
    completions: Completions, settings: Settings, model: Model
) -> None:
    model.models = ("a", "gpt-4o-mini")
    async with offering(completions, settings, "*") as models:
        assert models.offered == ("gpt-4o-mini",)  # until it is read
        await models.settled()
        assert models.offered == ("gpt-4o-mini", "a")


async def test_long_list_is_cut_and_what_is_named_stays(
    completions: Completions, settings: Settings, model: Model
) -> None:
    model.models = tuple(f"m-{number}" for number in range(500))
    async with offering(completions, settings, "zed", "*") as models:
        await models.settled()
        assert models.offered[:3] == ("zed", "m-0", "m-1")
        assert len(models.offered) == MOST


async def test_start_waits_a_moment_and_no_longer_for_a_list_that_does_not_come(
    completions: Completions, settings: Settings, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models_room, "PATIENCE_SECONDS", 0.01)
    model.gate = gate = Gate()
    model.models = ("gpt-4o-mini", "o3")
    async with offering(completions, settings, "*") as models:
        async with within(5, "it waits no longer"):
            await models.settled()
        assert models.offered == ("gpt-4o-mini",)
        gate.open()
        await eventually(lambda: _are(models, "gpt-4o-mini", "o3"), seconds=5, what="the list is there")


async def test_list_that_cannot_be_read_again_is_kept_and_told_of_once(
    completions: Completions,
    settings: Settings,
    model: Model,
    caplog: pytest.LogCaptureFixture,
) -> None:
    model.models = ("gpt-4o-mini", "o3")
    async with offering(completions, settings, "*") as models:
        await models.settled()
        for broken in (None, None, ("whisper-1",), ()):
            model.models = broken
            await models.refresh()
        assert models.offered == ("gpt-4o-mini", "o3")
        told = [each for each in caplog.messages if "list of models" in each]
        assert len(told) == 1
        assert "The model server refused the request." in told[0]
        model.models = ("gpt-4o-mini", "o4")
        await models.refresh()
        assert models.offered == ("gpt-4o-mini", "o4")


async def test_lists_of_several_providers_come_in_order_and_one_that_fails_keeps_what_it_had(
    settings: Settings, model: Model, caplog: pytest.LogCaptureFixture
) -> None:
    async with Model() as other:
        model.models, other.models = ("o3", "shared"), ("shared", "llama3.2")
        providers = (
            provider(other.url, "local", models={"*": "*"}),
            provider(model.url, models={"mine": "mine", "*": "*"}),
        )
        several = replace(settings, providers=providers, openai_models=("mine", "*"), openai_model="mine")
        async with asking(*providers) as completions, Models(several, completions) as models:
            await models.settled()
            assert models.offered == ("mine", "llama3.2", "shared", "o3")
            other.models, model.models = None, ("o4",)
            await models.refresh()
            assert models.offered == ("mine", "llama3.2", "shared", "o4")
    (told,) = [each for each in caplog.messages if "list of models" in each]
    assert f"local (127.0.0.1:{other.port})" in told


async def test_list_is_read_anew_when_somebody_asks_for_a_model_that_is_not_in_it(
    completions: Completions, settings: Settings, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models_room, "REPEAT_SECONDS", 0.0)
    async with offering(completions, settings, "*") as models:
        await models.settled()
        model.models = ("gpt-4o-mini", "brand-new")
        assert models.offers("gpt-4o-mini")
        assert not models.offers("brand-new")
        await eventually(lambda: _are(models, "gpt-4o-mini", "brand-new"), seconds=5, what="it is on offer")
        assert models.offers("brand-new")


@pytest.mark.parametrize(("named", "asked"), [("one", 0), ("*", 1)])
async def test_models_ask_for_the_providers_list_only_where_it_is_named(
    completions: Completions, settings: Settings, monkeypatch: pytest.MonkeyPatch, named: str, asked: int
) -> None:
    times = 0

    async def models_of_provider(_: str) -> list[str]:
        nonlocal times
        times += 1
        return ["gpt-4o-mini"]

    monkeypatch.setattr(completions, "models", models_of_provider)
    async with offering(completions, settings, named) as models:
        await models.settled()
        assert not models.offers("other")
    assert times == asked


async def _are(models: Models, *names: str) -> bool:
    return models.offered == names
