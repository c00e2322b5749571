"""How often something took how long, in plain numbers. Pure: knows neither a clock nor who reads them."""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate
from math import inf


class Durations:
    """Counts by bounds in seconds, rising: each is the most of its count, and the last count has none."""

    __slots__ = ("_bounds", "_counts", "seconds")

    def __init__(self, *bounds: float) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.seconds = 0.0
        """All of them together."""

    def note(self, seconds: float) -> None:
        """Count one more."""
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self.seconds += seconds

    @property
    def up_to(self) -> list[tuple[float, int]]:
        """Tell for each bound, and for the infinite one, how many took no longer."""
        return list(zip((*map(float, self._bounds), inf), accumulate(self._counts), strict=True))
