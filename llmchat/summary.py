"""What falls out of the context, told in few words: what to fold, and what a model is asked. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llmchat.attachment import IMAGE_TOKENS, is_image, mentioned
from llmchat.conversation import MESSAGE_TOKENS, Summary, estimated_tokens, shortened

FOLD_AT = 0.5
"""Of the context's budget: what is not covered yet takes more, so some of it is folded."""
LEFT = 0.25
"""Of the context's budget: so much of the newest is left as it is."""
SUMMARY_SHARE = 8
"""One part in so many of the context is the most that a summary takes."""
MAX_CHARACTERS = 4000
FOLDED = 0.6
"""Of the context: what is folded at once."""
CHARACTERS_PER_WORD = 7
SENT_SHARE = 4
"""One part in so many is the most that is sent of one that a person made longer."""
SHORTEST = 20
"""Tokens that are left of a message, at least."""
CORRECTED_CHARACTERS = 8000
"""Of a summary that a person wrote."""
SO_FAR = "Summary so far:"
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
    """Estimate what a message's words take of the context, in tokens."""
    words = mentioned(message)
    return estimated_tokens(words) + MESSAGE_TOKENS if words else 0


def weight(message: dict[str, Any]) -> int:
    """Estimate what a message takes of the context with its files."""
    files = message.get("attachments", ())
    return cost(message) + sum(
        IMAGE_TOKENS if is_image(each["type"]) else each["size"] // 4 for each in files
    )


def fold_up_to(uncovered: Sequence[dict[str, Any]], budget: int) -> str | None:
    """Choose the message up to which a branch is to be folded: an answer, so that what is left begins with a prompt.

    `budget` is what the context has for messages, in tokens. None while enough of it is left.
    """
    if sum(map(weight, uncovered)) <= budget * FOLD_AT:
        return None
    left = 0
    for index in range(len(uncovered) - 1, 0, -1):
        left += weight(uncovered[index])
        before = uncovered[index - 1]
        if before["role"] == "assistant" and left >= budget * LEFT:
            return str(before["id"])
    return None


def first_to_fold(
    uncovered: Sequence[dict[str, Any]], context_tokens: int, calibration: float
) -> Sequence[dict[str, Any]]:
    """Choose the oldest messages that are folded at once, up to an answer; one at least."""
    most = context_tokens * FOLDED / calibration
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
    most = int(context_tokens * FOLDED / calibration)
    texts = [mentioned(message) for message in folded]
    if sum(map(cost, folded)) > most:
        texts = [shortened(text, max(SHORTEST, most // len(texts))) for text in texts]
    told = [
        f"{message['role'].capitalize()}: {text}" for message, text in zip(folded, texts, strict=True) if text
    ]
    so_far = shortened(so_far, int(context_tokens / SUMMARY_SHARE / calibration))
    parts = [f"{SO_FAR}\n{so_far}"] if so_far else []
    parts.append("Messages:\n" + "\n\n".join(told))
    return [
        {"role": "system", "content": TASK.format(words=words)},
        {"role": "user", "content": "\n\n".join(parts)},
    ]


def with_summary(system: str, summary: Summary | None, context_tokens: int, calibration: float) -> str:
    """Say to a model what it has to know beside the messages: of a long summary, its beginning and its end."""
    if summary is None or not summary.text:
        return system
    text = shortened(summary.text, int(context_tokens / SENT_SHARE / calibration))
    return "\n\n".join(part for part in (system, f"{HEADING}\n{text}") if part)
