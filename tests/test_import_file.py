"""Files of chats that are broken, or meant to break us: each is told in a sentence, and what can be read is."""

from __future__ import annotations

import io
import json
import struct
import tracemalloc
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchat import import_file, zip_file
from llmchat.errors import Unreadable
from llmchat.import_file import ImportFile, LeftOut
from llmchat.transcript import Transcript
from llmchat.zip_file import BOMB, BROKEN, DIRECTORY_BYTES, OTHER_KIND, SECRET, TOO_MANY
from tests.trunk import as_json, chatgpt, message, ours, zipped

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
        (b'{"title": ' + b"1" * 500_000 + b"}]", import_file.BROKEN),
        (b"{]", import_file.BROKEN),
        (b"[" * 100_000, import_file.DEEP),
        (b'{"a":' * 100_000, import_file.DEEP),
        (b'{"title": "' + b"x" * 5 * MIB + b'"}]', import_file.UNBROKEN),
        (b'{"title": "' + b'\\"' * 3 * MIB + b'"}]', import_file.UNBROKEN),
        pytest.param(
            b'{"title": "' + b"\\\\" * 3 * MIB + b'"}]', import_file.UNBROKEN, marks=pytest.mark.long
        ),
        (b" " * 5 * MIB + b"1]", import_file.UNBROKEN),
    ],
)
def test_what_came_before_a_broken_place_is_kept(rest: bytes, why: str) -> None:
    assert titles(b"[" + as_json(ours()) + b"," + rest) == ["A chat", why]


def test_chat_that_is_too_large_is_skipped_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_file, "CONVERSATION_BYTES", 4 * MIB)
    many = b'{"title": "Huge", "mapping": {"x": [' + b",".join([b"{}"] * 30_000) + b"]}}"
    large = b'{"title": "Large", "x": [' + b",".join([b'"' + b"y" * MIB + b'"'] * 6) + b"]}"
    told = found(b"[" + many + b"," + as_json(ours()) + b"," + large + b"," + as_json(ours()) + b"]")
    assert [(each.title, isinstance(each, Transcript)) for each in told] == [
        ("Huge", False), ("A chat", True), ("Large", False), ("A chat", True),
    ]  # fmt: skip


def test_odd_json_is_read_as_far_as_it_goes() -> None:
    told = as_json(ours()).replace(b'"Hi"', b'"\\ud800 Hi \\u0000"', 1)
    assert titles(told) == ["A chat"]
    assert titles(b'[{"a": 1.5e300, "b": -12345678901234567}, 5, null]') == ["This is no conversation."] * 3
    assert titles(as_json(ours()) + b" {}") == ["A chat", import_file.BROKEN]


NUMBERS = [b"1e999", b"-1E+400", b"123456789012345678901234567890", b"0." + b"1" * 30_000, b"1" * 5000]


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("before", [0, 65_500, 65_520, 65_530])
def test_number_that_no_chat_has_costs_nothing(number: bytes, before: int) -> None:
    told = as_json(ours(title='1e999 \\" 12345678901234567890 \\'))
    wide = (
        b"[" + b" " * before + b'{"x": [' + number + b", " + number + b"], " + told[1:] + b"," + told + b"]"
    )
    assert titles(wide) == ['1e999 \\" 12345678901234567890 \\'] * 2


@given(st.lists(st.text('\\\\"e19', max_size=40), max_size=30), st.integers(1, 60))
def test_numbers_in_texts_stay_as_they_are(texts: list[str], size: int) -> None:
    told, text = as_json([[1, 1.5, *texts], -2]), b""
    reader = import_file._Text(io.BytesIO(told), lambda size: None)
    while piece := reader.read(size):
        text += piece
    assert json.loads(text) == json.loads(told)


def test_more_chats_than_are_imported_at_once_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_file, "MAX_CONVERSATIONS", 2)
    assert titles(as_json([ours()] * 4)) == ["A chat", "A chat", import_file.TOO_MANY]


def test_chat_that_we_fail_at_is_left_out_and_no_word_of_it_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(value: dict[str, Any]) -> Transcript:
        raise KeyError(value["title"])

    body = as_json([ours(), chatgpt(title="Odd"), ours()])
    monkeypatch.setattr(import_file.chatgpt, "read", fails)
    told = found(body)
    assert [each.title for each in told] == ["A chat", "Odd", "A chat"]
    assert told[1] == LeftOut("Odd", import_file.ODD)
    assert "KeyError" in caplog.text
    assert "Odd" not in caplog.text


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


@pytest.mark.parametrize(("at", "change"), [(12, 200), (16, 200)])
def test_archive_whose_directory_is_elsewhere_than_it_says_is_broken(
    at: int, change: int, tmp_path: Path
) -> None:
    (told,) = struct.unpack_from("<I", CHAT, CHAT.index(b"PK\x05\x06") + at)
    moved = patched(CHAT, at, "<I", told + change, b"PK\x05\x06")
    path = tmp_path / "moved.zip"
    for body in (moved, CHAT[:10] + CHAT[40:]):
        path.write_bytes(body)
        with path.open("rb") as file:
            for source in (io.BytesIO(body), file):
                assert why(source, len(body)) == BROKEN


def why(source: Any, size: int) -> str:
    """Tell why there is nothing in a file, said at once or of all that is in it."""
    try:
        (left_out,) = ImportFile(source, size).conversations()
    except Unreadable as error:
        return error.why
    assert isinstance(left_out, LeftOut)
    return left_out.why


def test_answers_in_a_loop_are_no_bomb() -> None:
    loop = ("the same words again and again, " * 6200)[:190_000]
    turns = [message(f"p{at}") for at in range(8)] + [
        message(f"a{at}", f"p{at}", "assistant", loop) for at in range(8)
    ]
    body = zipped({"chats/1.json": as_json(ours(*turns))})
    (chat,) = found(body)
    assert isinstance(chat, Transcript)
    assert chat.lost == ()
    assert {each["text"] for each in chat.messages if each["role"] == "assistant"} == {loop}


def test_bombs_go_off_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_file, "UNPACKED_BYTES", 30 * MIB)
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


def test_many_entries_within_limits_each_count_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_file, "UNPACKED_BYTES", 3 * MIB)
    body = zipped({f"chats/{at}.json": b" " * (MIB // 10) for at in range(40)})
    assert BOMB in titles(body)


def test_entries_that_have_the_same_bytes_are_refused() -> None:
    directory = CHAT[CHAT.index(b"PK\x01\x02") : CHAT.index(b"PK\x05\x06")]
    head = CHAT[: CHAT.index(b"PK\x01\x02")]
    end = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 2, 2, 2 * len(directory), len(head), 0)
    assert refused(head + directory + directory.replace(b"chats/1", b"chats/2") + end) == BROKEN


def test_directory_that_is_too_large_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    many = zipped({f"chats/{at}.json": as_json(ours()) for at in range(21)})
    assert len(found(many)) == 21
    monkeypatch.setattr(zip_file, "MAX_ENTRIES", 20)
    assert refused(many) == TOO_MANY
    monkeypatch.undo()
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


@pytest.mark.long
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
