"""How many answers one process carries at once, each said at 50 pieces a second and shown in one browser.

python -m bench.answers ours|theirs|floor 50,100 [--seconds 15] [--root /another/clone] [--repeat 3]
"""

from __future__ import annotations

import argparse
import asyncio
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any

from bench.answer import RATE, Answer
from bench.browser import BROWSERS, Changed, Ours, Theirs, connect
from bench.figures import MILLISECONDS, Delays
from bench.machine import ROOT, Usage, take_own_cores, watching
from bench.model import Model
from bench.servers import FLOOR, STACKS, Server, serving

STAGGER_SECONDS = 3.0
"""Over which the answers begin."""
SETTLE_SECONDS = 2.0
"""Before the window, while all run."""
AFTER_SECONDS = 1.0
"""After the window, while all run still."""
LATE_SECONDS = 10.0
"""After which what was not shown counts as lost."""
CARRIED_MS = 100.0
"""At the 99th percentile: what a process may add to a piece."""
BEHIND_SECONDS = 0.5
"""By which the last delay may be over the first: more, and the server falls behind."""

numbers = count(1)


@dataclass(slots=True)
class Run:
    """What was measured with so many answers at once."""

    stack: str
    answers: int
    rate: int
    delays: Delays
    lost: int
    said: int
    cut: list[str]
    behind: bool
    usage: Usage

    @property
    def carried(self) -> bool:
        """Whether nothing was lost, and all came in time."""
        return not (self.lost or self.cut or self.behind) and self.delays.p99 <= CARRIED_MS

    @property
    def told(self) -> dict[str, Any]:
        """It, for the results."""
        return asdict(self) | {"carried": self.carried, "limited": self.usage.limited}

    def __str__(self) -> str:
        lost = f"{self.lost} of {self.said} lost" if self.lost else "nothing lost"
        why = f"  {len(self.cut)} broken: {self.cut[0]}" if self.cut else ""
        behind = "  falls behind" if self.behind else ""
        carried = "carried" if self.carried else "NOT carried"
        return f"{self.stack} {self.answers:4}: {self.delays}  {lost}{why}{behind}  {self.usage}  {carried}"


def carries(runs: Sequence[Run]) -> int:
    """Tell how many answers were carried at once, as were all fewer of them that were tried."""
    most = 0
    for each in sorted(runs, key=lambda run: run.answers):
        if not each.carried:
            break
        most = each.answers
    return most


async def measure(stack: str, at_once: int, seconds: float, *, root: Path = ROOT) -> Run:
    """Run so many answers at once against a fresh server."""
    async with Model() as model, serving(stack, model.url, root=root) as server:
        return await run(server, model, at_once, seconds)


@dataclass(slots=True)
class Load:
    """Answers that are being said, each shown in a browser of its own."""

    answers: list[Answer]
    browsers: list[Ours | Theirs]
    asked: list[asyncio.Future[str]]

    def leave(self) -> None:
        """Close the browsers."""
        for browser in self.browsers:
            browser.leave()


async def load(server: Server, model: Model, at_once: int, seconds: float) -> Load:
    """Have so many answers begin one after the other, the last of which lasts `seconds`."""
    pieces = int((STAGGER_SECONDS + seconds) * RATE)
    answers = [Answer(next(numbers), pieces) for _ in range(at_once)]
    model.answers.update((each.number, each) for each in answers)
    begun = Load(answers, [BROWSERS[server.stack](each.number, server.port) for each in answers], [])
    for browser in begun.browsers:
        await connect(browser, server.port)
    for browser, answer in zip(begun.browsers, answers, strict=True):
        begun.asked.append(browser.ask(answer))
        await asyncio.sleep(random.uniform(0.5, 1.5) * STAGGER_SECONDS / at_once)
    return begun


async def run(server: Server, model: Model, at_once: int, seconds: float) -> Run:
    """Run so many answers at once against a server."""
    begun = await load(server, model, at_once, SETTLE_SECONDS + seconds + AFTER_SECONDS)
    answers, browsers = begun.answers, begun.browsers
    loop = asyncio.get_running_loop()
    await asyncio.sleep(SETTLE_SECONDS)
    start = loop.time()
    async with watching(server.pid, server.redis_pid) as usage:
        await asyncio.sleep(seconds)
    end = loop.time()
    done, _ = await asyncio.wait(begun.asked, timeout=AFTER_SECONDS + STAGGER_SECONDS + LATE_SECONDS)
    for each in done:
        if isinstance(error := each.exception(), Changed):
            raise error
    cut = [why for each in done if (why := each.result()) != "stop"]
    cut += [f"not whole after {LATE_SECONDS:.0f} s"] * (at_once - len(done))
    cut += [browser.closed.result() for browser in browsers if browser.closed.done()]
    begun.leave()
    half = (start + end) / 2
    first = Delays.of(each for answer in answers for each in answer.delays(start, half))
    second = Delays.of(each for answer in answers for each in answer.delays(half, end))
    return Run(
        stack=server.stack,
        answers=at_once,
        rate=RATE,
        delays=Delays.of(each for answer in answers for each in answer.delays(start, end)),
        lost=sum(answer.lost for answer in answers),
        said=sum(len(answer.said) for answer in answers),
        cut=cut,
        behind=second.p50 - first.p50 > BEHIND_SECONDS * MILLISECONDS,
        usage=usage,
    )


async def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(prog="python -m bench.answers", description=__doc__)
    parser.add_argument("stack", choices=(*STACKS, FLOOR))
    parser.add_argument("counts", type=lambda given: [int(each) for each in given.split(",")])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--root", type=Path, default=ROOT)
    given = parser.parse_args(arguments)
    take_own_cores()
    for _ in range(given.repeat):
        for at_once in given.counts:
            print(await measure(given.stack, at_once, given.seconds, root=given.root.resolve()), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(asyncio.run(main()))
