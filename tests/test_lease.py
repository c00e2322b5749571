"""One holder at a time, and a fence that rises with every taking; the same on fakeredis and on a real store."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from dataclasses import asdict, replace
from itertools import pairwise

import pytest
from fakeredis import FakeAsyncRedis
from redis.asyncio import Redis

from llmchat.errors import Unavailable
from llmchat.keys import Keys
from llmchat.lease import LEASE_SECONDS, Lease, Leases
from llmchat.redis_client import connect
from tests.instances import Store

CONVERSATION, OTHER = "c1", "other"


class Losing(FakeAsyncRedis):
    """Runs a script twice where `lose` is set, as a client does that did not hear the first answer."""

    lose = False

    async def evalsha(self, *args: object, **options: object) -> object:
        """Run it; and run it again."""
        heard = await super().evalsha(*args, **options)
        if not self.lose:
            return heard
        self.lose = False
        return await super().evalsha(*args, **options)


@pytest.fixture(params=["fakeredis", "valkey"])
async def redis(
    request: pytest.FixtureRequest, fake_redis: FakeAsyncRedis, store: Store
) -> AsyncIterator[Redis]:
    if request.param == "fakeredis":
        yield fake_redis
        return
    async with connect(store.url) as client:
        yield client


@pytest.fixture
def keys() -> Keys:
    return Keys(f"lease-{secrets.token_hex(4)}")


@pytest.fixture
async def leases(redis: Redis, keys: Keys) -> Leases:
    return await leases_of(redis, keys)


async def leases_of(redis: Redis, keys: Keys) -> Leases:
    """Make leases, and conversations to take."""
    for each in (CONVERSATION, OTHER):
        await redis.hset(keys.of_conversation(each).conversation, "session", "alice")
    return Leases(redis, keys)


async def taken(leases: Leases) -> Lease:
    lease = await leases.take(CONVERSATION)
    assert lease is not None
    return lease


async def run_out(redis: Redis, keys: Keys) -> None:
    """Do what the passing of time does."""
    assert await redis.delete(keys.of_conversation(CONVERSATION).lease)


async def test_only_one_of_many_takers_gets_the_lease(leases: Leases) -> None:
    found = await asyncio.gather(*(leases.take(CONVERSATION) for _ in range(20)))
    assert len([lease for lease in found if lease]) == 1
    assert await leases.held([CONVERSATION, "other"]) == [True, False]


async def test_leases_of_two_conversations_are_apart(leases: Leases) -> None:
    assert await taken(leases)
    assert await leases.take("other") is not None


async def test_fence_rises_with_every_taking(leases: Leases, redis: Redis, keys: Keys) -> None:
    fences = []
    for _ in range(12):  # past ten: as numbers, not as texts
        fences.append(int((await taken(leases)).fence))
        await run_out(redis, keys)
    assert fences == sorted(set(fences))
    assert (
        len({later - earlier for earlier, later in pairwise(fences)}) > 1
    )  # by steps that nobody can foresee


async def test_fence_rises_after_a_release_too(leases: Leases) -> None:
    first = await taken(leases)
    await leases.release(first)
    assert int((await taken(leases)).fence) > int(first.fence)


async def test_lease_has_a_ttl_and_a_renewal_gives_it_all_of_it_again(
    leases: Leases, redis: Redis, keys: Keys
) -> None:
    lease = await taken(leases)
    key = keys.of_conversation(CONVERSATION).lease
    assert 0 < await redis.pttl(key) <= LEASE_SECONDS * 1000
    await redis.pexpire(key, 100_000)
    assert await leases.renew(lease)
    assert 0 < await redis.pttl(key) <= LEASE_SECONDS * 1000


async def test_holder_renews_after_its_time_when_nobody_took_it(
    leases: Leases, redis: Redis, keys: Keys
) -> None:
    lease = await taken(leases)
    await run_out(redis, keys)
    assert await leases.renew(lease)
    assert await leases.held([CONVERSATION]) == [True]
    assert await leases.take(CONVERSATION) is None


async def test_holder_is_refused_once_another_took_it(leases: Leases, redis: Redis, keys: Keys) -> None:
    old = await taken(leases)
    await run_out(redis, keys)
    new = await taken(leases)
    assert not await leases.renew(old)
    await leases.release(old)
    assert await leases.held([CONVERSATION]) == [True]
    assert await leases.renew(new)


async def test_holder_is_refused_although_the_other_let_go_again(
    leases: Leases, redis: Redis, keys: Keys
) -> None:
    old = await taken(leases)
    await run_out(redis, keys)
    await leases.release(await taken(leases))
    assert not await leases.renew(old)


async def test_released_lease_can_be_taken_at_once(leases: Leases) -> None:
    lease = await taken(leases)
    await leases.release(lease)
    assert await leases.held([CONVERSATION]) == [False]
    assert await leases.take(CONVERSATION) is not None


async def test_release_by_one_who_only_knows_the_fence_changes_nothing(leases: Leases) -> None:
    lease = await taken(leases)
    await leases.release(replace(lease, holder="somebody else"))
    assert await leases.held([CONVERSATION]) == [True]


async def test_taking_again_after_a_lost_reply_gives_the_same_lease(keys: Keys) -> None:
    async with Losing() as redis:
        leases = await leases_of(redis, keys)
        first = await taken(leases)
        await leases.release(first)
        redis.lose = True
        lease = await taken(leases)
        assert not redis.lose
        assert int(lease.fence) > int(first.fence)
        assert await leases.renew(lease)


async def test_release_after_a_lost_reply_is_no_error(keys: Keys) -> None:
    async with Losing() as redis:
        leases = await leases_of(redis, keys)
        lease = await taken(leases)
        redis.lose = True
        await leases.release(lease)
        assert not redis.lose
        assert await leases.held([CONVERSATION]) == [False]


async def test_everything_of_a_lease_expires(leases: Leases, redis: Redis, keys: Keys) -> None:
    await taken(leases)
    of = keys.of_conversation(CONVERSATION)
    assert await redis.pttl(of.lease) > 0
    assert await redis.pttl(of.fence) > 0


async def test_leases_are_unavailable_while_the_store_is_down(fresh_store: Store, keys: Keys) -> None:
    async with connect(fresh_store.url) as client:
        leases = await leases_of(client, keys)
        lease = await taken(leases)
        await fresh_store.stop()
        for use in (
            leases.take(CONVERSATION),
            leases.renew(lease),
            leases.release(lease),
            leases.held(["c"]),
        ):
            with pytest.raises(Unavailable):
                await use


async def test_nothing_is_taken_of_a_conversation_that_is_not_there(
    leases: Leases, redis: Redis, keys: Keys
) -> None:
    lease = await taken(leases)
    await redis.delete(
        *(key for name, key in asdict(keys.of_conversation(CONVERSATION)).items() if name != "channel")
    )
    assert await leases.take(CONVERSATION) is None
    assert not await leases.renew(lease)
    await leases.release(lease)
    assert not await redis.exists(keys.of_conversation(CONVERSATION).fence)
