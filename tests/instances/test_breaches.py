"""What breaks RFC 6455, on a raw websocket: it is closed with the code that the RFC names, and nobody else notices."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from llmchat.events import MAX_FRAME_BYTES
from llmchat.peers import BITS_AT_ONCE
from tests.instances import Instance, handshake
from tests.instances.handshake import Handshake
from tests.waiting import within

Instances = tuple[Instance, Instance]

FIN, RSV1, RSV2, RSV3 = 0x80, 0x40, 0x20, 0x10
MORE, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
MASKED = 0x80
NORMAL, PROTOCOL, NOT_TEXT, FLOOD, TOO_LARGE = 1000, 1002, 1007, 1008, 1009
DEFLATE = "permessage-deflate"


def frame(first: int, said: bytes = b"") -> bytes:
    """Make a client's frame; its mask is zero."""
    size = len(said)
    if size < 126:
        return bytes([first, MASKED | size]) + bytes(4) + said
    if size < 1 << 16:
        return bytes([first, MASKED | 126]) + size.to_bytes(2) + bytes(4) + said
    return bytes([first, MASKED | 127]) + size.to_bytes(8) + bytes(4) + said


def closing(code: int, reason: bytes = b"") -> bytes:
    return frame(FIN | CLOSE, code.to_bytes(2) + reason)


def deflated(said: bytes) -> bytes:
    """Compress a message as RFC 7692 has it."""
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return (compressor.compress(said) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


@asynccontextmanager
async def raw(instance: Instance, extensions: str | None = None) -> AsyncIterator[Handshake]:
    """Open a websocket by hand."""
    async with handshake(instance, sec_websocket_extensions=extensions) as peer:
        assert peer.status == 101
        yield peer


async def heard(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Read a server's frame: how it begins, and what is in it."""
    first, size = await reader.readexactly(2)
    if size == 126:
        size = int.from_bytes(await reader.readexactly(2))
    elif size == 127:
        size = int.from_bytes(await reader.readexactly(8))
    return first, await reader.readexactly(size)


async def code_of_close(peer: Handshake) -> int | None:
    """Read on to the end of the connection, and tell the code of the close frame that was the last one."""
    code, last = None, b""
    async with within(20, lambda: f"the connection is ended; the last frame was {last!r}"):
        with suppress(asyncio.IncompleteReadError):
            while True:
                first, last = await heard(peer.reader)
                assert code is None, "nothing comes behind a close frame"
                if first == FIN | CLOSE:
                    code = int.from_bytes(last[:2]) if last else 0
    return code


@pytest.mark.parametrize(
    ("said", "code"),
    [
        pytest.param(b"\x81\x04ping", PROTOCOL, id="unmasked"),
        pytest.param(frame(FIN | RSV1 | TEXT, b"{}"), PROTOCOL, id="first reserved bit, nothing agreed"),
        pytest.param(frame(FIN | RSV2 | TEXT, b"{}"), PROTOCOL, id="second reserved bit"),
        pytest.param(frame(FIN | RSV3 | PING), PROTOCOL, id="third reserved bit"),
        *(
            pytest.param(frame(FIN | kind), PROTOCOL, id=f"reserved kind {kind:x}")
            for kind in (0x3, 0x4, 0x5, 0x6, 0x7, 0xB, 0xC, 0xD, 0xE, 0xF)
        ),
        pytest.param(frame(PING), PROTOCOL, id="ping in parts"),
        pytest.param(frame(CLOSE), PROTOCOL, id="close in parts"),
        pytest.param(frame(FIN | PING, b"x" * 126), PROTOCOL, id="long ping"),
        pytest.param(frame(FIN | CLOSE, b"\x03\xe8" + b"x" * 124), PROTOCOL, id="long close"),
        pytest.param(frame(FIN | MORE, b"{}"), PROTOCOL, id="end without a beginning"),
        pytest.param(frame(MORE, b"{}"), PROTOCOL, id="part without a beginning"),
        pytest.param(
            frame(TEXT, b"{") + frame(FIN | TEXT, b"}"), PROTOCOL, id="another message within a message"
        ),
        pytest.param(frame(BINARY, b"{") + frame(TEXT, b"}"), PROTOCOL, id="another kind within a message"),
        pytest.param(b"\x81\xfe\x00\x02" + bytes(4) + b"{}", PROTOCOL, id="length of two bytes for less"),
        pytest.param(b"\x81\xff" + (126).to_bytes(8) + bytes(4), PROTOCOL, id="length of eight bytes for less"),
        pytest.param(b"\x81\xff" + (1 << 63).to_bytes(8) + bytes(4), PROTOCOL, id="length below zero"),
        pytest.param(frame(FIN | CLOSE, b"\x03"), PROTOCOL, id="close of one byte"),
        *(
            pytest.param(closing(code), PROTOCOL, id=f"close with {code}")
            for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535)
        ),
        pytest.param(closing(NORMAL, b"\xff"), NOT_TEXT, id="close for a reason that is no text"),
        pytest.param(frame(FIN | TEXT, b"\xff"), NOT_TEXT, id="no UTF-8"),
        pytest.param(frame(FIN | TEXT, b"\xe2\x82"), NOT_TEXT, id="cut UTF-8"),
        pytest.param(frame(FIN | TEXT, b"\xc0\xaf"), NOT_TEXT, id="overlong"),
        pytest.param(frame(FIN | TEXT, b"\xed\xa0\x80"), NOT_TEXT, id="surrogate"),
        pytest.param(frame(FIN | TEXT, b"\xf4\x90\x80\x80"), NOT_TEXT, id="beyond Unicode"),
        pytest.param(
            frame(TEXT, b"\xe2\x82") + frame(FIN | MORE, b"\x28"), NOT_TEXT, id="no UTF-8, over two parts"
        ),
        pytest.param(
            frame(FIN | TEXT, b"x" * (MAX_FRAME_BYTES + 1)), TOO_LARGE, id="too large"
        ),
        pytest.param(
            b"\x81\xff" + (1 << 62).to_bytes(8) + bytes(4) + b"x" * (MAX_FRAME_BYTES + 1),
            TOO_LARGE,
            id="of an enormous length",
        ),
        pytest.param(frame(FIN | PING) * (2 * BITS_AT_ONCE), FLOOD, id="flood of pings"),
        pytest.param(frame(FIN | PONG, b"x" * 125) * (2 * BITS_AT_ONCE), FLOOD, id="flood of pongs"),
        pytest.param(frame(TEXT) + frame(MORE) * (2 * BITS_AT_ONCE), FLOOD, id="flood of empty parts"),
        pytest.param(closing(NORMAL), NORMAL, id="close"),
        pytest.param(closing(4999, "ça".encode()), 4999, id="close with a code of its own"),
        pytest.param(frame(FIN | CLOSE), 0, id="close without a code"),
        pytest.param(closing(NORMAL) + frame(FIN | TEXT, b"{}"), NORMAL, id="message behind the close"),
    ],
)  # fmt: skip
async def test_websocket_is_closed_with_the_code_of_its_breach(
    instances: Instances, said: bytes, code: int
) -> None:
    async with raw(instances[0]) as peer:
        peer.writer.write(said)
        assert await code_of_close(peer) == code


@pytest.mark.parametrize(
    ("said", "code"),
    [
        pytest.param(frame(FIN | RSV1 | PING), PROTOCOL, id="compressed ping"),
        pytest.param(frame(FIN | RSV1 | CLOSE), PROTOCOL, id="compressed close"),
        pytest.param(
            frame(RSV1 | TEXT, deflated(b"{}")) + frame(FIN | RSV1 | MORE), PROTOCOL, id="further part marked"
        ),
        pytest.param(frame(FIN | RSV1 | TEXT, b"\xff" * 20), NOT_TEXT, id="compressed garbage"),
        pytest.param(frame(FIN | RSV1 | TEXT, deflated(b"\xff")), NOT_TEXT, id="compressed, and no UTF-8"),
        pytest.param(frame(FIN | RSV1 | TEXT, deflated(bytes(50_000_000))), TOO_LARGE, id="bomb"),
        pytest.param(
            frame(FIN | RSV1 | TEXT, b"\x00\x00\x00\xff\xff" * 80_000), TOO_LARGE, id="much that becomes nothing"
        ),
    ],
)  # fmt: skip
async def test_compressed_websocket_is_closed_with_the_code_of_its_breach(
    instances: Instances, said: bytes, code: int
) -> None:
    async with raw(instances[0], DEFLATE) as peer:
        assert DEFLATE in peer.headers["sec-websocket-extensions"]
        peer.writer.write(said)
        assert await code_of_close(peer) == code


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(frame(TEXT, b'{"type": ') + frame(FIN | MORE, b'"ping"}'), id="two parts"),
        pytest.param(
            frame(TEXT, b'{"type": ') + frame(FIN | PING, b"x") + frame(FIN | MORE, b'"ping"}'),
            id="ping between two parts",
        ),
        pytest.param(
            frame(TEXT) + frame(MORE) * (BITS_AT_ONCE // 2) + frame(FIN | MORE, b'{"type": "ping"}'),
            id="many empty parts",
        ),
        pytest.param(frame(FIN | PONG, b"nobody asked") + frame(FIN | TEXT, b'{"type": "ping"}'), id="pong"),
    ],
)
async def test_command_is_obeyed_however_it_is_divided(instances: Instances, said: bytes) -> None:
    async with raw(instances[0]) as peer, within(20, "the command is answered"):
        peer.writer.write(said)
        while b'"pong"' not in (await heard(peer.reader))[1]:
            pass


async def test_frame_that_comes_byte_by_byte_is_read(instances: Instances) -> None:
    async with raw(instances[0]) as peer, within(20, "the command is answered"):
        for byte in frame(FIN | TEXT, b'{"type": "ping"}'):
            peer.writer.write(bytes([byte]))
            await peer.writer.drain()
        while b'"pong"' not in (await heard(peer.reader))[1]:
            pass


async def test_ping_is_answered_with_what_was_in_it(instances: Instances) -> None:
    async with raw(instances[0]) as peer, within(20, "the pong comes"):
        peer.writer.write(frame(FIN | PING, b"x" * 125))
        while (found := await heard(peer.reader))[0] != FIN | PONG:
            pass
        assert found[1] == b"x" * 125
