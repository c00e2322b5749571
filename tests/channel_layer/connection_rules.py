"""The rules of docs/channel-layer.md that show only where there are connections.

Not collected by itself: the test module of a server that has sockets imports it beside `rules.py`.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections.abc import AsyncIterator, Awaitable
from contextlib import suppress

import pytest

from llmchat.broadcaster import Broadcaster, ChannelLapsed
from llmchat.errors import Unavailable
from tests.channel_layer.rules import rule
from tests.channel_layer.server import SocketServer, until_subscribed
from tests.channel_layer.steps import gaps, joined, lapsed, numbered, received, turns, until_last
from tests.instances.child import Child
from tests.instances.instance import ROOT
from tests.waiting import eventually, within


async def noticed(broadcaster: Broadcaster) -> None:
    """Wait until the loss of the connection is noticed."""
    async with within(30, "the loss is noticed"):
        await broadcaster.lost.wait()


async def recovered(broadcaster: Broadcaster) -> None:
    """Wait until all is subscribed again."""
    async with within(30, "all is subscribed again"):
        await broadcaster.ready.wait()


async def unavailable(*uses: Awaitable[object]) -> None:
    """Use the broadcaster in all these ways at once: none of them works."""
    async with within(10, "the uses end"):
        ends = await asyncio.gather(*uses, return_exceptions=True)
    assert [type(end) for end in ends] == [Unavailable] * len(uses)


async def cut(server: SocketServer, *broadcasters: Broadcaster) -> None:
    """Cut the subscriber connections, and wait until these have seen it."""
    assert await server.cut() >= 1
    for broadcaster in broadcasters:
        await noticed(broadcaster)


# Joining


@pytest.fixture
async def sender(server: SocketServer) -> AsyncIterator[Child]:
    """Another process that sends to each group whose number it is told."""
    child = Child(
        *(sys.executable, "-m", "tests.channel_layer.sender", server.url, server.prefix),
        env=dict(os.environ),
        folder=ROOT,
        reading=True,
    )
    await child.start()
    try:
        await child.line("ready")
        yield child
    finally:
        await child.close()


@rule(16, 26)
async def test_three_thousand_joins_miss_nothing_that_another_process_sends_at_once(
    server: SocketServer, sender: Child
) -> None:
    broadcaster = server.make(capacity=4000)
    channel = await broadcaster.new_channel()

    async def join(numbers: range) -> None:
        for number in numbers:
            await broadcaster.group_add(str(number), channel)
            sender.write(str(number))

    await asyncio.gather(*(join(range(part, 3000, 10)) for part in range(10)))
    await broadcaster.group_add("3000", channel)
    sender.write("3000")  # it sends in order: nothing comes after this
    found = [message["n"] for message in await received(broadcaster, channel, 3001)]
    assert sorted(found) == list(range(3001))
    assert broadcaster.lapses == 0


@rule(16, 19, 21, 38)
@pytest.mark.parametrize("seed", range(3))
async def test_crowd_that_joins_and_leaves_while_the_connection_comes_back_is_where_it_wants(
    server: SocketServer, seed: int
) -> None:
    one, two = server.make(), server.make()
    order = random.Random(seed)
    channels = [await joined(one) for _ in range(60)]

    async def come_and_go(channel: str) -> bool:
        stays = False
        for _ in range(order.randrange(1, 6)):
            step = order.choice(["add", "add", "discard", "cancelled add", "cancelled add beside another"])
            if step == "discard":
                await one.group_discard("g", channel)
                stays = False
                continue
            adding = asyncio.create_task(one.group_add("g", channel))
            if step == "cancelled add":
                await turns(order.randrange(8))
                adding.cancel()
                with suppress(asyncio.CancelledError):
                    await adding
                    stays = True
                continue
            if step == "cancelled add beside another":
                another = asyncio.create_task(one.group_add("g", channel))
                await turns(order.randrange(8))
                another.cancel()
            await adding
            stays = True
        return stays

    await cut(server, one)
    async with within(20, "all have done what they do"):
        stay = await asyncio.gather(*(come_and_go(channel) for channel in channels))
    await recovered(one)
    for channel in channels:
        await lapsed(one, channel)
    await two.group_send("g", {"n": 1})
    for channel, stays in zip(channels, stay, strict=True):
        await two.send(channel, {"last": True})
        assert await until_last(one, channel) == (numbered(1) if stays else [])


# Lost connections


@rule(36, 37, 38)
async def test_cut_connection_lapses_every_channel_once_and_all_works_again(server: SocketServer) -> None:
    one, two = server.make(), server.make()
    channels = [await joined(one, "g"), await joined(one, "h"), await joined(one)]
    for times in (1, 2):
        await cut(server, one)
        await recovered(one)
        for channel in channels:
            await lapsed(one, channel)
        for group in ("g", "h"):
            await two.group_send(group, {"n": 1})
        await two.send(channels[2], {"n": 1})
        for channel in channels:
            await two.send(channel, {"last": True})
            assert await until_last(one, channel) == numbered(1)
        assert one.lapses == 3 * times


@rule(37, 42)
async def test_receive_that_waits_through_a_loss_is_told_when_all_is_subscribed_again(
    server: SocketServer,
) -> None:
    one, two = server.make(), server.make()
    channel = await joined(one, "g")
    reading = asyncio.create_task(one.receive(channel))
    await cut(server, one)
    async with within(30, "it is told"):
        with pytest.raises(ChannelLapsed):
            await reading
    await two.group_send("g", {"n": 1})
    assert await received(one, channel) == numbered(1)


@rule(37)
async def test_lapse_of_a_loss_comes_after_what_the_inbox_holds(server: SocketServer) -> None:
    one, two = server.make(), server.make()
    channel, witness = await joined(one, "g"), await joined(one, "g")
    for number in range(3):
        await two.group_send("g", {"n": number})
    await received(one, witness, 3)
    await cut(server, one)
    await recovered(one)
    assert await received(one, channel, 3) == numbered(0, 1, 2)
    with pytest.raises(ChannelLapsed):
        await received(one, channel)


@rule(26, 27, 37, 38)
async def test_every_gap_in_three_hundred_messages_is_told(server: SocketServer) -> None:
    one, two = server.make(capacity=1000), server.make()
    channel = await joined(one, "g")

    async def send(numbers: range) -> None:
        for number in numbers:
            await two.group_send("g", {"n": number})

    reading = asyncio.create_task(until_last(one, channel))
    await send(range(100))
    for numbers in (range(100, 200), range(200, 300)):
        sending = asyncio.create_task(send(numbers))
        await turns(3)
        await cut(server, one)
        await sending
        await recovered(one)
    await two.group_send("g", {"n": 300})
    await two.group_send("g", {"last": True})
    found = await reading
    told, untold = gaps(found)
    assert untold == []
    assert len(told) <= found.count("lapsed") == 2
    got = [message["n"] for message in found if message != "lapsed"]
    assert got == sorted(set(got))
    assert {*range(100), 300} <= {*got}


@rule(21, 29, 38, 42)
async def test_broadcaster_is_unavailable_while_the_server_is_down_and_comes_back(
    server: SocketServer,
) -> None:
    broadcaster = server.make()
    first, second = await joined(broadcaster, "g"), await broadcaster.new_channel()
    await server.stop()
    await noticed(broadcaster)
    await unavailable(
        broadcaster.group_send("g", {}),
        broadcaster.send("specific.x", {}),
        broadcaster.send(first, {}),
        broadcaster.new_channel(),
        broadcaster.receive("general"),
        broadcaster.group_add("h", first),
        broadcaster.group_add("g", second),  # of which the lost connection had the subscription
    )
    await server.start()
    await recovered(broadcaster)
    for channel in (first, second):
        await lapsed(broadcaster, channel)
    for group in ("g", "h"):
        await broadcaster.group_send(group, {"n": 1})
    for channel in (first, second):
        await broadcaster.send(channel, {"last": True})
    assert await until_last(broadcaster, first) == numbered(1)
    assert await until_last(broadcaster, second) == []
    assert await server.subscribers("channel", "general") == 0
    await broadcaster.group_add("h", second)
    await broadcaster.group_send("h", {"n": 2})
    assert await received(broadcaster, second) == numbered(2)


@rule(29, 39, 40)
async def test_frozen_server_is_noticed_and_all_works_when_it_goes_on(server: SocketServer) -> None:
    one, two = server.make(), server.make()
    channel = await joined(one, "g")
    server.freeze()
    try:
        await noticed(one)
        assert not one.ready.is_set()
        await unavailable(two.group_send("h", {}), two.send(channel, {}), one.group_add("h", channel))
    finally:
        server.thaw()
    await recovered(one)
    assert not one.lost.is_set()
    await lapsed(one, channel)
    await two.group_send("g", {"last": True})
    assert "lapsed" not in await until_last(one, channel)


@rule(29)
async def test_closing_ends_while_the_server_is_frozen(server: SocketServer) -> None:
    broadcaster = server.make()
    await joined(broadcaster, "g")
    server.freeze()
    try:
        async with within(10, "it is closed"):
            await broadcaster.close()
    finally:
        server.thaw()


@rule(40, 41)
async def test_callbacks_and_events_tell_of_each_loss_and_each_return(server: SocketServer) -> None:
    calls: list[tuple[str, bool, bool]] = []

    def note(what: str) -> None:
        calls.append((what, broadcaster.lost.is_set(), broadcaster.ready.is_set()))

    broadcaster = server.make(
        on_disconnect=lambda: note("lost"),
        on_reconnect=lambda: note("back"),
    )
    assert not broadcaster.lost.is_set()
    assert not broadcaster.ready.is_set()
    channel = await joined(broadcaster, "g")
    await recovered(broadcaster)
    for _ in range(2):
        await cut(server, broadcaster)
        await recovered(broadcaster)
        await lapsed(broadcaster, channel)
    await server.stop()
    await noticed(broadcaster)
    await unavailable(broadcaster.group_send("g", {}))
    await server.start()
    await recovered(broadcaster)
    await lapsed(broadcaster, channel)
    assert calls == [("lost", True, False), ("back", False, True)] * 3


@rule(41)
async def test_callback_that_raises_is_logged_and_harms_nothing(
    server: SocketServer, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    broadcaster = server.make(on_disconnect=fail, on_reconnect=fail)
    channel = await joined(broadcaster, "g")
    await cut(server, broadcaster)
    await recovered(broadcaster)
    await lapsed(broadcaster, channel)
    await broadcaster.group_send("g", {"n": 1})
    assert await received(broadcaster, channel) == numbered(1)
    assert broadcaster.lapses == 1
    errors = [record for record in caplog.records if record.levelname == "ERROR"]
    assert [record.exc_info[0] for record in errors if record.exc_info] == [ZeroDivisionError] * 2


@rule(43)
async def test_many_channels_share_one_subscriber_connection(server: SocketServer) -> None:
    async def nobody_reads() -> bool:
        return await server.cut() == 0

    await eventually(nobody_reads, seconds=30, what="nobody else is subscribed")
    broadcaster = server.make()
    await asyncio.gather(*(joined(broadcaster, f"g{number}", "g") for number in range(20)))
    await recovered(broadcaster)
    assert await server.cut() == server.shards


# The end


@rule(46)
async def test_flush_ends_the_subscriptions_and_other_processes_do_not_notice(server: SocketServer) -> None:
    one, two = server.make(), server.make()
    mine, theirs = await joined(one, "g"), await joined(two, "g")
    await until_subscribed(server, "group", "g", 2)
    await one.flush()
    await until_subscribed(server, "group", "g", 1)
    await until_subscribed(server, "channel", mine, 0)
    await two.group_send("g", {"last": True})
    assert await until_last(two, theirs) == []
    assert two.lapses == 0


@rule(48, 50)
async def test_broadcaster_has_connections_between_its_first_use_and_its_end_only(
    server: SocketServer,
) -> None:
    async def settled() -> bool:
        nonlocal before
        before, last = await server.connections(), before
        return before == last

    before = -1
    await eventually(settled, seconds=30, what="the connections of earlier tests are gone")
    broadcaster = server.make()
    assert await server.connections() == before
    await joined(broadcaster, "g")
    await broadcaster.group_send("g", {})
    assert await server.connections() > before
    await broadcaster.close()

    async def gone() -> bool:
        return await server.connections() == before

    await eventually(gone, seconds=30, what="its connections are gone")
