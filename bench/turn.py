"""What a turn costs in a chat of ten messages and of ten thousand: in the history, in Redis, in the whole instance.

    python -m bench.turn ours|theirs [--root /another/clone] [--repeat 3]

Of the replaced stack: the chat is read and rewritten as one JSON value.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from bench.answer import Answer
from bench.answers import numbers
from bench.browser import Ours, connect
from bench.figures import MILLISECONDS
from bench.inside import Inside, inside
from bench.machine import ROOT, Child, cpu_seconds
from bench.measured import Measured, measure_as_told
from bench.model import Model
from bench.replaced.history import History
from bench.servers import redis_of, serving

FOLD_SECONDS = 0.05
"""Between two looks whether a fold is over."""
SMALL, LARGE = 10, 10_000
"""Messages in the chat."""
BLOCKS = 24
TURNS = 5
"""In each block: of the small chats each has a block, so that they stay small."""
WARM_BLOCKS = 4
UNFOLDED = 2
"""The newest turns before a block, which no summary stands for."""
CONTEXT_TOKENS = 256
"""So few that both chats have more: then the model is sent as many messages of either."""
CONTEXT_BYTES = CONTEXT_TOKENS * 12
"""What an attempt reads for them (llmchat.attempt)."""
CONTEXT_MESSAGES = 1000
TEXT = "A message of a chat, as long as they are on the whole: a line or two on a screen that is wide. " * 2
SETTINGS = {"CONTEXT_TOKENS": str(CONTEXT_TOKENS), "PROMPTS_PER_MINUTE": "1000000"}
COUNTED = ("used_cpu_user", "used_cpu_sys")

Block = Callable[[int], Awaitable[None]]
"""Has the turns of a block."""


@dataclass(slots=True)
class Cost:
    """Milliseconds of CPU for a turn."""

    own: float
    redis: float


async def measure(stack: str, *, root: Path = ROOT) -> Measured:
    """Measure in chats of both sizes."""
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        async with redis_of(Path(folder)) as (url, redis):
            for size in (SMALL, LARGE):
                cost = await (_of_ours if stack == "ours" else _of_theirs)(url, root, size)
                figures |= {f"ms at {size}": cost.own, f"Redis ms at {size}": cost.redis}
            figures["large over small"] = figures[f"ms at {LARGE}"] / figures[f"ms at {SMALL}"]
            if stack == "ours":
                for size in (SMALL, LARGE):
                    figures[f"instance ms at {size}"] = await _of_instance((url, redis), root, size)
    return Measured("turn", stack, figures)


async def _cost(redis: Any, block: Block, between: Block, own_seconds: Callable[[], float]) -> Cost:
    """Add up what the turns take, and not what is between the blocks."""
    own = of_redis = 0.0
    for number in range(WARM_BLOCKS + BLOCKS):
        await between(number)
        before, began = await _redis_seconds(redis), own_seconds()
        await block(number)
        if number >= WARM_BLOCKS:
            own += own_seconds() - began
            of_redis += await _redis_seconds(redis) - before
    turns = BLOCKS * TURNS
    return Cost(own / turns * MILLISECONDS, of_redis / turns * MILLISECONDS)


async def _redis_seconds(redis: Any) -> float:
    told = await redis.info("cpu")
    return sum(float(told[name]) for name in COUNTED)


@dataclass(slots=True)
class _Chats:
    """Chats of one size, and how many turns each has."""

    rooms: Inside
    session: str
    names: list[str]
    turns: list[int]

    def at(self, block: int) -> int:
        return block % len(self.names)

    async def fold(self, block: int) -> None:
        """Leave a chat as an instance does: what is out of the context is told by a summary."""
        at = self.at(block)
        await self.rooms.fold(self.names[at], self.turns[at] - UNFOLDED)


async def _chats(rooms: Inside, size: int, kind: str) -> _Chats:
    """Make one large chat, or as many small ones as there are blocks; they are made once for each `kind`."""
    session = f"{size:032x}"  # as `Sessions.new` makes them, and always the same
    count = 1 if size == LARGE else WARM_BLOCKS + BLOCKS
    names = [f"chat{size}{kind if size == SMALL else ''}-{each}" for each in range(count)]
    chats = _Chats(rooms, session, names, [])
    for name in names:
        there = int(await rooms.redis.hlen(rooms.keys.of_conversation(name).messages)) // 2
        await rooms.grow(session, name, there, max(0, size // 2 - there), TEXT)
        chats.turns.append(max(there, size // 2))
    return chats


async def _of_ours(url: str, root: Path, size: int) -> Cost:
    """Have turns as an instance has them of the history: prompt, lease, read, begin, finish."""
    async with inside(url, root) as rooms:
        chats = await _chats(rooms, size, "history")

        async def turn(chat: str, number: int) -> None:
            await rooms.prompt(chats.session, chat, number, TEXT)
            lease = await rooms.leases.take(chat)
            branch = await rooms.history.read(
                chats.session,
                chat,
                start=f"p{number}",
                limit=CONTEXT_MESSAGES,
                max_bytes=CONTEXT_BYTES,
                texts_only=True,
                to_summary=True,
            )
            if not 2 * UNFOLDED < len(branch.messages) <= 2 * (UNFOLDED + TURNS):
                raise RuntimeError(f"The context has {len(branch.messages)} messages.")
            await rooms.finish(lease, await rooms.begin(lease, number), TEXT)
            await rooms.leases.release(lease)

        async def block(number: int) -> None:
            at = chats.at(number)
            for _ in range(TURNS):
                await turn(chats.names[at], chats.turns[at])
                chats.turns[at] += 1

        return await _cost(rooms.redis, block, chats.fold, time.process_time)


async def _of_theirs(url: str, root: Path, size: int) -> Cost:
    redis = Redis.from_url(url)
    history = History(redis)
    said = [{"role": "user", "content": TEXT}, {"role": "assistant", "content": TEXT}]

    async def renew(number: int) -> None:
        await history.write("chat", said * (size // 2))

    async def block(number: int) -> None:
        for _ in range(TURNS):
            await history.write("chat", await history.read("chat") + said)

    try:
        return await _cost(redis, block, renew, time.process_time)
    finally:
        await redis.aclose()


async def _of_instance(redis: tuple[str, Child], root: Path, size: int) -> float:
    """Tell the milliseconds of CPU that a whole instance takes for a turn over the websocket, of a one-word answer."""
    async with Model() as model, inside(redis[0], root) as rooms:
        chats = await _chats(rooms, size, "instance")
        async with serving("ours", model.url, root=root, redis=redis, **SETTINGS) as server:
            browser = Ours(next(numbers), server.port, cookie=rooms.cookie(chats.session))
            await connect(browser, server.port)

            async def block(number: int) -> None:
                browser.conversation = chats.names[chats.at(number)]
                for _ in range(TURNS):
                    answer = Answer(next(numbers), 1)
                    model.answers[answer.number] = answer
                    if (ended := await browser.ask(answer)) != "stop":
                        raise RuntimeError(ended)
                    chats.turns[chats.at(number)] += 1

            async def let_it_fold(_: int) -> None:
                while await rooms.summaries.open():  # noqa: ASYNC110 - it is in another process
                    await asyncio.sleep(FOLD_SECONDS)

            for number in range(len(chats.names)):
                await chats.fold(number)
            cost = await _cost(rooms.redis, block, let_it_fold, lambda: cpu_seconds(server.pid))
            browser.leave()
    return cost.own


if __name__ == "__main__":
    raise SystemExit(asyncio.run(measure_as_told(measure, __doc__)))
