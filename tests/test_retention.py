"""What is kept is shortened to what is set now: chats, links, files and lists, by what each tells of its last use."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from fakeredis import FakeAsyncRedis

from llmchat.attachments import Attachments
from llmchat.conversation import derived_id, timestamp
from llmchat.retention import SLACK_MS, Lowered, Retention
from tests.trunk import Trunk, as_json, ours

DAY_MS = 86_400_000
BEFORE, NOW = 400, 30
"""Days: what was set, and what is."""
SESSION = "alice"


def ago(days: float) -> str:
    """Give a time as the store has it."""
    return timestamp(datetime.now(UTC) - timedelta(days=days))


class Kept:
    """A store of what was kept for `before` days, 0: for ever."""

    def __init__(self, redis: FakeAsyncRedis, before: int) -> None:
        self.redis, self.trunk = redis, Trunk(redis)
        self.keys = self.trunk.keys
        self.files = self._attachments(before)
        self._before_ms = before * DAY_MS

    def retention(self, days: int = NOW) -> Retention:
        """What shortens it."""
        return Retention(self.redis, self.keys, self._attachments(days), history_days=days)

    def _attachments(self, days: int) -> Attachments:
        return Attachments(self.redis, self.keys, largest=1000, most_bytes=100_000, days=days)

    async def live(self, *keys: str) -> None:
        """Have keys live as what was used just now did."""
        for key in keys:
            if self._before_ms:
                await self.redis.pexpire(key, self._before_ms)
            else:
                await self.redis.persist(key)

    async def chat(self, name: str, *, used: float, said: bool = True) -> str:
        """Keep a chat that was used so many days ago, with its lists; where nothing was `said`, it was imported."""
        await self.trunk.take(as_json([ours(id=name, updated=ago(used))]))
        chat = derived_id("import", SESSION, name)
        keys = self.keys.of_conversation(chat)
        if said:
            await self.redis.hset(keys.conversation, "logged", "1")
        await self.live(keys.conversation, keys.messages, keys.tree, self.keys.conversations(SESSION))
        return chat

    async def file(self, chat: str) -> str:
        """Keep a file that a chat's message has; gives its id."""
        put = await self.files.put(SESSION, f"of {chat}", "a.txt", b"Some text")
        await self.redis.hset(self.keys.of_conversation(chat).tree, f"file:{put.id}", "1")
        await self.files.keep(SESSION, chat, [put.id])
        return put.id

    async def left_days(self, key: str) -> float:
        """Tell how long a key lives yet; 0 where it is gone, -1 for ever."""
        ms = await self.redis.pttl(key)
        return {-2: 0.0, -1: -1.0}.get(ms, ms / DAY_MS)

    async def chat_left(self, chat: str) -> set[float]:
        """Tell how many whole days what a chat has lives yet."""
        keys = self.keys.of_conversation(chat)
        return {round(await self.left_days(key), 2) for key in (keys.conversation, keys.messages, keys.tree)}


@pytest.fixture(params=[BEFORE, 0], ids=["for long", "for ever"])
def kept(request: pytest.FixtureRequest, fake_redis: FakeAsyncRedis) -> Kept:
    return Kept(fake_redis, request.param)


async def test_chat_lives_so_long_from_its_last_use_on_and_goes_at_once_where_that_is_over(
    kept: Kept,
) -> None:
    old, middle = await kept.chat("old", used=31), await kept.chat("middle", used=20)
    lowered = await kept.retention().lower(change=True)
    assert await kept.chat_left(old) == {0}
    assert await kept.chat_left(middle) == {10}
    assert await kept.left_days(kept.keys.conversations(SESSION)) == pytest.approx(NOW, abs=0.01)
    assert (lowered.chats, lowered.gone) == (2, 1)
    assert [each["id"] for each in await kept.trunk.chats()] == [middle]


async def test_chat_that_was_imported_and_never_gone_on_with_has_all_the_time_from_now(kept: Kept) -> None:
    chat = await kept.chat("imported", used=800, said=False)
    await kept.retention().lower(change=True)
    assert await kept.chat_left(chat) == {NOW}


async def test_second_time_changes_nothing(kept: Kept) -> None:
    await kept.chat("old", used=31)
    await kept.file(await kept.chat("middle", used=20))
    assert await kept.retention().lower(change=True) != Lowered()
    assert await kept.retention().lower(change=True) == Lowered()


async def test_nothing_changes_where_it_is_only_counted(kept: Kept) -> None:
    chat = await kept.chat("old", used=31)
    await kept.file(chat)
    before = {key: round(await kept.left_days(key.decode())) for key in await kept.redis.keys()}
    counted = await kept.retention().lower(change=False)
    assert {key: round(await kept.left_days(key.decode())) for key in await kept.redis.keys()} == before
    assert (counted.chats, counted.files, counted.gone) == (1, 1, 2)
    assert await kept.retention().lower(change=True) == counted


async def test_nothing_is_shortened_that_does_not_live_too_long(fake_redis: FakeAsyncRedis) -> None:
    kept = Kept(fake_redis, NOW)
    await kept.file(await kept.chat("now", used=0))
    assert await kept.retention().lower(change=True) == Lowered()
    assert await kept.retention(BEFORE).lower(change=True) == Lowered()


async def test_nothing_is_shortened_where_all_is_kept_for_ever(kept: Kept) -> None:
    chat = await kept.chat("old", used=800)
    before = await kept.chat_left(chat)
    assert await kept.retention(0).lower(change=True) == Lowered()
    assert await kept.chat_left(chat) == before


async def test_chat_that_is_used_in_that_moment_keeps_its_life(kept: Kept) -> None:
    chat = await kept.chat("old", used=31)
    retention = kept.retention()
    lower = retention._lower.each

    async def used_meanwhile(calls: list[tuple[list[str], list[str | int]]]) -> list[int]:
        await kept.redis.hset(kept.keys.of_conversation(chat).conversation, "updated", timestamp())
        return await lower(calls)

    retention._lower.each = used_meanwhile  # type: ignore[method-assign, assignment]
    assert (await retention.lower(change=True)).chats == 0
    assert await kept.chat_left(chat) in ({float(BEFORE)}, {-1.0})


async def test_chat_that_was_deleted_can_be_brought_back_all_the_same(kept: Kept) -> None:
    chat = await kept.chat("old", used=31)
    await kept.trunk.conversations.delete(SESSION, chat)
    await kept.retention().lower(change=True)
    await kept.trunk.conversations.restore(SESSION, chat)
    assert await kept.chat_left(chat) == {1}  # as the rooms of the trunk have it


async def test_file_goes_with_its_chat_and_its_account_forgets_it(kept: Kept) -> None:
    old, middle = await kept.chat("old", used=31), await kept.chat("middle", used=20)
    gone, stays = await kept.file(old), await kept.file(middle)
    unsent = (await kept.files.put(SESSION, "unsent", "b.txt", b"Not sent")).id
    lowered = await kept.retention().lower(change=True)
    assert (lowered.files, lowered.gone) == (2, 2)
    assert [each and each.id for each in await kept.files.find(SESSION, [gone, stays, unsent])] == [
        None,
        stays,
        unsent,
    ]
    for key in (kept.keys.attachment(stays), kept.keys.attachment_bytes(stays)):
        assert await kept.left_days(key) == pytest.approx(10, abs=0.01)
    last_ms = datetime.now(UTC).timestamp() * 1000 + 10 * DAY_MS + SLACK_MS
    for account in (kept.keys.attachments, kept.keys.attachments_of(SESSION)):
        assert {
            at for _, at in await kept.redis.zrange(account, 0, -1, withscores=True) if at > last_ms
        } == set()
        assert 0 < await kept.left_days(account) <= 10.01


async def test_file_whose_chat_is_on_its_way_stays(kept: Kept) -> None:
    put = await kept.files.put(SESSION, "of an import", "a.txt", b"Some text")
    await kept.files.keep(SESSION, "not there yet", [put.id])
    await kept.retention().lower(change=True)
    (there,) = await kept.files.find(SESSION, [put.id])
    assert there
    assert await kept.left_days(kept.keys.attachment_bytes(put.id)) == pytest.approx(NOW, abs=0.01)


async def test_link_lives_so_long_from_when_it_was_made(kept: Kept) -> None:
    for token, days in (("old", 31), ("middle", 20)):
        key = kept.keys.share(token)
        await kept.redis.hset(key, mapping={"session": SESSION, "created": ago(days)})
        await kept.live(key)
    lowered = await kept.retention().lower(change=True)
    assert (lowered.links, lowered.gone) == (2, 1)
    assert await kept.left_days(kept.keys.share("old")) == 0
    assert await kept.left_days(kept.keys.share("middle")) == pytest.approx(10, abs=0.01)


async def test_everything_is_found_among_more_keys_than_are_looked_at_at_once(kept: Kept) -> None:
    sessions = [f"session{number}" for number in range(700)]
    for session in sessions:
        await kept.redis.hset(kept.keys.prompts(session), "a", "{}")
        await kept.live(kept.keys.prompts(session))
    assert (await kept.retention().lower(change=True)).lists == len(sessions)
    for session in sessions:
        assert await kept.left_days(kept.keys.prompts(session)) == pytest.approx(NOW, abs=0.01)


async def test_keys_of_another_prefix_are_left_alone(kept: Kept) -> None:
    other = "t2:{session.alice}:conversations"
    await kept.redis.set(other, "1")
    await kept.retention().lower(change=True)
    assert await kept.left_days(other) == -1
