"""What the blueprints need of the app, and the register of its open websockets."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from quart import current_app

from llmchat.broadcaster import Broadcaster
from llmchat.chat import Chat
from llmchat.connection import RESTARTING, Connection
from llmchat.events import SessionReady
from llmchat.seed import SeedConnection
from llmchat.session import Sessions
from llmchat.turns import Turns

EXTENSION = "llmchat"
HANDLERS_SECONDS = 1.0


@dataclass
class Rooms:
    """One for each app, kept in `app.extensions`."""

    chat: Chat
    broadcaster: Broadcaster
    sessions: Sessions
    turns: Turns
    ready: SessionReady
    draining: bool = False
    _connections: set[Connection | SeedConnection] = field(default_factory=set)
    _empty: asyncio.Event = field(default_factory=asyncio.Event)

    @contextmanager
    def open(self, connection: Connection | SeedConnection) -> Iterator[None]:
        """Keep a connection in the register while it is served."""
        self._connections.add(connection)
        self._empty.clear()
        if self.draining:  # accepted while the others were being closed
            connection.close(RESTARTING, "This instance restarts.")
        try:
            yield
        finally:
            self._connections.discard(connection)
            if not self._connections:
                self._empty.set()

    async def stop(self) -> None:
        """Take no more work, tell every client to reconnect elsewhere, and give the turns away.

        Waits HANDLERS_SECONDS at most for the websockets to end.
        """
        self.draining = True
        for connection in list(self._connections):
            connection.close(RESTARTING, "This instance restarts.")
        await self.turns.stop()
        if self._connections:
            with suppress(TimeoutError):
                async with asyncio.timeout(HANDLERS_SECONDS):
                    await self._empty.wait()


def rooms() -> Rooms:
    """Find the running app's rooms."""
    found: Rooms = current_app.extensions[EXTENSION]
    return found
