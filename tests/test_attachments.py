"""Files in the store: whose they are, how long they live, and how many there may be."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from redis.asyncio import Redis

from llmchat.attachments import COMING_MS, DAY_MS, DOOMED_MS, Attachments
from llmchat.errors import AttachmentRefused, Unavailable
from llmchat.keys import Keys
from llmchat.redis_client import connect
from llmchat.settings import Settings
from tests import pictures
from tests.instances import Store
from tests.waiting import eventually

PNG = pictures.PNG.ljust(100, b".")
MOST = 1_000


class Files:
    """Files under a prefix of the test's own, 100 bytes each."""

    def __init__(self, redis: Redis, days: int = 2) -> None:
        self.redis = redis
        self.keys = Keys(f"attachments-{secrets.token_hex(4)}")
        self.room = Attachments(redis, self.keys, largest=100, most_bytes=MOST, days=days)

    async def put(self, key: str, session: str = "alice", body: bytes = PNG) -> str:
        return (await self.room.put(session, key, "cat.png", body)).id

    async def there(self, session: str, *ids: str) -> list[bool]:
        return [found is not None for found in await self.room.find(session, ids)]

    async def used(self, session: str = "") -> int:
        index = self.keys.attachments_of(session) if session else self.keys.attachments
        return int(await self.redis.get(f"{index}:bytes") or 0)

    async def lives_ms(self, each: str) -> tuple[int, int]:
        keys = self.keys.attachment(each), self.keys.attachment_bytes(each)
        return await self.redis.pttl(keys[0]), await self.redis.pttl(keys[1])


@pytest.fixture
async def files(store: Store) -> AsyncIterator[Files]:
    async with connect(store.url) as redis:
        yield Files(redis)


async def test_file_comes_back_to_the_session_that_sent_it_and_to_no_other(files: Files) -> None:
    kept = await files.put("k1")
    (found,) = await files.room.find("alice", [kept])
    assert found
    assert found.shaped() == {"id": kept, "name": "cat.png", "type": "image/png", "size": 100}
    assert await files.room.read(found) == PNG
    assert await files.there("bob", kept) == [False]
    assert kept != await files.put("k1", "bob")


async def test_file_sent_again_is_kept_once(files: Files) -> None:
    assert await files.put("k1") == await files.put("k1")
    assert await files.used() == await files.used("alice") == 100
    with pytest.raises(AttachmentRefused) as refused:
        await files.put("k1", body=b"Another one")
    assert refused.value.status == 409


@pytest.mark.parametrize("body", [b"", b"\x00\x01", b"%PDF-1.7\xff"])
async def test_what_is_no_picture_and_no_text_is_refused(files: Files, body: bytes) -> None:
    with pytest.raises(AttachmentRefused) as refused:
        await files.put("k1", body=body)
    assert refused.value.status == 415


async def test_file_goes_a_day_after_it_came_and_longer_when_a_message_has_it(files: Files) -> None:
    kept = await files.put("k1")
    assert all(DAY_MS - 10_000 < left <= DAY_MS for left in await files.lives_ms(kept))
    await files.room.keep("alice", "c1", [kept])
    assert all(DAY_MS < left <= 2 * DAY_MS for left in await files.lives_ms(kept))
    await files.room.keep("alice", "c2", [kept])
    (found,) = await files.room.find("alice", [kept])
    assert found
    assert found.conversation == "c1"


async def test_file_lives_for_ever_where_days_are_zero(files: Files) -> None:
    ever = Files(files.redis, days=0)
    kept = await ever.put("k1")
    await ever.room.keep("alice", "c1", [kept])
    assert await ever.lives_ms(kept) == (-1, -1)
    assert await ever.redis.pttl(ever.keys.attachments) == -1


async def test_file_of_a_deleted_conversation_goes_with_it_and_is_kept_where_it_comes_back(
    files: Files,
) -> None:
    kept, new, other = await files.put("k1"), await files.put("k2"), await files.put("k3", "bob")
    await files.room.keep("alice", "c1", [kept])
    await files.room.keep("bob", "c1", [other])
    await files.room.doom("alice", "c1", [kept, new, other])
    await files.room.keep(
        "alice", "c1", [kept, new]
    )  # by an answer that runs yet, by a prompt sent just before
    for each in (kept, new):
        assert all(0 < left <= DOOMED_MS for left in await files.lives_ms(each))
    assert all(left > DAY_MS for left in await files.lives_ms(other))
    await files.room.restore("alice", "c1", [kept, new])
    for each in (kept, new):
        assert all(left > DAY_MS for left in await files.lives_ms(each))


async def test_file_of_a_deleted_conversation_is_not_taken_again_with_the_same_key(files: Files) -> None:
    kept = await files.put("k1")
    await files.room.keep("alice", "c1", [kept])
    await files.room.doom("alice", "c1", [kept])
    with pytest.raises(AttachmentRefused, match="deleted") as refused:
        await files.put("k1")
    assert refused.value.status == 409
    await files.room.restore("alice", "c1", [kept])
    assert await files.put("k1") == kept


async def test_file_that_no_message_has_can_be_removed_and_leaves_its_room_to_others(files: Files) -> None:
    kept, spare = await files.put("k1"), await files.put("k2")
    await files.room.keep("alice", "c1", [kept])
    await files.room.drop("bob", spare)
    assert await files.there("alice", spare) == [True]
    for each in (kept, spare):
        await files.room.drop("alice", each)

    async def gone() -> bool:
        await asyncio.sleep(0)
        return await files.there("alice", kept, spare) == [True, False]

    await eventually(gone, seconds=5, what="the file goes")
    await files.put("k3")
    assert await files.used() == await files.used("alice") == 200


async def test_late_repeat_of_a_file_that_a_message_has_by_then_changes_nothing(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = await files.put("k1")
    await files.room.keep("alice", "c1", [kept])
    find = files.room.find

    async def saw_nothing(*_: object) -> list[None]:
        monkeypatch.setattr(files.room, "find", find)
        return [None]

    monkeypatch.setattr(files.room, "find", saw_nothing)
    assert await files.put("k1") == kept
    (found,) = await find("alice", [kept])
    assert found
    assert found.conversation == "c1"
    assert all(left > DAY_MS for left in await files.lives_ms(kept))
    (goes_ms,) = await files.redis.zmscore(files.keys.attachments, [f"100 {kept}"])
    assert goes_ms - (await files.redis.time())[0] * 1000 > DAY_MS + 60_000


async def test_file_used_again_within_the_hour_is_not_written_again(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = await files.put("k1")
    await files.room.keep("alice", "c1", [kept])
    written: list[object] = []
    live = files.room._keep

    async def write(*given: object) -> object:
        written.append(given)
        return await live(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(files.room, "_keep", write)
    await files.room.attached("alice", "c1", [kept], images=True, text_bytes=20)
    assert written == []
    for key in (files.keys.attachment(kept), files.keys.attachment_bytes(kept)):
        await files.redis.pexpire(key, 2 * DAY_MS - 3_700_000)
    await files.room.attached("alice", "c1", [kept], images=True, text_bytes=20)
    assert all(left > 2 * DAY_MS - 60_000 for left in await files.lives_ms(kept))


async def test_session_has_a_part_of_the_room_and_all_sessions_the_whole(files: Files) -> None:
    for number in range(2):
        await files.put(f"k{number}")
    with pytest.raises(AttachmentRefused, match="for one person") as refused:
        await files.put("k2")
    assert refused.value.status == 507
    for number in range(8):
        await files.put("k", f"session{number}")
    with pytest.raises(AttachmentRefused, match="no room"):
        await files.put("k", "another")
    assert await files.used() == MOST


async def test_room_is_free_again_when_files_have_gone(files: Files) -> None:
    first, second = await files.put("k0"), await files.put("k1")
    for index in (files.keys.attachments_of("alice"), files.keys.attachments):
        await files.redis.zadd(index, {f"100 {first}": 1, f"100 {second}": 1})  # long ago
    await files.put("k2")
    assert await files.used() == await files.used("alice") == 100


async def test_text_is_read_from_both_its_ends_where_it_is_long(files: Files) -> None:
    kept = await files.put("k1", body=b"Begin " + b"." * 80 + b" the end")
    read = await files.room.attached("alice", "c1", [kept], images=True, text_bytes=20)
    assert read[kept].text == "Begin ....\n[…]\n.. the end"


async def test_picture_is_left_out_for_a_model_that_does_not_see(files: Files) -> None:
    kept = await files.put("k1")
    assert await files.room.attached("alice", "c1", [kept], images=False, text_bytes=20) == {}
    read = await files.room.attached("alice", "c1", [kept], images=True, text_bytes=20)
    assert (read[kept].url or "").startswith("data:image/png;base64,iVBORw0K")


async def test_every_key_ends(files: Files) -> None:
    kept = await files.put("k1")
    await files.room.keep("alice", "c1", [kept])
    names = [name async for name in files.redis.scan_iter(f"{files.keys.prefix}:*")]
    assert len(names) == 6
    assert [name for name in names if await files.redis.pttl(name) < 0] == []


async def test_file_that_was_not_written_whole_goes_soon_with_its_room_and_its_repeat_is_kept(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise Unavailable

    monkeypatch.setattr(files.room, "_keep", fail)
    with pytest.raises(Unavailable):
        await files.put("k1")
    names = [name async for name in files.redis.scan_iter(f"{files.keys.prefix}:*")]
    assert len(names) == 5
    assert [name for name in names if not 0 < await files.redis.pttl(name) <= COMING_MS] == []
    monkeypatch.undo()
    kept = await files.put("k1")
    (goes_ms,) = await files.redis.zmscore(files.keys.attachments, [f"100 {kept}"])
    for left in (*await files.lives_ms(kept), goes_ms - (await files.redis.time())[0] * 1000):
        assert left > DAY_MS - 60_000


async def test_full_store_refuses_a_file_in_the_usual_way_and_leaves_the_rest_alone(
    fresh_store: Store,
) -> None:
    async with connect(fresh_store.url) as redis:
        files = Files(redis)
        kept = await files.put("k1")
        await redis.config_set("maxmemory", "1")
        with pytest.raises(Unavailable):
            await files.put("k2")
        assert await files.there("alice", kept) == [True]
        await redis.config_set("maxmemory", "0")
        await files.put("k2")


async def test_file_that_is_never_sent_is_gone_after_its_time(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmchat.attachments.UNSENT_MS", 20)
    kept = await files.put("k1")

    async def gone() -> bool:
        await asyncio.sleep(0)
        return await files.there("alice", kept) == [False]

    await eventually(gone, seconds=5, what="the file goes")


def test_models_are_known_to_see_by_their_names_or_by_the_setting(settings: Settings) -> None:
    seeing = ["gpt-4o-mini", "gpt-4.1", "gpt-5-nano", "o3", "claude-sonnet-4", "gemini-2.5-flash", "llava:7b",
              "qwen2.5vl:7b", "Qwen/Qwen2-VL-7B", "llama3.2-vision", "pixtral-12b", "gemma3:4b"]  # fmt: skip
    blind = [
        "gpt-3.5-turbo",
        "gpt-4",
        "o3-mini",
        "SmolLM2",
        "llama3.2",
        "mistral-7b",
        "gemma3:1b",
        "deepseek-r1",
    ]
    assert [model for model in seeing if not settings.sees(model)] == []
    assert [model for model in blind if settings.sees(model)] == []
    assert replace(settings, image_models=("*",)).sees("SmolLM2")
    assert replace(settings, image_models=("mine",)).sees("mine")
    assert not replace(settings, image_models=("mine",)).sees("gpt-4o")


def test_file_lives_no_longer_than_its_conversation(settings: Settings) -> None:
    for days, history, lifetime in [(90, 400, 90), (90, 30, 30), (0, 30, 30), (90, 0, 90), (0, 0, 0)]:
        given = replace(settings, attachment_days=days, history_days=history)
        assert given.attachment_lifetime_days == lifetime
