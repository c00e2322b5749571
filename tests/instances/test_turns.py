"""Answers that outlive their instance, prompts that wait, answers that go on: over real processes and a real store."""

from __future__ import annotations

import asyncio

import pytest

from tests.conftest import Connect, StartInstance
from tests.fakes import CUT, Gate, Model, echo
from tests.instances import Client, Instance, Store
from tests.instances.talk import begin, send

Instances = tuple[Instance, Instance]


def states(client: Client, conversation: str) -> list[tuple[str | None, str]]:
    """What the current branch says, and in which state."""
    return [(message.text, message.state) for message in client.mirror(conversation).branch()]


# Prompts that wait


async def test_prompts_sent_while_an_answer_runs_wait_and_are_answered_in_order(
    instances: Instances, connect: Connect, model: Model
) -> None:
    one = await connect(instances[0])
    two = await connect(instances[1], one)
    conversation = await begin(one)
    await two.command("conversation.open", conversation=conversation)
    gate = Gate()
    model.answer("Slowly", gate, to="First")
    first = await send(one, conversation, "First")
    await gate.wait()
    second = await send(two, conversation, "Second")
    third = await send(one, conversation, "Third")
    late = await connect(instances[1], one)
    snapshot = await late.command("conversation.open", conversation=conversation)
    assert [message["state"] for message in snapshot["messages"][-4:]] == [
        "done",
        "running",
        "queued",
        "queued",
    ]
    assert [message["parent"] for message in snapshot["messages"][-2:]] == [first, second]
    for client in (one, two):
        await client.until(lambda client=client: states(client, conversation)[-1] == ("Third", "queued"))
        assert client.hash(conversation) == late.hash(conversation)
    gate.open()
    for client in (one, two, late):
        await client.ending(third)
        assert states(client, conversation)[-6:] == [
            ("First", "done"), ("Slowly", "done"),
            ("Second", "done"), (echo("Second"), "done"),
            ("Third", "done"), (echo("Third"), "done"),
        ]  # fmt: skip
        assert client.hash(conversation) == one.hash(conversation)
    assert [asked.prompt for asked in model.requests][-3:] == ["First", "Second", "Third"]
    assert [message["content"] for message in model.requests[-1].messages][-5:] == [
        "First", "Slowly", "Second", echo("Second"), "Third"
    ]  # fmt: skip


async def test_prompt_that_waits_is_withdrawn_for_all(
    instances: Instances, connect: Connect, model: Model
) -> None:
    one = await connect(instances[0])
    two = await connect(instances[1], one)
    conversation = await begin(one)
    await two.command("conversation.open", conversation=conversation)
    gate = Gate()
    model.answer("Slowly", gate)
    await send(one, conversation, "First")
    await gate.wait()
    await send(one, conversation, "Second")
    third = await send(one, conversation, "Third")
    await two.until(lambda: states(two, conversation)[-1] == ("Third", "queued"))
    second = next(each.id for each in two.mirror(conversation).messages.values() if each.text == "Second")
    await two.command("message.withdraw", conversation=conversation, message=second)
    gate.open()
    for client in (one, two):
        await client.ending(third)
        assert [text for text, _ in states(client, conversation)][-4:] == [
            "First", "Slowly", "Third", echo("Third")
        ]  # fmt: skip
    late = await connect(instances[0], one)
    await late.command("conversation.open", conversation=conversation)
    assert late.hash(conversation) == one.hash(conversation) == two.hash(conversation)
    assert "Second" not in [asked.prompt for asked in model.requests]


async def test_stop_ends_one_answer_and_those_that_wait_go_on(
    instances: Instances, connect: Connect, model: Model
) -> None:
    one = await connect(instances[0])
    two = await connect(instances[1], one)
    conversation = await begin(one)
    model.answer("Never whole", Gate())
    first = await send(one, conversation, "First")
    await one.until(lambda: one.text(first) == "Never whole")
    second = await send(one, conversation, "Second")
    await two.command("conversation.open", conversation=conversation)
    stopped = await two.command("completion.stop", conversation=conversation, message=first)
    assert (stopped["message"], stopped["finish_reason"]) == (first, "stopped")
    again = await two.command("completion.stop", conversation=conversation, message=first)
    assert again["type"] in {"conversation.current", "completion.finished"}
    assert (await two.ending(second))["finish_reason"] == "stop"


async def test_edit_while_an_answer_runs_waits_and_is_answered_on_its_branch(
    instances: Instances, connect: Connect, model: Model
) -> None:
    one = await connect(instances[0])
    two = await connect(instances[1], one)
    conversation = await begin(one)
    await two.command("conversation.open", conversation=conversation)
    first = one.mirror(conversation).branch()[1].id
    gate = Gate()
    model.answer("Slowly", gate)
    await send(one, conversation, "As it was")
    await gate.wait()
    edited = await send(two, conversation, "As it is", parent=first)
    for client in (one, two):
        await client.until(lambda client=client: states(client, conversation)[-1] == ("As it is", "queued"))
    gate.open()
    for client in (one, two):
        await client.ending(edited)
        assert [text for text, _ in states(client, conversation)][2:] == ["As it is", echo("As it is")]
    assert one.hash(conversation) == two.hash(conversation)
    assert "As it was" not in [message["content"] for message in model.requests[-1].messages]


# Going on


@pytest.mark.parametrize(
    "continues",
    [
        pytest.param(False, id="asked in words", marks=pytest.mark.long),
        pytest.param(True, id="given its beginning"),
    ],
)
async def test_answer_goes_on_in_the_same_message(
    store: Store, start_instance: StartInstance, connect: Connect, model: Model, continues: bool
) -> None:
    model.continues = continues
    instances = await asyncio.gather(start_instance(store), start_instance(store))
    one = await connect(instances[0])
    two = await connect(instances[1], one)
    conversation = await begin(one)
    await two.command("conversation.open", conversation=conversation)
    model.answer("One, two", finish_reason="length")
    model.answer("One, two, three" if continues else ", three")
    answer = await send(one, conversation, "Count")
    assert (await two.ending(answer))["finish_reason"] == "length"
    started = await two.command("completion.continue", id="go", conversation=conversation, message=answer)
    assert (started["message"], started["attempt"], started["text"]) == (answer, 2, "One, two")
    for client in (one, two):
        await client.until(lambda client=client: client.text(answer) == "One, two, three")
        await client.until(lambda client=client: client.mirror(conversation).messages[answer].state == "done")
        assert client.mirror(conversation).messages[answer].finish_reason == "stop"
    assert one.hash(conversation) == two.hash(conversation)
    again = await one.command("completion.continue", id="go", conversation=conversation, message=answer)
    assert again["type"] == "conversation.current"
    asked = model.requests[-1]
    if continues:
        assert asked.kept == "One, two"
    else:
        assert [message["role"] for message in asked.messages[-3:]] == ["user", "assistant", "user"]
        assert asked.messages[-2]["content"] == "One, two"
    late = await connect(one.instance, one)  # type: ignore[arg-type]
    await late.command("conversation.open", conversation=conversation)
    assert late.hash(conversation) == one.hash(conversation)


async def test_continued_answer_that_breaks_off_at_once_keeps_its_text(
    instances: Instances, connect: Connect, model: Model
) -> None:
    client = await connect(instances[0])
    conversation = await begin(client)
    model.answer("One, two", CUT)
    model.refuse(400)
    answer = await send(client, conversation, "Count")
    assert (await client.ending(answer))["finish_reason"] == "interrupted"
    await client.command("completion.continue", conversation=conversation, message=answer)
    assert (await client.ending(answer))["finish_reason"] == "interrupted"
    assert client.text(answer) == "One, two"


async def test_continued_answer_can_be_stopped_and_go_on_again(
    instances: Instances, connect: Connect, model: Model
) -> None:
    client = await connect(instances[0])
    conversation = await begin(client)
    model.answer("One", Gate())
    model.answer(", two", Gate())
    model.answer(", three")
    answer = await send(client, conversation, "Count")
    for text in ("One", "One, two"):
        await client.until(lambda text=text: client.text(answer) == text)
        await client.command("completion.stop", conversation=conversation, message=answer)
        await client.command("completion.continue", conversation=conversation, message=answer)
    assert (await client.ending(answer, seconds=10))["finish_reason"] in {"stopped", "stop"}
    await client.until(lambda: client.text(answer) == "One, two, three")


# Instances that die


@pytest.mark.long
async def test_takeover_keeps_the_text_where_the_model_goes_on_from_it(
    store: Store, start_instance: StartInstance, connect: Connect, model: Model
) -> None:
    model.continues = True
    dying, other = await asyncio.gather(start_instance(store), start_instance(store))
    one = await connect(dying)
    conversation = await begin(one)
    two = await connect(other, one)
    await two.command("conversation.open", conversation=conversation)
    model.answer("Half of ", Gate(), "it")
    model.answer("Half of ", "it")
    answer = await send(one, conversation, "Go on")
    await two.until(lambda: two.text(answer) == "Half of ")
    await dying.kill()
    assert (await two.ending(answer, seconds=40))["finish_reason"] == "stop"
    assert two.mirror(conversation).messages[answer].attempt == 2
    started = [event for event in two.of(conversation) if event["type"] == "completion.started"]
    assert started[-1]["text"] == "Half of "
    assert two.text(answer) == "Half of it"
    await one.closed()
    await one.reconnect(other)
    assert one.hash(conversation) == two.hash(conversation)


@pytest.mark.long
async def test_continued_answer_keeps_what_a_person_kept_when_its_instance_dies(
    store: Store, start_instance: StartInstance, connect: Connect, model: Model
) -> None:
    dying, other = await asyncio.gather(start_instance(store), start_instance(store))
    one = await connect(dying)
    conversation = await begin(one)
    two = await connect(other, one)
    await two.command("conversation.open", conversation=conversation)
    model.answer("Kept", finish_reason="length")
    model.answer(" and lost", Gate())
    model.answer(" and whole")
    answer = await send(one, conversation, "Go on")
    await one.ending(answer)
    await one.command("completion.continue", conversation=conversation, message=answer)
    await two.until(lambda: two.text(answer) == "Kept and lost")
    await dying.kill()
    await two.until(lambda: two.mirror(conversation).messages[answer].state == "done", seconds=40)
    assert two.text(answer) == "Kept and whole"
    await one.closed()


@pytest.mark.long
async def test_all_instances_dead_and_one_started_again_finds_what_is_open(
    fresh_store: Store, start_instance: StartInstance, connect: Connect, model: Model
) -> None:
    instances = await asyncio.gather(start_instance(fresh_store), start_instance(fresh_store))
    clients = [await connect(instances[0])]
    clients.append(await connect(instances[1], clients[0]))
    conversations = [await begin(client, f"Begin {number}") for number, client in enumerate(clients)]
    model.answer("Half", Gate(), times=2)
    answers = [
        await send(client, conversation, "Run")
        for client, conversation in zip(clients, conversations, strict=True)
    ]
    for client, answer in zip(clients, answers, strict=True):
        await client.until(lambda client=client, answer=answer: client.text(answer) == "Half")
    waits = await send(clients[0], conversations[0], "Wait")
    await asyncio.gather(*(instance.kill() for instance in instances))
    await fresh_store.restart()
    for client in clients:
        await client.closed()
    await instances[0].start()
    for client in clients:
        await client.reconnect(instances[0])
    for client, answer, conversation in zip(clients, answers, conversations, strict=True):
        await client.until(
            lambda client=client, answer=answer, conversation=conversation: (
                client.mirror(conversation).messages[answer].state == "done"
            ),
            seconds=40,
        )
        assert client.text(answer) == echo("Run")
    await clients[0].until(lambda: clients[0].text(waits) == echo("Wait"), seconds=40)


async def test_prompt_whose_instance_dies_as_soon_as_it_is_stored_is_answered(
    store: Store, start_instance: StartInstance, connect: Connect, model: Model
) -> None:
    dying, other = await asyncio.gather(start_instance(store), start_instance(store))
    one = await connect(dying)
    conversation = await begin(one)
    two = await connect(other, one)
    await two.command("conversation.open", conversation=conversation)
    await one.send("message.send", id="mine", conversation=conversation, text="Are you there")
    await two.until(lambda: two.mirror(conversation).branch()[-1].text != echo("Hi"))
    dying.freeze()
    await dying.kill()
    await two.until(
        lambda: (
            [each.text for each in two.mirror(conversation).branch()][-2:]
            == ["Are you there", echo("Are you there")]
        ),
        seconds=40,
    )
    assert [asked.prompt for asked in model.requests].count("Are you there") in {1, 2}


@pytest.mark.long
async def test_instance_that_stops_gives_its_answers_to_others_and_nobody_is_told_of_an_error(
    store: Store, start_instance: StartInstance, connect: Connect, model: Model
) -> None:
    model.continues = True
    leaving, other = await asyncio.gather(start_instance(store), start_instance(store))
    one = await connect(leaving)
    conversation = await begin(one)
    two = await connect(other, one)
    await two.command("conversation.open", conversation=conversation)
    model.answer("Half of ", Gate(), "it")
    model.answer("Half of ", "it")
    answer = await send(one, conversation, "Go on")
    waits = await send(one, conversation, "And on")
    await two.until(lambda: two.text(answer) == "Half of ")
    assert await leaving.stop() == 0
    assert (await two.ending(answer))["finish_reason"] == "stop"
    assert (await two.ending(waits))["finish_reason"] == "stop"
    assert two.text(answer) == "Half of it"
    assert await one.closed() == 1012
