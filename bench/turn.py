"""What a turn costs in a chat of ten messages and of ten thousand: in the history, in Redis, in the whole instance.

    python -m bench.turn ours|theirs [--root /another/clone] [--repeat 3]

Of the replaced stack: the chat is read and rewritten as one JSON value.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from bench.answer import Answer
from bench.answers import numbers
from bench.browser import Ours, connect
from bench.figures import MILLISECONDS
from bench.inside import Inside, answer_of, inside
from bench.machine import ROOT, Child, cpu_seconds
from bench.measured import Measured, measure_as_told
from bench.model import Model
from bench.replaced.history import History
from bench.servers import redis_of, serving

SESSION = "0" * 32
"""Whose chats they are."""
SMALL, LARGE = 10, 10_000
"""Messages in the chat."""
BLOCKS = 24
TURNS = 5
"""In each block: of the small chats each has a block, so that they stay small."""
WARM_BLOCKS = 4
UNFOLDED = 2
"""The newest turns before a block, which no summary stands for."""
CONTEXT_BYTES = 8000 * 12
"""What an attempt reads at most for the tokens it may send (llmchat.attempt); of either chat it ends at the summary."""
CONTEXT_MESSAGES = 1000
TEXT = "A message of a chat, as long as they are on the whole: a line or two on a screen that is wide. " * 2
SETTINGS = {"PROMPTS_PER_MINUTE": "1000000", "ANSWERS_AT_ONCE": "100"}
COUNTED = ("used_cpu_user", "used_cpu_sys")

Block = Callable[[int], Awaitable[None]]
"""Has the turns of a block, or what goes before them and is not counted."""


@dataclass(slots=True)
class Series:
    """Blocks of turns in chats of one size, and the seconds of CPU that they took."""

    before: Block
    block: Block
    own: float = 0.0
    redis: float = 0.0

    @property
    def own_ms(self) -> float:
        """Of a turn, in the process."""
        return self.own / (BLOCKS * TURNS) * MILLISECONDS

    @property
    def redis_ms(self) -> float:
        """Of a turn, in Redis."""
        return self.redis / (BLOCKS * TURNS) * MILLISECONDS


async def measure(stack: str, *, root: Path = ROOT) -> Measured:
    """Measure in chats of both sizes."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        async with redis_of(Path(folder)) as (url, redis):
            if stack == "theirs":
                return Measured("turn", stack, _figures(await _of_theirs(url)))
            async with inside(url, root) as rooms:
                figures = _figures(await _of_ours(rooms))
                figures |= await _of_instance(rooms, (url, redis), root)
    return Measured("turn", stack, figures)


def _figures(series: dict[int, Series]) -> dict[str, float]:
    figures = {}
    for size, each in series.items():
        figures |= {f"ms at {size}": each.own_ms, f"Redis ms at {size}": each.redis_ms}
    return figures | {"large over small": series[LARGE].own_ms / series[SMALL].own_ms}


async def _run(redis: Any, series: dict[int, Series], own_seconds: Callable[[], float]) -> None:
    """Have all blocks, of both sizes in turn: what disturbs one of them disturbs both."""
    for number in range(WARM_BLOCKS + BLOCKS):
        for each in series.values():
            await each.before(number)
            of_redis, own = await _redis_seconds(redis), own_seconds()
            await each.block(number)
            if number >= WARM_BLOCKS:
                each.own += own_seconds() - own
                each.redis += await _redis_seconds(redis) - of_redis


async def _redis_seconds(redis: Any) -> float:
    told = await redis.info("cpu")
    return sum(float(told[name]) for name in COUNTED)


@dataclass(slots=True)
class _Chats:
    """Chats of one size, and how many turns each has."""

    rooms: Inside
    names: list[str]
    turns: list[int]
    answers: list[deque[str]]
    """The ids of the newest."""

    def at(self, block: int) -> int:
        return block % len(self.names)

    def note(self, at: int, answer: str) -> None:
        """Note a turn that was had."""
        self.turns[at] += 1
        self.answers[at].append(answer)

    async def fold(self, block: int) -> None:
        """Leave a chat as an instance does: what is out of the context is told by a summary."""
        at = self.at(block)
        await self.rooms.fold(self.names[at], self.answers[at][0], 2 * (self.turns[at] - UNFOLDED))


async def _chats(rooms: Inside, size: int, kind: str) -> _Chats:
    """Make one large chat, or as many small ones as there are blocks; the large one is made once for all kinds."""
    count = 1 if size == LARGE else WARM_BLOCKS + BLOCKS
    names = [f"chat{size}{kind if size == SMALL else ''}-{each}" for each in range(count)]
    chats = _Chats(rooms, names, [], [])
    for name in names:
        there = int(await rooms.redis.hlen(rooms.keys.of_conversation(name).messages)) // 2
        await rooms.grow(SESSION, name, there, max(0, size // 2 - there), TEXT)
        turns = max(there, size // 2)
        chats.turns.append(turns)
        newest = map(answer_of, range(turns - UNFOLDED - 1, turns))
        chats.answers.append(deque(newest, maxlen=UNFOLDED + 1))
    return chats


async def _of_ours(rooms: Inside) -> dict[int, Series]:
    """Have turns as an instance has them of the history: prompt, read, begin, finish."""
    series = {}
    for size in (SMALL, LARGE):
        chats = await _chats(rooms, size, "history")
        series[size] = Series(chats.fold, partial(_history_block, rooms, chats))
    await _run(rooms.redis, series, time.process_time)
    return series


async def _history_block(rooms: Inside, chats: _Chats, block: int) -> None:
    at = chats.at(block)
    chat = chats.names[at]
    lease = await rooms.leases.take(chat)
    for _ in range(TURNS):
        number = chats.turns[at]
        await rooms.prompt(SESSION, chat, number, TEXT)
        branch = await rooms.history.read(
            SESSION,
            chat,
            start=f"p{number}",
            limit=CONTEXT_MESSAGES,
            max_bytes=CONTEXT_BYTES,
            texts_only=True,
            to_summary=True,
        )
        if not 2 * UNFOLDED < len(branch.messages) <= 2 * (UNFOLDED + TURNS):
            raise RuntimeError(f"The context has {len(branch.messages)} messages.")
        await rooms.answer(lease, number, TEXT)
        chats.note(at, answer_of(number))
    await rooms.leases.release(lease)


async def _of_theirs(url: str) -> dict[int, Series]:
    redis = Redis.from_url(url)
    history = History(redis)
    said = [{"role": "user", "content": TEXT}, {"role": "assistant", "content": TEXT}]

    async def renew(size: int, _: int) -> None:
        await history.write("chat", said * (size // 2))

    async def block(_: int) -> None:
        for _ in range(TURNS):
            await history.write("chat", await history.read("chat") + said)

    series = {size: Series(partial(renew, size), block) for size in (SMALL, LARGE)}
    try:
        await _run(redis, series, time.process_time)
    finally:
        await redis.aclose()
    return series


async def _of_instance(rooms: Inside, redis: tuple[str, Child], root: Path) -> dict[str, float]:
    """Tell the milliseconds of CPU that a whole instance takes for a turn over the websocket, of a one-word answer."""
    sizes = {size: await _chats(rooms, size, "instance") for size in (SMALL, LARGE)}
    async with Model() as model, serving("ours", model.url, root=root, redis=redis, **SETTINGS) as server:
        browser = Ours(next(numbers), server.port, cookie=rooms.cookie(SESSION))
        await connect(browser, server.port)

        async def block(chats: _Chats, number: int) -> None:
            at = chats.at(number)
            browser.conversation = chats.names[at]
            for _ in range(TURNS):
                answer = Answer(next(numbers), 1)
                model.answers[answer.number] = answer
                if (ended := await browser.ask(answer)) != "stop":
                    raise RuntimeError(ended)
                chats.note(at, browser.message)

        series = {size: Series(chats.fold, partial(block, chats)) for size, chats in sizes.items()}
        await _run(rooms.redis, series, lambda: cpu_seconds(server.pid))
        browser.leave()
    return {f"instance ms at {size}": each.own_ms for size, each in series.items()}


if __name__ == "__main__":
    raise SystemExit(asyncio.run(measure_as_told(measure, __doc__)))
