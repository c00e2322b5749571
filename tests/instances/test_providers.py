"""What a model server may do wrong, row by row of docs/protocol.md, as a client of a real instance sees it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest

from llmchat.turn import MAX_ANSWER_BYTES
from tests.conftest import Connect
from tests.fakes import CUT, SILENCE, Drip, Failure, Line, Model, echo
from tests.instances import Client, Instance, Store
from tests.instances.talk import begin, send
from tests.steps import Babble, Step

SAID = "Half of it, "
UNREADABLE = Line("data: {not json")


@pytest.fixture(scope="module")
async def instance(store: Store, model_server: Model) -> AsyncIterator[Instance]:
    """An instance that does not wait long for its model."""
    async with Instance(
        store.url,
        model_server.url,
        MODEL_CONNECT_SECONDS="1",
        MODEL_FIRST_SECONDS="1.5",
        MODEL_BETWEEN_SECONDS="1",
        MODEL_ANSWER_SECONDS="3",
    ) as instance:
        yield instance


async def failing(client: Client, model: Model, prepare: Callable[[Model], object]) -> tuple[str, str]:
    """Ask where the model server does what was prepared; gives the conversation and the answer."""
    conversation = await begin(client)
    before = len(model.requests)
    prepare(model)
    answer = await send(client, conversation, "Go on")
    await client.ending(answer, seconds=40)
    for request in model.requests[before:]:
        await request.over()
    return conversation, answer


async def works_again(client: Client, conversation: str, answer: str) -> None:
    """Retry, which makes another answer, whole."""
    started = await client.command("completion.regenerate", conversation=conversation, message=answer)
    assert (await client.ending(started["message"]))["finish_reason"] == "stop"
    assert client.text(started["message"]) == echo("Go on")


REFUSALS: dict[str, tuple[Callable[[Model], object], str]] = {
    "401": (lambda model: model.refuse(401), "provider_auth"),
    "403": (lambda model: model.refuse(403), "provider_auth"),
    "429": (lambda model: model.refuse(429, retry_after=30), "provider_rate_limited"),
    "500": (lambda model: model.refuse(500, retry_after=0.01, times=3), "provider_unavailable"),
    "503": (lambda model: model.refuse(503, retry_after=0.01, times=3), "provider_unavailable"),
    "404": (lambda model: model.refuse(404), "provider_refused"),
    "422": (lambda model: model.refuse(422), "provider_refused"),
    "too long": (lambda model: model.refuse_length(times=100), "context_too_long"),
    "no status line": (lambda model: model.hang(), "provider_timeout"),
    "silence": (lambda model: model.answer(SILENCE), "provider_timeout"),
    "comments": (lambda model: model.answer(Drip()), "provider_timeout"),
    "empty": (lambda model: model.answer(), "provider_refused"),
    "empty, no reason": (lambda model: model.answer(finish_reason=None), "provider_refused"),
    "unreadable": (lambda model: model.answer(UNREADABLE), "provider_refused"),
}


@pytest.mark.parametrize(("prepare", "code"), REFUSALS.values(), ids=REFUSALS)
async def test_answer_without_a_text_fails_in_words_and_can_be_tried_again(
    instance: Instance, connect: Connect, model: Model, prepare: Callable[[Model], object], code: str
) -> None:
    client = await connect(instance)
    conversation, answer = await failing(client, model, prepare)
    (failed,) = [event for event in client.of(conversation) if event["type"] == "completion.failed"]
    assert failed["code"] == code
    assert failed["detail"].endswith(".")
    assert (failed.get("retry_after") == 30) == (code == "provider_rate_limited")
    assert client.mirror(conversation).messages[answer].text == ""
    await model.reset()
    await works_again(client, conversation, answer)


async def test_refused_connection_is_told(instance: Instance, connect: Connect, model: Model) -> None:
    client = await connect(instance)
    conversation = await begin(client)
    await model.close_door()
    answer = await send(client, conversation, "Go on")
    assert (await client.ending(answer, seconds=40))["code"] == "provider_unavailable"
    await model.open_door()
    await works_again(client, conversation, answer)


async def test_wait_that_the_provider_asks_for_is_kept_within_the_deadline(
    instance: Instance, connect: Connect, model: Model
) -> None:
    client = await connect(instance)
    conversation = await begin(client)
    model.refuse(429, retry_after=0.2)
    answer = await send(client, conversation, "Go on")
    assert (await client.ending(answer))["finish_reason"] == "stop"
    assert len(model.requests) == 3


BREAKS: dict[str, list[Step]] = {
    "silence": [SILENCE],
    "comments": [Drip()],
    "cut": [CUT],
    "error object": [Failure()],
    "unreadable": [UNREADABLE],
    "babble": [Babble("and on ", pause_seconds=0.05), SILENCE],
}


@pytest.mark.parametrize("steps", [*BREAKS.values(), []], ids=[*BREAKS, "end without a reason"])
async def test_answer_that_breaks_off_keeps_its_text_and_goes_on(
    instance: Instance, connect: Connect, model: Model, steps: list[Step]
) -> None:
    client = await connect(instance)
    conversation, answer = await failing(
        client, model, lambda model: model.answer(SAID, *steps, finish_reason=None, done=False)
    )
    (finished,) = [event for event in client.of(conversation) if event.get("finish_reason") == "interrupted"]
    assert finished["message"] == answer
    kept = client.text(answer)
    assert kept.startswith(SAID)
    await model.reset()
    model.answer("and the rest.")
    await client.command("completion.continue", conversation=conversation, message=answer)
    await client.until(lambda: client.mirror(conversation).messages[answer].finish_reason == "stop")
    assert client.text(answer) == f"{kept}and the rest."
    await works_again(client, conversation, answer)


async def test_answer_longer_than_one_may_be_ends_with_length(
    instance: Instance, connect: Connect, model: Model
) -> None:
    client = await connect(instance)
    piece = "words " * 1000
    conversation, answer = await failing(
        client, model, lambda model: model.answer(Babble(piece, MAX_ANSWER_BYTES // len(piece) + 5))
    )
    assert client.mirror(conversation).messages[answer].finish_reason == "length"
    assert len(client.text(answer).encode()) == MAX_ANSWER_BYTES
    assert (
        await client.refused("completion.continue", conversation=conversation, message=answer) == "bad_field"
    )
