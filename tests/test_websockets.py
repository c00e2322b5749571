"""A websocket that Quart lets in, and that is served afterwards: whatever happens between."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from quart import Quart, has_websocket_context, websocket

from llmchat.blueprints.websockets import DirectWebsocket, current_websocket
from llmchat.connection import Gone
from tests.waiting import within

SCOPE = {
    "type": "websocket",
    "asgi": {"spec_version": "2.3"},
    "path": "/",
    "raw_path": b"/",
    "query_string": b"",
    "scheme": "ws",
    "headers": [(b"host", b"localhost")],
    "subprotocols": [],
    "extensions": {"websocket.http.response": {}},
}


class Failed(Exception):
    """What a view or who serves raises."""


class Peer:
    """The server's side of one websocket."""

    def __init__(self, *messages: dict[str, Any], refuses: str = "") -> None:
        self.sent: list[dict[str, Any]] = []
        self._messages = list(messages)
        self._refuses = refuses

    async def receive(self) -> dict[str, Any]:
        if not self._messages:
            await asyncio.Event().wait()
        return self._messages.pop(0)

    async def send(self, message: dict[str, Any]) -> None:
        if message["type"] == self._refuses:
            raise ConnectionError("the peer is gone")
        self.sent.append(message)


class View:
    """Lets one in, as the chat's does, and notes what happens."""

    def __init__(self, *, fails: str = "", accepts: bool = True) -> None:
        self.happened: list[str] = []
        self.served = asyncio.Event()
        self.heard: list[str | bytes | None] = []
        self.app = Quart(__name__)
        self.app.asgi_websocket_class = DirectWebsocket
        self._fails = fails

        @self.app.websocket("/")
        async def view() -> str | None:
            socket = current_websocket.get()

            async def serve() -> None:
                self.happened.append("served")
                self.served.set()
                assert not has_websocket_context()
                assert current_websocket.get(None) is None
                await socket.send("hello")
                self.heard.append(await socket.receive())
                if self._fails == "serve":
                    raise Failed
                try:
                    await socket.receive()
                except Gone:
                    self.happened.append("gone")
                await socket.close(1000, "bye")

            socket.serve_later(serve, lambda: self.happened.append("left"))
            if self._fails == "before":
                raise Failed
            if not accepts:
                return "no"
            await websocket.accept()
            if self._fails == "after":
                raise Failed
            return None

    async def meet(self, peer: Peer) -> None:
        """Have a peer come."""
        await self.app(dict(SCOPE), peer.receive, peer.send)  # type: ignore[arg-type]


CONNECT = {"type": "websocket.connect"}
TEXT = {"type": "websocket.receive", "text": "hi"}
GONE = {"type": "websocket.disconnect", "code": 1006}


def types(peer: Peer) -> list[str]:
    return [each["type"] for each in peer.sent]


async def test_websocket_is_served_once_it_was_let_in() -> None:
    view, peer = View(), Peer(CONNECT, TEXT, GONE)
    await view.meet(peer)
    assert view.happened == ["served", "gone", "left"]
    assert view.heard == ["hi"]
    assert types(peer) == ["websocket.accept", "websocket.send", "websocket.close"]


async def test_websocket_that_is_refused_is_not_served_and_left() -> None:
    view, peer = View(accepts=False), Peer(CONNECT)
    await view.meet(peer)
    assert view.happened == ["left"]
    assert types(peer)[0] == "websocket.http.response.start"


async def test_view_that_fails_before_it_accepts_serves_nobody() -> None:
    view, peer = View(fails="before"), Peer(CONNECT)
    await view.meet(peer)
    assert view.happened == ["left"]
    assert peer.sent[0]["status"] == 500


async def test_peer_that_is_gone_when_it_is_accepted_is_not_served() -> None:
    view, peer = View(), Peer(CONNECT, GONE, refuses="websocket.accept")
    await view.meet(peer)
    assert view.happened == ["left"]
    assert peer.sent == []


async def test_what_serves_and_fails_is_left() -> None:
    view, peer = View(fails="serve"), Peer(CONNECT, TEXT)
    with pytest.raises(Failed):
        await view.meet(peer)
    assert view.happened == ["served", "left"]


async def test_what_is_cancelled_is_left() -> None:
    view, peer = View(), Peer(CONNECT)
    meeting = asyncio.create_task(view.meet(peer))
    async with within(10, "it is served"):
        await view.served.wait()
    meeting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await meeting
    assert view.happened == ["served", "left"]
