"""The command line: `python -m tests.instances.drill --seeds 20 --first 1`."""

from __future__ import annotations

import argparse
import asyncio
import logging
import statistics
import sys
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.instances.drill.promises import DRILLS, play
from tests.instances.drill.report import Failed, Report
from tests.instances.drill.rest import index_is_empty
from tests.instances.drill.service import Service, serving

DEPLOYED_ANSWERS = 100
LONGEST = 6000  # characters of a failure


def main() -> int:
    """Run seeds one after the other; 1 where any failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.instances.drill")
    parser.add_argument("--seeds", type=int, default=20, help="how many")
    parser.add_argument("--first", type=int, default=1, help="the first of them")
    parser.add_argument("--only", type=int, choices=sorted(DRILLS), help="the number of one promise")
    for noisy in ("aiohttp.server", "asyncio"):  # connections break all the time
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    arguments = parser.parse_args()
    seeds = range(arguments.first, arguments.first + arguments.seeds)
    return asyncio.run(drill(seeds, [arguments.only] if arguments.only else sorted(DRILLS)))


async def drill(seeds: range, promises: list[int]) -> int:
    """Run the drills of these promises with these seeds on one service; return the exit code."""
    reports, failures = [], 0
    try:
        with TemporaryDirectory(prefix="llmchat-drill-") as folder:
            async with serving(Path(folder), deployed_answers=DEPLOYED_ANSWERS) as service:
                for seed in seeds:
                    for promise in promises:
                        report = Report(seed, str(promise))
                        reports.append(report)
                        failures += await played(promise, service, report)
                await index_is_empty(service)
    except AssertionError as error:  # of the instances' logs, at their end
        if not failures:
            print(str(error)[-LONGEST:])
        failures = failures or 1
    print(table(reports, failures))
    return int(failures > 0)


async def played(promise: int, service: Service, report: Report) -> bool:
    """Play one drill, say how it went, and tell whether it failed."""
    failure = ""
    try:
        await play(promise, service, report)
    except Failed as error:
        failure = str(error)
    print(line(report, failed=bool(failure)), flush=True)
    if failure:
        again = f"run it alone: make drill SEEDS=1 FIRST={report.seed} ONLY={promise}"
        print(f"{failure[:LONGEST]}\n{again}", flush=True)
    return bool(failure)


def line(report: Report, *, failed: bool) -> str:
    """Say in one line how a seed went."""
    counts = ", ".join(f"{count} {what}" for what, count in sorted(report.counts.items()) if count)
    recovered = "".join(f"; {kind}: recovered in {seconds:.2f} s" for kind, seconds in report.recoveries)
    return f"promise {report.drill}, seed {report.seed}: {'FAILED' if failed else 'ok'}, {report.seconds:.1f} s; {counts}{recovered}"


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
    for what in sorted({what for report in reports for what in report.figures}):
        rows[what] = summary([one for report in reports for one in report.figures.get(what, [])])
    rows["recovery"] = summary([seconds for _, seconds in recoveries])
    return "\n".join(["", *(f"{what:<28}{value}" for what, value in rows.items())])


def summary(seconds: list[float]) -> str:
    """Return median, p99 and maximum."""
    if not seconds:
        return "none"
    most = statistics.quantiles(seconds, n=100, method="inclusive")[98] if len(seconds) > 1 else seconds[0]
    median = statistics.median(seconds)
    return f"median {median:.3f} s, p99 {most:.3f} s, max {max(seconds):.3f} s, of {len(seconds)}"


if __name__ == "__main__":
    sys.exit(main())
