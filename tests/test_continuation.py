"""Going on from the beginning of an answer: whether a model server does, and how it is given."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from llmchat import continuation as continuation_room
from llmchat.completion import Completions
from tests.asking import PROMPT, opened, text_of
from tests.fakes import Model
from tests.waiting import eventually, within


@pytest.fixture
async def completions(model: Model) -> AsyncIterator[Completions]:
    async with opened(model) as completions:
        yield completions


async def test_model_server_is_asked_once_whether_it_goes_on(model: Model, completions: Completions) -> None:
    model.continues = True
    asked = await asyncio.gather(*(completions.continues("gpt-4o-mini") for _ in range(5)))
    assert asked == [True] * 5
    assert (model.questions, model.requests) == (1, [])


async def test_model_server_that_says_nothing_of_it_does_not_go_on(
    model: Model, completions: Completions
) -> None:
    assert not await completions.continues("gpt-4o-mini")
    assert not await completions.continues("gpt-4o-mini")
    assert model.questions == 2  # in two ways, once each


@pytest.mark.parametrize(
    ("status", "questions"), [(400, 2), (422, 2), (401, 4), (404, 4), (408, 4), (429, 4), (503, 4)]
)
async def test_model_server_that_may_say_it_another_time_is_asked_again(
    model: Model, completions: Completions, monkeypatch: pytest.MonkeyPatch, status: int, questions: int
) -> None:
    monkeypatch.setattr(continuation_room, "ASK_AGAIN_SECONDS", 0)
    asked = []

    def refuse(_: object) -> web.Response:
        asked.append(status)
        return web.json_response({"error": {"message": "no"}}, status=status)

    monkeypatch.setattr(model, "_say_how", refuse)
    for _ in range(4):
        assert not await completions.continues("gpt-4o-mini")
    assert len(asked) == questions


async def test_model_server_that_is_away_is_asked_again_after_a_while(
    model: Model, completions: Completions, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.continues = True
    await model.close_door()
    assert not await completions.continues("gpt-4o-mini")
    await model.open_door()
    assert not await completions.continues("gpt-4o-mini")
    assert model.questions == 0
    monkeypatch.setattr(continuation_room, "ASK_AGAIN_SECONDS", 0)
    assert await completions.continues("gpt-4o-mini")


async def test_model_server_whose_answer_cannot_be_read_is_asked_again(
    model: Model, completions: Completions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(continuation_room, "ASK_AGAIN_SECONDS", 0)
    monkeypatch.setattr(
        model, "_say_how", lambda _: web.Response(text="[" * 100_000, content_type="application/json")
    )
    for _ in range(2):
        assert not await completions.continues("gpt-4o-mini")
    monkeypatch.undo()
    monkeypatch.setattr(continuation_room, "ASK_AGAIN_SECONDS", 0)
    model.continues = True
    assert await completions.continues("gpt-4o-mini")


async def test_nobody_waits_for_long_for_a_question(
    model: Model, completions: Completions, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.continues = True
    gate = asyncio.Event()
    (server,) = completions._servers.values()
    ask = server._continuation._ask_how

    async def late(name: str) -> str:
        await gate.wait()
        return await ask(name)

    monkeypatch.setattr(continuation_room, "QUESTION_SECONDS", 3600)
    monkeypatch.setattr(server._continuation, "_ask_how", late)
    async with within(30, "nobody waits for the question"):
        assert not any(await asyncio.gather(*(completions.continues("gpt-4o-mini") for _ in range(5))))
    gate.set()
    await eventually(lambda: completions.continues("gpt-4o-mini"), seconds=30, what="it is known")
    assert model.questions == 1


@pytest.mark.parametrize(
    ("words", "how"),
    [
        ("Unrecognized arguments supplied: add_generation_prompt, continue_final_message", "never"),
        ("Cannot set both `continue_final_message` and `add_generation_prompt` to True.", "flag"),
        ("Cannot have 2 or more assistant messages at the end of the list.", "last"),
    ],
)
async def test_refusal_tells_by_its_words(
    model: Model, completions: Completions, monkeypatch: pytest.MonkeyPatch, words: str, how: str
) -> None:
    refusal = web.json_response
    monkeypatch.setattr(
        model, "_say_how", lambda _: refusal({"error": {"message": words, "code": 400}}, status=400)
    )
    (server,) = completions._servers.values()
    assert await server._continuation.how("gpt-4o-mini") == how


@pytest.mark.parametrize(
    ("continuation", "fields"),
    [
        ("flag", {"continue_final_message": True, "add_generation_prompt": False}),
        ("last", {}),
        ("prefix", {}),
    ],
)
async def test_beginning_is_given_in_the_way_that_is_set(
    model: Model, continuation: str, fields: dict[str, bool]
) -> None:
    async with opened(model, continuation=continuation) as completions:
        assert await completions.continues("gpt-4o-mini")
        async with completions.stream("gpt-4o-mini", PROMPT, {}, kept="Hel") as deltas:
            assert [delta async for delta in deltas]
    asked = await model.asked()
    last = {"role": "assistant", "content": "Hel"} | ({"prefix": True} if continuation == "prefix" else {})
    assert asked.messages == [*PROMPT, last]
    assert {name: asked.body[name] for name in fields} == fields
    assert model.questions == 0


async def test_answer_goes_on_from_its_beginning(model: Model, completions: Completions) -> None:
    model.continues = True
    model.answer("Hello, ", "wor", "ld")
    async with completions.stream("gpt-4o-mini", PROMPT, {}, kept="Hello, w") as deltas:
        assert text_of([delta async for delta in deltas]) == "orld"
    assert (await model.asked()).kept == "Hello, w"


async def test_model_is_never_given_a_beginning_where_that_is_set(model: Model) -> None:
    model.continues = True
    async with opened(model, continuation="never") as completions:
        assert not await completions.continues("gpt-4o-mini")
    assert model.questions == 0
