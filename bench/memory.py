"""What a server takes of memory: for each idle connection that had an answer, and by itself once it has started.

python -m bench.memory ours|theirs [--root /another/clone] [--repeat 3]
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from bench.answer import Answer
from bench.answers import numbers
from bench.browser import BROWSERS, Ours, Theirs, connect
from bench.machine import ROOT, family, resident_bytes, unshared_bytes
from bench.measured import Measured, measure_as_told
from bench.model import Model
from bench.servers import Server, serving

FIRST = 200
"""Connections that are there before: what memory is needed once is taken then."""
CONNECTIONS = 1000
"""Further ones, which are measured."""
AT_ONCE = 25
"""Answers that are made at a time."""
PIECES = 3
IDLE_SECONDS = 15.0
"""Since the last of the traffic, and since the start."""
LATE_SECONDS = 10.0
"""After which an answer whose end the replaced stack lost is not waited for."""
MEGABYTE = 10**6
KIB = 2**10


async def measure(stack: str, *, root: Path = ROOT) -> Measured:
    """Measure both."""
    async with Model() as model, serving(stack, model.url, root=root) as server:
        await asyncio.sleep(IDLE_SECONDS)
        idle = sum(map(resident_bytes, family(server.pid)))
        browsers = await _batch(server, model, FIRST)
        await asyncio.sleep(IDLE_SECONDS)
        before = sum(map(unshared_bytes, family(server.pid)))
        browsers += await _batch(server, model, CONNECTIONS)
        await asyncio.sleep(IDLE_SECONDS)
        after = sum(map(unshared_bytes, family(server.pid)))
        closed = sum(browser.closed.done() for browser in browsers)
        for browser in browsers:
            browser.leave()
    figures = {"idle MB": idle / MEGABYTE, "KiB a connection": (after - before) / CONNECTIONS / KIB}
    return Measured("memory", stack, figures, notes=[f"{closed} connections were closed"] if closed else [])


async def _batch(server: Server, model: Model, count: int) -> list[Ours | Theirs]:
    """Connect so many, and let each have an answer."""
    answers = [Answer(next(numbers), PIECES) for _ in range(count)]
    model.answers.update((each.number, each) for each in answers)
    browsers = [BROWSERS[server.stack](each.number, server.port) for each in answers]
    left = iter(list(zip(browsers, answers, strict=True)))

    async def some() -> None:
        for browser, answer in left:
            await connect(browser, server.port)
            done, _ = await asyncio.wait([browser.ask(answer)], timeout=LATE_SECONDS)
            if server.stack == "ours" and [each.result() for each in done] != ["stop"]:
                raise RuntimeError(f"An answer did not end as it should: {done}")
            del model.answers[answer.number]

    await asyncio.gather(*(some() for _ in range(AT_ONCE)))
    return browsers


if __name__ == "__main__":
    raise SystemExit(asyncio.run(measure_as_told(measure, __doc__)))
