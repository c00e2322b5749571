"""What a measure gives, and the command line that each of them has: `python -m bench.first ours --repeat 3`."""

from __future__ import annotations

import argparse
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.machine import ROOT, Usage, take_own_cores
from bench.servers import STACKS


@dataclass(frozen=True, slots=True)
class Measured:
    """One repetition of one measure: figures by name, and what was taken of the machine meanwhile."""

    name: str
    stack: str
    figures: dict[str, float]
    usage: Usage | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def told(self) -> dict[str, Any]:
        """It, for the results."""
        return asdict(self) | {"limited": self.usage.limited if self.usage else None}

    def __str__(self) -> str:
        figures = "  ".join(f"{name} {value:,.4g}" for name, value in self.figures.items())
        usage = f"  {self.usage}" if self.usage else ""
        return f"{self.name}, {self.stack}: {figures}{usage}{''.join(f'  {note}' for note in self.notes)}"


Measure = Callable[..., Awaitable[Measured]]


async def measure_as_told(
    measure: Measure, document: str, *, stacks: Sequence[str] = STACKS, arguments: Sequence[str] | None = None
) -> int:
    """Measure what a command line names, and print it."""
    parser = argparse.ArgumentParser(description=document)
    parser.add_argument("stack", nargs="?", choices=stacks, default=stacks[0])
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--root", type=Path, default=ROOT, help="of the llmchat that is measured")
    given = parser.parse_args(arguments)
    take_own_cores()
    for _ in range(given.repeat):
        print(await measure(given.stack, root=given.root.resolve()), flush=True)
    return 0
