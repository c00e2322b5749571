"""What falls out of the context, told in few words: what to fold, and what a model is asked. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llmchat.conversation import MESSAGE_TOKENS, Summary, estimated_tokens

FOLD_AT = 0.5
"""Of the context's room: what is not covered yet takes more, so some of it is folded."""
LEFT = 0.25
"""Of the context's room: so much of the newest is left as it is."""
SUMMARY_SHARE = 8
"""One part in so many of the context is the most that a summary takes."""
MAX_CHARACTERS = 4000
INPUT_SHARE = 0.6
"""Of the context: what is folded at once."""
CHARACTERS_PER_WORD = 7
HEADING = "Summary of the conversation up to here:"
TASK = (
    "You keep the memory of a conversation between a user and an assistant. Write a summary of all that you are "
    "given, from which the assistant can go on without the messages: what the user told of themself and wants, "
    "names, figures, decisions, what was done and what is open. Keep what the summary so far says unless a later "
    "message changes it. Write in the language of the conversation, in plain sentences, in at most {words} words, "
    "and nothing but the summary."
)


def most_characters(context_tokens: int) -> int:
    """Tell how long a summary may be."""
    return min(MAX_CHARACTERS, context_tokens // SUMMARY_SHARE * 4)


def cost(message: dict[str, Any]) -> int:
    """Estimate what a message takes of the context, in tokens."""
    return estimated_tokens(message["text"]) + MESSAGE_TOKENS if message["text"] else 0


def fold_up_to(uncovered: Sequence[dict[str, Any]], room: int) -> str | None:
    """Choose the message up to which a branch is to be folded: an answer, so that what is left begins with a prompt.

    `room` is what the context has for messages, in tokens. None while enough of it is left.
    """
    if sum(map(cost, uncovered)) <= room * FOLD_AT:
        return None
    left = 0
    for index in range(len(uncovered) - 1, 0, -1):
        left += cost(uncovered[index])
        before = uncovered[index - 1]
        if before["role"] == "assistant" and left >= room * LEFT:
            return str(before["id"])
    return None


def first_to_fold(
    uncovered: Sequence[dict[str, Any]], context_tokens: int, calibration: float
) -> Sequence[dict[str, Any]]:
    """Choose the oldest messages that are folded at once, up to an answer; one at least."""
    most = context_tokens * INPUT_SHARE / calibration
    used, end = 0, 0
    for index, message in enumerate(uncovered):
        used += cost(message)
        if used > most and end:
            break
        if message["role"] == "assistant":
            end = index + 1
    return uncovered[: end or len(uncovered)]


def question(
    so_far: str, folded: Sequence[dict[str, Any]], context_tokens: int, calibration: float
) -> list[dict[str, str]]:
    """Word what a model is asked, so that it fits."""
    words = max(20, most_characters(context_tokens) // CHARACTERS_PER_WORD)
    most = int(context_tokens * INPUT_SHARE / calibration * 3)  # characters; more of them than tokens
    told = [f"{message['role'].capitalize()}: {message['text']}" for message in folded if message["text"]]
    share = max(200, most // max(1, len(told)))
    if sum(map(len, told)) > most:
        told = [_shortened(each, share) for each in told]
    parts = [f"Summary so far:\n{so_far}"] if so_far else []
    parts.append("Messages:\n" + "\n\n".join(told))
    return [
        {"role": "system", "content": TASK.format(words=words)},
        {"role": "user", "content": "\n\n".join(parts)},
    ]


def _shortened(text: str, characters: int) -> str:
    if len(text) <= characters:
        return text
    return f"{text[: characters // 2]} […] {text[-characters // 2 :]}"


def with_summary(system: str, summary: Summary | None) -> str:
    """Say to a model what it has to know beside the messages."""
    if summary is None or not summary.text:
        return system
    return "\n\n".join(part for part in (system, f"{HEADING}\n{summary.text}") if part)
