"""One store among several: at a port that it is told, maybe with a password. Knows nothing of the others."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from tests.instances import Store
from tests.instances.child import free_port
from tests.waiting import eventually

READY_SECONDS = 40.0
ASK_SECONDS = 1.0
"""For one question of ours: a frozen server must not keep the others waiting."""


async def until(attempt: Callable[[], Awaitable[bool]], what: str) -> None:
    """Wait for what servers agree on; one that does not answer means: not yet."""

    async def careful() -> bool:
        try:
            return await attempt()
        except RedisError:
            return False

    await eventually(careful, seconds=READY_SECONDS, what=what)


def free_ports(count: int) -> list[int]:
    """Return as many free ports as asked for, no two the same."""
    ports: dict[int, None] = {}
    while len(ports) < count:
        ports[free_port()] = None
    return list(ports)


async def ask(port: int, *command: str | int, password: str = "") -> Any:
    """Send one command on a connection of its own, once. Raises RedisError, also where nobody answers in time."""
    async with Redis(
        port=port,
        password=password or None,
        socket_timeout=ASK_SECONDS,
        socket_connect_timeout=ASK_SECONDS,
        retry=Retry(NoBackoff(), 0),
        decode_responses=True,
    ) as redis:
        return await redis.execute_command(*command)  # type: ignore[no-untyped-call]


class Node(Store):
    """A store that replicates without delay; its folder is made, its data outlives its process."""

    def __init__(self, folder: Path, port: int, password: str = "", **options: str) -> None:
        folder.mkdir()
        if password:
            options = {"requirepass": password, "masterauth": password, **options}
        super().__init__(folder, port=str(port), repl_diskless_sync_delay="0", **options)
        self.port = port
        self.url = f"redis://{f':{password}@' if password else ''}127.0.0.1:{port}/0"
        self._password = password

    async def ask(self, *command: str | int) -> Any:
        """Send one command on a connection of its own, once. Raises RedisError."""
        return await ask(self.port, *command, password=self._password)
