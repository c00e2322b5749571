"""Messages, branches and the context that fits a budget. Pure: knows neither Redis nor the model."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Self

from llmchat.attachment import IMAGE_TOKENS, Attached, content, told
from llmchat.title import cut, has_word, one_line

RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII)
TITLE_CHARACTERS = 48
UNTITLED = "New chat"
RESTORE_SECONDS = 30
"""So long what was deleted can be brought back."""
TEMPORARY_SECONDS = 3600
"""How long a temporary conversation is kept after its last use."""

ANSWER_SHARE = 4
"""One part in so many of the context is left free for the answer, up to ANSWER_TOKENS."""
ANSWER_TOKENS = 2048
PROMPT_SHARE = 16
"""One part in so many is the newest message's, whatever else there is: what is cut further is no prompt any more."""
ENDING_SHARE = 3
"""One part in so many is the most that is sent of an answer which a model is asked in words to go on with."""
GO_ON = "Go on with your last answer exactly where it breaks off. Repeat nothing of it, and do not speak of going on."
MESSAGE_TOKENS = 6
"""What a model's chat template adds around a message, estimated."""
MIN_CALIBRATION, MAX_CALIBRATION = 0.5, 8.0
"""Tokens counted by the provider per token estimated here: figures beyond are not believed."""
CALIBRATION_STEP = 1.5
"""What the calibration grows by where less has to be sent."""
COST, COST_IN_VAIN, COST_FURTHER, MAX_COST = 9, 17, 2, 20
"""Of attempts at an answer: of one, of one that brought nothing, of one that came further than those before it; and of
all, where no other is made. So three are made that come no further than the first, two that bring nothing, and ten at
most whatever they bring."""


def timestamp(now: datetime | None = None) -> str:
    """Give a time as RFC 3339 in UTC with milliseconds; the present one by default."""
    return (
        (now or datetime.now(UTC)).astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    )


def milliseconds(time: str) -> int:
    """Give an RFC 3339 time as milliseconds since 1970. Raises ValueError."""
    if not RFC_3339.fullmatch(time):
        raise ValueError(time)
    return round(datetime.fromisoformat(time).timestamp() * 1000)


def derived_id(*parts: str) -> str:
    """Make an id that the same parts always give, and that tells nothing of them."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def digest(text: str) -> str:
    """Give the SHA-256 of a text, in hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def first_words(text: str) -> str:
    """Make a title of a prompt's first words."""
    words = one_line(text)
    return cut(words, TITLE_CHARACTERS + 1) if has_word(words) else UNTITLED


@dataclass(frozen=True, slots=True)
class Turn:
    """One answer being made: what the store says of it."""

    answer: str
    prompt: str
    model: str
    attempt: int
    """0 until the answer began."""
    stop: bool = False
    count: int = 0
    """Of the attempt's deltas."""
    said: int = 0
    """Bytes of its text, where that was looked for."""
    spent: int = 0
    """What attempts before the last one have cost."""
    furthest: int = 0
    """Bytes of text that any of them had reached."""
    handed: bool = False
    """The last attempt's instance gave it away in order."""
    kept: int | None = None
    """Bytes of text that the answer had when a person had it continued; None of one that is made anew."""
    queued: bool = False
    """Its prompt has waited, and nobody was told yet that it does no more."""
    instead: str = ""
    """Until it began: the end of the current branch, another answer to its prompt."""

    @classmethod
    def read(cls, turn: dict[str, str]) -> Self:
        """Read a stored one."""
        return cls(
            turn["answer"],
            turn["prompt"],
            turn["model"],
            int(turn["attempt"]),
            stop="stop" in turn,
            count=int(turn.get("count", 0)),
            spent=int(turn.get("spent", 0)),
            furthest=int(turn.get("furthest", 0)),
            handed="handed" in turn,
            kept=int(turn["kept"]) if "kept" in turn else None,
            queued="queued" in turn,
            instead=turn.get("instead", ""),
        )

    @property
    def cost(self) -> int:
        """What its attempts have cost: one that was given away in order costs nothing.

        One that came further than those before it costs little: a deploy may kill several instances in a row under an
        answer.
        """
        if not self.attempt or self.handed:
            return self.spent
        if not self.count:
            return self.spent + COST_IN_VAIN
        return self.spent + (COST_FURTHER if self.said > self.furthest else COST)

    @property
    def continues(self) -> bool:
        """A person has it continued."""
        return self.kept is not None

    @property
    def awaited(self) -> bool:
        """Its answer ended before, and nobody was told yet that it goes on."""
        return self.continues and not self.attempt


@dataclass(frozen=True, slots=True)
class Choices:
    """What is chosen for a conversation before it begins."""

    system: str | None = None
    parameters: str = ""
    """JSON, "" where there are none."""
    temporary: bool = False

    def stored(self) -> tuple[str, str, int]:
        """Give them as the script that begins a conversation takes them: a system prompt of "" is one, too."""
        return "" if self.system is None else f"={self.system}", self.parameters, int(self.temporary)


NO_CHOICES = Choices()


@dataclass(frozen=True, slots=True)
class Conversation:
    """What the store says of a conversation, without its messages."""

    id: str
    title: str
    epoch: str
    offset: int
    tip: str
    created: str
    updated: str
    model: str = ""
    system: str | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    pinned: bool = False
    archived: bool = False
    temporary: bool = False
    """It is in no list, and gone TEMPORARY_SECONDS after its last use."""
    unread: bool = False
    """An answer ended since a person looked."""
    calibration: float = 1.0
    continued: int = 0
    """Answers that went on after their end."""
    turn: Turn | None = None

    @classmethod
    def read(cls, conversation: str, state: dict[str, str], turn: dict[str, str]) -> Self:
        """Read a stored one, and its turn where it has one."""
        return cls(
            id=conversation,
            title=state["title"],
            epoch=state["epoch"],
            offset=int(state["offset"]),
            tip=state["tip"],
            created=state["created"],
            updated=state["updated"],
            model=state.get("model", ""),
            system=state.get("system"),
            parameters=json.loads(state.get("parameters", "{}")),
            pinned=state.get("pinned") == "1",
            archived=state.get("archived") == "1",
            temporary=state.get("temporary") == "1",
            unread=state.get("unread") == "1",
            calibration=float(state.get("calibration", 1.0)),
            continued=int(state.get("continued", 0)),
            turn=Turn.read(turn) if turn else None,
        )

    @property
    def running(self) -> str | None:
        """The id of the answer in progress, or to come; None where there is none, as far as anybody was told."""
        return self.turn.answer if self.turn and not self.turn.awaited else None

    @property
    def at(self) -> dict[str, Any]:
        """The place of its last placed event."""
        return {"epoch": self.epoch, "offset": self.offset}

    def model_among(self, offered: Sequence[str]) -> str:
        """Name the model that it asks: the first on offer where its own is not any more."""
        return self.model if self.model in offered else offered[0]

    def listed(self, models: Sequence[str]) -> dict[str, Any]:
        """Give the shape that lists have, where `models` are on offer."""
        return {
            "id": self.id,
            "title": self.title,
            "created": self.created,
            "updated": self.updated,
            "pinned": self.pinned,
            "archived": self.archived,
            "running": self.turn is not None,
            "unread": self.unread,
            "model": self.model_among(models),
            **({"temporary": True} if self.temporary else {}),
        }


@dataclass(frozen=True, slots=True)
class Summary:
    """What stands for a conversation from its beginning to a message, this included."""

    message: str
    text: str
    messages: int
    """How many it covers."""
    created: str
    corrected: bool = False

    @classmethod
    def read(cls, message: bytes, record: bytes) -> Self:
        """Read a stored one."""
        return cls(message=message.decode(), **json.loads(record))


@dataclass(frozen=True, slots=True)
class Branch:
    """A part of one branch, oldest first, as the protocol shapes messages (without `html`)."""

    conversation: Conversation
    messages: list[dict[str, Any]]
    more: bool
    """Older ones exist."""
    summary: Summary | None = None
    """What stands for those before, where it was asked for."""


def estimated_tokens(text: str) -> int:
    """Estimate a text's tokens: four ASCII characters each, other characters one each."""
    other = sum(1 for character in text if character > "\x7f")
    return (len(text) - other + 3) // 4 + other


def budget_of(context_tokens: int, calibration: float) -> int:
    """Tell how much a model may be sent, in tokens as they are estimated here: some is left for the answer."""
    return int((context_tokens - min(ANSWER_TOKENS, context_tokens // ANSWER_SHARE)) / calibration)


@dataclass(frozen=True, slots=True)
class Context:
    """What the model is sent, and how many tokens we think it is before calibration."""

    messages: list[dict[str, Any]]
    estimate: int
    images: int = 0
    """Pictures among them."""


@dataclass(frozen=True, slots=True)
class _Sent:
    """A message as the model may be sent it: its words, with those of its files, and its pictures."""

    role: str
    text: str
    attached: Sequence[Attached] = ()

    @classmethod
    def of(cls, message: dict[str, Any]) -> _Sent:
        attached = message.get("attached", ())
        return cls(message["role"], told(message["text"], attached), attached)

    @property
    def images(self) -> int:
        return sum(1 for each in self.attached if each.url is not None)

    @property
    def cost(self) -> int:
        return estimated_tokens(self.text) + MESSAGE_TOKENS + self.images * IMAGE_TOKENS

    @property
    def shape(self) -> dict[str, Any]:
        return {"role": self.role, "content": content(self.text, self.attached)}


def context(
    system: str, branch: Sequence[dict[str, Any]], context_tokens: int, calibration: float = 1.0
) -> Context:
    """Choose what the model is sent: the system prompt always, then the newest messages that fit.

    `calibration` is tokens counted by the provider per token estimated here. A newest message that does not fit
    alone keeps its beginning and its end, and never less of them than its share. `attached` of a message are its
    files; where there is no room for them, words say that they were there.
    """
    budget = budget_of(context_tokens, calibration)
    chosen: list[_Sent] = []
    used = 0
    if system:
        used = estimated_tokens(system) + MESSAGE_TOKENS
    for message in reversed(branch):
        sent = _Sent.of(message)
        if not sent.text and not sent.images:
            continue
        if chosen and used + sent.cost > budget:
            sent = _Sent.of(message | {"attached": [each.instead for each in sent.attached]})
        fits = used + sent.cost <= budget
        if not fits and chosen:
            break
        if not fits:
            sent = _newest(message, budget - used, context_tokens // PROMPT_SHARE)
        chosen.append(sent)
        used += sent.cost
        if not fits:
            break
    while len(chosen) > 1 and chosen[-1].role != "user":  # a model wants a prompt first
        used -= chosen.pop().cost
    messages = [each.shape for each in reversed(chosen)]
    if system:
        messages.insert(0, {"role": "system", "content": system})
    return Context(messages, used, sum(each.images for each in chosen))


def _newest(message: dict[str, Any], most: int, share: int) -> _Sent:
    """Make a message fit that does not: as many pictures as fit beside its share, and what is left of the words."""
    attached: list[Attached] = []
    left = most - share - MESSAGE_TOKENS
    for each in message.get("attached", ()):
        keeps = each.url is None or left >= IMAGE_TOKENS
        left -= IMAGE_TOKENS if keeps and each.url is not None else 0
        attached.append(each if keeps else each.instead)
    sent = _Sent.of(message | {"attached": attached})
    words = max(most - MESSAGE_TOKENS - sent.images * IMAGE_TOKENS, share)
    return _Sent(sent.role, shortened(sent.text, words), attached)


def going_on(kept: str, context_tokens: int, calibration: float) -> list[dict[str, Any]]:
    """Give the messages that ask a model in words to go on with an answer; of a long one, with its end."""
    if not kept:
        return []
    most = int(context_tokens / ENDING_SHARE / calibration)
    end = kept
    while estimated_tokens(end) > most:
        end = end[-max(1, len(end) * 9 // 10) :]
    return [{"role": "assistant", "text": end}, {"role": "user", "text": GO_ON}]


def leaves_room(system: str, context_tokens: int) -> bool:
    """Tell whether a system prompt, which is always sent, leaves the better half of the context to the conversation."""
    return estimated_tokens(system) <= context_tokens // 2


def takes_system(system: str, most_characters: int, context_tokens: int) -> bool:
    """Tell whether a conversation may have a system prompt."""
    return len(system) <= most_characters and leaves_room(system, context_tokens)


def shortened(text: str, tokens: int) -> str:
    """Keep the beginning and the end of a text, so that it has at most so many tokens."""
    if estimated_tokens(text) <= tokens:
        return text
    mark = "\n[…]\n"
    share = max(1, len(text) * max(tokens - estimated_tokens(mark), 1) // estimated_tokens(text))
    while True:
        head, tail = share - share // 2, share // 2
        cut = text[:head] + mark + (text[-tail:] if tail else "")
        if share <= 1 or estimated_tokens(cut) <= tokens:
            return cut
        share = share * 9 // 10


def calibrated(calibration: float, estimate: int, prompt_tokens: int) -> float:
    """Move a conversation's calibration to what the provider counted."""
    if estimate <= 0 or prompt_tokens <= 0:
        return calibration
    return min(MAX_CALIBRATION, max(MIN_CALIBRATION, prompt_tokens / estimate))
