"""One answer's life: deltas taken, events said, and every way it ends."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchat import turn
from llmchat.errors import ProviderError
from llmchat.events import CompletionDelta, CompletionFailed, CompletionFinished
from llmchat.markdown import render
from llmchat.turn import Answer, Delta

CUT = ProviderError("provider_unavailable", "It broke off.", retryable=True)
LIMITED = ProviderError("provider_rate_limited", "Too much.", retryable=True, retry_after=3.0)


def new_answer(kept: str = "", attempt: int = 1) -> Answer:
    return Answer(
        conversation="c1", message="m2", prompt="m1", model="small", created="now", attempt=attempt, kept=kept
    )


def says(answer: Answer, *deltas: Delta | str) -> list[CompletionDelta]:
    """Take deltas one by one, and return what is said after each."""
    said = []
    for delta in deltas:
        answer.take(Delta(delta) if isinstance(delta, str) else delta)
        if event := answer.delta():
            said.append(event)
    return said


def finished(answer: Answer, **how: Any) -> CompletionFinished:
    answer.mend()
    ended = answer.end(**{"seconds": 1.0, **how})
    assert isinstance(ended, CompletionFinished)
    return ended


def failed(answer: Answer, **how: Any) -> CompletionFailed:
    ended = answer.end(**{"seconds": 1.0, **how})
    assert isinstance(ended, CompletionFailed)
    return ended


class Page:
    """What a browser makes of an answer's events."""

    def __init__(self) -> None:
        self.text = ""
        self.blocks: dict[int, str] = {}
        self.count = 0

    def show(self, event: CompletionDelta | CompletionFinished) -> None:
        """Place an event's blocks and append its text."""
        if isinstance(event, CompletionDelta):
            self.text += event.text
        self.blocks.update(event.blocks)
        self.count = event.count

    @property
    def html(self) -> str:
        """All blocks, of which none may be missing."""
        return "".join(self.blocks[index] for index in range(self.count))


# Beginning


def test_answer_starts_with_its_names_and_no_text() -> None:
    assert json.loads(new_answer().started().encode()) == {
        "type": "completion.started",
        "conversation": "c1",
        "message": "m2",
        "parent": "m1",
        "created": "now",
        "model": "small",
        "attempt": 1,
        "text": "",
    }


def test_answer_goes_on_from_what_is_kept_of_an_earlier_attempt() -> None:
    answer = new_answer(kept="Hello, ", attempt=2)
    assert answer.started().attempt == 2
    assert answer.started().text == answer.text == "Hello, "
    [said] = says(answer, Delta("world", finish_reason="stop"))
    assert said.text == "world"
    assert finished(answer).digest == hashlib.sha256(b"Hello, world").hexdigest()


def test_answer_says_nothing_when_nothing_was_taken() -> None:
    answer = new_answer()
    assert answer.delta() is None
    assert says(answer, Delta(), Delta(usage={"prompt_tokens": 1}), Delta(finish_reason="stop")) == []


def test_answer_says_at_once_what_it_took_since_the_last_time() -> None:
    answer = new_answer()
    for piece in ("One ", "two ", "three"):
        answer.take(Delta(piece))
    assert answer.text == "One two three"
    said = answer.delta()
    assert said
    assert said.text == "One two three"
    assert said.reasoning is None
    assert answer.delta() is None


def test_reasoning_is_said_apart_from_the_text() -> None:
    answer = new_answer()
    first, second = says(answer, Delta(reasoning="Hm. "), Delta("Yes", reasoning="So."))
    assert (first.text, first.reasoning, first.blocks, first.count) == ("", "Hm. ", [], 0)
    assert (second.text, second.reasoning) == ("Yes", "So.")
    answer.take(Delta(finish_reason="stop"))
    assert answer.record(finished(answer))["reasoning"] == "Hm. So."


def test_reasoning_is_said_at_once_as_it_came_since_the_last_time() -> None:
    answer = new_answer()
    for piece in ("So ", "I ", "think."):
        answer.take(Delta(reasoning=piece))
    said = answer.delta()
    assert said
    assert said.reasoning == "So I think."


def test_reasoning_ends_with_the_first_words_and_how_long_it_took_is_said_once_and_kept() -> None:
    answer = new_answer()
    said = []
    for seconds, delta in (
        (2.0, Delta(reasoning="Hm. ")),
        (5.0, Delta(reasoning="So.")),
        (6.5, Delta("\n")),
        (9.5, Delta("Yes")),
        (11.0, Delta(", really", finish_reason="stop")),
    ):
        answer.take(delta, seconds)
        said.append(answer.delta())
    assert [event and event.reasoning_seconds for event in said] == [None, None, None, 7.5, None]
    ended = finished(answer, seconds=12.0)
    assert ended.reasoning_seconds == 7.5
    assert answer.record()["reasoning_seconds"] == answer.record(ended)["reasoning_seconds"] == 7.5


def test_reasoning_without_words_lasts_until_the_end_and_none_has_no_time() -> None:
    answer = new_answer()
    answer.take(Delta(reasoning="Hm."), 1.0)
    answer.delta()
    ended = failed(answer, seconds=4.0)
    assert ended.reasoning_seconds == answer.record(ended)["reasoning_seconds"] == 3.0
    answer = new_answer()
    answer.take(Delta("Yes", finish_reason="stop"), 1.0)
    said = answer.delta()
    assert said
    assert "reasoning_seconds" not in said.encode() + finished(answer).encode() + str(answer.record())


def test_reasoning_of_an_answer_that_goes_on_takes_the_time_of_all() -> None:
    answer = Answer(
        conversation="c1", message="m2", prompt="m1", model="small", created="now", attempt=2, kept="Half ",
        reasoning="Hm. ", reasoning_seconds=4.0,
    )  # fmt: skip
    answer.take(Delta(reasoning="So."), 1.0)
    answer.take(Delta("and half", finish_reason="stop"), 3.0)
    said = answer.delta()
    assert said
    assert said.reasoning_seconds == finished(answer).reasoning_seconds == 6.0


# Ending


@pytest.mark.parametrize(
    ("given_reason", "reason"),
    [
        ("stop", "stop"),
        ("length", "length"),
        ("content_filter", "content_filter"),
        ("tool_calls", "stop"),
        ("eos", "stop"),
    ],
)
def test_answer_finishes_for_the_providers_reason(given_reason: str, reason: str) -> None:
    answer = new_answer()
    says(answer, "Hello")
    assert not answer.complete
    says(answer, Delta(finish_reason=given_reason))
    assert answer.complete
    assert finished(answer, seconds=1.234).finish_reason == reason


def test_answer_finishes_with_its_digest_its_usage_and_its_seconds() -> None:
    answer = new_answer()
    says(
        answer,
        "Größe",
        Delta(finish_reason="stop"),
        Delta(usage={"prompt_tokens": 9, "completion_tokens": 2}),
    )
    ended = finished(answer, seconds=1.26)
    assert ended.digest == hashlib.sha256("Größe".encode()).hexdigest()
    assert ended.usage == {"prompt_tokens": 9, "completion_tokens": 2}
    assert ended.seconds == 1.3


def test_answer_has_no_usage_when_the_provider_tells_none() -> None:
    answer = new_answer()
    says(answer, "Hello", Delta(finish_reason="stop"))
    assert "usage" not in json.loads(finished(answer).encode())


def test_answer_is_complete_when_an_error_comes_after_its_finish_reason() -> None:
    answer = new_answer()
    says(answer, "Hello", Delta(finish_reason="stop"))
    assert finished(answer, error=CUT).finish_reason == "stop"


@pytest.mark.parametrize("reason", [None, "error", "abort"])
@pytest.mark.parametrize("error", [None, CUT])
def test_answer_is_interrupted_when_it_ends_without_a_reason_after_some_text(
    error: ProviderError | None, reason: str | None
) -> None:
    answer = new_answer()
    says(answer, "Hel", Delta(finish_reason=reason))
    ended = finished(answer, error=error)
    assert ended.finish_reason == "interrupted"
    assert ended.digest == hashlib.sha256(b"Hel").hexdigest()


def test_answer_is_interrupted_when_only_an_earlier_attempt_gave_text() -> None:
    assert finished(new_answer(kept="Hel", attempt=3), error=CUT).finish_reason == "interrupted"


def test_answer_fails_for_the_providers_error_when_there_is_no_text() -> None:
    ended = failed(new_answer(), error=LIMITED)
    assert json.loads(ended.encode()) == {
        "type": "completion.failed",
        "conversation": "c1",
        "message": "m2",
        "code": "provider_rate_limited",
        "detail": "Too much.",
        "retryable": True,
        "retry_after": 3.0,
    }


@pytest.mark.parametrize(
    "deltas", [[], [Delta(finish_reason="stop")], [Delta(reasoning="Hm."), Delta(finish_reason="length")]]
)
def test_answer_fails_as_refused_when_it_is_empty(deltas: list[Delta]) -> None:
    answer = new_answer()
    says(answer, *deltas)
    ended = failed(answer)
    assert ended.code == "provider_refused"
    assert ended.retryable
    assert "retry_after" not in json.loads(ended.encode())


@pytest.mark.parametrize(("text", "blocks"), [("", []), ("Hel", ["<p>Hel</p>\n"])])
def test_answer_is_finished_as_stopped_whether_or_not_it_has_text(text: str, blocks: list[str]) -> None:
    answer, page = new_answer(), Page()
    for event in says(answer, text):
        page.show(event)
    ended = finished(answer, stopped=True)
    page.show(ended)
    assert ended.finish_reason == "stopped"
    assert ended.digest == hashlib.sha256(text.encode()).hexdigest()
    assert page.html.strip() == "".join(blocks).strip()


def test_answer_is_stopped_when_the_stop_also_broke_the_connection() -> None:
    assert finished(new_answer(), stopped=True, error=CUT).finish_reason == "stopped"


# Too long


def test_answer_is_cut_with_length_when_it_is_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turn, "MAX_ANSWER_BYTES", 10)
    answer = new_answer()
    says(answer, "12345678")
    assert not answer.complete
    [said] = says(answer, "90abc", "more")
    assert said.text == "90"
    assert answer.complete
    ended = finished(answer)
    assert ended.finish_reason == "length"
    assert ended.digest == hashlib.sha256(b"1234567890").hexdigest()


def test_answer_is_cut_when_text_waits_to_be_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turn, "MAX_ANSWER_BYTES", 10)
    answer = new_answer(kept="123")
    for piece in ("4567", "89", "0abc", "def"):
        answer.take(Delta(piece))
    assert answer.text == "1234567890"


def test_answer_that_is_just_as_long_as_it_may_be_ends_for_its_own_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turn, "MAX_ANSWER_BYTES", 5)
    answer = new_answer()
    says(answer, "Hello", Delta(finish_reason="stop"))
    assert finished(answer).finish_reason == "stop"


def test_reasoning_is_cut_when_it_is_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turn, "MAX_REASONING_BYTES", 5)
    answer = new_answer()
    said = says(
        answer,
        Delta(reasoning="123"),
        Delta(reasoning="4567"),
        Delta(reasoning="89"),
        Delta("Hi", finish_reason="stop"),
    )
    assert [event.reasoning for event in said] == ["123", "45", None]
    assert answer.record(finished(answer))["reasoning"] == "12345"


@pytest.mark.parametrize(
    ("most", "kept"), [(0, ""), (1, "a"), (2, "a"), (3, "aé"), (6, "aé€"), (9, "aé€"), (10, "aé€😀")]
)
def test_answer_is_cut_in_whole_characters_by_its_size_in_utf_8(
    monkeypatch: pytest.MonkeyPatch, most: int, kept: str
) -> None:
    monkeypatch.setattr(turn, "MAX_ANSWER_BYTES", most)
    monkeypatch.setattr(turn, "MAX_REASONING_BYTES", most)
    answer = new_answer()
    answer.take(Delta("aé€😀z", "aé€😀z"))
    record = answer.record(answer.end(seconds=1.0))
    assert record["text"] == record.get("reasoning", "") == answer.text == kept
    assert answer.complete


def test_nothing_follows_what_was_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turn, "MAX_ANSWER_BYTES", 2)
    monkeypatch.setattr(turn, "MAX_REASONING_BYTES", 2)
    answer = new_answer()
    says(answer, Delta("aé", "aé"), Delta("b", "b"))
    record = answer.record(finished(answer))
    assert (record["text"], record["reasoning"], record["finish_reason"]) == ("a", "a", "length")


def test_kept_text_counts_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turn, "MAX_ANSWER_BYTES", 10)
    answer = new_answer(kept="€€")
    answer.take(Delta("12345"))
    assert answer.text == "€€1234"


def test_much_that_waited_is_said_in_several_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turn, "DELTA_CHARACTERS", 4)
    answer = new_answer()
    answer.take(Delta("123456789", "abcdef"))
    said = []
    while answer.pending:
        event = answer.delta()
        assert event
        said.append((event.text, event.reasoning))
    assert said == [("1234", "abcd"), ("5678", "ef"), ("9", None)]
    assert answer.delta() is None
    answer.take(Delta(finish_reason="stop"))
    assert finished(answer).digest == hashlib.sha256(b"123456789").hexdigest()


# What is stored

BASE = {"id": "m2", "role": "assistant", "parent": "m1", "created": "now", "model": "small"}


def test_record_of_a_running_answer_has_no_text() -> None:
    answer = new_answer()
    says(answer, "Hel")
    assert answer.record() == {**BASE, "text": "", "state": "running"}


def test_record_of_a_finished_answer_has_what_applies() -> None:
    answer = new_answer()
    says(answer, "Hello", Delta(finish_reason="stop"), Delta(usage={"prompt_tokens": 9}))
    assert answer.record(finished(answer)) == {
        **BASE,
        "text": "Hello",
        "state": "done",
        "finish_reason": "stop",
        "seconds": 1.0,
        "usage": {"prompt_tokens": 9},
    }


def test_record_of_a_failed_answer_has_its_error() -> None:
    answer = new_answer()
    assert answer.record(failed(answer, error=LIMITED)) == {
        **BASE,
        "text": "",
        "state": "failed",
        "error": {"code": "provider_rate_limited", "detail": "Too much.", "retryable": True},
    }


# Any answer

PIECES = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        [
            "\n", "\n\n", "\r\n", "\r", "```python\n", "```", "print(1)\n", "- item\n", "1. one\n", "# Title\n",
            "| a | b |\n| - | - |\n", "| 1 | 2 |\n", "> quote\n", "**bold", "**", "`code`", "[a][b]", "[b]: http://x\n",
            "word ", "    indented\n", "---\n", "<b>", "\\", "&amp;", "世界", "\x00", "\t", "===\n",
        ]
    ),
)  # fmt: skip


@given(
    st.lists(st.tuples(PIECES, st.booleans()), max_size=40),
    PIECES,
    st.sampled_from(["stop", "cut", "stopped"]),
)
def test_events_add_up_to_the_whole_answer_however_it_comes(
    pieces: list[tuple[str, bool]], kept: str, how: str
) -> None:
    answer, page = new_answer(kept), Page()
    page.text = answer.started().text
    for piece, pause in pieces:
        answer.take(Delta(piece))
        event = answer.delta() if pause else None
        if event:
            page.show(event)
    if how == "stop":
        answer.take(Delta(finish_reason="stop"))
    if event := answer.delta():
        page.show(event)
    answer.mend()
    while event := answer.delta():
        page.show(event)
    ended = answer.end(seconds=0.0, error=CUT if how == "cut" else None, stopped=how == "stopped")
    text = kept + "".join(piece for piece, _ in pieces)
    assert page.text == answer.text == answer.record(ended)["text"] == text
    if isinstance(ended, CompletionFinished):
        page.show(ended)
        assert ended.digest == hashlib.sha256(text.encode()).hexdigest()
        assert page.html == "".join(render(text))
    else:
        assert text.strip() == ""


def test_blocks_that_one_event_has_no_room_for_come_in_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turn, "BLOCKS_BYTES", 200)
    answer, page = new_answer(), Page()
    text = "[a]: https://a.example\n\n".join(f"word {number} [a]\n\n" for number in range(9))
    answer.take(Delta(text))
    answer.take(Delta(finish_reason="stop"))
    said = []
    while event := answer.delta():
        said.append(event)
    answer.mend()
    while event := answer.delta():
        said.append(event)
    ended = answer.end(seconds=1.0)
    assert isinstance(ended, CompletionFinished)
    for event in [*said, ended]:
        page.show(event)
        assert sum(len(json.dumps(block)) for block in event.blocks) <= 200
    assert len(said) > 3
    assert page.text == text
    assert page.html == "".join(render(text))


@pytest.mark.parametrize("blank", [" ", "\n\n", "\t \n"])
def test_answer_of_blanks_only_fails_as_an_empty_one(blank: str) -> None:
    answer = new_answer()
    says(answer, blank, Delta(finish_reason="stop"))
    assert failed(answer).code == "provider_refused"
