"""The servers that carry pub/sub, and a connection to one. Knows nothing of what is subscribed to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from math import inf
from typing import Any

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.connection import Connection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.crc import key_slot

from llmchat.redis_client import as_cluster, waiting_pool


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
        self._pools: dict[str, ConnectionPool] = {}

    @property
    def sharded(self) -> bool:
        """Whether a channel belongs to one of several servers."""
        return self._cluster is not None

    async def look(self) -> None:
        """Learn which there are now. Raises what redis-py does."""
        if self._cluster is not None:
            await self._cluster.initialize()
            await self._cluster.nodes_manager.initialize()

    def all(self) -> list[str]:
        """Name those that own slots."""
        if self._cluster is None:
            return [""]
        return sorted({nodes[0].name for nodes in self._cluster.nodes_manager.slots_cache.values()})

    def of(self, channel: str) -> str:
        """Name the one that carries a channel. Raises LookupError where it is not known."""
        if self._cluster is None:
            return ""
        return str(self._cluster.nodes_manager.slots_cache[self.slot_of(channel)][0].name)

    @staticmethod
    def slot_of(channel: str) -> int:
        """Tell the slot of a channel in a Cluster."""
        return int(key_slot(channel.encode()))

    @asynccontextmanager
    async def line(self, name: str) -> AsyncIterator[Line]:
        """Connect to one for subscriptions. Raises what redis-py does."""
        pool = self._client.connection_pool if self._cluster is None else self._pool_of(name)
        connection: Any = await pool.get_connection()  # type: ignore[no-untyped-call]
        try:
            yield Line(connection, "S" if self.sharded else "")
        finally:
            try:
                await connection.disconnect(nowait=True)
            finally:
                await pool.release(connection)

    def _pool_of(self, name: str) -> ConnectionPool:
        assert self._cluster is not None  # noqa: S101 - for the types
        if name not in self._pools:
            node = self._cluster.nodes_manager.nodes_cache[name]
            options = {
                key: value for key, value in node.connection_kwargs.items() if key != "max_connections"
            }
            options |= {"socket_timeout": None, "retry": Retry(NoBackoff(), 0)}
            options |= {"host": node.host, "port": node.port}
            self._pools[name] = waiting_pool(2, connection_class=node.connection_class, **options)
        return self._pools[name]

    async def close(self) -> None:
        """Close the connections made here."""
        pools, self._pools = list(self._pools.values()), {}
        for pool in pools:
            await pool.aclose()
