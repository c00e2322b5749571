"""How tests wait: for events, never for time to pass; every wait has a deadline and says what it waited for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

T = TypeVar("T")


@asynccontextmanager
async def within(seconds: float, what: str | Callable[[], str] = "this") -> AsyncIterator[None]:
    """Fail the test where the body takes longer; `what` names what did not happen."""
    try:
        async with asyncio.timeout(seconds) as limit:
            yield
    except TimeoutError:
        if not limit.expired():
            raise
        text = what if isinstance(what, str) else what()
        raise AssertionError(f"not within {seconds} s: {text}") from None


async def eventually(
    attempt: Callable[[], Awaitable[T]], *, seconds: float, what: str | Callable[[], str]
) -> T:
    """Repeat an attempt until it neither raises OSError nor gives a false value: for what sends no event."""
    async with within(seconds, what):
        while True:
            try:
                if found := await attempt():
                    return found
            except OSError:
                pass
            await asyncio.sleep(0.02)


class Bell:
    """Wakes whoever waits for a state that others bring about: they ring after every change."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()

    def ring(self) -> None:
        """Let all waiters look again."""
        rung, self._rung = self._rung, asyncio.Event()
        rung.set()

    async def until(
        self, find: Callable[[], T | None], *, seconds: float, what: str | Callable[[], str] = "this"
    ) -> T:
        """Return what `find` finds, as soon as it is neither None nor False."""
        async with within(seconds, what):
            while True:
                found = find()
                if found is not None and found is not False:
                    return found
                await self._rung.wait()
