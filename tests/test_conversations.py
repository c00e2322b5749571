"""A session's lists of conversations: each promise on fakeredis, and on a real store."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import pytest
from redis.asyncio import Redis

from llmchat.conversation import TEMPORARY_SECONDS, Choices, Conversation, timestamp
from llmchat.conversations import FORMAT, STALE_MS
from llmchat.errors import NotFound
from tests.test_history import DAY_MS, SESSION, Story, redis

__all__ = ["redis"]


class Sidebar:
    """Several conversations of one session."""

    def __init__(self, redis: Redis) -> None:
        self.story = Story(redis)
        self.history = self.story.history
        self.conversations = self.story.conversations

    async def begin(self, conversation: str, title: str = "Greeting") -> None:
        """Begin a conversation, and wait until the store's clock shows another millisecond."""
        sent = await self.story.send(f"{conversation}.1", conversation=conversation, title=title)
        if not sent.repeated:  # as chat does
            await self.use(conversation, timestamp())
        seconds, micros = await self.story.redis.time()
        then = now = seconds * 1000 + micros // 1000
        while now == then:
            seconds, micros = await self.story.redis.time()
            now = seconds * 1000 + micros // 1000

    async def use(self, conversation: str, updated: str) -> None:
        """Put a conversation where a use of it at a time belongs."""
        known = await self.conversations.conversation(SESSION, conversation)
        await self.conversations.touch(SESSION, replace(known, updated=updated))

    async def page(
        self, before: str | None = None, limit: int = 50, query: str | None = None
    ) -> tuple[list[str], bool]:
        """A page of the list, as a client asks for it: `before` is the `updated` of the last one it has."""
        before_ms = None if before is None else round(datetime.fromisoformat(before).timestamp() * 1000)
        found, more = await self.conversations.listed(SESSION, before_ms=before_ms, limit=limit, query=query)
        self.last = found[-1].updated if found else None
        return [each.id for each in found], more

    async def pages(self, limit: int) -> list[str]:
        """All pages, one after the other."""
        ids, more = await self.page(limit=limit)
        while more:
            assert len(ids) < 50, "the pages do not end"
            further, more = await self.page(self.last, limit)
            ids += further
        return ids


@pytest.fixture
def sidebar(redis: Redis) -> Sidebar:
    return Sidebar(redis)


async def test_conversations_are_listed_last_used_first(sidebar: Sidebar) -> None:
    assert await sidebar.page() == ([], False)
    for name in ("c1", "c2", "c3"):
        await sidebar.begin(name)
    assert await sidebar.page() == (["c3", "c2", "c1"], False)
    await sidebar.use("c1", timestamp())
    assert await sidebar.page() == (["c1", "c3", "c2"], False)


async def test_list_comes_in_pages_without_gap_or_repeat(sidebar: Sidebar) -> None:
    for number in range(7):
        await sidebar.begin(f"c{number}")
    newest_first = [f"c{number}" for number in reversed(range(7))]
    assert await sidebar.page(limit=3) == (newest_first[:3], True)
    assert await sidebar.page(limit=7) == (newest_first, False)
    for limit in (1, 2, 3):
        assert await sidebar.pages(limit) == newest_first


@pytest.mark.parametrize("act", ["restored", "sent again", "answered once more"])
async def test_list_comes_in_pages_without_gap_or_repeat_when_an_old_one_was(
    sidebar: Sidebar, act: str
) -> None:
    for name in ("c1", "c2", "c3", "c4"):
        await sidebar.begin(name)
    history = sidebar.history
    if act == "restored":
        await sidebar.conversations.delete(SESSION, "c1")
        await sidebar.conversations.restore(SESSION, "c1")
    elif act == "sent again":
        await sidebar.begin("c1")
    else:
        await sidebar.story.redis.delete(sidebar.story.keys.of_conversation("c1").turn)
        await history.regenerate(session=SESSION, conversation="c1", prompt="c1.1", answer="again", model="m")
    assert sorted(await sidebar.pages(1)) == ["c1", "c2", "c3", "c4"]


async def test_list_is_searched_by_title_whatever_the_case(sidebar: Sidebar) -> None:
    for name, title in (("c1", "Über Käse"), ("c2", "Bread"), ("c3", "Mehr über Brot"), ("c4", "Tea")):
        await sidebar.begin(name, title)
    assert await sidebar.page(query="ÜBER") == (["c3", "c1"], False)
    assert await sidebar.page(query="über", limit=1) == (["c3"], True)
    assert await sidebar.page(query="coffee") == ([], False)


async def test_list_is_the_sessions_own(sidebar: Sidebar) -> None:
    await sidebar.begin("c1")
    assert await sidebar.conversations.listed("mallory", before_ms=None, limit=9, query=None) == ([], False)


async def test_listed_conversation_has_what_the_sidebar_shows(sidebar: Sidebar) -> None:
    await sidebar.begin("c1", "Über Käse")
    (found,), _ = await sidebar.conversations.listed(SESSION, before_ms=None, limit=9, query=None)
    shape = found.listed(["default", "m"])
    assert shape | {"created": "", "updated": ""} == {
        "id": "c1", "title": "Über Käse", "created": "", "updated": "", "pinned": False, "archived": False,
        "running": True, "unread": False, "model": "m",
    }  # fmt: skip


# Pinned, archived, temporary


async def ids(sidebar: Sidebar, **wanted: bool) -> list[str]:
    """A list that is asked for by `pinned` or `archived`."""
    found, more = await sidebar.conversations.listed(SESSION, before_ms=None, limit=50, **wanted)
    assert not more
    return [each.id for each in found]


async def test_lists_have_those_that_are_or_are_not_pinned_or_archived(sidebar: Sidebar) -> None:
    for name in ("c1", "c2", "c3", "c4"):
        await sidebar.begin(name)
    await sidebar.conversations.update(SESSION, "c1", {"pinned": "1"})
    await sidebar.conversations.update(SESSION, "c3", {"archived": "1"})
    assert await ids(sidebar, pinned=True) == ["c1"]
    assert await ids(sidebar, archived=True) == ["c3"]
    assert await ids(sidebar, archived=False) == ["c4", "c2", "c1"]
    assert await ids(sidebar, archived=False, pinned=False) == ["c4", "c2"]
    assert await ids(sidebar) == ["c4", "c3", "c2", "c1"]
    await sidebar.conversations.update(SESSION, "c1", {"pinned": "0"})
    await sidebar.conversations.update(SESSION, "c3", {"archived": "0"})
    assert await ids(sidebar, pinned=True) == await ids(sidebar, archived=True) == []


async def test_page_without_archived_ones_is_full_however_many_are_passed_over(sidebar: Sidebar) -> None:
    for number in range(6):
        await sidebar.begin(f"c{number}")
    for number in (1, 2, 4, 5):
        await sidebar.conversations.update(SESSION, f"c{number}", {"archived": "1"})
    found, more = await sidebar.conversations.listed(SESSION, before_ms=None, limit=1, archived=False)
    assert ([each.id for each in found], more) == (["c3"], True)
    before_ms = round(datetime.fromisoformat(found[-1].updated).timestamp() * 1000)
    found, more = await sidebar.conversations.listed(SESSION, before_ms=before_ms, limit=1, archived=False)
    assert ([each.id for each in found], more) == (["c0"], False)


async def test_deleted_one_leaves_every_list_and_comes_back_into_each(sidebar: Sidebar) -> None:
    await sidebar.begin("c1")
    await sidebar.conversations.update(SESSION, "c1", {"pinned": "1", "archived": "1"})
    await sidebar.conversations.delete(SESSION, "c1")
    assert await ids(sidebar) == await ids(sidebar, pinned=True) == await ids(sidebar, archived=True) == []
    await sidebar.conversations.restore(SESSION, "c1")
    assert (
        await ids(sidebar) == await ids(sidebar, pinned=True) == await ids(sidebar, archived=True) == ["c1"]
    )


async def test_one_that_is_unpinned_and_pinned_in_two_tabs_at_once_is_in_a_list(
    sidebar: Sidebar, monkeypatch: pytest.MonkeyPatch
) -> None:
    await sidebar.begin("c1")
    conversations = sidebar.story.conversations
    await conversations.update(SESSION, "c1", {"pinned": "1"})
    read = conversations.conversation

    async def overtaken(session: str, conversation: str) -> Conversation:
        known = await read(session, conversation)
        monkeypatch.setattr(conversations, "conversation", read)
        await conversations.update(SESSION, "c1", {"pinned": "1"})
        return known

    monkeypatch.setattr(conversations, "conversation", overtaken)
    await conversations.update(SESSION, "c1", {"pinned": "0"})
    assert await ids(sidebar, pinned=True) == ["c1"]


async def test_stale_entry_is_taken_off_and_a_fresh_one_stays(sidebar: Sidebar) -> None:
    await sidebar.begin("c1")
    now_ms = round(datetime.fromisoformat(timestamp()).timestamp() * 1000)
    keys, redis = sidebar.story.keys, sidebar.story.redis
    for key in (keys.conversations(SESSION), keys.pinned(SESSION)):
        await redis.zadd(key, {"gone": now_ms - STALE_MS - 60_000, "to come": now_ms})
    assert await ids(sidebar) == ["c1"]
    assert await ids(sidebar, pinned=True) == []
    assert await redis.zrange(keys.conversations(SESSION), 0, -1) == [b"c1", b"to come"]
    assert await redis.zrange(keys.pinned(SESSION), 0, -1) == [b"to come"]


async def test_temporary_one_is_in_no_list_and_goes_an_hour_after_its_last_use(redis: Redis) -> None:
    for history_days in (400, 0):
        story = Story(redis, history_days=history_days, conversation=f"c{history_days}")
        await story.send("m1", choices=Choices(temporary=True))
        await story.answer()
        known = await story.conversations.conversation(SESSION, story.id)
        await story.conversations.touch(SESSION, known)
        assert known.temporary
        assert await story.conversations.listed(SESSION, before_ms=None, limit=9) == ([], False)
        assert await redis.zrange(story.keys.temporary(SESSION), 0, -1) == [story.id.encode()]
        elsewhere = (story.of.fence, story.keys.work, story.keys.format(SESSION))
        for key, ms in (await story.ttls()).items():
            if key not in elsewhere:
                assert 0 < ms <= TEMPORARY_SECONDS * 1000, key
        await story.conversations.delete(SESSION, story.id)
        await story.conversations.unlist(SESSION, story.id)
        assert await redis.zrange(story.keys.temporary(SESSION), 0, -1) == []
        await story.conversations.restore(SESSION, story.id)
        assert 0 < await redis.pttl(story.of.messages) <= TEMPORARY_SECONDS * 1000


async def test_choices_of_a_first_prompt_are_the_conversations(redis: Redis) -> None:
    story = Story(redis)
    await story.send("m1", choices=Choices(system="", parameters='{"top_p":0.5}'))
    known = await story.conversations.conversation(SESSION, story.id)
    assert (known.system, known.parameters, known.temporary) == ("", {"top_p": 0.5}, False)
    await story.answer()
    await story.send("m2", choices=Choices(system="Another", temporary=True))
    assert (await story.conversations.conversation(SESSION, story.id)).system == ""
    again = await story.conversations.update(SESSION, story.id, {}, ["system"])
    assert (again.system, again.temporary) == (None, False)
    with pytest.raises(NotFound):
        await story.conversations.update("mallory", story.id, {}, ["parameters"])


# The form of the data


async def test_data_of_the_first_form_is_brought_into_the_present_one_when_it_is_listed(
    sidebar: Sidebar,
) -> None:
    names = [f"c{number}" for number in range(5)]
    for name in names:
        await sidebar.begin(name)
    redis, keys = sidebar.story.redis, sidebar.story.keys
    await redis.hset(keys.of_conversation("c1").conversation, "pinned", "1")  # as form 1 has it
    await redis.hset(keys.of_conversation("c3").conversation, "archived", "1")
    await redis.delete(keys.format(SESSION), keys.pinned(SESSION), keys.archived(SESSION))
    before = {name: await redis.hgetall(keys.of_conversation(name).conversation) for name in names}
    assert await ids(sidebar, pinned=True) == ["c1"]
    assert await ids(sidebar, archived=True) == ["c3"]
    assert before == {name: await redis.hgetall(keys.of_conversation(name).conversation) for name in names}
    assert await redis.get(keys.format(SESSION)) == str(FORMAT).encode()
    for key in (keys.format(SESSION), keys.pinned(SESSION), keys.archived(SESSION)):
        assert 399 * DAY_MS < await redis.pttl(key) <= 400 * DAY_MS


async def test_chat_that_an_older_instance_archived_or_pinned_is_in_its_list_again(sidebar: Sidebar) -> None:
    for name in ("c1", "c2", "c3"):
        await sidebar.begin(name)
    assert len(await ids(sidebar)) == 3  # the data have their present form
    keys = sidebar.story.keys
    for name, flag in (("c1", "archived"), ("c2", "pinned")):
        await sidebar.story.redis.hset(keys.of_conversation(name).conversation, flag, "1")
    assert await ids(sidebar, archived=False) == ["c3", "c2"]
    assert await ids(sidebar, archived=True) == ["c1"]
    assert await ids(sidebar, pinned=True) == ["c2"]
    for key in (keys.archived(SESSION), keys.pinned(SESSION)):
        assert await sidebar.story.redis.pttl(key) > 0


async def test_data_of_a_later_form_is_left_alone(sidebar: Sidebar) -> None:
    await sidebar.begin("c1")
    redis, keys = sidebar.story.redis, sidebar.story.keys
    await redis.set(keys.format(SESSION), FORMAT + 1)
    await redis.hset(keys.of_conversation("c1").conversation, "pinned", "1")
    assert await ids(sidebar, pinned=True) == []
    assert await redis.get(keys.format(SESSION)) == str(FORMAT + 1).encode()


async def test_visitor_without_a_conversation_leaves_no_key(redis: Redis) -> None:
    story = Story(redis)
    assert await story.conversations.listed("nobody", before_ms=None, limit=9) == ([], False)
    assert await story.every_key() == []
