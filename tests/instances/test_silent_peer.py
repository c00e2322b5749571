"""A peer that is silent is dropped, one that answers pings is kept: the product's Hypercorn, with less patience."""

from __future__ import annotations

import asyncio
import base64
import secrets
from collections.abc import AsyncIterator

import aiohttp
import pytest

from llmchat import serve
from llmchat.app import create_app
from llmchat.settings import Settings
from tests.instances import Store
from tests.waiting import within


@pytest.fixture
async def port(store: Store, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[int]:
    monkeypatch.setattr(serve, "PING_SECONDS", 0.2)
    monkeypatch.setattr(serve, "SILENT_PEER_SECONDS", 1)
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
