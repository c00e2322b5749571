"""A peer that is silent, or reads nothing, is dropped; one that answers pings is kept.

The product's Hypercorn, with less patience.
"""

from __future__ import annotations

import asyncio
import base64
import secrets
import socket
from collections.abc import AsyncIterator

import aiohttp
import pytest

from llmchat import serve
from llmchat.app import create_app
from llmchat.settings import Settings
from tests.instances import Store
from tests.waiting import eventually, within

PAGES = 400  # more than the buffers between us hold


@pytest.fixture
async def port(store: Store, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[int]:
    monkeypatch.setattr(serve, "PING_SECONDS", 0.2)
    monkeypatch.setattr(serve, "SILENT_PEER_SECONDS", 3)
    settings = Settings(
        redis_url=store.url, secret_key=secrets.token_hex(32), openai_api_key="sk-of-the-tests"
    )
    sockets = serve.bind("127.0.0.1", 0)
    port = serve.port_of(sockets)
    stop = asyncio.Event()
    config = serve.hypercorn_config(sockets)
    serving = asyncio.create_task(
        serve.serve_with_hypercorn(create_app(settings), config, shutdown_trigger=stop.wait)
    )
    yield port
    stop.set()
    async with within(10, "the server stops"):
        await serving


async def test_silent_peer_is_dropped_and_one_that_answers_pings_is_kept(port: int) -> None:
    async with aiohttp.ClientSession() as http:
        # aiohttp answers pings by itself, as a browser does, while somebody reads.
        live = await http.ws_connect(f"ws://127.0.0.1:{port}/ws/chat/", protocols=["llmchat.v1"])
        assert (await live.receive_json())["type"] == "session.ready"
        reading = asyncio.create_task(live.receive())

        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        key = base64.b64encode(secrets.token_bytes(16)).decode()
        writer.write(
            f"GET /ws/chat/ HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: llmchat.v1\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
        )
        async with within(20, "the silent peer is dropped"):
            heard = await reader.read(-1)  # to the end of the connection: it reads, and never says a word
        assert heard.startswith(b"HTTP/1.1 101")
        writer.close()

        assert not reading.done()
        await live.send_json({"type": "ping"})
        async with within(10, "the live peer is answered"):
            assert '"pong"' in (await reading).data
        await live.close()


@pytest.mark.skipif(serve.UNREAD_TIMEOUT is None, reason="only Linux can drop such a peer")
async def test_peer_that_reads_nothing_is_dropped_with_what_waits_for_it(port: int) -> None:
    with socket.socket() as peer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        peer.connect(("127.0.0.1", port))
        peer.sendall(f"GET / HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n".encode() * PAGES)
        peer.setblocking(False)

        async def dropped() -> bool:
            try:
                peer.send(b"\r\n")
            except BlockingIOError:
                return False
            except ConnectionError:
                return True
            return False

        await eventually(dropped, seconds=30, what="the peer that reads nothing is dropped")
