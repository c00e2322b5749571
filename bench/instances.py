"""What instances cost each other: the same answers on one, two and four of them over one Redis, all on the server's core.

    python -m bench.instances [--root /another/clone] [--repeat 3]

What they take together may not grow with their number: then as many cores carry as many times the answers of one.
"""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

from bench.answers import AFTER_SECONDS, LATE_SECONDS, SETTLE_SECONDS, STAGGER_SECONDS, load
from bench.figures import Delays
from bench.machine import ROOT, watching
from bench.measured import Measured, measure_as_told
from bench.model import Model
from bench.servers import redis_of, serving

INSTANCES = (1, 2, 4)
ANSWERS = 80
"""In all: a core carries them, whoever makes them."""
SECONDS = 10.0


async def measure(stack: str, *, root: Path = ROOT) -> Measured:
    """Measure each number of instances, on a fresh Redis each."""
    figures: dict[str, float] = {}
    for count in INSTANCES:
        for name, value in (await _with(count, stack, root)).items():
            figures[f"{name}, {count} instances"] = value
    return Measured("instances", stack, figures)


async def _with(count: int, stack: str, root: Path) -> dict[str, float]:
    async with AsyncExitStack() as leaving:
        model = await leaving.enter_async_context(Model())
        folder = Path(leaving.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        redis = await leaving.enter_async_context(redis_of(folder))
        servers = [
            await leaving.enter_async_context(serving(stack, model.url, root=root, redis=redis))
            for _ in range(count)
        ]
        lasting = SETTLE_SECONDS + SECONDS + AFTER_SECONDS
        loads = await asyncio.gather(*(load(each, model, ANSWERS // count, lasting) for each in servers))
        await asyncio.sleep(SETTLE_SECONDS)
        start = asyncio.get_running_loop().time()
        async with watching([each.pid for each in servers], redis[1].pid) as usage:
            await asyncio.sleep(SECONDS)
        end = asyncio.get_running_loop().time()
        asked = [each for begun in loads for each in begun.asked]
        done, _ = await asyncio.wait(asked, timeout=AFTER_SECONDS + STAGGER_SECONDS + LATE_SECONDS)
        if [each.result() for each in done] != ["stop"] * ANSWERS:
            raise RuntimeError("Answers did not end as they should.")
        for begun in loads:
            begun.leave()
        delays = Delays.of(
            each for begun in loads for one in begun.answers for each in one.delays(start, end)
        )
    return {
        "% of a core": usage.server * 100,
        "p99 ms": delays.p99,
        "% of Redis' core": usage.redis * 100,
    }


if __name__ == "__main__":
    raise SystemExit(asyncio.run(measure_as_told(measure, __doc__, stacks=["ours"])))
