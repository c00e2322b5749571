"""How the log's lines look: JSON, or text for a person; and that no line holds what somebody said, or a secret.

A session is told by its pseudonym alone. An exception is told by where it happened, and by its message only where that
is not made of what came: a message may quote a prompt, a command of Redis', an address with a login.
"""

from __future__ import annotations

import hmac
import logging
import sys
import threading
import traceback
from datetime import UTC, datetime
from textwrap import indent
from types import TracebackType
from typing import Any

from pythonjsonlogger.json import JsonFormatter

from llmchat import __version__
from llmchat.errors import LlmchatError
from llmchat.settings import Settings
from llmchat.subject import subject

PSEUDONYM_LETTERS = 12
QUIET = (
    "openai",
    "httpx",
    "httpcore",
    "httpx2",
    "httpcore2",
    "aiohttp",
    "asyncio",
    "hypercorn",
    "markdown_it",
    "redis",
)
QUOTING = (ValueError, KeyError)
"""Of Python's own exceptions, those whose messages repeat what they were given."""
TOLD_BY = {
    "cause": "\nThe above exception was the direct cause of the following exception:\n\n",
    "context": "\nDuring handling of the above exception, another exception occurred:\n\n",
}

log = logging.getLogger(__name__)


class Json(JsonFormatter):
    """One object a line, with these fields and no others, whatever a library adds to a record."""

    def __init__(self, secret_key: str, instance: str) -> None:
        super().__init__(json_ensure_ascii=False)
        self._secret_key = secret_key
        self._instance = instance

    def add_fields(
        self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]
    ) -> None:
        about = subject.get()
        fields = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.message,
            "request": about.request,
            "session": about.session and pseudonym(self._secret_key, about.session),
            "conversation": about.conversation,
            "turn": about.turn,
            "exception": message_dict.get("exc_info"),
            "instance": self._instance,
            "version": __version__,
        }
        log_data.update((name, value) for name, value in fields.items() if value)

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        return told(ei[1])


class Text(logging.Formatter):
    """One line an entry; below it, where there is one, an exception."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s [%(request)s]: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        record.request = subject.get().request or "-"
        return super().formatMessage(record).replace("\n", "\\n")

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        return told(ei[1])


def configure(settings: Settings, instance: str) -> None:
    """Have everything that is logged, warned of or not caught become lines on stderr."""
    handler = logging.StreamHandler(sys.stderr)
    as_json = settings.log_format == "json"
    handler.setFormatter(Json(settings.secret_key or "", instance) if as_json else Text())
    level = logging.DEBUG if settings.debug else logging.INFO
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.raiseExceptions = settings.debug  # else what cannot be formatted is printed, whatever it holds
    logging.captureWarnings(True)
    sys.excepthook = _uncaught
    threading.excepthook = lambda args: log.error("A thread failed.", exc_info=args.exc_value)
    sys.unraisablehook = lambda args: log.error("What was cleared away failed.", exc_info=args.exc_value)
    quiet()


def quiet() -> None:
    """Keep libraries from logging requests, and so prompts, whatever variables of their own say."""
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)


def pseudonym(secret_key: str, session: str) -> str:
    """Name a session in the log: the same on every instance, and of no use to whoever reads it there."""
    return hmac.digest(secret_key.encode(), f"llmchat.log.{session}".encode(), "sha256").hex()[
        :PSEUDONYM_LETTERS
    ]


def told(error: BaseException) -> str:
    """Tell an exception as Python does, without messages that may quote what came."""
    return "".join(_told(error, set())).rstrip("\n")


def _told(error: BaseException, before: set[int]) -> list[str]:
    before.add(id(error))
    how, earlier = ("cause", error.__cause__) if error.__cause__ else ("context", error.__context__)
    parts = []
    if earlier and id(earlier) not in before and not (how == "context" and error.__suppress_context__):
        parts = [*_told(earlier, before), TOLD_BY[how]]
    parts += ["Traceback (most recent call last):\n", *traceback.format_tb(error.__traceback__)]
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    said = str(error) if _may_be_said(error) else ""
    parts.append(f"{name}{said and ': '}{said}\n")
    if isinstance(error, BaseExceptionGroup):
        parts += [indent("".join(_told(each, before)), "  ") for each in error.exceptions]
    return parts


def _may_be_said(error: BaseException) -> bool:
    if isinstance(error, LlmchatError):
        return True
    return type(error).__module__ == "builtins" and not isinstance(error, QUOTING)


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if isinstance(error, Exception):
        log.critical("This instance ends by a bug.", exc_info=error)
    else:
        sys.__excepthook__(kind, error, trace)
