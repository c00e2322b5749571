"""Searches in a session's conversations: what they find, what they leave out, and that they tell how far they came."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from fakeredis import FakeAsyncRedis
from redis.asyncio import Redis

from llmchat import searches
from llmchat.conversations import Conversations
from llmchat.errors import Busy
from llmchat.history import History
from llmchat.keys import Keys
from llmchat.redis_client import connect
from llmchat.search import Query
from llmchat.searches import Found, Searched, Searches
from tests.instances import Store
from tests.waiting import within

OLD_MS = 1_700_000_000_000


class Shelves:
    """Conversations of sessions, put into the store as they lie there."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self.keys = Keys(f"searches-{secrets.token_hex(4)}")
        self.searches = Searches(redis, self.keys)

    async def put(
        self, name: str, *texts: str, title: str = "Chat", session: str = "alice", age: int = 0, **state: str
    ) -> None:
        """Put one of this title and these messages, used so many seconds ago."""
        of = self.keys.of_conversation(name)
        records, tree, parent = {}, {}, ""
        for number, text in enumerate(texts):
            message, role = f"{name}-{number}", ("user", "assistant")[number % 2]
            created = f"2026-01-01T{number // 3600:02}:{number // 60 % 60:02}:{number % 60:02}.000Z"
            records[message] = json.dumps(
                {"id": message, "role": role, "parent": parent, "text": text, "created": created}
            )
            tree |= {message: f"{role} {parent}", f"chosen:{parent}": message, f"children:{parent}": message}
            parent = message
        pipe = self.redis.pipeline(transaction=False)
        pipe.hset(of.conversation, mapping={"session": session, "title": title, **state})
        if records:
            pipe.hset(of.messages, mapping=records)
            pipe.hset(of.tree, mapping=tree)
        pipe.zadd(self.keys.conversations(session), {name: OLD_MS - age * 1000})
        await pipe.execute()

    async def search(self, typed: str, *, limit: int = 20) -> tuple[list[Found], Searched]:
        return await self.searches.search("alice", Query.read(typed), limit=limit)

    async def names(self, typed: str) -> list[str]:
        return [each.conversation for each in (await self.search(typed))[0]]


@pytest.fixture
async def shelves(fake_redis: FakeAsyncRedis) -> Shelves:
    return Shelves(fake_redis)


@pytest.fixture
async def real_shelves(store: Store) -> AsyncIterator[Shelves]:
    async with AsyncExitStack() as leaving:
        redis = connect(store.url)
        leaving.push_async_callback(redis.aclose)
        yield Shelves(redis)


async def test_words_are_found_in_titles_and_in_messages_newest_chat_first(shelves: Shelves) -> None:
    await shelves.put("old", "Where is Zürich?", "In Switzerland.", age=9)
    await shelves.put("new", title="A trip to ZURICH", age=1)
    await shelves.put("other", "Where is Rome?", age=5)
    found, searched = await shelves.search("zurich")
    assert [each.conversation for each in found] == ["new", "old"]
    assert found[0].title is not None
    assert (found[0].title.before, found[0].title.hit, found[0].matches) == ("A trip to ", "ZURICH", [])
    (match,) = found[1].matches
    assert match.shaped() == {
        "message": "old-0",
        "role": "user",
        "before": "Where is ",
        "hit": "Zürich",
        "after": "?",
    }
    assert searched == Searched(3, 3, complete=True)


async def test_words_have_to_stand_in_the_same_message(shelves: Shelves) -> None:
    await shelves.put("apart", "red", "blue", title="green")
    await shelves.put("together", "blue and red")
    assert await shelves.names("red blue") == ["together"]


async def test_newest_messages_are_shown_and_the_others_are_counted(shelves: Shelves) -> None:
    await shelves.put("long", *["a tree"] * 12)
    ((found,), _) = await shelves.search("tree")
    assert [each.message for each in found.matches] == ["long-11", "long-10", "long-9"]
    assert found.more == 9


async def test_reasoning_and_earlier_attempts_are_not_searched(shelves: Shelves) -> None:
    await shelves.put("c1", "Hi", "Hello")
    hidden = {"reasoning:c1-1": "a secret", "earlier:c1-1": "a secret"}
    await shelves.redis.hset(shelves.keys.of_conversation("c1").messages, mapping=hidden)
    assert await shelves.names("secret") == []


@pytest.mark.parametrize("state", [{"deleted": "t"}, {"temporary": "1"}, {"session": "bob"}])
async def test_what_is_deleted_temporary_or_anothers_is_not_found(
    shelves: Shelves, state: dict[str, str]
) -> None:
    await shelves.put("c1", "a tree", title="tree")
    await shelves.redis.hset(shelves.keys.of_conversation("c1").conversation, mapping=state)
    assert await shelves.search("tree") == ([], Searched(0, 0, complete=True))


async def test_entry_that_leads_nowhere_is_not_counted(shelves: Shelves) -> None:
    await shelves.redis.zadd(shelves.keys.conversations("alice"), {"gone": OLD_MS})
    assert await shelves.search("tree") == ([], Searched(0, 0, complete=True))


async def test_message_of_another_version_is_told_as_such(shelves: Shelves) -> None:
    await shelves.put("c1", "Hi", "tree one", "More")
    of = shelves.keys.of_conversation("c1")
    for name, parent in (("x", "c1-0"), ("y", "x")):
        record = {"id": name, "role": "assistant", "text": "tree two", "created": "2025", "parent": parent}
        await shelves.redis.hset(of.messages, name, json.dumps(record))
        await shelves.redis.hset(of.tree, mapping={name: f"assistant {parent}", f"chosen:{parent}": name} if name == "y"
                                 else {name: f"assistant {parent}"})  # fmt: skip
    ((found,), _) = await shelves.search("tree")
    assert {each.message: each.current for each in found.matches} == {"c1-1": True, "x": False, "y": False}
    assert found.matches[-1].shaped()["current"] is False


async def test_search_ends_with_enough_chats_and_says_so(shelves: Shelves) -> None:
    for number in range(5):
        await shelves.put(f"c{number}", "a tree", age=number)
    found, searched = await shelves.search("tree", limit=2)
    assert [each.conversation for each in found] == ["c0", "c1"]
    assert searched == Searched(2, 5, complete=False)


async def test_search_that_leaves_out_the_oldest_chats_is_not_complete(
    shelves: Shelves, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searches, "CONVERSATIONS", 3)
    for number in range(5):
        await shelves.put(f"c{number}", "a tree", age=number)
    found, searched = await shelves.search("tree")
    assert [each.conversation for each in found] == ["c0", "c1", "c2"]
    assert searched == Searched(3, 5, complete=False)


async def test_search_reads_no_more_than_its_bytes_and_says_so(
    shelves: Shelves, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searches, "AT_FIRST", 1)
    monkeypatch.setattr(searches, "AT_ONCE", 1)
    monkeypatch.setattr(searches, "SEARCH_BYTES", 250)
    for number in range(9):
        await shelves.put(f"c{number}", "a tree" + "." * 100, age=number)
    found, searched = await shelves.search("tree")
    assert len(found) == searched.conversations == 2
    assert (searched.of, searched.complete) == (9, False)


async def test_long_chat_is_read_in_parts_to_its_end(
    shelves: Shelves, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searches, "FIRST_BYTES", 1)
    monkeypatch.setattr(searches, "FURTHER_BYTES", 1)
    await shelves.put("long", *(f"word{number}." for number in range(300)))
    await shelves.put("short", "word7.", age=1)
    for number in (0, 7, 150, 299):
        ((found, *_), searched) = await shelves.search(f"word{number}.")
        assert [each.message for each in found.matches] == [f"long-{number}"]
        assert searched == Searched(2, 2, complete=True)


async def test_every_chat_of_hundreds_is_found_on_a_real_store(real_shelves: Shelves) -> None:
    for start in range(0, 400, 20):
        await asyncio.gather(
            *(
                real_shelves.put(f"c{number}", *["nothing here"] * 6, f"part {number}.", age=number)
                for number in range(start, start + 20)
            )
        )
    await real_shelves.put("long", *(f"page {number}. " + "x" * 2000 for number in range(500)), age=1000)
    await real_shelves.redis.script_flush()
    for number in (0, 57, 399):
        found, searched = await real_shelves.search(f'"part {number}."')
        assert [each.conversation for each in found] == [f"c{number}"]
        assert searched == Searched(401, 401, complete=True)
    ((found_long,), _) = await real_shelves.search('"page 3."')
    assert [each.message for each in found_long.matches] == ["long-3"]


class Held(Searches):
    """Searches that wait for the test before they read."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        super().__init__(redis, keys)
        self.begun: asyncio.Queue[str] = asyncio.Queue()
        self.go_on = asyncio.Event()

    async def _conversations(self, session: str) -> list[str]:
        self.begun.put_nowait(session)
        await self.go_on.wait()
        return await super()._conversations(session)


async def test_few_search_at_once_and_one_of_a_session(shelves: Shelves) -> None:
    held = Held(shelves.redis, shelves.keys)
    query = Query.read("tree")
    async with asyncio.TaskGroup() as tasks, within(10, "all have searched"):
        for session in ("alice", "alice", "bob", "carol"):
            tasks.create_task(held.search(session, query, limit=1))
        assert {await held.begun.get(), await held.begun.get()} == {"alice", "bob"}
        await asyncio.sleep(0)
        assert held.begun.empty()
        held.go_on.set()
        assert {await held.begun.get(), await held.begun.get()} == {"alice", "carol"}


async def test_search_that_waits_too_long_is_told_to_come_again(
    shelves: Shelves, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(shelves.redis, shelves.keys)
    first = asyncio.create_task(held.search("alice", Query.read("tree"), limit=1))
    await held.begun.get()
    monkeypatch.setattr(searches, "WAIT_SECONDS", 0)
    with pytest.raises(Busy):
        await held.search("alice", Query.read("tree"), limit=1)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    monkeypatch.setattr(searches, "WAIT_SECONDS", 5)
    held.go_on.set()
    await held.search("alice", Query.read("tree"), limit=1)


async def test_chat_that_is_deleted_is_found_no_more_and_again_when_it_is_back(
    fake_redis: FakeAsyncRedis,
) -> None:
    shelves = Shelves(fake_redis)
    conversations = Conversations(fake_redis, shelves.keys, history_days=1)
    history = History(fake_redis, shelves.keys, conversations, history_days=1)
    sent: dict[str, Any] = {
        "message": "m1",
        "text": "a tree",
        "parent": "",
        "answer": "a1",
        "model": "m",
        "title": "t",
    }
    await history.send(session="alice", conversation="c1", new=True, **sent)
    assert await shelves.names("tree") == ["c1"]
    await conversations.delete("alice", "c1")
    assert await shelves.names("tree") == []
    await conversations.restore("alice", "c1")
    assert await shelves.names("tree") == ["c1"]
