"""A model server's response as it comes -> deltas, within their deadlines. Does not know who was asked, nor what."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import httpx2

from llmchat.deltas import delta_of, merged
from llmchat.lean_openai import AsyncStream, openai
from llmchat.provider_errors import provider_error
from llmchat.settings import Settings
from llmchat.sse import Events
from llmchat.turn import Delta

USAGE_SECONDS = 2.0
"""For what may follow a finish_reason: the usage figures."""
FULL_BYTES = 16 * 1024
"""As much as is read of a response at once, so that more may be there."""
DRAIN_SECONDS = 0.2
"""For the end of a response behind its last event: read to it, the connection serves the next request, too."""
DONE = b"[DONE]"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Deadlines:
    """How long the model server may take, in seconds: to connect, to its first delta, between two, in all."""

    connect: float
    first: float
    between: float
    answer: float

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Take those that are set."""
        return cls(
            connect=settings.model_connect_seconds,
            first=settings.model_first_seconds,
            between=settings.model_between_seconds,
            answer=settings.model_answer_seconds,
        )


class ModelStream:
    """What a model server says in a response, in as few pieces as it is read in.

    Between two deltas may lie `between` seconds; `last` is when the answer has to be through, in the loop's time. For
    `every` seconds after each delta nothing is read, unless there is much. Read past the SDK's stream, which makes one
    wake-up of each event: see docs/performance.md.
    """

    def __init__(
        self, stream: AsyncStream[object], between: float, last: float, every: Callable[[], float]
    ) -> None:
        self._stream = stream
        self._response = stream.response
        self._between = between
        self._last = last
        self._every = every
        self._pieces = self._response.aiter_bytes()
        self._encoded = bool(self._response.headers.get("content-encoding"))
        self._events = Events()
        self._failed: Exception | None = None  # to be raised once what was said before it is given
        self._ended = False  # with a finish_reason
        self._figures_until = 0.0  # in the loop's time, once somebody waits for them
        self._over = False
        self._paused: Any = None  # what reads the connection, while it does not
        self._came = False  # something, since it was: what is awaited next is there
        self._much = False  # more may be there than what was given
        self.first: Delta | None = None
        """Once it began; None where it said nothing at all."""

    async def begin(self, deadline: float) -> None:
        """Wait for the first delta until then, in the loop's time. Raises ProviderError."""
        self.first = await self._next(deadline)

    async def next(self) -> Delta | None:
        """Wait for the next delta; None at the end. Raises ProviderError."""
        now = asyncio.get_running_loop().time
        if self._ended:
            self._figures_until = self._figures_until or now() + USAGE_SECONDS
            return await self._next(self._figures_until)
        if not self._much:
            await self._collect(self._every())
        return await self._next(now() + self._between)

    async def close(self) -> None:
        """Leave the model server."""
        try:
            await self._stream.close()
        except Exception as error:  # what there was of it is given
            log.debug("A response could not be closed: %s", type(error).__name__)

    async def _next(self, deadline: float) -> Delta | None:
        try:
            delta = await self._read(min(deadline, self._last))
        except Exception as error:  # the SDK lets json's and the transport's own errors through
            if self._ended:
                return None  # whole already: only the usage figures are missing
            raise provider_error(error) from None
        self._ended = self._ended or (delta is not None and delta.finish_reason is not None)
        return delta

    async def _read(self, deadline: float) -> Delta | None:
        said: list[Delta] = []
        while not said:
            if self._failed is not None:
                raise self._failed
            if self._over:
                await self._drain()
                return None
            if not self._came:
                self._go_on_reading()
                async with asyncio.timeout_at(deadline):
                    piece = await anext(self._pieces, None)
            elif asyncio.get_running_loop().time() < deadline:
                self._came = False
                piece = await anext(self._pieces, None)  # without a wait, which a timeout would need
            else:
                raise TimeoutError
            self._over = piece is None
            self._much = len(piece or b"") >= FULL_BYTES
            said = self._said_in(self._events.feed(piece or b""))
        return merged(said)

    def _said_in(self, events: Sequence[bytes]) -> list[Delta]:
        said = []
        try:
            for data in events:
                if data.startswith(DONE):
                    self._over = True
                    break
                delta = delta_of(self._event(data))
                if delta is not None:
                    said.append(delta)
        except Exception as error:  # whatever is wrong with what a server says
            self._failed = error
        return said

    def _event(self, data: bytes) -> Any:
        event = json.loads(data.decode())
        if isinstance(event, dict) and event.get("error"):
            raise openai.APIError(
                "The stream tells of an error.", self._response.request, body=event["error"]
            )
        return event

    async def _collect(self, seconds: float) -> None:
        """Let what comes gather, in the system's buffer rather than in ours piece by piece."""
        protocol, transport, body = read_from(self._response)
        if protocol is None or not (transport.is_reading() or protocol is self._paused):
            await asyncio.sleep(seconds)
            return
        if self._paused is None:
            protocol._pause_reading_for_buffer()
            self._paused = protocol
        try:
            await asyncio.sleep(seconds)
            if not self._encoded:  # else what came may give no bytes
                self._came = _read_at_once(transport, body)
        finally:
            if not self._came:
                self._go_on_reading()

    def _go_on_reading(self) -> None:
        paused, self._paused = self._paused, None
        if paused is not None:
            paused._resume_reading_for_buffer()

    async def _drain(self) -> None:
        self._go_on_reading()
        if self._response.is_closed:
            return
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                async for _ in self._pieces:
                    pass
        except Exception as error:  # all is said: whatever is wrong behind it harms nobody
            log.debug("A response did not end behind its last event: %s", type(error).__name__)


def read_from(response: httpx2.Response) -> tuple[Any, Any, Any]:
    """Find a response's protocol, its transport, and where its body is put; the first is None where a version has them elsewhere.

    Neither httpx2 nor the SDK's transport for aiohttp has a way to have reading paused. Without, each piece of an answer
    is a turn of the loop, also those that are not looked at yet: half as much again for an answer. What aiohttp itself
    pauses, it goes on with at each piece that is taken; what it pauses for a buffer of its own stays so over many.
    """
    read = getattr(getattr(response.stream, "_stream", None), "_aiohttp_response", None)
    protocol = getattr(getattr(read, "connection", None), "protocol", None)
    transport = getattr(protocol, "transport", None)
    known = isinstance(transport, asyncio.Transport) and hasattr(protocol, "_resume_reading_for_buffer")
    return (protocol if known else None), transport, getattr(read, "content", None)


def _read_at_once(transport: asyncio.Transport, body: Any) -> bool:
    """Read what has come while reading was paused, as the loop would; tell whether reading may stay paused.

    To have the loop do so takes two calls of the system, and a turn of the loop, for each window of each answer. Where
    asyncio has it elsewhere, and over TLS, the loop does.
    """
    read = getattr(transport, "_read_ready", None)
    before = getattr(body, "total_bytes", None)
    if read is None or before is None or transport.is_closing():
        return False
    read()
    return bool(body.total_bytes > before and not body.is_eof() and not transport.is_closing())
