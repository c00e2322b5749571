"""A store that lost what it acknowledged last: clients are told, and what is still known is put back."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fakeredis import FakeAsyncRedis
from redis.asyncio import Redis

from llmchat.conversations import Conversations
from llmchat.errors import Behind, Fenced
from llmchat.history import TIP, History
from llmchat.keys import Keys
from llmchat.lease import Leases
from llmchat.redis_client import connect
from llmchat.turn import Answer, Delta
from tests.instances import Store

SESSION = "alice"
CONVERSATION = "c1"


class Maker:
    """One prompt and its answer, as chat and turns make them."""

    def __init__(self, redis: Redis) -> None:
        keys = Keys(f"epochs-{secrets.token_hex(4)}")
        self.redis = redis
        self.of = keys.of_conversation(CONVERSATION)
        self.conversations = Conversations(redis, keys, history_days=400)
        self.history = History(redis, keys, self.conversations, history_days=400)
        self.leases = Leases(redis, keys)
        self.fence = ""
        self.attempt = 1
        self.count = 0
        self.answer = Answer(
            conversation=CONVERSATION,
            message="a1",
            prompt="m1",
            model="m",
            created="2026-11-22T10:00:00.000Z",
            attempt=1,
        )

    async def send(self, message: str = "m1", answer: str = "a1") -> dict[str, Any]:
        sent = await self.history.send(
            session=SESSION, conversation=CONVERSATION, new=True, title="", message=message, text="Hi",
            parent=TIP, answer=answer, model="m",
        )  # fmt: skip
        return sent.at

    async def begin(self) -> None:
        lease = await self.leases.take(CONVERSATION)
        assert lease
        self.fence = lease.fence
        await self.history.begin(CONVERSATION, self.fence, 1, self.answer.record(), "", self.answer.started())

    async def say(self, text: str, reasoning: str = "") -> None:
        """Place a delta; where the store is behind, put back what it lost, as an attempt does."""
        self.answer.take(Delta(text, reasoning))
        delta = self.answer.delta()
        assert delta
        self.count += 1
        place = (
            CONVERSATION,
            self.fence,
            "a1",
            self.attempt,
            self.count,
            delta.text,
            delta.reasoning or "",
            delta,
        )
        try:
            await self.history.append(*place)
        except Behind:
            said, reasons = self.answer.before(delta)
            for _ in range(2):  # a repeat does no harm
                await self.history.recover(
                    CONVERSATION,
                    self.fence,
                    self.attempt,
                    self.count - 1,
                    self.answer.record(),
                    said,
                    reasons,
                )
            await self.history.append(*place)

    async def finish(self) -> None:
        self.answer.take(Delta(finish_reason="stop"))
        ended = self.answer.end(seconds=1)
        await self.history.finish(
            CONVERSATION, self.fence, self.attempt, self.count, self.answer.record(ended), None, ended
        )

    async def at(self) -> dict[str, Any]:
        return (await self.conversations.conversation(SESSION, CONVERSATION)).at

    async def stored(self) -> tuple[str, str]:
        message = await self.history.message(SESSION, CONVERSATION, "a1")
        return message["text"], message.get("reasoning", "")

    async def resumes(self, at: dict[str, Any]) -> bool:
        """Tell whether a client at this place may go on from it."""
        try:
            await self.history.after(SESSION, CONVERSATION, at["epoch"], at["offset"])
        except LookupError:
            return False
        return True


@pytest.fixture
async def maker(fresh_store: Store) -> AsyncIterator[Maker]:
    async with connect(fresh_store.url) as redis:
        yield Maker(redis)


async def test_answer_whose_deltas_the_store_lost_is_whole_in_a_new_epoch(
    maker: Maker, fresh_store: Store
) -> None:
    await maker.send()
    await maker.begin()
    await maker.say("one ", "because ")
    mark = await fresh_store.mark()
    await maker.say("two ", "of ")
    await maker.say("three ")
    told = await maker.at()
    await fresh_store.lose_since(mark)
    assert await maker.stored() == ("one ", "because ")
    await maker.say("four", "this")
    now = await maker.at()
    assert await maker.stored() == ("one two three four", "because of this")
    assert now["epoch"] != told["epoch"]
    assert now["offset"] == 1
    assert not await maker.resumes(told)
    await maker.finish()
    assert await maker.stored() == ("one two three four", "because of this")
    assert await maker.resumes(now)


async def test_answer_whose_beginning_the_store_lost_is_whole(maker: Maker, fresh_store: Store) -> None:
    await maker.send()
    lease = await maker.leases.take(CONVERSATION)
    assert lease
    maker.fence = lease.fence
    mark = await fresh_store.mark()
    await maker.history.begin(CONVERSATION, lease.fence, 1, maker.answer.record(), "", maker.answer.started())
    await maker.say("one ")
    await fresh_store.lose_since(mark)
    await maker.say("two")
    assert await maker.stored() == ("one two", "")
    await maker.finish()
    branch = await maker.history.read(SESSION, CONVERSATION, limit=9, max_bytes=10_000)
    assert [message["id"] for message in branch.messages] == ["m1", "a1"]


async def test_text_of_an_attempt_whose_beginning_the_store_lost_is_not_mixed_with_the_one_before(
    maker: Maker, fresh_store: Store
) -> None:
    await maker.send()
    await maker.begin()
    for _ in range(3):
        await maker.say("old ")
    await maker.redis.delete(maker.of.lease)
    lease = await maker.leases.take(CONVERSATION)
    assert lease
    second = Maker(maker.redis)
    second.of, second.history, second.fence, second.attempt = maker.of, maker.history, lease.fence, 2
    mark = await fresh_store.mark()
    await second.history.begin(
        CONVERSATION, lease.fence, 2, second.answer.record(), "", second.answer.started()
    )
    await fresh_store.lose_since(mark)
    for text in ("new1 ", "new2 ", "new3 ", "new4"):
        await second.say(text)
    assert await second.stored() == ("new1 new2 new3 new4", "")
    await second.finish()
    assert await second.stored() == ("new1 new2 new3 new4", "")


@pytest.mark.parametrize("begun", [True, False])
async def test_answer_that_ends_after_the_store_lost_some_of_it_is_whole(
    maker: Maker, fresh_store: Store, begun: bool
) -> None:
    await maker.send()
    mark = await fresh_store.mark()
    await maker.begin()
    mark = await fresh_store.mark() if begun else mark
    await maker.say("one ")
    told = await maker.at()
    await fresh_store.lose_since(mark)
    if not begun:  # the lease, too, is lost: nobody may write under it
        with pytest.raises(Fenced):
            await maker.finish()
        return
    await maker.finish()
    assert await maker.stored() == ("one ", "")
    assert not await maker.resumes(told)


async def test_event_of_another_that_was_lost_makes_a_new_epoch_at_the_next(
    maker: Maker, fresh_store: Store
) -> None:
    await maker.send()
    await maker.begin()
    await maker.say("one ")
    mark = await fresh_store.mark()
    await maker.history.select(SESSION, CONVERSATION, "m1")  # somebody who is gone was told of it
    told = await maker.at()
    await fresh_store.lose_since(mark)
    await maker.say("two ")
    await maker.say("three")
    assert not await maker.resumes(told)
    assert (await maker.at())["epoch"] != told["epoch"]


async def test_client_that_was_told_of_more_than_there_is_gets_a_new_epoch_though_nothing_is_placed(
    maker: Maker, fresh_store: Store
) -> None:
    await maker.send()
    await maker.begin()
    mark = await fresh_store.mark()
    await maker.say("one ")
    told = await maker.at()
    await fresh_store.lose_since(mark)
    for _ in range(2):
        assert not await maker.resumes(told)
    now = await maker.at()
    assert now["epoch"] != told["epoch"]
    assert now["offset"] == 0
    assert await maker.resumes(now)


async def test_client_that_makes_up_a_place_changes_no_epoch(maker: Maker) -> None:
    at = await maker.send()
    for offset in (2, 5, 2**53):
        assert not await maker.resumes(at | {"offset": offset})
    assert await maker.at() == at


async def test_store_that_started_anew_and_lost_nothing_lets_clients_go_on_until_something_is_placed(
    maker: Maker, fresh_store: Store
) -> None:
    await maker.send()
    await maker.begin()
    await maker.say("one ")
    at = await maker.at()
    await fresh_store.restart()
    assert await maker.resumes(at)
    assert await maker.at() == at
    await maker.say("two ")
    await maker.say("three")
    assert await maker.stored() == ("one two three", "")
    now = await maker.at()
    assert now["epoch"] != at["epoch"]
    assert now["offset"] == 2


async def test_two_holders_never_own_the_same_fence_though_the_store_lost_a_taking(
    maker: Maker, fresh_store: Store
) -> None:
    await maker.send()
    mark = await fresh_store.mark()
    first = await maker.leases.take(CONVERSATION)
    assert first
    await fresh_store.lose_since(mark)
    second = await maker.leases.take(CONVERSATION)
    assert second
    assert first.fence != second.fence
    assert not await maker.leases.renew(first)
    assert await maker.leases.renew(second)


async def test_log_goes_by_size_and_messages_never(maker: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmchat.history.LOG_LIMITS", (600_000, 500, 50_000))
    await maker.send()
    await maker.begin()
    for _ in range(80):
        await maker.say("x" * 2_000)
    size = sum(len(fields[b"frame"]) for _, fields in await maker.redis.xrange(maker.of.log))
    assert 50_000 < size < 150_000
    text, _ = await maker.stored()
    assert len(text) == 80 * 2_000


async def test_log_goes_by_count(maker: Maker) -> None:
    await maker.send()
    await maker.begin()
    for _ in range(1500):
        await maker.say("x")
    assert 500 <= await maker.redis.xlen(maker.of.log) < 700
    assert await maker.resumes({**await maker.at(), "offset": 1502 - 499})


async def test_log_goes_by_time(maker: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    await maker.send()
    await maker.begin()
    monkeypatch.setattr("llmchat.history.LOG_LIMITS", (0, 500, 10**9))
    for _ in range(200):
        await maker.say("x")
    assert await maker.redis.xlen(maker.of.log) <= 17  # it is looked after at every sixteenth event
    assert not await maker.resumes({**await maker.at(), "offset": 100})


async def test_end_behind_lost_deltas_begins_a_new_epoch_where_the_store_does_not_tell_its_history(
    fake_redis: FakeAsyncRedis,
) -> None:
    maker = Maker(fake_redis)
    await maker.send()
    await maker.begin()
    await maker.say("one ")
    await maker.say("two")
    told = await maker.at()
    await fake_redis.hset(maker.of.turn, "count", "1")  # as if the last one had been lost
    await fake_redis.hincrby(maker.of.conversation, "offset", -1)
    await maker.finish()
    assert await maker.stored() == ("one two", "")
    assert (await maker.at())["epoch"] != told["epoch"]
    assert not await maker.resumes(told)
