"""Seconds of work that may be done at once, and as a share of those that go by. Knows nothing of the work."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Budget:
    """Fills by a share of the time that goes by, up to `at_once` seconds. What is spent may be more than there was."""

    def __init__(self, share: float, at_once: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._share = share
        self._at_once = at_once
        self._clock = clock
        self._left = at_once
        self._as_of = clock()

    def fill(self) -> bool:
        """Add the share of the time that has gone by, and tell whether there is any left."""
        now = self._clock()
        self._left = min(self._at_once, self._left + (now - self._as_of) * self._share)
        self._as_of = now
        return self._left > 0

    @contextmanager
    def spent(self) -> Iterator[None]:
        """Take off how long the context is entered."""
        began = self._clock()
        try:
            yield
        finally:
            self._left -= self._clock() - began
