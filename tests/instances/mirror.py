"""What a client knows of one conversation from its events, with every rule of the protocol checked on the way.

Pure: it is fed decoded events and knows no connection.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

Event = dict[str, Any]
PLACED = frozenset(
    {
        "message.added",
        "message.withdrawn",
        "completion.started",
        "completion.delta",
        "completion.finished",
        "completion.failed",
        "conversation.selected",
    }
)
HASHED = 50  # newest messages of the branch: what a snapshot may hold


class Broken(AssertionError):
    """The server did not keep to the protocol."""


@dataclass
class Message:
    """One message as a client would show it."""

    id: str
    role: str
    parent: str | None
    text: str | None  # None: its beginning was never seen
    state: str
    finish_reason: str | None = None
    code: str | None = None
    attempt: int = 1
    blocks: list[str] | None = None  # None: the server has not sent them from the first on
    html: str | None = None  # as a snapshot had it

    def place_blocks(self, event: Event) -> None:
        """Place the blocks that changed."""
        if self.blocks is None or "count" not in event:
            return
        changed = dict(map(tuple, event.get("blocks", [])))
        known = self.blocks
        self.blocks = [
            changed.get(index, known[index] if index < len(known) else "") for index in range(event["count"])
        ]


class Mirror:
    """One conversation. `apply` raises `Broken` for a hole, a repeat, a wrong digest or an impossible event."""

    def __init__(self, conversation: str) -> None:
        self.conversation = conversation
        self.at: dict[str, Any] | None = None
        self.messages: dict[str, Message] = {}
        self.tip: str | None = None
        self._awaited: dict[str, str] = {}  # the answer to come -> its prompt
        self._appliers: dict[str, Callable[[Event], None]] = {
            "conversation.snapshot": self._snapshot,
            "conversation.current": self._current,
            "conversation.older": self._older,
            "conversation.selected": self._selected,
            "message.added": self._added,
            "message.withdrawn": self._withdrawn,
            "completion.started": self._started,
            "completion.delta": self._delta,
            "completion.finished": self._finished,
            "completion.failed": self._failed,
        }

    def forget_place(self) -> None:
        """Take the next placed event as it comes: what lies before it was not asked for."""
        self.at = None

    def apply(self, event: Event) -> None:
        """Take in one event of this conversation."""
        kind = event["type"]
        if kind in PLACED:
            self._take_place(event)
        if kind in self._appliers:
            self._appliers[kind](event)

    def text(self, message: str) -> str:
        """Return the text of a message by the protocol's rule."""
        known = self.messages[message].text
        assert known is not None, f"the beginning of {message} was never seen"
        return known

    def html(self, message: str) -> str:
        """Return its HTML: the blocks that were sent, or else what a snapshot had."""
        known = self.messages[message]
        html = known.html if known.blocks is None else "".join(known.blocks)
        assert html is not None, f"no HTML of {message} was seen"
        return html

    def branch(self) -> list[Message]:
        """Return the known messages of the current branch, oldest first."""
        branch: list[Message] = []
        step = self.tip
        while step is not None:
            if step in self.messages:
                branch.append(self.messages[step])
                step = self.messages[step].parent
            else:
                step = self._awaited.get(step)
        return branch[::-1]

    @property
    def leads_to_the_root(self) -> bool:
        """Whether all of the current branch is known; of a long one a snapshot has the end only."""
        branch = self.branch()
        return bool(branch) and (branch[0].parent is None or len(branch) >= HASHED)

    def hash(self) -> str:
        """Return a digest of what a person would see."""
        seen = [
            [one.id, one.role, one.parent, one.text, one.state, one.finish_reason, one.code]
            for one in self.branch()[-HASHED:]
        ]
        return hashlib.sha256(json.dumps(seen).encode()).hexdigest()

    # Places

    def _take_place(self, event: Event) -> None:
        self._check("at" in event, event, "has no place")
        at = event["at"]
        self._check("id" not in event, event, "is placed and echoes an id")
        if self.at is not None:
            self._check(at["epoch"] == self.at["epoch"], event, f"changes the epoch after {self.at}")
            self._check(at["offset"] == self.at["offset"] + 1, event, f"does not follow {self.at}")
        self.at = at

    def _snapshot(self, event: Event) -> None:
        at = event["at"]
        if self.at and self.at["epoch"] == at["epoch"]:
            self._check(at["offset"] >= self.at["offset"], event, f"stands before {self.at}")
            if at != self.at:  # of an answer on another branch nobody tells what was missed
                self.messages = {each.id: each for each in self.messages.values() if each.state != "running"}
        else:
            self.messages.clear()
        self.at = at
        self._take_in(event["messages"])
        self.tip = event["messages"][-1]["id"] if event["messages"] else None
        for one, behind in pairwise(event["messages"]):
            if behind["parent"] != one["id"]:  # an answer to come
                self._check(one["role"] == "user", event, f"has {behind} behind what is no prompt")
                self._check(behind["state"] == "queued", event, f"has {behind}, whose parent is not there")
                self._awaited[behind["parent"]] = one["id"]
        running = event["running"]
        if running in self.messages:
            self._check(self.messages[running].state == "running", event, "says that a finished answer runs")
        elif running is not None and running not in self._awaited:
            self._check(self.tip is not None, event, "runs an answer to nothing")
            prompt = self.messages[
                str(self.tip)
            ]  # stored, and its answer did not start yet; or it is elsewhere
            if prompt.role == "user" and prompt.state == "done":
                self._awaited[running] = prompt.id

    def _current(self, event: Event) -> None:
        if self.at is not None:
            self._check(event["at"] == self.at, event, f"is not where we are, at {self.at}")
        self.at = event["at"]

    def _older(self, event: Event) -> None:
        self._take_in(event["messages"])

    def _take_in(self, messages: list[dict[str, Any]]) -> None:
        for one in messages:
            self.messages[one["id"]] = Message(
                id=one["id"],
                role=one["role"],
                parent=one["parent"],
                text=one["text"],
                state=one["state"],
                finish_reason=one.get("finish_reason"),
                code=one.get("error", {}).get("code"),
                html=one.get("html"),
            )

    # Messages

    def _added(self, event: Event) -> None:
        self._take_in([event["message"]])
        self.tip = event["message"]["id"]
        self._awaited[event["answer"]] = self.tip

    def _withdrawn(self, event: Event) -> None:
        gone = self.messages.pop(event["message"], None)
        if gone is None:
            return
        self._check(gone.state == "queued", event, "withdraws what is not queued")
        lost = {gone.id, *(answer for answer, prompt in self._awaited.items() if prompt == gone.id)}
        for one in self.messages.values():
            if one.parent in lost:
                one.parent = gone.parent
        if self.tip in lost:
            self.tip = gone.parent

    def _selected(self, event: Event) -> None:
        self.tip = event["message"]

    # Answers

    def _started(self, event: Event) -> None:
        answer, parent = event["message"], event["parent"]
        first = answer not in self.messages
        if parent in self.messages:
            self.messages[parent].state = "done"
        self.messages[answer] = Message(
            id=answer,
            role="assistant",
            parent=parent,
            text=event["text"],
            state="running",
            attempt=event["attempt"],
            blocks=None if event["text"] else [],
        )
        if first and self._moves_to(answer, parent):
            self.tip = answer

    def _moves_to(self, answer: str, prompt: str) -> bool:
        """Tell whether an answer that begins for the first time makes its branch the current one."""
        step = self.tip
        if step in self.messages and self.messages[step].state == "queued":
            return False
        while step is not None and step not in (answer, prompt):
            step = self.messages[step].parent if step in self.messages else self._awaited.get(step)
        return step == prompt

    def _delta(self, event: Event) -> None:
        answer = self._running(event)
        if answer and answer.text is not None:
            answer.text += event["text"]
            answer.place_blocks(event)

    def _finished(self, event: Event) -> None:
        answer = self._running(event)
        if answer is None:
            return
        answer.state = "done"
        answer.finish_reason = event["finish_reason"]
        answer.place_blocks(event)
        if answer.text is not None:
            digest = hashlib.sha256(answer.text.encode()).hexdigest()
            self._check(digest == event["digest"], event, f"is not the digest of {answer.text!r}")

    def _failed(self, event: Event) -> None:
        if answer := self._running(event):
            answer.state = "failed"
            answer.code = event["code"]

    def _running(self, event: Event) -> Message | None:
        """Return the answer, or None where its beginning was never seen."""
        answer = self.messages.get(event["message"])
        if answer is not None:
            self._check(answer.state == "running", event, f"belongs to an answer that is {answer.state}")
        return answer

    def _check(self, kept: bool, event: Event, fault: str) -> None:
        if not kept:
            raise Broken(f"{event} {fault}")
