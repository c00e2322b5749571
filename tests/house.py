"""One instance without its doors, and a websocket whose other end is the test: for connections of both protocols."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from llmchat.answering import Answering
from llmchat.attachments import Attachments
from llmchat.broadcaster import Broadcaster, ChannelLapsed, Message, Taker
from llmchat.chat import Chat
from llmchat.completion import Completions
from llmchat.connection import Connection, Traffic, Welcome
from llmchat.conversations import Conversations
from llmchat.erasure import Erasure
from llmchat.events import CompletionDelta, SessionReady
from llmchat.folds import Folds
from llmchat.history import History
from llmchat.keys import Keys
from llmchat.lease import Leases
from llmchat.limits import KINDS, Limits, Rates
from llmchat.listing import Listing
from llmchat.model_stream import Deadlines
from llmchat.models import Models
from llmchat.pressure import Pressure
from llmchat.redis_client import connect
from llmchat.searches import Searches
from llmchat.seed import SeedConnection
from llmchat.settings import Settings
from llmchat.shares import Shares
from llmchat.spending import Spending
from llmchat.summaries import Summaries
from llmchat.titles import Titles
from llmchat.turns import Turns
from tests.waiting import Bell, within

ADDRESS = "127.0.0.1"
NOON = datetime(2030, 1, 2, 12, tzinfo=UTC)
"""Whenever budgets ask for the day."""
READY = SessionReady(protocol=1, version="0", instance="i", models=[], limits={})


class FakeSocket:
    """A websocket whose other end is the test."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.closed: int | None = None
        self.reason = ""
        self.reads = True
        self._incoming: asyncio.Queue[str | bytes | None] = asyncio.Queue()
        self._bell = Bell()

    async def receive(self) -> str | bytes | None:
        return await self._incoming.get()

    async def send(self, data: str) -> None:
        if not self.reads:
            await asyncio.Event().wait()
        self.sent.append(json.loads(data))
        self._bell.ring()

    async def close(self, code: int, reason: str = "") -> None:
        self.closed, self.reason = code, reason
        self._bell.ring()

    def say(self, frame: str | bytes | None = None, /, **command: Any) -> None:
        """Send a frame, or a command: `say(type="ping")`."""
        self._incoming.put_nowait(json.dumps(command) if command else frame)

    async def until(self, find: Callable[[dict[str, Any]], Any], *, since: int = 0) -> dict[str, Any]:
        """Wait for an event; fails at once where the connection is closed before it."""

        def look() -> dict[str, Any] | None:
            found = next((event for event in self.sent[since:] if find(event)), None)
            assert found or self.closed is None, f"the connection was closed: {self.closed}"
            return found

        return await self._bell.until(
            look,
            seconds=15,
            what=lambda: f"an event comes; there were {[event.get('type') for event in self.sent[-20:]]}",
        )

    async def a(self, kind: str, *, since: int = 0) -> dict[str, Any]:
        """Wait for an event of a type."""
        return await self.until(lambda event: event["type"] == kind, since=since)

    async def ask(self, **command: Any) -> dict[str, Any]:
        """Send a command with an id, and wait for its answer."""
        command.setdefault("id", secrets.token_hex(6))
        since = len(self.sent)
        self.say(**command)
        return await self.until(lambda event: event.get("id") == command["id"], since=since)

    async def settled(self) -> None:
        """Wait until everything said before is carried out."""
        assert (await self.ask(type="ping"))["type"] == "pong"

    async def ended(self) -> int:
        """Wait for the close code."""
        await self._bell.until(lambda: self.closed is not None, seconds=15, what="the connection is closed")
        assert self.closed is not None
        return self.closed

    def placed(self, conversation: str) -> list[dict[str, Any]]:
        """The placed events of a conversation."""
        unplaced = ("conversation.snapshot", "conversation.current", "message.accepted")
        return [
            e
            for e in self.sent
            if e.get("conversation") == conversation and "at" in e and e["type"] not in unplaced
        ]


class Holed(Broadcaster):
    """Loses, repeats or holds back events on their way to a connection, as the test says."""

    lose: set[int]
    twice = False
    lapse = False

    async def receive(self, channel: str) -> Message:
        """Pass on what comes, but for the offsets to be lost."""
        if channel.startswith("connection."):
            if self.lapse:
                self.lapse = False
                raise ChannelLapsed
            if self._again:
                return self._again.pop()
        message = await super().receive(channel)
        if message.get("type") == "event" and message.get("offset") in self.lose:
            self.lose.discard(message["offset"])
            return await self.receive(channel)
        if message.get("type") == "event" and self.twice:
            self._again.append(dict(message))
        return message

    def take(self, channel: str, taker: Taker, wake: Callable[[], object]) -> None:
        """Have what the test wants to lay hands on received."""
        super().take(
            channel,
            lambda message, readers: (
                not (self.lose or self.twice or self.lapse or self._again) and taker(message, readers)
            ),
            wake,
        )

    def waits(self, channel: str) -> bool:
        """Tell of what is to come again, too."""
        return bool(self._again) or super().waits(channel)

    async def group_add(self, group: str, channel: str) -> None:
        """Note who joins what."""
        self.joined.append(group)
        await super().group_add(group, channel)

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.lose = set()
        self.joined: list[str] = []  # groups, as often as anybody joined them
        self._again: list[Message] = []


class House:
    """One instance without its doors."""

    def __init__(self, url: str, settings: Settings, rates: Rates | None = None) -> None:
        prefix = f"connection-{secrets.token_hex(4)}"
        self.redis = connect(url)
        self.keys = Keys(prefix)
        self.conversations = Conversations(self.redis, self.keys, history_days=1)
        self.history = History(self.redis, self.keys, self.conversations, history_days=1)
        self.broadcaster = Holed([url], prefix=prefix, capacity=2000)
        self.completions = Completions(settings.asked, Deadlines.of(settings))
        self.models = Models(settings, self.completions)
        self.listing = Listing(self.conversations, self.broadcaster, self.models)
        self.leases = Leases(self.redis, self.keys)
        self.summaries = Summaries(self.redis, self.keys, history_days=1)
        self.pressure = Pressure()
        self.answering = Answering(
            self.redis,
            self.keys,
            "k" * 32,
            most=settings.answers_at_once,
            seconds=60,
            for_whom=bool(settings.tokens_per_day),
        )
        self.spending = Spending(
            self.redis,
            self.keys,
            tokens=settings.tokens_per_day,
            all_tokens=settings.tokens_per_day_in_all,
            now=lambda: NOON,
        )
        self.folds = Folds(
            settings,
            self.history,
            self.summaries,
            Leases(self.redis, self.keys, of="fold"),
            self.completions,
            self.models,
            self.spending,
        )
        self.attachments = Attachments(self.redis, self.keys, largest=1_000_000, most_bytes=4_000_000, days=1)
        self.titles = Titles(settings, self.redis, self.keys, self.completions, self.listing, self.spending)
        self.turns = Turns(
            settings,
            self.history,
            self.leases,
            self.broadcaster,
            self.completions,
            self.listing,
            self.folds,
            self.attachments,
            self.models,
            self.titles,
            self.answering,
            self.spending,
            self.pressure,
        )
        self.erasure = Erasure(self.redis, self.keys, KINDS)
        self.limits = Limits(self.redis, self.keys, rates or Rates())
        self.shares = Shares(self.redis, self.keys, "k" * 32, history_days=1)
        self.searches = Searches(self.redis, self.keys)
        self.chat = Chat(
            settings,
            self.history,
            self.conversations,
            self.turns,
            self.listing,
            self.summaries,
            self.attachments,
            self.erasure,
            self.searches,
            self.models,
            self.shares,
            self.answering,
            self.spending,
        )
        self.traffic = Traffic()
        self.welcome: Welcome | None = None  # where a password is asked
        self._tasks: list[asyncio.Task[None]] = []
        self.connections: list[Connection] = []

    async def __aenter__(self) -> House:
        await self.folds.__aenter__()
        await self.turns.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        async with within(10, lambda: f"the turns stop; left are {self.turns._tasks}"):
            await self.turns.stop()
            await self.folds.stop()
            await self.titles.stop()
        await self.completions.close()
        await self.broadcaster.close()
        await self.redis.aclose()

    async def connect(self, session: str = "alice") -> FakeSocket:
        """Connect a client that has heard session.ready."""
        socket = self.let_in(session)
        await socket.a("session.ready")
        return socket

    def let_in(self, session: str = "alice") -> FakeSocket:
        """Connect a client that has heard nothing yet."""
        socket = FakeSocket()
        connection = Connection(
            socket,
            self.limits.of(session, ADDRESS),
            self.chat,
            self.broadcaster,
            READY,
            self.traffic,
            welcome=self.welcome,
        )
        self.connections.append(connection)
        self._tasks.append(asyncio.create_task(connection.serve()))
        return socket

    def connect_seed(self, session: str = "alice") -> FakeSocket:
        """Connect a client of the seed's protocol."""
        socket = FakeSocket()
        connection = SeedConnection(
            socket, self.limits.of(session, ADDRESS), self.chat, self.broadcaster, welcome=self.welcome
        )
        self._tasks.append(asyncio.create_task(connection.serve()))
        return socket

    async def leave_turn(self, conversation: str) -> str:
        """Store a prompt whose instance died before it began, and of which the index of work lost its entry."""
        sent = await self.history.send(session="alice", conversation=conversation, new=True, title="t", message="m1",
                                       text="Hi", parent="", answer="a1", model="m")  # fmt: skip
        await self.redis.zrem(self.keys.work, conversation)
        return sent.answer

    async def grow_log(self, conversation: str, deltas: int) -> None:
        """Begin a conversation, and an answer with so many deltas that nobody makes any more."""
        await self.history.send(session="alice", conversation=conversation, new=True, title="t", message="m1",
                                text="Hi", parent="", answer="a1", model="m")  # fmt: skip
        lease = await self.leases.take(conversation)
        assert lease
        record = {
            "id": "a1",
            "role": "assistant",
            "parent": "m1",
            "text": "",
            "created": "t",
            "state": "running",
        }
        delta = CompletionDelta(conversation=conversation, message="a1", text="x", blocks=[], count=0)
        await self.history.begin(conversation, lease.fence, 1, record, "", delta)
        for count in range(1, deltas):
            if count % 100 == 0:
                assert await self.leases.renew(lease)
            await self.history.append(conversation, lease.fence, "a1", 1, count, "x", "", delta)
