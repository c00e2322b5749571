"""What the blueprints need of the app, and the register of its open websockets."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from quart import Request, Websocket, current_app

from llmchat import __version__
from llmchat.access import Access
from llmchat.arrivals import Arrivals
from llmchat.attachments import Attachments
from llmchat.blueprints.visitors import (
    CONNECTIONS,
    CONNECTIONS_OF_ADDRESS,
    CONNECTIONS_OF_SESSION,
    CROWDED_SECONDS,
    RETRY_SECONDS,
    Refusal,
    Refusals,
    Visitor,
    cookies_of,
)
from llmchat.broadcaster import Broadcaster
from llmchat.chat import Chat
from llmchat.connection import CODES, RESTARTING, Connection, Traffic
from llmchat.drawings import Drawings
from llmchat.errors import RateLimited, Unavailable
from llmchat.events import PROTOCOL, SessionReady
from llmchat.health import Health
from llmchat.intake import Intake
from llmchat.keys import group_of_session
from llmchat.limits import Allowance, Limits, network_of
from llmchat.models import Models
from llmchat.prompts import Prompts
from llmchat.seed import SeedConnection
from llmchat.session import Sessions
from llmchat.sign_outs import SignOuts
from llmchat.subject import concerns
from llmchat.takeout import Takeout
from llmchat.turns import Turns

EXTENSION = "llmchat"
_Counted = tuple[tuple[str, str], tuple[str, str]]
HANDLERS_SECONDS = 1.0


class Metrics(Protocol):
    """What an instance tells of itself, to whoever has the token."""

    def opens_to(self, authorization: str) -> bool:
        """Tell whether an Authorization header has the token."""

    async def told(self, accept: str) -> tuple[bytes, str]:
        """Give all there is in a form that an Accept header takes, and the form's Content-Type."""


@dataclass
class Rooms:
    """One for each app, kept in `app.extensions`."""

    chat: Chat
    broadcaster: Broadcaster
    sessions: Sessions
    access: Access
    sign_outs: SignOuts
    limits: Limits
    health: Health
    turns: Turns
    models: Models
    static: Callable[[str], str]
    """Gives the path of one of the page's files."""
    attachments: Attachments
    arrivals: Arrivals
    takeout: Takeout
    intake: Intake
    import_bytes: int
    """Of a file of chats, at most; 0: none are imported."""
    prompts: Prompts
    instance: str = field(default_factory=lambda: secrets.token_hex(4))
    uploads: Counter[str] = field(default_factory=Counter)
    """Files that come just now, by session and by address; files of chats, and archives of them, by session."""
    drawings: Drawings = field(default_factory=Drawings)
    traffic: Traffic = field(default_factory=Traffic)
    opened: int = 0
    """Websockets, up to now."""
    closed: Counter[int] = field(default_factory=lambda: Counter(dict.fromkeys(CODES, 0)))
    """Those that are served no more, by close code."""
    refused: Refusals = field(default_factory=Refusals)
    metrics: Metrics | None = None
    draining: bool = False
    _connections: set[Connection | SeedConnection] = field(default_factory=set)
    _open: Counter[tuple[str, str]] = field(default_factory=Counter)  # by session and by address
    _empty: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def connections(self) -> int:
        """How many websockets are open."""
        return len(self._connections)

    async def ready(self) -> SessionReady:
        """Say what a new connection hears first."""
        await self.models.settled()
        return SessionReady(
            protocol=PROTOCOL,
            version=__version__,
            instance=self.instance,
            models=self.models.shaped,
            limits=self.chat.limits,
        )

    def session_of(self, asked: Request | Websocket) -> str | None:
        """Tell whose valid cookie came, if one did."""
        return self.sessions.read(cookies_of(asked), secure=asked.scheme in ("https", "wss"))

    async def visitor(self, asked: Request | Websocket) -> Visitor:
        """Find out who asks. Raises Unavailable where a password is asked."""
        cookies, secure = cookies_of(asked), asked.scheme in ("https", "wss")
        known = self.session_of(asked)
        session = known or self.sessions.new()
        concerns(session=session)
        return Visitor(
            session=session,
            known=known is not None,
            granted=await self._granted(cookies, known, secure),
            secure=secure,
            welcome=partial(self._granted, cookies, known, secure) if self.access.required else None,
            allowance=self.limits.of(session, asked.remote_addr or ""),
        )

    async def _granted(self, cookies: str, session: str | None, secure: bool) -> bool:
        if not self.access.required:
            return True
        sign_outs = self.access.granted(cookies, session, secure=secure)
        return sign_outs is not None and sign_outs == await self.sign_outs.count(session or "")

    async def refusal(self, visitor: Visitor, *, look: bool = False) -> Refusal | None:
        """Tell why a websocket is not let in, if so; with `look`, nothing is taken of its allowance.

        Whoever is let in is to be in the register before anything is awaited.
        """
        if self.draining:
            return Refusal("restarting", 503, "This instance restarts.", RETRY_SECONDS)
        if not visitor.granted:
            return Refusal("signed_out", 401, "You are not signed in.")
        with suppress(Unavailable):  # then nobody counts; what is open here is bounded
            try:
                await visitor.allowance.connection(look=look)
            except RateLimited as error:
                return Refusal("rate_limited", 429, error.detail, error.retry_after)
        if len(self._connections) >= CONNECTIONS:
            return Refusal("full", 503, "This instance is full.", RETRY_SECONDS)
        session, address = _counted(visitor.allowance)
        if self._open[session] >= CONNECTIONS_OF_SESSION or self._open[address] >= CONNECTIONS_OF_ADDRESS:
            return Refusal("crowded", 429, "Too many connections are open.", CROWDED_SECONDS)
        return None

    async def access_cookie(self, visitor: Visitor) -> str:
        """Give the Set-Cookie header's value that lets a visitor in. Raises Unavailable."""
        sign_outs = await self.sign_outs.count(visitor.session)
        return self.access.cookie(visitor.session, sign_outs, secure=visitor.secure)

    async def sign_out(self, session: str) -> None:
        """Let a session in no more, and close its connections on all instances. Raises Unavailable."""
        await self.sign_outs.note(session)
        await self.broadcaster.group_send(group_of_session(session), {"type": "signed_out"})

    def open(self, connection: Connection | SeedConnection, allowance: Allowance) -> Callable[[], None]:
        """Put a connection that is let in into the register; call what is given once it is served no more."""
        counted = _counted(allowance)
        self._connections.add(connection)
        self.opened += 1
        self._open.update(counted)
        self._empty.clear()
        if self.draining:  # accepted while the others were being closed
            connection.close(RESTARTING, "This instance restarts.")
        return partial(self._leave, connection, counted)

    def _leave(self, connection: Connection | SeedConnection, counted: _Counted) -> None:
        self._connections.discard(connection)
        self.closed[connection.ended] += 1
        self._open.subtract(counted)
        for key in counted:
            if not self._open[key]:
                del self._open[key]
        if not self._connections:
            self._empty.set()

    async def stop(self) -> None:
        """Take no more work, tell every client to reconnect elsewhere, and give the turns away.

        Waits HANDLERS_SECONDS at most for the websockets to end.
        """
        self.draining = True
        for connection in list(self._connections):
            connection.close(RESTARTING, "This instance restarts.")
        await self.turns.stop()
        if self._connections:
            with suppress(TimeoutError):
                async with asyncio.timeout(HANDLERS_SECONDS):
                    await self._empty.wait()


def _counted(allowance: Allowance) -> _Counted:
    return ("session", allowance.session), ("address", network_of(allowance.address))


def rooms() -> Rooms:
    """Find the running app's rooms."""
    found: Rooms = current_app.extensions[EXTENSION]
    return found
