"""Lines of a request: taken when they are as they should be, and refused when not, however they come in pieces."""

from __future__ import annotations

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchat.strictness import StrictBuffer

LINE = st.binary(min_size=1, max_size=20).filter(
    lambda line: not set(line) & set(b"\r\n") and line[:1] not in b" \t"
)
CUTS = st.lists(st.integers(1, 9), max_size=40)


def lines_of(said: bytes, sizes: list[int]) -> list[bytearray] | None:
    """Read the lines of what comes in pieces of these sizes, the rest at once."""
    buffer = StrictBuffer()
    lines = None
    for size in [*sizes, len(said)]:
        piece, said = said[:size], said[size:]
        buffer += piece
        lines = buffer.maybe_extract_lines()
        if lines is not None:
            buffer += said
            assert bytes(buffer).endswith(b"body\n\r")
            return lines
    return lines


@given(st.lists(LINE, min_size=1), CUTS)
def test_lines_are_taken_however_they_come(lines: list[bytes], sizes: list[int]) -> None:
    said = b"".join(line + b"\r\n" for line in lines) + b"\r\nbody\n\r"
    assert lines_of(said, sizes) == lines


@given(LINE, st.sampled_from([b"\n", b"\r", b"\r\n ", b"\r\n\t", b"\n\r\n", b"\r\r\n"]), LINE, CUTS)
def test_odd_lines_are_refused_however_they_come(
    line: bytes, odd: bytes, next_line: bytes, sizes: list[int]
) -> None:
    said = line + odd + next_line + b"\r\n\r\nbody\n\r"
    with pytest.raises(h11.LocalProtocolError):
        lines_of(said, sizes)


def test_lines_are_waited_for_and_none_are_taken_at_once() -> None:
    buffer = StrictBuffer()
    buffer += b"GET / HTTP/1.1\r\nHost: localhost\r\n"
    assert buffer.maybe_extract_lines() is None
    buffer = StrictBuffer()
    buffer += b"\r\n"
    assert buffer.maybe_extract_lines() == []
