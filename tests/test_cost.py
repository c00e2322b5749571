"""What a delta costs, counted: no machine is so slow, and no neighbour so loud, that it would count otherwise.

The budgets are what was counted and a fifth more. docs/performance.md tells where it goes.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from types import FrameType
from typing import Any

import pytest
from hypercorn.protocol.ws_stream import ASGIWebsocketState
from wsproto.connection import ConnectionState

from llmchat import peers
from llmchat.completion import _Said
from llmchat.connection import Connection
from llmchat.deflate import Deflate
from llmchat.doors import ABORT
from llmchat.settings import Settings
from llmchat.turn import Delta
from tests.fakes import Model
from tests.house import ADDRESS, READY, FakeSocket, House
from tests.instances import Store

DELTAS = 60
ROUNDS = 3
"""The least of them counts: what runs beside the answers (heartbeats, leases) is in some of them."""
PIECES = ["The ", "tide ", "turns ", "twice ", "a ", "day, ", "**more** ", "or ", "less. "]


class Calls:
    """Counts the Python functions that are called, and coroutines and generators that go on."""

    def __init__(self) -> None:
        self.count = 0

    @contextmanager
    def counted(self) -> Iterator[None]:
        def note(_: FrameType, event: str, __: object) -> None:
            self.count += event == "call"

        before = sys.getprofile()
        sys.setprofile(note)
        try:
            yield
        finally:
            sys.setprofile(before)


class Script:
    """In the place of the model: says the next delta when it is told to."""

    def __init__(self) -> None:
        self.says: asyncio.Queue[Delta] = asyncio.Queue()

    @asynccontextmanager
    async def stream(self, *_: Any, **__: Any) -> AsyncIterator[AsyncGenerator[Delta]]:
        yield self._said()

    async def _said(self) -> AsyncGenerator[Delta]:
        while True:
            delta = await self.says.get()
            yield delta
            if delta.finish_reason:
                return

    async def continues(self, _: str) -> bool:
        return False

    def learn(self, _: str) -> None:
        pass

    async def close(self) -> None:
        pass


class Wire:
    """In the place of a transport."""

    def __init__(self) -> None:
        self.frames: asyncio.Queue[bytes] = asyncio.Queue()
        self.bytes = 0

    def write(self, frame: bytes) -> None:
        self.bytes += len(frame)
        self.frames.put_nowait(frame)

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0


class Open:
    """In the place of wsproto's connection."""

    state = ConnectionState.OPEN


def written_to(wire: Wire) -> Callable[[str | bytes, int], bool]:
    """Make the product's own way to write, without a server around it."""
    stream = object.__new__(peers._Stream)
    stream.closed, stream.state = False, ASGIWebsocketState.CONNECTED
    stream.scope = {"state": {peers.TRANSPORT: wire, ABORT: None}}  # type: ignore[typeddict-item]
    stream.connection = Open()  # type: ignore[assignment]
    stream._deflate = Deflate(most=1000)
    return stream._write


@asynccontextmanager
async def answering(store: Store, model: Model) -> AsyncIterator[tuple[House, Script, Wire]]:
    """Begin an answer that is shown by one connection."""
    settings = Settings(openai_api_key="sk-of-the-tests", openai_base_url=model.url)
    async with House(store.url, settings) as house:
        script, wire, socket = Script(), Wire(), FakeSocket()
        house.turns._completions = script  # type: ignore[assignment]
        connection = Connection(
            socket,
            house.limits.of("alice", ADDRESS),
            house.chat,
            house.broadcaster,
            READY,
            house.backlog,
            direct=written_to(wire),
        )
        serving = asyncio.create_task(connection.serve())
        socket.say(type="message.send", id=secrets.token_hex(8), text="Hi")
        script.says.put_nowait(Delta("Well: "))
        for _ in range(6):  # ready, accepted, the lists, started, the first delta
            await asyncio.wait_for(wire.frames.get(), 15)
        yield house, script, wire
        script.says.put_nowait(Delta(finish_reason="stop"))
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


async def say(script: Script, wire: Wire, number: int) -> None:
    """Have a delta said, and wait until it is on the wire."""
    while not wire.frames.empty():
        wire.frames.get_nowait()
    script.says.put_nowait(Delta(PIECES[number % len(PIECES)] + PIECES[number % 7]))
    await asyncio.wait_for(wire.frames.get(), 15)


async def test_cost(store: Store, model: Model) -> None:
    async with answering(store, model) as (house, script, wire):
        counts = []
        for _ in range(ROUNDS):
            calls = Calls()
            before = await house.redis.info("commandstats")
            stats = await house.redis.info("stats")
            wire.bytes = 0
            with calls.counted():
                for number in range(DELTAS):
                    await say(script, wire, number)
            after = await house.redis.info("commandstats")
            stats2 = await house.redis.info("stats")
            diff = {n: (after[n]["calls"] - before.get(n, {"calls": 0})["calls"]) for n in after}
            print({n: c / DELTAS for n, c in diff.items() if c > 5})
            print(
                calls.count / DELTAS,
                wire.bytes / DELTAS,
                (stats2["total_net_input_bytes"] - stats["total_net_input_bytes"]) / DELTAS,
                (stats2["total_net_output_bytes"] - stats["total_net_output_bytes"]) / DELTAS,
            )
