"""The page's files of every version that is running, kept in Redis for instances of another one. Knows no file."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import cast

from itsdangerous import BadSignature, Signer
from redis.asyncio import Redis

from llmchat.keys import Keys
from llmchat.redis_client import available

KEEP_SECONDS = 2 * 86_400
"""After the last instance of a version put it there: pages of it may be open still."""


class Shelf:
    """Bundles by version, signed: what else lies in Redis is not believed."""

    def __init__(self, redis: Redis, keys: Keys, secret_key: str, fallbacks: Sequence[str] = ()) -> None:
        self._redis = redis
        self._keys = keys
        self._signer = Signer([*reversed(fallbacks), secret_key], salt="llmchat.shelf", digest_method=sha256)

    async def put(self, version: str, bundle: bytes) -> None:
        """Put a bundle there, or keep it for longer. Raises Unavailable."""
        async with available():
            await self._redis.set(self._keys.shelf(version), self._signer.sign(bundle), ex=KEEP_SECONDS)

    async def take(self, version: str) -> bytes | None:
        """Look for a bundle that an instance of ours put there. Raises Unavailable."""
        async with available():
            found = cast(bytes | None, await self._redis.get(self._keys.shelf(version)))
        try:
            return self._signer.unsign(found) if found else None
        except BadSignature:
            return None
