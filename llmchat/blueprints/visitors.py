"""Who asks, and how few may be let in. Knows nothing of what is said."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from quart import Request, Websocket

from llmchat.limits import Allowance

CONNECTIONS = 2000
"""Open at once on one instance; each costs some 40 KiB, and more while it reads slowly."""
CONNECTIONS_OF_ADDRESS = 250
CONNECTIONS_OF_SESSION = 50
RETRY_SECONDS = 1
"""After them a client that was refused because of this instance may ask again: another may answer."""
CROWDED_SECONDS = 10


@dataclass(frozen=True, slots=True)
class Visitor:
    """Whoever asks: by its cookies, its address and the scheme, as the doors let them through."""

    session: str
    """A new one where no valid cookie came."""
    known: bool
    granted: bool
    """Whether it may chat: it knew the password, or none is asked."""
    secure: bool
    welcome: Callable[[], Awaitable[bool]] | None
    """Asks once more whether it is granted; None where no password is asked."""
    allowance: Allowance


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a websocket is not let in: an HTTP status, and a sentence for a person."""

    status: int
    detail: str
    retry_after: int | None = None


def cookies_of(asked: Request | Websocket) -> str:
    """Give the cookies that came; a proxy that speaks HTTP/2 to a browser may pass them on in several lines."""
    return "; ".join(asked.headers.getlist("Cookie"))


def headers_of(retry_after: int | None = None) -> dict[str, str]:
    """Give the headers of an answer that is nobody's to keep, with the seconds to wait where it names some."""
    return {"Cache-Control": "no-store"} | ({} if retry_after is None else {"Retry-After": str(retry_after)})
