"""A client of one server whose commands share pipelines: while one is on its way, the next one fills. Knows no command.

By itself a command costs some five times what it costs among twenty.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextvars import Context
from time import perf_counter
from typing import Any

from hiredis import pack_command
from redis.asyncio import Redis
from redis.client import EMPTY_RESPONSE, NEVER_DECODE
from redis.commands import AsyncCoreCommands
from redis.exceptions import ConnectionError as Disconnected
from redis.exceptions import DataError, ResponseError

from llmchat.durations import Durations

MOST_COMMANDS = 100
"""Of one pipeline: its answers come together."""
SHARED_BYTES = 16 * 1024
"""Of a command; a larger one has a connection to itself, so that nobody waits for it."""
LARGE_ANSWERS = {"GET", "GETRANGE", "HGETALL"}
"""Commands that have, for theirs may be large."""
TRIP_SECONDS = 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2
NOT_FOR_PARSING = {"keys", EMPTY_RESPONSE, NEVER_DECODE}

Asked = tuple[Sequence[Any], dict[str, Any], bytes, "asyncio.Future[Any]"]
"""A command: its words, redis-py's options, how it is written, and where its answer goes."""


class Pipelining(Redis):
    """A client. What takes its commands on gets the answers that redis-py would give, and its errors."""

    seconds = 1.7
    """For one pipeline, at most."""

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        self._waiting: list[Asked] = []
        self._sending: asyncio.Task[None] | None = None  # while there is something to carry out
        self._line: Any = None  # the connection that they share
        self.trips = Durations(*TRIP_SECONDS)
        """How long pipelines took, there and back."""

    @property
    def waiting(self) -> int:
        """How many commands wait for the next pipeline."""
        return len(self._waiting)

    async def execute_command(self, *words: Any, **options: Any) -> Any:
        """Carry out a command with those that others give meanwhile."""
        if words[0] not in LARGE_ANSWERS:
            packed = _packed(words)
            if len(packed) <= SHARED_BYTES:
                return await self.ask(words, options, packed)
        return await super().execute_command(*words, **options)  # type: ignore[no-untyped-call]

    def ask(self, words: Sequence[Any], options: dict[str, Any], packed: bytes) -> asyncio.Future[Any]:
        """Have a command carried out behind those that were asked before."""
        answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((words, options, packed, answered))
        if self._sending is None:
            # In no context: it serves others than who happened to be the first.
            self._sending = asyncio.create_task(self._carry_out_all(), name="pipelines", context=Context())
        return answered

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        """Close all connections. Whoever waits for an answer gets a ConnectionError."""
        sending, self._sending = self._sending, None
        if sending is not None:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
        left, self._waiting = self._waiting, []  # also where it was cancelled before it began
        _fail(left)
        await self._drop_line()
        await super().aclose(close_connection_pool)

    async def _carry_out_all(self) -> None:
        now: list[Asked] = []
        try:
            while self._waiting:
                now, self._waiting = self._waiting[:MOST_COMMANDS], self._waiting[MOST_COMMANDS:]
                # Whoever was cancelled does not wait any more.
                await self._carry_out([each for each in now if not each[3].done()])
        finally:
            if self._sending is asyncio.current_task():
                self._sending = None
            _fail(now)

    async def _carry_out(self, asked: Sequence[Asked]) -> None:
        answers: list[Any] = []
        began = perf_counter()
        try:
            async with asyncio.timeout(self.seconds):
                await self._exchange_all(asked, answers)
        except Exception as error:  # whatever it is, it is theirs who wait
            answers += [error] * (len(asked) - len(answers))
        self.trips.note(perf_counter() - began)
        for (words, options, _, answered), answer in zip(asked, answers, strict=True):
            if answered.done():
                continue
            try:
                answered.set_result(self._parsed(words, options, answer))
            except Exception as error:
                answered.set_exception(error)

    async def _exchange_all(self, asked: Sequence[Asked], answers: list[Any]) -> None:
        """Add the answers to commands, of which each may be an error. As redis-py's pipelines do, at half their cost."""
        if self._line is not None and self._has_moved(self._line):
            await self._drop_line()
        if self._line is None:  # kept: to take one of the pool each time costs as much as a command
            pool: Any = self.connection_pool
            self._line = await pool.get_connection()
        line = self._line
        await line.retry.call_with_retry(
            lambda: _exchange(line, asked[len(answers) :], answers),
            lambda error: line.disconnect(error=error),
        )

    async def _drop_line(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            await line.disconnect(nowait=True)
            await self.connection_pool.release(line)

    def _has_moved(self, line: Any) -> bool:
        """Whether the server is another one than that of a connection."""
        return False

    def _parsed(self, words: Sequence[Any], options: dict[str, Any], answer: Any) -> Any:
        """Read an answer as redis-py does; raise one that is an error."""
        if isinstance(answer, Exception):
            if isinstance(answer, ResponseError) and EMPTY_RESPONSE in options:
                return options[EMPTY_RESPONSE]
            raise answer
        parse = self.response_callbacks.get(words[0])
        if parse is None:
            return answer
        return parse(
            answer, **{name: option for name, option in options.items() if name not in NOT_FOR_PARSING}
        )


class Together(AsyncCoreCommands):
    """Small commands that are asked at once, where a pipeline of redis-py would have a connection to itself."""

    _event_dispatcher: Any = None

    def __init__(self, client: Pipelining) -> None:
        self._client = client
        self._commands: list[tuple[Sequence[Any], dict[str, Any]]] = []

    def execute_command(self, *words: Any, **options: Any) -> Together:
        """Collect a command."""
        self._commands.append((words, options))
        return self

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Carry out all; raise the first error, or give errors in the place of answers."""
        asked = [(words, options, _packed(words)) for words, options in self._commands]
        running = [self._client.ask(*each) for each in asked]
        return await asyncio.gather(*running, return_exceptions=not raise_on_error)


async def _exchange(line: Any, asked: Sequence[Asked], answers: list[Any]) -> None:
    try:
        if not line.is_connected:
            await line.connect()  # by itself, sending goes to the former address, without asking a Sentinel
        await line.send_packed_command([packed for _, _, packed, _ in asked])
        for _ in asked:
            try:
                answers.append(await line.read_response())
            except ResponseError as error:
                answers.append(error)
    except BaseException:
        await line.disconnect(nowait=True)  # what is not read of it would answer others
        raise


def _packed(words: Sequence[Any]) -> bytes:
    try:
        packed: bytes = pack_command((*str(words[0]).split(), *words[1:]))
    except TypeError as error:
        raise DataError(str(error)) from None
    return packed


def _fail(left: Sequence[Asked]) -> None:
    for _, _, _, answered in left:
        if not answered.done():
            answered.set_exception(Disconnected("The client was closed."))
