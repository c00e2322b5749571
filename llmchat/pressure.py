"""Whether this instance has as much to do as it can, so that new work is refused early. Knows no work.

What it has to do is told by its event loop: how much of the time it was busy itself, and how late it was. Late alone may
be a machine that others use, which refusing would not help.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from random import randint
from types import TracebackType
from typing import Self

from llmchat.durations import Durations
from llmchat.errors import Overloaded

LATENESSES = 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5
LOOK_SECONDS = 0.1
WEIGHT = 0.2
"""Of a look in the mean: it follows within a second."""
BUSY, LATE_SECONDS = 0.9, 0.1
"""From this share of the time and this lateness on, new work is refused …"""
CALM, PROMPT_SECONDS = 0.75, 0.03
"""… until one of them is below these."""
RETRY_SECONDS = 2, 5
"""After some of them, what was refused may be taken: not all comes again at once."""


def overloaded() -> Overloaded:
    """Make the refusal of new work."""
    return Overloaded(randint(*RETRY_SECONDS))  # nosec B311 # noqa: S311


class Pressure:
    """Looks at the event loop's thread for as long as its context is entered."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, worked: Callable[[], float] = time.thread_time
    ) -> None:
        """`worked` tells the seconds of a processor that the thread has used."""
        self._clock = clock
        self._worked = worked
        self._before = (0.0, 0.0)  # of both, at the last look
        self._task: asyncio.Task[None] | None = None
        self.busy = 0.0
        """Mean share of the time."""
        self.late_seconds = 0.0
        """Mean lateness."""
        self.late = Durations(*LATENESSES)
        """All latenesses."""
        self.high = False
        """Whether new work is to be refused."""

    async def __aenter__(self) -> Self:
        self.begin()
        self._task = asyncio.create_task(self._watch(), name="pressure")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self.look()

    def begin(self) -> None:
        """Note where the clocks are."""
        self._before = self._clock(), self._worked()

    def look(self) -> None:
        """Look at what was since the last time, which should be LOOK_SECONDS ago."""
        (clock, worked), self._before = self._before, (self._clock(), self._worked())
        seconds = max(self._before[0] - clock, 1e-9)
        self.busy += WEIGHT * (min(1.0, (self._before[1] - worked) / seconds) - self.busy)
        late_seconds = max(0.0, seconds - LOOK_SECONDS)
        self.late.note(late_seconds)
        self.late_seconds += WEIGHT * (late_seconds - self.late_seconds)
        if self.busy >= BUSY and self.late_seconds >= LATE_SECONDS:
            self.high = True
        elif self.busy < CALM or self.late_seconds < PROMPT_SECONDS:
            self.high = False
