"""How we connect to Redis: one server, Sentinels or a Cluster; timeouts, pools, retries, and whose fault an error is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
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
from redis.exceptions import (
    AskError,
    ClusterError,
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
    cluster = as_cluster(client)
    if cluster is not None:
        options = {
            key: value for key, value in cluster.connection_kwargs.items() if key not in NOT_OF_A_CLUSTER
        }
        tls = issubclass(cluster.connection_kwargs["connection_class"], SSLConnection)
        nodes = [(str(node.host), int(node.port)) for node in cluster.startup_nodes]
        return _cluster(nodes, connections, Retry(NoBackoff(), 0), ssl=tls, **options)
    pool = client.connection_pool
    options = {key: value for key, value in pool.connection_kwargs.items() if not key.startswith(OF_RESP3)}
    options |= {"retry": Retry(NoBackoff(), 0), "socket_timeout": None, "protocol": 2}
    if isinstance(pool, SentinelConnectionPool):
        del options["connection_pool"]
        options |= {"connection_class": pool.connection_class}
        return Redis.from_pool(_sentinel_pool(pool.service_name, pool.sentinel_manager, connections, options))
    return Redis.from_pool(waiting_pool(connections, connection_class=pool.connection_class, **options))


OF_RESP3 = ("maint_notifications", "orig_")
"""What redis-py puts into the options of connections that speak RESP3; ours speak RESP2."""
NOT_OF_A_CLUSTER = {
    "connection_class",
    "max_connections",
    "driver_info",
    "response_callbacks",
    "himport_registry",
}


def as_cluster(client: Any) -> RedisCluster | None:
    """Give the client as one of a Cluster, None where it is none. In a Cluster pub/sub is sharded."""
    return client if isinstance(client, RedisCluster) else None


def place_of(url: str) -> str:
    """Name the place of a Redis, without its login."""
    return str(_parsed(url))


async def told_by_servers(client: Redis) -> list[dict[str, Any]]:
    """Ask every server that takes writes what it tells of itself (INFO)."""
    cluster = as_cluster(client)
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
            waiting_pool(connections, connection_class=UnixDomainSocketConnection, path=url.path, **options)
        )
    ((host, port),) = url.hosts
    kind = Connection if url.tls is None else SSLConnection
    return Redis.from_pool(waiting_pool(connections, connection_class=kind, host=host, port=port, **options))


def waiting_pool(connections: int, **options: Any) -> ConnectionPool:
    """Make a pool that waits for a free connection, rather than to raise."""
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
