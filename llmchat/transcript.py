"""A conversation as a whole outside of the store: how it is written as JSON and Markdown, and read again. Pure."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any
from urllib.parse import quote

from markdown_it import MarkdownIt
from pydantic import ValidationError

from llmchat.attachment import ENDINGS, MAX_ATTACHMENTS, mention, sound_name
from llmchat.conversation import UNTITLED, milliseconds, timestamp
from llmchat.errors import Unreadable
from llmchat.events import Parameters
from llmchat.message_tree import ID_CHARACTERS, Lost, arranged, sound_text
from llmchat.title import MOST_TITLE_CHARACTERS, has_word, one_line

FORMAT = "llmchat"
VERSION = 1
NAME_CHARACTERS = 60
FINISH_REASONS = {"stop", "length", "content_filter", "stopped", "interrupted"}
FIELDS = (
    "id", "parent", "role", "text", "created", "state", "model", "finish_reason", "usage", "seconds", "reasoning",
    "reasoning_seconds", "error", "attachments",
)  # fmt: skip
"""Of a message, as it is written."""
COUNTED = ("prompt_tokens", "completion_tokens")
MAX_COUNT = 10**9
OPENING = re.compile(r"```|~~~|<[!?]|<(?:pre|script|style|textarea)", re.IGNORECASE)
"""What may begin a block that a blank line does not end."""
HTML_ENDS = (
    (r"\s*<!--", "-->"),
    (r"\s*<\?", "?>"),
    (r"\s*<!\[CDATA\[", "]]>"),
    (r"\s*<!", ">"),
    (r"\s*<pre", "</pre>"),
    (r"\s*<script", "</script>"),
    (r"\s*<style", "</style>"),
    (r"\s*<textarea", "</textarea>"),
)
"""Of blocks of HTML: how they begin, and what ends them."""
LINE_END = re.compile(r"\r\n?|\n")
STEP = re.compile(r"\r\n?|\n|[-*+>][ \t]|\d[.)][ \t]")
MOST_STEPS = 8_000
"""Lines and items of lists whose blocks are looked for: it takes the square of them."""
SPECIAL = re.compile(r"([\\`*_~\[\]<>#])")
CODE = re.compile(r"[a-z_]{1,40}")
LATER = "It was made by a later version of this program. Update this one, and import it again."


@dataclass(frozen=True, slots=True)
class Transcript:
    """A conversation with all its branches. Its ids are those of where it comes from."""

    id: str
    title: str
    created: str
    updated: str
    model: str = ""
    system: str | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    pinned: bool = False
    archived: bool = False
    messages: list[dict[str, Any]] = field(default_factory=list)
    """Each behind its parent; answers to one prompt, and prompts to one answer, in their order."""
    current: str | None = None
    """The last message of the branch that is shown."""
    lost: tuple[Lost, ...] = ()
    """What of it could not be read."""


# Writing


def opening(transcript: Transcript) -> str:
    """Write the beginning of a conversation's JSON, up to its first message."""
    told = {
        "id": transcript.id,
        "title": transcript.title,
        "created": transcript.created,
        "updated": transcript.updated,
        "model": transcript.model,
        "system": transcript.system,
        "parameters": transcript.parameters,
        "pinned": transcript.pinned,
        "archived": transcript.archived,
        "current": transcript.current,
    }
    head = json.dumps({"format": FORMAT, "version": VERSION}, ensure_ascii=False)[:-1]
    return f'{head}, "conversation": {json.dumps(told, ensure_ascii=False)[:-1]}, "messages": ['


def line(message: Mapping[str, Any], *, first: bool) -> str:
    """Write a message in a line of its own, behind `opening` and others."""
    told = {name: message[name] for name in FIELDS if name in message}
    return f"{'' if first else ','}\n{json.dumps(told, ensure_ascii=False)}"


CLOSING = "\n]}}\n"


def heading(transcript: Transcript) -> str:
    """Write the beginning of a conversation's Markdown."""
    told = [f"- Created: {_day(transcript.created)}", f"- Last used: {_day(transcript.updated)}"]
    if transcript.model:
        told.append(f"- Model: {_plain(transcript.model)}")
    parts = [f"# {_plain(transcript.title)}", "\n".join(told)]
    if transcript.system:
        parts += ["## System prompt", closed(transcript.system)]
    return "\n\n".join(parts) + "\n"


def section(message: Mapping[str, Any]) -> str:
    """Write a message, its words as they are."""
    parts = [f"## {_speaker(message)} · {_day(message['created'])}"]
    files = [mention(each["name"], each["type"]) for each in message.get("attachments", ())]
    if files:
        parts.append("\n".join(f"- {_plain(each[1:-1])}" for each in files))
    if message["text"]:
        parts.append(closed(message["text"]))
    if note := _note(message):
        parts.append(f"*{note}*")
    return "\n" + "\n\n".join(parts) + "\n"


def _speaker(message: Mapping[str, Any]) -> str:
    if message["role"] == "user":
        return "You"
    model = message.get("model")
    return f"Answer ({_plain(model)})" if model else "Answer"


def _note(message: Mapping[str, Any]) -> str:
    """Say where a message is no whole one."""
    match message.get("state"):
        case "running":
            return "This answer was still being written."
        case "queued":
            return "This message waited for its turn."
        case "failed":
            return "There is no answer: it failed."
    if message.get("finish_reason", "stop") != "stop":
        return "This answer ends before its end."
    return ""


def closed(text: str) -> str:
    """End the block of code or HTML that a text leaves open, so that what follows is no part of it.

    Where readers of Markdown do not agree about what is open, or it takes long to tell, the text is quoted.
    """
    text = text.rstrip()
    if not OPENING.search(text):
        return text
    if sum(1 for _ in STEP.finditer(text)) > MOST_STEPS:
        return _quoted(text)
    of_html, ending = (_ending_of(text, with_html=with_html) for with_html in (True, False))
    # The end of an open block of HTML is a line like another to who knows none.
    if of_html == ending or (not ending and not of_html.lstrip().startswith(("`", "~"))):
        return text + of_html
    return _quoted(text)


def _ending_of(text: str, *, with_html: bool) -> str:
    """Tell what a text is to be followed by, where HTML in Markdown is HTML, or is not."""
    *_, last = (token for token in _blocks(with_html).parse(f"{text}\n\n# Next") if token.level == 0)
    if last.type == "fence":
        return f"\n{last.markup}"
    if last.type == "html_block":
        return "\n" + next(end for begin, end in HTML_ENDS if re.match(begin, last.content, re.IGNORECASE))
    return ""


@cache
def _blocks(with_html: bool) -> MarkdownIt:
    parser = MarkdownIt("commonmark")
    parser.core.ruler.enableOnly(["normalize", "block"])
    parser.disable(["reference", *([] if with_html else ["html_block"])])
    parser.parse("a")  # its rules are put together at the first use, and threads share it
    return parser


def _quoted(text: str) -> str:
    return "\n".join(f"> {each}" for each in LINE_END.split(text))


def file_name(title: str, ending: str) -> str:
    """Name a file after a title, in letters that every system takes."""
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode()
    words = "-".join(re.findall(r"[A-Za-z0-9]+", plain))[:NAME_CHARACTERS].strip("-")
    return f"{words or 'chat'}.{ending}"


def disposition(title: str, ending: str) -> str:
    """Give the Content-Disposition of a file that is named after a title."""
    shown = "".join(
        " " if unicodedata.category(each)[0] == "C" or each in '/\\:*?"<>|' else each for each in title
    )
    whole = f"{' '.join(shown.split())[:NAME_CHARACTERS].strip(' .') or 'chat'}.{ending}"
    return f"attachment; filename=\"{file_name(title, ending)}\"; filename*=UTF-8''{quote(whole, safe='')}"


def _plain(text: str) -> str:
    """Write a text that is no Markdown, in one line."""
    return SPECIAL.sub(r"\\\1", " ".join(text.split()))


def _day(time: str) -> str:
    return f"{time[:10]} {time[11:16]} UTC"


# Reading


def read(value: object) -> Transcript:
    """Read a conversation of ours. Raises Unreadable."""
    outer = value if isinstance(value, dict) else {}
    told, version = outer.get("conversation"), outer.get("version")
    if outer.get("format") != FORMAT or not isinstance(told, dict) or not isinstance(version, int):
        raise Unreadable("This is no conversation.")
    if version > VERSION:
        raise Unreadable(LATER)
    messages = told.get("messages")
    if not isinstance(messages, list):
        raise Unreadable("It has no messages.")
    created = time_of(told.get("created")) or timestamp()
    system, parameters = told.get("system"), told.get("parameters")
    found = arranged((_message(each, created, told) for each in messages), told.get("current"))
    return Transcript(
        id=identity(told.get("id"), told),
        title=sound_title(told.get("title")),
        created=created,
        updated=time_of(told.get("updated")) or created,
        model=sound_text(told.get("model"))[:MOST_TITLE_CHARACTERS],
        system=sound_text(system) if isinstance(system, str) else None,
        parameters=_parameters(parameters),
        pinned=told.get("pinned") is True,
        archived=told.get("archived") is True,
        messages=found.messages,
        current=found.current,
        lost=tuple(found.lost),
    )


def _message(given: object, created: str, conversation: dict[str, Any]) -> dict[str, Any]:
    """Keep what a message may have."""
    told: dict[str, Any] = given if isinstance(given, dict) else {}
    role = told.get("role")
    message: dict[str, Any] = {
        "id": told.get("id"),
        "parent": told.get("parent"),
        "role": role,
        "text": told.get("text"),
        "created": time_of(told.get("created")) or created,
        "state": "done",
    }
    if role == "user":
        files = _attachments(told.get("attachments"))
        return message | ({"attachments": files} if files else {})
    message["model"] = sound_text(told.get("model", conversation.get("model")))[:MOST_TITLE_CHARACTERS]
    for name in ("seconds", "reasoning_seconds"):
        if (seconds := _number(told.get(name))) is not None:
            message[name] = seconds
    if isinstance(told.get("reasoning"), str) and told["reasoning"]:
        message["reasoning"] = told["reasoning"]
    if usage := _usage(told.get("usage")):
        message["usage"] = usage
    return message | _ending(told)


def _ending(told: dict[str, Any]) -> dict[str, Any]:
    """Tell how an answer ended; one that was being made broke off when it was written down."""
    error = told.get("error")
    if told.get("state") == "failed" and isinstance(error, dict):
        code, detail = error.get("code"), sound_text(error.get("detail"))[:MOST_TITLE_CHARACTERS]
        known = isinstance(code, str) and CODE.fullmatch(code) is not None
        retryable = error.get("retryable") is not False
        return {
            "state": "failed",
            "error": {"code": code if known else "internal", "detail": detail, "retryable": retryable},
        }
    reason = sound_text(told.get("finish_reason"))
    if told.get("state") == "running":
        reason = "interrupted"
    return {"finish_reason": reason if reason in FINISH_REASONS else "stop"}


def _attachments(told: object) -> list[dict[str, Any]]:
    files = []
    for each in told[:MAX_ATTACHMENTS] if isinstance(told, list) else ():
        if (
            not isinstance(each, dict)
            or not isinstance(each.get("id"), str)
            or sound_text(each.get("type")) not in ENDINGS
        ):
            continue
        size = each.get("size")
        files.append(
            {
                "id": sound_text(each["id"]),
                "name": sound_name(sound_text(each.get("name")), each["type"]),
                "type": each["type"],
                "size": size if isinstance(size, int) and 0 <= size <= MAX_COUNT else 0,
            }
        )
    return files


def _usage(told: object) -> dict[str, int]:
    counts = told if isinstance(told, dict) else {}
    return {
        name: counts[name]
        for name in COUNTED
        if isinstance(counts.get(name), int) and 0 <= counts[name] <= MAX_COUNT
    }


def _parameters(told: object) -> dict[str, Any]:
    try:
        return Parameters.model_validate(told).model_dump(exclude_none=True)
    except ValidationError:
        return {}


def _number(told: object) -> float | None:
    if isinstance(told, bool) or not isinstance(told, int | float) or not 0 <= told <= MAX_COUNT:
        return None
    return told


def sound_title(told: object, *, untitled: str = UNTITLED) -> str:
    """Give a title as one may be typed."""
    title = one_line(sound_text(told))[:MOST_TITLE_CHARACTERS].rstrip()
    return title if has_word(title) else untitled


def time_of(told: object) -> str | None:
    """Give an RFC 3339 time, or seconds since 1970, as we write times; None for none, and for one that cannot be."""
    try:
        if isinstance(told, str):
            moment = datetime.fromtimestamp(milliseconds(told) / 1000, UTC)
        elif isinstance(told, int | float) and not isinstance(told, bool):
            moment = datetime.fromtimestamp(told, UTC)
        else:
            return None
    except (ValueError, OverflowError, OSError):
        return None
    possible = moment.year >= 1970 and moment <= datetime.now(UTC) + timedelta(days=1)
    return timestamp(moment) if possible else None


def identity(told: object, conversation: Mapping[str, Any]) -> str:
    """Name where a conversation comes from: by its id, or else by what it is."""
    if isinstance(told, str) and 0 < len(told) <= ID_CHARACTERS:
        return sound_text(told)
    digest = hashlib.sha256()
    for piece in json.JSONEncoder(sort_keys=True).iterencode(
        conversation
    ):  # as one text it takes five times as much
        digest.update(piece.encode())
    return digest.hexdigest()[:32]
