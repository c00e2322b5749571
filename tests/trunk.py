"""Chats as they come from elsewhere, for tests of export and import; and rooms on a fake Redis that take them."""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any

from fakeredis import FakeAsyncRedis

from llmchat.arrivals import Arrivals
from llmchat.attachments import Attachments
from llmchat.conversations import Conversations
from llmchat.erasure import Erasure
from llmchat.history import History
from llmchat.intake import Intake, Report
from llmchat.keys import Keys
from llmchat.limits import KINDS
from llmchat.takeout import Takeout
from llmchat.transcripts import Transcripts


class FakeListing:
    """Keeps what tabs are told."""

    def __init__(self) -> None:
        self.updates: list[str] = []
        self.deletions: list[str] = []

    async def updated(self, session: str, conversation: str, *, used: bool = False) -> None:
        self.updates.append(conversation)

    async def deleted(self, session: str, conversation: str) -> None:
        self.deletions.append(conversation)


def _short(system: str) -> bool:
    return len(system) <= 1000


class Trunk:
    """What packs and unpacks chats, on one store."""

    def __init__(self, redis: FakeAsyncRedis, *, largest: int = 1_000_000) -> None:
        self.redis, self.keys = redis, Keys("t")
        self.conversations = Conversations(redis, self.keys, history_days=1)
        self.history = History(redis, self.keys, self.conversations, history_days=1)
        self.attachments = Attachments(redis, self.keys, largest=largest, most_bytes=8_000_000, days=1)
        self.erasure = Erasure(redis, self.keys, KINDS)
        self.transcripts = Transcripts(redis, self.keys, history_days=1)
        self.listing: Any = FakeListing()
        rooms = self.transcripts, self.attachments, self.erasure, self.listing
        self.arrivals = Arrivals(redis, self.keys)
        self.takeout, self.intake = Takeout(*rooms), Intake(*rooms, self.arrivals, takes_system=_short)

    async def take(self, body: bytes, session: str = "alice") -> Report:
        """Import a file."""
        reports = [each async for each in self.intake.read(session, io.BytesIO(body), len(body))]
        assert reports[-1].done
        return reports[-1]

    async def give(self, session: str = "alice") -> dict[str, bytes]:
        """Export everything: names and bytes."""
        packed = b"".join([piece async for piece in self.takeout.archive(session)])
        with zipfile.ZipFile(io.BytesIO(packed)) as archive:
            assert archive.testzip() is None
            return {name: archive.read(name) for name in archive.namelist()}

    async def chats(self, session: str = "alice") -> list[dict[str, Any]]:
        """Export everything: the chats."""
        found = await self.give(session)
        return [json.loads(body)["conversation"] for name, body in found.items() if name.endswith(".json")]


def zipped(files: dict[str, bytes], kind: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Make an archive."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", kind) as archive:
        for name, body in files.items():
            archive.writestr(name, body)
    return packed.getvalue()


def ours(*messages: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Make a chat as we export it; of a single prompt, where no messages are given."""
    told = {
        "id": "c1",
        "title": "A chat",
        "created": "2026-01-02T03:04:05.000Z",
        "updated": "2026-01-03T03:04:05.000Z",
        "messages": list(messages) or [message("m1"), message("m2", "m1", "assistant")],
        **fields,
    }
    return {"format": "llmchat", "version": 1, "conversation": told}


def message(
    name: Any, parent: Any = None, role: Any = "user", text: Any = "Hi", **fields: Any
) -> dict[str, Any]:
    """Make a message."""
    return {
        "id": name,
        "parent": parent,
        "role": role,
        "text": text,
        "created": "2026-01-02T03:04:05.000Z",
        **fields,
    }


def node(name: str, parent: str | None, *children: str, role: str = "", **fields: Any) -> dict[str, Any]:
    """Make a node of ChatGPT's; without a role, one without a message."""
    content = fields.pop("content", {"content_type": "text", "parts": [fields.pop("text", "Hi")]})
    told = {
        "id": name,
        "author": {"role": role},
        "content": content,
        "create_time": 1_700_000_000.25,
        **fields,
    }
    return {"id": name, "message": told if role else None, "parent": parent, "children": list(children)}


def chatgpt(*nodes: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Make a chat as ChatGPT exports it; of one prompt and its answer, where no nodes are given."""
    made = nodes or (
        node("root", None, "p"),
        node("p", "root", "a", role="user", text="Ask"),
        node(
            "a", "p", role="assistant", text="Answer", metadata={"model_slug": "gpt-4o", "deep": {"x": [1]}}
        ),
    )
    return {
        "title": "Old chat",
        "create_time": 1_700_000_000.5,
        "update_time": 1_700_000_100,
        "mapping": {each["id"]: each for each in made},
        "current_node": made[-1]["id"],
        "conversation_id": "g1",
        **fields,
    }


def as_json(value: object) -> bytes:
    """Write it."""
    return json.dumps(value).encode()
