"""Files beside a prompt: what they are by their bytes, how they are called, what a model is told of them. Pure."""

from __future__ import annotations

import base64
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llmchat.picture import picture_of

IMAGE_TOKENS = 800
"""What a picture takes of a model's context, estimated. What providers count for one is some 100 to
1,100 for most models, and 8,500 or more for gpt-4o-mini: nothing is learnt from that of what words take."""
MAX_ATTACHMENTS = 6
"""Of one message: so many pictures fit in the default context."""
NAME_CHARACTERS = 100
FILLERS = "\u115f\u1160\u2800\u3164\uffa0\ufffc"
"""What counts as letters or symbols, and is not seen."""
TEXT = "text/plain"
ENDINGS = {"image/png": "png", "image/jpeg": "jpg", "image/gif": "gif", "image/webp": "webp", TEXT: "txt"}


@dataclass(frozen=True, slots=True)
class Attached:
    """A file as a model is to be sent it: a picture's `url`, or a file's `text`; neither where it is not sent."""

    name: str
    type: str
    text: str | None = None
    url: str | None = None

    @property
    def tokens(self) -> int:
        """What it takes of the context, roughly and at least."""
        return len(self.text or "") // 4 + (IMAGE_TOKENS if self.url is not None else 0)

    @property
    def instead(self) -> Attached:
        """The same without what is in it."""
        return Attached(self.name, self.type)

    @property
    def unseen(self) -> Attached:
        """The same where it is no picture; of one, that it was there."""
        return self if self.url is None else self.instead


def kind_of(body: bytes) -> str | None:
    """Tell the type by the bytes, never by what is claimed; None for what is not taken."""
    kind = picture_of(body)
    if kind is not None:
        return kind
    if b"\x00" in body:
        return None
    try:
        body.decode()
    except UnicodeDecodeError:
        return None
    return TEXT


def is_image(kind: str) -> bool:
    """Tell a picture from a text."""
    return kind.startswith("image/")


def sound_name(name: str, kind: str) -> str:
    """Make a name that can be shown and saved: no folders, nothing invisible, not too long."""
    last = name.replace("\\", "/").rpartition("/")[2]
    seen = "".join(" " if unicodedata.category(each)[0] == "C" or each in FILLERS else each for each in last)
    words = " ".join(seen.split())
    if len(words) > NAME_CHARACTERS:
        stem, dot, ending = words.rpartition(".")
        short = dot and len(ending) < 8
        words = f"{stem[: NAME_CHARACTERS - 9]}….{ending}" if short else f"{words[: NAME_CHARACTERS - 1]}…"
    named = any(unicodedata.category(each)[0] not in "MZ" for each in words)
    return words if named else f"{'picture' if is_image(kind) else 'text'}.{ENDINGS[kind]}"


def data_url(kind: str, body: bytes) -> str:
    """Give a picture as providers take it."""
    return f"data:{kind};base64,{base64.b64encode(body).decode()}"


def excerpt(head: bytes, tail: bytes = b"") -> str:
    """Give a text of its beginning and, where something between is left out, its end."""
    text = head.decode(errors="ignore")
    return f"{text}\n[…]\n{tail.decode(errors='ignore')}" if tail else text


def mention(name: str, kind: str) -> str:
    """Say to a model that there was a file."""
    return f"[{'Picture' if is_image(kind) else 'File'}: {name}]"


def mentioned(message: dict[str, Any]) -> str:
    """Give a message's words, and those that say which files were beside them."""
    told = [mention(each["name"], each["type"]) for each in message.get("attachments", ())]
    return "\n\n".join([*told, *([message["text"]] if message["text"] else [])])


def told(text: str, attached: Sequence[Attached]) -> str:
    """Give a prompt's words with the texts of its files before them, and a word for what is not sent."""
    parts = []
    for each in attached:
        if each.text is not None:
            parts.append(f"File {each.name}:\n{each.text}")
        elif each.url is None:
            parts.append(mention(each.name, each.type))
    return "\n\n".join([*parts, *([text] if text else [])])


def content(text: str, attached: Sequence[Attached]) -> str | list[dict[str, Any]]:
    """Shape what a model is sent: a plain text where there is no picture, as servers want it that know no parts."""
    urls = [each.url for each in attached if each.url is not None]
    if not urls:
        return text
    words = [{"type": "text", "text": text}] if text else []
    return [*words, *({"type": "image_url", "image_url": {"url": url}} for url in urls)]
