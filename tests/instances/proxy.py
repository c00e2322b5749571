"""A way to the store that loses replies, holds back what is published, delays, or breaks."""

from __future__ import annotations

import asyncio
from typing import Self

from tests.instances.store import Store

READ_BYTES = 65536


class Proxy:
    """Stands before a store. `async with Proxy(store) as proxy:` opens it; `proxy.url` is its address.

    A connection breaks where the reply to a command with the bytes `lose` in it should come; None loses nothing.
    While `flowing` is cleared, nothing is read from the store on connections that have subscribed. `delay_seconds` is
    how long each piece of a reply takes.
    """

    def __init__(self, store: Store) -> None:
        self.lose: bytes | None = None
        self.lost = 0
        self.flowing = asyncio.Event()
        self.flowing.set()
        self.delay_seconds = 0.0
        self.url = ""
        self._port = store.port
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    def cut(self) -> int:
        """Break all connections there are; return how many."""
        for writer in self._open:
            writer.transport.abort()
        return len(self._open)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/0"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            store_reader, store_writer = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:  # the store is away
            writer.transport.abort()
            return
        self._open.add(writer)
        losing, subscribed = asyncio.Event(), asyncio.Event()
        passing = [
            asyncio.create_task(self._pass_commands(reader, store_writer, losing, subscribed)),
            asyncio.create_task(self._pass_replies(store_reader, writer, losing, subscribed)),
        ]
        await asyncio.wait(passing, return_when=asyncio.FIRST_COMPLETED)
        for task in passing:
            task.cancel()
        await asyncio.gather(*passing, return_exceptions=True)
        self._open.discard(writer)
        for each in (writer, store_writer):
            each.transport.abort()

    async def _pass_commands(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        losing: asyncio.Event,
        subscribed: asyncio.Event,
    ) -> None:
        while command := await reader.read(READ_BYTES):
            if self.lose is not None and self.lose in command:
                losing.set()
            if b"SUBSCRIBE" in command:
                subscribed.set()
            writer.write(command)

    async def _pass_replies(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        losing: asyncio.Event,
        subscribed: asyncio.Event,
    ) -> None:
        while reply := await reader.read(READ_BYTES):
            if losing.is_set():
                self.lost += 1
                return
            if subscribed.is_set():
                await self.flowing.wait()
            if self.delay_seconds:
                await asyncio.sleep(self.delay_seconds)
            writer.write(reply)
