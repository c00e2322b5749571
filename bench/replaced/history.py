"""A chat's messages as one JSON value: read before a turn, rewritten after it."""

from __future__ import annotations

import json
from typing import Any

from redis.asyncio import Redis


class History:
    """The chats of one Redis."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def read(self, chat: str) -> list[dict[str, Any]]:
        """Read a chat."""
        stored = await self._redis.get(f"history:{chat}")
        return json.loads(stored) if stored else []

    async def write(self, chat: str, messages: list[dict[str, Any]]) -> None:
        """Write a chat anew."""
        await self._redis.set(f"history:{chat}", json.dumps(messages))
