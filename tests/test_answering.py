"""How many conversations are answered at once: to the last one, and no more, over all instances."""

from __future__ import annotations

import asyncio

import pytest
from fakeredis import FakeAsyncRedis
from redis.asyncio import Redis

from llmchat.answering import TOO_MANY, Answering, Place
from llmchat.errors import RateLimited
from llmchat.keys import Keys
from llmchat.variables import ADDRESS_SHARE
from tests.instances import Store

KEYS = Keys("answering")
HOME, OFFICE = "10.0.0.1", "10.0.0.2"


def made(redis: Redis, most: int = 2, *, for_whom: bool = False, prefix: str = "answering") -> Answering:
    return Answering(redis, Keys(prefix), "k" * 32, most=most, seconds=60, for_whom=for_whom)


async def entered(answering: Answering, session: str, address: str, *conversations: str) -> int:
    """Try to have conversations answered, and count how many are."""
    count = 0
    for conversation in conversations:
        try:
            await answering.enter(session, answering.network(address), conversation)
        except RateLimited:
            continue
        count += 1
    return count


async def test_session_has_so_many_chats_answered_at_once_and_another_when_one_ends(
    fake_redis: FakeAsyncRedis,
) -> None:
    answering = made(fake_redis)
    assert await entered(answering, "alice", HOME, "a", "b", "c") == 2
    with pytest.raises(RateLimited) as refused:
        await answering.enter("alice", answering.network(HOME), "c")
    assert refused.value.retry_after == 5
    assert refused.value.detail == f"{TOO_MANY} Try again in 5 seconds."
    await answering.leave("alice", "a", answering.network(HOME))
    assert await entered(answering, "alice", HOME, "c", "d") == 1


async def test_further_prompts_of_a_chat_that_is_answered_are_no_further_chat(
    fake_redis: FakeAsyncRedis,
) -> None:
    answering = made(fake_redis, 1)
    assert await answering.enter("alice", answering.network(HOME), "a")
    assert not await answering.enter("alice", answering.network(HOME), "a")
    assert await entered(answering, "alice", HOME, "a", "b") == 1


async def test_address_bounds_its_sessions_together_and_what_it_refuses_is_not_had(
    fake_redis: FakeAsyncRedis,
) -> None:
    answering = made(fake_redis, 1)
    counts = [await entered(answering, f"s{number}", HOME, f"c{number}") for number in range(20)]
    assert sum(counts) == ADDRESS_SHARE
    assert await fake_redis.zcard(KEYS.answering("s19")) == 0
    assert await entered(answering, "s19", OFFICE, "c19") == 1


async def test_session_over_its_limit_takes_nothing_from_those_at_its_address(
    fake_redis: FakeAsyncRedis,
) -> None:
    answering = made(fake_redis, 1)
    assert await entered(answering, "mallory", HOME, *(f"m{number}" for number in range(20))) == 1
    counts = [await entered(answering, f"s{number}", HOME, f"c{number}") for number in range(ADDRESS_SHARE)]
    assert sum(counts) == ADDRESS_SHARE - 1


async def test_chat_whose_end_nobody_noted_is_not_counted_for_ever(fake_redis: FakeAsyncRedis) -> None:
    answering = made(fake_redis, 1)
    assert await entered(answering, "alice", HOME, "a") == 1
    for who in ("alice", answering.network(HOME)):  # as if its time had passed
        key = KEYS.answering(who)
        assert 0 < await fake_redis.pttl(key) <= 60_000
        for entry in await fake_redis.zrange(key, 0, -1):
            await fake_redis.zadd(key, {entry: 1})
    assert await entered(answering, "alice", HOME, "b") == 1
    await Place(answering, "b").stay("alice")
    assert await fake_redis.zcard(KEYS.answering("alice")) == 1


async def test_chat_that_goes_on_is_counted_as_long(fake_redis: FakeAsyncRedis) -> None:
    answering = made(fake_redis, 1)
    assert await entered(answering, "alice", HOME, "a") == 1
    keys = [KEYS.answering(who) for who in ("alice", answering.network(HOME))]
    for key in keys:
        await fake_redis.pexpire(key, 10_000)
    place = Place(answering, "a")
    await place.stay("alice")
    assert all([await fake_redis.pttl(key) > 10_000 for key in keys])
    await place.leave()
    assert [await fake_redis.exists(key) for key in keys] == [0, 0]


async def test_address_is_known_by_whoever_goes_on_and_lies_in_redis_as_a_digest(
    fake_redis: FakeAsyncRedis,
) -> None:
    one, other = made(fake_redis, 0, for_whom=True), made(fake_redis, 0, for_whom=True)
    await one.enter("alice", one.network(HOME), "a")
    assert await other.networks_of("alice", "a") == [one.network(HOME)]
    assert await other.networks_of("alice", "b") == []
    assert not any(HOME.encode() in key for key in await fake_redis.keys())
    assert one.network("2001:db8:1:2::9") == one.network("2001:db8:1:2::8")


async def test_without_a_limit_nothing_is_noted(fake_redis: FakeAsyncRedis) -> None:
    answering = made(fake_redis, 0)
    assert await entered(answering, "alice", HOME, *"abcdefghijkl") == 12
    place = Place(answering, "a")
    await place.stay("alice")
    await place.leave()
    assert await fake_redis.keys() == []


async def test_chat_whose_owner_signs_in_meanwhile_is_counted_for_the_person_and_then_for_nobody(
    fake_redis: FakeAsyncRedis,
) -> None:
    answering = made(fake_redis, 1)
    await entered(answering, "anonymous", HOME, "a")
    place = Place(answering, "a")
    place.take_up("anonymous")
    await place.stay("person")
    assert await answering.networks_of("person", "a") == [answering.network(HOME)]
    assert await entered(answering, "person", HOME, "b") == 0
    await place.leave()
    assert await fake_redis.keys() == []


async def test_what_is_answered_for_a_session_is_given_to_the_person_that_it_became(
    fake_redis: FakeAsyncRedis,
) -> None:
    answering = made(fake_redis, 2)
    await entered(answering, "anonymous", HOME, "a")
    await entered(answering, "anonymous", OFFICE, "b")
    for _ in range(2):  # what was broken off is repeated
        await answering.give("anonymous", "person")
    assert await answering.networks_of("anonymous", "a") == []
    assert await answering.networks_of("person", "a") == [answering.network(HOME)]
    assert await entered(answering, "person", HOME, "c") == 0
    for conversation, before in (("a", ["anonymous"]), ("b", [])):
        place = Place(answering, conversation)
        for session in [*before, "person"]:
            place.take_up(session)
        await place.leave()
    assert await fake_redis.keys() == []


async def test_chat_with_a_prompt_that_came_in_its_last_moment_is_counted_anew(
    fake_redis: FakeAsyncRedis,
) -> None:
    answering = made(fake_redis, 1)
    await entered(answering, "alice", HOME, "a")
    place = Place(answering, "a")
    place.take_up("alice")
    await place.leave()
    await place.stay("alice")
    assert await answering.networks_of("alice", "a") == [answering.network(HOME)]
    assert await entered(answering, "alice", HOME, "b") == 0


async def test_sum_over_instances_holds_when_they_race(store: Store) -> None:
    async with store.client() as one, store.client() as two:
        both = [made(redis, 3, prefix="answering-race") for redis in (one, two)]
        tries = [
            entered(each, "alice", f"10.0.1.{number}", f"c{number}") for number in range(20) for each in both
        ]
        counts = await asyncio.gather(*tries)
        noted = await one.zrange(Keys("answering-race").answering("alice"), 0, -1)
        assert len(noted) == 3
        assert 3 <= sum(counts) <= 6  # both instances may be asked for the same chat
