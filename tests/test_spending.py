"""The tokens of a day: taken before they are used, never more than there are, and given back where they were not used."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime

import pytest
from fakeredis import FakeAsyncRedis
from redis.asyncio import Redis

from llmchat.errors import QuotaSpent, Unavailable
from llmchat.keys import Keys
from llmchat.spending import ALL, PIECE, Account, Spending
from llmchat.variables import ADDRESS_SHARE
from tests.instances import Store

KEYS = Keys("spending")
NOON = datetime(2030, 1, 2, 12, 0, 0, tzinfo=UTC)
DAY = "2030-01-02"


def made(
    redis: Redis, tokens: int = 0, all_tokens: int = 0, *, now: datetime = NOON, prefix: str = "spending"
) -> Spending:
    return Spending(redis, Keys(prefix), tokens=tokens, all_tokens=all_tokens, now=lambda: now)


async def spent(redis: Redis, *who: str, prefix: str = "spending", day: str = DAY) -> list[int]:
    return [int(await redis.get(Keys(prefix).spent(day, each)) or 0) for each in who]


async def test_request_takes_what_it_sends_and_pieces_of_its_answer_and_pays_what_was_counted(
    fake_redis: FakeAsyncRedis,
) -> None:
    account = made(fake_redis, 10_000, 20_000).account("alice", "home")
    await account.open(1000)
    assert await spent(fake_redis, "alice", "home", ALL) == [1000 + PIECE] * 3
    assert await account.covers(PIECE, None)
    assert await spent(fake_redis, "alice") == [1000 + PIECE]
    assert await account.covers(1, None)
    assert await spent(fake_redis, "alice") == [1000 + 2 * PIECE]
    assert await account.covers(0, 1234)
    await account.close()
    assert await spent(fake_redis, "alice", "home", ALL) == [1234] * 3
    assert 86_400 < await fake_redis.ttl(KEYS.spent(DAY, "alice")) <= 2 * 86_400


async def test_provider_that_counts_more_than_was_taken_is_paid(fake_redis: FakeAsyncRedis) -> None:
    account = made(fake_redis, 2000).account("alice", "")
    await account.open(1000)
    assert not await account.covers(5, 5000)
    await account.close()
    assert await spent(fake_redis, "alice") == [5000]


async def test_request_without_figures_pays_what_is_estimated_and_one_in_vain_nothing(
    fake_redis: FakeAsyncRedis,
) -> None:
    spending = made(fake_redis, 10_000)
    account = spending.account("alice", "")
    await account.open(1000)
    await account.covers(70, None)
    await account.close()
    assert await spent(fake_redis, "alice") == [1070]
    account = spending.account("alice", "")
    await account.open(1000)
    await account.close(in_vain=True)
    assert await spent(fake_redis, "alice") == [1070]
    account = spending.account("alice", "")
    await account.open(1000)
    await account.close()  # stopped before a word: what was sent was sent
    assert await spent(fake_redis, "alice") == [2070]


async def test_answer_goes_on_as_long_as_there_are_tokens(fake_redis: FakeAsyncRedis) -> None:
    account = made(fake_redis, 1000 + 3 * PIECE + 100).account("alice", "")
    await account.open(1000)
    pieces = 0
    while await account.covers(100, None):
        pieces += 1
    assert pieces == 3 * PIECE // 100
    await account.close()
    assert await spent(fake_redis, "alice") == [1000 + 3 * PIECE + 100]  # the piece beyond was said already


@pytest.mark.parametrize(
    ("session", "network", "whose"),
    [("alice", "home", "Your"), ("bob", "home", "Your network's"), ("carol", "office", "This server's")],
)
async def test_request_for_which_one_purse_has_too_little_takes_of_none_and_says_whose_it_is(
    fake_redis: FakeAsyncRedis, session: str, network: str, whose: str
) -> None:
    spending = made(fake_redis, 10_000, 100_000)
    await fake_redis.set(KEYS.spent(DAY, "alice"), 9000)
    await fake_redis.set(KEYS.spent(DAY, "home"), 10_000 * ADDRESS_SHARE - 1000)
    await fake_redis.set(KEYS.spent(DAY, ALL), 99_000)
    before = await spent(fake_redis, session, network, ALL)
    with pytest.raises(QuotaSpent) as refused:
        await spending.account(session, network).open(1000)
    assert await spent(fake_redis, session, network, ALL) == before
    assert refused.value.detail == (
        f"{whose} tokens for today are used up, or too few for this. There are new ones in 12 hours."
    )
    assert (refused.value.code, refused.value.retry_after) == ("quota", 12 * 3600)


async def test_check_takes_nothing(fake_redis: FakeAsyncRedis) -> None:
    spending = made(fake_redis, 2000)
    await spending.account("alice", "").check(1000)
    assert await spent(fake_redis, "alice") == [0]
    with pytest.raises(QuotaSpent):
        await spending.account("alice", "").check(2000)


async def test_next_day_has_new_tokens_and_who_went_on_over_midnight_pays_for_the_day_before(
    fake_redis: FakeAsyncRedis,
) -> None:
    late = made(fake_redis, 2000, now=datetime(2030, 1, 2, 23, 59, 59, 500_000, tzinfo=UTC))
    account = late.account("alice", "")
    await account.open(1500)
    with pytest.raises(QuotaSpent) as refused:
        await late.account("alice", "").open(1)
    assert refused.value.retry_after == 1
    early = made(fake_redis, 2000, now=datetime(2030, 1, 3, 0, 0, 0, tzinfo=UTC))
    await early.account("alice", "").open(1500)
    await account.covers(10, 1600)
    await account.close()
    assert await spent(fake_redis, "alice") == [1600]
    assert await spent(fake_redis, "alice", day="2030-01-03") == [2000]


async def test_without_budgets_all_is_granted_and_nothing_written(fake_redis: FakeAsyncRedis) -> None:
    spending = made(fake_redis)
    assert not spending.limited
    account = spending.account("alice", "home")
    await account.check(10**9)
    await account.open(10**9)
    assert await account.covers(10**9, None)
    await account.close()
    assert await fake_redis.keys() == []


async def test_account_that_is_left_is_closed(fake_redis: FakeAsyncRedis) -> None:
    spending = made(fake_redis, 5000)

    async def cut_short() -> None:
        async with spending.paying("alice", 1000) as account:
            await account.covers(50, None)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await cut_short()
    assert await spent(fake_redis, "alice") == [1050]


async def used(account: Account, sent: int, said: int, counted: int) -> int:
    """Make a request as an attempt does, and tell how many tokens it used."""
    try:
        await account.open(sent)
    except QuotaSpent:
        return 0
    for _ in range(said):
        if not await account.covers(100, None):
            await account.close()
            return account.used
    await account.covers(0, counted)
    await account.close()
    return account.used


@pytest.mark.parametrize("seed", range(5))
async def test_sum_over_instances_holds_when_they_race(store: Store, seed: int) -> None:
    chance, prefix, most = random.Random(seed), f"spending-race-{seed}", 20_000
    async with store.client() as one, store.client() as two:
        both = [made(redis, all_tokens=most, prefix=prefix) for redis in (one, two)]
        requests = []
        for number in range(60):
            sent, said = chance.randrange(50, 1000), chance.randrange(1, 20)
            account = chance.choice(both).account(f"s{number}", "")
            requests.append(used(account, sent, said, sent + 100 * said - chance.randrange(50)))
        figures = await asyncio.gather(*requests)
        assert 0 in figures, "there are too few for all"
        assert await spent(one, ALL, prefix=prefix) == [sum(figures)], f"seed {seed}"
        assert most - 2 * 1000 - PIECE < sum(figures) <= most + 100 * len(figures), f"seed {seed}"


async def test_redis_that_is_away_grants_all_and_is_told_once_it_is_back(
    fake_redis: FakeAsyncRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    spending = made(fake_redis, 5000)
    account = spending.account("alice", "")
    asked = 0

    async def away(*_: object) -> None:
        nonlocal asked
        asked += 1
        raise Unavailable

    with monkeypatch.context() as patched:
        patched.setattr(spending, "take", away)
        await account.open(1000)
        for _ in range(PIECE + 10):
            assert await account.covers(1, None)
    assert asked == 2, "not for every word"
    assert await spent(fake_redis, "alice") == [0]
    await account.close()
    assert await spent(fake_redis, "alice") == [1000 + PIECE + 10]
    with monkeypatch.context() as patched:
        patched.setattr(spending, "correct", away)
        account = spending.account("alice", "")
        await account.covers(70, None)
        with pytest.raises(Unavailable):
            await account.close()
    await account.close()  # it may have been done
    assert await spent(fake_redis, "alice") == [1000 + PIECE + 10 + PIECE]
