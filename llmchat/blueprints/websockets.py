"""A websocket as Quart lets it in, and as it is served afterwards. Knows nothing of what is said over it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, WebsocketScope
from quart import Quart
from quart.asgi import ASGIWebsocketConnection
from werkzeug.datastructures import Headers

from llmchat.connection import Gone


class DirectWebsocket(ASGIWebsocketConnection):
    """Is served once Quart has let it in and is done with it.

    Quart's contexts, layers, task and queue are a third of what an idle connection takes of memory. What serves it
    receives from the server by itself, and is told of the peer's end there (`Gone`).
    """

    def __init__(self, app: Quart, scope: WebsocketScope) -> None:
        self.app = app
        self.scope = scope
        self._accepted = False
        self._closed = False
        self._is_let_in = False
        self._serve: Callable[[], Awaitable[None]] | None = None
        self._leave: Callable[[], None] | None = None

    async def __call__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Let it in, if so, and serve it to the end."""
        self._receive, self._send = receive, send
        self.queue: Any = _Nothing
        before = current_websocket.set(self)
        try:
            await self.handle_websocket(self._create_websocket_from_scope(send), send)
            current_websocket.reset(before)  # what is begun from now on would keep it
            serve, self._serve = self._serve, None
            if serve is not None and self._is_let_in:
                await serve()
        finally:
            if self._leave is not None:
                self._leave()

    async def accept_connection(
        self, send: ASGISendCallable, headers: Headers, subprotocol: str | None
    ) -> None:
        """Accept it, and know that it was."""
        await super().accept_connection(send, headers, subprotocol)
        self._is_let_in = True

    def serve_later(self, serve: Callable[[], Awaitable[None]], leave: Callable[[], None]) -> None:
        """Have it served, where it is accepted, once the view has returned, and `leave` called whatever happens."""
        self._closed = True  # for Quart, which would close it
        self._serve = serve
        self._leave = leave

    async def receive(self) -> str | bytes | None:
        """Wait for the next message. Raises Gone."""
        while True:
            event: Any = await self._receive()
            if event["type"] == "websocket.receive":
                return event.get("bytes") or event["text"]  # type: ignore[no-any-return]
            if event["type"] == "websocket.disconnect":
                raise Gone

    async def send(self, frame: str) -> None:
        """Send a text."""
        await self._send({"type": "websocket.send", "bytes": None, "text": frame})

    async def close(self, code: int, reason: str = "") -> None:
        """Close it."""
        await self._send({"type": "websocket.close", "code": code, "reason": reason})


class _Nothing:
    """In the place of Quart's queue: nothing is received by a view."""

    @staticmethod
    async def get() -> str | bytes:
        raise RuntimeError("A websocket is received from where it is served.")


current_websocket: ContextVar[DirectWebsocket] = ContextVar("websocket")
"""That is being let in."""
