"""Titles and models of a provider, by real instances: live everywhere, once, and never over a person's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.conftest import Connect, StartInstance, pair_of
from tests.fakes import SILENCE, Gate, Model
from tests.instances import Client, Instance, Store

Instances = tuple[Instance, Instance]


@pytest.fixture(scope="module")
async def naming(store: Store, model_server: Model) -> AsyncIterator[Instances]:
    """Two instances that have chats named by the model that answers."""
    async with pair_of(store, model_server, TITLE_MODEL="") as pair:
        yield pair


async def titled(client: Client, conversation: str, title: str) -> dict[str, Any]:
    """Wait until a client is told of a title."""

    def find() -> Any:
        told = [each["conversation"] for each in client.seen if each["type"] == "conversation.updated"]
        return next((each for each in told if each["id"] == conversation and each["title"] == title), None)

    found: dict[str, Any] = await client.until(find, what=f"{title} is told")
    return found


async def test_title_comes_once_to_all_tabs_and_moves_nothing(
    naming: Instances, connect: Connect, model: Model
) -> None:
    one = await connect(naming[0])
    two = await connect(naming[1], one)
    gate = Gate()
    model.name(gate, '"Greetings."')
    first = (await one.prompt("Hello there"))["conversation"]
    await gate.wait()
    await two.prompt("Something else")  # the second title is asked for meanwhile
    await model.asked_title(2)
    before = (await two.command("conversation.list"))["conversations"]
    gate.open()
    for client in (one, two):
        told = await titled(client, first, "Greetings")
        assert not told["running"]
        assert told["updated"] == next(each["updated"] for each in before if each["id"] == first)
    after = (await one.command("conversation.list"))["conversations"]
    assert [each["id"] for each in after] == [each["id"] for each in before]
    assert after[-1]["title"] == "Greetings"
    await two.prompt("And again", conversation=first)
    assert len(model.titles) == 2


async def test_rename_while_a_title_is_looked_for_wins(
    naming: Instances, connect: Connect, model: Model
) -> None:
    client = await connect(naming[0])
    gate = Gate()
    model.name(gate, "Never")
    conversation = (await client.prompt("Hello"))["conversation"]
    await gate.wait()
    await client.command("conversation.update", conversation=conversation, title="Mi\u202ene")
    gate.open()
    await (await model.asked_title(1)).over()
    await client.prompt("More", conversation=conversation)
    snapshot = await client.command("conversation.open", conversation=conversation)
    assert snapshot["title"] == "Mine"
    assert len(model.titles) == 1


async def test_title_that_is_only_of_what_is_not_seen_is_refused(naming: Instances, connect: Connect) -> None:
    client = await connect(naming[0])
    conversation = (await client.prompt("Hello"))["conversation"]
    hidden = "\u202e \u3164"
    assert await client.refused("conversation.update", conversation=conversation, title=hidden) == "bad_field"


@pytest.mark.parametrize("ended", ["stopped", "failed"])
async def test_answer_that_did_not_come_to_its_end_gives_no_title(
    naming: Instances, connect: Connect, model: Model, ended: str
) -> None:
    client = await connect(naming[0])
    if ended == "failed":
        model.refuse(400)
        conversation = (await client.prompt(f"First, {ended}"))["conversation"]
    else:
        gate = Gate()
        model.answer("Well ", gate, "done")
        accepted = await client.command("message.send", text=f"First, {ended}")
        conversation = accepted["conversation"]
        await gate.wait()
        await client.command("completion.stop", conversation=conversation)
    model.name("Found")
    await client.prompt("Again", conversation=conversation)
    await titled(client, conversation, "Found")
    assert len([each for each in model.titles if f"First, {ended}" in each.prompt]) == 1


async def test_title_lost_with_its_instance_is_found_after_the_next_answer(
    naming: Instances, store: Store, start_instance: StartInstance, connect: Connect, model: Model
) -> None:
    dying = await start_instance(store, TITLE_MODEL="")
    client = await connect(dying)
    model.name(SILENCE)
    conversation = (await client.prompt("Hello"))["conversation"]
    await model.asked_title(1)
    await dying.kill()
    await client.closed()
    await client.reconnect(naming[0])
    model.name("Found")
    await client.prompt("More", conversation=conversation)
    await titled(client, conversation, "Found")


async def test_instance_stops_at_once_while_a_title_is_looked_for(
    store: Store, start_instance: StartInstance, connect: Connect, model: Model
) -> None:
    instance = await start_instance(store, TITLE_MODEL="tiny")
    client = await connect(instance)
    model.name(SILENCE)
    await client.prompt("Hello")
    asked = await model.asked_title(1)
    assert asked.body["model"] == "tiny"
    assert await instance.stop(seconds=5) == 0
    await asked.closed()


@pytest.mark.long
async def test_connection_hears_of_the_providers_models_and_a_model_of_it_answers(
    store: Store, start_instance: StartInstance, connect: Connect, model: Model
) -> None:
    model.models = ("o3", "whisper-1", "gpt-4o")
    client = await connect(await start_instance(store, OPENAI_MODELS="*", OPENAI_MODEL="mine"))
    ready = next(each for each in client.seen if each["type"] == "session.ready")
    assert [each["id"] for each in ready["models"]] == ["mine", "gpt-4o", "o3"]
    accepted = await client.command("message.send", text="Hello", model="o3")
    await client.ending(accepted["answer"])
    # Another instance that cannot read the list answers with its own.
    model.models = None
    other = await start_instance(store, OPENAI_MODELS="*", OPENAI_MODEL="mine")
    await client.reconnect(other)
    await client.prompt("And you?", conversation=accepted["conversation"])
    assert [request.body["model"] for request in model.requests] == ["o3", "mine"]
    await other.logged("The model server refused the request.")
