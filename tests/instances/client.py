"""A client of the protocol: a browser's tab without the browser, which checks every event it gets."""

from __future__ import annotations

import asyncio
import json
import secrets
import ssl
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from typing import Any, Protocol

import aiohttp

from tests.instances.mirror import PLACED, Broken, Event, Mirror
from tests.waiting import Bell, within

# The answers that may come without the command's id: they go to everyone alike.
PLACED_ANSWERS = {
    "message.withdraw": {"message.withdrawn"},
    "message.select": {"conversation.selected"},
    "completion.stop": {"completion.finished", "completion.failed"},
    "completion.regenerate": {"completion.started"},
    "completion.continue": {"completion.started"},
    "conversation.update": {"conversation.updated"},
    "conversation.delete": {"conversation.deleted"},
    "conversation.restore": {"conversation.updated"},
    "conversation.read": {"conversation.updated"},
}
UNANSWERED = {"conversation.close"}


class Served(Protocol):
    """Whatever has an address: an instance, or a proxy before several."""

    url: str


class Refused(Exception):
    """A command was answered with an `error` event."""

    def __init__(self, event: Event) -> None:
        super().__init__(f"{event['code']}: {event.get('detail')}")
        self.event = event
        self.code: str = event["code"]


@dataclass(frozen=True)
class Page:
    """An answer over http."""

    status: int
    headers: dict[str, str]
    text: str

    def json(self) -> Any:
        """Return the body, decoded."""
        return json.loads(self.text)


class Client:
    """One tab. Clients with one cookie jar are tabs of one browser, that is: one session.

    `seen` keeps every event of all its connections in order. `event` hands each of them out once. A fault that
    the mirror finds is raised by whatever waits next, and by `close`.
    """

    def __init__(self, jar: aiohttp.CookieJar | None = None, tls: ssl.SSLContext | None = None) -> None:
        self.jar = aiohttp.CookieJar(unsafe=True) if jar is None else jar  # unsafe: hosts may be numbers
        self.seen: list[Event] = []
        self.mirrors: dict[str, Mirror] = {}
        self.instance: Served | None = None
        self.broken: Broken | None = None
        connector = aiohttp.TCPConnector(ssl=tls) if tls else None
        self._http = aiohttp.ClientSession(cookie_jar=self.jar, connector=connector)
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._reading: asyncio.Task[None] | None = None
        self._handed: set[int] = set()
        self._bell = Bell()
        self._name = secrets.token_hex(4)
        self._numbers = count(1)

    # Connecting

    async def connect(self, instance: Served, *, headers: dict[str, str] | None = None) -> Event:
        """Connect to an instance as its own page would, and wait for `session.ready`."""
        assert self._reading is None, "connected twice"
        self.instance = instance
        began = len(self.seen)
        async with within(10, "the handshake is answered"):
            self._socket = await self._http.ws_connect(
                f"{instance.url.replace('http', 'ws', 1)}/ws/chat/",
                protocols=["llmchat.v1"],
                headers={"Origin": instance.url, **(headers or {})},
                max_msg_size=0,
                compress=15,  # as browsers offer it
            )
        self._reading = asyncio.create_task(self._read(self._socket))
        ready = await self.event("session.ready")
        assert ready is self.seen[began], "session.ready was not the first event"
        return ready

    async def drop(self) -> None:
        """Lose the connection without a word, as a phone in a tunnel does."""
        self.cut()
        await self.closed()

    def cut(self) -> None:
        """Break the connection, without waiting until it is closed."""
        assert self._socket
        connection = self._socket._conn  # aiohttp has no public way to break a connection
        if connection and connection.transport:
            connection.transport.abort()

    async def reconnect(self, instance: Served | None = None, *, after: bool = True) -> None:
        """Connect again, to any instance, and open every conversation known: by its place, or from a snapshot."""
        if self._reading:
            await self.drop()
        assert self.instance
        await self.connect(instance or self.instance)
        for mirror in self.mirrors.values():
            if after and mirror.at:
                await self.command("conversation.open", conversation=mirror.conversation, after=mirror.at)
            else:
                mirror.forget_place()
                await self.command("conversation.open", conversation=mirror.conversation)

    async def closed(self, *, seconds: float = 30) -> int | None:
        """Wait until the connection is closed and return its close code (1006: without one)."""
        assert self._socket
        assert self._reading
        async with within(seconds, "the connection is closed"):
            await self._reading
        self._reading = None
        return self._socket.close_code

    async def close(self) -> None:
        """Leave, and raise what was found broken."""
        if self._socket and self._reading:
            await self._socket.close()
            await self.closed()
        await self._http.close()
        self._raise_broken()

    # Asking

    async def command(self, kind: str, *, seconds: float = 30, **fields: Any) -> Event:
        """Send a command and return its answer; raise `Refused` where that is an error.

        An `id` is made unless one is given. For `conversation.close`, which has no answer, the command itself
        is returned.
        """
        sent = await self.send(kind, **fields)
        if kind in UNANSWERED:
            return sent
        answer = await self._bell.until(
            self._finder(lambda event: self._answers(event, sent), start=sent["seen"]),
            seconds=seconds,
            what=lambda: f"{sent} is answered" + self._told(),
        )
        if answer["type"] == "error":
            raise Refused(answer)
        return answer

    async def refused(self, kind: str, **fields: Any) -> str:
        """Send a command that must be refused and return the code."""
        try:
            answer = await self.command(kind, **fields)
        except Refused as error:
            return error.code
        raise AssertionError(f"{kind} was not refused but answered with {answer}")

    async def send(self, kind: str, **fields: Any) -> Event:
        """Send a command and wait for nothing; returns it, with how many events were seen before (`seen`)."""
        fields.setdefault("id", f"{self._name}-{next(self._numbers)}")
        if kind == "conversation.close" and fields.get("conversation") in self.mirrors:
            self.mirrors[fields["conversation"]].forget_place()
        before = len(self.seen)
        await self.raw(json.dumps({"type": kind, **fields}))
        return {"type": kind, **fields, "seen": before}

    async def raw(self, frame: str | bytes) -> None:
        """Send a frame as it is: text, or bytes as a binary frame."""
        assert self._socket
        if isinstance(frame, bytes):
            await self._socket.send_bytes(frame)
        else:
            await self._socket.send_str(frame)

    async def prompt(self, text: str, **fields: Any) -> Event:
        """Send a prompt, wait until it is answered or failed, and return that last event."""
        accepted = await self.command("message.send", text=text, **fields)
        return await self.ending(accepted["answer"])

    async def page(self, path: str, *, method: str = "GET", **options: Any) -> Page:
        """Fetch something of the instance over http, with the same cookies."""
        assert self.instance
        async with (
            within(10, f"{path} is answered"),
            self._http.request(
                method, self.instance.url + path, allow_redirects=False, **options
            ) as response,
        ):
            return Page(response.status, dict(response.headers), await response.text())

    # Waiting

    async def event(self, kind: str, *, seconds: float = 30, **fields: Any) -> Event:
        """Return the first event of this type and with these fields that was not handed out before."""
        return await self._bell.until(
            self._finder(
                lambda event: (
                    event.get("type") == kind
                    and all(event.get(name) == value for name, value in fields.items())
                )
            ),
            seconds=seconds,
            what=lambda: f"{kind} {fields or ''} comes" + self._told(),
        )

    async def ending(self, answer: str, *, seconds: float = 30) -> Event:
        """Return the `completion.finished` or `completion.failed` of an answer."""
        return await self._bell.until(
            self._finder(
                lambda event: (
                    event.get("type") in {"completion.finished", "completion.failed"}
                    and event["message"] == answer
                )
            ),
            seconds=seconds,
            what=lambda: f"answer {answer} ends" + self._told(),
        )

    async def until(
        self, check: Callable[[], Any], *, seconds: float = 30, what: str = "a state is seen"
    ) -> Any:
        """Wait until `check` is true; it is asked after every event. A KeyError means: not yet."""

        def find() -> Any:
            self._raise_broken()
            try:
                found = check() or None
            except KeyError:
                found = None
            if found is None:
                self._raise_closed()
            return found

        return await self._bell.until(find, seconds=seconds, what=lambda: what + self._told())

    # Knowing

    def mirror(self, conversation: str) -> Mirror:
        """Return what is known of a conversation."""
        if conversation not in self.mirrors:
            self.mirrors[conversation] = Mirror(conversation)
        return self.mirrors[conversation]

    def text(self, message: str) -> str:
        """Return the text of a message, by the protocol's rule; KeyError where it was not seen."""
        return self._holder(message).text(message)

    def html(self, message: str) -> str:
        """Return its HTML, from the blocks that were sent or from a snapshot; KeyError where it was not seen."""
        return self._holder(message).html(message)

    def hash(self, conversation: str) -> str:
        """Return a digest of the current branch: equal for all clients that have seen the same."""
        return self.mirrors[conversation].hash()

    def of(self, conversation: str) -> list[Event]:
        """Return the placed events seen of a conversation, in order."""
        return [one for one in self.seen if one.get("type") in PLACED and one["conversation"] == conversation]

    def _holder(self, message: str) -> Mirror:
        for mirror in self.mirrors.values():
            if message in mirror.messages:
                return mirror
        raise KeyError(message)

    # Reading

    async def _read(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        with suppress(aiohttp.ClientConnectionResetError):  # a ping came that cannot be answered any more
            async for frame in socket:
                if frame.type is aiohttp.WSMsgType.TEXT:
                    self._receive(frame.data)
        self._bell.ring()

    def _receive(self, frame: str) -> None:
        self._take(json.loads(frame))

    def _take(self, event: Event) -> None:
        self.seen.append(event)
        conversation = event.get("conversation")
        if isinstance(conversation, str) and event["type"] != "conversation.deleted":
            try:
                self.mirror(conversation).apply(event)
            except Broken as broken:
                self.broken = self.broken or broken
            except (KeyError, TypeError, ValueError) as error:
                self.broken = self.broken or Broken(f"{event} is misshapen: {error!r}")
        self._bell.ring()

    def _finder(self, meets: Callable[[Event], bool], start: int = 0) -> Callable[[], Event | None]:
        def find() -> Event | None:
            self._raise_broken()
            for number in range(start, len(self.seen)):
                if number not in self._handed and meets(self.seen[number]):
                    self._handed.add(number)
                    return self.seen[number]
            self._raise_closed()
            return None

        return find

    def _answers(self, event: Event, sent: Event) -> bool:
        if "id" in event:
            return bool(event["id"] == sent["id"])
        if event["type"] not in PLACED_ANSWERS.get(sent["type"], ()):
            return False
        about = event["conversation"]
        return bool((about["id"] if isinstance(about, dict) else about) == sent.get("conversation"))

    def _raise_broken(self) -> None:
        if self.broken:
            broken, self.broken = self.broken, None
            raise broken

    def _raise_closed(self) -> None:
        """What is waited for cannot come any more: do not wait for the deadline."""
        if self._reading is None or self._reading.done():
            raise AssertionError(self._told())

    def _told(self) -> str:
        kinds: dict[str, int] = defaultdict(int)
        for event in self.seen:
            kinds[event.get("type", "?")] += 1
        newest = "\n  ".join(json.dumps(event)[:300] for event in self.seen[-5:])
        closed = f"; closed with {self._socket.close_code}" if self._socket and self._socket.closed else ""
        return f". Seen: {dict(kinds)}{closed}; the newest:\n  {newest}"
