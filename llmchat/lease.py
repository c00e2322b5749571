"""Who may answer a conversation now, with a fencing token. Knows nothing of what is written under it."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from redis.asyncio import Redis

from llmchat.errors import Fenced, Unavailable
from llmchat.keys import Keys
from llmchat.redis_client import available, together
from llmchat.script import Script

LEASE_SECONDS = 2.0
RENEW_SECONDS = 0.5
FENCE_STEP = 2**31
"""A fence stays exact in Lua's numbers for millions of takings."""


@dataclass(frozen=True, slots=True)
class Lease:
    """One taking of a conversation. `fence` is what the history compares; `holder` is unguessable."""

    conversation: str
    holder: str
    fence: str


class Leases:
    """Gives out leases of LEASE_SECONDS; a holder renews in time or is replaced."""

    def __init__(self, redis: Redis, keys: Keys, *, of: str = "turn") -> None:
        """`of` is what they are of: a conversation's "turn", or its "fold"."""
        self._redis = redis
        self._keys = keys
        self._of = of
        self._script = Script(redis, "lease")

    async def take(self, conversation: str) -> Lease | None:
        """Take the lease if nobody holds it, and there is such a conversation. Raises Unavailable."""
        holder = secrets.token_hex(8)
        fence = await self._run("take", conversation, holder, "")
        return Lease(conversation, holder, fence) if fence is not None else None

    async def renew(self, lease: Lease) -> bool:
        """Hold on, also after the time ran out if nobody took it meanwhile. Raises Unavailable."""
        return await self._run("renew", lease.conversation, lease.holder, lease.fence) is not None

    @asynccontextmanager
    async def holding(
        self, lease: Lease, look: Callable[[], Awaitable[None]] | None = None
    ) -> AsyncIterator[None]:
        """Renew a lease for as long as the context is entered, and `look` after each time.

        Raises an exception group of Fenced, within the context, where another has taken it. While Redis is away it goes
        on: a lease that ran out is still ours until another takes it.
        """
        async with asyncio.TaskGroup() as tasks:
            renewing = tasks.create_task(self._renew_always(lease, look))
            yield
            renewing.cancel()

    async def _renew_always(self, lease: Lease, look: Callable[[], Awaitable[None]] | None) -> None:
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            with suppress(Unavailable):
                if not await self.renew(lease):
                    raise Fenced
                if look is not None:
                    await look()

    async def release(self, lease: Lease) -> None:
        """Give it back at once. Raises Unavailable."""
        await self._run("release", lease.conversation, lease.holder, lease.fence)

    async def held(self, conversations: Sequence[str]) -> list[bool]:
        """Tell for each conversation whether anybody holds it. Raises Unavailable."""
        async with available():
            pipe = together(self._redis)
            for conversation in conversations:
                pipe.exists(self._pair(conversation)[0])
            return [bool(found) for found in await pipe.execute()]

    async def _run(self, verb: str, conversation: str, holder: str, fence: str) -> str | None:
        found = await self._script(
            [*self._pair(conversation), self._keys.of_conversation(conversation).conversation],
            verb,
            holder,
            fence,
            int(LEASE_SECONDS * 1000),
            1 + secrets.randbelow(FENCE_STEP),
        )
        return found.decode() if found is not None else None

    def _pair(self, conversation: str) -> list[str]:
        """Name the lease and its fence."""
        keys = self._keys.of_conversation(conversation)
        return [keys.fold_lease, keys.fold_fence] if self._of == "fold" else [keys.lease, keys.fence]
