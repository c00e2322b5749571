"""Persons, and where each is signed in. Knows Redis; knows neither cookies nor providers.

A login is there until the person signs out, here or everywhere: what a browser carries of it is worth nothing then.
"""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis

from llmchat.access import ACCESS_SECONDS
from llmchat.keys import Keys
from llmchat.person import LATE_SECONDS, Leaver, Person
from llmchat.redis_client import available
from llmchat.script import Script, Several

MOST_LOGINS = 100
"""Of a person, the newest."""


@dataclass(frozen=True, slots=True)
class Login:
    """A browser in which a person is signed in."""

    session: str
    """The person's: the same in all browsers."""
    id: str
    name: str
    brings: str = ""
    """The anonymous session whose chats are to become the person's."""


class Logins:
    """Every method raises Unavailable when Redis is away; each but `begin` may be repeated without harm."""

    def __init__(self, redis: Redis, keys: Keys, *, history_days: int) -> None:
        self._redis = redis
        self._keys = keys
        self._several = Several(redis)
        self._keep = Script(redis, "keep_entry")
        # As long as what is used last while a login lasts, and longer.
        self._lifetime_ms = history_days * 86_400_000 + ACCESS_SECONDS * 1000 if history_days else 0

    async def begin(self, person: Person, before: Login | None = None, brings: str = "") -> Login:
        """Sign a person in: in one more browser, or anew where the same person's login was there `before`."""
        session = await self._session_of(person)
        same = before is not None and before.session == session
        login = Login(session, before.id if before and same else secrets.token_hex(16), person.name, brings)
        key, records = self._keys.logins(session), await self._records(session)
        newest = sorted(
            (each for each in records if _lasts(records[each])), key=lambda each: records[each]["at"]
        )
        gone = set(records) - set(newest[1 - MOST_LOGINS :])
        record = {"at": time.time(), "name": login.name, "brings": brings, "visit": person.visit}
        await self._several(
            [key],
            *([("HDEL", key, *gone)] if gone else []),
            ("HSET", key, login.id, json.dumps(record)),
            ("EXPIRE", key, ACCESS_SECONDS),
        )
        return login

    async def _session_of(self, person: Person) -> str:
        """Find the session of a person, who has one from the first time on."""
        key = self._keys.person(person.digest)
        _, session, _ = await self._several(
            [key],
            ("SET", key, secrets.token_hex(16), "NX"),
            ("GET", key),
            ("PEXPIRE", key, self._lifetime_ms) if self._lifetime_ms else ("PERSIST", key),
        )
        return str(session.decode())

    async def find(self, session: str, login: str) -> Login | None:
        """Find a login; None where it was ended, or is too old."""
        async with available():
            found: Any = await self._redis.hget(self._keys.logins(session), login)
        record = json.loads(found) if found else None
        if record is None or not _lasts(record):
            return None
        return Login(session, login, record["name"], record["brings"])

    async def brought(self, login: Login) -> None:
        """Note that the chats of the anonymous session are the person's: it is brought once."""
        record = (await self._records(login.session)).get(login.id)
        if record is not None:
            changed = json.dumps(record | {"brings": ""})
            await self._keep(
                [self._keys.logins(login.session)],
                *(login.id, changed, 0, MOST_LOGINS, ACCESS_SECONDS * 1000),
            )

    async def end(self, login: Login) -> None:
        """Sign a person out of one browser."""
        async with available():
            await self._redis.hdel(self._keys.logins(login.session), login.id)

    async def end_all(self, session: str) -> None:
        """Sign a person out everywhere."""
        async with available():
            await self._redis.delete(self._keys.logins(session))

    async def end_visit(self, leaver: Leaver) -> str | None:
        """Sign a person out of the browsers of a visit at its issuer, everywhere where it names none; gives the session.

        Not of those that were signed in later: the word may be an old one, sent once more.
        """
        person = leaver.person
        async with available():
            found: Any = await self._redis.get(self._keys.person(person.digest))
        if found is None:
            return None
        session = str(found.decode())
        records = await self._records(session)
        ended = [
            name
            for name, record in records.items()
            if person.visit in ("", record["visit"]) and record["at"] <= leaver.at + LATE_SECONDS
        ]
        if ended:
            async with available():
                await self._redis.hdel(self._keys.logins(session), *ended)
        return session

    async def _records(self, session: str) -> dict[str, dict[str, Any]]:
        async with available():
            found: dict[Any, Any] = await self._redis.hgetall(self._keys.logins(session))
        return {name.decode(): json.loads(record) for name, record in found.items()}


def _lasts(record: dict[str, Any]) -> bool:
    return bool(time.time() - record["at"] <= ACCESS_SECONDS)
