"""The page's files of every version that is running, kept in Redis for instances of another one. Knows no file."""

from __future__ import annotations

from typing import cast

from redis.asyncio import Redis

from llmchat.keys import Keys
from llmchat.redis_client import available

KEEP_SECONDS = 2 * 86_400
"""After the last instance of a version put it there: pages of it may be open still."""


class Shelf:
    """Bundles by version. Whoever takes one checks it: what lies in Redis is not believed."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys

    async def put(self, version: str, bundle: bytes) -> None:
        """Put a bundle there, or keep it for longer. Raises Unavailable."""
        async with available():
            await self._redis.set(self._keys.shelf(version), bundle, ex=KEEP_SECONDS)

    async def take(self, version: str) -> bytes | None:
        """Look for a bundle. Raises Unavailable."""
        async with available():
            return cast(bytes | None, await self._redis.get(self._keys.shelf(version)))
