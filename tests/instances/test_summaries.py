"""Memory that lasts, by real instances: the model server of the tests sees what it is sent."""

from __future__ import annotations

import json
import re
import secrets
from dataclasses import replace
from typing import Any

import pytest

from llmchat.conversation import ANSWER_SHARE, MESSAGE_TOKENS, estimated_tokens
from llmchat.settings import Settings
from llmchat.summary import CORRECTED_CHARACTERS, most_characters
from tests.conftest import Connect, StartInstance
from tests.fakes import SILENCE, Failure, Gate, Model, Request
from tests.house import House
from tests.instances import Client, Store
from tests.waiting import eventually

CONTEXT_TOKENS = 1000
MESSAGES = 500
SMALL = {"CONTEXT_TOKENS": str(CONTEXT_TOKENS), "SYSTEM_PROMPT": "Be kind.", "PROMPTS_PER_MINUTE": "100000"}
NO_FIGURES: dict[str, int] = {}
WAY = 4
"""Calls of the server that timing may add: a delta more, a renewal."""


class Talk:
    """A conversation whose every message bears a mark of its own."""

    def __init__(self, client: Client, model: Model) -> None:
        self.client = client
        self.model = model
        self.about: dict[str, str] = {}
        self.turns = 0
        self.answers: list[str] = []

    async def turn(self, **fields: Any) -> Request:
        """Say something and have it answered; gives what the model was asked."""
        number = self.turns
        self.turns += 1
        self.model.answer(
            f"A{number:04} is the answer. " + "well " * 12, usage=NO_FIGURES, to=f"P{number:04}"
        )
        ended = await self.client.prompt(f"P{number:04} is asked. " + "so " * 20, **(self.about | fields))
        assert ended["type"] == "completion.finished"
        self.about = {"conversation": ended["conversation"]}
        self.answers.append(ended["message"])
        return self.model.requests[-1]

    async def until_folded(self, number: int = 1) -> None:
        """Go on until the model is asked for a summary."""
        while len(self.model.summaries) < number:
            await self.turn()

    async def summary(self) -> dict[str, Any] | None:
        """Read the summary as its reader does."""
        read = await self.client.command("conversation.summary", **self.about)
        found: dict[str, Any] | None = read["summary"]
        return found

    async def stored(self) -> dict[str, Any]:
        """Wait until there is a summary."""

        async def there() -> dict[str, Any] | None:
            return await self.summary()

        found = await eventually(there, seconds=40, what="a summary is stored")
        assert found
        return found


def marks(text: str) -> set[str]:
    return set(re.findall(r"[PA]\d{4}", text))


def covered(model: Model, text: str) -> set[str]:
    """What the summary that a text names stands for, by what its maker was given."""
    named = re.search(r"Memory (\d+)\.", text)
    if named is None:
        return set()
    asked = model.summaries[int(named[1]) - 1].messages[1]["content"]
    return marks(asked) | covered(model, asked.partition("Messages:")[0])


def told(model: Model, request: Request) -> set[str]:
    """All messages that the model knows of: sent, or behind the summary that is sent."""
    first, *rest = request.messages
    assert first["role"] == "system"
    assert rest[0]["role"] == "user"
    return covered(model, first["content"]) | {mark for each in rest for mark in marks(each["content"])}


@pytest.mark.long
async def test_every_message_of_a_long_conversation_is_sent_or_covered_by_the_summary_that_is(
    store: Store, start_instance: StartInstance, connect: Connect, model: Model
) -> None:
    talk = Talk(await connect(await start_instance(store, **SMALL)), model)
    said: set[str] = set()
    for number in range(MESSAGES // 2):
        request = await talk.turn()
        said.add(f"P{number:04}")
        assert said <= told(model, request), f"turn {number} lost something"
        said.add(f"A{number:04}")
        size = sum(estimated_tokens(each["content"]) + MESSAGE_TOKENS for each in request.messages)
        assert size <= CONTEXT_TOKENS - CONTEXT_TOKENS // ANSWER_SHARE
    assert len(model.summaries) > 10
    found = await talk.stored()
    assert found["messages"] > MESSAGES * 0.9


async def test_branch_from_above_a_summary_is_sent_without_it(
    store: Store, start_instance: StartInstance, connect: Connect, model: Model
) -> None:
    talk = Talk(await connect(await start_instance(store, **SMALL)), model)
    await talk.until_folded()
    await talk.stored()
    request = await talk.turn(parent=talk.answers[0])
    assert "Memory" not in request.messages[0]["content"]
    assert marks(json.dumps(request.messages)) == {"P0000", "A0000", f"P{talk.turns - 1:04}"}
    assert await talk.summary() is None


@pytest.mark.long
async def test_fold_that_hangs_delays_no_answer_and_is_taken_over_from_the_dead(
    store: Store, start_instance: StartInstance, connect: Connect, model: Model
) -> None:
    prefix = {"REDIS_PREFIX": f"fold-{secrets.token_hex(4)}"}
    one = await start_instance(store, **SMALL, **prefix)
    talk = Talk(await connect(one), model)
    model.summarise(SILENCE)
    await talk.until_folded()
    await talk.turn()  # answered, while the summary is not
    assert len(model.summaries) == 1
    assert await talk.summary() is None

    two = await start_instance(store, **SMALL, **prefix)
    await one.kill()
    await talk.client.closed()
    await talk.client.reconnect(two)
    found = await talk.stored()
    assert found["text"] == "Memory 2."
    assert marks(model.summaries[0].messages[1]["content"]) == marks(
        model.summaries[1].messages[1]["content"]
    )
    request = await talk.turn()
    assert "Memory 2." in request.messages[0]["content"]
    assert len(model.summaries) == 2, "it is made once"


async def test_summary_is_read_and_corrected_and_the_correction_lasts(
    store: Store, start_instance: StartInstance, connect: Connect, model: Model
) -> None:
    talk = Talk(await connect(await start_instance(store, **SMALL)), model)
    client = talk.client
    gate = Gate()
    model.summarise("They like tea.")
    model.summarise(gate, "Made of what was wrong.")
    model.summarise("They like coffee, and more.")
    await talk.turn()
    assert await talk.summary() is None
    await talk.until_folded()
    found = await talk.stored()
    assert found["text"] == "They like tea."
    assert found["corrected"] is False
    about = {**talk.about, "message": found["message"]}
    assert (
        await client.refused("summary.correct", **about, text="x" * (CORRECTED_CHARACTERS + 1)) == "too_long"
    )

    await talk.until_folded(2)  # it stands before the gate
    fixed = await client.command("summary.correct", **about, text="They like coffee.")
    assert fixed["summary"] == found | {"text": "They like coffee.", "corrected": True}
    request = await talk.turn()
    assert "They like coffee." in request.messages[0]["content"]

    gate.open()
    again = await model.asked_summary(3)
    assert "They like coffee." in again.messages[1]["content"]

    async def newer() -> bool:
        return (await talk.stored())["text"] == "They like coffee, and more."

    await eventually(newer, seconds=40, what="the fold is made again from what was corrected")
    assert await client.refused("summary.correct", **about, text="Too late.") == "conflict"


async def calls(store: Store) -> int:
    """How often the server was asked for something of a hash, by scripts too: conversations lie in hashes."""
    async with store.client() as redis:
        stats = await redis.info("commandstats")
    return sum(told["calls"] for name, told in stats.items() if name.startswith("cmdstat_h"))


async def fill(house: House, conversation: str, messages: int, *, folded: bool = True) -> None:
    """Store a conversation that is folded but for its last ten messages, or not at all."""
    keys = house.keys.of_conversation(conversation)
    ids = [f"m{number}" for number in range(messages)]
    state = {"session": "alice", "epoch": "e", "offset": 0, "revision": 0, "tip": ids[-1], "title": "t",
             "model": "", "created": "2026-11-22T10:00:00.000Z", "updated": "2026-11-22T10:00:00.000Z"}  # fmt: skip
    records, tree = {}, {}
    for number, message in enumerate(ids):
        role, parent = ("user", "assistant")[number % 2], ids[number - 1] if number else ""
        records[message] = json.dumps({"id": message, "role": role, "text": "Hi", "created": state["created"],
                                       "state": "done"})  # fmt: skip
        tree |= {message: f"{role} {parent}", f"children:{parent}": message, f"chosen:{parent}": message}
    await house.redis.hset(keys.conversation, mapping=state)
    await house.redis.hset(keys.messages, mapping=records)
    await house.redis.hset(keys.tree, mapping=tree)
    if folded and messages > 10:
        summary = {"text": "They like tea.", "messages": messages - 10, "created": "t"}
        await house.redis.hset(keys.summaries, ids[-11], json.dumps(summary))


async def test_turn_and_opening_cost_the_same_however_long_the_conversation_is(
    fresh_store: Store, model: Model, settings: Settings
) -> None:
    costs: dict[str, list[int]] = {"opening": [], "prompt": [], "edit": [], "regenerate": []}
    async with House(fresh_store.url, replace(settings, redis_url=fresh_store.url)) as house:
        socket = await house.connect()
        for messages in (10, 1000, 10_000):
            conversation = f"c{messages}"
            await fill(house, conversation, messages)
            before = await calls(fresh_store)
            opened = await socket.ask(type="conversation.open", conversation=conversation)
            costs["opening"].append(await calls(fresh_store) - before)
            assert len(opened["messages"]) == min(messages, 50)
            tip, answer = opened["messages"][-1]["id"], ""
            for turn, command in {
                "prompt": {"type": "message.send", "text": "Well?"},
                "edit": {"type": "message.send", "text": "Well then?", "parent": tip},
                "regenerate": {"type": "completion.regenerate"},
            }.items():
                model.answer("Yes.")
                before, since = await calls(fresh_store), len(socket.sent)
                of = {"message": answer} if turn == "regenerate" else {}
                socket.say(id=turn, conversation=conversation, **command, **of)
                answer = (await socket.a("completion.finished", since=since))["message"]
                costs[turn].append(await calls(fresh_store) - before)
                sent = model.requests[-1].messages
                assert ("They like tea." in sent[0]["content"]) == (messages > 10)
                assert len([each for each in sent if each["role"] != "system"]) == 11
    print("calls at 10, 1,000 and 10,000 messages:", costs)
    openings = costs.pop("opening")
    assert abs(openings[2] - openings[1]) <= WAY
    assert openings[0] <= openings[1]
    for turn, found in costs.items():
        assert max(found) - min(found) <= 4 * WAY, turn


async def test_long_conversation_from_before_is_folded_step_by_step_oldest_first(
    fresh_store: Store, model: Model, settings: Settings
) -> None:
    small = replace(settings, redis_url=fresh_store.url, context_tokens=CONTEXT_TOKENS)
    async with House(fresh_store.url, small) as house:
        socket = await house.connect()
        await fill(house, "c1", 600, folded=False)
        await socket.ask(type="conversation.open", conversation="c1")
        model.answer("Yes.", usage=NO_FIGURES)
        await socket.ask(type="message.send", conversation="c1", text="Well?")
        await socket.a("completion.finished")

        async def made() -> bool:
            return not await house.redis.exists(house.keys.of_conversation("c1").fold)

        await model.asked_summary(2)
        await eventually(made, seconds=40, what="all folds are made")
        read = await socket.ask(type="conversation.summary", conversation="c1")
        told = [each.messages[1]["content"].count(": Hi") for each in model.summaries]
        assert read["summary"]["text"] == f"Memory {len(told)}."
        assert read["summary"]["messages"] == sum(told)
        assert max(told) * (MESSAGE_TOKENS + 1) <= CONTEXT_TOKENS
        for number, request in enumerate(model.summaries[1:], start=1):
            assert f"Memory {number}." in request.messages[1]["content"]
        left = await house.history.read("alice", "c1", limit=1000, max_bytes=100_000, to_summary=True)
        assert len(left.messages) + sum(told) == 602


@pytest.mark.long
async def test_summary_that_the_model_refuses_is_tried_again_and_nothing_of_it_is_logged(
    store: Store, start_instance: StartInstance, connect: Connect, model: Model
) -> None:
    instance = await start_instance(store, **SMALL)
    talk = Talk(await connect(instance), model)
    model.summarise(Failure("You like tea."))
    await talk.until_folded()
    assert (await talk.stored())["text"] == "Memory 2."
    await instance.logged("A summary could not be made")
    assert "You like tea." not in instance.text
    assert "Memory 2." not in instance.text


async def test_summary_that_is_too_long_is_cut_and_its_stream_closed(
    store: Store, start_instance: StartInstance, connect: Connect, model: Model
) -> None:
    talk = Talk(await connect(await start_instance(store, **SMALL)), model)
    model.summarise("tea " * 1000, SILENCE)
    await talk.until_folded()
    found = await talk.stored()
    assert found["text"].startswith("tea tea")
    assert len(found["text"]) <= most_characters(CONTEXT_TOKENS)
    await model.summaries[0].closed()
