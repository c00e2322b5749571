"""How we connect to Redis: one server, Sentinels or a Cluster; timeouts, pools, retries, and whose fault an error is."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from types import TracebackType
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
from redis.asyncio.connection import Connection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.backoff import ConstantBackoff, NoBackoff
from redis.exceptions import (
    AskError,
    ClusterError,
    RedisError,
    ResponseError,
    TryAgainError,
)

from llmchat.cluster import ANSWER_SECONDS, Cluster
from llmchat.errors import Unavailable
from llmchat.pipelined import Pipelining, Together
from llmchat.redis_url import RedisUrl

CONNECT_SECONDS = 2.0
"""For a connection, and for a place in the pool."""
REQUEST_SECONDS = 1.7
"""For one use of Redis, retries included: a client is told within 2 s that it is away."""
SENTINEL_SECONDS = 0.7
"""For one answer of a Sentinel: then another is asked."""
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
OF_A_PIPELINE = re.compile(r"^Command # .* caused error: \W*", re.DOTALL)
"""What redis-py writes before the answer to one command of a pipeline."""
STATES = (ClusterError, AskError, TryAgainError)
"""Likewise of a Cluster."""
OF_A_LOGIN = ("username", "password", "credential_provider")
"""Options of a Cluster's client that say who logs in; and all that begin with ssl_."""
OF_RESP3 = ("maint_notifications", "orig_")
"""What redis-py puts into the options of connections that speak RESP3; ours speak RESP2."""


def connect(url: str | RedisUrl, *, connections: int = 50, retries: int = 1) -> Redis:
    """Make the client for commands. With retries, every write must bear being repeated.

    Of a Cluster, the client offers the same commands. Raises ValueError for a URL of another form.
    """
    return _client(url if isinstance(url, RedisUrl) else RedisUrl.parse(url), connections, retries)


def connect_like(client: Redis | RedisCluster, *, connections: int = 50) -> Redis:
    """Make a client for what another one is connected to, without retries, and with connections of its own."""
    given: Any = client
    if isinstance(given, Cluster):
        return cast(Redis, Cluster(given.hosts, given.node, retries=0))
    if isinstance(given, RedisCluster):
        hosts = [(str(node.host), int(node.port)) for node in given.startup_nodes]
        options = {
            name: given.connection_kwargs[name] for name in OF_A_LOGIN if name in given.connection_kwargs
        }
        options |= {name: value for name, value in given.connection_kwargs.items() if name.startswith("ssl_")}
        return _cluster(hosts, given.connection_kwargs["connection_class"], connections, retries=0, **options)
    pool = given.connection_pool
    options = {key: value for key, value in pool.connection_kwargs.items() if not key.startswith(OF_RESP3)}
    options |= {"retry": _retry(0), "socket_timeout": None, "protocol": 2}
    if isinstance(pool, SentinelConnectionPool):
        del options["connection_pool"]
        options |= {"connection_class": pool.connection_class}
        return Redis.from_pool(_sentinel_pool(pool.service_name, pool.sentinel_manager, connections, options))
    return Redis.from_pool(_pool(connections, connection_class=pool.connection_class, **options))


def together(client: Redis) -> Any:
    """Collect small commands, to be carried out at once, with those that others give meanwhile."""
    return Together(client) if isinstance(client, Pipelining) else client.pipeline(transaction=False)


def as_cluster(client: Any) -> Cluster | None:
    """Give the client as one of a Cluster, None where it is none. In a Cluster pub/sub is sharded."""
    return client if isinstance(client, Cluster) else None


def place_of(url: str) -> str:
    """Name the place of a Redis, without its login."""
    return str(RedisUrl.parse(url))


async def strange_master(client: Redis) -> str | None:
    """Name the master that is asked for, where Sentinels answer and none of them knows it by that name."""
    pool: Any = client.connection_pool if as_cluster(client) is None else None
    if not isinstance(pool, SentinelConnectionPool):
        return None
    asked = (sentinel.sentinel_masters() for sentinel in pool.sentinel_manager.sentinels)
    told = [each for each in await asyncio.gather(*asked, return_exceptions=True) if isinstance(each, dict)]
    name = str(pool.service_name)
    return name if told and not any(name in masters for masters in told) else None


async def servers(client: Redis) -> list[Redis]:
    """Give a client for each server that takes writes: of a Cluster, those that have slots now."""
    cluster = as_cluster(client)
    if cluster is None:
        return [client]
    await cluster.look()
    return [cluster.at(owner) for owner in cluster.owners()]


async def told_by_servers(client: Redis) -> list[dict[str, Any]]:
    """Ask every server that takes writes what it tells of itself (INFO)."""
    cluster = as_cluster(client)
    return [await client.info()] if cluster is None else await cluster.told()


def _client(url: RedisUrl, connections: int, retries: int) -> Redis:
    for name in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile"):
        path = (url.tls or {}).get(name)
        if path is not None and not Path(path).is_file():
            raise ValueError(f"{name} names {path}, which is no file that can be read")
    options = {**url.login, **(url.tls or {})}
    kind: type[Connection] = Connection if url.tls is None else SSLConnection
    if url.kind == "cluster":
        return _cluster(list(url.hosts), kind, connections, retries, **options)
    options |= {
        "retry": _retry(retries),
        "socket_timeout": None,
        "socket_connect_timeout": CONNECT_SECONDS,
        "protocol": 2,
    }
    if url.kind == "sentinel":
        sentinels = _sentinels(url)
        options |= {"ssl": url.tls is not None}
        return _ByItsSentinels.from_pool(_sentinel_pool(url.master, sentinels, connections, options))
    if url.kind == "socket":
        return Pipelining.from_pool(
            _pool(connections, connection_class=UnixDomainSocketConnection, path=url.path, **options)
        )
    ((host, port),) = url.hosts
    return Pipelining.from_pool(_pool(connections, connection_class=kind, host=host, port=port, **options))


def _retry(times: int) -> Retry:
    return Retry(ConstantBackoff(0.05), times) if times else Retry(NoBackoff(), 0)


def _pool(connections: int, **options: Any) -> ConnectionPool:
    # Without a socket_timeout: it makes redis-py use wait_for, which swallows a cancel on Python 3.11.
    # `available` limits.
    return BlockingConnectionPool(max_connections=connections, timeout=CONNECT_SECONDS, **options)


def _cluster(
    hosts: list[tuple[str, int]], kind: type[Connection], connections: int, retries: int, **options: Any
) -> Redis:
    """Make the client of a Cluster, which has the commands of the others as far as they name a key."""
    options |= {
        "socket_timeout": None,
        "socket_connect_timeout": ANSWER_SECONDS,
        "protocol": 2,
        "retry": _retry(0),
    }

    def node(host: str, port: int) -> Redis:
        client = Pipelining.from_pool(
            _pool(connections, connection_class=kind, host=host, port=port, **options)
        )
        cast(Pipelining, client).seconds = ANSWER_SECONDS  # then the command is tried elsewhere
        return client

    return cast(Redis, Cluster(hosts, node, retries=retries))


def _sentinels(url: RedisUrl) -> Sentinel:
    options = {
        "socket_timeout": SENTINEL_SECONDS,
        "socket_connect_timeout": SENTINEL_SECONDS,
        "retry": _retry(0),
    }
    options |= {**url.sentinel_login, **({} if url.tls is None else {"ssl": True, **url.tls})}
    sentinels: Any = Sentinel(list(url.hosts), sentinel_kwargs=options)  # type: ignore[no-untyped-call]
    # redis-py asks one after the other, and has no deadline of its own for each.
    for client in sentinels.sentinels:
        client.connection_pool.connection_class = _Asking if url.tls is None else _AskingByTls
    return cast(Sentinel, sentinels)


class _Asking(Connection):
    """A connection with a deadline for answers and none for writing, which `available` limits: see `_pool`."""

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        seconds, self.socket_timeout = self.socket_timeout, None
        try:
            await super().send_packed_command(command, check_health)
        finally:
            self.socket_timeout = seconds


class _AskingByTls(_Asking, SSLConnection):
    """The same over TLS."""


class _WaitingSentinelPool(SentinelConnectionPool, BlockingConnectionPool):
    """A pool of connections to the master that waits for a free one, rather than to raise."""


class _ByItsSentinels(Pipelining):
    """A client that closes its Sentinels' connections, too."""

    def _has_moved(self, line: Any) -> bool:
        pool: Any = self.connection_pool
        return pool.master_address not in (None, (line.host, line.port))

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


class available:  # noqa: N801 - it is used as a function would be
    """Turn every way in which Redis fails us, and `seconds` without an answer, into Unavailable."""

    def __init__(self, seconds: float = REQUEST_SECONDS) -> None:
        self._timeout = asyncio.timeout(seconds)

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._timeout.__aexit__(kind, error, trace)
        except TimeoutError as late:
            raise Unavailable from late
        if isinstance(error, RedisError | OSError | TimeoutError) and not _is_bug(error):
            raise Unavailable from error


def _is_bug(error: BaseException) -> bool:
    """Whether an answer tells of a mistake of ours, and not of the store's state."""
    return isinstance(error, ResponseError) and not (
        isinstance(error, STATES) or OF_A_PIPELINE.sub("", str(error)).startswith(REFUSALS)
    )


def said_by(error: BaseException) -> str:
    """Give what an error says, without the inside of a client that redis-py puts into some."""
    return str(error).partition(" : <")[0][:200].rstrip(".")
