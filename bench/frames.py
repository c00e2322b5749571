"""Websocket frames as a browser writes and reads them (RFC 6455, RFC 7692), with as little work as can be."""

from __future__ import annotations

import secrets
import struct
import zlib
from collections.abc import Iterator

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
FIN, RSV1, OPCODE, MASKED, LENGTH = 0x80, 0x40, 0x0F, 0x80, 0x7F
LENGTH_16, LENGTH_64 = 126, 127
CONTROLS = 0x8
"""Opcodes from here on are of the connection, not of a message."""
TAIL = b"\x00\x00\xff\xff"
"""What a compressed message leaves out (RFC 7692, 7.2.1)."""
WINDOW_BITS = -15


def frame_of(opcode: int, content: bytes) -> bytes:
    """Make a whole frame as a client has to: masked."""
    length = len(content)
    if length < LENGTH_16:
        head = struct.pack("!BB", FIN | opcode, MASKED | length)
    elif length < 1 << 16:
        head = struct.pack("!BBH", FIN | opcode, MASKED | LENGTH_16, length)
    else:
        head = struct.pack("!BBQ", FIN | opcode, MASKED | LENGTH_64, length)
    mask = secrets.token_bytes(4)
    long_mask = int.from_bytes((mask * (length // 4 + 1))[:length], "big")
    masked = int.from_bytes(content, "big") ^ long_mask
    return head + mask + masked.to_bytes(length, "big")


def unmasked(frame: bytes) -> bytes | None:
    """Read a client's frame; None while it has not come whole."""
    if len(frame) < 2:
        return None
    length, at = frame[1] & LENGTH, 2
    if length == LENGTH_16:
        length, at = int.from_bytes(frame[2:4], "big"), 4
    elif length == LENGTH_64:
        length, at = int.from_bytes(frame[2:10], "big"), 10
    mask, content = frame[at : at + 4], frame[at + 4 : at + 4 + length]
    if len(frame) < at + 4 + length:
        return None
    return bytes(byte ^ mask[at % 4] for at, byte in enumerate(content))


class Counter:
    """Walks the frames of a server's bytes by their heads alone, and counts the messages that ended."""

    def __init__(self) -> None:
        self.messages = 0
        self._rest = b""  # a head that has not come whole
        self._skip = 0  # bytes of a frame that are still to come

    def feed(self, received: bytes) -> int:
        """Take bytes; give how many messages ended in them."""
        before = self.messages
        at = self._skip
        if self._rest:
            received, self._rest = self._rest + received, b""
        size = len(received)
        while at < size:
            left = size - at
            length = received[at + 1] & LENGTH if left > 1 else LENGTH_64
            head = 4 if length == LENGTH_16 else 10 if length == LENGTH_64 else 2
            if left < head:
                self._rest, at = received[at:], size
                break
            if head > 2:
                length = int.from_bytes(received[at + 2 : at + head], "big")
            first = received[at]
            if first & FIN and first & OPCODE < CONTROLS:
                self.messages += 1
            at += head + length
        self._skip = at - size
        return self.messages - before


class Reader:
    """Takes a server's bytes and gives its messages whole, inflated where they were deflated."""

    def __init__(self, *, deflated: bool, keeps_context: bool = True) -> None:
        self._rest = b""
        self._inflate = zlib.decompressobj(WINDOW_BITS) if deflated else None
        self._keeps_context = keeps_context
        self._parts: list[bytes] = []
        self._opcode = 0
        self._deflated = False

    def feed(self, received: bytes) -> Iterator[tuple[int, bytes]]:
        """Take bytes; give (opcode, content) of each message and control frame that came whole."""
        if self._rest:
            received, self._rest = self._rest + received, b""
        at, size = 0, len(received)
        while size - at >= 2:
            length = received[at + 1] & LENGTH
            head = 4 if length == LENGTH_16 else 10 if length == LENGTH_64 else 2
            if size - at < head:
                break
            if head > 2:
                length = int.from_bytes(received[at + 2 : at + head], "big")
            end = at + head + length
            if size < end:
                break
            first, content = received[at], received[at + head : end]
            at = end
            if first == FIN | TEXT:
                yield TEXT, content
            elif first & OPCODE >= CONTROLS:
                yield first & OPCODE, content
            elif (whole := self._message(first, content)) is not None:
                yield self._opcode, whole
        self._rest = received[at:]

    def _message(self, first: int, content: bytes) -> bytes | None:
        if first & OPCODE != CONTINUATION:
            self._opcode, self._deflated = first & OPCODE, bool(first & RSV1)
        self._parts.append(content)
        if not first & FIN:
            return None
        whole = b"".join(self._parts)
        self._parts.clear()
        return self._inflated(whole) if self._deflated else whole

    def _inflated(self, content: bytes) -> bytes:
        if self._inflate is None:
            raise ValueError("A deflated message came, and deflating was not agreed upon.")
        inflated = self._inflate.decompress(content + TAIL)
        if not self._keeps_context:
            self._inflate = zlib.decompressobj(WINDOW_BITS)
        return inflated
