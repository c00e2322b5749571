"""permessage-deflate (RFC 7692), bounded both ways; wsproto's own is not.

What comes is inflated up to a limit, where wsproto makes 187 MB of 200 kB. What goes is compressed frame by frame
by `deflated`, with a small window, and never by wsproto.
"""

from __future__ import annotations

import re
import zlib
from typing import Any

from wsproto.extensions import Extension
from wsproto.frame_protocol import CloseReason, FrameDecoder, FrameProtocol, Opcode, RsvBits

WINDOW_BITS = 12
MEMORY_LEVEL = 4
"""Both together: some 30 KiB for each connection that an answer is written to."""
LEVEL = 6
PARAMETER = re.compile(
    r'(client|server)_(no_context_takeover|max_window_bits(?:="?(8|9|1[0-5])"?)?)', re.ASCII
)
SLACK = 1024
"""Bytes by which a compressed message may be longer than it was."""
TAIL = b"\x00\x00\xff\xff"
"""Ends each message, and is not sent."""


class Deflate(Extension):
    """The extension on one connection."""

    name = "permessage-deflate"

    def __init__(self, most: int) -> None:
        """`most` is of bytes in a message that comes: of a longer one, so many and one are given."""
        self._most = most
        self._enabled = False
        self._compressor: Any = None  # while there is something to compress
        self._used = False  # since the last `rest`
        self._inflater: Any = None  # of a compressed message that is coming
        self._room = 0  # left of `most`, and one more
        self._input_left = 0  # of what may come of it, compressed: it need not become anything
        self._is_control = False  # the frame that is coming

    def deflated(self, payload: bytes) -> bytes:
        """Compress a message that is the next one to be sent compressed; those between them may go as they are."""
        if self._compressor is None:
            self._compressor = zlib.compressobj(LEVEL, zlib.DEFLATED, -WINDOW_BITS, MEMORY_LEVEL)
        self._used = True
        deflated: bytes = self._compressor.compress(payload) + self._compressor.flush(zlib.Z_SYNC_FLUSH)
        return deflated[: -len(TAIL)]

    def rest(self) -> bool:
        """Let go of the window where nothing was compressed since the last time, and tell so: the peer need not know."""
        rests, self._used = not self._used, False
        if rests:
            self._compressor = None
        return rests

    def enabled(self) -> bool:
        return self._enabled

    def offer(self) -> bool:
        return False

    def accept(self, offer: str) -> str | None:
        """Accept an offer that lets us keep our window between messages; the client is to keep none."""
        answer = ["client_no_context_takeover"]
        parameters = [each.strip() for each in offer.split(";")[1:]]
        if len({each.partition("=")[0] for each in parameters}) < len(parameters):
            return None
        for parameter in parameters:
            match = PARAMETER.fullmatch(parameter)
            if match is None or parameter == "server_no_context_takeover":
                return None
            if parameter.startswith("server_max_window_bits"):
                if int(match[3] or 0) < WINDOW_BITS:
                    return None
                answer.append(f"server_max_window_bits={WINDOW_BITS}")
        if self._enabled:
            return None
        self._enabled = True
        return "; ".join(answer)

    def frame_inbound_header(
        self, proto: FrameDecoder | FrameProtocol, opcode: Opcode, rsv: RsvBits, payload_length: int
    ) -> CloseReason | RsvBits:
        """Learn which frame is coming; wsproto may ask twice."""
        self._is_control = opcode.iscontrol()
        if rsv.rsv1 and (self._is_control or opcode is Opcode.CONTINUATION):
            return CloseReason.PROTOCOL_ERROR
        if rsv.rsv1:
            self._inflater, self._room = zlib.decompressobj(-zlib.MAX_WBITS), self._most + 1
            self._input_left = self._most + SLACK
        elif not self._is_control and opcode is not Opcode.CONTINUATION:
            self._inflater = None
        return RsvBits(True, False, False)

    def frame_inbound_payload_data(
        self, proto: FrameDecoder | FrameProtocol, data: bytes
    ) -> bytes | CloseReason:
        """Inflate a piece of a frame."""
        return data if self._is_control or self._inflater is None else self._inflated(self._inflater, data)

    def frame_inbound_complete(
        self, proto: FrameDecoder | FrameProtocol, fin: bool
    ) -> bytes | CloseReason | None:
        """Inflate what a message has left."""
        if self._is_control or self._inflater is None or not fin:
            return None
        last = self._inflated(self._inflater, TAIL)
        self._inflater = None
        return last

    def _inflated(self, inflater: Any, data: bytes) -> bytes | CloseReason:
        self._input_left -= len(data)
        if self._input_left < 0:
            return CloseReason.MESSAGE_TOO_BIG
        if not self._room:  # to zlib, none is no limit
            return b""
        try:
            inflated: bytes = inflater.decompress(data, self._room)
        except zlib.error:
            return CloseReason.INVALID_FRAME_PAYLOAD_DATA
        self._room -= len(inflated)
        return inflated
