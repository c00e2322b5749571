"""Runs all measures, theirs and ours in turn, and prints one table: `make bench`.

    python -m bench [--only answers,wire] [--repeat 3] [--root /another/clone]

What was measured is written as JSON into bench/results/, and with the answers a plot.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench import answers, connections, first, group, instances, memory, overload, page, turn, wire
from bench.figures import Spread
from bench.machine import ROOT, machine, take_own_cores
from bench.measured import Measured
from bench.servers import FLOOR, STACKS, THEIR_PYTHON
from bench.table import machine_of, others_of, table_of

RESULTS = ROOT / "bench" / "results"
COUNTS = {"theirs": (5, 10, 15, 20, 30, 50), "ours": (10, 50, 100, 150, 200, 250, 300), FLOOR: (200, 300)}
"""Answers at once. Of the floor, what the goal and the most of ours take of the load generator."""
SECONDS = 10.0
BESIDE = {"turn": turn, "group": group, "connections": connections, "memory": memory}
"""Measures of both stacks."""
OURS = {"instances": instances, "overload": overload, "wire": wire, "browser": page}
NAMES = (
    "answers",
    "first",
    "group",
    "connections",
    "memory",
    "turn",
    "instances",
    "overload",
    "wire",
    "browser",
)


class Bench:
    """One run of it."""

    def __init__(self, only: Sequence[str], root: Path) -> None:
        self._only = only
        self._root = root
        self.machine = machine()
        self.runs: list[answers.Run] = []
        self.measured: list[Measured] = []

    async def repetition(self) -> None:
        """Measure all of it once."""
        if "answers" in self._only:
            for stack in (FLOOR, *reversed(STACKS)):
                await self._answers(stack)
        if "first" in self._only:
            self._note(await first.measure("ours", root=self._root))
        for name, room in BESIDE.items():
            if name in self._only:
                for stack in (*([FLOOR] if name == "group" else []), *reversed(STACKS)):
                    self._note(await room.measure(stack, root=self._root))
        for name, room in OURS.items():
            if name in self._only:
                self._note(await room.measure("ours", root=self._root))

    async def _answers(self, stack: str) -> None:
        runs = []
        for count in COUNTS[stack]:
            runs.append(await answers.measure(stack, count, SECONDS, root=self._root))
            print(runs[-1], flush=True)
        self.runs += runs
        self._note(Measured("answers", stack, {"carried": answers.carries(runs)}))

    def _note(self, measured: Measured) -> None:
        print(measured, flush=True)
        self.measured.append(measured)
        self._write(measured.name)

    def _write(self, name: str) -> None:
        RESULTS.mkdir(exist_ok=True)
        told = {
            "machine": self.machine,
            "measured": [each.told for each in self.measured if each.name == name],
        }
        if name == "answers":
            told["runs"] = [each.told for each in self.runs]
        (RESULTS / f"{name}.json").write_text(json.dumps(told, indent=1) + "\n")

    def figures(self) -> dict[tuple[str, str, str], Spread]:
        """Gather what repetitions gave."""
        found: dict[tuple[str, str, str], list[float]] = defaultdict(list)
        for each in self.measured:
            for name, value in each.figures.items():
                found[each.name, each.stack, name].append(value)
        return {key: Spread(tuple(values)) for key, values in found.items()}

    def table(self) -> Iterator[str]:
        """Draw what was measured."""
        figures = self.figures()
        yield table_of(figures)
        yield f"machine: {machine_of(self.machine)}"
        usages = [
            (f"{each.name}, {each.stack}", each.usage) for each in self.measured if each.usage is not None
        ]
        usages += [(f"answers, {run.stack} {run.answers}", run.usage) for run in self.runs]
        if usages:
            what, most = max(usages, key=lambda each: each[1].generator)
            yield f"load generator: {most.generator:.0%} of its core at most ({what})"
        yield from (f"  {what}: {usage.limited}" for what, usage in usages if usage.limited)
        yield "\nBesides:"
        yield from others_of(figures)


async def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--only", type=lambda given: given.split(","), default=NAMES)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--root", type=Path, default=ROOT, help="of the llmchat that is measured")
    given = parser.parse_args(arguments)
    if unknown := set(given.only) - set(NAMES):
        parser.error(f"no such measure: {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    take_own_cores()
    began = time.monotonic()
    bench = Bench(given.only, given.root.resolve())
    for _ in range(given.repeat):
        await bench.repetition()
    print(*bench.table(), sep="\n")
    if bench.runs:
        files = [str(RESULTS / f"answers.{kind}") for kind in ("json", "png")]
        drawing = await asyncio.create_subprocess_exec(
            str(THEIR_PYTHON), "-m", "bench.plot", *files, cwd=ROOT
        )
        if await drawing.wait():
            return 1
    print(f"{(time.monotonic() - began) / 60:.0f} minutes; results in {RESULTS.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(asyncio.run(main()))
