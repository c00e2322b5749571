"""How much a session and an address may do in a minute, over all instances. Knows nothing of what is done."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network

from redis.asyncio import Redis

from llmchat.errors import RateLimited
from llmchat.keys import Keys
from llmchat.script import Script
from llmchat.settings import ADDRESS_SHARE

MINUTE_MS = 60_000
SIGN_INS_PER_MINUTE = 10
"""Guesses of the password by one session; ADDRESS_SHARE times as many by one address."""
ATTACHMENTS_PER_MINUTE = 60
"""Files sent by one session; likewise."""
IMPORTS_PER_MINUTE = 10
"""Files of chats sent by one session, and all of its chats fetched; likewise."""
SHARED_PAGES_PER_MINUTE = 60
"""Shared chats shown to one address, whoever is behind it: each has to be drawn."""
NETWORK_BITS = 64
"""What one IPv6 customer has; a single address of it would be no limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """What a session may do in a minute; 0 is no limit."""

    prompts: int = 0
    connections: int = 0
    frames: int = 0
    sign_ins: int = SIGN_INS_PER_MINUTE
    attachments: int = ATTACHMENTS_PER_MINUTE
    imports: int = IMPORTS_PER_MINUTE
    shared_pages: int = SHARED_PAGES_PER_MINUTE


KINDS = tuple(each.name for each in fields(Rates))


class Limits:
    """Gives out allowances. Each is full at first, and fills evenly, all of it in a minute."""

    def __init__(self, redis: Redis, keys: Keys, rates: Rates) -> None:
        self._keys = keys
        self._rates = rates
        self._limit = Script(redis, "limit")

    def of(self, session: str, address: str) -> Allowance:
        """Give what a session at an address may do."""
        return Allowance(self, session, address)

    async def take(self, kind: str, session: str, address: str, cost: int, mode: str = "take") -> None:
        """Take; with "look" only ask, with "owe" take what was had already. Raises RateLimited, and Unavailable."""
        rate: int = getattr(self._rates, kind)
        if rate == 0 or cost == 0:
            return
        # The session first: what it may not have, it does not take from those who share its address.
        await self._take(kind, session, rate, cost, mode)
        await self._take(kind, network_of(address), rate * ADDRESS_SHARE, cost, mode)

    async def shared_page(self, address: str) -> None:
        """Take a shared chat that is shown, of an address alone: nobody has a session there."""
        await self._take("shared_pages", network_of(address), self._rates.shared_pages, 1, "take")

    async def _take(self, kind: str, who: str, most: int, cost: int, mode: str) -> None:
        wait_ms = await self._limit([self._keys.limit(kind, who)], MINUTE_MS / most, most, cost, mode)
        if wait_ms:
            raise RateLimited(wait_ms / 1000)


@dataclass(frozen=True, slots=True)
class Allowance:
    """What one connection or request may do. Every method raises RateLimited, and Unavailable."""

    limits: Limits
    session: str
    address: str

    async def prompt(self) -> None:
        """Take an answer's worth."""
        await self.limits.take("prompts", self.session, self.address, 1)

    async def frames(self, count: int) -> None:
        """Take so many frames, which were read already."""
        await self.limits.take("frames", self.session, self.address, count, "owe")

    async def connection(self, *, look: bool = False) -> None:
        """Take a websocket; with `look`, tell only whether one could be had."""
        await self.limits.take("frames", self.session, self.address, 1, "look")
        await self.limits.take("connections", self.session, self.address, 1, "look" if look else "take")

    async def attachment(self) -> None:
        """Take a file that is sent."""
        await self.limits.take("attachments", self.session, self.address, 1)

    async def import_(self) -> None:
        """Take a file of chats that is sent, or an archive of all of them that is made."""
        await self.limits.take("imports", self.session, self.address, 1)

    async def sign_in(self) -> None:
        """Take a guess of the password."""
        await self.limits.take("sign_ins", self.session, self.address, 1)


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
