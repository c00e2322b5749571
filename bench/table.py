"""The one table: what was measured of the replaced stack and of llmchat, their ratio, the goal, and whether it is met."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.figures import Spread

Figures = Mapping[tuple[str, str, str], Spread]
"""By measure, stack and the figure's name."""
HEADS = ("what", "theirs", "ours", "ratio", "goal", "met")
NOTES = (
    "theirs: Channels, channels_redis' core layer (capacity 100), daphne; a consumer as tutorials have it.",
    "  It has no log of events, no leases, no limits, no Markdown, and gives no snapshot when a chat is opened.",
    "ours: `python -m llmchat serve` with all of that on; without automatic titles (TITLE_MODEL=off, CONTINUATION=never).",
    "floor: frames like ours on bare transports with no app in between: what the load generator takes at least.",
    "ratio: how many times as good ours is. Medians; server on one core, all else on the others (a browser on any).",
)


@dataclass(frozen=True, slots=True)
class Row:
    """One line: a figure of a measure, and its goal."""

    what: str
    measure: str
    figure: str
    unit: str
    goal: float
    more: bool = False
    """More is better, not less."""

    def met(self, value: float) -> bool:
        """Whether a value reaches the goal."""
        return value >= self.goal if self.more else value <= self.goal

    def ratio(self, theirs: float, ours: float) -> float:
        """Tell how many times as good ours is."""
        better, worse = (ours, theirs) if self.more else (theirs, ours)
        return better / worse if worse else float("inf")


ROWS = (
    Row("answers at 50 pieces/s at once, p99 ≤ 100 ms", "answers", "carried", "", 200, more=True),
    Row("first piece, 50 answers running: p50", "first", "p50", " ms", 5),
    Row("first piece, 50 answers running: p99", "first", "p99", " ms", 15),
    Row("group of 100, flat out: delivered/s", "group", "delivered/s", "", 60_000, more=True),
    Row("group of 100 at 20 events/s: p99", "group", "p99 at 20/s", " ms", 5),
    Row(
        "connections/s, with a chat opened (theirs: joined)",
        "connections",
        "connections/s",
        "",
        500,
        more=True,
    ),
    Row("memory of an idle connection, after traffic", "memory", "KiB a connection", " KiB", 36),
    Row("memory of an idle instance", "memory", "idle MB", " MB", 90),
    Row("a turn's own CPU at 10 messages", "turn", "ms at 10", " ms", 1),
    Row("a turn's own CPU at 10,000 messages", "turn", "ms at 10000", " ms", 1),
    Row("the same, 10,000 over 10", "turn", "large over small", " ×", 1.1),
    Row("wire: bytes a byte of text, 10,000 pieces", "wire", "bytes a byte", " ×", 4),
    Row("page at 4× throttle, 10,000 pieces: longest task", "browser", "longest task ms", " ms", 50),
    Row(
        "page: heap after a third such answer over a second", "browser", "heap, third over second", " ×", 1.05
    ),
)


def table_of(figures: Figures) -> str:
    """Draw the table of what was measured, with spreads and notes under it."""
    lines, spreads = [HEADS], []
    for row in ROWS:
        theirs = figures.get((row.measure, "theirs", row.figure))
        ours = figures.get((row.measure, "ours", row.figure))
        if ours is None and theirs is None:
            continue
        ratio = f"{row.ratio(theirs.median, ours.median):.1f}" if ours and theirs else "–"
        lines.append(
            (
                row.what,
                _shown(theirs, row),
                _shown(ours, row),
                ratio,
                f"{'≥' if row.more else '≤'} {_number(row.goal)}{row.unit}",
                "–" if ours is None else "yes" if row.met(ours.median) else "NO",
            )
        )
        told = [
            f"{stack} {_number(each.least)}–{_number(each.most)} of {len(each.values)}"
            for stack, each in (("theirs", theirs), ("ours", ours))
            if each
        ]
        spreads.append(f"  {row.what}: {'; '.join(told)}")
    return "\n".join([*aligned(lines), "", "Spread (least–most):", *spreads, "", *NOTES])


def others_of(figures: Figures) -> list[str]:
    """List the medians that have no row."""
    shown = {(row.measure, stack, row.figure) for row in ROWS for stack in ("theirs", "ours")}
    return [
        f"  {measure}, {stack}: {name} {_number(each.median)} ({_number(each.least)}–{_number(each.most)})"
        for (measure, stack, name), each in figures.items()
        if (measure, stack, name) not in shown
    ]


def aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    """Draw cells in columns, all but the first to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    drawn = [
        "  ".join(
            cell.rjust(width) if at else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
    return [drawn[0], "-" * len(drawn[0]), *drawn[1:]]


def _shown(spread: Spread | None, row: Row) -> str:
    return f"{_number(spread.median)}{row.unit}" if spread else "–"


def _number(value: float) -> str:
    if value >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def machine_of(machine: Mapping[str, Any]) -> str:
    """Say on what it was measured."""
    return ", ".join(f"{name} {value}" for name, value in machine.items())
