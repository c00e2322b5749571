"""ChatGPT's conversations, as its export has them, read as ours. Pure.

One is a tree of nodes (`mapping`), of which many are no messages: what they are is left out, and what is below them
goes to the message above.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from llmchat.conversation import timestamp
from llmchat.message_tree import UNREAD, Lost, arranged, sound_text
from llmchat.title import MOST_TITLE_CHARACTERS
from llmchat.transcript import Transcript, identity, sound_title, time_of

TEXTS = {"text", "multimodal_text", "code"}
OF_TOOLS = {
    "execution_output", "tether_browsing_display", "tether_quote", "model_editable_context", "user_editable_context",
    "system_error", "thoughts", "reasoning_recap", "app_pairing_content",
}  # fmt: skip
"""What a person saw beside the words, or not at all: nothing is lost that was said."""
SAID_TO = {"all", "python", ""}
"""Whom words, or code, are for; others are calls of tools."""
FENCES = re.compile("`{3,}")
IMAGE = "1 picture is left out.", "{:,} pictures are left out."
AUDIO = "1 recording is left out.", "{:,} recordings are left out."
OTHER = (
    "1 part of a kind that is not known is left out.",
    "{:,} parts of a kind that is not known are left out.",
)
KINDS = {
    "image_asset_pointer": IMAGE,
    "audio_asset_pointer": AUDIO,
    "real_time_user_audio_video_asset_pointer": AUDIO,
    "audio_transcription": ("", ""),
}


def is_one(value: object) -> bool:
    """Tell a conversation of ChatGPT's."""
    return isinstance(value, dict) and isinstance(value.get("mapping"), dict)


def read(value: dict[str, Any]) -> Transcript:
    """Read one. Raises Unreadable."""
    created = time_of(value.get("create_time")) or time_of(value.get("update_time")) or timestamp()
    nodes = _Nodes(value["mapping"], created)
    current = value.get("current_node")
    found = arranged(nodes.messages(), nodes.last_above(current))
    return Transcript(
        id=identity(value.get("conversation_id") or value.get("id"), value),
        title=sound_title(value.get("title")),
        created=created,
        updated=time_of(value.get("update_time")) or created,
        model=nodes.model or sound_text(value.get("default_model_slug"))[:MOST_TITLE_CHARACTERS],
        pinned=value.get("is_starred") is True,
        archived=value.get("is_archived") is True,
        messages=found.messages,
        current=found.current,
        lost=(*nodes.told(), *found.lost),
    )


class _Nodes:
    """The nodes of one conversation."""

    def __init__(self, mapping: dict[str, Any], created: str) -> None:
        self._nodes = {name: node for name, node in mapping.items() if isinstance(node, dict)}
        self._created = created
        self._lost: Counter[tuple[str, str]] = Counter()
        self._stands_for: dict[str, str | None] = {}  # node -> the message that it is, or that is above it
        self.model = ""
        """Of the newest answer."""

    def messages(self) -> Iterator[dict[str, Any]]:
        """Give the messages; of the same role in a row, one with all their words."""
        kept: dict[str, dict[str, Any]] = {}
        words: dict[str, list[str]] = {}
        forks = self._forks()
        for name in self._in_order():
            above = self._stands_for.get(self._parent(name) or "")
            message = self._message(name, above)
            before = kept.get(above or "")
            if message is None:
                self._stands_for[name] = above
            elif before and before["role"] == message["role"] and self._parent(name) not in forks:
                self._stands_for[name] = above
                words[before["id"]].append(message["text"])
            else:
                self._stands_for[name] = name
                kept[name], words[name] = message, [message["text"]]
        for name, message in kept.items():
            yield message | {"text": "\n\n".join(words[name])}

    def last_above(self, name: object) -> str | None:
        """Name the message that a node is, or the last one above it. For when all are read."""
        return self._stands_for.get(name) if isinstance(name, str) else None

    def told(self) -> list[Lost]:
        """Say what is left out, once all are read."""
        unread = len(self._nodes) - len(self._stands_for)  # what leads to itself
        lost = [Lost(unread, *UNREAD)] if unread else []
        return lost + [Lost(count, *kind) for kind, count in self._lost.items() if all(kind)]

    def _parent(self, name: str) -> str | None:
        parent = self._nodes[name].get("parent")
        return parent if isinstance(parent, str) and parent in self._nodes else None

    def _forks(self) -> set[str | None]:
        """Find the nodes below which there are several."""
        counted = Counter(self._parent(name) for name in self._nodes)
        return {name for name, count in counted.items() if count > 1}

    def _in_order(self) -> Iterator[str]:
        """Give each node behind its parent, and beside others in the parent's order."""
        rank: dict[str, int] = {}
        for node in self._nodes.values():
            children = node.get("children")
            names = children if isinstance(children, list) else []
            rank |= {name: at for at, name in enumerate(names) if isinstance(name, str)}
        below: dict[str | None, list[str]] = {}
        for name in sorted(self._nodes, key=lambda name: rank.get(name, len(rank))):
            below.setdefault(self._parent(name), []).append(name)
        ahead = below.get(None, [])[::-1]
        while ahead:
            name = ahead.pop()
            yield name
            ahead += below.get(name, [])[::-1]

    def _message(self, name: str, above: str | None) -> dict[str, Any] | None:
        """Read a node; None where a person was shown none."""
        told = self._nodes[name].get("message")
        if not isinstance(told, dict):
            return None
        author, metadata = _of(told, "author"), _of(told, "metadata")
        role, to = author.get("role"), sound_text(told.get("recipient"))
        hidden = metadata.get("is_visually_hidden_from_conversation") is True
        if role not in ("user", "assistant") or hidden or to not in SAID_TO:
            return None
        text = self._text(_of(told, "content"), to)
        if not text.strip():
            return None
        message = {
            "id": name,
            "parent": above,
            "role": role,
            "text": text,
            "created": time_of(told.get("create_time")) or self._created,
            "state": "done",
        }
        if role == "assistant":
            message["model"] = self.model = (
                sound_text(metadata.get("model_slug"))[:MOST_TITLE_CHARACTERS] or self.model
            )
            message["finish_reason"] = "stop"
        return message

    def _text(self, content: dict[str, Any], to: str) -> str:
        kind = sound_text(content.get("content_type"))
        if kind == "code":
            return _code(content)
        if to not in ("all", "") or kind in OF_TOOLS:
            return ""
        if kind not in TEXTS:
            self._lost[OTHER] += 1
            return ""
        parts = content.get("parts")
        words = [self._part(each) for each in (parts if isinstance(parts, list) else [])]
        return "\n\n".join(each for each in words if each)

    def _part(self, part: object) -> str:
        if isinstance(part, str):
            return sound_text(part)
        if not isinstance(part, dict):
            return ""
        self._lost[KINDS.get(str(part.get("content_type")), OTHER)] += 1
        return sound_text(part.get("text"))


def _of(told: dict[str, Any], name: str) -> dict[str, Any]:
    found = told.get(name)
    return found if isinstance(found, dict) else {}


def _code(content: dict[str, Any]) -> str:
    """Give code as Markdown."""
    text, language = sound_text(content.get("text")), content.get("language")
    if not text.strip():
        return ""
    longest = max(map(len, FENCES.findall(text)), default=2)
    fence = "`" * (longest + 1)
    known = language if isinstance(language, str) and language.isalnum() and language != "unknown" else ""
    return f"{fence}{known}\n{text}\n{fence}"
