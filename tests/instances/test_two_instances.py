"""One service of two real processes over a real store: everything is seen everywhere, and outlives its instance."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.conftest import Connect, StartInstance
from tests.fakes import Gate, Model, echo
from tests.instances import Instance, Store
from tests.instances.talk import begin, send

Instances = tuple[Instance, Instance]


async def test_prompt_and_answer_appear_on_the_other_instance_as_they_come(
    instances: Instances, connect: Connect, model: Model
) -> None:
    one = await connect(instances[0])
    two = await connect(instances[1], one)
    conversation = await begin(one)
    await two.command("conversation.open", conversation=conversation)
    gate = Gate()
    model.answer("First, ", gate, "then the *rest*.")
    answer = await send(one, conversation, "More")
    await two.until(lambda: two.text(answer) == "First, ")
    assert two.mirror(conversation).branch()[-2].text == "More"
    gate.open()
    for client in (one, two):
        await client.ending(answer)
    assert two.text(answer) == "First, then the *rest*."
    assert one.hash(conversation) == two.hash(conversation)
    assert one.html(answer) == two.html(answer) == "<p>First, then the <em>rest</em>.</p>"
    assert one.of(conversation)[-len(two.of(conversation)) :] == two.of(conversation)

    answer = await send(two, conversation, "And back")
    await one.ending(answer)
    await two.ending(answer)
    assert one.text(answer) == echo("And back")
    assert one.hash(conversation) == two.hash(conversation)


async def test_reader_that_drops_in_mid_answer_resumes_on_the_other_instance(
    instances: Instances, connect: Connect, model: Model
) -> None:
    one = await connect(instances[0])
    reader = await connect(instances[0], one)
    conversation = await begin(one)
    await reader.command("conversation.open", conversation=conversation)
    missed, rest = Gate(), Gate()
    model.answer("seen ", missed, "missed ", rest, "rest")
    answer = await send(one, conversation, "Count")
    await reader.until(lambda: reader.text(answer) == "seen ")
    await reader.drop()
    missed.open()
    await one.until(lambda: one.text(answer) == "seen missed ")
    before = len(reader.seen)
    await reader.reconnect(instances[1])
    assert reader.text(answer) == "seen missed "
    rest.open()
    await one.ending(answer)
    await reader.ending(answer)
    assert reader.hash(conversation) == one.hash(conversation)
    assert reader.of(conversation) == one.of(conversation)[-len(reader.of(conversation)) :]
    assert "conversation.snapshot" not in [event["type"] for event in reader.seen[before:]]


async def test_reader_that_reloads_in_mid_answer_finds_the_text_so_far(
    instances: Instances, connect: Connect, model: Model
) -> None:
    one = await connect(instances[0])
    gate = Gate()
    model.answer("- so\n- ", gate, "far")
    accepted = await one.command("message.send", text="List")
    conversation, answer = accepted["conversation"], accepted["answer"]
    await one.until(lambda: one.text(answer) == "- so\n- ")
    reloaded = await connect(instances[1], one)
    snapshot = await reloaded.command("conversation.open", conversation=conversation)
    assert snapshot["running"] == answer
    assert reloaded.text(answer) == "- so\n- "
    gate.open()
    await one.ending(answer)
    await reloaded.ending(answer)
    assert reloaded.hash(conversation) == one.hash(conversation)
    whole = await connect(instances[1], one)
    await whole.command("conversation.open", conversation=conversation)
    assert whole.hash(conversation) == one.hash(conversation)
    assert whole.html(answer) == one.html(answer)


@pytest.mark.parametrize("said", [["Half "], []], ids=["with text", "before the first token"])
async def test_stop_from_the_other_instance_closes_the_models_connection(
    instances: Instances, connect: Connect, model: Model, said: list[str]
) -> None:
    one = await connect(instances[0])
    conversation = await begin(one)
    two = await connect(instances[1], one)
    await two.command("conversation.open", conversation=conversation)
    await model.asked()
    gate = Gate()
    model.answer(*said, gate, "never said")
    answer = await send(one, conversation, "Go on")
    await gate.wait()
    await two.until(lambda: two.text(answer) == "".join(said))
    await two.command("completion.stop", conversation=conversation)
    await (await model.asked()).closed()
    await one.until(lambda: one.mirror(conversation).messages[answer].finish_reason == "stopped")
    assert one.text(answer) == "".join(said)
    assert one.hash(conversation) == two.hash(conversation)
    finished = await one.prompt("Again", conversation=conversation)
    assert finished["finish_reason"] == "stop"


@pytest.mark.long
async def test_prompts_and_keys_stay_out_of_the_log_whatever_the_libraries_are_told(
    store: Store, start_instance: StartInstance, connect: Connect, model: Model
) -> None:
    instance = await start_instance(store, OPENAI_LOG="debug")
    client = await connect(instance)
    model.answer("An answer of nobody's business")
    await client.prompt("A prompt of nobody's business")
    model.refuse(400, message="refused: nobody's business")
    await client.prompt("Another prompt of nobody's business")
    assert "nobody's business" not in instance.text
    assert "DEBUG" not in instance.text
    assert "sk-of-the-tests" not in instance.text


async def test_stop_of_nothing_tells_where_the_conversation_is(
    instances: Instances, connect: Connect
) -> None:
    client = await connect(instances[0])
    conversation = await begin(client)
    answered = await client.command("completion.stop", conversation=conversation)
    assert answered["type"] == "conversation.current"
    assert answered["at"] == client.mirror(conversation).at


async def test_same_id_sent_to_both_instances_is_stored_once(
    instances: Instances, connect: Connect, model: Model
) -> None:
    one = await connect(instances[0])
    two = await connect(instances[1], one)
    prompt: dict[str, Any] = {"id": "once", "text": "Hi"}
    gate = Gate()
    model.answer(gate, "Once")
    first, second = await asyncio.gather(
        one.command("message.send", **prompt), two.command("message.send", **prompt)
    )
    assert first == second
    await one.command(
        "conversation.open", conversation=first["conversation"]
    )  # a repeat is told what is to come
    gate.open()
    await one.ending(first["answer"])
    again = await two.command("message.send", **prompt)
    assert again == first
    assert (
        await two.refused("message.send", id="once", text="Another", conversation=first["conversation"])
        == "conflict"
    )
    reader = await connect(instances[1], one)
    snapshot = await reader.command("conversation.open", conversation=first["conversation"])
    assert [message["role"] for message in snapshot["messages"]] == ["user", "assistant"]
    assert len(model.requests) == 1


async def test_list_of_conversations_is_told_to_all_tabs_of_the_session(
    instances: Instances, connect: Connect
) -> None:
    one = await connect(instances[0])
    two = await connect(instances[1], one)
    stranger = await connect(instances[1])
    conversation = await begin(one, "A title of its own")
    updated = await two.event("conversation.updated")
    assert updated["conversation"]["id"] == conversation
    await two.command("conversation.update", conversation=conversation, title="Renamed", pinned=True)
    await one.until(
        lambda: any(
            event["type"] == "conversation.updated" and event["conversation"]["title"] == "Renamed"
            for event in one.seen
        )
    )
    (listed,) = (await one.command("conversation.list"))["conversations"]
    assert (listed["id"], listed["title"], listed["pinned"]) == (conversation, "Renamed", True)
    await one.command("conversation.delete", conversation=conversation)
    await two.event("conversation.deleted", conversation=conversation)
    assert (await two.command("conversation.list"))["conversations"] == []
    assert await two.refused("conversation.open", conversation=conversation) == "not_found"
    await two.command("conversation.restore", conversation=conversation)
    assert (await one.command("conversation.list"))["conversations"][0]["id"] == conversation
    await stranger.command("ping")
    assert {event["type"] for event in stranger.seen} == {"session.ready", "pong"}


@pytest.mark.long
async def test_everything_is_there_after_a_restart_of_store_and_instances(
    fresh_store: Store, start_instance: StartInstance, connect: Connect
) -> None:
    instance = await start_instance(fresh_store)
    client = await connect(instance)
    conversation = await begin(client, "Remember me")
    before = client.hash(conversation)
    assert await instance.stop() == 0
    await fresh_store.restart()
    await instance.start()
    other = await start_instance(fresh_store)
    reader = await connect(other, client)
    await reader.command("conversation.open", conversation=conversation)
    assert reader.hash(conversation) == before
    assert [one["id"] for one in (await reader.command("conversation.list"))["conversations"]] == [
        conversation
    ]
    await client.closed()
    await client.reconnect()
    await client.prompt("And now", conversation=conversation)
    # Nobody can tell what a store that started anew has lost: with the first event after it comes a new epoch.
    assert client.of(conversation)[-1]["at"]["epoch"] != client.of(conversation)[0]["at"]["epoch"]
    await reader.until(lambda: reader.mirror(conversation).at == client.mirror(conversation).at)
    assert reader.hash(conversation) == client.hash(conversation)


async def test_sigterm_closes_connections_for_another_instance(
    store: Store, start_instance: StartInstance, connect: Connect
) -> None:
    instance = await start_instance(store)
    client = await connect(instance)
    instance.terminate()
    assert await client.closed() == 1012
    assert await instance.ended() == 0


@pytest.mark.long
async def test_kill_of_the_answering_instance_leaves_its_answer_to_another(
    store: Store, start_instance: StartInstance, connect: Connect, model: Model
) -> None:
    dying, other = await asyncio.gather(start_instance(store), start_instance(store))
    one = await connect(dying)
    conversation = await begin(one)
    two = await connect(other, one)
    await two.command("conversation.open", conversation=conversation)
    model.answer("Half of ", Gate(), "it")
    model.answer("All of it")
    answer = await send(one, conversation, "Go on")
    await two.until(lambda: two.text(answer) == "Half of ")
    await dying.kill()
    assert await one.closed() == 1006
    await two.ending(answer, seconds=40)
    assert two.mirror(conversation).messages[answer].attempt == 2
    assert two.text(answer) == "All of it"
    await one.reconnect(other)
    assert one.hash(conversation) == two.hash(conversation)
    await two.prompt("Again", conversation=conversation)
    assert two.mirror(conversation).branch()[-1].text == echo("Again")
