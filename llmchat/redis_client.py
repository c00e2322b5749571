"""How we connect to Redis: one server, Sentinels or a Cluster; timeouts, pools, retries, and whose fault an error is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from hashlib import sha1
from importlib.resources import files
from math import inf
from pathlib import Path
from typing import Any, cast

from redis.asyncio import (
    BlockingConnectionPool,
    ConnectionPool,
    Redis,
    RedisCluster,
    Sentinel,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.asyncio.cluster import ClusterNode, ClusterPipeline
from redis.asyncio.connection import Connection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.backoff import ConstantBackoff, NoBackoff
from redis.crc import key_slot
from redis.exceptions import (
    AskError,
    ClusterError,
    NoScriptError,
    RedisClusterException,
    RedisError,
    ResponseError,
    TryAgainError,
)

from llmchat.errors import SettingsError, Unavailable
from llmchat.redis_url import RedisUrl

CONNECT_SECONDS = 2.0
"""For a connection, and for a place in the pool."""
REQUEST_SECONDS = 1.7
"""For one use of Redis, retries included: a client is told within 2 s that it is away."""
NODE_SECONDS = 0.8
"""For one answer of a Cluster's node or a Sentinel: then another is asked."""
REFUSALS = (
    "OOM",
    "command not allowed when used memory",
    "READONLY",
    "You can't write",
    "MISCONF",
    "NOREPLICAS",
    "LOADING",
    "MASTERDOWN",
    "max number of clients",
)
"""How the answers begin that are the store's state; any other error answer is a bug of ours."""
STATES = (ClusterError, AskError, TryAgainError)
"""Likewise of a Cluster."""


def connect(url: str | RedisUrl, *, connections: int = 50, retries: int = 1) -> Redis:
    """Make the client for commands. With retries, every write must bear being repeated.

    Of a Cluster, the client offers the same commands. Raises SettingsError for a URL of another form.
    """
    retry = Retry(ConstantBackoff(0.05), retries) if retries else Retry(NoBackoff(), 0)
    return _client(_parsed(url), connections, retry)


def connect_like(client: Redis, *, connections: int = 50) -> Redis:
    """Make a client for what another one is connected to, without retries, and with connections of its own."""
    cluster = _as_cluster(client)
    if cluster is not None:
        options = {
            key: value for key, value in cluster.connection_kwargs.items() if key not in NOT_OF_A_CLUSTER
        }
        tls = issubclass(cluster.connection_kwargs["connection_class"], SSLConnection)
        nodes = [(str(node.host), int(node.port)) for node in cluster.startup_nodes]
        return _cluster(nodes, connections, Retry(NoBackoff(), 0), ssl=tls, **options)
    pool = client.connection_pool
    options = pool.connection_kwargs | {"retry": Retry(NoBackoff(), 0), "socket_timeout": None, "protocol": 2}
    if isinstance(pool, SentinelConnectionPool):
        del options["connection_pool"]
        options |= {"connection_class": pool.connection_class}
        return Redis.from_pool(_sentinel_pool(pool.service_name, pool.sentinel_manager, connections, options))
    return Redis.from_pool(_pool(connections, connection_class=pool.connection_class, **options))


NOT_OF_A_CLUSTER = {
    "connection_class",
    "max_connections",
    "driver_info",
    "response_callbacks",
    "himport_registry",
}


def is_cluster(client: Redis) -> bool:
    """Tell whether a client speaks to a Cluster: there, pub/sub is sharded."""
    return _as_cluster(client) is not None


def _as_cluster(client: Any) -> RedisCluster | None:
    return client if isinstance(client, RedisCluster) else None


def place_of(url: str) -> str:
    """Name the place of a Redis, without its login."""
    return str(_parsed(url))


async def told_by_servers(client: Redis) -> list[dict[str, Any]]:
    """Ask every server that takes writes what it tells of itself (INFO)."""
    cluster = _as_cluster(client)
    if cluster is not None:
        told: dict[str, Any] = await cluster.info(target_nodes=RedisCluster.PRIMARIES)
        return [told] if "redis_version" in told else list(told.values())
    return [await client.info()]


def _parsed(url: str | RedisUrl) -> RedisUrl:
    if isinstance(url, RedisUrl):
        return url
    try:
        return RedisUrl.parse(url)
    except ValueError as error:
        raise SettingsError(f"REDIS_URL: {error}") from None


def _client(url: RedisUrl, connections: int, retry: Retry) -> Redis:
    for name in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile"):
        path = (url.tls or {}).get(name)
        if path is not None and not Path(path).is_file():
            raise SettingsError(f"REDIS_URL: {name} names {path}, which is no file that can be read")
    options = {**url.login, **(url.tls or {})}
    if url.kind == "cluster":
        return _cluster(list(url.hosts), connections, retry, ssl=url.tls is not None, **options)
    options |= {
        "retry": retry,
        "socket_timeout": None,
        "socket_connect_timeout": CONNECT_SECONDS,
        "protocol": 2,
    }
    if url.kind == "sentinel":
        tls = {} if url.tls is None else {"ssl": True, **url.tls}
        once = {
            "socket_timeout": NODE_SECONDS,
            "socket_connect_timeout": NODE_SECONDS,
            "retry": Retry(NoBackoff(), 0),
        }
        sentinels: Any = Sentinel(  # type: ignore[no-untyped-call]
            list(url.hosts), sentinel_kwargs={**once, **url.sentinel_login, **tls}
        )
        options |= {"ssl": url.tls is not None}
        return _ByItsSentinels.from_pool(_sentinel_pool(url.service, sentinels, connections, options))
    if url.kind == "socket":
        return Redis.from_pool(
            _pool(connections, connection_class=UnixDomainSocketConnection, path=url.path, **options)
        )
    ((host, port),) = url.hosts
    kind = Connection if url.tls is None else SSLConnection
    return Redis.from_pool(_pool(connections, connection_class=kind, host=host, port=port, **options))


def _pool(connections: int, **options: Any) -> ConnectionPool:
    # Without a socket_timeout: it makes redis-py use wait_for, which swallows a cancel on Python 3.11.
    # `available` limits.
    return BlockingConnectionPool(max_connections=connections, timeout=CONNECT_SECONDS, **options)


class _WaitingSentinelPool(SentinelConnectionPool, BlockingConnectionPool):
    """A pool of connections to the master that waits for a free one, rather than to raise."""


class _ByItsSentinels(Redis):
    """A client that closes its Sentinels' connections, too."""

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        await super().aclose(close_connection_pool)
        await cast(_WaitingSentinelPool, self.connection_pool).sentinel_manager.aclose()


def _sentinel_pool(
    service: str, sentinels: Sentinel, connections: int, options: dict[str, Any]
) -> ConnectionPool:
    return _WaitingSentinelPool(  # type: ignore[no-untyped-call]
        service,
        sentinels,
        max_connections=connections,
        timeout=CONNECT_SECONDS,
        check_connection=True,
        **options,
    )


class _WaitingCluster(RedisCluster):
    """A Cluster's client that waits for a free connection, rather than to raise."""

    def __init__(self, *, places: int, **options: Any) -> None:
        super().__init__(max_connections=2 * places, **options)
        self.places = asyncio.Semaphore(places)
        self.pipelines = asyncio.Semaphore(places)  # of their own: a redirected one executes commands

    async def execute_command(self, *args: Any, **kwargs: Any) -> Any:
        async with self.places:
            return await super().execute_command(*args, **kwargs)

    def pipeline(self, transaction: Any = None, shard_hint: Any = None) -> ClusterPipeline:
        return _WaitingPipeline(self, transaction)  # type: ignore[abstract]


class _WaitingPipeline(ClusterPipeline):
    async def execute(self, raise_on_error: bool = True, allow_redirections: bool = True) -> list[Any]:
        async with cast(_WaitingCluster, self.cluster_client).pipelines:
            return await super().execute(raise_on_error, allow_redirections)


def _cluster(nodes: list[tuple[str, int]], connections: int, retry: Retry, **options: Any) -> Redis:
    limits = {"socket_timeout": NODE_SECONDS, "socket_connect_timeout": NODE_SECONDS, "protocol": 2}
    cluster = _WaitingCluster(
        places=connections,
        startup_nodes=[ClusterNode(host, port) for host, port in nodes],
        retry=retry,
        **(options | limits),
    )
    return cast(Redis, cluster)


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
        self._cluster = _as_cluster(client)
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
            self._pools[name] = _pool(2, connection_class=node.connection_class, **options)
        return self._pools[name]

    async def close(self) -> None:
        """Close the connections made here."""
        pools, self._pools = list(self._pools.values()), {}
        for pool in pools:
            await pool.aclose()


@asynccontextmanager
async def available(seconds: float = REQUEST_SECONDS) -> AsyncIterator[None]:
    """Turn every way in which Redis fails us, and `seconds` without an answer, into Unavailable."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except (RedisError, RedisClusterException, OSError, TimeoutError) as error:
        if isinstance(error, ResponseError) and not (
            isinstance(error, STATES) or str(error).startswith(REFUSALS)
        ):
            raise
        raise Unavailable from error


def said_by(error: BaseException) -> str:
    """Give what an error says, without the inside of a client that redis-py puts into some."""
    return str(error).partition(" : <")[0][:200].rstrip(".")


class Script:
    """A Lua script of ours: place.lua and the file of its name."""

    def __init__(self, redis: Redis, name: str) -> None:
        folder = files("llmchat").joinpath("lua")
        publish = f"local PUBLISH = '{'SPUBLISH' if is_cluster(redis) else 'PUBLISH'}'"
        self._redis: Any = redis
        self._source = "\n".join(
            [publish, *(folder.joinpath(f"{part}.lua").read_text() for part in ("place", name))]
        )
        self._sha = sha1(self._source.encode(), usedforsecurity=False).hexdigest()

    async def __call__(self, keys: Sequence[str], *args: str | bytes | int | float) -> Any:
        """Run it. Raises Unavailable."""
        async with available():
            try:
                return await self._redis.evalsha(self._sha, len(keys), *keys, *args)
            except NoScriptError:
                # Not loaded first and called then, as redis-py does: the store may start anew between the two.
                return await self._redis.eval(self._source, len(keys), *keys, *args)


class Several:
    """Commands on keys of one slot, in one step. A pipeline's transaction does not do on a Cluster: there, redis-py
    runs each of its commands in a thread, on an event loop of its own.
    """

    def __init__(self, redis: Redis) -> None:
        self._script = Script(redis, "several")

    async def __call__(self, keys: Sequence[str], *commands: Sequence[str | int]) -> list[Any]:
        """Run them; the answers are raw. Raises Unavailable."""
        words: list[str | int] = []
        for command in commands:
            words += [len(command), *command]
        found: list[Any] = await self._script(keys, *words)
        return found
