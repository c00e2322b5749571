"""Pure: what a model server says in one event -> a Delta of what may be shown."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from llmchat.turn import Delta

MAX_COUNT = 10**9
"""Figures of the provider's beyond are not believed."""
CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def delta_of(event: Any) -> Delta | None:
    """Read an event; None where it says nothing."""
    if not isinstance(event, dict):
        return None
    choice = (event.get("choices") or [{}])[0]
    said = choice.get("delta") or {}
    text = said.get("content") or ""
    reasoning = said.get("reasoning_content") or said.get("reasoning") or ""
    finish_reason = choice.get("finish_reason")
    usage = event.get("usage")
    if not (text or reasoning or finish_reason or usage):
        return None
    reason = finish_reason if isinstance(finish_reason, str) else None
    return Delta(_sound(text), _sound(reasoning), reason, _counts(usage))


def merged(said: Sequence[Delta]) -> Delta:
    """Make one of several."""
    if len(said) == 1:
        return said[0]
    return Delta(
        "".join(delta.text for delta in said),
        "".join(delta.reasoning for delta in said),
        next((delta.finish_reason for delta in said if delta.finish_reason), None),
        next((delta.usage for delta in reversed(said) if delta.usage), None),
    )


def _counts(usage: Any) -> dict[str, int] | None:
    if not isinstance(usage, dict):
        return None
    names = ("prompt_tokens", "completion_tokens")
    counts = {name: usage[name] for name in names if isinstance(usage.get(name), int)}
    return {name: count for name, count in counts.items() if 0 <= count <= MAX_COUNT} or None


def _sound(text: str) -> str:
    """Drop control characters, which nobody reads, and replace lone surrogates, which UTF-8 cannot carry."""
    text = CONTROLS.sub("", text)
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
