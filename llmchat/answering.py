"""How many conversations are answered at once for a session and for an address, over all instances.

And which address a conversation is answered for. Knows no answer. Every method raises Unavailable when Redis is away.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

from redis.asyncio import Redis

from llmchat.errors import RateLimited
from llmchat.keys import Keys
from llmchat.limits import network_of
from llmchat.redis_client import available, together
from llmchat.script import Script
from llmchat.settings import ADDRESS_SHARE

RETRY_SECONDS = 5
"""After them one of several answers may have ended."""


class Answering:
    """Notes conversations from when a prompt is taken until none of them is answered any more."""

    def __init__(
        self, redis: Redis, keys: Keys, secret_key: str, *, most: int, seconds: float, for_whom: bool = False
    ) -> None:
        """At `most` so many of a session (0: no limit), each for so many seconds at most.

        Without a limit, nothing is noted unless somebody wants to know `for_whom` a conversation is answered.
        """
        self._redis = redis
        self._keys = keys
        self._secret_key = secret_key.encode()
        self._most = most
        self._noting = bool(most) or for_whom
        self._lifetime_ms = int(seconds * 1000)
        self._note = Script(redis, "answering")
        self.refused = 0
        """How often there were too many."""

    def network(self, address: str) -> str:
        """Name whoever is behind an address, as it lies in Redis: a digest that only the key's holder can make."""
        told = f"network {network_of(address)}".encode()
        return hmac.new(self._secret_key, told, hashlib.sha256).hexdigest()[:32]

    async def enter(self, session: str, network: str, conversation: str) -> bool:
        """Note a conversation that is about to be answered; False where it was noted before. Raises RateLimited."""
        if not self._noting:
            return False
        entries = self._entries(session, network, conversation)
        most = (self._most, self._most * ADDRESS_SHARE)
        entered = await self._noted(entries, most)
        if 0 not in entered:
            return entered[0] == 1
        await self._strike([entry for entry, how in zip(entries, entered, strict=True) if how == 1])
        self.refused += 1
        raise RateLimited(RETRY_SECONDS)

    async def stay(self, session: str, conversation: str) -> None:
        """Note that a conversation's next prompt is being answered."""
        if not self._noting:
            return
        network = await self.network_of(session, conversation)
        await self._noted(self._entries(session, network, conversation), (0, 0))

    async def leave(self, session: str, conversation: str, network: str = "") -> None:
        """Note that a conversation is not answered any more; with a network, that it is not for that one."""
        for each in [network] if network else await self._networks(session, conversation):
            await self._strike(self._entries(session, each, conversation))

    async def network_of(self, session: str, conversation: str) -> str:
        """Tell for which network a conversation is answered; "" where that is not known any more."""
        return next(iter(await self._networks(session, conversation)), "")

    async def _networks(self, session: str, conversation: str) -> list[str]:
        if not self._noting:
            return []
        async with available():
            entries: list[Any] = await self._redis.zrange(self._keys.answering(session), 0, -1)
        noted = [entry.decode().partition(" ") for entry in entries]
        return [network for name, _, network in noted if name == conversation]

    def _entries(self, session: str, network: str, conversation: str) -> list[tuple[str, str]]:
        keys = self._keys
        entries = [(keys.answering(session), f"{conversation} {network}")]
        return [*entries, (keys.answering(network), conversation)] if network else entries

    async def _noted(self, entries: list[tuple[str, str]], most: tuple[int, int]) -> list[int]:
        # Each set is its own step, for they may be in several slots: at worst, both refuse in a moment in which one would do.
        return await self._note.each(
            [([key], [entry, m, self._lifetime_ms]) for (key, entry), m in zip(entries, most, strict=False)]
        )

    async def _strike(self, entries: list[tuple[str, str]]) -> None:
        async with available():
            pipe = together(self._redis)
            for key, entry in entries:
                pipe.zrem(key, entry)
            await pipe.execute()
