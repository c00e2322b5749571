"""Pure: what h11 and Hypercorn take of a request, and a proxy may read otherwise. Knows no connection."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass

import h11
from h11._receivebuffer import ReceiveBuffer

CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
ODD_LINE = re.compile(rb"(?<!\r)\n|\r(?!\n|\Z)|\n[ \t]")
"""A line that ends with a bare LF or CR, or goes on in the next one."""
END = b"\r\n\r\n"
KEY_BYTES = 16
WEBSOCKET_VERSION = b"13"


@dataclass(frozen=True, slots=True)
class Refused:
    """How a request is answered that goes no further."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...] = ()


BAD_REQUEST = Refused(400)
NO_SUCH_HTTP = Refused(505)
OTHER_VERSION = Refused(
    426,
    (
        (b"upgrade", b"websocket"),
        (b"connection", b"upgrade"),
        (b"sec-websocket-version", WEBSOCKET_VERSION),
    ),
)


def refusal(request: h11.Request) -> Refused | None:
    """Tell how a request is refused, if it is."""
    if request.http_version not in (b"1.0", b"1.1"):
        return NO_SUCH_HTTP
    length, coded = _values(request, b"content-length"), _values(request, b"transfer-encoding")
    # Of two lengths a proxy may have believed the other one.
    if coded and (length or request.http_version == b"1.0"):
        return BAD_REQUEST
    # Another form than that of a path may name another host than the one that is looked at.
    if not request.target.startswith(b"/") and (request.method, request.target) != (b"OPTIONS", b"*"):
        return BAD_REQUEST
    if any(CONTROL.search(value) for _, value in request.headers):
        return BAD_REQUEST
    if _asks_for_websocket(request):
        # Its body would be read as frames.
        has_body = coded or length not in ([], [b"0"])
        return BAD_REQUEST if has_body or request.http_version == b"1.0" else _refused_handshake(request)
    return None


class StrictBuffer(ReceiveBuffer):
    """Takes lines that end with CRLF, and of one header each. Raises LocalProtocolError, as h11's readers do."""

    def maybe_extract_lines(self) -> list[bytearray] | None:
        """Take all lines up to the first empty one, once it is there."""
        if self._data.startswith(b"\r\n"):
            self._extract(2)
            return []
        since = self._multiple_lines_search
        found = self._data.find(END, since)
        end = len(self._data) if found < 0 else found + len(END)
        if ODD_LINE.search(self._data, since, end):
            raise h11.LocalProtocolError("a line that does not end with CRLF, or goes on in the next")
        if found < 0:
            self._multiple_lines_search = max(0, end - len(END) + 1)
            return None
        return self._extract(end)[: -len(END)].split(b"\r\n")


def _values(request: h11.Request, wanted: bytes) -> list[bytes]:
    return [value for name, value in request.headers if name == wanted]


def _asks_for_websocket(request: h11.Request) -> bool:
    return any(value.lower() == b"websocket" for value in _values(request, b"upgrade"))


def _refused_handshake(request: h11.Request) -> Refused | None:
    if _values(request, b"sec-websocket-version") != [WEBSOCKET_VERSION]:
        return OTHER_VERSION
    keys = _values(request, b"sec-websocket-key")
    return None if len(keys) == 1 and _is_key(keys[0]) else BAD_REQUEST


def _is_key(value: bytes) -> bool:
    try:
        return len(base64.b64decode(value, validate=True)) == KEY_BYTES
    except binascii.Error:
        return False
