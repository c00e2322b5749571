"""Lua scripts of ours: each is one step on keys of one slot, but for one that can do without. Knows no key."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha1
from importlib.resources import files
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import NoScriptError

from llmchat.redis_client import as_cluster, available, together


class Script:
    """A Lua script of ours: place.lua and the file of its name."""

    def __init__(self, redis: Redis, name: str) -> None:
        folder = files("llmchat").joinpath("lua")
        publish = f"local PUBLISH = '{'SPUBLISH' if as_cluster(redis) is not None else 'PUBLISH'}'"
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

    async def each(self, calls: Sequence[tuple[Sequence[str], Sequence[str | int]]]) -> list[Any]:
        """Run it for each of several slots, at once: with these keys and arguments. Raises Unavailable."""
        async with available():
            pipe = together(self._redis)
            for keys, args in calls:
                pipe.evalsha(self._sha, len(keys), *keys, *args)
            found: list[Any] = await pipe.execute(raise_on_error=False)
            for at, answer in enumerate(found):
                if isinstance(answer, NoScriptError):  # of its server; others may have run theirs
                    found[at] = await self(calls[at][0], *calls[at][1])
                elif isinstance(answer, BaseException):
                    raise answer
        return found


class Several:
    """Commands on keys of one slot, in one step: a Cluster's pipelines are no transactions."""

    def __init__(self, redis: Redis) -> None:
        self._script = Script(redis, "several")

    async def __call__(self, keys: Sequence[str], *commands: Sequence[str | int]) -> list[Any]:
        """Run them; the answers are raw. Raises Unavailable."""
        words: list[str | int] = []
        for command in commands:
            words += [len(command), *command]
        found: list[Any] = await self._script(keys, *words)
        return found
