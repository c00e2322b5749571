"""Where a channel layer's Redis is, as Channels' layers are told it. Knows no channel."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from redis.asyncio import Redis, RedisCluster

from llmchat.redis_client import as_cluster, connect, connect_like
from llmchat.redis_url import LOGIN, SENTINEL_LOGIN, TLS_CHOICES, TLS_FILES, RedisUrl

HARMLESS = {
    "health_check_interval",
    "max_connections",
    "retry_on_timeout",
    "socket_connect_timeout",
    "socket_keepalive",
    "socket_timeout",
}
"""Options of a host's dict that are taken and have no effect: ours are always set."""
FORMS = (
    "hosts is a URL, or a list of one: a URL, (host, port), a dict with address, or a dict with sentinels and "
    "master_name"
)


def connected(hosts: str | Iterable[Any] | None, client: Redis | None) -> tuple[Redis, Redis]:
    """Make the clients that publish and that read: without retries, for what is sent twice would arrive twice.

    Raises ValueError and TypeError for what is no host and no client.
    """
    if client is None:
        url = url_of(hosts)
        return connect(url, retries=0), connect(url, connections=2, retries=0)
    if as_cluster(client) is None and not isinstance(client, Redis | RedisCluster):
        raise TypeError("The client must be redis.asyncio's Redis or RedisCluster.")
    return connect_like(client), connect_like(client, connections=2)


def url_of(hosts: str | Iterable[Any] | None) -> RedisUrl:
    """Read the address. Raises ValueError."""
    if hosts is None:
        hosts = "redis://localhost:6379"
    given = [hosts] if isinstance(hosts, str) else list(hosts)
    if len(given) != 1:
        raise ValueError(
            "One Redis or one Cluster: for several servers name a Cluster, redis+cluster://host,host."
        )
    try:
        return _one(given[0])
    except (TypeError, KeyError, IndexError):
        raise ValueError(f"{FORMS}.") from None


def _one(host: Any) -> RedisUrl:
    if isinstance(host, RedisUrl):
        return host
    if isinstance(host, str):
        return RedisUrl.parse(host)
    if isinstance(host, dict):
        options = dict(host)
        if "sentinels" in options:
            places = tuple((str(name), int(port)) for name, port in options.pop("sentinels"))
            return _with(RedisUrl("sentinel", places, master=str(options.pop("master_name"))), options)
        address = options.pop("address", None) or (
            options.pop("host", "localhost"),
            options.pop("port", 6379),
        )
        return _with(_one(address), options)
    if not isinstance(host, tuple | list) or len(host) != 2:
        raise TypeError
    name, port = host
    return RedisUrl("server", ((str(name), int(port)),))


def _with(url: RedisUrl, options: dict[str, Any]) -> RedisUrl:
    """Add what a dict says beside the address."""
    sentinel = {
        f"sentinel_{name}": value for name, value in (options.pop("sentinel_kwargs", None) or {}).items()
    }
    tls = TLS_FILES | set(TLS_CHOICES)
    unknown = (options.keys() - LOGIN - {"db"} - HARMLESS - tls) | (sentinel.keys() - SENTINEL_LOGIN)
    if unknown:
        raise ValueError(f"Of a host's dict, {', '.join(sorted(unknown))} is not known here.")
    if url.tls is None and options.keys() & tls:
        raise ValueError("TLS is for addresses that begin with rediss://.")
    return replace(
        url,
        login={**url.login, **{name: options[name] for name in (*LOGIN, "db") if name in options}},
        tls=None
        if url.tls is None
        else {**url.tls, **{name: options[name] for name in tls & options.keys()}},
        sentinel_login={
            **url.sentinel_login,
            **{n.removeprefix("sentinel_"): v for n, v in sentinel.items()},
        },
    )
