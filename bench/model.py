"""A model server that says the bench's answers, each on a clock of its own, and notes when it said what.

Speaks as much HTTP/1.1 and of OpenAI's chat completions as llmchat's client and the stock one ask for.
"""

from __future__ import annotations

import asyncio
import heapq
import json
import random
from collections.abc import Callable
from itertools import count
from typing import Any

from bench.answer import Answer, asked_for

TICK_SECONDS = 0.001
"""A piece is said so much late at most, if the loop is not."""
CREATED = 1_790_000_000
MODEL = "bench"
HEAD_END = b"\r\n\r\n"
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n"
    b"Transfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n"
)
LAST_PART = b"0\r\n\r\n"
DONE = b"data: [DONE]\n\n"


def part(content: bytes) -> bytes:
    """Make a part of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(content), content)


def event_of(answer: str, choices: list[dict[str, Any]], **more: Any) -> bytes:
    """Make an event as OpenAI's servers write it."""
    told = {
        "id": answer,
        "object": "chat.completion.chunk",
        "created": CREATED,
        "model": MODEL,
        "system_fingerprint": "fp_bench",
        "choices": choices,
        **more,
    }
    return b"data: " + json.dumps(told, separators=(",", ":")).encode() + b"\n\n"


def choice_of(delta: dict[str, str], finish_reason: str | None = None) -> list[dict[str, Any]]:
    """Make the one choice of an event."""
    return [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}]


class Stream:
    """One answer being said over one connection."""

    def __init__(self, transport: asyncio.Transport, answer: Answer, ended: Callable[[], None]) -> None:
        self.answer = answer
        self._transport = transport
        self._ended = ended
        self._id = f"chatcmpl-{answer.number}"
        before, after = event_of(self._id, choice_of({"content": "\0"})).split(json.dumps("\0").encode())
        # Made beforehand: within the window that is measured the load generator has enough to do.
        self._parts = [part(before + json.dumps(piece).encode() + after) for piece in answer.pieces]
        self._at = 0
        self._begun: float | None = None

    def begin(self) -> None:
        """Say that an answer comes: the role, as OpenAI does."""
        self._transport.write(
            STREAM_HEAD + part(event_of(self._id, choice_of({"role": "assistant", "content": ""})))
        )

    def say(self, now: float, due: float) -> float | None:
        """Say the next piece; tell when the one after is due, None after the last."""
        if self._transport.is_closing():
            return None
        answer = self.answer
        if self._begun is None:
            self._begun = due
        if self._at == len(self._parts):
            self._end()
            return None
        answer.said.append(now)
        self._transport.write(self._parts[self._at])
        self._at += 1
        return self._begun + self._at / answer.rate

    def _end(self) -> None:
        self.answer.whole.set()
        usage = {"prompt_tokens": 20, "completion_tokens": self._at, "total_tokens": 20 + self._at}
        self._transport.write(
            part(event_of(self._id, choice_of({}, "stop")))
            + part(event_of(self._id, [], usage=usage))
            + part(DONE)
            + LAST_PART
        )
        self._ended()


class Model:
    """The server. `answers` are those that can be asked for, by number."""

    def __init__(self) -> None:
        self.answers: dict[int, Answer] = {}
        self.saying = 0
        self.port = 0
        self._due: list[tuple[float, int, Stream]] = []
        self._order = count()
        self._chance = random.Random(0)
        self._ticking = False

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}/v1"

    async def __aenter__(self) -> Model:
        self._loop = asyncio.get_running_loop()
        self._server = await self._loop.create_server(lambda: _Peer(self), "127.0.0.1", 0, backlog=1000)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    def stream(self, transport: asyncio.Transport, answer: Answer, ended: Callable[[], None]) -> Stream:
        """Begin to say an answer: its first piece at any moment within what one takes."""
        stream = Stream(transport, answer, ended)
        stream.begin()
        due = self._loop.time() + self._chance.random() / answer.rate
        heapq.heappush(self._due, (due, next(self._order), stream))
        self.saying += 1
        if not self._ticking:
            self._ticking = True
            self._loop.call_soon(self._tick)
        return stream

    def _tick(self) -> None:
        due, loop = self._due, self._loop
        now = loop.time()
        while due and due[0][0] <= now:
            when, _, stream = heapq.heappop(due)
            following = stream.say(loop.time(), when)
            if following is None:
                self.saying -= 1
            else:
                heapq.heappush(due, (following, next(self._order), stream))
        self._ticking = bool(due)
        if due:
            loop.call_at(max(due[0][0], now + TICK_SECONDS), self._tick)


class _Peer(asyncio.Protocol):
    """One connection: a request after the other."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._received = bytearray()
        self._busy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, received: bytes) -> None:
        self._received += received
        if not self._busy:
            self._answer_next()

    def _answer_next(self) -> None:
        self._busy = False
        request = _request(self._received)
        if request is None:
            return
        line, body = request
        self._busy = True
        if line.startswith("GET "):
            self._whole(
                {
                    "object": "list",
                    "data": [{"id": MODEL, "object": "model", "created": CREATED, "owned_by": MODEL}],
                }
            )
            return
        asked = json.loads(body)
        if not asked.get("stream"):
            message = {"role": "assistant", "content": "A title"}
            choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
            self._whole({"id": MODEL, "object": "chat.completion", "created": CREATED, "choices": choices})
            return
        self._model.stream(self._transport, self._wanted(asked["messages"]), self._answer_next)

    def _wanted(self, messages: list[dict[str, Any]]) -> Answer:
        prompt = next(each["content"] for each in reversed(messages) if each["role"] == "user")
        number, pieces, rate = asked_for(prompt) or (0, 1, 1)
        answers = self._model.answers
        if number not in answers:
            answers[number] = Answer(number, pieces, rate)
        return answers[number]

    def _whole(self, told: dict[str, Any]) -> None:
        body = json.dumps(told).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        self._transport.write(head.encode() + body)
        self._answer_next()


def _request(received: bytearray) -> tuple[str, bytes] | None:
    """Take a request off what was received: its first line and its body; None while it has not come whole."""
    end = received.find(HEAD_END)
    if end < 0:
        return None
    line, *lines = received[:end].decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (each.partition(":") for each in lines)}
    start = end + len(HEAD_END)
    if headers.get("transfer-encoding", "").lower() == "chunked":
        return _chunked(received, line, start)
    length = int(headers.get("content-length", "0"))
    if len(received) < start + length:
        return None
    body = bytes(received[start : start + length])
    del received[: start + length]
    return line, body


def _chunked(received: bytearray, line: str, start: int) -> tuple[str, bytes] | None:
    body = b""
    while (end := received.find(b"\r\n", start)) >= 0:
        length = int(received[start:end].split(b";")[0], 16)
        following = end + 2 + length + 2
        if len(received) < following:
            return None
        body += received[end + 2 : end + 2 + length]
        start = following
        if not length:
            del received[:start]
            return line, body
    return None
