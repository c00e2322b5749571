"""How much a session and an address may do in a minute, over all instances. Knows nothing of what is done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Literal

from redis.asyncio import Redis
from redis.exceptions import ClusterCrossSlotError

from llmchat.errors import RateLimited
from llmchat.keys import Keys
from llmchat.redis_client import as_cluster
from llmchat.script import Script
from llmchat.variables import ADDRESS_SHARE

MINUTE_MS = 60_000
SIGN_INS_PER_MINUTE = 10
"""Guesses of the password by one session; ADDRESS_SHARE times as many by one address."""
ATTACHMENTS_PER_MINUTE = 60
"""Files sent by one session; likewise."""
IMPORTS_PER_MINUTE = 10
"""Files of chats sent by one session, and all of its chats fetched; likewise."""
SHARED_PAGES_PER_MINUTE = 60
"""Shared chats shown to one address, whoever is behind it: each has to be drawn."""
WRONG_TOKENS_PER_MINUTE = 10
"""Guesses of the metrics' token by one address, likewise."""
NETWORK_BITS = 64
"""What one IPv6 customer has; a single address of it would be no limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """What a session may do in a minute; 0 is no limit."""

    prompts: int = 0
    connections: int = 0
    frames: int = 0
    pages: int = 0
    sign_ins: int = SIGN_INS_PER_MINUTE
    attachments: int = ATTACHMENTS_PER_MINUTE
    imports: int = IMPORTS_PER_MINUTE
    shared_pages: int = SHARED_PAGES_PER_MINUTE
    wrong_tokens: int = WRONG_TOKENS_PER_MINUTE


KINDS = tuple(each.name for each in fields(Rates))


Mode = Literal["take", "look", "owe"]
"""To ask only; to take what was had already."""
Wanted = tuple[str, int, Mode]
"""A kind, how many of it, and how."""
_Asked = tuple[str, int, int, Mode]
"""A key, how many there are in a minute, how many are wanted, and how."""


class Limits:
    """Gives out allowances. Each is full at first, and fills evenly, all of it in a minute."""

    def __init__(self, redis: Redis, keys: Keys, rates: Rates) -> None:
        self._keys = keys
        self._rates = rates
        self._limit = Script(redis, "limit")
        self._together = as_cluster(redis) is None  # else they are in several slots
        self.taken = Counter(dict.fromkeys(KINDS, 0))
        """What was asked for, also in vain, by kind."""
        self.refused = Counter(dict.fromkeys(KINDS, 0))
        """How often something was refused, by the kind of what was asked for."""

    def of(self, session: str, address: str) -> Allowance:
        """Give what a session at an address may do."""
        return Allowance(self, session, address)

    async def take(self, session: str | None, address: str, *wanted: Wanted) -> None:
        """Take all of it, or nothing but what is owed; without a session, of the address alone.

        Raises RateLimited, and Unavailable. Where there are slots, one after the other until one is refused, the session's
        first: what it may not have, it does not take from those who share its address.
        """
        network = network_of(address)
        asked: list[_Asked] = []
        for kind, cost, mode in wanted:
            self.taken[kind] += 0 if mode == "look" else cost
            rate: int = getattr(self._rates, kind)
            if rate and cost and session is not None:
                asked.append((self._keys.limit(kind, session), rate, cost, mode))
            if rate and cost:
                asked.append((self._keys.limit(kind, network), rate * ADDRESS_SHARE, cost, mode))
        await self._take(asked, wanted[-1][0])

    async def page(self, session: str | None, address: str) -> None:
        """Take a page; None where no session came with the request."""
        await self.take(session, address, ("pages", 1, "take"))

    async def shared_page(self, address: str) -> None:
        """Take a shared chat that is shown, of an address alone: nobody has a session there."""
        await self.take_alone("shared_pages", network_of(address))

    async def take_alone(self, kind: str, who: str) -> None:
        """Take one of a session's allowance alone, or of a network's. Raises RateLimited, and Unavailable."""
        self.taken[kind] += 1
        rate: int = getattr(self._rates, kind)
        if rate:
            await self._take([(self._keys.limit(kind, who), rate, 1, "take")], kind)

    async def wrong_token(self, address: str) -> None:
        """Take a guess of the metrics' token, likewise."""
        await self.take_alone("wrong_tokens", network_of(address))

    async def _take(self, asked: Sequence[_Asked], kind: str) -> None:
        wait_ms = 0
        if self._together and asked:
            try:
                wait_ms = await self._step(asked)
            except ClusterCrossSlotError:  # shards behind one address
                self._together = False
        if not self._together:
            for each in asked:
                wait_ms = max(wait_ms, await self._step([each]))
                if wait_ms and each[3] != "owe":
                    break
        if wait_ms:
            self.refused[kind] += asked[-1][3] != "look"
            raise RateLimited(wait_ms / 1000)

    async def _step(self, asked: Sequence[_Asked]) -> int:
        words: list[str | int | float] = []
        for _, most, cost, mode in asked:
            words += [MINUTE_MS / most, most, cost, mode]
        wait_ms: int = await self._limit([key for key, *_ in asked], *words)
        return wait_ms


@dataclass(frozen=True, slots=True)
class Allowance:
    """What one connection or request may do. Every method raises RateLimited, and Unavailable."""

    limits: Limits
    session: str
    address: str

    async def prompt(self) -> None:
        """Take an answer's worth."""
        await self._take("prompts")

    async def frames(self, count: int) -> None:
        """Take so many frames, which were read already."""
        await self.limits.take(self.session, self.address, ("frames", count, "owe"))

    async def connection(self, *, look: bool = False) -> None:
        """Take a websocket; with `look`, tell only whether one could be had."""
        mode: Mode = "look" if look else "take"
        await self.limits.take(self.session, self.address, ("frames", 1, "look"), ("connections", 1, mode))

    async def attachment(self) -> None:
        """Take a file that is sent."""
        await self._take("attachments")

    async def import_(self) -> None:
        """Take a file of chats that is sent, or an archive of all of them that is made."""
        await self._take("imports")

    async def sign_in(self, *, knew: bool = False) -> None:
        """Take a guess of the password; whoever once knew it has guesses that no stranger at the address uses up."""
        if knew:
            await self.limits.take_alone("sign_ins", self.session)
        else:
            await self._take("sign_ins")

    async def _take(self, kind: str) -> None:
        await self.limits.take(self.session, self.address, (kind, 1, "take"))


@lru_cache(maxsize=1024)
def network_of(address: str) -> str:
    """Name whoever is behind an address: of IPv6 a customer's network, else the address itself."""
    try:
        found = ip_address(address)
    except ValueError:
        return "unknown"
    if isinstance(found, IPv6Address):
        if found.ipv4_mapped:
            return str(found.ipv4_mapped)
        return str(ip_network((found.packed, NETWORK_BITS), strict=False))
    return str(found)
