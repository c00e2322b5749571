"""Draws the delay, and the server's share of its core, against the number of answers. Runs in `.venv-bench`.

.venv-bench/bin/python -m bench.plot bench/results/answers.json bench/results/answers.png
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

COLOURS = {"ours": "#1b6ca8", "theirs": "#c0392b"}
NAMES = {"ours": "llmchat", "theirs": "Channels, channels_redis, daphne"}
DELAY_MS = 100
"""That is allowed at the 99th percentile."""


def draw(runs: list[dict[str, Any]], to: Path) -> None:
    """Draw the runs of all repetitions: their medians, and where pieces were lost."""
    figure, (delays, shares) = pyplot.subplots(2, 1, figsize=(9, 8), sharex=True, layout="constrained")
    for stack, colour in COLOURS.items():
        of_stack = [run for run in runs if run["stack"] == stack]
        counts = sorted({run["answers"] for run in of_stack})
        at = {count: [run for run in of_stack if run["answers"] == count] for count in counts}
        for name, style in (("p50", "--"), ("p99", "-")):
            values = [median(run["delays"][name] for run in at[count]) for count in counts]
            delays.plot(counts, values, style, color=colour, label=f"{NAMES[stack]}: {name}")
            lost = [
                (count, value)
                for count, value in zip(counts, values, strict=True)
                if any(run["lost"] for run in at[count])
            ]
            delays.plot(*zip(*lost, strict=True), "x", color=colour, label=None) if lost else None
        used = [100 * median(run["usage"]["server"] for run in at[count]) for count in counts]
        shares.plot(counts, used, "-", color=colour, label=f"{NAMES[stack]}: server")
        redis = [100 * median(run["usage"]["redis"] for run in at[count]) for count in counts]
        shares.plot(counts, redis, ":", color=colour, label=f"{NAMES[stack]}: Redis")
    delays.axhline(DELAY_MS, color="#888888", linewidth=0.8)
    delays.set(yscale="log", ylabel="added delay of a piece, ms (× = pieces were lost)")
    shares.set(ylabel="share of a core, %", xlabel="answers at once, each 50 pieces a second", ylim=(0, 105))
    for each in (delays, shares):
        each.grid(alpha=0.3)
        each.legend(frameon=False, fontsize="small")
    figure.savefig(to, dpi=120)


if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:])
    draw(json.loads(source.read_text())["runs"], target)
