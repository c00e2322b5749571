"""Files of chats that are broken, or meant to break us: each is told in a sentence, and what can be read is."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zipfile
from collections.abc import Iterator
from typing import Any

import pytest

from llmchat import import_file
from llmchat.errors import Unreadable
from llmchat.import_file import ImportFile, LeftOut
from llmchat.transcript import Transcript
from llmchat.zip_file import BOMB, BROKEN, DIRECTORY_BYTES, OTHER_KIND, SECRET, TOO_MANY
from tests.trunk import as_json, chatgpt, ours, zipped

MIB = 1024 * 1024


def found(body: bytes) -> list[Transcript | LeftOut]:
    """Read all there is."""
    return list(ImportFile(io.BytesIO(body), len(body)).conversations())


def titles(body: bytes) -> list[str]:
    """Give the titles of the chats, and why anything is left out."""
    return [each.title if isinstance(each, Transcript) else each.why for each in found(body)]


def refused(body: bytes) -> str:
    """Tell why there is nothing in a file."""
    with pytest.raises(Unreadable) as caught:
        found(body)
    return caught.value.why


@pytest.mark.parametrize(
    "body",
    [
        as_json(ours()),
        b"\xef\xbb\xbf" + as_json(ours()),
        b" \n" + as_json([ours()]),
        zipped({"chats/1-a.json": as_json(ours()), "chats/1-a.md": b"# x", "README.txt": b"x"}),
        zipped({"folder/chats/1.json": as_json(ours())}, zipfile.ZIP_STORED),
    ],
)
def test_own_chats_are_known_by_their_bytes(body: bytes) -> None:
    assert titles(body) == ["A chat"]


def test_chatgpts_are_known_plain_and_in_their_archive_whole_or_in_parts() -> None:
    some, more = as_json([chatgpt(), chatgpt(title="Second")]), as_json([chatgpt(title="Third")])
    assert titles(some) == ["Old chat", "Second"]
    assert titles(zipped({"conversations.json": some, "user.json": b"{}", "x.dat": b"?"})) == [
        "Old chat",
        "Second",
    ]
    parts = {"export/conversations-001.json": more, "export/conversations-000.json": some}
    assert titles(zipped(parts)) == ["Old chat", "Second", "Third"]


@pytest.mark.parametrize(
    "body", [b"", b"hello", b"\x1f\x8b\x08\x00", b"<html>", b"\xff\xfe[\x00", b"\x00" * 9]
)
def test_what_is_no_file_of_chats_is_told(body: bytes) -> None:
    assert refused(body).endswith((".", "sends."))


@pytest.mark.parametrize(
    ("rest", "why"),
    [
        (b'{"title": "trunc', import_file.BROKEN),
        (b'{"title": NaN}]', import_file.BROKEN),
        (b'{"title": "\xff\xfe"}]', import_file.BROKEN),
        (b'{"title": ' + b"1" * 5000 + b"}]", import_file.BROKEN),
        (b"{]", import_file.BROKEN),
        (b"[" * 100_000, import_file.DEEP),
        (b'{"a":' * 100_000, import_file.DEEP),
        (b'{"title": "' + b"x" * 5 * MIB + b'"}]', import_file.UNBROKEN),
        (b'{"title": "' + b'\\"' * 3 * MIB + b'"}]', import_file.UNBROKEN),
        (b'{"title": "' + b"\\\\" * 3 * MIB + b'"}]', import_file.UNBROKEN),
        (b"1" * 5 * MIB + b"]", import_file.UNBROKEN),
        (b" " * 5 * MIB + b"1]", import_file.UNBROKEN),
    ],
)
def test_what_came_before_a_broken_place_is_kept(rest: bytes, why: str) -> None:
    assert titles(b"[" + as_json(ours()) + b"," + rest) == ["A chat", why]


def test_chat_that_is_too_large_is_skipped_to_its_end() -> None:
    many = b'{"title": "Huge", "mapping": {"x": [' + b",".join([b"{}"] * 400_000) + b"]}}"
    large = b'{"title": "Large", "x": [' + b",".join([b'"' + b"y" * MIB + b'"'] * 70) + b"]}"
    told = found(b"[" + many + b"," + as_json(ours()) + b"," + large + b"," + as_json(ours()) + b"]")
    assert [(each.title, isinstance(each, Transcript)) for each in told] == [
        ("Huge", False), ("A chat", True), ("Large", False), ("A chat", True),
    ]  # fmt: skip


def test_odd_json_is_read_as_far_as_it_goes() -> None:
    told = as_json(ours()).replace(b'"Hi"', b'"\\ud800 Hi \\u0000"', 1)
    assert titles(told) == ["A chat"]
    assert titles(b'[{"a": 1.5e300, "b": -12345678901234567}, 5, null]') == ["This is no conversation."] * 3
    assert titles(b'[{"a": 1e999}]') == titles(b"[123456789012345678901234567890]") == [import_file.BROKEN]
    assert titles(as_json(ours()) + b" {}") == ["A chat", import_file.BROKEN]


def test_more_chats_than_are_imported_at_once_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_file, "MAX_CONVERSATIONS", 2)
    assert titles(as_json([ours()] * 4)) == ["A chat", "A chat", import_file.TOO_MANY]


# Zip archives


def patched(body: bytes, at: int, form: str, value: int, head: bytes = b"PK\x01\x02") -> bytes:
    """Change a field of the first header of a kind."""
    start = body.index(head) + at
    return body[:start] + struct.pack(form, value) + body[start + struct.calcsize(form) :]


CHAT = zipped({"chats/1.json": as_json(ours())})


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (zipped({"a.txt": b"x"}), import_file.NO_CHATS),
        (zipped({}), import_file.NO_CHATS),
        (CHAT[: len(CHAT) // 2], BROKEN),
        (CHAT[:-10], BROKEN),
        (b"PK\x03\x04" + b"\x00" * 100, BROKEN),
        (patched(CHAT, 42, "<I", 0xFFFFFF), BROKEN),  # where the entry begins
        (patched(CHAT, 20, "<I", 0xFFFFFF), BROKEN),  # how much it takes
    ],
)
def test_archives_without_chats_and_broken_ones_are_told(body: bytes, why: str) -> None:
    assert refused(body) == why


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (patched(patched(CHAT, 8, "<H", 1), 6, "<H", 1, b"PK\x03\x04"), SECRET),
        (patched(CHAT, 10, "<H", 99), OTHER_KIND),
        (zipped({"chats/1.json": as_json(ours())}, zipfile.ZIP_BZIP2), OTHER_KIND),
        (zipped({"chats/1.json": as_json(ours())}, zipfile.ZIP_LZMA), OTHER_KIND),
        (patched(CHAT, 16, "<I", 0), BROKEN),  # its checksum
        (CHAT.replace(b"chats/1.json", b"chats/2.json", 1), BROKEN),  # another name in the entry itself
    ],
)
def test_entries_that_cannot_be_read_are_told_and_others_are_read(body: bytes, why: str) -> None:
    assert titles(body)[-1] == why


def test_entry_that_lies_about_its_size_is_no_longer_than_it_says() -> None:
    assert titles(patched(patched(CHAT, 24, "<I", 50), 22, "<I", 50, b"PK\x03\x04"))[-1] in (
        BROKEN,
        import_file.BROKEN,
    )


def test_bombs_go_off_outside() -> None:
    flat = zipped({"conversations.json": b"[" + b" " * 60 * MIB + b"]"})
    assert titles(flat) == [BOMB]
    quoted = zipped({"conversations.json": b"[" + b'"",' * 20 * MIB + b'""]'})
    tracemalloc.start()
    told = found(quoted)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert isinstance(told[-1], LeftOut)
    assert told[-1].why in (BOMB, import_file.TOO_MANY)
    assert peak < 40 * MIB


def test_many_entries_within_limits_each_count_together() -> None:
    body = zipped({f"chats/{at}.json": b" " * MIB for at in range(40)})
    assert BOMB in titles(body)


def test_entries_that_have_the_same_bytes_are_refused() -> None:
    directory = CHAT[CHAT.index(b"PK\x01\x02") : CHAT.index(b"PK\x05\x06")]
    head = CHAT[: CHAT.index(b"PK\x01\x02")]
    end = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 2, 2, 2 * len(directory), len(head), 0)
    assert refused(head + directory + directory.replace(b"chats/1", b"chats/2") + end) == BROKEN


def test_directory_that_is_too_large_is_not_read() -> None:
    many = io.BytesIO()
    with zipfile.ZipFile(many, "w") as archive:
        for at in range(40_001):
            archive.writestr(str(at), b"")
    assert refused(many.getvalue()) == TOO_MANY
    named = io.BytesIO()
    with zipfile.ZipFile(named, "w") as archive:
        for at in range(DIRECTORY_BYTES // 60_000 + 2):
            archive.writestr(f"{at:060000}", b"")
    assert refused(named.getvalue()) == TOO_MANY


def test_archive_in_an_archive_is_not_opened() -> None:
    assert refused(zipped({"chats/inner.zip": CHAT, "conversations.json.zip": CHAT})) == import_file.NO_CHATS


def test_reading_that_is_given_up_ends() -> None:
    body = as_json([ours()] * 20_000)
    source = ImportFile(io.BytesIO(body), len(body))
    chats: Iterator[Any] = source.conversations()
    next(chats)
    source.stop()
    assert len(list(chats)) < 1000


def test_nothing_but_the_conversation_that_is_read_is_in_memory() -> None:
    class Endless(io.RawIOBase):
        """A file that is made as it is read."""

        def __init__(self, count: int) -> None:
            self.left, self.held, self.pos = count, b"[", 0
            self.one = as_json(ours(title="x" * 100_000))

        def read(self, size: int = -1) -> bytes:
            while len(self.held) < size and self.left:
                self.left -= 1
                self.held += self.one + (b"," if self.left else b"]")
            piece, self.held = self.held[:size], self.held[size:]
            return piece

        def seek(self, at: int, whence: int = 0) -> int:
            self.held, self.left = b"[", self.left if at else 60
            return at

    tracemalloc.start()
    source = ImportFile(Endless(60), 50 * MIB)  # type: ignore[arg-type]
    assert sum(isinstance(each, Transcript) for each in source.conversations()) == 60
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * MIB  # of 6
