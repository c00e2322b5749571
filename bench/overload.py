"""What answers that were taken notice where there are five times as many prompts as are taken, and what that costs.

python -m bench.overload [--root /another/clone] [--repeat 3]
"""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from pathlib import Path

from bench.answer import Answer
from bench.answers import AFTER_SECONDS, SETTLE_SECONDS, STAGGER_SECONDS, load, numbers
from bench.browser import Ours, connect
from bench.figures import Delays
from bench.machine import ROOT, family, resident_bytes, watching
from bench.measured import Measured, measure_as_told
from bench.model import Model
from bench.servers import Server, serving

TAKEN = 150
"""Answers that the server makes at once, at 50 pieces a second."""
TIMES = 5
"""As many prompts come, again and again."""
WINDOW_SECONDS = 10.0
RETRY_SECONDS = 2, 5
"""As the server tells those whom it refuses."""
PIECES = 100
MEGABYTE = 10**6


async def measure(stack: str, *, root: Path = ROOT) -> Measured:
    """Measure without further prompts, and with them."""
    figures: dict[str, float] = {}
    usage = None
    for name, further in (("", 0), (" beside further prompts", (TIMES - 1) * TAKEN)):
        async with (
            Model() as model,
            serving(stack, model.url, root=root, ANSWERS_PER_INSTANCE=str(TAKEN)) as server,
        ):
            others = [Ours(next(numbers), server.port) for _ in range(further)]
            for other in others:
                await connect(other, server.port)
            before = _megabytes(server)
            seconds = SETTLE_SECONDS + WINDOW_SECONDS + AFTER_SECONDS
            begun = await load(server, model, TAKEN, seconds)
            refused: list[str] = []
            insisting = [asyncio.create_task(_insist(other, model, refused)) for other in others]
            await asyncio.sleep(SETTLE_SECONDS)
            start, refused_before = asyncio.get_running_loop().time(), len(refused)
            async with watching(server.pid, server.redis_pid) as usage:
                await asyncio.sleep(WINDOW_SECONDS)
            end, refused_after = asyncio.get_running_loop().time(), len(refused)
            for each in insisting:
                each.cancel()
            await asyncio.wait(begun.asked, timeout=AFTER_SECONDS + STAGGER_SECONDS + 10)
            whole = sum(each.done() and each.result() == "stop" for each in begun.asked)
            delays = Delays.of(each for answer in begun.answers for each in answer.delays(start, end))
            figures |= {
                f"p50 ms{name}": delays.p50,
                f"p99 ms{name}": delays.p99,
                f"answers that were whole{name}": whole,
                f"MB more{name}": _megabytes(server) - before,
            }
            if further:
                figures["refused a second"] = (refused_after - refused_before) / WINDOW_SECONDS
                figures["refused otherwise"] = sum(not why.startswith("busy") for why in refused)
            begun.leave()
            for other in others:
                other.leave()
    return Measured("overload", stack, figures, usage)


async def _insist(browser: Ours, model: Model, refused: list[str]) -> None:
    """Send a prompt as a page does that is refused, until it is taken."""
    while True:
        answer = Answer(next(numbers), PIECES)
        model.answers[answer.number] = answer
        with suppress(Exception):
            why = await browser.ask(answer)
            if why == "stop":
                return
            refused.append(why)
        await asyncio.sleep(random.uniform(*RETRY_SECONDS))


def _megabytes(server: Server) -> float:
    return sum(map(resident_bytes, family(server.pid))) / MEGABYTE


if __name__ == "__main__":
    raise SystemExit(asyncio.run(measure_as_told(measure, __doc__, stacks=("ours",))))
