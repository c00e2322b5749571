"""How often a session signed out: what it carried before is worth nothing. Knows no cookie."""

from __future__ import annotations

from redis.asyncio import Redis

from llmchat.keys import Keys
from llmchat.redis_client import available
from llmchat.script import Several


class SignOuts:
    """Counts them for as long as a cookie of before may last."""

    def __init__(self, redis: Redis, keys: Keys, keep_seconds: int) -> None:
        self._redis = redis
        self._keys = keys
        self._several = Several(redis)
        self._keep_seconds = keep_seconds

    async def note(self, session: str) -> None:
        """Count one. Raises Unavailable."""
        key = self._keys.sign_outs(session)
        await self._several([key], ("INCR", key), ("EXPIRE", key, self._keep_seconds))

    async def count(self, session: str) -> int:
        """Tell how often. Raises Unavailable."""
        async with available():
            return int(await self._redis.get(self._keys.sign_outs(session)) or 0)
