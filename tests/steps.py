"""What a model server may do while it answers, besides sending text; see `tests.fakes.Model.answer`."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from tests.waiting import within

if TYPE_CHECKING:
    from tests.fakes import Answering


class Step(Protocol):
    """One thing that a model server does while it answers."""

    async def play(self, answering: Answering) -> None:
        """Do it."""


class Gate:
    """Holds an answer until the test opens it; `reached` is set once everything before it is sent."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self._open = asyncio.Event()

    def open(self) -> None:
        """Let the answer go on."""
        self._open.set()

    async def opened(self) -> None:
        """Wait for the test."""
        await self._open.wait()

    async def wait(self, *, seconds: float = 30) -> None:
        """Wait until the answer stands before this gate."""
        async with within(seconds, "an answer reaches its gate"):
            await self.reached.wait()

    async def play(self, answering: Answering) -> None:
        """Wait for the test."""
        self.reached.set()
        await self.opened()


@dataclass(frozen=True)
class Text:
    """A piece of the answer. Plain strings among the steps mean this."""

    text: str

    async def play(self, answering: Answering) -> None:
        """Send it as a delta."""
        answering.text += self.text
        await answering.delta({"content": self.text})


@dataclass(frozen=True)
class Reasoning:
    """A piece of the model's reasoning."""

    text: str

    async def play(self, answering: Answering) -> None:
        """Send it as a delta."""
        answering.reasoning += self.text
        await answering.delta({"reasoning_content": self.text})


@dataclass(frozen=True)
class Failure:
    """An error object in the stream, after which the stream ends."""

    message: str = "The server had an error while processing your request."
    code: str = "server_error"

    async def play(self, answering: Answering) -> None:
        """Send it and end."""
        await answering.event({"error": {"message": self.message, "type": self.code, "code": self.code}})
        raise Ended


@dataclass(frozen=True)
class Line:
    """A line of the stream as it stands: malformed JSON, an unknown field, a comment."""

    text: str

    async def play(self, answering: Answering) -> None:
        """Send it."""
        await answering.write(self.text.encode() + b"\n\n")


@dataclass(frozen=True)
class Repeated:
    """A line of the stream again and again, until the client goes away."""

    text: str
    seconds: float = 0.05

    async def play(self, answering: Answering) -> None:
        """Send one after the other."""
        while True:
            await answering.write(self.text.encode() + b"\n\n")
            await asyncio.sleep(self.seconds)


class Drip(Repeated):
    """Keep-alive comments and nothing else, until the client goes away."""

    def __init__(self, seconds: float = 0.05) -> None:
        super().__init__(": keepalive", seconds)


@dataclass(frozen=True)
class Pause:
    """The model takes its time."""

    seconds: float

    async def play(self, answering: Answering) -> None:
        """Let the time pass."""
        await asyncio.sleep(self.seconds)


@dataclass(frozen=True)
class Babble:
    """On and on, until the client goes away, or so much was said."""

    text: str
    times: int = 10**9
    pause_seconds: float = 0

    async def play(self, answering: Answering) -> None:
        """Say it again and again."""
        for _ in range(self.times):
            answering.text += self.text
            await answering.delta({"content": self.text})
            await asyncio.sleep(self.pause_seconds)


class Cut:
    """The connection breaks."""

    async def play(self, answering: Answering) -> None:
        """Break it."""
        answering.abort()
        raise Ended


class Silence:
    """Nothing more, with the connection held open until the client goes away."""

    async def play(self, answering: Answering) -> None:
        """Wait to be cancelled."""
        await asyncio.Event().wait()


CUT = Cut()
SILENCE = Silence()


class Ended(Exception):
    """A step ended the answer: no finish_reason and no [DONE] follow."""
