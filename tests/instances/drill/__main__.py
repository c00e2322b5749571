"""The command line: `python -m tests.instances.drill --seeds 20 --first 1`."""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.instances.drill.run import Failed, Report, run
from tests.instances.drill.service import serving

LONGEST = 6000  # characters of a failure


def main() -> int:
    """Run seeds one after the other; 1 where any failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.instances.drill")
    parser.add_argument("--seeds", type=int, default=20, help="how many")
    parser.add_argument("--first", type=int, default=1, help="the first of them")
    arguments = parser.parse_args()
    return asyncio.run(drill(range(arguments.first, arguments.first + arguments.seeds)))


async def drill(seeds: range) -> int:
    """Run these seeds on one service; return the exit code."""
    reports, failures = [], 0
    try:
        with TemporaryDirectory(prefix="llmchat-drill-") as folder:
            async with serving(Path(folder)) as service:
                for seed in seeds:
                    report = Report(seed)
                    reports.append(report)
                    failure = ""
                    try:
                        await run(seed, service, report)
                    except Failed as error:
                        failure, failures = str(error), failures + 1
                    print(line(report, failed=bool(failure)), flush=True)
                    if failure:
                        again = f"run it alone: make drill SEEDS=1 FIRST={seed}"
                        print(f"{failure[:LONGEST]}\n{again}", flush=True)
    except AssertionError as error:  # of the instances' logs, at their end
        if not failures:
            print(str(error)[-LONGEST:])
        failures = failures or 1
    print(table(reports, failures))
    return int(failures > 0)


def line(report: Report, *, failed: bool) -> str:
    """Say in one line how a seed went."""
    counts = ", ".join(f"{count} {what}" for what, count in sorted(report.counts.items()) if count)
    recovered = "".join(f"; {kind}: recovered in {seconds:.2f} s" for kind, seconds in report.recoveries)
    return f"seed {report.seed}: {'FAILED' if failed else 'ok'}, {report.seconds:.1f} s; {counts}{recovered}"


def table(reports: list[Report], failures: int) -> str:
    """Sum up all seeds."""
    totals: Counter[str] = Counter()
    for report in reports:
        totals.update(report.counts)
    rows = {"seeds": str(len(reports)), "failures": str(failures)}
    rows |= {what: str(count) for what, count in sorted(totals.items())}
    rows["seconds of a seed"] = summary([report.seconds for report in reports])
    recoveries = [one for report in reports for one in report.recoveries]
    for kind in sorted({kind for kind, _ in recoveries}):
        rows[f"recovery after {kind}"] = summary([seconds for of, seconds in recoveries if of == kind])
    rows["recovery"] = summary([seconds for _, seconds in recoveries])
    return "\n".join(["", *(f"{what:<28}{value}" for what, value in rows.items())])


def summary(seconds: list[float]) -> str:
    """Return median and maximum."""
    if not seconds:
        return "none"
    return f"median {statistics.median(seconds):.2f} s, max {max(seconds):.2f} s, of {len(seconds)}"


if __name__ == "__main__":
    sys.exit(main())
