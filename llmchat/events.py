"""Everything that crosses the wire, typed: commands in, events out. Pure.

One class per type; `MessageSend` is `message.send`. docs/protocol.md says what they mean.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, fields
from functools import cache
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from llmchat.attachment import MAX_ATTACHMENTS
from llmchat.errors import BadField, BadFrame, CommandError, UnknownType
from llmchat.title import MOST_TITLE_CHARACTERS

SUBPROTOCOL = "llmchat.v1"
PROTOCOL = 1
MAX_FRAME_BYTES = 64 * 1024
"""Of an incoming frame, in UTF-8."""
MAX_SNAPSHOT_BYTES = 900 * 1024
"""Of the messages in one outgoing frame, which may have 1 MiB."""
MAX_MESSAGES = 50
"""Of messages in a snapshot, and of messages or conversations in one page of a list."""
MAX_QUERY = 200
"""Characters of what is searched for."""
MAX_FOUND = 20
"""Conversations that a search finds where it does not say how many."""
ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))

ID = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)

Id = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
Limit = Annotated[int, Field(ge=1, le=MAX_MESSAGES)]


class Place(BaseModel):
    """Where a placed event stands in its conversation."""

    model_config = ConfigDict(strict=True, frozen=True)

    epoch: Id
    offset: Annotated[int, Field(ge=0, le=2**53)]


class Parameters(BaseModel):
    """How the model is asked in one conversation; what is absent is left to the model server."""

    model_config = ConfigDict(strict=True, frozen=True)

    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None


class Command(BaseModel):
    """What a client asks for. Unknown fields are ignored."""

    model_config = ConfigDict(strict=True, frozen=True)

    id: Id | None = None


class ConversationOpen(Command):
    type: Literal["conversation.open"]
    conversation: Id
    after: Place | None = None


class ConversationClose(Command):
    type: Literal["conversation.close"]
    conversation: Id


class ConversationOlder(Command):
    type: Literal["conversation.older"]
    conversation: Id
    before: Id
    limit: Limit = MAX_MESSAGES


class ConversationList(Command):
    type: Literal["conversation.list"]
    before: str | None = None
    limit: Limit = MAX_MESSAGES
    query: Annotated[str, Field(max_length=MAX_QUERY)] | None = None
    pinned: bool | None = None
    archived: bool | None = None


class ConversationSearch(Command):
    type: Literal["conversation.search"]
    query: Annotated[str, Field(max_length=MAX_QUERY)]
    limit: Limit = MAX_FOUND


class ConversationSummary(Command):
    type: Literal["conversation.summary"]
    conversation: Id


class SummaryCorrect(Command):
    type: Literal["summary.correct"]
    conversation: Id
    message: Id
    text: str


class ShareCreate(Command):
    type: Literal["share.create"]
    id: Id
    conversation: Id


class ShareList(Command):
    type: Literal["share.list"]
    conversation: Id | None = None


class ShareRevoke(Command):
    type: Literal["share.revoke"]
    share: Id


class ConversationUpdate(Command):
    type: Literal["conversation.update"]
    conversation: Id
    title: Annotated[str, Field(max_length=MOST_TITLE_CHARACTERS)] | None = None
    pinned: bool | None = None
    archived: bool | None = None
    system: str | None = None
    model: Annotated[str, Field(max_length=200)] | None = None
    parameters: Parameters | None = None

    @property
    def drops_system(self) -> bool:
        """Tell a system prompt of null (the server's own from now on) from an absent one (as it is)."""
        return self.system is None and "system" in self.model_fields_set


class ConversationDelete(Command):
    type: Literal["conversation.delete"]
    conversation: Id


class ConversationRestore(Command):
    type: Literal["conversation.restore"]
    conversation: Id


class ConversationRead(Command):
    type: Literal["conversation.read"]
    conversation: Id


class MessageSend(Command):
    type: Literal["message.send"]
    id: Id
    text: str
    conversation: Id | None = None
    parent: Id | None = None
    model: Annotated[str, Field(max_length=200)] | None = None
    attachments: Annotated[list[Id], Field(max_length=MAX_ATTACHMENTS)] = []
    system: str | None = None
    parameters: Parameters | None = None
    temporary: bool = False

    @property
    def names_parent(self) -> bool:
        """Tell a parent of null (the root) from an absent one (the tip)."""
        return "parent" in self.model_fields_set


class MessageWithdraw(Command):
    type: Literal["message.withdraw"]
    conversation: Id
    message: Id


class MessageSelect(Command):
    type: Literal["message.select"]
    conversation: Id
    message: Id


class CompletionStop(Command):
    type: Literal["completion.stop"]
    conversation: Id
    message: Id | None = None


class CompletionContinue(Command):
    type: Literal["completion.continue"]
    conversation: Id
    message: Id


class CompletionRegenerate(Command):
    type: Literal["completion.regenerate"]
    conversation: Id
    message: Id
    model: Annotated[str, Field(max_length=200)] | None = None


class Ping(Command):
    type: Literal["ping"]


COMMANDS: dict[str, type[Command]] = {
    command.model_fields["type"].annotation.__args__[0]: command  # type: ignore[union-attr]
    for command in Command.__subclasses__()
}


def parse_frame(text: str) -> Command:
    """Read a command from a text frame.

    Raises BadFrame, UnknownType or BadField; each carries the frame's `id`, if it has a sound one, in `.id`.
    """
    try:
        frame = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise BadFrame("The frame is not JSON.") from None
    if not isinstance(frame, dict):
        raise BadFrame("The frame is not a JSON object.")
    try:
        return _command(frame)
    except CommandError as error:
        error.id = _sound_id(frame)
        raise


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON.")


def _command(frame: dict[str, Any]) -> Command:
    try:
        json.dumps(frame, ensure_ascii=False).encode()
    except (ValueError, RecursionError):  # an escaped lone surrogate parses, and fails only here
        raise BadFrame("The frame has half of a surrogate pair.") from None
    kind = frame.get("type")
    if not isinstance(kind, str) or kind not in COMMANDS:
        raise UnknownType("The type is not a command that this server knows.")
    try:
        return COMMANDS[kind].model_validate(frame)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(step) for step in first["loc"])
        raise BadField(f"The field {where} is wrong: {first['msg']}.") from None


def _sound_id(frame: dict[str, Any]) -> str | None:
    given = frame.get("id")
    return given if isinstance(given, str) and ID.fullmatch(given) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What the server states. A field that is None does not apply and is left out, unless `nullable` names it."""

    type: ClassVar[str]
    nullable: ClassVar[frozenset[str]] = frozenset()

    def encode(self) -> str:
        """Give the frame's text."""
        frame: dict[str, Any] = {"type": self.type}
        for name in self._names():
            value = getattr(self, name)
            if value is not None or name in self.nullable:
                frame[name] = value
        return ENCODER.encode(frame)

    @classmethod
    @cache
    def _names(cls) -> list[str]:
        return [field.name for field in fields(cls)]


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionReady(Event):
    type = "session.ready"
    protocol: int
    version: str
    instance: str
    models: list[dict[str, Any]]
    limits: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionStore(Event):
    type = "session.store"
    available: bool
    detail: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationSnapshot(Event):
    type = "conversation.snapshot"
    nullable = frozenset({"running"})
    id: str | None = None
    conversation: str
    title: str
    model: str
    system: str
    parameters: dict[str, Any]
    archived: bool
    temporary: bool
    messages: list[dict[str, Any]]
    more: bool
    running: str | None
    at: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationCurrent(Event):
    type = "conversation.current"
    id: str | None = None
    conversation: str
    at: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationOlderEvent(Event):
    type = "conversation.older"
    id: str | None = None
    conversation: str
    messages: list[dict[str, Any]]
    more: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationSummaryEvent(Event):
    type = "conversation.summary"
    nullable = frozenset({"summary"})
    id: str | None = None
    conversation: str
    summary: dict[str, Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareCreated(Event):
    type = "share.created"
    id: str
    share: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareListed(Event):
    type = "share.listed"
    id: str | None = None
    shares: list[dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareRevoked(Event):
    type = "share.revoked"
    id: str | None = None
    share: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationListed(Event):
    type = "conversation.listed"
    id: str | None = None
    conversations: list[dict[str, Any]]
    more: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationFound(Event):
    type = "conversation.found"
    id: str | None = None
    query: str
    results: list[dict[str, Any]]
    searched: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationUpdated(Event):
    type = "conversation.updated"
    id: str | None = None
    conversation: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationDeleted(Event):
    type = "conversation.deleted"
    id: str | None = None
    conversation: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageAccepted(Event):
    type = "message.accepted"
    id: str
    conversation: str
    message: str
    answer: str
    at: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageAdded(Event):
    """Placed."""

    type = "message.added"
    conversation: str
    message: dict[str, Any]
    answer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageWithdrawn(Event):
    """Placed."""

    type = "message.withdrawn"
    conversation: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionStarted(Event):
    """Placed."""

    type = "completion.started"
    conversation: str
    message: str
    parent: str
    created: str
    model: str
    attempt: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionDelta(Event):
    """Placed."""

    type = "completion.delta"
    conversation: str
    message: str
    text: str
    blocks: list[tuple[int, str]]
    count: int
    reasoning: str | None = None
    reasoning_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionFinished(Event):
    """Placed."""

    type = "completion.finished"
    conversation: str
    message: str
    finish_reason: str
    digest: str
    blocks: list[tuple[int, str]]
    count: int
    usage: dict[str, int] | None = None
    seconds: float
    reasoning_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionFailed(Event):
    """Placed."""

    type = "completion.failed"
    conversation: str
    message: str
    code: str
    detail: str
    retryable: bool
    retry_after: float | None = None
    reasoning_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationSelected(Event):
    """Placed."""

    type = "conversation.selected"
    conversation: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Error(Event):
    type = "error"
    id: str | None = None
    code: str
    detail: str
    retry_after: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pong(Event):
    type = "pong"
    id: str | None = None


PLACED = (
    MessageAdded,
    MessageWithdrawn,
    CompletionStarted,
    CompletionDelta,
    CompletionFinished,
    CompletionFailed,
    ConversationSelected,
)
