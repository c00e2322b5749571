"""Peers that are silent, read nothing or send too much lose their connection; one that answers pings is kept.

The product's Hypercorn, with less patience.
"""

from __future__ import annotations

import asyncio
import base64
import re
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.asyncio.worker_context import WorkerContext
from hypercorn.config import Config
from hypercorn.protocol.events import Body, EndBody

from llmchat import connection, doors, peers, serve
from llmchat.app import create_app
from llmchat.blueprints.visitors import CONNECTIONS_OF_ADDRESS
from llmchat.connection import FRAMES_AT_ONCE
from llmchat.events import MAX_FRAME_BYTES
from llmchat.settings import Settings
from tests.fakes import Model
from tests.instances import Store
from tests.waiting import eventually, within

pytestmark = pytest.mark.long

PAGES = 400  # more than the buffers between us hold
ANSWER = "word " * 30_000
OPENINGS = 80  # of a conversation with it: likewise


@pytest.fixture
async def port(store: Store, model: Model, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[int]:
    monkeypatch.setattr(serve, "PING_SECONDS", 0.2)
    monkeypatch.setattr(serve, "SILENT_PEER_SECONDS", 3)
    settings = Settings(
        redis_url=store.url,
        secret_key=secrets.token_hex(32),
        openai_api_key="sk-of-the-tests",
        openai_base_url=model.url,
        connections_per_minute=0,
    )
    sockets = serve.bind("127.0.0.1", 0)
    port = serve.port_of(sockets)
    stop = asyncio.Event()
    peers.limit_peers()
    config = serve.hypercorn_config(sockets)
    serving = asyncio.create_task(
        serve.serve_with_hypercorn(create_app(settings), config, shutdown_trigger=stop.wait)
    )
    yield port
    await eventually(nobody_left, seconds=40, what="Hypercorn lets all connections go")
    stop.set()
    async with within(10, "the server stops"):
        await serving


async def nobody_left() -> bool:
    """Tell whether Hypercorn has no task of a connection any more."""
    return not any("_server_callback" in repr(task.get_coro()) for task in asyncio.all_tasks())


def handshake(port: int, cookie: str = "") -> bytes:
    """Ask for a websocket, as by hand."""
    key = base64.b64encode(secrets.token_bytes(16)).decode()
    return (
        f"GET /ws/chat/ HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: llmchat.v1\r\nSec-WebSocket-Key: {key}\r\n"
        f"Cookie: {cookie}\r\n\r\n"
    ).encode()


def frame(text: str) -> bytes:
    """Make a client's frame; its mask is zero."""
    words = text.encode()
    size = len(words)
    if size < 126:
        return bytes([0x81, 0x80 | size]) + bytes(4) + words
    if size < 2**16:
        return bytes([0x81, 0x80 | 126]) + size.to_bytes(2) + bytes(4) + words
    return bytes([0x81, 0x80 | 127]) + size.to_bytes(8) + bytes(4) + words


@asynccontextmanager
async def peer_of(port: int) -> AsyncIterator[socket.socket]:
    """Connect a peer that has little room for what it does not read."""
    with socket.socket() as peer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        peer.setblocking(False)
        await asyncio.get_running_loop().sock_connect(peer, ("127.0.0.1", port))
        yield peer


async def tell(peer: socket.socket, said: bytes, until: bytes = b"") -> bytes:
    """Say something, and read up to what is named."""
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(peer, said)
    heard = b""
    async with within(10, lambda: f"{until!r} is heard; it was {heard!r}"):
        while until not in heard:
            heard += (piece := await loop.sock_recv(peer, 1))
            assert piece, f"the connection ended before {until!r}; it had {heard!r}"
    return heard


async def hears(live: aiohttp.ClientWebSocketResponse, kind: str) -> Any:
    """Read on until an event of this type, and give it."""
    while (event := await live.receive_json())["type"] != kind:
        pass
    return event


async def is_cut(peer: socket.socket, goes_on_with: bytes) -> None:
    """Wait until the peer cannot say more, however much it goes on."""

    left = b""

    async def cut() -> bool:
        nonlocal left
        left = left or goes_on_with
        try:
            left = left[peer.send(left) :]
        except BlockingIOError:
            return False
        except ConnectionError:
            return True
        return False

    await eventually(cut, seconds=30, what="the peer is cut")


async def test_silent_peer_is_dropped_and_one_that_answers_pings_is_kept(port: int) -> None:
    async with aiohttp.ClientSession() as http:
        # aiohttp answers pings by itself, as a browser does, while somebody reads.
        live = await http.ws_connect(f"ws://127.0.0.1:{port}/ws/chat/", protocols=["llmchat.v1"])
        assert (await live.receive_json())["type"] == "session.ready"
        reading = asyncio.create_task(live.receive())

        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(handshake(port))
        async with within(20, "the silent peer is dropped"):
            heard = await reader.read(-1)  # to the end of the connection: it reads, and never says a word
        assert heard.startswith(b"HTTP/1.1 101")
        writer.close()

        assert not reading.done()
        await live.send_json({"type": "ping"})
        async with within(10, "the live peer is answered"):
            assert '"pong"' in (await reading).data
        await live.close()


@pytest.mark.skipif(peers.UNREAD_TIMEOUT is None, reason="only Linux can drop such a peer")
async def test_peer_that_reads_no_page_is_dropped_with_what_waits_for_it(port: int) -> None:
    page = f"GET / HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n".encode()
    async with peer_of(port) as peer:
        await tell(peer, page * PAGES)
        await is_cut(peer, b"\r\n")


async def test_peer_that_reads_no_event_is_closed_and_cut(
    port: int, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "SILENT_PEER_SECONDS", 3600)
    for room, name in ((connection, "SEND_SECONDS"), (connection, "CLOSE_SECONDS"), (doors, "DRAIN_SECONDS")):
        monkeypatch.setattr(room, name, 0.3)
    model.answer(ANSWER)
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as http:
        live = await http.ws_connect(f"http://localhost:{port}/ws/chat/", protocols=["llmchat.v1"])
        await live.send_json({"type": "message.send", "id": "m", "text": "Much"})
        async with within(20, "the answer ends"):
            event = await hears(live, "completion.finished")
        ponged = asyncio.create_task(hears(live, "pong"))  # and answers pings meanwhile
        cookie = "; ".join(f"{each.key}={each.value}" for each in http.cookie_jar)
        opening = frame(f'{{"type": "conversation.open", "conversation": "{event["conversation"]}"}}')
        async with peer_of(port) as peer:
            await tell(peer, handshake(port, cookie), b"\r\n\r\n")
            await tell(peer, opening * OPENINGS)
            await is_cut(peer, frame('{"type": "ping"}'))
        await live.send_json({"type": "ping"})
        async with within(10, "the live peer is answered"):
            await ponged
        await live.close()


@pytest.mark.parametrize("final", [True, False], ids=["whole", "in pieces without an end"])
async def test_peer_whose_frame_is_too_large_is_told_and_cut_however_much_it_goes_on(
    port: int, final: bool
) -> None:
    large = frame("x" * (MAX_FRAME_BYTES + 1))
    if not final:
        large = bytes([large[0] & 0x7F]) + large[1:]
    async with peer_of(port) as peer:
        await tell(peer, handshake(port), b"\r\n\r\n")
        await tell(peer, large, (1009).to_bytes(2))
        await is_cut(peer, large if final else bytes([0x00]) + large[1:])


async def test_peer_that_goes_on_flooding_after_its_close_is_cut(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doors, "DRAIN_SECONDS", 0.3)
    ping = frame('{"type": "ping"}')
    async with peer_of(port) as peer:
        await tell(peer, handshake(port), b"\r\n\r\n")
        await tell(peer, ping * (FRAMES_AT_ONCE + 100), (1008).to_bytes(2))
        await is_cut(peer, ping * 100)


async def test_peer_that_pings_and_reads_no_pong_is_cut(port: int) -> None:
    ping = bytes([0x89, 0x80 | 125]) + bytes(4) + b"x" * 125
    async with peer_of(port) as peer:
        await tell(peer, handshake(port), b"\r\n\r\n")
        await is_cut(peer, ping * 100)


def open_files() -> int:
    """Count the files that this process, and so the server in it, has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_peer_that_goes_with_a_body_nobody_read_leaves_nothing_open(port: int) -> None:
    async with aiohttp.ClientSession() as http, http.get(f"http://localhost:{port}/") as page:
        found = re.search(r"/static/[0-9a-f]{32}/js/main\.js", await page.text())
        assert found
    before = open_files()
    head = f"GET {found[0]} HTTP/1.1\r\nHost: localhost:{port}\r\nTransfer-Encoding: chunked\r\n\r\n"
    for _ in range(30):
        async with peer_of(port) as peer:
            await tell(peer, head.encode() + b"1\r\na\r\n" * 40)

    async def closed() -> bool:
        return open_files() <= before

    await eventually(closed, seconds=40, what=f"the files are closed; {before} were open")


async def test_body_that_nobody_reads_takes_no_memory_and_is_answered(port: int) -> None:
    async with peer_of(port) as peer:
        head = f"GET /healthz HTTP/1.1\r\nHost: localhost:{port}\r\nTransfer-Encoding: chunked\r\n\r\n"
        await tell(peer, head.encode() + b"1\r\na\r\n" * 5000, b"alive")


async def test_answer_that_comes_before_the_body_has_is_read_by_a_peer_that_sends_on(port: int) -> None:
    refused = f"POST /attachments HTTP/1.1\r\nHost: localhost:{port}\r\nContent-Length: 3000000\r\n\r\n"
    asked = f"GET /healthz HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n"
    async with peer_of(port) as peer:
        heard = await tell(peer, refused.encode() + b"x" * 3_000_000 + asked.encode(), b"alive")
    assert heard.startswith(b"HTTP/1.1 400")


async def test_body_that_goes_on_too_long_after_its_answer_is_cut(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "REST_MOST_SECONDS", 0.3)
    head = f"POST /attachments HTTP/1.1\r\nHost: localhost:{port}\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with peer_of(port) as peer:
        await tell(peer, head.encode(), b"}")
        await is_cut(peer, b"1\r\na\r\n")


async def test_body_that_nobody_reads_is_kept_up_to_a_bound() -> None:
    kept: list[Any] = []

    async def keep(message: Any) -> None:
        kept.append(message)

    nobody: Any = None
    request = peers._Request(nobody, Config(), nobody, nobody, False, nobody, nobody, nobody, 1)
    request.app_put = keep
    for _ in range(10_000):
        await request.handle(Body(stream_id=1, data=b"a"))
    await request.handle(EndBody(stream_id=1))
    assert len(kept) < 1000
    assert kept[-1] == {"type": "http.request", "body": b"", "more_body": False}


async def test_words_behind_the_handshake_leave_no_connection_in_the_register(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "LINGER_SECONDS", 0)
    for _ in range(CONNECTIONS_OF_ADDRESS + 20):
        async with peer_of(port) as peer:
            await tell(peer, handshake(port) + frame('{"type": "ping"}'), b"400")
    async with peer_of(port) as peer:
        await tell(peer, handshake(port), b" 101 ")


@pytest.mark.parametrize(
    "said",
    [
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
    ],
    ids=["asked for", "assumed"],
)
async def test_http2_is_not_spoken(port: int, said: bytes) -> None:
    async with peer_of(port) as peer:
        heard = b""
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(peer, said)
        async with within(20, lambda: f"the peer is answered and ended; it heard {heard!r}"):
            while piece := await loop.sock_recv(peer, 4096):
                heard += piece
    assert heard.startswith((b"HTTP/1.1 200", b"HTTP/1.1 505"))
    assert b" 101 " not in heard


async def test_handshake_with_strange_bytes_is_refused(port: int) -> None:
    strange = handshake(port).replace(b"llmchat.v1", b"llmchat.v1\xff")
    async with peer_of(port) as peer:
        await tell(peer, strange, b" 400 ")


async def test_connections_that_wait_are_ended_with_their_server() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    made = peers._server_for(10)
    config, context = Config(), WorkerContext(None)
    config.keep_alive_timeout = 600
    loop = asyncio.get_running_loop()

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await made(ASGIWrapper(app), loop, config, context, {}, reader, writer)

    async with await asyncio.start_server(serve_one, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with peer_of(port) as asked, peer_of(port) as silent, within(10, "both are ended"):
            await tell(asked, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b" 204 ")
            await context.terminated.set()
            for each in (asked, silent):
                while await loop.sock_recv(each, 1000):
                    pass


async def test_no_more_peers_are_taken_than_files_can_be_opened() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body", "body": b""})

    made = peers._server_for(3)
    config, context = Config(), WorkerContext(None)
    loop = asyncio.get_running_loop()
    serving: set[asyncio.Task[None]] = set()

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        serving.add(task)
        await made(ASGIWrapper(app), loop, config, context, {}, reader, writer)

    async with await asyncio.start_server(serve_one, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with AsyncExitStack() as leaving:
            asked = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
            for _ in range(3):
                await tell(await leaving.enter_async_context(peer_of(port)), asked, b" 204 ")
            async with peer_of(port) as late, within(10, "the late peer is cut"):
                with suppress(ConnectionError):
                    await loop.sock_sendall(late, asked)
                    assert await loop.sock_recv(late, 1) == b""
        await asyncio.gather(*serving)
        async with peer_of(port) as later:
            await tell(later, asked, b" 204 ")


async def test_no_more_peers_of_one_address_are_taken_than_it_may_have() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body", "body": b""})

    made = peers._server_for(10, of_one=2)
    config, context = Config(), WorkerContext(None)
    loop = asyncio.get_running_loop()
    asked = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await made(ASGIWrapper(app), loop, config, context, {}, reader, writer)

    async def answered(source: str = "127.0.0.1") -> bool:
        with socket.socket() as peer:
            peer.bind((source, 0))
            peer.setblocking(False)
            await loop.sock_connect(peer, ("127.0.0.1", port))
            await loop.sock_sendall(peer, asked)
            return b" 204 " in await loop.sock_recv(peer, 1000)

    async with await asyncio.start_server(serve_one, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with peer_of(port) as one, peer_of(port) as two:
            for peer in (one, two):
                await tell(peer, asked, b" 204 ")
            with suppress(ConnectionError):
                assert not await answered()
            assert await answered("127.0.0.2")
        await eventually(answered, seconds=10, what="the address is served once its others are gone")
