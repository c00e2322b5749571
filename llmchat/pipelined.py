"""A client of one server whose commands share pipelines: while one is on its way, the next one fills. Knows no command.

By itself a command costs some five times what it costs among twenty.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from hiredis import pack_command
from redis.asyncio import Redis
from redis.commands import AsyncCoreCommands
from redis.exceptions import ConnectionError as Disconnected
from redis.exceptions import ResponseError

MOST_COMMANDS = 100
"""Of one pipeline: its answers come together."""
SHARED_BYTES = 16 * 1024
"""Of a word of a command; one with a larger has a connection to itself, so that nobody waits for it."""
LARGE_ANSWERS = {"GET", "GETRANGE", "HGETALL"}
"""Commands that have, for theirs may be large."""
SECONDS = 1.7
"""For one pipeline, at most: who waits for it has given up by then."""

Command = tuple[Sequence[Any], dict[str, Any]]


class Pipelining(Redis):
    """A client. What takes its commands on gets the answers that redis-py would give, and its errors."""

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        self._waiting: list[tuple[Command, asyncio.Future[Any]]] = []
        self._sending: asyncio.Task[None] | None = None  # while there is something to carry out
        self._line: Any = None  # the connection that they share

    async def execute_command(self, *words: Any, **options: Any) -> Any:
        """Carry out a command with those that others give meanwhile."""
        if words[0] in LARGE_ANSWERS or _is_large(words):
            return await super().execute_command(*words, **options)  # type: ignore[no-untyped-call]
        return await self.ask((words, options))

    def ask(self, command: Command) -> asyncio.Future[Any]:
        """Have a command carried out behind those that were asked before."""
        answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((command, answered))
        if self._sending is None:
            self._sending = asyncio.create_task(self._carry_out_all(), name="pipelines")
        return answered

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        """Close all connections. Whoever waits for an answer gets a ConnectionError."""
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.gather(self._sending, return_exceptions=True)
        if self._line is not None:
            line, self._line = self._line, None
            await self.connection_pool.release(line)
        await super().aclose(close_connection_pool)

    async def _carry_out_all(self) -> None:
        now: list[tuple[Command, asyncio.Future[Any]]] = []
        try:
            while self._waiting:
                now, self._waiting = self._waiting[:MOST_COMMANDS], self._waiting[MOST_COMMANDS:]
                # Whoever was cancelled does not wait any more.
                await self._carry_out([each for each in now if not each[1].done()])
        finally:
            self._sending = None
            left, self._waiting = [*now, *self._waiting], []
            for _, answered in left:
                if not answered.done():
                    answered.set_exception(Disconnected("The client was closed."))

    async def _carry_out(self, commands: Sequence[tuple[Command, asyncio.Future[Any]]]) -> None:
        try:
            async with asyncio.timeout(SECONDS):
                answers = await self._answers([command for command, _ in commands])
        except Exception as error:  # whatever it is, it is theirs who wait
            answers = [error] * len(commands)
        for (_, answered), answer in zip(commands, answers, strict=True):
            if answered.done():
                continue
            if isinstance(answer, Exception):
                answered.set_exception(answer)
            else:
                answered.set_result(answer)

    async def _answers(self, commands: Sequence[Command]) -> list[Any]:
        """Exchange commands for their answers, of which each may be an error. As redis-py's pipelines do, at half their cost."""
        if self._line is None:  # kept: to take one of the pool each time costs as much as a command
            pool: Any = self.connection_pool
            self._line = await pool.get_connection()
        line = self._line
        answers: list[Any] = await line.retry.call_with_retry(
            lambda: self._exchange(line, commands), lambda error: line.disconnect(error=error)
        )
        return answers

    async def _exchange(self, connection: Any, commands: Sequence[Command]) -> list[Any]:
        await connection.send_packed_command(
            [pack_command((*words[0].split(), *words[1:])) for words, _ in commands]
        )
        answers = []
        for words, options in commands:
            try:
                answers.append(await self.parse_response(connection, words[0], **options))
            except ResponseError as error:
                answers.append(error)
        return answers


class Together(AsyncCoreCommands):
    """Small commands that are asked at once, where a pipeline of redis-py would have a connection to itself."""

    _event_dispatcher: Any = None

    def __init__(self, client: Pipelining) -> None:
        self._client = client
        self._commands: list[Command] = []

    def execute_command(self, *words: Any, **options: Any) -> Together:
        """Collect a command."""
        self._commands.append((words, options))
        return self

    async def execute(self) -> list[Any]:
        """Carry out all; raise the first error."""
        return await asyncio.gather(*[self._client.ask(command) for command in self._commands])


def _is_large(words: Sequence[Any]) -> bool:
    for word in words:  # noqa: SIM110 - every command passes here, and any() would make a generator
        if (type(word) is str or type(word) is bytes) and len(word) > SHARED_BYTES:
            return True
    return False
