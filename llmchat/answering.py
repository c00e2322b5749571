"""How many conversations are answered at once for a session and for an address, over all instances.

And which address a conversation is answered for. Knows no answer. What asks Redis raises Unavailable when it is away.
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
from llmchat.variables import ADDRESS_SHARE

RETRY_SECONDS = 5
"""After them one of several answers may have ended."""
TOO_MANY = "As many chats are being answered as may be at once."


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
        raise RateLimited(RETRY_SECONDS, TOO_MANY)

    async def stay(self, session: str, conversation: str, network: str) -> None:
        """Note that a conversation's next prompt is being answered; `network` is "" where it is not known."""
        if self._noting:
            await self._noted(self._entries(session, network, conversation), (0, 0))

    async def leave(self, session: str, conversation: str, network: str) -> None:
        """Note that a conversation is not answered any more for a network."""
        if self._noting:
            await self._strike(self._entries(session, network, conversation))

    async def give(self, former: str, session: str) -> None:
        """Note for a person what is answered for the session that they were. May be repeated."""
        if not self._noting:
            return
        async with available():
            entries: list[Any] = await self._redis.zrange(self._keys.answering(former), 0, -1)
        for entry in entries:
            conversation, _, network = entry.decode().partition(" ")
            await self.stay(session, conversation, network)
            await self._strike([(self._keys.answering(former), entry.decode())])

    async def networks_of(self, session: str, conversation: str) -> list[str]:
        """Tell for which networks a conversation is answered: commonly one; none where that is not known any more."""
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


class Place:
    """What is noted of a conversation, for the instance that answers it: over several prompts, and a change of its owner."""

    def __init__(self, answering: Answering, conversation: str) -> None:
        self._answering = answering
        self._conversation = conversation
        self._sessions: dict[str, None] = {}  # in order: under them it is noted
        self._network = ""  # the last that it was answered for

    def take_up(self, session: str) -> None:
        """Go on with what was noted of a session when a prompt was taken."""
        self._sessions[session] = None

    async def stay(self, session: str) -> None:
        """Note that the next prompt is answered, also where it came in the moment of `leave`, or after a sign-in."""
        self.take_up(session)
        for each in reversed(self._sessions):
            networks = await self._answering.networks_of(each, self._conversation)
            if networks:
                self._network = networks[0]
                break
        await self._answering.stay(session, self._conversation, self._network)

    async def leave(self) -> None:
        """Note that the conversation is not answered any more."""
        while self._sessions:
            session, _ = self._sessions.popitem()
            for network in await self._answering.networks_of(session, self._conversation):
                self._network = network
                await self._answering.leave(session, self._conversation, network)
