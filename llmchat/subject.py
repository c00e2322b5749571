"""What a line of the log is about: a request, a session, a conversation, a turn. Knows not how a line looks."""

from __future__ import annotations

from contextvars import ContextVar
from typing import NamedTuple


class Subject(NamedTuple):
    """Ids, "" where there is none. The log never has the session's own: see log_lines.py."""

    request: str = ""
    session: str = ""
    conversation: str = ""
    turn: str = ""
    """The id of the answer that is being made."""


subject: ContextVar[Subject] = ContextVar("subject", default=Subject())  # noqa: B039 - it cannot change
"""Of what this task does; those that it begins inherit it."""


def concerns(**ids: str) -> None:
    """Have the further lines of this task, and of those it begins, tell of these, too."""
    subject.set(subject.get()._replace(**ids))
