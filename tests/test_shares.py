"""Shared links: what of a branch they show, for how long, and how they are taken back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fakeredis import FakeAsyncRedis

from llmchat.conversations import Conversations
from llmchat.errors import BadField
from llmchat.shares import MOST_REVOKED, MOST_SHARES, REVOKED, SHARED_BYTES, SHARED_MESSAGES, Share, Shares
from tests.test_history import SESSION, Story

SECRET = "of the tests " * 4
DAY_MS = 86_400_000


class Sharing(Story):
    """A conversation, and the links that are made to it."""

    def __init__(self, redis: FakeAsyncRedis, *, history_days: int = 1, secret: str = SECRET) -> None:
        super().__init__(redis)
        self.shares = Shares(redis, self.keys, secret, history_days=history_days)

    async def share(self, command: str = "s1", session: str = SESSION) -> Share:
        branch = await self.history.read(
            SESSION, self.id, limit=SHARED_MESSAGES, max_bytes=SHARED_BYTES, texts_only=True
        )
        return await self.shares.create(session, command, branch)

    async def texts(self, share: Share) -> list[str]:
        found = await self.shares.find(share.id)
        return [each["text"] for each in found.copy.messages] if found else []


@pytest.fixture
def story(fake_redis: FakeAsyncRedis) -> Sharing:
    return Sharing(fake_redis)


async def test_share_shows_the_branch_as_it_was_and_nothing_that_comes_later(story: Sharing) -> None:
    await story.exchange("m1")
    share = await story.share()
    await story.exchange("m2")
    found = await story.shares.find(share.id)
    assert found
    assert await story.texts(share) == ["text of m1", "answer to m1"]
    assert (found.conversation, found.title, share.messages) == ("c1", "Greeting", 2)
    assert not found.copy.earlier
    assert not found.copy.unfinished
    assert set(found.copy.messages[1]) == {"role", "text", "created", "model"}
    assert share.shaped()["path"] == f"/s/{share.id}"
    later = await story.share("s2")
    assert len(await story.texts(later)) == 4
    assert len(await story.texts(share)) == 2
    assert await story.shares.listed(SESSION) == [later, share]
    assert await story.shares.listed(SESSION, "c1") == [later, share]
    assert await story.shares.listed(SESSION, "c2") == []
    assert await story.shares.listed("bob") == []


async def test_share_has_no_reasoning_and_of_files_only_their_names(story: Sharing) -> None:
    file = {"id": "f1", "name": "cat.png", "type": "image/png", "size": 4}
    await story.send("m1", "", attachments=[file])
    fence, answer = await story.begin()
    await story.say(fence, answer, 1, "A cat", reasoning="A secret thought")
    await story.finish(fence, answer)
    share = await story.share()
    stored = await story.redis.hgetall(story.keys.share(share.id))
    assert b"secret" not in b"".join(stored.values())
    assert b"f1" not in stored[b"copy"]
    found = await story.shares.find(share.id)
    assert found
    assert found.copy.messages[0] == {
        "role": "user", "text": "", "created": found.copy.messages[0]["created"], "files": ["cat.png"]
    }  # fmt: skip


async def test_answer_that_is_being_written_is_left_out_and_that_is_said(story: Sharing) -> None:
    await story.exchange("m1")
    await story.send("m2", "And now?")
    fence, answer = await story.begin()
    await story.say(fence, answer, 1, "Half a")
    share = await story.share()
    await story.say(fence, answer, 2, " sentence")
    await story.finish(fence, answer)
    found = await story.shares.find(share.id)
    assert found
    assert found.copy.unfinished
    assert await story.texts(share) == ["text of m1", "answer to m1", "And now?"]


async def test_chat_with_nothing_said_has_nothing_to_share(story: Sharing) -> None:
    branch: Any = await story.history.read(await _begun(story), story.id, limit=9, max_bytes=99)
    branch.messages.clear()
    with pytest.raises(BadField, match="nothing to share"):
        await story.shares.create(SESSION, "s1", branch)
    assert await story.shares.listed(SESSION) == []


async def _begun(story: Sharing) -> str:
    await story.send("m1")
    return SESSION


async def test_command_that_is_repeated_makes_one_link_whose_copy_stays(story: Sharing) -> None:
    await story.exchange("m1")
    share = await story.share()
    await story.exchange("m2")
    assert await story.share() == share
    assert len(await story.texts(share)) == 2
    assert (await story.share(session="bob")).id != share.id
    other = Sharing(story.redis, secret="another " * 5)
    await other.exchange("m1")
    assert (await other.share()).id != share.id  # nobody makes it without the key
    assert len(share.id) == 32


async def test_link_whose_copy_was_never_written_gets_it_by_a_repeat(story: Sharing) -> None:
    await story.exchange("m1")
    share = await story.share()
    await story.redis.delete(story.keys.share(share.id))  # the instance died between the two
    assert await story.shares.find(share.id) is None
    assert await story.shares.listed(SESSION) == []
    assert await story.share() == share
    assert len(await story.texts(share)) == 2


async def test_revoked_link_shows_nothing_and_only_its_session_revokes_it(story: Sharing) -> None:
    await story.exchange("m1")
    share, other = await story.share(), await story.share("s2")
    await story.shares.revoke("bob", share.id)
    assert await story.texts(share)
    await story.shares.revoke(SESSION, share.id)
    await story.shares.revoke(SESSION, share.id)
    assert await story.shares.find(share.id) is None
    assert not await story.redis.exists(story.keys.share(share.id))
    assert await story.shares.listed(SESSION) == [other]


async def test_link_that_was_taken_back_is_not_made_again(story: Sharing) -> None:
    await story.exchange("m1")
    share = await story.share()
    await story.shares.revoke(SESSION, share.id)
    await story.exchange("m2")
    with pytest.raises(BadField, match=REVOKED):
        await story.share()
    assert await story.texts(share) == []
    assert not await story.redis.exists(story.keys.share(share.id))
    assert await story.shares.listed(SESSION) == []
    assert 0 < await story.redis.pttl(story.keys.revoked(SESSION)) <= DAY_MS
    assert await story.texts(await story.share("s2"))


async def test_of_links_that_were_taken_back_the_newest_are_known_and_none_counts(story: Sharing) -> None:
    await story.exchange("m1")
    old = {f"t{at}": at for at in range(MOST_REVOKED)}
    await story.redis.zadd(story.keys.revoked(SESSION), old)
    share = await story.share()
    await story.shares.revoke(SESSION, share.id)
    noted = await story.redis.zrange(story.keys.revoked(SESSION), 0, -1)
    assert len(noted) == MOST_REVOKED
    assert (noted[0], noted[-1]) == (b"t1", share.id.encode())


async def test_links_of_a_deleted_chat_are_listed_again_when_it_is_back(story: Sharing) -> None:
    await story.exchange("m1")
    share = await story.share()
    chats = Conversations(story.redis, story.keys, history_days=1)
    await chats.delete(SESSION, story.id)
    await story.shares.doom(SESSION, story.id)
    assert await story.shares.listed(SESSION) == []
    assert 0 < await story.redis.pttl(story.keys.share(share.id)) <= 30_000
    await chats.restore(SESSION, story.id)
    await story.shares.restore(SESSION, story.id)
    assert await story.shares.listed(SESSION) == [share]
    assert await story.redis.pttl(story.keys.share(share.id)) > 30_000


async def test_link_that_is_made_while_its_chat_is_deleted_goes_with_it(story: Sharing) -> None:
    await story.exchange("m1")
    branch = await story.history.read(SESSION, story.id, limit=9, max_bytes=SHARED_BYTES, texts_only=True)
    await Conversations(story.redis, story.keys, history_days=1).delete(SESSION, story.id)
    share = await story.shares.create(SESSION, "s1", branch)
    assert 0 < await story.redis.pttl(story.keys.share(share.id)) <= 30_000
    assert await story.shares.listed(SESSION) == []


async def test_link_of_a_chat_that_has_gone_does_not_come_back_with_it(story: Sharing) -> None:
    await story.exchange("m1")
    share = await story.share()
    key = story.keys.of_conversation(story.id).conversation
    state = await story.redis.hgetall(key)
    await story.redis.delete(key)
    assert await story.shares.listed(SESSION) == []
    assert not await story.redis.exists(story.keys.shares(SESSION))  # nor does it count
    await story.redis.hset(key, mapping=state)
    assert await story.texts(share) == []


async def test_copy_that_no_list_has_is_not_shown(story: Sharing) -> None:
    await story.exchange("m1")
    share = await story.share()
    await story.redis.delete(story.keys.shares(SESSION))
    assert await story.shares.find(share.id) is None


async def test_session_has_so_many_links_and_no_more(story: Sharing) -> None:
    await story.exchange("m1")
    entry = json.dumps(
        {"conversation": "c1", "title": "t", "created": "2026-01-01T00:00:00.000Z", "messages": 1}
    )
    await story.redis.hset(story.keys.shares(SESSION), mapping={f"t{n}": entry for n in range(MOST_SHARES)})
    with pytest.raises(BadField, match="Revoke one first"):
        await story.share()
    assert await story.shares.listed(SESSION) == []  # none of them has a copy, and all are old
    assert await story.texts(await story.share())


async def test_share_goes_by_age(story: Sharing, fake_redis: FakeAsyncRedis) -> None:
    await story.exchange("m1")
    share = await story.share()
    for key in (story.keys.share(share.id), story.keys.shares(SESSION)):
        assert DAY_MS - 5000 < await fake_redis.pttl(key) <= DAY_MS
    for_ever = Sharing(fake_redis, history_days=0)
    await for_ever.exchange("m1")
    share = await for_ever.share()
    assert await fake_redis.pttl(for_ever.keys.share(share.id)) == -1
    assert await fake_redis.pttl(for_ever.keys.shares(SESSION)) == -1


async def test_long_chat_is_shared_from_its_end_and_that_is_said(story: Sharing) -> None:
    for number in range(4):
        await story.exchange(f"m{number}")
    branch = await story.history.read(SESSION, story.id, limit=3, max_bytes=SHARED_BYTES, texts_only=True)
    share = await story.shares.create(SESSION, "s1", branch)
    found = await story.shares.find(share.id)
    assert found
    assert found.copy.earlier
    assert await story.texts(share) == ["answer to m2", "text of m3", "answer to m3"]
