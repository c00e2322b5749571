"""What a drill of one seed went through."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field


class Failed(AssertionError):
    """A drill found something; its text has the seed."""


@dataclass
class Report:
    """Counts and figures; `recoveries` are of the store's faults: kind, seconds."""

    seed: int
    drill: str = "mixed"
    seconds: float = 0
    counts: Counter[str] = field(default_factory=Counter)
    recoveries: list[tuple[str, float]] = field(default_factory=list)
    figures: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))  # what -> seconds


def told(error: BaseException) -> list[str]:
    """Say what failed, where it was a group of tasks each of them."""
    if isinstance(error, BaseExceptionGroup):
        return [line for each in error.exceptions for line in told(each)]
    return [f"{type(error).__name__}: {error}"]
