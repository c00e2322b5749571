"""Two providers of one model behind a real instance: the wire sees nothing of who answers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from tests.conftest import Connect, StartInstance
from tests.fakes import CUT, Model, echo
from tests.instances import Client, Instance, Store
from tests.instances.talk import begin, send

SPARE_KEY = "sk-of-the-spare"
THEIRS = "deployed-elsewhere"


@pytest.fixture
async def other() -> AsyncIterator[Model]:
    """The model server of the second provider."""
    async with Model() as model:
        yield model


@pytest.fixture
async def instance(store: Store, start_instance: StartInstance, other: Model) -> Instance:
    """An instance of the test's own: how its providers fared, it remembers."""
    return await start_instance(
        store,
        PROVIDERS="openai,spare",
        SPARE_API_KEY=SPARE_KEY,
        SPARE_BASE_URL=other.endpoint,
        SPARE_API_VERSION="2024-10-21",
        SPARE_MODELS=f"gpt-4o-mini={THEIRS}",
        MODEL_FIRST_SECONDS="4",
    )


async def refuse(model: Model) -> None:
    model.refuse(401, message=f"The key {SPARE_KEY} is wrong.")


async def hang(model: Model) -> None:
    model.hang()


FAILURES: dict[str, tuple[Callable[[Model], Awaitable[None]], str]] = {
    "refused": (refuse, "HTTP 401"),
    "hanging": (hang, "TimeoutError"),
    "gone": (Model.close_door, "ConnectionRefusedError"),
}
FURTHER = {"hanging", "gone"}  # tests/test_fallback.py has them without an instance


def told(client: Client) -> list[str]:
    return [event["type"] for event in client.seen if event["type"].startswith("completion.")]


@pytest.mark.parametrize(
    ("fail", "kind"),
    [
        pytest.param(*failure, id=name, marks=[pytest.mark.long] if name in FURTHER else [])
        for name, failure in FAILURES.items()
    ],
)
async def test_second_provider_answers_and_nobody_sees_that_the_first_failed(
    instance: Instance,
    connect: Connect,
    model: Model,
    other: Model,
    fail: Callable[[Model], Awaitable[None]],
    kind: str,
) -> None:
    client = await connect(instance)
    await fail(model)
    conversation = await begin(client, "Hello")
    asked = await other.asked()
    assert asked.path == f"/openai/deployments/{THEIRS}/chat/completions?api-version=2024-10-21"
    assert asked.headers["api-key"] == SPARE_KEY
    (ended,) = [event for event in client.seen if event["type"] == "completion.finished"]
    assert (ended["finish_reason"], client.text(ended["message"])) == ("stop", echo("Hello"))
    assert told(client).count("completion.started") == 1
    assert "completion.failed" not in told(client)
    await send(client, conversation, "And again")  # the first one rests: it is not waited for
    assert (await other.asked()).prompt == "And again"
    wire = json.dumps(client.seen)
    assert not [word for word in (THEIRS, "spare") if word in wire]
    first, spare = f"openai (127.0.0.1:{model.port})", f"spare (127.0.0.1:{other.port})"
    await instance.logged(f"the model that answers: gpt-4o-mini by {first}, then {spare}")
    line = await instance.logged("failed with gpt-4o-mini")
    message = f"{first} failed with gpt-4o-mini: {kind}; {spare} is asked"
    assert json.loads(line)["message"] == message
    assert SPARE_KEY not in instance.text


async def test_answer_that_broke_off_is_continued_by_the_second_provider_once_the_first_is_gone(
    instance: Instance, connect: Connect, model: Model, other: Model
) -> None:
    client = await connect(instance)
    conversation = await begin(client)
    model.answer("Half of it, ", CUT)
    answer = await send(client, conversation, "Go on")
    assert (await client.ending(answer))["finish_reason"] == "interrupted"
    assert other.requests == []
    await model.close_door()
    other.answer("and the rest.")
    await client.command("completion.continue", conversation=conversation, message=answer)
    await client.until(lambda: client.mirror(conversation).messages[answer].finish_reason == "stop")
    assert client.text(answer) == "Half of it, and the rest."
