"""Conversations as wholes in Redis: read with all their branches, and stored as they come from elsewhere."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from redis.asyncio import Redis

from llmchat.conversation import Conversation, derived_id
from llmchat.errors import NO_CONVERSATION, NotFound
from llmchat.keys import ConversationKeys, Keys
from llmchat.redis_client import available
from llmchat.script import Script, Several
from llmchat.transcript import Transcript

READ_AT_ONCE = 32
"""Messages, of which each has 320 KiB at most."""
PART_FIELDS = 500
PART_BYTES = 512 * 1024
PART_MS = 3_600_000
"""For what is stored first of a conversation: where the rest does not come, it goes by itself."""


@dataclass(frozen=True, slots=True)
class Outline:
    """A conversation without its messages' words."""

    conversation: str
    transcript: Transcript
    """Without messages."""
    parents: dict[str, str]
    """Message -> the one above it, "" for none; each behind its parent, in order."""
    branch: list[str]
    """The messages of the branch that is shown, oldest first."""
    queued: frozenset[str] = field(default_factory=frozenset)


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a conversation that is there."""

    updated: str
    deleted: bool
    """A moment ago: it may come back."""


class Transcripts:
    """Every method raises Unavailable when Redis is away; a write may be repeated without harm."""

    def __init__(self, redis: Redis, keys: Keys, *, history_days: int) -> None:
        self._redis = redis
        self._keys = keys
        self._retention_ms = history_days * 86_400_000
        self._several = Several(redis)
        self._import = Script(redis, "import")

    # Reading

    async def outline(self, session: str, conversation: str) -> Outline:
        """Read which messages a conversation has. Raises NotFound."""
        keys = self._keys.of_conversation(conversation)
        state, tree, names, queue = await self._several(
            [keys.conversation, keys.tree, keys.messages, keys.queue],
            ("HGETALL", keys.conversation),
            ("HGETALL", keys.tree),
            ("HKEYS", keys.messages),
            ("LRANGE", keys.queue, 0, -1),
        )
        told = _pairs(state)
        if told.get("session") != session or "deleted" in told:
            raise NotFound(NO_CONVERSATION)
        nodes = _pairs(tree)
        parents = _parents(nodes, {name.decode() for name in names})
        shown = _branch(nodes, parents, told["tip"])
        known = Conversation.read(conversation, told, {})
        transcript = Transcript(
            id=conversation,
            title=known.title,
            created=known.created,
            updated=known.updated,
            model=known.model,
            system=known.system,
            parameters=known.parameters,
            pinned=known.pinned,
            archived=known.archived,
            current=shown[-1] if shown else None,
        )
        waiting = frozenset(entry.decode().partition(" ")[0] for entry in queue)
        return Outline(conversation, transcript, parents, shown, waiting)

    async def messages(self, outline: Outline, ids: Sequence[str]) -> AsyncGenerator[dict[str, Any], None]:
        """Read messages of a conversation, whole, in this order; what has gone meanwhile is left out."""
        keys = self._keys.of_conversation(outline.conversation)
        for start in range(0, len(ids), READ_AT_ONCE):
            some = ids[start : start + READ_AT_ONCE]
            records, reasonings, text, reasoning, turn = await self._several(
                [keys.messages, keys.text, keys.reasoning, keys.turn],
                ("HMGET", keys.messages, *some),
                ("HMGET", keys.messages, *(f"reasoning:{name}" for name in some)),
                ("GET", keys.text),
                ("GET", keys.reasoning),
                ("HGET", keys.turn, "answer"),
            )
            for record, reasons in zip(records, reasonings, strict=True):
                if record is None:
                    continue
                message = json.loads(record) | {"parent": None}
                name = message["id"]
                message["parent"] = outline.parents[name] or None
                if turn is not None and turn.decode() == name:
                    message["text"], reasons = (text or b"").decode(), reasoning
                    message["state"] = "running"
                if name in outline.queued:
                    message["state"] = "queued"
                if reasons:
                    message["reasoning"] = reasons.decode()
                yield message

    # Storing

    async def known(self, session: str, conversation: str) -> Known | None:
        """Find a conversation of a session; one that is in no list is none: an import may have been broken off there."""
        keys = self._keys.of_conversation(conversation)
        async with available():
            pipe = self._redis.pipeline(transaction=False)
            pipe.hmget(keys.conversation, ["session", "deleted", "updated"])
            pipe.zscore(self._keys.loose(session), conversation)
            pipe.zscore(self._keys.conversations(session), conversation)
            (owner, deleted, updated), loose, listed = await pipe.execute()
        if owner != session.encode() or (deleted is None and listed is None and loose is not None):
            return None
        return Known(updated.decode(), deleted is not None)

    async def store(self, session: str, conversation: str, transcript: Transcript) -> str:
        """Store a conversation once: "ok", or why not: "there", "deleted" a moment ago, "not_found" for another's.

        Its messages' ids are to be ours; "moved" where the store has lost what came first.
        """
        keys = self._keys.of_conversation(conversation)
        parts, count = await asyncio.to_thread(_stored, transcript)
        step, outcome = "first", "ok"
        for part in parts:
            outcome = await self._run(keys, session, step, 0, PART_MS, *part, {})
            step = "more"
            if outcome != "ok":
                return outcome
        state = _state(session, transcript)
        return await self._run(keys, session, "last", count, self._retention_ms, {}, {}, state)

    async def _run(
        self,
        keys: ConversationKeys,
        session: str,
        step: str,
        count: int,
        lifetime_ms: int,
        *parts: dict[str, str],
    ) -> str:
        words: list[str | int] = []
        for part in parts:
            words += [2 * len(part), *(word for pair in part.items() for word in pair)]
        outcome: bytes = await self._import(
            [keys.conversation, keys.messages, keys.tree], session, step, count, lifetime_ms, *words
        )
        return outcome.decode()

    async def list(self, session: str, conversation: str, transcript: Transcript, updated_ms: int) -> None:
        """Put a conversation that is stored into its session's lists."""
        indexes = [self._keys.conversations(session)]
        if transcript.pinned:
            indexes.append(self._keys.pinned(session))
        if transcript.archived:
            indexes.append(self._keys.archived(session))
        async with available():
            pipe = self._redis.pipeline(transaction=False)
            for index in indexes:
                pipe.zadd(index, {conversation: updated_ms}, nx=True)
                if self._retention_ms:
                    pipe.pexpire(index, self._retention_ms)
                else:
                    pipe.persist(index)
            pipe.zrem(self._keys.loose(session), conversation)
            await pipe.execute()


def with_ids_of(conversation: str, transcript: Transcript) -> Transcript:
    """Give the messages ids of ours, which the same conversation always gets."""
    names = {each["id"]: derived_id("message", conversation, each["id"]) for each in transcript.messages}
    messages = [
        each | {"id": names[each["id"]], "parent": names.get(each["parent"])} for each in transcript.messages
    ]
    current = names.get(transcript.current) if transcript.current else None
    return replace(transcript, id=conversation, messages=messages, current=current)


def _stored(transcript: Transcript) -> tuple[list[tuple[dict[str, str], dict[str, str]]], int]:
    """Give what scripts store one after the other, and how many fields the tree has then. For a thread."""
    messages, tree = _fields(transcript)
    return _parts(messages, tree), len(tree)


def _fields(transcript: Transcript) -> tuple[dict[str, str], dict[str, str]]:
    """Give the fields of a conversation's messages and of its tree."""
    messages: dict[str, str] = {}
    tree: dict[str, str] = {}
    below: dict[str, list[str]] = {}
    for message in transcript.messages:
        name, parent = message["id"], message["parent"] or ""
        messages[name] = _json({key: value for key, value in message.items() if key != "reasoning"})
        if message.get("reasoning"):
            messages[f"reasoning:{name}"] = message["reasoning"]
        tree[name] = f"{message['role']} {parent}"
        below.setdefault(parent, []).append(name)
        for each in message.get("attachments", ()):
            tree[f"file:{each['id']}"] = "1"
    for parent, names in below.items():
        tree[f"children:{parent}"] = " ".join(names)
        tree[f"chosen:{parent}"] = names[-1]
    shown = transcript.current
    for message in reversed(transcript.messages):  # what is above one comes before it
        if message["id"] == shown:
            shown = message["parent"]
            tree[f"chosen:{shown or ''}"] = message["id"]
    return messages, tree


def _parts(messages: dict[str, str], tree: dict[str, str]) -> list[tuple[dict[str, str], dict[str, str]]]:
    """Split fields into what one script stores."""
    parts: list[tuple[dict[str, str], dict[str, str]]] = [({}, {})]
    size = 0
    for at, fields in enumerate((tree, messages)):
        for key, value in fields.items():
            added = len(key) + len(value.encode())
            size += added
            if size > PART_BYTES or len(parts[-1][0]) + len(parts[-1][1]) >= PART_FIELDS:
                parts.append(({}, {}))
                size = added
            parts[-1][1 - at][key] = value
    return parts


def _state(session: str, transcript: Transcript) -> dict[str, str]:
    state = {
        "session": session,
        "epoch": secrets.token_hex(6),
        "offset": "0",
        "revision": "0",
        "tip": transcript.current or "",
        "title": transcript.title,
        "titled": "person",
        "model": transcript.model,
        "created": transcript.created,
        "updated": transcript.updated,
    }
    if transcript.system is not None:
        state["system"] = transcript.system
    if transcript.parameters:
        state["parameters"] = _json(transcript.parameters)
    for flag in ("pinned", "archived"):
        if getattr(transcript, flag):
            state[flag] = "1"
    return state


def _parents(nodes: dict[str, str], known: set[str]) -> dict[str, str]:
    """Tell of each message that is there which one is above it: an answer to come is none, and no child of its prompt."""
    below = {
        key.removeprefix("children:"): value.split()
        for key, value in nodes.items()
        if key.startswith("children:")
    }
    for name, value in nodes.items():
        if ":" not in name and name not in known:
            below.setdefault(value.partition(" ")[2], []).append(name)
    parents: dict[str, str] = {}
    ahead = [("", name) for name in below.get("", [])[::-1]]
    while ahead:
        above, name = ahead.pop()
        if name in known:
            parents.setdefault(name, above)
        ahead += [(name if name in known else above, each) for each in below.pop(name, [])[::-1]]
    return parents


def _branch(nodes: dict[str, str], parents: dict[str, str], tip: str) -> list[str]:
    """Find the messages of the branch that ends in one."""
    shown: list[str] = []
    while tip:
        if tip in parents:
            shown.append(tip)
        tip = nodes.get(tip, " ").partition(" ")[2]
    return shown[::-1]


def _pairs(flat: list[bytes]) -> dict[str, str]:
    texts = [part.decode() for part in flat]
    return dict(zip(texts[::2], texts[1::2], strict=True))


def _json(record: dict[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False, separators=(",", ":"))
