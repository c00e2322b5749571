"""Commands of many tasks, in few pipelines: while one is on its way, the next one fills. Knows no command.

By itself a command costs some five times what it costs among twenty.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from redis.asyncio import Redis

from llmchat.errors import Unavailable
from llmchat.redis_client import as_cluster, available, is_bug

MOST_COMMANDS = 100
"""Of one pipeline: its answers come together."""


class Pipelined:
    """Carries out commands; one by one in a Cluster, where each key has its own server."""

    def __init__(self, redis: Redis) -> None:
        self._redis: Any = redis
        self._clustered = as_cluster(redis) is not None
        self._waiting: list[tuple[Sequence[str | bytes | int | float], asyncio.Future[Any]]] = []
        self._task: asyncio.Task[None] | None = None  # while there is something to carry out

    async def __call__(self, *command: str | bytes | int | float) -> Any:
        """Carry out a command; again, where the connection fails. Raises Unavailable, and what is wrong with the command."""
        if self._clustered:
            async with available():
                return await self._redis.execute_command(*command)
        answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((command, answered))
        if self._task is None:
            self._task = asyncio.create_task(self._carry_out_all(), name="pipelined")
        return await answered

    async def _carry_out_all(self) -> None:
        try:
            while self._waiting:
                now, self._waiting = self._waiting[:MOST_COMMANDS], self._waiting[MOST_COMMANDS:]
                # Whoever was cancelled does not wait any more.
                await self._carry_out([each for each in now if not each[1].done()])
        finally:
            self._task = None

    async def _carry_out(
        self, commands: Sequence[tuple[Sequence[str | bytes | int | float], asyncio.Future[Any]]]
    ) -> None:
        pipe: Any = self._redis.pipeline(transaction=False)
        for command, _ in commands:
            pipe.execute_command(*command)
        try:
            async with available():
                answers = await pipe.execute(raise_on_error=False)
        except Exception as error:  # whatever it is, it is theirs who wait
            answers = [error] * len(commands)
        for (_, answered), answer in zip(commands, answers, strict=True):
            if answered.done():
                continue
            if isinstance(answer, Exception):
                answered.set_exception(answer if is_bug(answer) else Unavailable())
            else:
                answered.set_result(answer)
