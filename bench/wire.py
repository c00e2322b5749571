"""What an answer of ten thousand pieces is on the wire, in bytes for each byte of its text.

    python -m bench.wire [--root /another/clone] [--repeat 3]

Once with permessage-deflate offered, as browsers do, and once without; at the pace at which models speak, for what is
told together depends on it.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from bench.answer import Answer
from bench.answers import numbers
from bench.browser import Ours, connect
from bench.machine import ROOT, watching
from bench.measured import Measured, measure_as_told
from bench.model import Model
from bench.servers import Server, serving

PIECES = 10_000
LATE_SECONDS = 60.0


async def measure(stack: str, *, root: Path = ROOT) -> Measured:
    """Have two such answers said."""
    async with Model() as model, serving(stack, model.url, root=root) as server:
        return await _of_server(server, model)


async def _of_server(server: Server, model: Model) -> Measured:
    answers = [Answer(next(numbers), PIECES) for _ in range(2)]
    model.answers.update((each.number, each) for each in answers)
    offering, plain = (
        Ours(each.number, server.port, deflate=deflate)
        for each, deflate in zip(answers, (True, False), strict=True)
    )
    async with watching(server.pid, server.redis_pid) as usage:
        for browser in (offering, plain):
            await connect(browser, server.port)
        before = [browser.received_bytes for browser in (offering, plain)]
        async with asyncio.timeout(PIECES / answers[0].rate + LATE_SECONDS):
            ended = await asyncio.gather(
                *(browser.ask(answer) for browser, answer in zip((offering, plain), answers, strict=True))
            )
    if set(ended) != {"stop"}:
        raise RuntimeError(f"The answers ended with {ended}.")
    ratios = [
        (browser.received_bytes - start) / len(answer.text.encode())
        for browser, start, answer in zip((offering, plain), before, answers, strict=True)
    ]
    notes = [
        "permessage-deflate was agreed upon"
        if offering.deflated
        else "permessage-deflate was offered and not taken"
    ]
    for browser in (offering, plain):
        browser.leave()
    return Measured(
        "wire", server.stack, {"bytes a byte": ratios[0], "without deflate": ratios[1]}, usage, notes
    )


if __name__ == "__main__":
    raise SystemExit(asyncio.run(measure_as_told(measure, __doc__, stacks=("ours",))))
