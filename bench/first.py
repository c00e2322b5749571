"""What is added to an answer's first piece while fifty other answers run: until the browser has it.

python -m bench.first [--root /another/clone] [--repeat 3]
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from bench.answer import Answer
from bench.answers import SETTLE_SECONDS, load, numbers
from bench.browser import BROWSERS, connect
from bench.figures import Delays
from bench.machine import ROOT, watching
from bench.measured import Measured, measure_as_told
from bench.model import Model
from bench.servers import serving

RUNNING = 50
SHORT = 200
SHORT_PIECES = 3
AT_ONCE = 2
LOAD_SECONDS = 90.0
"""More than the short ones take."""


async def measure(stack: str, *, root: Path = ROOT) -> Measured:
    """Ask for short answers, a few at a time, while others run."""
    async with Model() as model, serving(stack, model.url, root=root) as server:
        answers = [Answer(next(numbers), SHORT_PIECES) for _ in range(SHORT)]
        model.answers.update((each.number, each) for each in answers)
        browsers = [BROWSERS[stack](each.number, server.port) for each in answers]
        for browser in browsers:
            await connect(browser, server.port)
        running = await load(server, model, RUNNING, LOAD_SECONDS)
        await asyncio.sleep(SETTLE_SECONDS)
        waiting = list(zip(browsers, answers, strict=True))

        async def ask() -> None:
            while waiting:
                browser, answer = waiting.pop()
                if (ended := await browser.ask(answer)) != "stop":
                    raise RuntimeError(f"An answer ended: {ended}")

        async with watching(server.pid, server.redis_pid) as usage:
            await asyncio.gather(*(ask() for _ in range(AT_ONCE)))
        running.leave()
    delays = Delays.of(each.shown[0] - each.said[0] for each in answers)
    return Measured("first", stack, {"p50": delays.p50, "p99": delays.p99, "most": delays.most}, usage)


if __name__ == "__main__":
    raise SystemExit(asyncio.run(measure_as_told(measure, __doc__, stacks=("ours",))))
