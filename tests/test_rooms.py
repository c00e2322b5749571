"""An instance that stops tells every websocket to go elsewhere, also one that came in meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, cast

import pytest
from fakeredis import FakeAsyncRedis

from llmchat.blueprints.rooms import Rooms
from llmchat.connection import RESTARTING
from llmchat.keys import Keys
from llmchat.limits import Limits, Rates
from tests.waiting import within

NOBODY = Limits(cast(Any, FakeAsyncRedis()), Keys("rooms"), Rates()).of("alice", "10.0.0.1")


class FakeConnection:
    """Is served until it is closed."""

    def __init__(self) -> None:
        self.closed: list[int] = []
        self.ended = RESTARTING
        self._closing = asyncio.Event()

    def close(self, code: int, reason: str) -> None:
        """End it from outside."""
        self.closed.append(code)
        self._closing.set()

    async def serve(self, rooms: Rooms, came: Callable[[], None]) -> None:
        """Serve it, as the blueprint does."""
        leave = rooms.open(cast(Any, self), NOBODY)
        try:
            came()
            await self._closing.wait()
        finally:
            leave()


class FakeTurns:
    """While it stops, something happens."""

    def __init__(self) -> None:
        self.meanwhile: Callable[[], Awaitable[None]] | None = None

    async def stop(self) -> None:
        """Stop."""
        if self.meanwhile:
            await self.meanwhile()


Come = Callable[[], Awaitable[FakeConnection]]


@pytest.fixture
def turns() -> FakeTurns:
    return FakeTurns()


@pytest.fixture
def rooms(turns: FakeTurns) -> Rooms:
    nobody = cast(Any, None)
    return Rooms(*[nobody] * 7, cast(Any, turns), *[nobody] * 8)


@pytest.fixture
async def come(rooms: Rooms) -> AsyncIterator[Come]:
    """Have a websocket come in."""
    async with AsyncExitStack() as leaving:

        async def come() -> FakeConnection:
            connection, came = FakeConnection(), asyncio.Event()
            serving = asyncio.create_task(connection.serve(rooms, came.set))
            leaving.callback(serving.cancel)
            await came.wait()
            return connection

        yield come


async def test_every_websocket_is_closed_when_the_instance_stops(rooms: Rooms, come: Come) -> None:
    connections = [await come(), await come()]
    assert [each.closed for each in connections] == [[], []]
    async with within(10, "the rooms stop"):
        await rooms.stop()
    assert [each.closed for each in connections] == [[RESTARTING], [RESTARTING]]
    assert rooms.draining
    assert rooms.connections == 0
    assert (rooms.opened, rooms.closed[RESTARTING]) == (2, 2)


async def test_websocket_that_comes_in_while_the_instance_stops_is_closed_too(
    rooms: Rooms, turns: FakeTurns, come: Come
) -> None:
    late: list[FakeConnection] = []

    async def meanwhile() -> None:
        late.append(await come())

    turns.meanwhile = meanwhile
    async with within(10, "the rooms stop"):
        await rooms.stop()
    late.append(await come())
    assert [each.closed for each in late] == [[RESTARTING], [RESTARTING]]
