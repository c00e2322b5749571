"""A file of chats, of ours or of ChatGPT: what it is by its bytes, and one conversation of it after another.

Reads within limits of memory, whatever is in it; knows no store. It is for a thread.
"""

from __future__ import annotations

import logging
import math
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any, BinaryIO, Protocol

import ijson

from llmchat import chatgpt, transcript
from llmchat.errors import Unreadable
from llmchat.transcript import Transcript
from llmchat.zip_file import ZipFile

BUFFER_BYTES = 64 * 1024
CONVERSATION_BYTES = 64 * 1024 * 1024
"""Of one conversation in memory, roughly."""
PART_BYTES = 250
"""Of an object or a list, beside what is in it."""
DEEPEST = 100
UNBROKEN_BYTES = 4 * 1024 * 1024
"""So many in a row without a quotation mark are a text of several megabytes, or nothing sound."""
MAX_CONVERSATIONS = 10_000
UNPACKED_BYTES = 500_000_000
"""What may come of an archive, …"""
UNPACKED = 10
"""… or so many times what it has, where that is more."""
MAX_ATTACHMENT_BYTES = 20_000_000
QUOTE = re.compile(rb'(?:[^"\\]++|\\.)*+"', re.DOTALL)
LARGE = re.compile(rb"\d{19}|\d[eE]\+?\d{3}")
"""What a number looks like that the parser ends at: of others than C's it makes none."""
NUMBER_ENDS = b"0123456789+-.eE"
TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)|(-?\d[\d.eE+-]*+)', re.DOTALL)
LONGEST_NUMBER = 400
OURS = re.compile(r"(?:^|/)chats/[^/]+\.json$")
CHATGPTS = re.compile(r"(?:^|/)conversations(?:-\d+)?\.json$")
ATTACHMENT = re.compile(r"(?:^|/)attachments/([A-Za-z0-9_-]{1,64})/[^/]+$")
ZIPS = (b"PK\x03\x04", b"PK\x05\x06")
BOM = b"\xef\xbb\xbf"
SHALLOW = "metadata"
"""In ChatGPT's messages: of what is in it only plain values are read."""

EMPTY = "The file is empty. Choose the one with your chats."
OTHER_FILE = "This is no file of chats: a JSON file or zip archive that was exported here, or the one that ChatGPT sends."
NO_CHATS = (
    "There are no chats in this zip archive: none of this program's, and no conversations.json of ChatGPT's."
)
BROKEN = "The file is broken, or not whole, from some place on: what comes after that could not be read."
DEEP = "The file is nested too deeply: what comes after that could not be read."
UNBROKEN = "The file has a text of several megabytes in one piece: what comes after that could not be read."
TOO_LARGE = "It is too large."
ODD = "It could not be read."
NAMELESS = "A chat without a title"
TOO_MANY = (
    f"These are more than {MAX_CONVERSATIONS:,} new chats at once: import the same file again for the others."
)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A conversation that is not to be had, or with "" for its title all of what comes after, and why."""

    title: str
    why: str


class Readable(Protocol):
    """What is read."""

    def read(self, size: int = -1) -> bytes: ...


class ImportFile:
    """A file of so many bytes. Raises Unreadable where there is nothing in it to read."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._stopped = False
        self._given = 0
        self._zip: ZipFile | None = None
        self._entries: list[Any] = []
        self.attachments: dict[str, Any] = {}
        """Of an archive: by the id that its conversations know."""
        self.read = 0
        """Bytes of text so far."""
        self.of = size
        file.seek(0)
        head = file.read(4)
        file.seek(0)
        if not head:
            raise Unreadable(EMPTY)
        if head in ZIPS:
            self._open(ZipFile(file, max(UNPACKED_BYTES, size * UNPACKED)))
        elif head.removeprefix(BOM).lstrip()[:1] not in (b"{", b"[", b""):
            raise Unreadable(OTHER_FILE)

    def _open(self, archive: ZipFile) -> None:
        """Find in an archive what there is to read."""
        self._zip = archive
        for entry in archive.entries:
            if OURS.search(entry.filename) or CHATGPTS.search(entry.filename):
                self._entries.append(entry)
            elif found := ATTACHMENT.search(entry.filename):
                self.attachments[found[1]] = entry
        if not self._entries:
            raise Unreadable(NO_CHATS)
        self._entries.sort(key=lambda entry: entry.filename)
        self.of = sum(entry.file_size for entry in self._entries)

    def stop(self) -> None:
        """Have whoever reads, in another thread, end."""
        self._stopped = True

    def conversations(self) -> Iterator[Transcript | LeftOut]:
        """Give what can be read, one after the other; no more than so many of which none was discounted."""
        for found in self._found():
            if self._given >= MAX_CONVERSATIONS:
                yield LeftOut("", TOO_MANY)
                return
            self._given += 1
            yield found

    def discount(self) -> None:
        """Have the last conversation not count: it is nothing new, and whoever repeats an import gets further."""
        self._given -= 1

    def attachment(self, name: str) -> bytes | None:
        """Read a file that is in the archive; None where it is not. Raises Unreadable."""
        entry = self.attachments.get(name)
        if entry is None or self._zip is None or entry.file_size > MAX_ATTACHMENT_BYTES:
            return None
        with self._zip.open(entry) as opened:
            return opened.read(MAX_ATTACHMENT_BYTES)

    def _found(self) -> Iterator[Transcript | LeftOut]:
        if self._zip is None:
            yield from self._of(self._file)
            return
        for entry in self._entries:
            try:
                with self._zip.open(entry) as opened:
                    yield from self._of(opened)
            except Unreadable as error:
                yield LeftOut("", error.why)

    def _of(self, file: Readable) -> Iterator[Transcript | LeftOut]:
        """Give what can be read of one text; where that ends, say why."""
        try:
            for value in _values(_Text(file, self._took)):
                yield _conversation(value) if not isinstance(value, LeftOut) else value
        except Unreadable as error:
            yield LeftOut("", error.why)

    def _took(self, size: int) -> None:
        if self._stopped:
            raise Unreadable(BROKEN)
        self.read += size


def _conversation(value: object) -> Transcript | LeftOut:
    """Read a conversation, whosever it is."""
    try:
        if chatgpt.is_one(value):
            return chatgpt.read(value)  # type: ignore[arg-type]
        return transcript.read(value)
    except Unreadable as error:
        return LeftOut(_title(value), error.why)
    except Exception as error:
        # A bug of ours: it costs this chat and no other. What the error says may be words of the chat.
        log.error(
            "A chat of an import cannot be read: %s\n%s",
            type(error).__name__,
            "".join(traceback.format_tb(error.__traceback__)),
        )
        return LeftOut(_title(value), ODD)


def _title(value: object) -> str:
    """Give what a person may know a conversation by."""
    told: Any = value if isinstance(value, dict) else {}
    if isinstance(told.get("conversation"), dict):
        told = told["conversation"]
    return transcript.sound_title(told.get("title"), untitled=NAMELESS)


class _Text:
    """JSON as the parser reads it: it keeps a whole text, however long that is, so none is let through.

    Nor are numbers that it ends at, or fails at badly: they are others, as near as may be, or null.
    """

    def __init__(self, file: Readable, took: Any) -> None:
        self._file = file
        self._took = took
        self._first = True
        self._unbroken = 0
        self._escaped = False
        self._quoted = False
        """In a text, where the next piece begins."""

    def read(self, size: int = -1) -> bytes:
        """Read on, up to no place within a number. Raises Unreadable."""
        if self._unbroken > UNBROKEN_BYTES:
            raise Unreadable(UNBROKEN)
        size = BUFFER_BYTES if size < 0 else size
        piece = self._next(size)
        if self._first and piece:
            self._first = False
            piece = piece.removeprefix(BOM)
        start, quoted = int(self._escaped), self._quoted
        self._follow(piece)
        whole = piece
        while not self._quoted and piece and piece[-1] in NUMBER_ENDS and len(whole) < 2 * size:
            piece = self._next(LONGEST_NUMBER)
            self._follow(piece)
            whole += piece
        return _without_large(whole, start, quoted)

    def _next(self, size: int) -> bytes:
        piece = self._file.read(size)
        self._took(len(piece))
        return piece

    def _follow(self, piece: bytes) -> None:
        """See where texts begin and end."""
        bare = piece[int(self._escaped) :].replace(rb"\\", b"").replace(rb"\"", b"")
        quotes = bare.count(b'"')
        self._unbroken = 0 if quotes else self._unbroken + len(piece)
        self._quoted ^= quotes % 2 == 1
        self._escaped = bare.endswith(b"\\") if piece else self._escaped


def _without_large(piece: bytes, start: int, quoted: bool) -> bytes:
    """Put others in the place of numbers that are too large."""
    if not LARGE.search(piece):
        return piece
    if quoted:
        end = QUOTE.match(piece, start)
        start = end.end() if end else len(piece)
    return piece[:start] + TOKEN.sub(_as_float, piece[start:])


def _as_float(token: re.Match[bytes]) -> bytes:
    number = token[1]
    if number is None or not LARGE.search(number):
        return token[0]
    try:
        told = float(number) if len(number) <= LONGEST_NUMBER else math.inf
    except ValueError:
        return number
    return repr(told).encode() if math.isfinite(told) else b"null"


def _values(text: _Text) -> Iterator[object]:
    """Give the values of a list, or the one that there is. Raises Unreadable at what is no JSON."""
    with _broken():
        # With numbers as the parser has them: of others ijson makes ints, and fails badly at 4,300 digits.
        events = iter(ijson.basic_parse(text, buf_size=BUFFER_BYTES, use_float=True))
        first = next(events)
        if first[0] != "start_array":
            yield _Built(events).value(first)
            next(events, None)  # there is to be nothing more
            return
        for event in events:
            if event[0] == "end_array":
                next(events, None)
                return
            yield _Built(events).value(event)


@contextmanager
def _broken() -> Iterator[None]:
    try:
        yield
    except (ijson.JSONError, ValueError, ArithmeticError, StopIteration):
        raise Unreadable(BROKEN) from None


class _Built:
    """One value, made of the parser's events within limits of memory and of depth."""

    def __init__(self, events: Iterator[tuple[str, Any]]) -> None:
        self._events = events
        self._open: list[Any] = [[]]
        self._keys: list[Any] = [None]
        self._left = CONVERSATION_BYTES
        self._shallow = 0
        """The depth of what only plain values are read of."""

    def value(self, first: tuple[str, Any]) -> object:
        """Build it; of one that is too large, find its end."""
        for event, given in chain([first], self._events):
            self._take(event, given)
            if self._left < 0:
                return self._skipped()
            if len(self._open) == 1:
                break
        return self._open[0][0] if self._open[0] else None

    def _take(self, event: str, given: Any) -> None:
        if event == "map_key":
            self._keys[-1] = given
            self._left -= sys.getsizeof(given)
        elif event in ("start_map", "start_array"):
            self._left -= PART_BYTES
            self._enter({} if event == "start_map" else [])
        elif event in ("end_map", "end_array"):
            self._leave()
        else:
            self._left -= sys.getsizeof(given)
            self._put(given)

    def _enter(self, part: Any) -> None:
        if len(self._open) > DEEPEST:
            raise Unreadable(DEEP)
        if not self._shallow:
            self._put(part)
            if self._keys[-1] == SHALLOW:
                self._shallow = len(self._open)
        self._open.append(part)
        self._keys.append(None)

    def _leave(self) -> None:
        self._open.pop()
        self._keys.pop()
        if len(self._open) == self._shallow:
            self._shallow = 0

    def _put(self, value: Any) -> None:
        within = self._open[-1]
        if isinstance(within, dict):
            within[self._keys[-1]] = value
        else:
            within.append(value)

    def _skipped(self) -> LeftOut:
        """Let go of what there is, and find the end."""
        depth, title = len(self._open) - 1, _title(self._open[0][0])
        self._open.clear()
        for event, _ in self._events:
            depth += (event in ("start_map", "start_array")) - (event in ("end_map", "end_array"))
            if not depth:
                break
        return LeftOut(title, TOO_LARGE)
