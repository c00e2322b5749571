"""Pure: which providers failed lately, and until when each is asked last. Knows clocks only as a function of seconds."""

from __future__ import annotations

from collections.abc import Callable

from llmchat.errors import ModelMissing, ProviderError

REST_SECONDS = 30.0
"""For which a provider that failed is asked last, where it does not say how long."""
MAX_REST_SECONDS = 600.0
"""Of what it says."""
ALL_MODELS = ""
OF_THE_MODEL = {"provider_rate_limited", "provider_timeout"}
"""Codes of what a provider may do all the same for its other models: some think for long before they say a word."""


class Rests:
    """The rests of one instance's providers; each is over when its time is, and forgotten when the provider answers."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._until: dict[tuple[str, str], float] = {}  # provider and model, or ALL_MODELS -> by the clock

    def until(self, provider: str, model: str) -> float:
        """Tell until when a provider rests, for a model; 0 where it does not."""
        until = max(self._until.get((provider, each), 0.0) for each in (model, ALL_MODELS))
        return until if until > self._clock() else 0.0

    def begin(self, provider: str, model: str, error: ProviderError) -> None:
        """Let a provider rest that failed so: for this model alone, where the failure may be of that."""
        of_the_model = isinstance(error, ModelMissing) or error.code in OF_THE_MODEL
        said = REST_SECONDS if error.retry_after is None else min(error.retry_after, MAX_REST_SECONDS)
        self._until[provider, model if of_the_model else ALL_MODELS] = self._clock() + said

    def try_again(self, provider: str, model: str) -> None:
        """Let one that rested be tried by whoever asks now, and rest for all others until it answers."""
        soon = self._clock() + REST_SECONDS
        for rested in {(provider, model), (provider, ALL_MODELS)} & self._until.keys():
            self._until[rested] = max(self._until[rested], soon)

    def end(self, provider: str, model: str) -> None:
        """Forget that a provider failed, which answered now."""
        for each in (model, ALL_MODELS):
            self._until.pop((provider, each), None)
