"""One conversation that a hundred browsers have open: what reaches them flat out, and how late at 20 events a second.

    python -m bench.group ours|theirs|floor [--root /another/clone] [--repeat 3]

Of llmchat the bench holds the turn itself, and places real deltas; of the replaced stack a publisher sends to the group.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from bench.answer import pieces_of
from bench.answers import numbers
from bench.browser import Ours, Theirs, connect
from bench.figures import Delays
from bench.inside import inside
from bench.machine import ROOT, Child, cores, watching
from bench.measured import Measured, measure_as_told
from bench.model import Model
from bench.servers import FLOOR, STACKS, THEIR_PYTHON, Server, serving, their_environment

SIZE = 100
UNDELIVERED = 30
"""Events on their way to all, at most, when flat out."""
WARM_SECONDS = 1.0
FLAT_OUT_SECONDS = 6.0
PACED_SECONDS = 8.0
EVENTS_PER_SECOND = 20
LAST_SECONDS = 2.0
"""After which what has not come counts as lost."""
PIECES_OF_DELTA = 2
"""What a model says within the 40 ms that are told together."""
CHAT = "bench"
EVENTS = 4000
"""Deltas that are made beforehand, and told again from the first where they are not enough."""


class _Watching:
    """Notes when a browser gets events, by their order."""

    def __init__(self) -> None:
        self.heard: list[float] = []
        self.texts: list[str] = []

    def hear(self, told: dict[str, Any], now: float) -> None:
        if told["type"] in ("completion.delta", "delta"):
            self.heard.append(now)
            self.texts.append(told["text"])


class _OurWatcher(Ours):
    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        self.watching = _Watching()

    def hear(self, told: dict[str, Any], now: float) -> None:
        self.watching.hear(told, now)
        super().hear(told, now)


class _TheirWatcher(Theirs):
    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        self.watching = _Watching()

    def hear(self, told: dict[str, Any], now: float) -> None:
        self.watching.hear(told, now)


class _Ours:
    def __init__(self, browsers: list[Any], history: Any, lease: Any, events: list[Any]) -> None:
        self.browsers = browsers
        self.sent: list[float] = []
        self._history, self._lease, self._events = history, lease, events
        self._loop = asyncio.get_running_loop()

    async def place(self) -> None:
        event = self._events[len(self.sent) % len(self._events)]
        self.sent.append(self._loop.time())
        await self._history.append(
            self._lease.conversation,
            self._lease.fence,
            event.message,
            1,
            len(self.sent),
            event.text,
            "",
            event,
        )

    def delays(self) -> list[float]:
        return [
            heard - sent
            for each in self.browsers
            for heard, sent in zip(each.watching.heard, self.sent, strict=True)
        ]


class _Theirs:
    def __init__(self, browsers: list[Any], publisher: Child) -> None:
        self.browsers = browsers
        self._publisher = publisher

    async def place(self) -> None:
        self._publisher.stdin.write(b"1\n")
        await self._publisher.stdin.drain()

    def delays(self) -> list[float]:
        return [
            heard - float(sent)
            for each in self.browsers
            for heard, sent in zip(each.watching.heard, each.watching.texts, strict=True)
        ]


@asynccontextmanager
async def _of_ours(server: Server, *, timed: bool) -> AsyncIterator[_Ours]:
    async with inside(server.redis_url, server.root) as rooms:
        session = rooms.sessions.new()
        await rooms.prompt(session, CHAT, 0, "A prompt.")
        lease = await rooms.leases.take(CHAT)  # before the instance looks for work
        if lease is None:
            raise RuntimeError("The instance was quicker to take the turn.")
        async with rooms.leases.holding(lease):
            answer = await rooms.begin(lease, 0)
            events = _deltas(answer)
            cookie = rooms.cookie(session)
            browsers = [_OurWatcher(next(numbers), server.port, cookie=cookie) for _ in range(SIZE)]
            for browser in browsers:
                await connect(browser, server.port)
                await browser.open(CHAT)
            yield _Ours(browsers, rooms.history, lease, events)
            for browser in browsers:
                browser.leave()


def _deltas(answer: Any) -> list[Any]:
    """Make the events of an answer, with their live Markdown, as an instance does."""
    from llmchat.turn import Delta

    pieces, events = pieces_of(0, EVENTS * PIECES_OF_DELTA), []
    for at in range(0, len(pieces), PIECES_OF_DELTA):
        answer.take(Delta(text="".join(pieces[at : at + PIECES_OF_DELTA])))
        events.append(answer.delta())
    return events


@asynccontextmanager
async def _of_theirs(server: Server, *, timed: bool) -> AsyncIterator[_Theirs]:
    browsers = [_TheirWatcher(next(numbers), server.port, chat=CHAT) for _ in range(SIZE)]
    for browser in browsers:
        await connect(browser, server.port)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        publisher = Child(
            [str(THEIR_PYTHON), "-m", "bench.replaced.publisher", CHAT, *(["timed"] if timed else [])],
            env=their_environment(server.redis_url, ""),
            folder=ROOT,
            cores=cores()[1],
            log=Path(folder) / "publisher.log",
        )
        async with publisher:
            yield _Theirs(browsers, publisher)
    for browser in browsers:
        browser.leave()


@asynccontextmanager
async def _of_floor(server: Server, *, timed: bool) -> AsyncIterator[_Theirs]:
    browsers = [_OurWatcher(next(numbers), server.port) for _ in range(SIZE)]
    for browser in browsers:
        await connect(browser, server.port)
    yield _Theirs(browsers, server.child)
    for browser in browsers:
        browser.leave()


GROUPS: dict[str, Callable[..., AbstractAsyncContextManager[Any]]] = {
    "ours": _of_ours,
    "theirs": _of_theirs,
    FLOOR: _of_floor,
}


async def measure(stack: str, *, root: Path = ROOT) -> Measured:
    """Measure both: flat out, and paced."""
    async with Model() as model:
        async with (
            serving(stack, model.url, root=root, raised=True) as server,
            GROUPS[stack](server, timed=True) as group,
        ):
            delays = await _paced(group)
        async with (
            serving(stack, model.url, root=root, raised=True) as server,
            GROUPS[stack](server, timed=False) as group,
            watching(server.pid, server.redis_pid) as usage,
        ):
            delivered, lost = await _flat_out(group)
    figures = {"delivered/s": delivered, "lost": lost, "p50 at 20/s": delays.p50, "p99 at 20/s": delays.p99}
    return Measured("group", stack, figures, usage)


async def _paced(group: Any) -> Delays:
    """Send events at their pace; tell the delays from sending one until a browser has it."""
    loop = asyncio.get_running_loop()
    await group.place()
    await asyncio.sleep(WARM_SECONDS)  # a publisher has to start
    due = loop.time()
    for _ in range(int(PACED_SECONDS * EVENTS_PER_SECOND)):
        due += 1 / EVENTS_PER_SECOND
        await asyncio.sleep(due - loop.time())
        await group.place()
    await asyncio.sleep(WARM_SECONDS)
    return Delays.of(group.delays())


async def _flat_out(group: Any) -> tuple[float, int]:
    """Send as many as get through, a few ahead; tell how many a second reach browsers, and how many never did."""
    loop, room = asyncio.get_running_loop(), asyncio.Event()
    placed = delivered = 0

    def counted(messages: int) -> None:
        nonlocal delivered
        delivered += messages
        if placed * SIZE - delivered < UNDELIVERED * SIZE:
            room.set()

    for browser in group.browsers:
        browser.on_counted = counted

    async def room_within(end: float) -> None:
        with suppress(TimeoutError):  # where some are lost
            async with asyncio.timeout_at(end):
                await room.wait()

    async def place_until(end: float) -> None:
        nonlocal placed
        while loop.time() < end:
            if placed * SIZE - delivered >= UNDELIVERED * SIZE:
                room.clear()
                await room_within(end)
            placed += 1
            await group.place()

    await place_until(loop.time() + WARM_SECONDS)
    before, began = delivered, loop.time()
    await place_until(began + FLAT_OUT_SECONDS)
    rate = (delivered - before) / (loop.time() - began)
    await asyncio.sleep(LAST_SECONDS)
    return rate, placed * SIZE - delivered


if __name__ == "__main__":
    raise SystemExit(asyncio.run(measure_as_told(measure, __doc__, stacks=(*STACKS, FLOOR))))
