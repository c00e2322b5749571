"""What became of the answers that one instance made, in plain numbers that only grow. Pure: knows who counts not."""

from __future__ import annotations

from collections import Counter, defaultdict

from llmchat.durations import Durations
from llmchat.errors import PROVIDER_CODES

FIRST_SECONDS = 0.1, 0.25, 0.5, 1, 2, 3, 5, 8, 13, 20, 30, 60
ANSWER_SECONDS = 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300
ENDINGS = "stop", "length", "content_filter", "stopped", "interrupted", "failed"
DOWN = "provider_unavailable", "provider_timeout", "provider_auth"
"""Codes that tell of the model server, rather than of what it was asked."""
HANDED, LOST, UNBEGUN = "handed", "lost", "unbegun"
"""A turn that its instance gave away, whose instance is gone, or of which nothing was made yet."""


class Tally:
    """One for each instance. A model counts from its first answer on, and then has every count, if only of 0."""

    def __init__(self) -> None:
        self.begun: Counter[str] = Counter()  # by model
        self.ended: Counter[tuple[str, str]] = Counter()  # by model and ending
        self.errors: Counter[tuple[str, str]] = Counter()  # of the model server, by model and code
        self.tokens: Counter[tuple[str, str, str]] = Counter()  # by model, kind and who counted
        self.first: dict[str, Durations] = defaultdict(lambda: Durations(*FIRST_SECONDS))
        """By model: from the beginning of an attempt to the first word, also one of reasoning."""
        self.answers: dict[str, Durations] = defaultdict(lambda: Durations(*ANSWER_SECONDS))
        self.taken_over: Counter[str] = Counter(dict.fromkeys((HANDED, LOST, UNBEGUN), 0))
        self.fenced = 0
        """Turns that another instance took from this one."""
        self._failing: set[str] = set()  # models

    def begin(self, model: str) -> None:
        """Count an attempt."""
        self.begun[model] += 1
        if self.begun[model] == 1:  # a count that is first seen with a 1 in it has not grown, to who watches
            self.ended.update(dict.fromkeys([(model, ending) for ending in ENDINGS], 0))
            self.errors.update(dict.fromkeys([(model, code) for code in PROVIDER_CODES], 0))

    def speak(self, model: str, seconds: float) -> bool:
        """Count the first word of an attempt; tells whether the model had failed before."""
        self.first[model].note(seconds)
        failed = model in self._failing
        self._failing.discard(model)
        return failed

    def fail(self, model: str, code: str) -> None:
        """Count an error of the model server's."""
        self.errors[model, code] += 1
        if code in DOWN:
            self._failing.add(model)

    def use(self, model: str, usage: dict[str, int], *, prompt: int, completion: int) -> None:
        """Count an answer's tokens: as the model server tells them, where it does not as they are estimated."""
        for kind, estimate in (("prompt", prompt), ("completion", completion)):
            told = usage.get(f"{kind}_tokens")
            counted_by = "estimate" if told is None else "provider"
            self.tokens[model, kind, counted_by] += estimate if told is None else told

    def end(self, model: str, ending: str, seconds: float) -> None:
        """Count an answer's end."""
        self.ended[model, ending] += 1
        self.answers[model].note(seconds)
