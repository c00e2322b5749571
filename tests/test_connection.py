"""A connection tells each conversation once and in order, whatever its socket and the channel layer do."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from llmchat import connection as connection_room
from llmchat.broadcaster import Broadcaster, ChannelLapsed, Message
from llmchat.chat import Chat
from llmchat.completion import Completions
from llmchat.connection import FRAMES_AT_ONCE, RESTARTING, Connection
from llmchat.events import MAX_FRAME_BYTES, CompletionDelta, SessionReady
from llmchat.history import History
from llmchat.keys import Keys
from llmchat.lease import Leases
from llmchat.listing import Listing
from llmchat.redis_client import connect
from llmchat.settings import Settings
from llmchat.turns import Turns
from tests.fakes import Gate, Model
from tests.instances import Store
from tests.waiting import Bell, within

READY = SessionReady(protocol=1, version="0", instance="i", models=[], limits={})


class FakeSocket:
    """A websocket whose other end is the test."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.closed: int | None = None
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
        self.closed = code
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
            what=lambda: f"an event comes; there were {[event['type'] for event in self.sent[-20:]]}",
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
        if message["type"] == "event" and message["offset"] in self.lose:
            self.lose.discard(message["offset"])
            return await self.receive(channel)
        if message["type"] == "event" and self.twice:
            self._again.append(dict(message))
        return message

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.lose = set()
        self._again: list[Message] = []


class House:
    """One instance without its doors."""

    def __init__(self, url: str, settings: Settings) -> None:
        prefix = f"connection-{secrets.token_hex(4)}"
        self.redis = connect(url)
        self.keys = Keys(prefix)
        self.history = History(self.redis, self.keys, history_days=1)
        self.broadcaster = Holed([url], prefix=prefix, capacity=2000)
        self.completions = Completions(api_key=settings.openai_api_key, base_url=settings.openai_base_url)
        self.listing = Listing(self.history, self.broadcaster, "m")
        self.leases = Leases(self.redis, self.keys)
        self.turns = Turns(
            settings, self.history, self.leases, self.broadcaster, self.completions, self.listing
        )
        self.chat = Chat(settings, self.history, self.turns, self.listing)
        self._tasks: list[asyncio.Task[None]] = []
        self.connections: list[Connection] = []

    async def __aenter__(self) -> House:
        await self.turns.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        async with within(10, lambda: f"the turns stop; left are {self.turns._tasks}"):
            await self.turns.stop()
        await self.completions.close()
        await self.broadcaster.close()
        await self.redis.aclose()

    async def connect(self, session: str = "alice") -> FakeSocket:
        """Connect a client that has heard session.ready."""
        socket = FakeSocket()
        connection = Connection(socket, session, self.chat, self.broadcaster, READY)
        self.connections.append(connection)
        self._tasks.append(asyncio.create_task(connection.serve()))
        await socket.a("session.ready")
        return socket

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
            await self.history.append(conversation, lease.fence, "a1", count, "x", "", delta)


@pytest.fixture
async def house(store: Store, settings: Settings) -> AsyncIterator[House]:
    async with AsyncExitStack() as leaving:
        yield await leaving.enter_async_context(House(store.url, settings))


async def begin(socket: FakeSocket, text: str = "Hi") -> str:
    """Begin a conversation; wait for its answer."""
    accepted = await socket.ask(type="message.send", text=text)
    await finished(socket, accepted["answer"])
    return str(accepted["conversation"])


async def finished(socket: FakeSocket, answer: str) -> None:
    await socket.until(lambda e: e["type"] == "completion.finished" and e["message"] == answer)


def offsets(events: list[dict[str, Any]]) -> list[int]:
    return [event["at"]["offset"] for event in events]


def assert_told_once_and_in_order(socket: FakeSocket, conversation: str, first: int) -> None:
    found = offsets(socket.placed(conversation))
    assert found == list(range(first, first + len(found)))
    last = first - 1
    for event in socket.sent:  # a current or a snapshot is never ahead of what was told
        if event.get("conversation") != conversation or "at" not in event:
            continue
        if event["type"] == "conversation.current":
            assert event["at"]["offset"] == last
        elif event["type"] != "message.accepted":
            last = event["at"]["offset"]


async def test_opened_conversation_is_told_from_its_snapshot_on(house: House) -> None:
    one, two = await house.connect(), await house.connect()
    conversation = await begin(one)
    snapshot = await two.ask(type="conversation.open", conversation=conversation)
    assert snapshot["type"] == "conversation.snapshot"
    assert [message["role"] for message in snapshot["messages"]] == ["user", "assistant"]
    accepted = await one.ask(type="message.send", conversation=conversation, text="More")
    for socket in (one, two):
        await finished(socket, accepted["answer"])
    assert_told_once_and_in_order(two, conversation, snapshot["at"]["offset"] + 1)
    assert two.placed(conversation) == one.placed(conversation)[-len(two.placed(conversation)) :]


async def test_sender_is_told_its_new_conversation_from_the_first_place_on(house: House) -> None:
    socket = await house.connect()
    conversation = await begin(socket)
    events = socket.placed(conversation)
    assert [event["type"] for event in events][:2] == ["message.added", "completion.started"]
    assert_told_once_and_in_order(socket, conversation, 1)
    accepted = await socket.a("message.accepted")
    assert accepted["at"] == events[0]["at"]


async def test_repeated_prompt_on_a_new_connection_is_told_events_from_now_on(
    house: House, model: Model
) -> None:
    one = await house.connect()
    gate = Gate()
    model.answer("Hel", gate, "lo")
    first = await one.ask(type="message.send", id="mine", text="Hi")
    await one.a("completion.delta")
    two = await house.connect()
    again = await two.ask(type="message.send", id="mine", text="Hi")
    assert again == first
    before = len(one.placed(first["conversation"]))
    gate.open()
    await finished(one, first["answer"])
    await finished(two, first["answer"])
    assert two.placed(first["conversation"]) == one.placed(first["conversation"])[before:]


async def test_client_resumes_from_its_place(house: House) -> None:
    one, two = await house.connect(), await house.connect()
    conversation = await begin(one)
    known = one.placed(conversation)
    current = await two.ask(type="conversation.open", conversation=conversation, after=known[0]["at"])
    assert (current["type"], current["at"]) == ("conversation.current", known[-1]["at"])
    assert two.placed(conversation) == known[1:]
    assert_told_once_and_in_order(two, conversation, 2)


@pytest.mark.parametrize("place", [{"epoch": "other", "offset": 1}, {"epoch": None, "offset": 999}])
async def test_client_that_cannot_resume_gets_a_snapshot(house: House, place: dict[str, Any]) -> None:
    socket = await house.connect()
    conversation = await begin(socket)
    epoch = socket.placed(conversation)[0]["at"]["epoch"]
    place = place | {"epoch": place["epoch"] or epoch}
    answer = await socket.ask(type="conversation.open", conversation=conversation, after=place)
    assert answer["type"] == "conversation.snapshot"


async def test_client_far_behind_is_brought_up_to_date_and_not_closed(house: House) -> None:
    await house.grow_log("c1", 1500)
    socket = await house.connect()
    epoch = (await house.history.conversation("alice", "c1")).epoch
    answer = await socket.ask(
        type="conversation.open", conversation="c1", after={"epoch": epoch, "offset": 1}
    )
    assert answer["at"]["offset"] == 1501
    await socket.settled()
    assert socket.closed is None


async def test_event_that_comes_twice_is_told_once(house: House) -> None:
    house.broadcaster.twice = True
    socket = await house.connect()
    conversation = await begin(socket)
    await socket.settled()
    assert_told_once_and_in_order(socket, conversation, 1)


@pytest.mark.parametrize("lost", [{2}, {2, 3}, {1}, {1, 3}])
async def test_hole_is_filled_from_the_log(house: House, lost: set[int]) -> None:
    house.broadcaster.lose = set(lost)
    socket = await house.connect()
    conversation = await begin(socket)
    assert house.broadcaster.lose == set()
    assert_told_once_and_in_order(socket, conversation, 1)


async def test_lapsed_connection_is_brought_up_to_date(house: House, model: Model) -> None:
    socket = await house.connect()
    gate = Gate()
    conversation = await begin(socket)
    placed = len(socket.placed(conversation))
    model.answer("more", gate)
    house.broadcaster.lose = set(range(placed + 1, placed + 4))
    accepted = await socket.ask(type="message.send", conversation=conversation, text="More")
    await gate.wait()
    house.broadcaster.lapse = True
    await house.listing.updated("alice", conversation)  # wakes whoever receives
    await socket.until(lambda e: e["type"] == "conversation.current")
    gate.open()
    await finished(socket, accepted["answer"])
    assert_told_once_and_in_order(socket, conversation, 1)


async def test_closed_conversation_is_not_told_any_more(house: House) -> None:
    one, two = await house.connect(), await house.connect()
    conversation = await begin(one)
    await two.ask(type="conversation.open", conversation=conversation)
    two.say(type="conversation.close", conversation=conversation)
    await two.settled()
    accepted = await one.ask(type="message.send", conversation=conversation, text="More")
    await finished(one, accepted["answer"])
    await two.settled()
    assert two.placed(conversation) == []


async def test_stop_of_nothing_is_answered_with_where_the_client_stands(house: House) -> None:
    socket = await house.connect()
    conversation = await begin(socket)
    answer = await socket.ask(type="completion.stop", conversation=conversation)
    assert answer["type"] == "conversation.current"
    assert answer["at"] == socket.placed(conversation)[-1]["at"]


async def test_another_session_is_told_nothing(house: House) -> None:
    alice, mallory = await house.connect(), await house.connect("mallory")
    conversation = await begin(alice)
    for command in (
        {"type": "conversation.open"},
        {"type": "conversation.open", "after": {"epoch": "x", "offset": 0}},
        {"type": "message.send", "text": "Hi"},
        {"type": "completion.stop"},
        {"type": "conversation.delete"},
    ):
        answer = await mallory.ask(conversation=conversation, **command)
        assert (answer["type"], answer["code"]) == ("error", "not_found")
    accepted = await alice.ask(type="message.send", conversation=conversation, text="More")
    await finished(alice, accepted["answer"])
    await mallory.settled()
    assert {event["type"] for event in mallory.sent} == {"session.ready", "error", "pong"}


@pytest.mark.parametrize("frame", [b"", b"\x00", None])
async def test_binary_frame_is_an_error_and_the_connection_stays(house: House, frame: bytes | None) -> None:
    socket = await house.connect()
    socket.say(frame)
    assert (await socket.a("error"))["code"] == "bad_frame"
    await socket.settled()


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ("{", "bad_frame"),
        ("[]", "bad_frame"),
        ("{}", "unknown_type"),
        ('{"type":"message.send"}', "bad_field"),
    ],
)
async def test_bad_frame_is_an_error_and_the_connection_stays(house: House, frame: str, code: str) -> None:
    socket = await house.connect()
    socket.say(frame)
    assert (await socket.a("error"))["code"] == code
    await socket.settled()


async def test_flood_is_closed(house: House) -> None:
    socket = await house.connect()
    for _ in range(FRAMES_AT_ONCE + 10):
        socket.say(type="ping")
    assert await socket.ended() == 1008


async def test_frame_that_is_too_large_is_closed(house: House) -> None:
    socket = await house.connect()
    socket.say("é" * (MAX_FRAME_BYTES // 2 + 1))
    assert await socket.ended() == 1009


async def test_reader_that_never_reads_is_closed_and_nobody_else(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_room, "SEND_SECONDS", 0.2)
    slow, quick = await house.connect(), await house.connect()
    slow.reads = False
    slow.say(type="ping")
    assert await slow.ended() == 1013
    await quick.settled()
    assert quick.closed is None


async def test_reader_with_too_much_waiting_is_closed(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_room, "CHARACTERS_WAITING", 200)
    slow = await house.connect()
    slow.reads = False
    for _ in range(20):
        slow.say(type="ping")
    assert await slow.ended() == 1013


async def test_connection_closed_from_outside_says_why_and_gives_its_channel_back(house: House) -> None:
    socket = await house.connect()
    await begin(socket)
    (connection,) = house.connections
    connection.close(RESTARTING, "This instance restarts.")
    assert await socket.ended() == 1012
    async with within(10, "it ends"):
        await asyncio.gather(*house._tasks)
    assert not any(name.startswith("connection.") for name in house.broadcaster._inboxes)
