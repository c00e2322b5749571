"""The websocket handshake by hand: for what a well-behaved client would never send, or never show."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from tests.instances.instance import Instance
from tests.waiting import within


@dataclass
class Handshake:
    """What the server said, and the open connection behind it."""

    status: int
    headers: dict[str, str]  # names in lower case; of several with one name the last
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


@asynccontextmanager
async def handshake(
    instance: Instance,
    *,
    path: str = "/ws/chat/",
    subprotocol: str | None = "llmchat.v1",
    behind: bytes = b"",
    **headers: str | None,
) -> AsyncIterator[Handshake]:
    """Ask for an upgrade. Keywords are further headers (`x_real_ip="…"`), None leaves one out.

    `behind`: bytes glued to the request, as an impatient or hostile client sends them.
    """
    request: dict[str, str | None] = {
        "host": f"127.0.0.1:{instance.port}",
        "upgrade": "websocket",
        "connection": "Upgrade",
        "sec-websocket-version": "13",
        "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
        "sec-websocket-protocol": subprotocol,
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    lines = [f"{name}: {value}" for name, value in request.items() if value is not None]
    reader, writer = await asyncio.open_connection("127.0.0.1", instance.port)
    try:
        writer.write("\r\n".join([f"GET {path} HTTP/1.1", *lines, "", ""]).encode() + behind)
        async with within(10, "the handshake is answered"):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        answered = (line.partition(":") for line in head[1:] if line)
        yield Handshake(
            status=int(head[0].split()[1]),
            headers={name.lower(): value.strip() for name, _, value in answered},
            reader=reader,
            writer=writer,
        )
    finally:
        writer.transport.abort()
