"""One answer being made: deltas in, events out. Pure: asks nobody, stores nothing, knows no clock.

1. An answer is complete only with a finish_reason; an end without one keeps the text as `interrupted`, or fails
   without any.
2. Its text is the text of its `completion.started` followed by the texts of its deltas.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from llmchat.conversation import digest, estimated_tokens
from llmchat.errors import ProviderError
from llmchat.events import CompletionDelta, CompletionFailed, CompletionFinished, CompletionStarted
from llmchat.markdown import LiveMarkdown

MAX_ANSWER_BYTES = 192 * 1024
"""In UTF-8. A longer answer is cut and ends with `length`, so that it fits in a frame."""
MAX_REASONING_BYTES = 128 * 1024
DELTA_CHARACTERS = 16_384
"""Of one completion.delta: what waited for a Redis that was away goes in several."""
BLOCKS_BYTES = 704 * 1024
"""Of blocks in one event, as JSON."""
FINISH_REASONS = {"stop": "stop", "length": "length", "content_filter": "content_filter"}
BREAKS = {"error", "abort", "aborted", "cancelled", "canceled"}
"""How some servers say that they broke off: no finish_reason at all."""
COUNTS = 2
"""Of a request's tokens: those of the prompt and those of the completion."""
Blocks = list[tuple[int, str]]
EMPTY = ProviderError("provider_refused", "The model gave no answer.", retryable=True)


@dataclass(frozen=True, slots=True)
class Delta:
    """What came of an answer at once. `usage` are the provider's figures: prompt_tokens, completion_tokens."""

    text: str = ""
    reasoning: str = ""
    finish_reason: str | None = None
    usage: dict[str, int] | None = None

    @property
    def tokens(self) -> int:
        """Of its texts, as estimated."""
        return estimated_tokens(self.text) + estimated_tokens(self.reasoning)

    @property
    def counted(self) -> int | None:
        """Of the whole request, as the provider counts; None where it does not."""
        return sum(self.usage.values()) if self.usage and len(self.usage) == COUNTS else None


class Answer:
    """The answer to one prompt, in one attempt."""

    def __init__(
        self,
        *,
        conversation: str,
        message: str,
        prompt: str,
        model: str,
        created: str,
        attempt: int,
        earlier: int = 0,
        kept: str = "",
        reasoning: str = "",
        reasoning_seconds: float | None = None,
    ) -> None:
        self._conversation = conversation
        self._message = message
        self._prompt = prompt
        self._model = model
        self._created = created
        self.attempt = attempt
        self._earlier = earlier  # attempts, of turns that ended
        self.kept = kept
        self._markdown = LiveMarkdown(kept)
        self._text = ""  # taken and not placed yet
        self._reasoning = ""
        self._all_reasoning = reasoning
        self._reasoned = reasoning_seconds  # in all; None where that is not known
        self._reasoning_since: float | None = None  # while there is reasoning, and no text behind it
        self._reasoned_told = True
        self._bytes_left = MAX_ANSWER_BYTES - len(kept.encode())
        self._reasoning_bytes_left = MAX_REASONING_BYTES - len(reasoning.encode())
        self._owed: list[Blocks] = []  # that the last event had no room for
        self._mended: Blocks = []  # left for the last event
        self._finish_reason: str | None = None
        self.usage: dict[str, int] | None = None

    @property
    def text(self) -> str:
        """All of it, whether placed or not."""
        return self._markdown.text + self._text

    @property
    def pending(self) -> bool:
        """Something was taken and not said yet."""
        return bool(self._text or self._reasoning or self._owed)

    @property
    def complete(self) -> bool:
        """A finish_reason came, or the answer is as long as it may be."""
        return self._finish_reason is not None

    def started(self) -> CompletionStarted:
        """Say that it begins."""
        return CompletionStarted(
            conversation=self._conversation,
            message=self._message,
            parent=self._prompt,
            created=self._created,
            model=self._model,
            attempt=self._earlier + self.attempt,
            text=self.kept,
        )

    def take(self, delta: Delta, seconds: float | None = None) -> None:
        """Take what the model said, so many seconds after the attempt began."""
        text = _cut(delta.text, self._bytes_left)
        self._text += text
        self._bytes_left = self._bytes_left - len(text.encode()) if text == delta.text else 0
        reasoning = _cut(delta.reasoning, self._reasoning_bytes_left)
        self._reasoning += reasoning
        self._all_reasoning += reasoning
        self._reasoning_bytes_left = (
            self._reasoning_bytes_left - len(reasoning.encode()) if reasoning == delta.reasoning else 0
        )
        if reasoning and self._reasoning_since is None:
            self._reasoning_since = seconds
        if text.strip():
            self._reason_no_more(seconds)
        self.usage = delta.usage or self.usage
        if self._finish_reason is None:
            if len(text) < len(delta.text):
                self._finish_reason = "length"
            elif delta.finish_reason and delta.finish_reason not in BREAKS:
                self._finish_reason = FINISH_REASONS.get(delta.finish_reason, "stop")

    def _reason_no_more(self, seconds: float | None) -> None:
        if seconds is None or self._reasoning_since is None:
            return
        self._reasoned = round((self._reasoned or 0) + seconds - self._reasoning_since, 1)
        self._reasoning_since = None
        self._reasoned_told = False

    def fall_back(self, earlier: str) -> None:
        """Put back the text of an `earlier` attempt, for this one has brought no word. There it broke off."""
        more = earlier.removeprefix(self.kept)
        if more.strip():
            self._text += _cut(more, self._bytes_left)
            self._finish_reason = None

    def delta(self, *, render: bool = True) -> CompletionDelta | None:
        """Say what was taken since the last time, if anything was; much of it in several steps.

        What does not `render` now, a later one does.
        """
        if not self.pending:
            return None
        if self._owed:
            return self._delta("", "", self._owed.pop(0))
        text, self._text = self._text[:DELTA_CHARACTERS], self._text[DELTA_CHARACTERS:]
        reasoning, self._reasoning = self._reasoning[:DELTA_CHARACTERS], self._reasoning[DELTA_CHARACTERS:]
        self._markdown.append(text)
        blocks, *self._owed = _portions(self._markdown.changed() if render else [])
        return self._delta(text, reasoning, blocks)

    def before(self, delta: CompletionDelta) -> tuple[str, str]:
        """Give the text and the reasoning that were said before the last delta."""
        reasoning = self._all_reasoning.removesuffix(self._reasoning)
        return self._markdown.text.removesuffix(delta.text), reasoning.removesuffix(delta.reasoning or "")

    def mend(self) -> None:
        """Render for the last time. Everything taken must have been said; what then is pending comes before the end."""
        *self._owed, self._mended = _portions(self._markdown.finish())

    def _delta(self, text: str, reasoning: str, blocks: Blocks) -> CompletionDelta:
        over = text and not self._reasoning and not self._reasoned_told
        self._reasoned_told = self._reasoned_told or bool(over)
        return CompletionDelta(
            conversation=self._conversation,
            message=self._message,
            text=text,
            blocks=blocks,
            count=self._markdown.count,
            reasoning=reasoning or None,
            reasoning_seconds=self._reasoned if over else None,
        )

    def end(
        self, *, seconds: float, error: ProviderError | None = None, stopped: bool = False
    ) -> CompletionFinished | CompletionFailed:
        """Say how it ends. Everything taken must have been said before, and what `mend` left."""
        self._reason_no_more(seconds)
        reason = "stopped" if stopped else self._finish_reason
        said = bool(self.text.strip())
        if reason is None and said:
            reason = "interrupted"
        if reason is None or (not stopped and not said):
            error = error or EMPTY
            return CompletionFailed(
                conversation=self._conversation,
                message=self._message,
                code=error.code,
                detail=error.detail,
                retryable=error.retryable,
                retry_after=error.retry_after,
                reasoning_seconds=self._reasoned,
            )
        return CompletionFinished(
            conversation=self._conversation,
            message=self._message,
            finish_reason=reason,
            digest=digest(self.text),
            blocks=self._mended,
            count=self._markdown.count,
            usage=self.usage,
            seconds=round(seconds, 1),
            reasoning_seconds=self._reasoned,
        )

    def record(self, ended: CompletionFinished | CompletionFailed | None = None) -> dict[str, Any]:
        """Give the message as it is stored: running, or with how it ended."""
        record: dict[str, Any] = {
            "id": self._message,
            "role": "assistant",
            "parent": self._prompt,
            "text": self.text if ended else "",
            "created": self._created,
            "state": "running",
            "model": self._model,
        }
        if self._reasoned is not None:
            record["reasoning_seconds"] = self._reasoned
        if ended is None:
            return record
        if self._all_reasoning:
            record["reasoning"] = self._all_reasoning
        if isinstance(ended, CompletionFailed):
            error = {"code": ended.code, "detail": ended.detail, "retryable": ended.retryable}
            return record | {"state": "failed", "error": error}
        if ended.usage:
            record["usage"] = ended.usage
        return record | {"state": "done", "finish_reason": ended.finish_reason, "seconds": ended.seconds}


def _portions(blocks: Blocks) -> list[Blocks]:
    """Split blocks into what events have room for; there is at least one portion. Each block has room: markdown.MAX_BLOCK."""
    portions: list[Blocks] = [[]]
    room = BLOCKS_BYTES
    for block in blocks:
        size = len(json.dumps(block, ensure_ascii=False).encode())
        if size > room and portions[-1]:
            portions.append([])
            room = BLOCKS_BYTES
        portions[-1].append(block)
        room -= size
    return portions


def _cut(text: str, most_bytes: int) -> str:
    """Keep what fits, in whole characters."""
    return text.encode()[: max(0, most_bytes)].decode(errors="ignore")
