"""What becomes of measurements: percentiles, and the median and spread of repetitions. Knows nothing of what they are of."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

MILLISECONDS = 1000
MICROSECONDS = 1_000_000


def percentile(sorted_values: Sequence[float], share: float) -> float:
    """Give the smallest value that so large a share of all is not above (nearest rank); NaN of none."""
    if not sorted_values:
        return math.nan
    rank = max(1, math.ceil(share * len(sorted_values)))
    return sorted_values[rank - 1]


@dataclass(frozen=True, slots=True)
class Delays:
    """How long things took, in milliseconds."""

    count: int
    p50: float
    p95: float
    p99: float
    most: float

    @classmethod
    def of(cls, seconds: Iterable[float]) -> Delays:
        """Sum up delays that are given in seconds."""
        values = sorted(value * MILLISECONDS for value in seconds)
        p50, p95, p99 = (percentile(values, share) for share in (0.50, 0.95, 0.99))
        return cls(len(values), p50, p95, p99, values[-1] if values else math.nan)

    def __str__(self) -> str:
        return f"p50 {self.p50:.1f}  p95 {self.p95:.1f}  p99 {self.p99:.1f}  most {self.most:.1f} ms"


@dataclass(frozen=True, slots=True)
class Spread:
    """Repetitions of one figure."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle one."""
        return median(self.values)

    @property
    def least(self) -> float:
        """The smallest one."""
        return min(self.values)

    @property
    def most(self) -> float:
        """The largest one."""
        return max(self.values)
