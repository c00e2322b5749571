"""Browsers of the bench: a websocket as Chrome opens it, and what each stack's page does with it.

They share one loop with the model server, so that one clock tells when a piece was said and when it was shown.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import struct
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from bench.answer import Answer
from bench.frames import CLOSE, PING, PONG, TEXT, Counter, Reader, frame_of

HEAD_END = b"\r\n\r\n"
SUBPROTOCOL = "llmchat.v1"
CHROME = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/143.0.0.0 Safari/537.36"
)
DEFLATE = "permessage-deflate; client_max_window_bits"
NORMAL = 1000
BUFFER = memoryview(bytearray(256 * 1024))
"""One for all browsers of a loop: what is read into it is taken at once."""
parsed = json.JSONDecoder().decode


class Changed(Exception):
    """A text came that is not what the model said."""


class Closed(Exception):
    """The server ended a connection, or refused it."""


class Browser(asyncio.BufferedProtocol, ABC):
    """One websocket. What a message means is `hear`'s to know; `ready` is set once the server let it in."""

    path = "/ws/chat/"
    subprotocol: str | None = None

    def __init__(self, number: int, port: int, *, cookie: str = "", deflate: bool = True) -> None:
        self.number = number
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.closed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.finished: asyncio.Future[str] | None = None
        """Of the answer that was asked for: how it ended."""
        self.received_bytes = 0
        """Since the handshake."""
        self.on_counted: Callable[[int], None] | None = None
        """Once it is set, messages are counted only, not read."""
        self._counter = Counter()
        self.cookie = cookie
        self.deflated = False
        self._port = port
        self._deflate = deflate
        self._received = b""
        self._reader: Reader | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._key = base64.b64encode(os.urandom(16)).decode()
        transport.write(self._request().encode())

    def _request(self) -> str:
        host = f"127.0.0.1:{self._port}"
        lines = [
            f"GET {self.path} HTTP/1.1",
            f"Host: {host}",
            "Connection: Upgrade",
            "Pragma: no-cache",
            "Cache-Control: no-cache",
            f"User-Agent: {CHROME}",
            "Upgrade: websocket",
            f"Origin: http://{host}",
            "Sec-WebSocket-Version: 13",
            "Accept-Encoding: gzip, deflate, br, zstd",
            "Accept-Language: en-GB,en-US;q=0.9,en;q=0.8,de;q=0.7",
            f"X-Forwarded-For: {address_of(self.number)}",
            f"Sec-WebSocket-Key: {self._key}",
        ]
        if self.subprotocol:
            lines.append(f"Sec-WebSocket-Protocol: {self.subprotocol}")
        if self.cookie:
            lines.append(f"Cookie: {self.cookie}")
        if self._deflate:
            lines.append(f"Sec-WebSocket-Extensions: {DEFLATE}")
        return "\r\n".join([*lines, "", ""])

    def get_buffer(self, sizehint: int) -> memoryview:
        return BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        self._take(bytes(BUFFER[:nbytes]))

    def _take(self, received: bytes) -> None:
        if self._reader is None:
            received = self._opened(received)
            if self._reader is None:
                return
        self.received_bytes += len(received)
        if self.on_counted is not None:
            ended = self._counter.feed(received)
            if ended:
                self.on_counted(ended)
            return
        now = asyncio.get_running_loop().time()
        for opcode, content in self._reader.feed(received):
            if opcode == TEXT:
                try:
                    self.hear(parsed(content.decode()), now)
                except Changed as changed:
                    self.changed(changed)
            elif opcode == PING:
                self._transport.write(frame_of(PONG, content))
            elif opcode == CLOSE:
                code = struct.unpack("!H", content[:2])[0] if content else NORMAL
                self._end(f"close {code} {content[2:].decode(errors='replace')}")
                self._transport.close()

    def _opened(self, received: bytes) -> bytes:
        self._received += received
        head, end, rest = self._received.partition(HEAD_END)
        if not end:
            return b""
        line, *lines = head.decode("latin-1").split("\r\n")
        if line.split(" ")[1] != "101":
            self._end(f"refused: {line} {rest.decode(errors='replace')}")
            self._transport.close()
            return b""
        headers = {name.lower(): value.strip() for name, _, value in (each.partition(":") for each in lines)}
        extensions = headers.get("sec-websocket-extensions", "")
        self.deflated = "permessage-deflate" in extensions
        self.cookie = headers.get("set-cookie", "").partition(";")[0] or self.cookie
        self._reader = Reader(
            deflated=self.deflated, keeps_context="server_no_context_takeover" not in extensions
        )
        self.opened()
        return rest

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(f"cut: {exc}" if exc else "cut")

    def _end(self, why: str) -> None:
        if not self.closed.done():
            self.closed.set_result(why)
        if not self.ready.done():
            self.ready.set_exception(Closed(why))
        self.ended(why)

    def say(self, told: dict[str, Any]) -> None:
        """Send a message."""
        self._transport.write(frame_of(TEXT, json.dumps(told, separators=(",", ":")).encode()))

    def leave(self) -> None:
        """Close as a page does that goes."""
        self._transport.write(frame_of(CLOSE, struct.pack("!H", NORMAL + 1)))
        self._transport.close()

    def opened(self) -> None:
        """The handshake is over."""

    def ended(self, why: str) -> None:
        """The connection is over."""

    def changed(self, changed: Changed) -> None:
        """Another text came than the model said."""
        if self.finished is not None and not self.finished.done():
            self.finished.set_exception(changed)

    @abstractmethod
    def hear(self, told: dict[str, Any], now: float) -> None:
        """Take a message."""


class Ours(Browser):
    """A page of llmchat, with one conversation and one answer in it at a time."""

    subprotocol = SUBPROTOCOL

    def __init__(self, number: int, port: int, **options: Any) -> None:
        super().__init__(number, port, **options)
        self.conversation: str | None = None
        self.message = ""
        """The id of the answer."""
        self._answer: Answer | None = None
        self._text = ""
        self._length = 0
        self._snapshot: asyncio.Future[dict[str, Any]] | None = None

    def ask(self, answer: Answer) -> asyncio.Future[str]:
        """Send the prompt for an answer; what is returned is done, with its finish_reason, once it is whole."""
        self._answer, self.message, self._length = answer, "", 0
        self.finished = asyncio.get_running_loop().create_future()
        told = {"type": "message.send", "id": f"m{self.number}-{answer.number}", "text": answer.prompt}
        if self.conversation:
            told["conversation"] = self.conversation
        self.say(told)
        return self.finished

    def open(self, conversation: str) -> asyncio.Future[dict[str, Any]]:
        """Open a conversation; what is returned is done with its snapshot."""
        self.conversation = conversation
        self._snapshot = asyncio.get_running_loop().create_future()
        self.say({"type": "conversation.open", "conversation": conversation})
        return self._snapshot

    def hear(self, told: dict[str, Any], now: float) -> None:
        match told["type"]:
            case "completion.delta":
                self._show(told, now)
            case "session.ready":
                if not self.ready.done():
                    self.ready.set_result(None)
            case "message.accepted":
                self.conversation = told["conversation"]
            case "completion.started":
                self._begin(told["message"], told["text"])
            case "completion.finished":
                self._finish(told)
            case "completion.failed":
                self._fail(f"{told['code']}: {told['detail']}")
            case "conversation.snapshot":
                self._resume(told, now)
            case "error":
                self._fail(f"{told['code']}: {told['detail']}")
            case "session.store":
                pass

    def _begin(self, message: str, text: str) -> None:
        self.message, self._length = message, len(text)
        self._check(0, text)

    def _show(self, told: dict[str, Any], now: float) -> None:
        answer = self._answer
        if answer is None or told["message"] != self.message:
            return
        text = told["text"]
        self._check(self._length, text)
        self._length += len(text)
        answer.show(self._length, now)

    def _check(self, start: int, text: str) -> None:
        if self._answer and self._answer.text[start : start + len(text)] != text:
            raise Changed(f"answer {self._answer.number} at {start}: {text!r}")

    def _finish(self, told: dict[str, Any]) -> None:
        answer, finished = self._answer, self.finished
        if answer is None or finished is None or finished.done() or told["message"] != self.message:
            return
        if told["finish_reason"] == "stop":
            digest = hashlib.sha256(answer.text.encode()).hexdigest()
            if self._length != len(answer.text) or digest != told["digest"]:
                raise Changed(f"answer {answer.number} ends after {self._length}")
            answer.finished = True
        finished.set_result(told["finish_reason"])

    def _resume(self, told: dict[str, Any], now: float) -> None:
        if self._snapshot is not None and not self._snapshot.done():
            self._snapshot.set_result(told)
        for message in told["messages"]:
            if self._answer and message["id"] == self.message:
                self._begin(message["id"], message["text"])
                self._answer.show(self._length, now)
                if message["state"] == "done":
                    self._finish(
                        {
                            "message": message["id"],
                            "finish_reason": message["finish_reason"],
                            "digest": hashlib.sha256(message["text"].encode()).hexdigest(),
                        }
                    )

    def ended(self, why: str) -> None:
        self._fail(why)

    def _fail(self, why: str) -> None:
        if self.finished is not None and not self.finished.done():
            self.finished.set_result(why)
        if self._snapshot is not None and not self._snapshot.done():
            self._snapshot.set_exception(Closed(why))


class Theirs(Browser):
    """A page of the replaced stack: one chat, one answer in it at a time."""

    def __init__(self, number: int, port: int, *, chat: str | None = None, **options: Any) -> None:
        super().__init__(number, port, **options)
        self.path = f"/ws/chat/{chat or number}/"
        self._answer: Answer | None = None

    def opened(self) -> None:
        self.ready.set_result(None)

    def ask(self, answer: Answer) -> asyncio.Future[str]:
        """Send the prompt for an answer; what is returned is done, with "stop", once its end was told."""
        self._answer = answer
        self.finished = asyncio.get_running_loop().create_future()
        self.say({"prompt": answer.prompt})
        return self.finished

    def ended(self, why: str) -> None:
        if self.finished is not None and not self.finished.done():
            self.finished.set_result(why)

    def hear(self, told: dict[str, Any], now: float) -> None:
        answer = self._answer
        if answer is None:
            return
        if told["type"] == "delta":
            if answer.pieces[told["index"]] != told["text"] or told["index"] < len(answer.shown):
                raise Changed(f"answer {answer.number}, piece {told['index']}: {told['text']!r}")
            answer.show_piece(told["index"], now)
        elif self.finished is not None and not self.finished.done():
            answer.finished = True
            self.finished.set_result("stop")


BROWSERS: dict[str, type[Ours] | type[Theirs]] = {"ours": Ours, "theirs": Theirs, "floor": Ours}


def address_of(number: int) -> str:
    """Give each visitor an address of its own."""
    return f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


async def connect(browser: Browser, port: int) -> None:
    """Open a browser's websocket. Raises Closed where it is refused."""
    await asyncio.get_running_loop().create_connection(lambda: browser, "127.0.0.1", port)
    await browser.ready
