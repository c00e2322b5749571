"""Who asks, and how few may be let in. Knows nothing of what is said."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from dataclasses import dataclass

from quart import Request, Websocket, request, url_for

from llmchat.connection import Welcome
from llmchat.limits import Allowance
from llmchat.logins import Login

CONNECTIONS = 2000
"""Open at once on one instance; each costs some 40 KiB, and more while it reads slowly."""
CONNECTIONS_OF_ADDRESS = 250
CONNECTIONS_OF_SESSION = 50
RETRY_SECONDS = 1
"""After them a client that was refused because of this instance may ask again: another may answer."""
CROWDED_SECONDS = 10
WEBSOCKETS_REFUSED = "Websockets were refused in the last minute: %s."
SIGN_OUTS_REFUSED = "Sign-outs that the OpenID provider did not sign so were refused in the last minute: %s."
REASONS = "restarting", "signed_out", "rate_limited", "full", "crowded"
TELL_SECONDS = 60.0
"""From a refusal to the line of the log that tells of it, and of all since."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Visitor:
    """Whoever asks: by its cookies, its address and the scheme, as the doors let them through."""

    session: str
    """A new one where no valid cookie came."""
    known: bool
    granted: bool
    """Whether it may chat: it knew the password, or is signed in, or neither is asked."""
    secure: bool
    welcome: Welcome | None
    """Asks once more whether it is who it is, and granted; None where that cannot change."""
    allowance: Allowance
    login: Login | None = None
    """Of the person who is signed in; None for an anonymous session."""
    came: int = 0
    """Chats of an anonymous session that became the person's just now."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a websocket is not let in: one of REASONS, an HTTP status, and a sentence for a person."""

    reason: str
    status: int
    detail: str
    retry_after: int | None = None


class Refusals:
    """Counts what was not let in; the log is told once a minute at most, in a line that has a place for the counts."""

    def __init__(self, line: str, *reasons: str) -> None:
        """Of the `reasons` there are counts from the beginning."""
        self._line = line
        self.counts = Counter(dict.fromkeys(reasons, 0))
        """By reason."""
        self._told = Counter(self.counts)

    def note(self, reason: str) -> None:
        """Count one."""
        if self.counts == self._told:
            asyncio.get_running_loop().call_later(TELL_SECONDS, self._tell)
        self.counts[reason] += 1

    def _tell(self) -> None:
        since, self._told = self.counts - self._told, Counter(self.counts)
        counts = ", ".join(f"{reason} {count}" for reason, count in since.items())
        log.warning(self._line, counts)


def origin_of(who: Visitor) -> str:
    """Give scheme and host, as whoever asks calls us."""
    return f"{'https' if who.secure else 'http'}://{request.host}"


def address_of(who: Visitor, endpoint: str) -> str:
    """Give the whole address of a page of ours, likewise."""
    return origin_of(who) + url_for(endpoint)


def cookies_of(asked: Request | Websocket) -> str:
    """Give the cookies that came; a proxy that speaks HTTP/2 to a browser may pass them on in several lines."""
    return "; ".join(asked.headers.getlist("Cookie"))


def headers_of(retry_after: int | None = None) -> dict[str, str]:
    """Give the headers of an answer that is nobody's to keep, with the seconds to wait where it names some."""
    return {"Cache-Control": "no-store"} | ({} if retry_after is None else {"Retry-After": str(retry_after)})
