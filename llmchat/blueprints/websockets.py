"""A websocket as Quart serves it, with less around it. Knows nothing of what is said over it."""

from __future__ import annotations

from typing import Any, cast

from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, WebsocketScope
from quart import Quart
from quart.asgi import ASGIWebsocketConnection

from llmchat.connection import Gone


class DirectWebsocket(ASGIWebsocketConnection):
    """Receives from the server by itself, and is told of the peer's end there (`Gone`).

    Quart's own has a task that fills a queue, and cancels who serves: of an idle connection a tenth of the memory.
    """

    def __init__(self, app: Quart, scope: WebsocketScope) -> None:
        self.app = app
        self.scope = scope
        self._accepted = False
        self._closed = False

    async def __call__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Serve it to the end."""
        self.queue = cast(Any, _Messages(receive))
        await self.handle_websocket(self._create_websocket_from_scope(send), send)

    async def send_data(self, send: ASGISendCallable, data: str | bytes) -> None:
        """Send, without Quart's signal that it was."""
        text, raw = (data, None) if isinstance(data, str) else (None, data)
        await send({"type": "websocket.send", "bytes": raw, "text": text})


class _Messages:
    """In the place of Quart's queue."""

    def __init__(self, receive: ASGIReceiveCallable) -> None:
        self._receive = receive

    async def get(self) -> str | bytes:
        """Wait for the next message. Raises Gone."""
        while True:
            event: Any = await self._receive()
            if event["type"] == "websocket.receive":
                return cast(str | bytes, event.get("bytes") or event["text"])
            if event["type"] == "websocket.disconnect":
                raise Gone
