"""How much a session and an address may do: to the last one, and no more, over all instances."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest
from fakeredis import FakeAsyncRedis
from redis.exceptions import ClusterCrossSlotError

from llmchat.errors import RateLimited
from llmchat.keys import Keys
from llmchat.limits import Limits, Rates, network_of
from llmchat.variables import ADDRESS_SHARE
from tests.instances import Store

KEYS = Keys("limits")


async def taken(limits: Limits, session: str, address: str, tries: int) -> int:
    """Try so often to take a prompt, and count how often that worked."""
    count = 0
    for _ in range(tries):
        try:
            await limits.of(session, address).prompt()
        except RateLimited:
            continue
        count += 1
    return count


async def test_session_gets_what_it_may_and_is_told_when_there_is_more(fake_redis: FakeAsyncRedis) -> None:
    limits = Limits(fake_redis, KEYS, Rates(prompts=3))
    assert await taken(limits, "alice", "10.0.0.1", 3) == 3
    with pytest.raises(RateLimited) as refused:
        await limits.of("alice", "10.0.0.1").prompt()
    assert 1 <= refused.value.retry_after <= 20  # a third of a minute fills one
    assert str(refused.value.retry_after) in refused.value.detail
    assert await taken(limits, "bob", "10.0.0.1", 3) == 3


async def test_allowance_fills_evenly(fake_redis: FakeAsyncRedis) -> None:
    limits = Limits(fake_redis, KEYS, Rates(prompts=3))
    assert await taken(limits, "alice", "10.0.0.1", 4) == 3
    for who in ("alice", "10.0.0.1"):  # as if 20 s had passed
        key = KEYS.limit("prompts", who)
        full = await fake_redis.get(key)
        assert full
        await fake_redis.set(key, float(full) - 20_000, keepttl=True)
    assert await taken(limits, "alice", "10.0.0.1", 2) == 1


async def test_key_goes_when_the_allowance_is_full_again(fake_redis: FakeAsyncRedis) -> None:
    await Limits(fake_redis, KEYS, Rates(prompts=3)).of("alice", "10.0.0.1").prompt()
    assert 0 < await fake_redis.pttl(KEYS.limit("prompts", "alice")) <= 20_000


async def test_address_bounds_its_sessions_together(fake_redis: FakeAsyncRedis) -> None:
    limits = Limits(fake_redis, KEYS, Rates(prompts=2))
    new_sessions = [await taken(limits, f"s{number}", "10.0.0.1", 1) for number in range(50)]
    assert sum(new_sessions) == 2 * ADDRESS_SHARE
    assert await taken(limits, "s99", "10.0.0.2", 1) == 1


async def test_session_over_its_limit_takes_nothing_from_those_at_its_address(
    fake_redis: FakeAsyncRedis,
) -> None:
    limits = Limits(fake_redis, KEYS, Rates(prompts=2))
    assert await taken(limits, "mallory", "10.0.0.1", 50) == 2
    others = [await taken(limits, f"s{number}", "10.0.0.1", 2) for number in range(4)]
    assert others == [2] * 4


async def test_address_over_its_limit_takes_nothing_from_a_session(fake_redis: FakeAsyncRedis) -> None:
    limits = Limits(fake_redis, KEYS, Rates(prompts=2))
    for number in range(ADDRESS_SHARE):
        assert await taken(limits, f"s{number}", "10.0.0.1", 2) == 2
    assert await taken(limits, "alice", "10.0.0.1", 1) == 0
    assert await taken(limits, "alice", "10.0.0.2", 3) == 2, "what was refused was not had"


async def test_connection_that_is_refused_for_its_frames_is_not_counted(fake_redis: FakeAsyncRedis) -> None:
    limits = Limits(fake_redis, KEYS, Rates(frames=1, connections=1))
    allowance = limits.of("alice", "10.0.0.1")
    await allowance.frames(1)
    with pytest.raises(RateLimited):
        await allowance.connection()
    assert await fake_redis.get(KEYS.limit("connections", "alice")) is None
    await fake_redis.delete(KEYS.limit("frames", "alice"))
    await allowance.connection()


async def test_pages_count_for_their_address_alone_where_no_session_came(fake_redis: FakeAsyncRedis) -> None:
    limits = Limits(fake_redis, KEYS, Rates(pages=1))
    for _ in range(ADDRESS_SHARE):
        await limits.page(None, "10.0.0.1")
    with pytest.raises(RateLimited):
        await limits.page(None, "10.0.0.1")
    assert await fake_redis.keys() == [KEYS.limit("pages", "10.0.0.1").encode()]
    await limits.page("alice", "10.0.0.2")
    with pytest.raises(RateLimited):
        await limits.page("alice", "10.0.0.2")


async def test_shared_pages_without_a_rate_have_no_limit(fake_redis: FakeAsyncRedis) -> None:
    limits = Limits(fake_redis, KEYS, Rates(shared_pages=0))
    for _ in range(100):
        await limits.shared_page("10.0.0.1")
    assert await fake_redis.keys() == []


async def test_looking_takes_nothing(fake_redis: FakeAsyncRedis) -> None:
    limits = Limits(fake_redis, KEYS, Rates(connections=2))
    allowance = limits.of("alice", "10.0.0.1")
    for _ in range(5):
        await allowance.connection(look=True)
    await allowance.connection()
    await allowance.connection()
    for look in (True, False):
        with pytest.raises(RateLimited):
            await allowance.connection(look=look)


async def test_many_at_once_are_taken_together_and_more_than_there_can_be_as_all(
    fake_redis: FakeAsyncRedis,
) -> None:
    allowance = Limits(fake_redis, KEYS, Rates(frames=100)).of("alice", "10.0.0.1")
    await allowance.frames(100)
    with pytest.raises(RateLimited):
        await allowance.frames(1)
    other = Limits(fake_redis, KEYS, Rates(frames=100)).of("bob", "10.0.0.2")
    await other.frames(1000)
    with pytest.raises(RateLimited):
        await other.frames(1)


async def test_frames_that_were_too_many_are_owed_and_let_no_connection_in(
    fake_redis: FakeAsyncRedis,
) -> None:
    allowance = Limits(fake_redis, KEYS, Rates(frames=60)).of("alice", "10.0.0.1")
    await allowance.connection()
    for _ in range(5):
        with suppress(RateLimited):
            await allowance.frames(50)
    with pytest.raises(RateLimited) as refused:
        await allowance.connection(look=True)
    assert 50 < refused.value.retry_after <= 62  # as much again as a minute gives, and no more


async def test_no_rate_is_no_limit_and_asks_nobody() -> None:
    nobody: Any = None
    assert await taken(Limits(nobody, KEYS, Rates()), "alice", "10.0.0.1", 100) == 100


async def test_sum_over_instances_holds_when_they_race(store: Store) -> None:
    async with store.client() as one, store.client() as two:
        both = [Limits(redis, Keys("limits-race"), Rates(prompts=2)) for redis in (one, two)]
        tries = [taken(limits, "alice", "10.0.0.1", 5) for limits in both for _ in range(10)]
        assert sum(await asyncio.gather(*tries)) == 2


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("", "unknown"),
        ("<script>", "unknown"),
    ],
)
def test_customer_is_an_address_or_a_network_of_ipv6(address: str, network: str) -> None:
    assert network_of(address) == network


async def test_shards_behind_one_address_are_asked_one_by_one(
    fake_redis: FakeAsyncRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = Limits(fake_redis, KEYS, Rates(prompts=2, frames=100))
    asked = limits._limit
    steps: list[int] = []

    async def of_one_slot(keys: list[str], *args: Any) -> Any:
        steps.append(len(keys))
        if len(keys) > 1:
            raise ClusterCrossSlotError("Keys in request don't hash to the same slot")
        return await asked(keys, *args)

    monkeypatch.setattr(limits, "_limit", of_one_slot)
    assert await taken(limits, "alice", "10.0.0.1", 5) == 2
    assert steps[:3] == [2, 1, 1]
    assert 2 not in steps[1:], "it is not tried again and again"
    with suppress(RateLimited):
        await limits.of("alice", "10.0.0.1").frames(200)
    with suppress(RateLimited):
        await limits.of("alice", "10.0.0.1").frames(200)
    owed = float(await fake_redis.get(KEYS.limit("frames", "10.0.0.1")))
    now_s, _ = await fake_redis.time()
    assert owed > now_s * 1000, "what was had already is taken of the address, too"
