"""What fails again and again is left alone for longer each time, and no longer than it counts."""

from __future__ import annotations

from llmchat.failures import FIRST_SECONDS, MOST_SECONDS, Failures


def test_it_is_left_alone_for_twice_as_long_each_time_up_to_a_bound() -> None:
    now = 0.0
    failures = Failures(lambda: now)
    assert not failures.leaves("a")
    expected = FIRST_SECONDS
    for _ in range(12):
        assert failures.note("a") == min(expected, MOST_SECONDS)
        now += min(expected, MOST_SECONDS) - 0.01
        assert failures.leaves("a")
        now += 0.01
        assert not failures.leaves("a")
        expected *= 2
    assert not failures.leaves("b")


def test_what_is_over_is_forgotten() -> None:
    failures = Failures(lambda: 0.0)
    for name in "ab":
        failures.note(name)
    failures.only(["a", "c"])
    assert [failures.leaves(name) for name in "abc"] == [True, False, False]
    assert failures.note("b") == FIRST_SECONDS
    assert failures.note("a") == 2 * FIRST_SECONDS
