"""What passes an answer on with no app in between: a model's pieces in, frames like llmchat's out, on bare transports.

    python -m bench.answers floor 200,300
    python -m bench.group floor

Each line of its stdin goes to all websockets as an event, with the clock's seconds in it.

No stack could be quicker. What the load generator takes is seen by it: at the rate of the goal, and beyond.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import struct
import sys
import time
from typing import Any

from bench.frames import FIN, LENGTH_16, TEXT, unmasked

LENGTH_HEAD = 1 << 16
BLOCKS = json.dumps([[3, "<p>" + "A paragraph as it is when it is told once more. " * 8 + "</p>"]])
"""Beside the text, in every second delta: about what llmchat's live Markdown sends."""
CONTENT, CONTENT_END = b'"content":', b'},"logprobs"'
LAST = b"data: [DONE]"


def frame(text: bytes) -> bytes:
    """Make a server's frame."""
    length = len(text)
    if length < LENGTH_16:
        return struct.pack("!BB", FIN | TEXT, length) + text
    if length >= LENGTH_HEAD:
        raise ValueError("No such frame is sent here.")
    return struct.pack("!BBH", FIN | TEXT, LENGTH_16, length) + text


class Visitor(asyncio.Protocol):
    """One websocket, which asks for one answer."""

    def __init__(self, model_port: int, group: set[Visitor]) -> None:
        self._model_port = model_port
        self._group = group
        self._received = b""
        self._open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def data_received(self, received: bytes) -> None:
        self._received += received
        if not self._open and b"\r\n\r\n" in self._received:
            self._open, self._received = True, b""
            self._group.add(self)
            self.transport.write(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"
                + frame(b'{"type":"session.ready"}')
            )
        elif self._open and (content := unmasked(self._received)) is not None:
            self._received = b""
            self._ask(content)

    def connection_lost(self, exc: Exception | None) -> None:
        self._group.discard(self)

    def _ask(self, content: bytes) -> None:
        if not content.startswith(b"{"):
            return  # it closes
        asked = {
            "stream": True,
            "messages": [{"role": "user", "content": json.loads(content)["text"]}],
        }
        body = json.dumps(asked).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: model\r\nContent-Length: {len(body)}\r\n\r\n"
        loop = asyncio.get_running_loop()
        asking = loop.create_connection(
            lambda: Passing(self.transport, head.encode() + body), "127.0.0.1", self._model_port
        )
        self._asking = loop.create_task(asking)


class Passing(asyncio.Protocol):
    """The connection to the model: what is said goes on at once."""

    def __init__(self, out: Any, request: bytes) -> None:
        self._out = out
        self._request = request
        self._received = b""
        self._digest = hashlib.sha256()
        self._count = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        self._transport.write(self._request)
        self._out.write(frame(b'{"type":"completion.started","message":"m","text":""}'))

    def data_received(self, received: bytes) -> None:
        *events, self._received = (self._received + received).split(b"\n\n")
        for event in events:
            start = event.find(CONTENT)
            if start >= 0:
                self._pass(event[start + len(CONTENT) : event.find(CONTENT_END, start)])
            elif LAST in event:
                digest = self._digest.hexdigest().encode()
                self._out.write(
                    frame(
                        b'{"type":"completion.finished","message":"m","finish_reason":"stop","digest":"'
                        + digest
                        + b'"}'
                    )
                )
                self._transport.close()

    def _pass(self, text: bytes) -> None:
        self._digest.update(json.loads(text).encode())
        self._count += 1
        blocks = BLOCKS.encode() if self._count % 2 else b"[]"
        self._out.write(
            frame(
                b'{"type":"completion.delta","conversation":"c","message":"m","text":%b,"blocks":%b,"count":4,'
                b'"at":{"epoch":"0123456789ab","offset":%d}}' % (text, blocks, self._count)
            )
        )


def event() -> bytes:
    """Make an event for all, as large as llmchat's are on the whole."""
    told = {"type": "delta", "text": repr(time.monotonic()), "blocks": json.loads(BLOCKS)}
    return frame(json.dumps(told).encode())


async def main(port: int, model_port: int) -> None:
    """Serve until it is ended."""
    group: set[Visitor] = set()
    loop, lines = asyncio.get_running_loop(), asyncio.StreamReader()
    await loop.create_server(lambda: Visitor(model_port, group), "127.0.0.1", port, backlog=1000)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    print("serves at", port, flush=True)
    while await lines.readline():
        told = event()
        for visitor in group:
            visitor.transport.write(told)
        await asyncio.sleep(0)


if __name__ == "__main__":
    asyncio.run(main(*map(int, sys.argv[1:])))
