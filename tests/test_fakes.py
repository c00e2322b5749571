"""The model server of the tests, read through the SDK and through bare sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest

from tests.fakes import CUT, SILENCE, Drip, Failure, Gate, Line, Model, Reasoning, echo

PROMPT: list[Any] = [{"role": "user", "content": "Hi"}]


@pytest.fixture
async def sdk(model: Model) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=model.url, api_key="test", max_retries=0) as client:
        yield client


async def ask(sdk: openai.AsyncOpenAI, **options: Any) -> list[Any]:
    stream = await sdk.chat.completions.create(
        model="gpt-4o-mini", messages=PROMPT, stream=True, stream_options={"include_usage": True}, **options
    )
    async with stream:
        return [event async for event in stream]


def text_of(events: list[Any]) -> str:
    return "".join(event.choices[0].delta.content or "" for event in events if event.choices)


async def test_model_streams_pieces_reason_and_usage(model: Model, sdk: openai.AsyncOpenAI) -> None:
    model.answer("Hello, ", "world", finish_reason="length")
    events = await ask(sdk)
    assert text_of(events) == "Hello, world"
    assert events[-2].choices[0].finish_reason == "length"
    assert events[-1].usage.completion_tokens == 2
    assert await (await model.asked()).over() == "answered"


async def test_model_echoes_when_nothing_is_enqueued(model: Model, sdk: openai.AsyncOpenAI) -> None:
    assert text_of(await ask(sdk)) == echo("Hi")


async def test_model_answers_whole_when_no_stream_is_asked_for(model: Model, sdk: openai.AsyncOpenAI) -> None:
    model.answer(Reasoning("hm"), "Hello")
    whole = await sdk.chat.completions.create(model="gpt-4o-mini", messages=PROMPT)
    assert whole.choices[0].message.content == "Hello"
    assert whole.usage
    assert whole.usage.completion_tokens == 1


async def test_model_picks_the_answer_for_a_prompt(model: Model, sdk: openai.AsyncOpenAI) -> None:
    model.answer("no", to="Bye")
    model.answer("yes", to="Hi")
    assert text_of(await ask(sdk)) == "yes"


async def test_model_lists_its_models(model: Model, sdk: openai.AsyncOpenAI) -> None:
    assert [one.id async for one in sdk.models.list()] == list(model.own)


@pytest.mark.parametrize("before", [["Hel"], []])
async def test_client_that_closes_is_noticed(
    model: Model, sdk: openai.AsyncOpenAI, before: list[str]
) -> None:
    gate = Gate()
    model.answer(*before, gate, "lo")
    asking = asyncio.create_task(ask(sdk))
    await gate.wait()
    asking.cancel()
    await (await model.asked()).closed()


@pytest.mark.parametrize(
    ("step", "error"),
    [
        (CUT, openai.APIConnectionError),
        (Failure(), openai.APIError),
        (Line("data: {broken"), ValueError),
        (SILENCE, openai.APITimeoutError),
    ],
)
async def test_answer_breaks_off_as_asked(
    model: Model, sdk: openai.AsyncOpenAI, step: Any, error: type[Exception]
) -> None:
    model.answer("Hel", step, "lo")
    with pytest.raises(error):
        await ask(sdk, timeout=0.2)


async def test_stream_ends_without_a_reason_when_told_so(model: Model, sdk: openai.AsyncOpenAI) -> None:
    model.answer("Hel", finish_reason=None, usage={}, done=False)
    events = await ask(sdk)
    assert text_of(events) == "Hel"
    assert all(event.choices[0].finish_reason is None for event in events)


async def test_comments_drip_until_the_client_closes(model: Model, sdk: openai.AsyncOpenAI) -> None:
    model.answer(Drip())
    asking = asyncio.create_task(ask(sdk))
    request = await model.asked()
    asking.cancel()
    await request.closed()


@pytest.mark.parametrize("status", [400, 401, 403, 429, 500, 503])
async def test_model_refuses(model: Model, sdk: openai.AsyncOpenAI, status: int) -> None:
    model.refuse(status, retry_after=3)
    with pytest.raises(openai.APIStatusError) as refused:
        await ask(sdk)
    assert refused.value.status_code == status
    assert refused.value.response.headers["Retry-After"] == "3"


async def test_model_refuses_a_long_context(model: Model, sdk: openai.AsyncOpenAI) -> None:
    model.refuse_length()
    with pytest.raises(openai.BadRequestError) as refused:
        await ask(sdk)
    assert refused.value.code == "context_length_exceeded"


async def test_model_hangs_without_a_status(model: Model, sdk: openai.AsyncOpenAI) -> None:
    model.hang()
    with pytest.raises(openai.APITimeoutError):
        await ask(sdk, timeout=0.2)
    await (await model.asked()).closed()


async def test_closed_door_refuses_and_breaks_until_it_opens(model: Model, sdk: openai.AsyncOpenAI) -> None:
    gate = Gate()
    model.answer("Hel", gate)
    asking = asyncio.create_task(ask(sdk))
    await gate.wait()
    await model.close_door()
    with pytest.raises(openai.APIConnectionError):
        await asking
    with pytest.raises(openai.APIConnectionError):
        await ask(sdk)
    await model.open_door()
    assert text_of(await ask(sdk)) == echo("Hi")
