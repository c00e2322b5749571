"""What a peer may do to Hypercorn's connections: limits that it lacks and has no settings for.

Knows Hypercorn's inside, and nothing of what is served. Each limit says what happens without it.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import hypercorn.asyncio.run
import hypercorn.protocol.h2
import hypercorn.protocol.h11
from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.protocol import ws_stream
from hypercorn.protocol.events import Event, StreamClosed
from hypercorn.protocol.ws_stream import WSStream
from wsproto.extensions import Extension

from llmchat.doors import ABORT

UNREAD_TIMEOUT: int | None = getattr(socket, "TCP_USER_TIMEOUT", None)  # Linux has it

LINGER_SECONDS = 1.0
"""For the close frame to be read."""


def limit_peers() -> None:
    """Put the limits on every connection that Hypercorn serves in this process from now on."""
    for module, name, ours in (
        (ws_stream, "PerMessageDeflate", _NeverAccepted),
        (hypercorn.protocol.h11, "WSStream", _Stream),
        (hypercorn.protocol.h2, "WSStream", _Stream),
        (hypercorn.asyncio.run, "TCPServer", _Server),
    ):
        getattr(module, name)  # fails where another version has no such name
        setattr(module, name, ours)


def limit_unread(listening: socket.socket, seconds: int) -> None:
    """Have the kernel drop what a socket accepts once its peer has read nothing for so long, where it can.

    Without it a connection that ends while something waits for its peer stays until the peer goes.
    """
    if UNREAD_TIMEOUT is not None:
        listening.setsockopt(socket.IPPROTO_TCP, UNREAD_TIMEOUT, seconds * 1000)


class _NeverAccepted(Extension):
    """In place of permessage-deflate, which is inflated before a frame's size is checked: 200 kB became 187 MB."""

    name = "permessage-deflate"

    def offer(self) -> bool:
        return False


class _Stream(WSStream):
    """A websocket that ends with its first message over the size: all that came after it would be kept."""

    async def handle(self, event: Event) -> None:
        await super().handle(event)
        if self.buffer.length > self.buffer.max_length:
            self.buffer.clear()
            # The app is told, and no more is taken.
            await super().handle(StreamClosed(stream_id=self.stream_id))
            asyncio.get_running_loop().call_later(LINGER_SECONDS, self.scope["state"][ABORT])


class _Server(TCPServer):
    """A connection that the app can cut (`scope["state"]`): closing one waits for a peer that may never read."""

    def __init__(
        self,
        app: Any,
        loop: Any,
        config: Any,
        context: Any,
        state: Any,
        reader: Any,
        writer: asyncio.StreamWriter,
    ) -> None:
        state = {**state, ABORT: writer.transport.abort}
        super().__init__(app, loop, config, context, state, reader, writer)
