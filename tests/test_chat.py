"""What the story makes of a prompt, a stop and a long conversation, where no socket is needed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from llmchat import turns as turns_room
from llmchat.attachments import DOOMED_MS
from llmchat.chat import _fitting
from llmchat.conversation import RESTORE_SECONDS
from llmchat.errors import Unavailable
from llmchat.events import MAX_SNAPSHOT_BYTES, CompletionStop, MessageSend
from llmchat.settings import Settings
from tests.house import FakeSocket, House
from tests.instances import Store
from tests.waiting import eventually


@pytest.fixture
async def house(store: Store, settings: Settings) -> AsyncIterator[House]:
    async with House(store.url, settings) as house:
        yield house


def message(name: str, size: int, **more: str) -> dict[str, Any]:
    return {"id": name, "role": "assistant", "text": "x" * size, **more}


# What fits in a frame


def test_snapshot_that_fits_is_whole() -> None:
    messages = [message("m1", 10, html="h", reasoning="r"), message("m2", 10, html="h")]
    assert _fitting(messages) == (messages, False)


def test_snapshot_keeps_the_newest_messages_that_fit() -> None:
    messages = [message(name, MAX_SNAPSHOT_BYTES * 2 // 5) for name in ("m1", "m2", "m3")]
    assert _fitting(messages) == (messages[1:], True)


@pytest.mark.parametrize("shed", ["html", "reasoning"])
@pytest.mark.parametrize("before", [0, 1])
def test_message_too_large_for_a_frame_goes_without_html_and_reasoning(shed: str, before: int) -> None:
    large = message("m2", 10, html="h", reasoning="r") | {shed: "é" * (MAX_SNAPSHOT_BYTES // 2 + 1)}
    found, cut = _fitting([message("m1", 10)] * before + [large])
    assert found == [message("m2", 10)]
    assert len(json.dumps(found, ensure_ascii=False).encode()) < MAX_SNAPSHOT_BYTES
    assert cut == (before > 0)


# Files


async def test_delete_that_meets_a_moment_without_the_store_is_told_and_its_repeat_does_the_rest(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    tab = await house.connect()
    file = await house.attachments.put("alice", "k1", "notes.txt", b"Buy milk.")
    accepted = await tab.ask(type="message.send", id="one", text="  ", attachments=[file.id])
    conversation = accepted["conversation"]
    assert (await house.conversations.conversation("alice", conversation)).title == "notes.txt"
    doom = house.attachments.doom

    async def fail_once(*_: object) -> None:
        monkeypatch.setattr(house.attachments, "doom", doom)
        raise Unavailable

    monkeypatch.setattr(house.attachments, "doom", fail_once)
    with pytest.raises(Unavailable):
        await house.chat.delete("alice", conversation)
    assert (await tab.a("conversation.deleted"))["conversation"] == conversation
    await house.chat.delete("alice", conversation)
    assert 0 < await house.redis.pttl(house.keys.attachment_bytes(file.id)) <= DOOMED_MS


# What belongs to a chat as a whole


async def begun(house: House, **choices: bool) -> tuple[FakeSocket, str]:
    """Begin a chat and wait for its first answer."""
    tab = await house.connect()
    conversation = (await tab.ask(type="message.send", id="one", text="Hi", **choices))["conversation"]
    await tab.a("completion.finished")
    return tab, conversation


@pytest.mark.parametrize("history_days", [0, 1])
async def test_shared_copy_goes_with_its_chat_and_comes_back_with_it(
    store: Store, settings: Settings, history_days: int
) -> None:
    async with House(store.url, replace(settings, history_days=history_days)) as house:
        tab, conversation = await begun(house)
        share = (await tab.ask(type="share.create", id="share", conversation=conversation))["share"]
        key = house.keys.share(share["id"])
        lasting = await house.redis.pttl(key)
        await tab.ask(type="conversation.delete", id="away", conversation=conversation)
        assert 0 < await house.redis.pttl(key) <= RESTORE_SECONDS * 1000
        assert await house.chat.shared(share["id"]) is None
        await tab.ask(type="conversation.restore", id="back", conversation=conversation)
        assert (await house.redis.pttl(key) > RESTORE_SECONDS * 1000) == (lasting > 0)
        assert await house.chat.shared(share["id"])


async def test_temporary_chat_is_not_pinned_archived_or_shared(house: House) -> None:
    tab, conversation = await begun(house, temporary=True)
    for command in (
        {"type": "conversation.update", "pinned": True},
        {"type": "conversation.update", "archived": True},
        {"type": "share.create"},
    ):
        refused = await tab.ask(**command, id="no", conversation=conversation)
        assert refused["code"] == "bad_field"
        assert "temporary" in refused["detail"]
    for flags in ({"pinned": True}, {"archived": True}, {}):
        assert (await tab.ask(type="conversation.list", id="list", **flags))["conversations"] == []
    taken = await tab.ask(type="conversation.update", id="t", conversation=conversation, title="Mine")
    assert taken["conversation"]["title"] == "Mine"


async def test_chat_is_unread_in_all_tabs_from_the_end_of_an_answer_until_one_of_them_reads_it(
    house: House,
) -> None:
    tab, conversation = await begun(house)
    other = await house.connect()
    told = await tab.until(
        lambda event: event["type"] == "conversation.updated" and event["conversation"]["unread"]
    )
    assert told["conversation"]["id"] == conversation
    (row,) = (await other.ask(type="conversation.list", id="list"))["conversations"]
    assert row["unread"]
    since = len(other.sent)
    read = await tab.ask(type="conversation.read", id="read", conversation=conversation)
    assert not read["conversation"]["unread"]
    assert read["conversation"]["updated"] == row["updated"]
    told = await other.until(lambda event: event["type"] == "conversation.updated", since=since)
    assert not told["conversation"]["unread"]
    refused = await (await house.connect("bob")).ask(
        type="conversation.read", id="no", conversation=conversation
    )
    assert refused["code"] == "not_found"


async def test_chat_that_is_back_after_its_deletion_is_noted_as_loose_no_more(house: House) -> None:
    tab, conversation = await begun(house)
    await tab.ask(type="conversation.delete", id="away", conversation=conversation)
    assert await house.redis.zrange(house.keys.loose("alice"), 0, -1) == [conversation.encode()]
    await tab.ask(type="conversation.restore", id="back", conversation=conversation)
    assert await house.redis.zrange(house.keys.loose("alice"), 0, -1) == []


# Turns that nobody makes


STOP = CompletionStop(type="completion.stop", conversation="c1")


async def ended(house: House, conversation: str) -> str:
    """Wait until a conversation has no turn; gives how its answer ended."""

    async def look() -> bool:
        return await house.history.turn(conversation) is None

    await eventually(look, seconds=30, what="the turn ends")
    reason: str = (await house.history.message("alice", conversation, "a1"))["finish_reason"]
    return reason


async def test_turn_that_no_index_leads_to_is_made_when_the_next_prompt_goes_behind_it(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns_room, "GRACE_SECONDS", 3600)  # nobody looks for it
    await house.leave_turn("c1")
    command = MessageSend(type="message.send", id="next", text="Next", conversation="c1")
    allowance = house.limits.of("alice", "127.0.0.1")
    await house.chat.send("alice", command, allowance)
    assert await ended(house, "c1") == "stop"


async def test_turn_that_no_index_leads_to_is_made_when_its_conversation_is_opened(house: House) -> None:
    await house.leave_turn("c1")
    await house.chat.snapshot("alice", "c1")
    assert await ended(house, "c1") == "stop"


async def test_turn_that_no_index_leads_to_ends_when_it_is_stopped(house: House) -> None:
    await house.leave_turn("c1")
    assert await house.chat.stop("alice", STOP)
    assert await ended(house, "c1") == "stopped"
    assert not await house.chat.stop("alice", STOP)
