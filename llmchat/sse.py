"""A stream of server-sent events: bytes in, the data of whole events out. Pure.

The SDK's own reader gives one event at a time, through five generators; this one gives all that came at once.
"""

from __future__ import annotations

import re

LINE = re.compile(rb"([^\r\n]*)(?:\r\n|\n|\r)")


class Events:
    """Reads one stream. Fields other than `data` say nothing here, nor does an event without, or one that has not
    ended.
    """

    def __init__(self) -> None:
        self._rest = bytearray()  # of a line that has not ended
        self._data: list[bytes] = []  # of an event that has not ended
        self._returned = False  # the last line ended in a carriage return: a line feed may belong to it

    def feed(self, piece: bytes) -> list[bytes]:
        """Take the next bytes; gives the data of the events that end in them."""
        if not piece:
            return []
        if self._returned:
            piece = piece.removeprefix(b"\n")
        self._returned = piece.endswith(b"\r")
        if b"\n" not in piece and b"\r" not in piece:
            self._rest += piece  # not looked at again until the line ends
            return []
        whole = bytes(self._rest) + piece
        lines = whole.split(b"\n")
        if b"\r" in whole:
            ends = list(LINE.finditer(whole))
            lines = [end[1] for end in ends] + [whole[ends[-1].end() :]]
        self._rest = bytearray(lines.pop())
        return [data for line in lines if (data := self._take(line)) is not None]

    def _take(self, line: bytes) -> bytes | None:
        """Take a line; gives the data of the event that it ends."""
        if line.startswith(b"data:"):
            self._data.append(line[6:] if line[5:6] == b" " else line[5:])
        elif line == b"data":
            self._data.append(b"")
        elif not line and self._data:
            data, self._data = b"\n".join(self._data), []
            return data or None
        return None
