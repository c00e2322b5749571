"""What a turn costs in a chat of ten messages and of ten thousand: in the history, in Redis, in the whole instance.

    python -m bench.turn ours|theirs [--root /another/clone] [--repeat 3]

Of the replaced stack: the chat is read and rewritten as one JSON value.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from bench.answer import Answer
from bench.answers import numbers
from bench.browser import Ours, connect
from bench.figures import MILLISECONDS
from bench.inside import Inside, inside
from bench.machine import ROOT, cpu_seconds
from bench.measured import Measured, measure_as_told
from bench.model import Model
from bench.replaced.history import History as TheirHistory
from bench.servers import redis_of, serving

SIZES = (10, 10_000)
"""Messages in the chat."""
TURNS = 200
WARM_TURNS = 20
CONTEXT_TOKENS = 256
"""So few that both chats have more: then the model is sent as many messages of either."""
CONTEXT_BYTES = CONTEXT_TOKENS * 12
"""What an attempt reads for them (llmchat.attempt)."""
CONTEXT_MESSAGES = 1000
TEXT = "A message of a chat, as long as they are on the whole: a line or two on a screen that is wide. " * 6
SETTINGS = {"CONTEXT_TOKENS": str(CONTEXT_TOKENS), "PROMPTS_PER_MINUTE": "1000000"}

Turns = Callable[[int], Awaitable[None]]
"""Has the turn of a number."""


async def measure(stack: str, *, root: Path = ROOT) -> Measured:
    """Measure in chats of both sizes."""
    figures: dict[str, float] = {}
    for size in SIZES:
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            async with redis_of(Path(folder)) as (url, _):
                turns = _history_of_ours if stack == "ours" else _history_of_theirs
                async with turns(url, root, size) as (redis, turn):
                    own, of_redis = await _cost(redis, turn)
        figures |= {f"ms at {size}": own, f"Redis ms at {size}": of_redis}
    if stack == "ours":
        for size in SIZES:
            figures[f"instance ms at {size}"] = await _of_instance(size, root)
    return Measured("turn", stack, figures)


async def _cost(redis: Any, turn: Turns) -> tuple[float, float]:
    """Tell the milliseconds of CPU that a turn takes here, and in Redis."""
    for number in range(WARM_TURNS):
        await turn(number)
    before, began = await _redis_seconds(redis), time.process_time()
    for number in range(WARM_TURNS, WARM_TURNS + TURNS):
        await turn(number)
    own = time.process_time() - began
    of_redis = await _redis_seconds(redis) - before
    return own / TURNS * MILLISECONDS, of_redis / TURNS * MILLISECONDS


async def _redis_seconds(redis: Any) -> float:
    told = await redis.info("cpu")
    return float(told["used_cpu_user"]) + float(told["used_cpu_sys"])


@asynccontextmanager
async def _history_of_ours(url: str, root: Path, size: int) -> AsyncIterator[tuple[Any, Turns]]:
    """Have turns as an instance has them of the history: prompt, lease, read, begin, finish."""
    async with inside(url, root) as rooms:
        session = rooms.sessions.new()
        chats = await _chats(rooms, session, size)

        async def turn(number: int) -> None:
            chat = chats[number % len(chats)]
            at = size // 2 + number // len(chats)
            await rooms.prompt(session, chat, at, TEXT)
            lease = await rooms.leases.take(chat)
            branch = await rooms.history.read(
                session,
                chat,
                start=f"p{at}",
                limit=CONTEXT_MESSAGES,
                max_bytes=CONTEXT_BYTES,
                texts_only=True,
                to_summary=True,
            )
            if not 1 < len(branch.messages) < min(SIZES):
                raise RuntimeError(f"The context has {len(branch.messages)} messages.")
            await rooms.finish(lease, await rooms.begin(lease, at), TEXT)
            await rooms.leases.release(lease)

        yield rooms.redis, turn


async def _chats(rooms: Inside, session: str, size: int) -> list[str]:
    """Make one large chat, or as many small ones as there will be turns: they are to stay small."""
    count = 1 if size == max(SIZES) else WARM_TURNS + TURNS
    chats = [f"chat{each}" for each in range(count)]
    for chat in chats:
        await rooms.grow(session, chat, 0, size // 2, TEXT)
    return chats


@asynccontextmanager
async def _history_of_theirs(url: str, root: Path, size: int) -> AsyncIterator[tuple[Any, Turns]]:
    from redis.asyncio import Redis

    redis = Redis.from_url(url)
    history = TheirHistory(redis)
    said = [{"role": "user", "content": TEXT}, {"role": "assistant", "content": TEXT}]
    count = 1 if size == max(SIZES) else WARM_TURNS + TURNS
    for each in range(count):
        await history.write(f"chat{each}", said * (size // 2))

    async def turn(number: int) -> None:
        chat = f"chat{number % count}"
        await history.write(chat, await history.read(chat) + said)

    try:
        yield redis, turn
    finally:
        await redis.aclose()


async def _of_instance(size: int, root: Path) -> float:
    """Tell the milliseconds of CPU that a whole instance takes for a turn over the websocket, of a one-word answer."""
    async with Model() as model, serving("ours", model.url, root=root, **SETTINGS) as server:
        async with inside(server.redis_url, root) as rooms:
            session = rooms.sessions.new()
            chats = await _chats(rooms, session, size)
            cookie = rooms.cookie(session)
        browser = Ours(next(numbers), server.port, cookie=cookie)
        await connect(browser, server.port)
        before = 0.0
        for number in range(WARM_TURNS + TURNS):
            if number == WARM_TURNS:
                before = cpu_seconds(server.pid)
            answer = Answer(next(numbers), 1)
            model.answers[answer.number] = answer
            browser.conversation = chats[number % len(chats)]
            if (ended := await browser.ask(answer)) != "stop":
                raise RuntimeError(ended)
        cost = (cpu_seconds(server.pid) - before) / TURNS * MILLISECONDS
        browser.leave()
    return cost


if __name__ == "__main__":
    raise SystemExit(asyncio.run(measure_as_told(measure, __doc__)))
