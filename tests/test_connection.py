"""A connection tells each conversation once and in order, whatever its socket and the channel layer do."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from llmchat import connection as connection_room
from llmchat.connection import COMMANDS_WAITING, FLOOD, FRAMES_AT_ONCE, RESTARTING, SIGNED_OUT, Closing
from llmchat.errors import RateLimited, Unavailable
from llmchat.events import MAX_FRAME_BYTES
from llmchat.keys import group_of_conversation, group_of_session
from llmchat.limits import Rates
from llmchat.search import Query
from llmchat.searches import Found, Searched, Searches
from llmchat.settings import Settings
from tests.fakes import Gate, Model
from tests.house import ADDRESS, FakeSocket, House
from tests.instances import Store
from tests.waiting import Bell, eventually, within


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
    epoch = (await house.conversations.conversation("alice", "c1")).epoch
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


async def test_prompt_whose_answer_from_the_store_was_lost_once_leaves_no_hole(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = house.history._send

    async def twice(*arguments: Any) -> Any:
        """As redis-py does, which repeats a command whose answer was lost."""
        await send(*arguments)
        return await send(*arguments)

    monkeypatch.setattr(house.history, "_send", twice)
    socket = await house.connect()
    conversation = await begin(socket)
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


async def test_lapsed_connection_is_told_of_what_was_deleted_meanwhile(house: House) -> None:
    socket = await house.connect()
    deleted, other = await begin(socket, "One"), await begin(socket, "Two")
    since = len(socket.sent)
    await house.conversations.delete("alice", deleted)  # and the news of it is lost
    house.broadcaster.lapse = True
    await house.listing.updated("alice", other)  # wakes whoever receives
    told = await socket.a("conversation.deleted", since=since)
    assert told["conversation"] == deleted
    accepted = await socket.ask(type="message.send", conversation=other, text="More")
    await finished(socket, accepted["answer"])


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


async def test_repeat_of_a_prompt_is_accepted_whatever_else_it_names(house: House, model: Model) -> None:
    socket = await house.connect()
    first = await socket.ask(type="message.send", id="once", text="Hi")
    await finished(socket, first["answer"])
    for more in ({"model": "gone"}, {"conversation": first["conversation"], "model": "gone", "parent": "no"}):
        assert await socket.ask(type="message.send", id="once", text="Hi", **more) == first
    assert (await socket.ask(type="message.send", id="twice", text="Hi", model="gone"))["code"] == "bad_field"
    assert len(model.requests) == 1


async def test_prompt_whose_answer_failed_is_answered_anew_wherever_it_stands(
    house: House, model: Model
) -> None:
    socket = await house.connect()
    model.refuse(400, to="First")
    first = await socket.ask(type="message.send", text="First")
    await socket.a("completion.failed")
    conversation = first["conversation"]
    second = await socket.ask(type="message.send", text="Second", conversation=conversation)
    await finished(socket, second["answer"])
    for sent, expected in ((first, "completion.started"), (second, "error")):
        since = len(socket.sent)
        socket.say(type="completion.regenerate", id="r", conversation=conversation, message=sent["message"])
        told = await socket.until(lambda e: e["type"] in ("completion.started", "error"), since=since)
        assert told["type"] == expected
        if expected == "completion.started":
            assert told["parent"] == first["message"]
            await finished(socket, told["message"])
            again = {
                "type": "completion.regenerate",
                "conversation": conversation,
                "message": sent["message"],
            }
            assert (await socket.ask(id="r", **again))["type"] == "conversation.current"
            assert (await socket.ask(id="other", **again))["code"] == "bad_field"


async def test_repeat_of_a_regenerate_is_answered_with_where_the_client_stands(
    house: House, model: Model
) -> None:
    socket = await house.connect()
    first = await socket.ask(type="message.send", text="First")
    await finished(socket, first["answer"])
    again = {
        "type": "completion.regenerate",
        "conversation": first["conversation"],
        "message": first["answer"],
    }
    socket.say(id="5", **again)
    started = await socket.until(
        lambda e: e["type"] == "completion.started" and e["message"] != first["answer"]
    )
    await finished(socket, started["message"])
    told = await socket.ask(id="5", **again)
    assert told["type"] == "conversation.current"
    assert told["at"] == socket.placed(first["conversation"])[-1]["at"]
    assert len(model.requests) == 2


async def test_system_prompt_that_leaves_no_room_is_too_long(house: House) -> None:
    socket = await house.connect()
    conversation = await begin(socket)
    update = {"type": "conversation.update", "conversation": conversation}
    assert (await socket.ask(**update, system="Be kind."))["type"] == "conversation.updated"
    assert (await socket.ask(**update, system="世" * 4_001))["code"] == "too_long"
    snapshot = await socket.ask(type="conversation.open", conversation=conversation)
    assert snapshot["system"] == "Be kind."


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


@pytest.mark.parametrize("command", [{"type": "conversation.open"}, {"type": "message.send", "text": "Hi"}])
async def test_another_sessions_conversation_is_never_joined(house: House, command: dict[str, str]) -> None:
    alice, mallory = await house.connect(), await house.connect("mallory")
    conversation = await begin(alice)
    group = group_of_conversation(conversation)
    assert house.broadcaster.joined.count(group) == 1
    for asked in (conversation, "nowhere"):
        assert (await mallory.ask(conversation=asked, **command))["code"] == "not_found"
    assert house.broadcaster.joined.count(group) == 1
    assert group_of_conversation("nowhere") not in house.broadcaster.joined


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


async def test_flood_is_closed_also_of_frames_that_are_no_commands(house: House) -> None:
    socket = await house.connect()
    for _ in range(2 * FRAMES_AT_ONCE):
        socket.say(b"\0")
    assert await socket.ended() == 1008
    assert socket.reason == "Too many frames."


async def test_bug_in_a_command_is_told_with_a_number_to_quote_and_the_connection_stays(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    socket = await house.connect()

    async def broken(*_: object) -> None:
        raise RuntimeError("a secret")

    with monkeypatch.context() as patch:
        patch.setattr(house.conversations, "listed", broken)
        error = await socket.ask(type="conversation.list")
    assert error["code"] == "internal"
    assert "a secret" not in error["detail"]
    number = error["detail"].removesuffix(".").rpartition(" ")[2]
    assert number in caplog.text
    assert (await socket.ask(type="conversation.list"))["type"] == "conversation.listed"


@pytest.mark.parametrize(
    "foreign",
    [
        {},
        {"type": 1},
        {"type": "event"},
        {"type": "event", "conversation": 1, "epoch": "e", "offset": 1, "frame": b"{}"},
        {"type": "event", "conversation": "c", "epoch": "e", "offset": "1", "frame": b"{}"},
        {"type": "session.event"},
        {"type": "session.event", "frame": {"type": "pong"}},
    ],
    ids=str,
)
async def test_message_that_is_none_of_ours_is_passed_over(house: House, foreign: dict[str, Any]) -> None:
    socket = await house.connect()
    conversation = await begin(socket)
    for group in (group_of_session("alice"), group_of_conversation(conversation)):
        await house.broadcaster.group_send(group, foreign)
    accepted = await socket.ask(type="message.send", conversation=conversation, text="More")
    await finished(socket, accepted["answer"])
    assert socket.closed is None


async def test_bug_beside_the_commands_closes_the_connection_as_ours(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(connection_room.Connection, "_relay_event", broken)
    house.broadcaster.lose = {-1}  # so that what comes is received
    socket = await house.connect()
    await socket.ask(type="message.send", text="Hi")
    assert await socket.ended() == 1011


async def test_conversation_whose_answer_is_being_made_opens_while_the_store_is_full(
    fresh_store: Store, settings: Settings
) -> None:
    async with House(fresh_store.url, settings) as house:
        socket = await house.connect()
        await house.leave_turn("c1")
        await house.redis.config_set("maxmemory", 1)
        snapshot = await socket.ask(type="conversation.open", conversation="c1")
        await house.redis.config_set("maxmemory", 0)
        assert snapshot["type"] == "conversation.snapshot"


async def test_command_while_the_store_is_away_is_unavailable_and_works_when_it_is_back(
    fresh_store: Store, settings: Settings
) -> None:
    async with House(fresh_store.url, settings) as house:
        socket = await house.connect()
        await fresh_store.stop()
        await socket.until(lambda e: e["type"] == "session.store" and not e["available"])
        assert (await socket.ask(type="conversation.list"))["code"] == "unavailable"
        await socket.settled()
        await fresh_store.start()
        await socket.until(lambda e: e["type"] == "session.store" and e["available"])
        await begin(socket)


async def test_commands_that_wait_while_the_store_fails_one_are_told_at_once_and_not_tried(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing, tries = asyncio.Event(), 0

    async def listed(*_: Any) -> None:
        nonlocal tries
        tries += 1
        await failing.wait()
        raise Unavailable

    socket = await house.connect()
    monkeypatch.setattr(house.chat, "listed", listed)
    for number in range(30):
        socket.say(type="conversation.list", id=f"waits-{number}")
    socket.say(type="ping", id="last")
    await eventually(lambda: asyncio.sleep(0, tries), seconds=30, what="the first is tried")
    failing.set()
    await socket.until(lambda e: e.get("id") == "last")
    refused = [e["id"] for e in socket.sent if e["type"] == "error" and e["code"] == "unavailable"]
    assert refused == [f"waits-{number}" for number in range(30)]
    assert tries == 1
    socket.say(type="conversation.list", id="next")
    await socket.until(lambda e: e.get("id") == "next")
    assert tries == 2  # what comes afterwards is tried


async def test_connection_made_while_the_store_is_away_stays_and_is_told_all_when_it_is_back(
    fresh_store: Store, settings: Settings
) -> None:
    async with House(fresh_store.url, settings) as house:
        conversation = await begin(await house.connect())
        await fresh_store.stop()
        socket = await house.connect()
        assert socket.sent[0]["type"] == "session.ready"
        await socket.until(lambda e: e["type"] == "session.store" and not e["available"])
        error = await socket.ask(type="conversation.open", conversation=conversation)
        assert error["code"] == "unavailable"
        await socket.settled()
        await fresh_store.start()
        await socket.until(lambda e: e["type"] == "session.store" and e["available"])
        assert (await socket.ask(type="conversation.list"))["type"] == "conversation.listed"
        recent = await socket.a("conversation.updated")
        assert recent["conversation"]["id"] == conversation
        assert await begin(socket, "Another")
        assert socket.closed is None


@pytest.mark.parametrize("waits", range(20))
async def test_flood_of_commands_is_closed_whatever_one_of_them_waits_for(house: House, waits: int) -> None:
    """Redis' client must not swallow the cancel: with `waits` it comes at another step of a command."""
    socket = await house.connect()
    for _ in range(waits):
        socket.say(type="conversation.list")
        await asyncio.sleep(0)
    for _ in range(COMMANDS_WAITING + waits + 10):
        socket.say(type="conversation.list")
    assert await socket.ended() == 1008


async def test_prompt_over_the_limit_is_refused_with_a_time_and_the_repeat_of_one_before_it_is_not(
    store: Store, settings: Settings
) -> None:
    async with House(store.url, settings, Rates(prompts=2)) as house:
        socket = await house.connect()
        conversation = await begin(socket)
        first = await socket.ask(type="message.send", conversation=conversation, text="Two", id="two")
        await finished(socket, first["answer"])
        refused = await socket.ask(type="message.send", conversation=conversation, text="Three")
        assert (refused["type"], refused["code"]) == ("error", "rate_limited")
        assert 1 <= refused["retry_after"] <= 30
        again = await socket.ask(
            type="completion.regenerate", conversation=conversation, message=first["answer"]
        )
        assert again["code"] == "rate_limited"
        for _ in range(3):  # and costs nothing
            repeat = await socket.ask(type="message.send", conversation=conversation, text="Two", id="two")
        assert (repeat["type"], repeat["answer"]) == ("message.accepted", first["answer"])
        seed = house.connect_seed()
        seed.say('{"prompt": "Four"}')
        told = await seed.until(lambda event: event.get("prompt") == "Four")
        assert told["response"] == ""
        assert "Try again in" in told["error"]


@pytest.mark.parametrize("connect", [House.let_in, House.connect_seed], ids=["v1", "seed"])
async def test_frames_over_the_limit_of_a_minute_close_the_connection(
    connect: Callable[[House], FakeSocket],
    store: Store,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection_room, "COUNT_SECONDS", 0)
    async with House(store.url, settings, Rates(frames=20)) as house:
        socket, other = connect(house), await house.connect("bob")
        said = 0

        async def closed() -> bool:
            nonlocal said
            socket.say('{"type": "ping"}')
            said += 1
            return socket.closed is not None

        await eventually(closed, seconds=30, what="the connection is closed")
        assert socket.closed == FLOOD
        assert 20 < said < FRAMES_AT_ONCE
        await other.settled()


@pytest.mark.parametrize("connect", [House.let_in, House.connect_seed], ids=["v1", "seed"])
async def test_frames_of_a_connection_that_ended_soon_are_counted(
    connect: Callable[[House], FakeSocket],
    store: Store,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection_room, "COUNT_SECONDS", 3600)
    async with House(store.url, settings, Rates(frames=20)) as house:
        socket = connect(house)
        for _ in range(FRAMES_AT_ONCE + 10):
            socket.say('{"type": "ping"}')
        assert await socket.ended() == FLOOD
        with pytest.raises(RateLimited):
            await house.limits.of("alice", ADDRESS).connection(look=True)


class Door:
    """Where a password is asked: tells what ends the connection, and counts how often it was asked."""

    def __init__(self) -> None:
        self.closing: Closing | None = None
        self.asked = 0

    def shut(self) -> None:
        """Let the session in no more."""
        self.closing = Closing(SIGNED_OUT, "You signed out.")

    async def __call__(self) -> Closing | None:
        self.asked += 1
        return self.closing


async def joins(house: House) -> None:
    """Wait until the connection hears of its session."""

    async def heard() -> bool:
        return group_of_session("alice") in house.broadcaster.joined

    await eventually(heard, seconds=30, what="the connection hears of its session")


BOTH = pytest.mark.parametrize("connect", [House.let_in, House.connect_seed], ids=["v1", "seed"])


@BOTH
async def test_session_that_signs_out_is_closed_everywhere_and_no_other(
    connect: Callable[[House], FakeSocket], house: House
) -> None:
    house.welcome = door = Door()
    socket = connect(house)
    house.welcome = Door()
    other = await house.connect("bob")
    await joins(house)
    door.shut()
    await house.broadcaster.group_send(group_of_session("alice"), {"type": "signed_out"})
    assert await socket.ended() == SIGNED_OUT
    await other.settled()


@BOTH
async def test_session_that_signed_out_before_its_connection_could_hear_of_it_is_closed(
    connect: Callable[[House], FakeSocket], house: House
) -> None:
    house.welcome = door = Door()
    door.shut()
    assert await connect(house).ended() == SIGNED_OUT


@BOTH
async def test_connection_that_may_have_missed_a_sign_out_asks_whether_there_was_one(
    connect: Callable[[House], FakeSocket], fresh_store: Store, settings: Settings
) -> None:
    async with House(fresh_store.url, settings) as house:
        house.welcome = door = Door()
        socket = connect(house)

        async def asked(times: int) -> None:
            async def often() -> bool:
                return door.asked == times

            await eventually(often, seconds=30, what=f"it asks for the {times}. time")

        await asked(1)
        await fresh_store.restart()
        await asked(2)
        door.shut()
        await fresh_store.restart()
        assert await socket.ended() == SIGNED_OUT


@BOTH
async def test_connection_of_another_browser_stays_when_one_signs_out(
    connect: Callable[[House], FakeSocket], house: House
) -> None:
    house.welcome = door = Door()
    connect(house)
    await joins(house)
    asked = door.asked
    await house.broadcaster.group_send(group_of_session("alice"), {"type": "signed_out"})

    async def again() -> bool:
        return door.asked > asked

    await eventually(again, seconds=30, what="it asks whether it is meant")
    house.welcome = None
    assert (await house.connect()).closed is None


async def test_connection_whose_chat_became_a_persons_is_closed_rather_than_told_of_none(
    house: House,
) -> None:
    house.welcome = door = Door()
    socket = await house.connect()
    accepted = await socket.ask(type="message.send", text="Hi")
    await house.redis.hset(
        house.keys.of_conversation(accepted["conversation"]).conversation, "session", "person"
    )
    door.closing = Closing(RESTARTING, "You signed in.")
    socket.say(type="message.send", id="late", conversation=accepted["conversation"], text="More")
    assert await socket.ended() == RESTARTING
    assert not [event for event in socket.sent if event["type"] == "error"]


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
    monkeypatch.setattr(connection_room, "BYTES_WAITING", 200)
    slow = await house.connect()
    slow.reads = False
    for _ in range(20):
        slow.say(type="ping")
    assert await slow.ended() == 1013


async def test_slow_readers_are_closed_earlier_when_much_waits_in_all_together(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_room, "LITTLE_WAITING", 200)
    monkeypatch.setattr(connection_room, "SEND_SECONDS", 3600)
    slow, quick = await house.connect(), await house.connect()
    slow.reads = False
    for _ in range(20):
        slow.say(type="ping")
    await quick.settled()
    assert slow.closed is None
    assert house.traffic.backlog > 200
    monkeypatch.setattr(connection_room, "ALL_BYTES_WAITING", 200)
    slow.say(type="ping")
    assert await slow.ended() == 1013
    await quick.settled()
    assert house.traffic.backlog == 0


async def test_connection_closed_from_outside_says_why_and_gives_its_channel_back(house: House) -> None:
    socket = await house.connect()
    await begin(socket)
    (connection,) = house.connections
    connection.close(RESTARTING, "This instance restarts.")
    assert await socket.ended() == 1012
    async with within(10, "it ends"):
        await asyncio.gather(*house._tasks)
    assert not any(name.startswith("connection.") for name in house.broadcaster._inboxes)


# Searches


class HeldSearches(Searches):
    """Searches that wait for the test before they read."""

    def __init__(self, house: House) -> None:
        super().__init__(house.redis, house.keys)
        self.begun: list[str] = []
        self.ended: list[str] = []
        self.bell = Bell()
        self.go_on = asyncio.Event()

    async def search(self, session: str, query: Query, *, limit: int) -> tuple[list[Found], Searched]:
        word = query.words[0].pattern
        self.begun.append(word)
        self.bell.ring()
        try:
            await self.go_on.wait()
            return await super().search(session, query, limit=limit)
        finally:
            self.ended.append(word)
            self.bell.ring()


@pytest.fixture
def held(house: House) -> HeldSearches:
    house.chat._searches = HeldSearches(house)
    return house.chat._searches


async def test_search_finds_what_was_said(house: House) -> None:
    socket = await house.connect()
    conversation = await begin(socket, "Where is Zürich?")
    found = await socket.ask(type="conversation.search", query="zurich")
    (result,) = found["results"]
    assert (found["type"], found["query"]) == ("conversation.found", "zurich")
    assert found["searched"] == {"conversations": 1, "of": 1, "complete": True}
    assert result["conversation"]["id"] == conversation
    assert result["title"] == {"before": "Where is ", "hit": "Zürich", "after": "?"}
    assert [match["role"] for match in result["matches"]] == ["assistant", "user"]
    assert (await (await house.connect("bob")).ask(type="conversation.search", query="zurich"))[
        "results"
    ] == []


@pytest.mark.parametrize("query", ["", " \u200b", "x" * 201])
async def test_search_without_a_word_or_for_too_much_is_refused(house: House, query: str) -> None:
    socket = await house.connect()
    assert (await socket.ask(type="conversation.search", query=query))["code"] == "bad_field"


async def test_search_delays_no_other_command(house: House, held: HeldSearches) -> None:
    socket = await house.connect()
    socket.say(type="conversation.search", id="s", query="tree")
    await held.bell.until(lambda: held.begun or None, seconds=30)
    await begin(socket)
    held.go_on.set()
    assert (await socket.until(lambda event: event.get("id") == "s"))["type"] == "conversation.found"


async def test_search_is_ended_by_the_next_and_by_the_end_of_its_connection(
    house: House, held: HeldSearches
) -> None:
    socket = await house.connect()
    for number, word in enumerate(["one", "two"], 1):
        socket.say(type="conversation.search", id=word, query=word)
        await held.bell.until(lambda number=number: len(held.begun) == number, seconds=30)
    await held.bell.until(lambda: held.ended == ["one"], seconds=30)
    house.connections[0].close(RESTARTING, "")
    await held.bell.until(lambda: held.ended == ["one", "two"], seconds=30)
    await socket.ended()
    assert not [event for event in socket.sent if event.get("id") in ("one", "two")]


async def test_search_that_the_next_one_overtakes_before_it_began_is_nothing(
    house: House, held: HeldSearches
) -> None:
    held.go_on.set()
    socket = await house.connect()
    for word in ("one", "two"):
        socket.say(type="conversation.search", id=word, query=word)
    await socket.until(lambda event: event.get("id") == "two")
    gc.collect()  # what was never awaited is told here
    assert len(held.begun) == 1


async def test_search_that_fails_tells_so_and_the_connection_stays(house: House, held: HeldSearches) -> None:
    held.go_on.set()
    socket = await house.connect()

    async def fail(session: str) -> list[str]:
        raise Unavailable

    held._conversations = fail  # type: ignore[method-assign]
    assert (await socket.ask(type="conversation.search", query="tree"))["code"] == "unavailable"
    await socket.settled()
