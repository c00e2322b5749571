"""What a session has in Redis beside its files, as keys: found, and let go of. Knows not what lies there."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import chain
from typing import Any

from redis.asyncio import Redis

from llmchat.keys import Keys
from llmchat.redis_client import available
from llmchat.script import Script

LOOSE_MS = 3_600_000
"""As long as a part of an import is kept, and longer than what was deleted."""


class Erasure:
    """Every method raises Unavailable when Redis is away; each may be repeated."""

    def __init__(self, redis: Redis, keys: Keys, limits: Sequence[str]) -> None:
        """`limits` are the kinds of allowances that a session has."""
        self._redis = redis
        self._keys = keys
        self._limits = limits
        self._erase = Script(redis, "erase")

    async def note(self, session: str, conversation: str) -> None:
        """Note a conversation that is about to be in no list, so that it is found all the same."""
        key = self._keys.loose(session)
        async with available():
            pipe = self._redis.pipeline(transaction=False)
            pipe.zadd(key, {conversation: int(time.time() * 1000)})
            pipe.pexpire(key, LOOSE_MS)
            await pipe.execute()

    async def strike(self, session: str, conversation: str) -> None:
        """Strike the note of a conversation that is in a list again."""
        async with available():
            await self._redis.zrem(self._keys.loose(session), conversation)

    async def sessions(self, session: str, *, ever: bool = False) -> list[str]:
        """Find a session, and those to which something may be under way that will be its own; with `ever`, all that became so."""
        key = self._keys.formers(session)
        async with available():
            formers: list[Any] = await self._redis.zrange(key, 0 if ever else 1, "+inf", byscore=True)
        return [session, *(each.decode() for each in formers)]

    async def listed(self, session: str) -> list[str]:
        """Find all conversations that are in a list, last used first: temporary ones are in none."""
        keys = self._keys
        return await self._found([keys.conversations(session), keys.pinned(session), keys.archived(session)])

    async def all(self, session: str) -> list[str]:
        """Find all conversations, whatever they are."""
        keys = self._keys
        others = await self._found([keys.temporary(session), keys.loose(session), keys.leaving(session)])
        return list(dict.fromkeys([*await self.listed(session), *others]))

    async def _found(self, indexes: Sequence[str]) -> list[str]:
        async with available():
            pipe = self._redis.pipeline(transaction=False)
            for index in indexes:
                pipe.zrevrange(index, 0, -1)
            found: list[list[bytes]] = await pipe.execute()
        return [each.decode() for each in dict.fromkeys(chain.from_iterable(found))]

    async def erase(self, session: str, conversation: str) -> None:
        """Let go of a conversation of the session's, and of an answer that is being made in it."""
        keys = self._keys.of_conversation(conversation)
        if not await self._erase(keys.all, session):
            return
        async with available():  # the lists last: whoever comes again after a failure finds it there
            pipe = self._redis.pipeline(transaction=False)
            for index in (self._keys.work, self._keys.folds, *self._indexes(session)):
                pipe.zrem(index, conversation)
            await pipe.execute()

    async def erase_rest(self, session: str) -> None:
        """Let go of what the session has beside conversations and files, and of what comes. To be done first.

        How often it signed out stays, and how many tokens it used today.
        """
        keys = self._keys
        async with available():
            shares: list[Any] = await self._redis.hkeys(keys.shares(session))
            pipe = self._redis.pipeline(transaction=False)
            for token in shares:
                pipe.delete(keys.share(token.decode()))
            for key_of in (
                keys.coming,
                keys.shares,
                keys.revoked,
                keys.prompts,
                keys.format,
                keys.answering,
            ):
                pipe.delete(key_of(session))
            for kind in self._limits:
                pipe.delete(keys.limit(kind, session))
            await pipe.execute()

    def _indexes(self, session: str) -> list[str]:
        keys = self._keys
        return [
            keys.conversations(session),
            keys.pinned(session),
            keys.archived(session),
            keys.temporary(session),
            keys.loose(session),
            keys.leaving(session),
        ]
