"""How we connect to Redis: timeouts, pools, retries, and whose fault an error is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from hashlib import sha1
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff, NoBackoff
from redis.exceptions import NoScriptError, RedisError, ResponseError

from llmchat.errors import SettingsError, Unavailable

CONNECT_SECONDS = 2.0
"""For a connection, and for a place in the pool."""
REQUEST_SECONDS = 2.0
"""For one use of Redis, retries included."""
REFUSALS = (
    "OOM",
    "command not allowed when used memory",
    "READONLY",
    "You can't write",
    "MISCONF",
    "NOREPLICAS",
    "LOADING",
    "MASTERDOWN",
    "CLUSTERDOWN",
    "TRYAGAIN",
    "max number of clients",
)
"""How the answers begin that are the store's state; any other error answer is a bug of ours."""


def connect(url: str, *, connections: int = 50, retries: int = 1) -> Redis:
    """Make the client for commands. With retries, every write must bear being repeated.

    Raises SettingsError for a URL of another form.
    """
    return _client(url, connections, Retry(ConstantBackoff(0.05), retries))


def connect_subscriber(url: str) -> Redis:
    """Make the client for one subscriber: it never reconnects by itself, so that no gap is silent."""
    return _client(url, 2, Retry(NoBackoff(), 0))


def place_of(url: str) -> str:
    """Name the server of a URL, without its login."""
    parts = urlsplit(url)
    if parts.hostname is None:
        return parts.path
    return f"{f'[{parts.hostname}]' if ':' in parts.hostname else parts.hostname}:{parts.port or 6379}"


def _client(url: str, connections: int, retry: Retry) -> Redis:
    try:
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=connections,
            timeout=CONNECT_SECONDS,
            # None, for it makes redis-py use wait_for, which swallows a cancel on Python 3.11: `available` limits.
            socket_timeout=None,
            socket_connect_timeout=CONNECT_SECONDS,
            retry=retry,
        )
        pool.connection_class(**pool.connection_kwargs)  # which knows what it can be told
    except (ValueError, TypeError, RedisError):
        raise SettingsError(
            "REDIS_URL: expected redis://[[user]:password@]host[:port][/db], rediss://… or unix:///path"
        ) from None
    return Redis.from_pool(pool)


@asynccontextmanager
async def available(seconds: float = REQUEST_SECONDS) -> AsyncIterator[None]:
    """Turn every way in which Redis fails us, and `seconds` without an answer, into Unavailable."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except (RedisError, OSError, TimeoutError) as error:
        if isinstance(error, ResponseError) and not str(error).startswith(REFUSALS):
            raise
        raise Unavailable from error


class Script:
    """A Lua script of ours: place.lua and the file of its name."""

    def __init__(self, redis: Redis, name: str) -> None:
        folder = files("llmchat").joinpath("lua")
        self._redis: Any = redis
        self._source = "\n".join(folder.joinpath(f"{part}.lua").read_text() for part in ("place", name))
        self._sha = sha1(self._source.encode(), usedforsecurity=False).hexdigest()

    async def __call__(self, keys: Sequence[str], *args: str | bytes | int | float) -> Any:
        """Run it. Raises Unavailable."""
        async with available():
            try:
                return await self._redis.evalsha(self._sha, len(keys), *keys, *args)
            except NoScriptError:
                # Not loaded first and called then, as redis-py does: the store may start anew between the two.
                return await self._redis.eval(self._source, len(keys), *keys, *args)
