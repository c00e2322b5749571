"""What can be said of Redis from outside: whether it can be written, and whether it keeps what it is told.

Knows nothing of what lies there.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthorizationError,
    NoPermissionError,
    ResponseError,
)

from llmchat.errors import StartError, Unavailable
from llmchat.keys import Keys
from llmchat.redis_client import as_cluster, available, said_by, strange_master, told_by_servers
from llmchat.script import Several
from llmchat.shards import Shards

LOOK_SECONDS = 1.0
"""A look serves everybody who asks meanwhile, and for so long after."""
ANSWER_SECONDS = 1.0
REPEAT_SECONDS = 0.5

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Look:
    """What Redis said of itself. `risks` are sentences: each a way in which history could be lost."""

    server: str
    risks: tuple[str, ...]


class Health:
    """Looks at Redis, at the start and for whoever asks."""

    def __init__(self, redis: Redis, keys: Keys, where: str, *, require_durable: bool) -> None:
        self._redis = redis
        self._keys = keys
        self._where = where
        self._require_durable = require_durable
        self._several = Several(redis)
        self._looking = asyncio.Lock()
        self._looked_at = float("-inf")
        self._found: Look | None = None
        self.checked = False

    async def check(self, wait_seconds: float) -> None:
        """Wait for Redis, and log what it is. Raises StartError where it does not come, or is not fit."""
        look = await self._wait(wait_seconds)
        self.checked = True
        log.info("Redis at %s: %s", self._where, look.server)
        for risk in look.risks:
            if self._require_durable:
                raise StartError(f"REQUIRE_DURABLE_REDIS is set, and {risk}")
            log.warning("History may be lost: %s", risk)

    async def latest(self) -> Look | None:
        """Return what Redis says now, None where it does not answer; asked at most once in LOOK_SECONDS."""
        loop = asyncio.get_running_loop()
        async with self._looking:
            if loop.time() - self._looked_at > LOOK_SECONDS:
                try:
                    self._found = await self._look()
                except (Unavailable, ResponseError, StartError):
                    self._found = None
                self._looked_at = loop.time()
            return self._found

    async def _wait(self, seconds: float) -> Look:
        deadline = asyncio.get_running_loop().time() + seconds
        told = False
        while True:
            try:
                await self._try_channels()
                return await self._look()
            except ResponseError as error:
                raise StartError(
                    f"Redis at {self._where} refuses us: {_first_sentence(error)} "
                    "Look at its ACL, REDIS_URL and REDIS_PREFIX."
                ) from error
            except Unavailable as error:
                cause = error.__cause__
                if isinstance(cause, AskError):
                    raise self._of_a_cluster() from error
                if isinstance(cause, AuthenticationError | AuthorizationError):
                    raise StartError(
                        f"Redis at {self._where} refuses the login: check REDIS_URL, "
                        "or REDISUSER and REDISPASSWORD."
                    ) from error
                if strange := await strange_master(self._redis):
                    raise StartError(
                        f"The Sentinels at {self._where} know no master of the name {strange}: check REDIS_URL."
                    ) from error
                why = (cause and said_by(cause)) or type(cause).__name__  # redis-py puts no login into it
            if asyncio.get_running_loop().time() >= deadline:
                raise StartError(
                    f"Redis at {self._where} does not answer ({why}): start it, or check REDIS_URL or REDISHOST."
                )
            if not told:
                log.warning(
                    "Redis at %s does not answer yet (%s); waiting up to %g s for it.",
                    self._where,
                    why,
                    seconds,
                )
                told = True
            await asyncio.sleep(REPEAT_SECONDS)

    async def _try_channels(self) -> None:
        """Subscribe to a channel and hear of it: a user may have all rights but these."""
        shards = Shards(self._redis)
        async with available(ANSWER_SECONDS):
            await shards.look()
            async with shards.line(shards.of(self._keys.probe_channel)) as line:
                await line.subscribe([self._keys.probe_channel])
                await line.read()

    def _of_a_cluster(self) -> StartError:
        return StartError(
            f"Redis at {self._where} is one server of a Cluster: "
            "name it as redis+cluster://host:port,host:port in REDIS_URL."
        )

    async def _look(self) -> Look:
        async with available(ANSWER_SECONDS):
            key = self._keys.probe
            await self._several(
                [key], ("SET", key, "1", "PX", 1000), ("PUBLISH", self._keys.probe_channel, "")
            )
            try:
                told = await told_by_servers(self._redis)
            except ResponseError as error:
                if not isinstance(error, NoPermissionError) and "unknown command" not in str(error):
                    raise
                return Look("of a kind it does not tell", ("it does not permit INFO, so nobody can tell.",))
        if as_cluster(self._redis) is None and any(each.get("cluster_enabled") for each in told):
            raise self._of_a_cluster()
        servers = dict.fromkeys(_server(each) for each in told)
        risks = dict.fromkeys(risk for each in told for risk in _risks(each))
        return Look("; ".join(servers), tuple(risks))


def _first_sentence(error: ResponseError) -> str:
    return str(error).partition(". ")[0].rstrip(".") + "."  # a server's refusal may be a page long


def _server(told: dict[str, Any]) -> str:
    if "valkey_version" in told:
        name, version = "Valkey", told["valkey_version"]
    else:
        name, version = "Redis", told.get("redis_version", "of an unknown version")
    file = "an append-only file" if told.get("aof_enabled") else "no append-only file"
    return f"{name} {version}, {file}, {told.get('maxmemory_policy', 'an unknown eviction policy')}"


def _risks(told: dict[str, Any]) -> list[str]:
    risks = []
    if not told.get("aof_enabled"):
        risks.append("Redis writes no append-only file; set appendonly yes.")
    elif told.get("aof_last_write_status") == "err":
        risks.append("Redis cannot write its append-only file; look at its disk.")
    if told.get("maxmemory_policy") != "noeviction":
        risks.append(
            f"Redis may evict it when memory is full; set maxmemory-policy noeviction "
            f"(it is {told.get('maxmemory_policy', 'not told')})."
        )
    return risks
