"""Counts of answers and of how long they took: each event is in one of them, and a count that may grow is there at 0."""

from __future__ import annotations

from math import inf

from hypothesis import given
from hypothesis import strategies as st

from llmchat.durations import Durations
from llmchat.errors import PROVIDER_CODES
from llmchat.tally import ENDINGS, Tally


@given(st.lists(st.floats(0, 10)))
def test_each_duration_is_counted_up_to_every_bound_that_it_does_not_pass(seconds: list[float]) -> None:
    durations = Durations(1, 2, 5)
    for each in seconds:
        durations.note(each)
    assert durations.up_to == [
        (bound, sum(each <= bound for each in seconds)) for bound in (1.0, 2.0, 5.0, inf)
    ]
    assert durations.seconds == sum(seconds)


def test_model_has_every_count_from_its_first_attempt_on_and_keeps_it() -> None:
    tally = Tally()
    tally.begin("m")
    assert tally.ended == {("m", ending): 0 for ending in ENDINGS}
    assert tally.errors == {("m", code): 0 for code in PROVIDER_CODES}
    tally.end("m", "stop", 1.0)
    tally.fail("m", "provider_refused")
    tally.begin("m")
    assert (tally.begun["m"], tally.ended["m", "stop"], tally.errors["m", "provider_refused"]) == (2, 1, 1)


def test_tokens_are_estimated_where_the_model_server_does_not_tell_them() -> None:
    tally = Tally()
    tally.use("m", {"prompt_tokens": 7, "completion_tokens": 3}, prompt=100, completion=100)
    tally.use("m", {"prompt_tokens": 2}, prompt=100, completion=5)
    assert tally.tokens == {
        ("m", "prompt", "provider"): 9,
        ("m", "completion", "provider"): 3,
        ("m", "completion", "estimate"): 5,
    }


def test_model_server_is_back_with_the_first_word_after_it_was_down_and_only_then() -> None:
    tally = Tally()
    assert not tally.speak("m", 0.1)
    tally.fail("m", "context_too_long")
    assert not tally.speak("m", 0.1)
    tally.fail("m", "provider_unavailable")
    assert [tally.speak("other", 0.1), tally.speak("m", 0.1), tally.speak("m", 0.1)] == [False, True, False]
