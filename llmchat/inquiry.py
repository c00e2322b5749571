"""What another server is asked once for all who want to know. Knows neither the server nor the question."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")
E = TypeVar("E", bound=Exception)


class Inquiry(Generic[T, E]):
    """Asks one time at once, goes on when whoever wanted to know goes away, and rests after each time."""

    def __init__(
        self, ask: Callable[[], Awaitable[T]], fails_with: type[E], *, rest: float, clock: Callable[[], float]
    ) -> None:
        """`rest` is in seconds of the clock."""
        self._ask = ask
        self._fails_with = fails_with
        self._rest = rest
        self._clock = clock
        self._ended_at = float("-inf")
        self._task: asyncio.Task[None] | None = None
        self.answer: T | None = None
        """The last one there was."""
        self.failure: E | None = None
        """Why there was none the last time."""

    async def __call__(self, *, at_once: bool = False) -> None:
        """Ask, or wait for who does, unless it was done a moment ago; `at_once`: also then."""
        self.begin(at_once=at_once)
        if self._task is not None:
            await asyncio.shield(self._task)

    def begin(self, *, at_once: bool = False) -> None:
        """Have it asked, likewise, without waiting."""
        if self._task is None and (at_once or self._clock() - self._ended_at > self._rest):
            self._task = asyncio.create_task(self._asked())

    async def _asked(self) -> None:
        try:
            self.answer, self.failure = await self._ask(), None
        except self._fails_with as error:
            self.failure = error
        finally:
            self._ended_at, self._task = self._clock(), None
