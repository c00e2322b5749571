"""How many connections a second are served: handshake, and the snapshot of a short chat; then they close.

    python -m bench.connections ours|theirs [--root /another/clone] [--repeat 3]

Of the replaced stack the handshake alone, which joins the chat's group.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from bench.answers import numbers
from bench.browser import Ours, Theirs, connect
from bench.inside import inside
from bench.machine import ROOT, watching
from bench.measured import Measured, measure_as_told
from bench.model import Model
from bench.servers import Server, serving

CONNECTIONS = 2000
AT_ONCE = 50
SESSIONS = 100
"""That they belong to, each with one chat: a session may connect 120 times a minute."""
WARM = 100
"""Connections before the clock starts."""
TURNS = 2
"""Of each chat: four messages."""
TEXT = (
    "A message of a short chat, as long as they are on the whole: two lines or three on a wide screen. " * 2
)


async def measure(stack: str, *, root: Path = ROOT) -> Measured:
    """Connect so many times, so many at a time."""
    async with Model() as model, serving(stack, model.url, root=root) as server:
        visitors = await _visitors(server) if stack == "ours" else []

        async def visit(each: int) -> None:
            if not visitors:
                browser: Ours | Theirs = Theirs(next(numbers), server.port)
                await connect(browser, server.port)
            else:
                cookie, chat = visitors[each % SESSIONS]
                browser = Ours(next(numbers), server.port, cookie=cookie)
                await connect(browser, server.port)
                snapshot = await browser.open(chat)
                if len(snapshot["messages"]) != 2 * TURNS:
                    raise RuntimeError(f"A snapshot has {len(snapshot['messages'])} messages.")
            browser.leave()

        await _all(visit, WARM)
        began = time.monotonic()
        async with watching(server.pid, server.redis_pid) as usage:
            await _all(visit, CONNECTIONS)
        return Measured(
            "connections", stack, {"connections/s": CONNECTIONS / (time.monotonic() - began)}, usage
        )


async def _all(visit: object, count: int) -> None:
    left = iter(range(count))

    async def some() -> None:
        for each in left:
            await visit(each)  # type: ignore[operator]

    await asyncio.gather(*(some() for _ in range(AT_ONCE)))


async def _visitors(server: Server) -> list[tuple[str, str]]:
    """Make sessions with a chat each; give their cookies and their chats."""
    visitors = []
    async with inside(server.redis_url, server.root) as rooms:
        for number in range(SESSIONS):
            session, chat = rooms.sessions.new(), f"chat{number}"
            await rooms.grow(session, chat, 0, TURNS, TEXT)
            visitors.append((rooms.cookie(session), chat))
    return visitors


if __name__ == "__main__":
    raise SystemExit(asyncio.run(measure_as_told(measure, __doc__)))
