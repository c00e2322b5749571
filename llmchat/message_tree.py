"""Messages from elsewhere, arranged as our trees are: each behind its parent, prompts and answers in turn. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from llmchat.conversation import derived_id
from llmchat.errors import Unreadable

MAX_MESSAGES = 20_000
"""Of a conversation."""
MAX_TEXT_BYTES = 192 * 1024
"""Of a message, as of an answer that is made here."""
MAX_REASONING_BYTES = 128 * 1024
ID_CHARACTERS = 200
NO_PROMPT = "(no prompt)"
"""Stands before an answer that has none."""
ROLES = {"user": "assistant", "assistant": "user"}
"""Which role follows which."""
EMPTY = "It has no messages."
TOO_MANY = f"It has more than {MAX_MESSAGES:,} messages."

UNREAD = "1 message cannot be read.", "{:,} messages cannot be read."
CUT = "1 message is too long, and was cut.", "{:,} messages are too long, and were cut."


@dataclass(frozen=True, slots=True)
class Lost:
    """Parts of a conversation that are not to be had: how many, and what is said of one and of several."""

    count: int
    one: str
    several: str

    def __str__(self) -> str:
        return self.one if self.count == 1 else self.several.format(self.count)


@dataclass(frozen=True, slots=True)
class Arranged:
    """What could be read of a conversation's messages."""

    messages: list[dict[str, Any]]
    current: str
    """The last message of the branch that is shown."""
    lost: list[Lost]
    """What could not be read."""


def arranged(given: Iterable[dict[str, Any]], current: object) -> Arranged:
    """Arrange messages that have an `id`, a `parent`, a `role`, a `text` and a `created`. Raises Unreadable.

    Where an answer has no prompt, or a prompt no answer, there is one that says so.
    """
    tree = _Tree()
    for message in given:
        tree.take(message)
    messages = list(tree.walk())
    if not any(message["text"] or message.get("attachments") for message in messages):
        raise Unreadable(EMPTY)
    known = {message["id"] for message in messages}
    shown = current if isinstance(current, str) and current in known else _newest_leaf(messages)
    return Arranged(messages, _end_below(messages, shown), tree.told())


def sound_text(told: object) -> str:
    """Give a text that can be written as UTF-8; "" for what is none."""
    return told.encode(errors="replace").decode() if isinstance(told, str) else ""


def _newest_leaf(messages: Sequence[dict[str, Any]]) -> str:
    parents = {message["parent"] for message in messages}
    leaves = [message for message in messages if message["id"] not in parents]
    return str(max(leaves, key=lambda message: str(message["created"]))["id"])


def _end_below(messages: Sequence[dict[str, Any]], shown: str) -> str:
    below = {message["parent"]: str(message["id"]) for message in messages}
    for message in messages:  # what is below one comes later
        if below.get(shown) == message["id"]:
            shown = message["id"]
    return shown


class _Tree:
    """Messages as they come, and what is wrong with them."""

    def __init__(self) -> None:
        self._nodes: dict[str, dict[str, Any]] = {}
        self._below: dict[str | None, list[str]] = {}
        self._roles: dict[str | None, str] = {None: "assistant"}  # of what was given already
        self._cut = self._unread = 0

    def take(self, message: dict[str, Any]) -> None:
        """Take a message, unless it is none."""
        if not self._sound(message):
            self._unread += 1
            return
        if len(self._nodes) == MAX_MESSAGES:
            raise Unreadable(TOO_MANY)
        message["text"] = self._within(message["text"], MAX_TEXT_BYTES)
        if "reasoning" in message:
            message["reasoning"] = self._within(message["reasoning"], MAX_REASONING_BYTES)
        if not isinstance(message["parent"], str):
            message["parent"] = None
        self._nodes[message["id"]] = message
        self._below.setdefault(message["parent"], []).append(message["id"])

    def _sound(self, message: dict[str, Any]) -> bool:
        name = message["id"]
        named = isinstance(name, str) and 0 < len(name) <= ID_CHARACTERS and name not in self._nodes
        return named and sound_text(message["role"]) in ROLES and isinstance(message["text"], str)

    def _within(self, text: str, most_bytes: int) -> str:
        """Keep what fits, in whole characters."""
        whole = text.encode(errors="replace")
        if len(whole) > most_bytes:
            self._cut += 1
        return whole[:most_bytes].decode(errors="ignore")

    def walk(self) -> Iterator[dict[str, Any]]:
        """Give each behind its parent; one whose parent is not there begins a branch."""
        begin = [name for parent, names in self._below.items() if parent not in self._nodes for name in names]
        ahead = begin[::-1]
        while ahead:
            message = self._nodes[ahead.pop()]
            if message["parent"] not in self._roles:
                message["parent"] = None
            if self._roles[message["parent"]] == message["role"]:
                yield from self._filled(message)
            yield self._given(message)
            below = self._below.get(message["id"], [])
            ahead += below[::-1]
            if message["role"] == "user" and not below:
                yield self._given(_filler(message["id"], message))

    def _filled(self, message: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Give what is missing between a message and its parent, once for all that lack it there."""
        filler = _filler(message["parent"], message)
        message["parent"] = filler["id"]
        if filler["id"] not in self._roles:
            yield self._given(filler)

    def _given(self, message: dict[str, Any]) -> dict[str, Any]:
        self._roles[message["id"]] = message["role"]
        return message

    def told(self) -> list[Lost]:
        """Say what is lost, once all are given: what leads to itself never was."""
        unread = self._unread + sum(name not in self._roles for name in self._nodes)
        lost = Lost(unread, *UNREAD), Lost(self._cut, *CUT)
        return [each for each in lost if each.count]


def _filler(parent: str | None, beside: dict[str, Any]) -> dict[str, Any]:
    """Make the prompt that an answer lacks, or the answer that a prompt does."""
    role = ROLES[beside["role"]]
    filler = {
        "id": derived_id("filler", parent or "", role).rjust(
            ID_CHARACTERS + 1
        ),  # longer than any that is given
        "parent": parent,
        "role": role,
        "text": NO_PROMPT if role == "user" else "",
        "created": beside["created"],
        "state": "done",
    }
    return filler if role == "user" else filler | {"model": "", "finish_reason": "interrupted"}
