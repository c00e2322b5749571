"""The seed's protocol on a socket whose other end is the test: what its clients do wrong, and what befalls them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from llmchat import connection as connection_room
from llmchat.connection import FRAMES_AT_ONCE
from llmchat.conversation import Conversation
from llmchat.events import MAX_FRAME_BYTES, ConversationList
from llmchat.seed import PROMPTS_WAITING
from llmchat.settings import Settings
from tests.fakes import Gate, Model, echo
from tests.house import FakeSocket, House
from tests.instances import Store


@pytest.fixture
async def house(store: Store, settings: Settings) -> AsyncIterator[House]:
    async with House(store.url, settings) as house:
        yield house


async def ask(socket: FakeSocket, prompt: str) -> dict[str, Any]:
    """Send a prompt, and wait for its answer."""
    socket.say(prompt=prompt)
    return await socket.until(lambda answer: answer["prompt"] == prompt)


async def conversations(house: House) -> list[str]:
    listed = await house.chat.listed("alice", ConversationList(type="conversation.list"))
    return [each["id"] for each in listed.conversations]


async def test_seed_begins_a_new_conversation_after_its_own_was_deleted_elsewhere(house: House) -> None:
    socket = house.connect_seed()
    assert await ask(socket, "One") == {"prompt": "One", "response": echo("One")}
    (deleted,) = await conversations(house)
    await house.chat.delete("alice", deleted)
    told = await ask(socket, "Two")
    assert told["response"] == ""
    assert told["error"]
    assert await ask(socket, "Three") == {"prompt": "Three", "response": echo("Three")}
    assert deleted not in await conversations(house)
    assert len(await conversations(house)) == 1


async def test_seed_is_answered_while_another_answer_is_made_in_its_conversation(
    house: House, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    another, read = asyncio.Event(), house.chat.answer

    async def late(*names: str) -> tuple[Conversation, dict[str, Any] | None]:
        await another.wait()
        return await read(*names)

    monkeypatch.setattr(house.chat, "answer", late)
    model.answer("Another", Gate(), to="Two")
    seed, page = house.connect_seed(), await house.connect()
    seed.say(prompt="One")
    ended = await page.until(
        lambda e: e["type"] == "conversation.updated" and not e["conversation"]["running"]
    )
    conversation = ended["conversation"]["id"]
    await page.ask(type="message.send", text="Two", conversation=conversation)
    await page.a("completion.delta")
    another.set()
    assert (await seed.until(lambda answer: answer["prompt"] == "One"))["response"] == echo("One")


async def test_seed_that_floods_is_closed(house: House) -> None:
    socket = house.connect_seed()
    for _ in range(2 * FRAMES_AT_ONCE):
        socket.say("no JSON")
    assert await socket.ended() == 1008


async def test_seed_with_too_many_prompts_waiting_is_closed(house: House, model: Model) -> None:
    model.answer(Gate())
    socket = house.connect_seed()
    for number in range(PROMPTS_WAITING + 10):
        socket.say(prompt=str(number))
    assert await socket.ended() == 1008


async def test_seeds_frame_that_is_too_large_is_closed(house: House) -> None:
    socket = house.connect_seed()
    socket.say("é" * (MAX_FRAME_BYTES // 2 + 1))
    assert await socket.ended() == 1009


async def test_seed_that_never_reads_is_closed(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_room, "SEND_SECONDS", 0.2)
    socket = house.connect_seed()
    socket.reads = False
    socket.say(prompt="Hi")
    assert await socket.ended() == 1013
