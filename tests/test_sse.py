"""Server-sent events, piece by piece; the SDK's own decoder is the measure."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from openai._streaming import SSEDecoder

from llmchat.sse import Events

LINES = st.sampled_from(
    [
        "data: {}",
        "data:{}",
        "data: a",
        "data:  b",
        "data:",
        "data",
        "event: e",
        ": note",
        "retry: 3",
        "other",
        "",
        "é",
    ]
)
ENDS = st.sampled_from(["\n", "\r\n", "\r"])


def read(pieces: list[bytes]) -> list[str]:
    events = Events()
    return [data.decode() for piece in pieces for data in events.feed(piece)]


@given(lines=st.lists(st.tuples(LINES, ENDS)), cuts=st.sets(st.integers(0, 200)))
@example(lines=[("data: a", "\r\n"), ("", "\r\n")], cuts={8})
@example(lines=[("data: a", "\r"), ("", "\n"), ("", "\n")], cuts={8})
def test_events_are_those_of_the_sdk(lines: list[tuple[str, str]], cuts: set[int]) -> None:
    stream = "".join(line + end for line, end in lines).encode()
    pieces = [stream[start:end] for start, end in itertools.pairwise(sorted({0, len(stream), *cuts}))]
    of_the_sdk = [event.data for event in SSEDecoder().iter_bytes(iter([stream]))]
    # It also tells of events that have no data, only a name or a time: nothing is said by them.
    assert read(pieces) == [data for data in of_the_sdk if data]


def test_blank_line_behind_both_kinds_of_ends_is_one() -> None:
    assert read([bytes([byte]) for byte in b"data: 1\r\n\ndata: 2\n\n"]) == ["1", "2"]


def test_event_comes_with_the_carriage_return_that_ends_it() -> None:
    assert read([b"data: a\r\r"]) == ["a"]


@pytest.mark.parametrize("size", [1, 7, 4096])
def test_long_line_comes_whole_in_whatever_pieces(size: int) -> None:
    stream = b"data: " + b"x" * 300_000 + b"\n\n"
    assert read([stream[at : at + size] for at in range(0, len(stream), size)]) == ["x" * 300_000]
