"""Several providers of one model: who is asked, in which order, and what a person is told where none answers."""

from __future__ import annotations

import asyncio
import json
import logging
import traceback
from collections.abc import AsyncIterator, Callable

import pytest

from llmchat import model_server, rests
from llmchat.completion import Completions
from llmchat.model_server import RETRIES
from llmchat.provider import Provider
from tests.asking import MODEL, SOON, ask, ask_until_error, asking, provider, text_of
from tests.fakes import CUT, SILENCE, Failure, Gate, Line, Model

USAGE = {"prompt_tokens": 9, "completion_tokens": 2}


@pytest.fixture
async def other() -> AsyncIterator[Model]:
    """The model server of the second provider."""
    async with Model() as model:
        yield model


@pytest.fixture
async def completions(model: Model, other: Model) -> AsyncIterator[Completions]:
    async with asking(*both(model, other)) as completions:
        yield completions


def both(model: Model, other: Model) -> list[Provider]:
    return [provider(model.url), provider(other.url, "second", "sk-of-the-second")]


def asked(*models: Model) -> list[int]:
    return [len(model.requests) for model in models]


# Who is asked


async def test_first_provider_is_asked_alone_where_it_answers(
    model: Model, other: Model, completions: Completions
) -> None:
    await ask(completions)
    assert asked(model, other) == [1, 0]


async def test_provider_is_passed_over_that_does_not_have_the_model(model: Model, other: Model) -> None:
    second = provider(other.url, "second", models={"small": "llama3.2"})
    async with asking(provider(model.url), second) as completions:
        await ask(completions, "small")
    assert asked(model, other) == [0, 1]
    assert (await other.asked()).body["model"] == "llama3.2"


async def test_model_of_a_providers_own_list_is_asked_of_it_once_the_list_is_read(
    model: Model, other: Model
) -> None:
    other.models = ("theirs",)
    first = provider(model.url, models={MODEL: MODEL, "*": "*"})
    async with asking(first, provider(other.url, "second", models={"*": "*"})) as completions:
        await ask(completions, "theirs")
        assert asked(model, other) == [1, 0]  # nobody knows better
        assert await completions.models("second") == ["theirs"]
        await ask(completions, "theirs")
        assert asked(model, other) == [1, 1]


async def test_model_that_nobody_names_is_asked_of_each(
    model: Model, other: Model, completions: Completions
) -> None:
    model.refuse(404)
    await ask(completions, "titles")
    assert asked(model, other) == [1, 1]


async def test_model_that_nobody_names_is_asked_first_of_who_has_a_list_of_its_own(
    model: Model, other: Model
) -> None:
    async with asking(provider(model.url), provider(other.url, "second", models={"*": "*"})) as completions:
        await ask(completions, "titles")
        assert asked(model, other) == [0, 1]
        other.refuse(404)
        await ask(completions, "titles")
        assert asked(model, other) == [1, 2]


def in_stream(code: int) -> Line:
    return Line("data: " + json.dumps({"error": {"code": code, "message": "No."}}))


FAILURES: dict[str, Callable[[Model], object]] = {
    "401": lambda model: model.refuse(401),
    "402": lambda model: model.refuse(402),
    "403": lambda model: model.refuse(403),
    "404": lambda model: model.refuse(404, code="model_not_found"),
    "408": lambda model: model.refuse(408),
    "429": lambda model: model.refuse(429, retry_after=SOON),
    "500": lambda model: model.refuse(500),
    "503": lambda model: model.refuse(503, retry_after=SOON),
    "400, by code": lambda model: model.refuse(400, code="model_not_found"),
    "400, OpenRouter": lambda model: model.refuse(400, message="some/model is not a valid model ID"),
    "400, DeepSeek": lambda model: model.refuse(400, message="Model Not Exist"),
    "400, Mistral": lambda model: model.refuse(400, message="Invalid model: some-model"),
    "400, Bedrock": lambda model: model.refuse(400, message="The provided model identifier is invalid."),
    "cut": lambda model: model.answer(Line(": hello"), CUT),
    "error in the stream": lambda model: model.answer(in_stream(502)),
    "error object": lambda model: model.answer(Failure()),
    "unreadable": lambda model: model.answer(Line("data: {broken")),
}


@pytest.mark.parametrize("fail", FAILURES.values(), ids=FAILURES)
async def test_next_provider_is_asked_at_once_where_one_fails_before_its_first_delta(
    model: Model, other: Model, completions: Completions, fail: Callable[[Model], object]
) -> None:
    fail(model)
    other.answer("Hello")
    assert (await ask(completions)).text == "Hello"
    assert asked(model, other) == [1, 1]
    assert (await other.asked()).headers["Authorization"] == "Bearer sk-of-the-second"


async def test_next_provider_is_asked_where_one_cannot_be_reached(
    model: Model, other: Model, completions: Completions
) -> None:
    await model.close_door()
    assert (await ask(completions)).finish_reason == "stop"
    assert asked(other) == [1]


@pytest.mark.parametrize(
    "hang", [lambda model: model.hang(), lambda model: model.answer(Line(": hello"), SILENCE)]
)
async def test_provider_that_hangs_leaves_time_for_the_next(
    model: Model, other: Model, hang: Callable[[Model], object]
) -> None:
    hang(model)
    async with asking(*both(model, other), first=4.0) as completions:
        assert (await ask(completions)).finish_reason == "stop"
    await (await model.asked()).closed()
    assert asked(model, other) == [1, 1]


@pytest.mark.parametrize(
    "refuse",
    [
        lambda model: model.refuse(400),
        lambda model: model.refuse(422),
        lambda model: model.refuse(400, code="content_filter"),
        lambda model: model.refuse_length(),
    ],
)
async def test_nobody_else_is_asked_where_the_request_is_what_is_wrong(
    model: Model, other: Model, completions: Completions, refuse: Callable[[Model], object]
) -> None:
    refuse(model)
    _, error = await ask_until_error(completions)
    assert error.code in ("provider_refused", "context_too_long")
    assert asked(model, other) == [1, 0]
    await ask(completions)  # and it does not rest
    assert asked(model, other) == [2, 0]


@pytest.mark.parametrize("step", [CUT, Failure(), Line("data: {broken")])
async def test_nobody_else_is_asked_after_the_first_delta(
    model: Model, other: Model, completions: Completions, step: Line
) -> None:
    model.answer("Hel", step, "lo")
    deltas, _ = await ask_until_error(completions)
    assert text_of(deltas) == "Hel"
    assert asked(model, other) == [1, 0]


async def test_provider_is_left_whose_reader_leaves_while_the_next_is_asked(
    model: Model, other: Model, completions: Completions
) -> None:
    gate = Gate()
    model.refuse(503)
    other.answer(gate, "Hello")
    reading = asyncio.create_task(ask(completions))
    await gate.wait()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    await (await other.asked()).closed()


# Rests


async def test_provider_that_failed_is_asked_last_for_a_while(
    model: Model, other: Model, completions: Completions
) -> None:
    model.refuse(503)
    for _ in range(3):
        await ask(completions)
    assert asked(model, other) == [1, 3]
    other.refuse(503, retry_after=SOON, times=RETRIES + 1)
    assert (await ask(completions)).finish_reason == "stop"
    assert asked(model, other) == [2, 3 + 1 + RETRIES]  # the last that may be up has its retries


async def test_provider_is_first_again_once_its_rest_is_over(
    model: Model, other: Model, completions: Completions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rests, "REST_SECONDS", 0.0)
    model.refuse(503)
    for _ in range(2):
        await ask(completions)
    assert asked(model, other) == [2, 1]


async def test_provider_without_another_is_never_passed_over(model: Model) -> None:
    async with asking(provider(model.url)) as completions:
        model.refuse(401)
        await ask_until_error(completions)
        assert (await ask(completions)).finish_reason == "stop"


# What is told where none answers


async def test_last_provider_is_asked_again_as_one_alone_would_be(
    model: Model, other: Model, completions: Completions
) -> None:
    model.refuse(503)
    other.refuse(503, retry_after=SOON, times=RETRIES)
    assert (await ask(completions)).finish_reason == "stop"
    assert asked(model, other) == [1, RETRIES + 1]


@pytest.mark.parametrize(
    ("first", "second", "code"),
    [
        (503, 503, "provider_unavailable"),
        (401, 503, "provider_unavailable"),
        (503, 401, "provider_unavailable"),
        (429, 404, "provider_rate_limited"),
        (503, 400, "provider_refused"),
        (401, 403, "provider_auth"),
    ],
)
async def test_failure_that_may_pass_is_told_before_one_that_does_not(
    model: Model,
    other: Model,
    completions: Completions,
    monkeypatch: pytest.MonkeyPatch,
    first: int,
    second: int,
    code: str,
) -> None:
    monkeypatch.setattr(model_server, "RETRIES", 0)
    model.refuse(first)
    other.refuse(second)
    deltas, error = await ask_until_error(completions)
    assert (deltas, error.code) == ([], code)
    assert asked(model, other) == [1, 1]


async def test_all_hang_no_longer_than_the_time_to_the_first_delta(model: Model, other: Model) -> None:
    model.hang()
    other.hang()
    async with asking(*both(model, other), first=2.0) as completions, asyncio.timeout(20):
        _, error = await ask_until_error(completions)
    assert error.code == "provider_timeout"
    assert asked(model, other) == [1, 1]


async def test_provider_that_rests_is_not_asked_where_no_time_is_left(model: Model, other: Model) -> None:
    async with asking(*both(model, other), first=2.0) as completions:
        model.refuse(503)
        await ask(completions)
        other.hang()
        await ask_until_error(completions)
    assert asked(model, other) == [1, 2]


# Going on from a beginning


async def test_beginning_is_given_only_to_a_provider_that_goes_on(
    model: Model, other: Model, completions: Completions
) -> None:
    other.continues = True
    other.answer("Hello, ", "world")
    assert await completions.continues(MODEL)
    assert (await ask(completions, kept="Hello, ")).text == "world"
    assert asked(model, other) == [0, 1]


async def test_model_does_not_go_on_where_only_a_provider_that_rests_would(
    model: Model, other: Model, completions: Completions
) -> None:
    model.continues = True
    assert await completions.continues(MODEL)
    model.refuse(503)
    await ask(completions)
    assert not await completions.continues(MODEL)


async def test_beginning_that_nobody_takes_is_sent_to_nobody(
    model: Model, other: Model, completions: Completions
) -> None:
    _, error = await ask_until_error(completions, kept="Hello, ")
    assert (error.code, error.retryable) == ("provider_unavailable", True)
    assert asked(model, other) == [0, 0]


async def test_next_provider_that_goes_on_is_given_the_beginning(
    model: Model, other: Model, completions: Completions
) -> None:
    model.continues = other.continues = True
    model.refuse(503)
    other.answer("Hello, ", "world")
    assert (await ask(completions, kept="Hello, ")).text == "world"
    assert asked(model, other) == [1, 1]


async def test_provider_that_failed_is_not_asked_how_it_goes_on(
    model: Model, completions: Completions
) -> None:
    model.refuse(503)
    await ask(completions)
    completions.learn(MODEL)
    await completions.continues(MODEL)
    assert model.questions == 0


# What is counted and logged


async def test_completions_count_who_was_asked_and_what_failed(
    model: Model, other: Model, completions: Completions
) -> None:
    model.refuse(429)
    other.answer("Hello")
    other.answer("Hello, ", CUT)
    await ask(completions)
    await ask_until_error(completions)
    assert completions.requests == {"openai": 1, "second": 2}
    assert +completions.fallbacks == {"openai": 1}
    assert +completions.errors == {
        ("openai", "provider_rate_limited"): 1,
        ("second", "provider_unavailable"): 1,
    }


async def test_log_names_who_failed_how_and_who_is_asked_instead_without_a_secret(
    model: Model, other: Model, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "llmchat")
    monkeypatch.setattr(model_server, "RETRIES", 0)
    secret = "hunter2-hunter2"
    first = provider(f"{model.url}?key={secret}", key=secret)
    async with asking(first, *both(model, other)[1:]) as completions:
        await model.close_door()
        other.refuse(429, message=f"The key {secret} is used up.")
        _, error = await ask_until_error(completions)
    first_line, last_line = caplog.messages
    assert first_line == (
        f"openai (127.0.0.1:{model.port}) failed with {MODEL}: ConnectionRefusedError; "
        f"second (127.0.0.1:{other.port}) is asked"
    )
    assert last_line == f"second (127.0.0.1:{other.port}) failed with {MODEL}: HTTP 429"
    assert secret not in f"{error!r} {caplog.text} {traceback.format_exception(error)}"
