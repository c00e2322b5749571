"""What the blueprints need of the app, and the register of its open websockets."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Protocol

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
    REASONS,
    RETRY_SECONDS,
    SIGN_OUTS_REFUSED,
    WEBSOCKETS_REFUSED,
    Refusal,
    Refusals,
    Visitor,
    cookies_of,
)
from llmchat.broadcaster import Broadcaster
from llmchat.chat import Chat
from llmchat.connection import CODES, RESTARTING, SIGNED_OUT, Closing, Connection, Traffic
from llmchat.drawings import Drawings
from llmchat.errors import RateLimited, Unavailable
from llmchat.events import PROTOCOL, SessionReady
from llmchat.health import Health
from llmchat.intake import Intake
from llmchat.keys import group_of_session
from llmchat.limits import Allowance, Limits, network_of
from llmchat.logins import Login, Logins
from llmchat.models import Models
from llmchat.moves import Moves
from llmchat.prompts import Prompts
from llmchat.seed import SeedConnection
from llmchat.session import Sessions
from llmchat.sign_outs import SignOuts
from llmchat.signed_cookie import SignedCookie
from llmchat.subject import concerns
from llmchat.takeout import Takeout
from llmchat.turns import Turns

if TYPE_CHECKING:  # where no provider is configured, it is not imported
    from llmchat.issuer import Issuer

EXTENSION = "llmchat"
_Counted = tuple[tuple[str, str], tuple[str, str]]
HANDLERS_SECONDS = 1.0


class Metrics(Protocol):
    """What an instance tells of itself, to whoever has the token."""

    def opens_to(self, authorization: str) -> bool:
        """Tell whether an Authorization header has the token."""

    async def told(self, accept: str) -> tuple[bytes, str]:
        """Give all there is in a form that an Accept header takes, and the form's Content-Type."""


@dataclass(frozen=True, slots=True)
class OpenId:
    """Signing in by an OpenID provider, where one is configured."""

    issuer: Issuer
    name: str
    """What people call the provider."""
    required: bool
    logins: Logins
    moves: Moves
    signed_in: SignedCookie
    """Of a browser in which a person is signed in."""
    on_the_way: SignedCookie
    """Of a browser that was sent to the provider."""
    untrue: Refusals = field(default_factory=partial(Refusals, SIGN_OUTS_REFUSED))
    """Words of sign-outs, by what is wrong with them."""

    def carried(self, cookies: str | None, *, secure: bool) -> tuple[str, str] | None:
        """Read a session and a login from a Cookie header."""
        session, _, login = (self.signed_in.read(cookies, secure=secure) or "").partition(".")
        return (session, login) if login else None

    async def login(self, cookies: str | None, *, secure: bool) -> Login | None:
        """Find the login of whoever sends a Cookie header. Raises Unavailable."""
        carried = self.carried(cookies, secure=secure)
        return await self.logins.find(*carried) if carried else None

    async def farewell(self, login: Login) -> Closing | None:
        """Tell what ends the connection of a person. Raises Unavailable."""
        there = await self.logins.find(login.session, login.id)
        return None if there else Closing(SIGNED_OUT, "You signed out.")

    async def bring(self, login: Login) -> int:
        """Have the person's all that comes along, and count its chats. Raises Unavailable."""
        if login.brings:
            await self.moves.begin(login.brings, login.session)
            await self.logins.brought(login)
        return await self.moves.finish(login.session)

    def cookie(self, login: Login, *, secure: bool) -> str:
        """Give the Set-Cookie header's value that is a login."""
        return self.signed_in.give(f"{login.session}.{login.id}", secure=secure)


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
    openid: OpenId | None = None
    instance: str = field(default_factory=lambda: secrets.token_hex(4))
    uploads: Counter[str] = field(default_factory=Counter)
    """Files that come just now, by session and by address; files of chats, and archives of them, by session."""
    drawings: Drawings = field(default_factory=Drawings)
    traffic: Traffic = field(default_factory=Traffic)
    opened: int = 0
    """Websockets, up to now."""
    closed: Counter[int] = field(default_factory=lambda: Counter(dict.fromkeys(CODES, 0)))
    """Those that are served no more, by close code."""
    refused: Refusals = field(default_factory=partial(Refusals, WEBSOCKETS_REFUSED, *REASONS))
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
        """Tell whose valid cookie came, if one did. It may be worth nothing by now."""
        cookies, secure = cookies_of(asked), asked.scheme in ("https", "wss")
        signed_in = self.openid.carried(cookies, secure=secure) if self.openid else None
        return signed_in[0] if signed_in else self.sessions.read(cookies, secure=secure)

    @property
    def asks(self) -> bool:
        """Whether nobody chats without a password, or without signing in."""
        return self.access.required or (self.openid is not None and self.openid.required)

    async def visitor(self, asked: Request | Websocket) -> Visitor:
        """Find out who asks. Raises Unavailable where a password is asked, or somebody is signed in."""
        cookies, secure = cookies_of(asked), asked.scheme in ("https", "wss")
        address = asked.remote_addr or ""
        if self.openid is not None:
            login = await self.openid.login(cookies, secure=secure)
            if login is not None:
                concerns(session=login.session)
                return Visitor(
                    session=login.session,
                    known=True,
                    granted=True,
                    secure=secure,
                    welcome=partial(self.openid.farewell, login),
                    allowance=self.limits.of(login.session, address),
                    login=login,
                    came=await self.openid.bring(login),
                )
        known = self.sessions.read(cookies, secure=secure)
        if known is not None and await self._has_moved(known):
            known = None
        session = known or self.sessions.new()
        concerns(session=session)
        return Visitor(
            session=session,
            known=known is not None,
            granted=await self._granted(cookies, known, secure),
            secure=secure,
            welcome=partial(self._farewell, cookies, session, secure) if self.openid or self.asks else None,
            allowance=self.limits.of(session, address),
        )

    def brings(self, visitor: Visitor) -> bool:
        """Tell whether what an anonymous visitor has may become a person's: not behind a password that was not given."""
        open_to = visitor.granted or not self.access.required
        return visitor.known and visitor.login is None and open_to

    async def _has_moved(self, session: str) -> bool:
        """Tell whether an anonymous session became a person's. While Redis is away, nobody knows."""
        with suppress(Unavailable):
            return self.openid is not None and await self.openid.moves.has_moved(session)
        return False

    async def _granted(self, cookies: str, session: str | None, secure: bool) -> bool:
        if not self.access.required:
            return not self.asks
        sign_outs = self.access.granted(cookies, session, secure=secure)
        return sign_outs is not None and sign_outs == await self.sign_outs.count(session or "")

    async def _farewell(self, cookies: str, session: str, secure: bool) -> Closing | None:
        """Tell what ends the connection of an anonymous session."""
        if self.openid is not None and await self.openid.moves.has_moved(session):
            return Closing(RESTARTING, "You signed in.")  # and it comes back as the person
        return (
            None if await self._granted(cookies, session, secure) else Closing(SIGNED_OUT, "You signed out.")
        )

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

    async def cookies(self, visitor: Visitor) -> list[str]:
        """Give the values of the Set-Cookie headers by which a visitor that is let in is known. Raises Unavailable."""
        if self.openid is not None and visitor.login is not None:
            return [self.openid.cookie(visitor.login, secure=visitor.secure)]
        own = self.sessions.cookie(visitor.session, secure=visitor.secure)
        return [own, await self.access_cookie(visitor)] if self.access.required else [own]

    async def access_cookie(self, visitor: Visitor) -> str:
        """Give the Set-Cookie header's value that lets a visitor in. Raises Unavailable."""
        sign_outs = await self.sign_outs.count(visitor.session)
        return self.access.cookie(visitor.session, sign_outs, secure=visitor.secure)

    async def sign_out(self, session: str) -> None:
        """Let a session in no more, and close its connections on all instances. Raises Unavailable."""
        await self.sign_outs.note(session)
        await self.tell_signed_out(session)

    async def tell_signed_out(self, session: str) -> None:
        """Have all connections of a session ask whether they are still welcome. Raises Unavailable."""
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
