"""How late the event loop is: what it had to do later than it should. Knows not what kept it."""

from __future__ import annotations

import asyncio
from typing import Self

from llmchat.durations import Durations

EVERY_SECONDS = 0.5
LATE_SECONDS = 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5


class Lag:
    """Looks now and then, for as long as its context is entered."""

    def __init__(self) -> None:
        self.late = Durations(*LATE_SECONDS)
        self._due: asyncio.TimerHandle | None = None

    def __enter__(self) -> Self:
        self._wait()
        return self

    def __exit__(self, *_: object) -> None:
        if self._due is not None:
            self._due.cancel()

    def _wait(self) -> None:
        self._due = asyncio.get_running_loop().call_later(EVERY_SECONDS, self._look)

    def _look(self) -> None:
        if self._due is not None:
            self.late.note(max(0.0, asyncio.get_running_loop().time() - self._due.when()))
        self._wait()
