"""The servers that carry pub/sub, and a connection to one. Knows nothing of what is subscribed to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from math import inf
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.connection import Connection

from llmchat.redis_client import as_cluster


class Line:
    """One connection for subscriptions, without redis-py's PubSub, which reconnects by itself: also when a write fails,
    and then beside the reader. This one ends, and whoever uses it is told of every gap.
    """

    def __init__(self, connection: Connection, prefix: str) -> None:
        self._connection = connection
        self._prefix = prefix  # of the commands

    async def subscribe(self, channels: Sequence[str]) -> None:
        """Ask for subscriptions; `read` tells when each is there."""
        # In a Cluster one by one: it takes no two of different slots in one command.
        for names in [[channel] for channel in channels] if self._prefix else [channels]:
            await self._connection.send_command(f"{self._prefix}SUBSCRIBE", *names)

    async def unsubscribe(self, channel: str) -> None:
        """Ask for the end of a subscription."""
        await self._connection.send_command(f"{self._prefix}UNSUBSCRIBE", channel)

    async def read(self) -> tuple[str, str, bytes]:
        """Wait for what comes next: its kind (as of a plain server), the channel, and what was published.

        Raises what redis-py does, MovedError where a channel's slot is another server's; that alone is not the end.
        """
        kind, channel, envelope = await self._connection.read_response(timeout=inf)
        return kind.decode().removeprefix(self._prefix.lower()), channel.decode(), envelope


class Shards:
    """The servers that carry pub/sub: the one there is, or each primary of a Cluster, by name."""

    def __init__(self, client: Redis) -> None:
        self._cluster = as_cluster(client)
        self._client = client

    @property
    def sharded(self) -> bool:
        """Whether a channel belongs to one of several servers."""
        return self._cluster is not None

    async def look(self) -> None:
        """Learn which there are now. Raises what redis-py does."""
        if self._cluster is not None:
            await self._cluster.look()

    def all(self) -> list[str]:
        """Name those that carry any channel."""
        return [""] if self._cluster is None else self._cluster.owners()

    def of(self, channel: str) -> str:
        """Name the one that carries a channel. Raises RedisError where nobody is known to."""
        return "" if self._cluster is None else self._cluster.owner(channel)

    @asynccontextmanager
    async def line(self, name: str) -> AsyncIterator[Line]:
        """Connect to one for subscriptions. Raises what redis-py does."""
        client = self._client if self._cluster is None else self._cluster.at(name)
        pool: Any = client.connection_pool
        connection: Any = await pool.get_connection()
        try:
            yield Line(connection, "S" if self.sharded else "")
        finally:
            try:
                await connection.disconnect(nowait=True)
            finally:
                await pool.release(connection)
