"""What is on its way to a session, and whether all was let go of meanwhile. Knows Redis; knows not what comes.

Whatever comes is noted before it does. Who lets go of all that a session has takes the notes, and then what is there:
what is stored afterwards is for whoever stored it to take away.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from redis.asyncio import Redis

from llmchat.errors import Unavailable
from llmchat.keys import Keys
from llmchat.redis_client import available
from llmchat.script import Several

LONGEST_MS = 2 * 3_600_000
"""From one look to the next: for the longest import to come, and more."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """Something that comes to a session."""

    session: str
    id: str


class Arrivals:
    """Every method raises Unavailable when Redis is away; each write may be repeated without harm."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys
        self._several = Several(redis)

    @asynccontextmanager
    async def expect(self, session: str) -> AsyncIterator[Arrival]:
        """Note that something comes, for as long as it does."""
        key, arrival, now_ms = self._keys.coming(session), secrets.token_hex(8), int(time.time() * 1000)
        await self._several(
            [key],
            ("ZADD", key, now_ms, arrival),
            ("ZREMRANGEBYSCORE", key, "-inf", now_ms - LONGEST_MS),
            ("PEXPIRE", key, LONGEST_MS),
        )
        try:
            yield Arrival(session, arrival)
        finally:
            with suppress(Unavailable):  # then it goes by age
                async with available():
                    await self._redis.zrem(key, arrival)

    async def wanted(self, arrival: Arrival) -> bool:
        """Tell whether nothing was let go of since something began to come. To be asked when it is stored."""
        key, now_ms = self._keys.coming(arrival.session), int(time.time() * 1000)
        _, found, _ = await self._several(
            [key],
            ("ZADD", key, "XX", now_ms, arrival.id),  # whatever takes longer
            ("ZSCORE", key, arrival.id),
            ("PEXPIRE", key, LONGEST_MS),
        )
        return found is not None
