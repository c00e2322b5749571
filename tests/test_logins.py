"""Persons and their logins: the same person for ever, and a login only until it ends."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from redis.asyncio import Redis

from llmchat.access import ACCESS_SECONDS
from llmchat.keys import Keys
from llmchat.logins import MOST_LOGINS, Login, Logins
from llmchat.person import LATE_SECONDS, Leaver, Person
from tests.test_history import DAY_MS, redis

__all__ = ["redis"]

ANN = Person("https://id.example", "ann", "Ann", "visit-1")


class Desk:
    """Logins under a prefix of the test's own."""

    def __init__(self, redis: Redis, history_days: int = 400) -> None:
        self.redis = redis
        self.keys = Keys(f"logins-{id(self)}")
        self.logins = Logins(redis, self.keys, history_days=history_days)

    async def there(self, *logins: Login) -> list[bool]:
        return [await self.logins.find(each.session, each.id) is not None for each in logins]

    async def make_older(self, login: Login, seconds: float) -> None:
        """Have a login begun so much earlier."""
        key = self.keys.logins(login.session)
        record: Any = json.loads(await self.redis.hget(key, login.id) or b"")
        await self.redis.hset(key, login.id, json.dumps(record | {"at": record["at"] - seconds}))


@pytest.fixture
def desk(redis: Redis) -> Desk:
    return Desk(redis)


async def test_person_has_one_session_in_all_browsers_and_nobody_else_has_it(desk: Desk) -> None:
    one, two = await desk.logins.begin(ANN), await desk.logins.begin(ANN)
    assert one.session == two.session
    assert one.id != two.id
    for other in (Person(ANN.issuer, "bob"), Person("https://other.example", ANN.subject)):
        assert (await desk.logins.begin(other)).session != one.session
    assert await desk.logins.find(one.session, one.id) == one
    assert await desk.logins.find(one.session, "another") is None


async def test_session_of_a_person_lasts_as_long_as_what_is_in_it(desk: Desk, redis: Redis) -> None:
    await desk.logins.begin(ANN)
    lives_ms = await redis.pttl(desk.keys.person(ANN.digest))
    assert lives_ms > 400 * DAY_MS + (ACCESS_SECONDS - 60) * 1000
    for_ever = Desk(redis, history_days=0)
    await for_ever.logins.begin(ANN)
    assert await redis.pttl(for_ever.keys.person(ANN.digest)) == -1


async def test_login_ends_alone_and_all_end_together(desk: Desk) -> None:
    logins = [await desk.logins.begin(ANN) for _ in range(3)]
    await desk.logins.end(logins[0])
    assert await desk.there(*logins) == [False, True, True]
    await desk.logins.end_all(logins[0].session)
    assert await desk.there(*logins) == [False, False, False]


async def test_login_is_too_old_after_a_while_and_goes_with_the_next(desk: Desk) -> None:
    old = await desk.logins.begin(ANN)
    await desk.make_older(old, ACCESS_SECONDS + 1)
    assert await desk.there(old) == [False]
    await desk.logins.begin(ANN)
    assert await desk.redis.hlen(desk.keys.logins(old.session)) == 1


async def test_oldest_login_goes_where_there_are_too_many(desk: Desk) -> None:
    oldest = await desk.logins.begin(ANN)
    await desk.make_older(oldest, 60)
    others = [await desk.logins.begin(ANN) for _ in range(MOST_LOGINS)]
    assert await desk.there(oldest, *others) == [False, *[True] * MOST_LOGINS]


async def test_same_person_signs_in_anew_in_one_browser_and_another_one_does_not(desk: Desk) -> None:
    first = await desk.logins.begin(ANN)
    again = await desk.logins.begin(ANN, first)
    assert again.id == first.id
    other = await desk.logins.begin(Person(ANN.issuer, "bob"), first)
    assert other.id != first.id


async def test_anonymous_session_is_brought_once_and_not_by_a_login_that_ended(desk: Desk) -> None:
    login = await desk.logins.begin(ANN, brings="anonymous")
    found = await desk.logins.find(login.session, login.id)
    assert found
    assert found.brings == "anonymous"
    await desk.logins.brought(login)
    found = await desk.logins.find(login.session, login.id)
    assert found
    assert (found.brings, found.name) == ("", "Ann")
    ended = await desk.logins.begin(ANN, brings="anonymous")
    await desk.logins.end(ended)
    await desk.logins.brought(ended)
    assert await desk.there(ended) == [False]


async def test_end_of_a_visit_ends_its_logins_and_one_without_a_name_all(desk: Desk) -> None:
    here = await desk.logins.begin(ANN)
    there = await desk.logins.begin(Person(ANN.issuer, ANN.subject, visit="visit-2"))
    now = time.time()
    first, every = Person(ANN.issuer, ANN.subject, visit="visit-1"), Person(ANN.issuer, ANN.subject)
    assert await desk.logins.end_visit(Leaver(first, now)) == here.session
    assert await desk.there(here, there) == [False, True]
    assert await desk.logins.end_visit(Leaver(every, now)) == here.session
    assert await desk.there(there) == [False]
    assert await desk.logins.end_visit(Leaver(Person(ANN.issuer, "nobody"), now)) is None


async def test_word_of_a_sign_out_ends_no_later_login(desk: Desk) -> None:
    login = await desk.logins.begin(ANN)
    every = Person(ANN.issuer, ANN.subject)
    await desk.logins.end_visit(Leaver(every, time.time() - 2 * LATE_SECONDS))
    assert await desk.there(login) == [True]
    await desk.logins.end_visit(
        Leaver(every, time.time() - LATE_SECONDS / 2)
    )  # the clocks may differ so much
    assert await desk.there(login) == [False]
