"""The bench's own parts: what they count, inflate, say and sum up is right."""

from __future__ import annotations

import json
import math
import struct
import zlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.answer import Answer, asked_for, pieces_of
from bench.answers import Run, carries
from bench.browser import Changed, Ours
from bench.figures import Delays, Spread, percentile
from bench.frames import CLOSE, FIN, PING, RSV1, TEXT, WINDOW_BITS, Counter, Reader, frame_of, unmasked
from bench.machine import Usage
from bench.model import Model
from bench.table import ROWS, aligned, table_of
from llmchat.completion import Completions
from llmchat.model_stream import Deadlines
from llmchat.provider import Provider

LENGTHS = st.one_of(st.integers(0, 300), st.sampled_from([125, 126, 127, 65_535, 65_536]))


def server_frame(content: bytes, first: int = FIN | TEXT) -> bytes:
    """Make a frame as servers do: not masked."""
    length = len(content)
    if length < 126:
        return struct.pack("!BB", first, length) + content
    if length < 1 << 16:
        return struct.pack("!BBH", first, 126, length) + content
    return struct.pack("!BBQ", first, 127, length) + content


def cut(whole: bytes, places: list[int]) -> list[bytes]:
    """Cut bytes at places, as a network does."""
    edges = [0, *sorted(place % (len(whole) + 1) for place in places), len(whole)]
    return [whole[start:end] for start, end in pairwise(edges)]


@given(st.lists(LENGTHS, max_size=6), st.lists(st.integers(0, 200_000), max_size=8))
def test_counter_and_reader_find_every_message_however_the_bytes_are_cut(
    lengths: list[int], places: list[int]
) -> None:
    contents = [bytes([at]) * length for at, length in enumerate(lengths)]
    whole = b"".join(server_frame(content) + server_frame(b"", FIN | PING) for content in contents)
    counter, reader = Counter(), Reader(deflated=False)
    counted, read = 0, []
    for part in cut(whole, places):
        counted += counter.feed(part)
        read += [content for opcode, content in reader.feed(part) if opcode == TEXT]
    assert counted == counter.messages == len(contents)
    assert read == contents


def test_reader_joins_the_frames_of_a_message() -> None:
    reader = Reader(deflated=False)
    whole = server_frame(b"one ", TEXT) + server_frame(b"", FIN | PING) + server_frame(b"two", FIN)
    assert list(reader.feed(whole)) == [(PING, b""), (TEXT, b"one two")]


@pytest.mark.parametrize("keeps_context", [True, False])
def test_reader_inflates_what_was_deflated(keeps_context: bool) -> None:
    reader = Reader(deflated=True, keeps_context=keeps_context)
    deflate = zlib.compressobj(wbits=WINDOW_BITS)
    for text in (b"a message of words, of words", b"a message of words, of words once more"):
        deflated = (deflate.compress(text) + deflate.flush(zlib.Z_SYNC_FLUSH))[:-4]
        assert list(reader.feed(server_frame(deflated, FIN | RSV1 | TEXT))) == [(TEXT, text)]
        if not keeps_context:
            deflate = zlib.compressobj(wbits=WINDOW_BITS)
    assert list(reader.feed(server_frame(b"plain"))) == [(TEXT, b"plain")]


def test_reader_takes_nothing_deflated_where_that_was_not_agreed_upon() -> None:
    with pytest.raises(ValueError, match="not agreed"):
        list(Reader(deflated=False).feed(server_frame(b"x", FIN | RSV1 | TEXT)))


@given(st.binary(max_size=70_000))
def test_frame_of_a_browser_is_masked_and_read_back(content: bytes) -> None:
    frame = frame_of(CLOSE, content)
    assert frame[0] == FIN | CLOSE
    assert frame[1] & 0x80
    assert unmasked(frame) == content
    assert unmasked(frame[:-1]) is None


def test_percentile_is_the_nearest_rank() -> None:
    assert percentile([1, 2, 3, 4], 0.5) == 2
    assert percentile(list(range(1, 101)), 0.99) == 99
    assert percentile([7], 0.01) == 7
    assert math.isnan(percentile([], 0.5))
    assert Delays.of([0.003, 0.001, 0.002]).p50 == 2
    assert Spread((3, 1, 2)).median == 2


def test_text_of_an_answer_is_always_the_same_for_a_number_and_another_for_others() -> None:
    assert pieces_of(1, 500) == pieces_of(1, 500)
    assert pieces_of(1, 500) != pieces_of(2, 500)
    text = "".join(pieces_of(3, 10_000))
    assert 4 < len(text) / 10_000 < 4.6
    assert all(mark in text for mark in ("```", "## ", "- ", "| --- |", "$$", "**"))


def test_answer_knows_when_each_piece_was_shown_and_which_never_was() -> None:
    answer = Answer(1, 4)
    assert asked_for(answer.prompt) == (1, 4, answer.rate)
    answer.said.extend([0.0, 1.0, 2.0, 3.0])
    answer.show(answer.ends[1], 1.5)
    assert list(answer.delays(0, 10)) == [1.5, 0.5]
    assert answer.lost == 2
    holed = Answer(2, 4)
    holed.said.extend([0.0, 1.0, 2.0, 3.0])
    holed.show_piece(0, 0.5)
    holed.show_piece(2, 2.25)
    assert list(holed.delays(0, 10)) == [0.5, 0.25]
    assert holed.lost == 2


async def test_completions_read_what_the_model_server_says() -> None:
    deadlines = Deadlines(connect=5, first=5, between=5, answer=30)
    async with Model() as model:
        answer = Answer(1, 40, 1000)
        model.answers[1] = answer
        provider = Provider(name="bench", models={"bench": "bench"}, base_url=model.url)
        completions = Completions([provider], deadlines, continuation="never")
        try:
            assert await completions.models("bench") == ["bench"]
            for _ in range(2):  # over one connection, as it is kept
                answer.said = answer.said[:0]
                async with completions.stream(
                    "bench", [{"role": "user", "content": answer.prompt}], {}
                ) as deltas:
                    told = [delta async for delta in deltas]
                assert "".join(delta.text for delta in told) == answer.text
                assert [delta.finish_reason for delta in told if delta.finish_reason] == ["stop"]
                assert told[-1].usage == {"prompt_tokens": 20, "completion_tokens": 40}
                assert len(answer.said) == 40
        finally:
            await completions.close()


async def test_browser_fails_where_another_text_comes_than_was_said() -> None:
    browser, answer = Ours(1, 1), Answer(1, 4)
    browser._transport = FakeTransport()
    asked = browser.ask(answer)
    browser.hear({"type": "completion.started", "message": "a", "text": ""}, 0.0)
    browser.hear({"type": "completion.delta", "message": "a", "text": answer.pieces[0]}, 1.0)
    assert list(answer.shown) == [1.0]
    with pytest.raises(Changed):
        browser.hear({"type": "completion.delta", "message": "a", "text": "\0"}, 1.0)
    browser.changed(Changed("of the test"))
    with pytest.raises(Changed):
        await asked


class FakeTransport:
    """Takes what is written."""

    def write(self, _: bytes) -> None:
        pass


def run(answers: int, *, p99: float = 50, lost: int = 0) -> Run:
    """Make what was measured of a run."""
    delays = Delays(count=1000, p50=20, p95=p99, p99=p99, most=p99)
    return Run("ours", answers, 50, delays, lost, 1000, [], behind=False, usage=Usage())


def test_process_carries_as_many_as_came_in_time_with_nothing_lost() -> None:
    assert carries([run(50), run(10), run(100, p99=101), run(150)]) == 50
    assert carries([run(10, lost=1)]) == 0
    assert json.dumps(run(10).told)


def test_table_tells_ratio_and_whether_the_goal_is_met() -> None:
    row = next(row for row in ROWS if row.figure == "p99 at 20/s")
    figures = {
        ("group", "theirs", row.figure): Spread((128.0,)),
        ("group", "ours", row.figure): Spread((4.0, 3.0, 5.5)),
    }
    line = next(line for line in table_of(figures).splitlines() if line.startswith(row.what))
    assert line.removeprefix(row.what).split() == ["128", "ms", "4", "ms", "32.0", "≤", "5", "ms", "yes"]
    assert aligned([("a", "b"), ("cc", "d")]) == ["a   b", "-----", "cc  d"]


def test_usage_says_where_the_generator_may_be_the_limit() -> None:
    assert Usage(server=0.9, generator=0.5).limited is None
    assert "generator" in (Usage(generator=0.9).limited or "")
    assert "generator" in (Usage(lag_p99_ms=30).limited or "")
    assert "disturbed" in (Usage(others=0.3).limited or "")
