"""What failed for no reason that is known, a bug or a damaged key: left alone for a while, longer each time. Pure."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

FIRST_SECONDS, MOST_SECONDS = 2.0, 600.0
"""It is tried again after the first, then after twice as long each time, up to the second."""


class Failures:
    """Remembers names, for as long as `only` says that they count."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._left: dict[str, tuple[float, float]] = {}  # name -> for how long it is left, and until when

    def note(self, name: str) -> float:
        """Note a failure; gives for how many seconds it is left alone."""
        before, _ = self._left.get(name, (FIRST_SECONDS / 2, 0.0))
        seconds = min(2 * before, MOST_SECONDS)
        self._left[name] = seconds, self._clock() + seconds
        return seconds

    def leaves(self, name: str) -> bool:
        """Tell whether it is to be left alone now."""
        return name in self._left and self._clock() < self._left[name][1]

    def only(self, names: Collection[str]) -> None:
        """Forget all others: they are over."""
        self._left = {name: left for name, left in self._left.items() if name in names}
