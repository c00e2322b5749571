"""Zip archives of strangers: opened within limits. Knows nothing of what is in them."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO, BinaryIO, cast

from llmchat.errors import Unreadable

DIRECTORY_BYTES = 16 * 1024 * 1024
"""Of the list of what is in an archive, which is read whole."""
MAX_ENTRIES = 100_000
"""Of our own archives, those of nearly 50,000 chats have so many."""
ENTRY = b"PK\x01\x02"
"""How an entry of the directory begins."""
HEADER_BYTES = 30
"""Before an entry's bytes, at least."""
KINDS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
FAILURES = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, ValueError, ArithmeticError, RuntimeError,
    LookupError,
)  # fmt: skip
"""What comes of a broken archive; of a place that no file has OSError, or of one in memory ValueError."""
BROKEN = "This zip archive is broken. Make it or download it again."
TOO_MANY = "This zip archive has too many files in it."
BOMB = "This zip archive unpacks to far more than is taken here."
SECRET = "This zip archive is encrypted. Unpack it, and import what is in it."  # nosec B105 # noqa: S105
OTHER_KIND = "This zip archive is compressed in a way that is not known here. Pack it in the usual way."


class ZipFile:
    """An archive in a file. Every method raises Unreadable."""

    def __init__(self, file: BinaryIO, most_bytes: int) -> None:
        """`most_bytes` is what its entries may have in all that are read."""
        self._left = most_bytes
        with _broken():
            self._zip = zipfile.ZipFile(cast(IO[bytes], _Directory(file)))
        self.entries: Sequence[zipfile.ZipInfo] = self._zip.infolist()
        ordered = sorted(self.entries, key=lambda entry: entry.header_offset)
        begins = [each.header_offset for each in ordered] + [self._zip.start_dir]
        for entry, end in zip(ordered, begins[1:], strict=True):
            if entry.header_offset + HEADER_BYTES + entry.compress_size > end:
                raise Unreadable(
                    BROKEN
                )  # two that have the same bytes: so a small archive becomes a large one

    @contextmanager
    def open(self, entry: zipfile.ZipInfo) -> Iterator[Entry]:
        """Open an entry for reading."""
        if entry.flag_bits & 1:
            raise Unreadable(SECRET)
        if entry.compress_type not in KINDS:
            raise Unreadable(OTHER_KIND)
        if entry.file_size > self._left:
            raise Unreadable(BOMB)
        with _broken():
            opened = self._zip.open(entry)
        with opened:
            yield Entry(self, opened)

    def count(self, size: int) -> None:
        """Count bytes that were unpacked."""
        self._left -= size
        if self._left < 0:
            raise Unreadable(BOMB)


class Entry:
    """An entry that is read."""

    def __init__(self, archive: ZipFile, opened: IO[bytes]) -> None:
        self._archive = archive
        self._opened = opened

    def read(self, size: int = -1) -> bytes:
        """Read on. Raises Unreadable."""
        with _broken():
            piece = self._opened.read(size)
        self._archive.count(len(piece))
        return piece


class _Directory:
    """The file as `zipfile` reads it: never more at once than a directory may have."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, size: int = -1) -> bytes:
        """Read on. Raises Unreadable."""
        piece = self._file.read(DIRECTORY_BYTES + 1 if size < 0 else min(size, DIRECTORY_BYTES + 1))
        if len(piece) > DIRECTORY_BYTES or piece.count(ENTRY) > MAX_ENTRIES:
            raise Unreadable(TOO_MANY)
        return piece


@contextmanager
def _broken() -> Iterator[None]:
    """Say of whatever an archive has wrong that it is broken."""
    try:
        yield
    except NotImplementedError:
        raise Unreadable(OTHER_KIND) from None
    except FAILURES:
        raise Unreadable(BROKEN) from None
