"""Providers that failed rest, by a clock of the tests' own."""

from __future__ import annotations

import pytest

from llmchat.errors import ModelMissing, ProviderError
from llmchat.rests import MAX_REST_SECONDS, REST_SECONDS, Rests

DOWN = ProviderError("provider_unavailable", "Down.", retryable=True)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def rests(clock: Clock) -> Rests:
    return Rests(clock)


def limited(retry_after: float | None) -> ProviderError:
    return ProviderError("provider_rate_limited", "Slow.", retryable=True, retry_after=retry_after)


def test_nobody_rests_before_anything_failed(rests: Rests) -> None:
    assert rests.until("a", "m") == 0


@pytest.mark.parametrize("code", ["provider_unavailable", "provider_auth", "provider_refused"])
def test_provider_that_failed_rests_for_all_its_models_and_for_a_while(
    rests: Rests, clock: Clock, code: str
) -> None:
    rests.begin("a", "m", ProviderError(code, "No.", retryable=True))
    assert rests.until("a", "m") == rests.until("a", "other") == clock.now + REST_SECONDS
    assert rests.until("b", "m") == 0
    clock.now += REST_SECONDS
    assert rests.until("a", "m") == 0


@pytest.mark.parametrize(
    "error", [limited(None), ModelMissing(), ProviderError("provider_timeout", "Late.", retryable=True)]
)
def test_provider_rests_for_one_model_where_only_that_failed(
    rests: Rests, clock: Clock, error: ProviderError
) -> None:
    rests.begin("a", "m", error)
    assert rests.until("a", "m") == clock.now + REST_SECONDS
    assert rests.until("a", "other") == 0


@pytest.mark.parametrize(("said", "seconds"), [(0, 0), (7, 7), (86_400, MAX_REST_SECONDS)])
def test_rest_is_as_long_as_the_provider_says_within_bounds(
    rests: Rests, clock: Clock, said: float, seconds: float
) -> None:
    rests.begin("a", "m", limited(said))
    assert rests.until("a", "m") == (clock.now + seconds if seconds else 0)


def test_provider_whose_rest_is_over_is_tried_by_one_while_it_rests_for_the_others(
    rests: Rests, clock: Clock
) -> None:
    rests.begin("a", "m", DOWN)
    clock.now += REST_SECONDS
    assert rests.until("a", "m") == 0
    rests.try_again("a", "m")
    assert rests.until("a", "m") == clock.now + REST_SECONDS
    rests.end("a", "m")
    rests.try_again("a", "m")
    assert rests.until("a", "m") == 0


def test_trial_does_not_shorten_a_rest(rests: Rests, clock: Clock) -> None:
    rests.begin("a", "m", limited(MAX_REST_SECONDS))
    rests.try_again("a", "m")
    assert rests.until("a", "m") == clock.now + MAX_REST_SECONDS
