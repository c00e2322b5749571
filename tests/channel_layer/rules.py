"""The rules of docs/channel-layer.md that any server shows, fakeredis too. Each test names what it shows.

Not collected by itself: a test module of a server imports all of it and defines the fixture `server`.
"""

from __future__ import annotations

import asyncio
import math
import random
import re
from typing import Any

import msgpack
import pytest

from llmchat.broadcaster import Broadcaster, ChannelFull, ChannelLapsed
from tests.channel_layer.server import Server, until_subscribed
from tests.channel_layer.steps import joined, lapsed, numbered, received, turns, until_last
from tests.waiting import eventually, within

UP_TO_99 = "a" * 99
BAD_GROUPS = ["", "a b", "a!b", "ünder", "a\n", "a:b", "a" * 100, "١", 7, None, b"bytes"]
BAD_CHANNELS = ["", "a b", "a!b!c", "a!b:c", "!b", "ünder", "a\n", "a!\n", "a" * 100, "١", 7, None, b"bytes"]


def rule(*numbers: int) -> pytest.MarkDecorator:
    """Name the rules of docs/channel-layer.md that a test shows."""
    return pytest.mark.rule(*numbers)


# Names


@rule(1, 3)
@pytest.mark.parametrize("name", BAD_GROUPS)
async def test_bad_group_name_is_a_type_error_everywhere(server: Server, name: Any) -> None:
    broadcaster = server.make()
    channel = await broadcaster.new_channel()
    for use in (
        broadcaster.group_add(name, channel),
        broadcaster.group_discard(name, channel),
        broadcaster.group_send(name, {}),
    ):
        with pytest.raises(TypeError, match="A group name is"):
            await use


@rule(2, 3)
@pytest.mark.parametrize("name", BAD_CHANNELS)
async def test_bad_channel_name_is_a_type_error_everywhere(server: Server, name: Any) -> None:
    broadcaster = server.make()
    for use in (
        broadcaster.send(name, {}),
        broadcaster.receive(name),
        broadcaster.close_channel(name),
        broadcaster.group_add("g", name),
        broadcaster.group_discard("g", name),
    ):
        with pytest.raises(TypeError, match="A channel name is"):
            await use


@rule(3)
@pytest.mark.parametrize("prefix", ["no spaces", "a" * 90, "two!parts!", "ünder"])
async def test_bad_prefix_of_a_channel_is_a_type_error(server: Server, prefix: str) -> None:
    with pytest.raises(TypeError):
        await server.make().new_channel(prefix)


@rule(1)
@pytest.mark.parametrize("name", ["a", "7", "-", "A-b_c.9", UP_TO_99])
async def test_good_group_name_is_taken(server: Server, name: str) -> None:
    broadcaster = server.make()
    channel = await joined(broadcaster, name)
    await broadcaster.group_send(name, {"n": 1})
    assert await received(broadcaster, channel) == numbered(1)


@rule(2)
async def test_names_with_and_without_a_local_part_are_channels_of_their_own(server: Server) -> None:
    broadcaster = server.make()
    names = ["a", "a!", "a!b", "a!B", "A-b_c.9!-_.", UP_TO_99]
    readers = [asyncio.create_task(broadcaster.receive(name)) for name in names]
    for name in names:
        await until_subscribed(server, "channel", name, 1)
    for number, name in enumerate(names):
        await broadcaster.send(name, {"n": number})
    async with within(10, "each gets its own"):
        assert await asyncio.gather(*readers) == numbered(*range(len(names)))


@rule(4)
async def test_two_prefixes_on_one_server_never_meet(server: Server) -> None:
    one, two = server.make(), server.make(prefix=f"{server.prefix}-other")
    mine, theirs = await joined(one, "g"), await joined(two, "g")
    await one.group_send("g", {"n": 1})
    await two.group_send("g", {"n": 2})
    await one.send(theirs, {"n": 3})
    await one.group_send("g", {"last": True})
    await two.group_send("g", {"last": True})
    assert await until_last(one, mine) == numbered(1)
    assert await until_last(two, theirs) == numbered(2)


@rule(5)
async def test_anybody_may_publish_to_a_group_and_a_channel(server: Server) -> None:
    broadcaster = server.make()
    channel = await joined(broadcaster, "g")
    await server.publish_raw("group", "g", b"\x81\xa1n\x01")
    assert await received(broadcaster, channel) == numbered(1)
    await server.publish_raw("channel", channel, b"\x81\xa1n\x02")
    assert await received(broadcaster, channel) == numbered(2)


@rule(5, 36)
@pytest.mark.parametrize(
    "envelope",
    [b"", b"\xc1", b"\xa1", b"\x01", b"\x81\xa1n", msgpack.packb({1: 2}), msgpack.packb([1])],
    ids=["empty", "reserved", "cut", "number", "cut dict", "key", "list"],
)
async def test_what_cannot_be_read_is_a_lapse_and_silences_nobody(server: Server, envelope: bytes) -> None:
    broadcaster = server.make()
    channel, other = await joined(broadcaster, "g"), await joined(broadcaster, "h")
    await server.publish_raw("group", "g", envelope)
    await lapsed(broadcaster, channel)
    assert broadcaster.lapses == 1
    for group, each in (("g", channel), ("h", other)):
        await broadcaster.group_send(group, {"n": 1})
        assert await received(broadcaster, each) == numbered(1)


# Channels


@rule(6)
async def test_new_channels_have_their_prefix_and_are_never_the_same(server: Server) -> None:
    one, two = server.make(), server.make()
    random.seed(7)
    names = [await one.new_channel("mine.")]
    random.seed(7)
    names += [await each.new_channel("mine.") for each in (one, two)]
    assert len(set(names)) == 3
    assert all(re.fullmatch(r"mine\.[0-9a-f]{32}", name) for name in names)
    assert (await one.new_channel()).startswith("specific.")


@rule(7)
async def test_what_is_sent_at_once_after_a_channel_is_made_arrives(server: Server) -> None:
    one, two = server.make(), server.make()
    for number in range(50):
        async with one.channel() as channel:
            await two.send(channel, {"n": number})
            assert await received(one, channel) == numbered(number)


@rule(8)
async def test_each_process_that_receives_on_a_name_gets_a_copy(server: Server) -> None:
    one, two = server.make(), server.make()
    mine = await one.new_channel()
    for name in ("general", mine):
        readers = [asyncio.create_task(each.receive(name)) for each in (one, two)]
        await until_subscribed(server, "channel", name, 2)
        await one.send(name, {"n": 1})
        async with within(10, "each process gets a copy"):
            assert await asyncio.gather(*readers) == numbered(1, 1)


@rule(8, 17)
async def test_name_that_was_received_on_can_join_groups(server: Server) -> None:
    broadcaster = server.make()
    reading = asyncio.create_task(broadcaster.receive("general"))
    await until_subscribed(server, "channel", "general", 1)
    await broadcaster.group_add("g", "general")
    await broadcaster.group_send("g", {"n": 1})
    async with within(10, "it arrives"):
        assert await reading == {"n": 1}


@rule(9, 10)
async def test_channel_that_is_given_back_leaves_its_groups_and_loses_what_it_held(server: Server) -> None:
    broadcaster = server.make()
    async with broadcaster.channel("mine.") as channel:
        assert channel.startswith("mine.")
        await broadcaster.group_add("g", channel)
        await broadcaster.group_send("g", {"n": 1})
    await until_subscribed(server, "group", "g", 0)
    await until_subscribed(server, "channel", channel, 0)
    await broadcaster.send(channel, {"n": 2})
    with pytest.raises(RuntimeError, match="not a channel of this process"):
        await broadcaster.group_add("g", channel)
    reading = asyncio.create_task(broadcaster.receive(channel))
    await until_subscribed(server, "channel", channel, 1)
    await broadcaster.group_send("g", {"n": 3})
    await broadcaster.send(channel, {"n": 4})
    async with within(10, "the new one of this name receives"):
        assert await reading == {"n": 4}


@rule(9)
async def test_channel_is_given_back_where_its_block_fails(server: Server) -> None:
    broadcaster = server.make()
    with pytest.raises(ZeroDivisionError):
        async with broadcaster.channel() as channel:
            raise ZeroDivisionError
    await until_subscribed(server, "channel", channel, 0)


@rule(10)
async def test_giving_back_what_is_not_there_is_no_error(server: Server) -> None:
    one, two = server.make(), server.make()
    channel = await joined(one, "g")
    await two.close_channel(channel)
    await two.close_channel("specific.nobody")
    await one.group_send("g", {"n": 1})
    assert await received(one, channel) == numbered(1)
    await one.close_channel(channel)
    await one.close_channel(channel)


# Messages


@rule(11)
@pytest.mark.parametrize("message", ["text", None, [], [("n", 1)], 7, b"x"])
async def test_message_that_is_no_dict_is_a_type_error(server: Server, message: Any) -> None:
    broadcaster = server.make()
    channel = await joined(broadcaster, "g")
    for use in (broadcaster.send(channel, message), broadcaster.group_send("g", message)):
        with pytest.raises(TypeError):
            await use
    await broadcaster.group_send("g", {"last": True})
    assert await until_last(broadcaster, channel) == []


@rule(11)
async def test_message_needs_no_type_and_may_be_empty(server: Server) -> None:
    broadcaster = server.make()
    channel = await joined(broadcaster, "g")
    for message in ({}, {"type": 7}):
        await broadcaster.group_send("g", message)
        assert await received(broadcaster, channel) == [message]


SCALARS = [
    True,
    False,
    None,
    0,
    -(2**63),
    2**64 - 1,
    1.5,
    -0.0,
    math.inf,
    "",
    "é👩‍👩‍👧\x00",
    b"",
    b"\x00\xff",
    [],
    {},
    [[1], {"a": [b"x", None, {"": {}}]}],
]


@rule(12)
async def test_values_come_through_as_they_were(server: Server) -> None:
    one, two = server.make(), server.make()
    channel = await joined(two, "g")
    for value in SCALARS:
        await one.group_send("g", {"type": "value", "value": value})
    found = [message["value"] for message in await received(two, channel, len(SCALARS))]
    assert found == SCALARS
    assert [type(value) for value in found] == [type(value) for value in SCALARS]


@rule(12)
async def test_tuple_comes_through_as_a_list(server: Server) -> None:
    broadcaster = server.make()
    channel = await broadcaster.new_channel()
    await broadcaster.send(channel, {"value": (1, (2,))})
    assert await received(broadcaster, channel) == [{"value": [1, [2]]}]


@rule(13)
@pytest.mark.parametrize(
    "message",
    [
        {1: "a"},
        {"in": {1: "a"}},
        {"in": [{(1, 2): "a"}]},
        {"value": object()},
        {"value": 2**64},
        {"": {1, 2}},
    ],
    ids=["key", "inner key", "deep key", "object", "large", "set"],
)
async def test_message_that_cannot_be_carried_is_refused_where_it_is_sent(
    server: Server, message: Any
) -> None:
    one, two = server.make(), server.make()
    channel = await joined(two, "g")
    for use in (one.group_send("g", message), one.send(channel, message)):
        with pytest.raises((TypeError, ValueError, OverflowError)):
            await use
    await one.group_send("g", {"last": True})
    assert await until_last(two, channel) == []


@rule(14)
async def test_message_of_two_megabytes_passes(server: Server) -> None:
    one, two = server.make(), server.make()
    channel = await joined(two, "g")
    big = {"text": "é" * 500_000, "bytes": b"\xff" * 1_000_000}
    await one.group_send("g", big)
    await one.send(channel, big)
    assert await received(two, channel, 2) == [big, big]


@rule(15)
async def test_nobody_shares_a_message_with_anybody(server: Server) -> None:
    broadcaster = server.make()
    one, two = await joined(broadcaster, "g"), await joined(broadcaster, "g")
    for message in ({"n": 1}, {"list": [1], "dict": {"a": [2]}}):
        mine = dict(message)
        await broadcaster.group_send("g", mine)
        assert mine == message
        (first,) = await received(broadcaster, one)
        for value in first.values():
            if isinstance(value, dict | list):
                value.clear()
        first["n"] = "changed"
        assert await received(broadcaster, two) == [message]


@rule(15)
async def test_what_the_sender_changes_afterwards_nobody_sees(server: Server) -> None:
    broadcaster = server.make()
    channel = await joined(broadcaster, "g")
    message = {"list": [1]}
    sending = asyncio.create_task(broadcaster.group_send("g", message))
    await turns(1)
    message["list"].append(2)
    await sending
    assert await received(broadcaster, channel) == [{"list": [1]}]


# Groups


@rule(16)
async def test_what_is_sent_at_once_after_a_join_arrives(server: Server) -> None:
    one, two = server.make(), server.make()
    await two.group_send("warm", {})
    for number in range(200):
        async with one.channel() as channel:
            await one.group_add(f"g{number}", channel)
            await two.group_send(f"g{number}", {"n": number})
            assert await received(one, channel) == numbered(number)


@rule(16)
async def test_many_join_one_group_at_once_and_all_get_the_next_message(server: Server) -> None:
    one, two = server.make(), server.make()
    channels = await asyncio.gather(*(joined(one, "g") for _ in range(50)))
    await two.group_send("g", {"n": 1})
    for channel in channels:
        assert await received(one, channel) == numbered(1)


@rule(16, 19)
async def test_crowd_that_joins_and_leaves_while_the_connection_is_made_is_where_it_wants(
    server: Server,
) -> None:
    one, two = server.make(), server.make()
    order = random.Random(7)

    async def come_and_go() -> tuple[str, bool]:
        channel = await one.new_channel()
        stays = False
        for _ in range(order.randrange(1, 6)):
            stays = order.random() < 0.6
            if stays:
                await one.group_add("g", channel)
            else:
                await one.group_discard("g", channel)
            await turns(order.randrange(3))
        return channel, stays

    crowd = await asyncio.gather(*(come_and_go() for _ in range(100)))
    await two.group_send("g", {"n": 1})
    for channel, _ in crowd:
        await two.send(channel, {"last": True})
    for channel, stays in crowd:
        assert await until_last(one, channel) == (numbered(1) if stays else [])


@rule(17)
async def test_channel_of_another_process_cannot_be_added(server: Server) -> None:
    one, two = server.make(), server.make()
    channel = await one.new_channel()
    for name in (channel, "general"):
        with pytest.raises(RuntimeError, match="not a channel of this process"):
            await two.group_add("g", name)
    await until_subscribed(server, "group", "g", 0)


@rule(18, 26)
async def test_channel_that_joined_several_times_gets_a_message_once(server: Server) -> None:
    broadcaster = server.make()
    channel = await joined(broadcaster, "g", "g")
    await asyncio.gather(*(broadcaster.group_add("g", channel) for _ in range(3)))
    await broadcaster.group_send("g", {"n": 1})
    await broadcaster.group_send("g", {"last": True})
    assert await until_last(broadcaster, channel) == numbered(1)
    await broadcaster.group_discard("g", channel)
    await broadcaster.group_send("g", {"n": 2})
    await broadcaster.send(channel, {"last": True})
    assert await until_last(broadcaster, channel) == []


@rule(19, 20)
async def test_channel_that_left_gets_nothing_and_the_others_still_do(server: Server) -> None:
    broadcaster = server.make()
    gone, stays = await joined(broadcaster, "g"), await joined(broadcaster, "g")
    await broadcaster.group_discard("g", gone)
    await broadcaster.group_send("g", {"n": 1})
    await broadcaster.send(gone, {"last": True})
    assert await received(broadcaster, stays) == numbered(1)
    assert await until_last(broadcaster, gone) == []


@rule(19)
async def test_discarding_what_is_not_there_is_no_error(server: Server) -> None:
    one, two = server.make(), server.make()
    channel = await joined(one, "g")
    await one.group_discard("nothing", channel)
    await one.group_discard("g", "specific.nobody")
    await two.group_discard("g", channel)
    await two.group_send("g", {"n": 1})
    assert await received(one, channel) == numbered(1)


@rule(16, 19)
async def test_group_that_is_left_and_joined_again_works(server: Server) -> None:
    broadcaster = server.make()
    channel = await broadcaster.new_channel()
    for number in range(30):
        await broadcaster.group_add("g", channel)
        await broadcaster.group_send("g", {"n": number})
        assert await received(broadcaster, channel) == numbered(number)
        await broadcaster.group_discard("g", channel)


@rule(20)
async def test_last_channel_to_leave_frees_the_subscription(server: Server) -> None:
    broadcaster = server.make()
    async with broadcaster.channel() as one:
        await broadcaster.group_add("g", one)
        await broadcaster.group_add("h", one)
        async with broadcaster.channel() as two:
            await broadcaster.group_add("g", two)
        await until_subscribed(server, "channel", two, 0)
        await until_subscribed(server, "group", "g", 1)
        await broadcaster.group_discard("h", one)
        await until_subscribed(server, "group", "h", 0)
        await until_subscribed(server, "channel", one, 1)
    await until_subscribed(server, "group", "g", 0)
    await until_subscribed(server, "channel", one, 0)


@rule(20)
@pytest.mark.parametrize("steps", [1, 2, 3, 5])
async def test_leaving_that_is_broken_off_harms_nobody_else(server: Server, steps: int) -> None:
    broadcaster = server.make()
    stays, goes = await joined(broadcaster, "g"), await joined(broadcaster, *(f"g{n}" for n in range(9)), "g")
    leaving = asyncio.create_task(broadcaster.close_channel(goes))
    await turns(steps)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    for number in range(9):
        await broadcaster.group_send(f"g{number}", {"n": number})
    await broadcaster.group_send("g", {"last": True})
    assert await until_last(broadcaster, stays) == []


@rule(21)
async def test_cancelled_join_is_no_membership(server: Server) -> None:
    broadcaster = server.make()
    channel = await broadcaster.new_channel()
    for steps in range(4):
        joining = asyncio.create_task(broadcaster.group_add("g", channel))
        await turns(steps)
        joining.cancel()
        (end,) = await asyncio.gather(joining, return_exceptions=True)
        await broadcaster.group_send("g", {"n": steps})
        await broadcaster.send(channel, {"last": True})
        assert await until_last(broadcaster, channel) == (numbered(steps) if end is None else [])
        await broadcaster.group_discard("g", channel)
    await until_subscribed(server, "group", "g", 0)


@rule(21)
@pytest.mark.parametrize("cancelled", [0, 1, 2])
@pytest.mark.parametrize("steps", [0, 1, 2, 3, 4])
async def test_cancelled_join_takes_nothing_from_another_of_the_same_channel(
    server: Server, steps: int, cancelled: int
) -> None:
    broadcaster = server.make()
    channel = await broadcaster.new_channel()
    joins = [asyncio.create_task(broadcaster.group_add("g", channel)) for _ in range(3)]
    await turns(steps)
    joins.pop(cancelled).cancel()
    async with within(10, "the others have joined"):
        await asyncio.gather(*joins)
    await broadcaster.group_send("g", {"n": 1})
    assert await received(broadcaster, channel) == numbered(1)


@rule(21)
async def test_join_that_is_cancelled_when_another_has_just_been_confirmed_takes_nothing_from_it(
    server: Server,
) -> None:
    broadcaster = server.make()
    channel = await broadcaster.new_channel()
    late: list[asyncio.Task[None]] = []

    async def join_and_cancel_the_other() -> None:
        await broadcaster.group_add("g", channel)
        late[0].cancel()

    first = asyncio.create_task(join_and_cancel_the_other())
    await turns(1)
    late.append(asyncio.create_task(broadcaster.group_add("g", channel)))
    async with within(10, "both have ended"):
        await asyncio.gather(first, *late, return_exceptions=True)
    await broadcaster.group_send("g", {"n": 1})
    await broadcaster.send(channel, {"last": True})
    assert await until_last(broadcaster, channel) == numbered(1)


@rule(22)
async def test_group_expiry_ends_no_membership(server: Server) -> None:
    broadcaster = server.make(group_expiry=0)
    channel = await joined(broadcaster, "g")
    await broadcaster.group_send("g", {"n": 1})
    assert await received(broadcaster, channel) == numbered(1)


# Delivery


@rule(23, 26, 27)
async def test_group_gets_every_message_once_and_in_order_the_sender_too(server: Server) -> None:
    one, two = server.make(capacity=200), server.make(capacity=200)
    channels = [(one, await joined(one, "g")), (one, await joined(one, "g")), (two, await joined(two, "g"))]
    for number in range(100):
        await one.group_send("g", {"n": number})
    await one.group_send("g", {"last": True})
    for broadcaster, channel in channels:
        assert await until_last(broadcaster, channel) == numbered(*range(100))


@rule(23)
async def test_sender_need_not_be_in_the_group(server: Server) -> None:
    reader, sender = server.make(), server.make()
    channel = await joined(reader, "g")
    await sender.group_send("g", {"n": 1})
    assert await received(reader, channel) == numbered(1)


@rule(23)
async def test_group_without_a_channel_is_sent_to_in_vain(server: Server) -> None:
    broadcaster = server.make()
    await broadcaster.group_send("nobody", {"n": 1})
    channel = await joined(broadcaster, "nobody")
    await broadcaster.group_send("nobody", {"n": 2})
    assert await received(broadcaster, channel) == numbered(2)


@rule(24)
async def test_channel_gets_only_what_its_groups_get(server: Server) -> None:
    broadcaster = server.make()
    both, one = await joined(broadcaster, "a", "b"), await joined(broadcaster, "b")
    await broadcaster.group_send("a", {"n": 1})
    assert await received(broadcaster, both) == numbered(1)
    await broadcaster.group_send("b", {"n": 2})
    assert await received(broadcaster, both) == numbered(2)
    assert await received(broadcaster, one) == numbered(2)


@rule(25)
async def test_message_to_a_channel_reaches_it_alone_from_anywhere(server: Server) -> None:
    one, two = server.make(), server.make()
    channel, other = await joined(one, "g"), await joined(one, "g")
    await two.send(channel, {"n": 1})
    assert await received(one, channel) == numbered(1)
    await two.group_send("g", {"last": True})
    assert await until_last(one, channel) == []
    assert await until_last(one, other) == []


@rule(25)
async def test_message_to_a_channel_that_nobody_reads_is_lost(server: Server) -> None:
    broadcaster = server.make()
    await broadcaster.send("general", {"n": 1})
    reading = asyncio.create_task(broadcaster.receive("general"))
    await until_subscribed(server, "channel", "general", 1)
    await broadcaster.send("general", {"n": 2})
    async with within(10, "the second arrives"):
        assert await reading == {"n": 2}


@rule(26, 27)
async def test_each_senders_order_is_kept_among_many(server: Server) -> None:
    readers = [server.make(capacity=1000) for _ in range(2)]
    channels = [await joined(reader, "g") for reader in readers]

    async def send_all(name: str, sender: Broadcaster) -> None:
        for number in range(50):
            await sender.group_send("g", {"from": name, "n": number})

    senders = [server.make() for _ in range(4)]
    await asyncio.gather(
        *(
            send_all(f"{name}{which}", sender)
            for name, sender in zip("abcd", senders, strict=True)
            for which in (1, 2)  # two tasks of one process are two senders
        )
    )
    for reader, channel in zip(readers, channels, strict=True):
        found = await received(reader, channel, 400)
        for name in ("a1", "a2", "b1", "b2", "c1", "c2", "d1", "d2"):
            assert [message["n"] for message in found if message["from"] == name] == list(range(50))


@rule(28)
async def test_several_receives_of_one_channel_share_its_messages(server: Server) -> None:
    broadcaster = server.make()
    channel = await broadcaster.new_channel()
    readers = [asyncio.create_task(broadcaster.receive(channel)) for _ in range(3)]
    for number in range(3):
        await broadcaster.send(channel, {"n": number})
    async with within(10, "each reader gets one"):
        found = await asyncio.gather(*readers)
    assert sorted(message["n"] for message in found) == [0, 1, 2]


@rule(28, 31)
async def test_lapse_goes_to_one_of_several_receives_and_the_others_go_on(server: Server) -> None:
    broadcaster = server.make()
    channel = await joined(broadcaster, "g")
    readers = [asyncio.create_task(broadcaster.receive(channel)) for _ in range(3)]
    await server.publish_raw("group", "g", b"")
    async with within(10, "one is told"):
        await asyncio.wait(readers, return_when=asyncio.FIRST_COMPLETED)
    for number in range(2):
        await broadcaster.group_send("g", {"n": number})
    async with within(10, "the others get one each"):
        found = await asyncio.gather(*readers, return_exceptions=True)
    assert sorted(message["n"] for message in found if isinstance(message, dict)) == [0, 1]


# Inboxes


async def holds_when_full(broadcaster: Broadcaster, channel: str, capacity: int) -> None:
    """Send until the channel is full: it holds the first so many, and a lapse where there were more."""
    sent, lapses = 0, broadcaster.lapses

    async def send_until_full() -> None:
        nonlocal sent
        while True:  # those on their way do not count yet
            await broadcaster.send(channel, {"n": sent})
            sent += 1
            await turns(1)  # fakeredis takes none

    async def has_lapsed() -> bool:
        return broadcaster.lapses > lapses

    async with within(30, "the channel is full"):
        with pytest.raises(ChannelFull):
            await send_until_full()
    assert sent >= capacity
    if sent > capacity:
        await eventually(has_lapsed, seconds=30, what="the next one finds it full")
    assert await received(broadcaster, channel, capacity) == numbered(*range(capacity))
    if sent > capacity:
        with pytest.raises(ChannelLapsed):
            await received(broadcaster, channel)


@rule(30)
async def test_capacity_is_by_name_first_match_wins(server: Server) -> None:
    broadcaster = server.make(
        capacity=1, channel_capacity={"big.*": 3, re.compile(r"big\.or\.none"): 0, re.compile("mid"): 2}
    )
    for prefix, capacity in (("big.", 3), ("big.or.none.", 3), ("middle.", 2), ("other.", 1)):
        channel = await broadcaster.new_channel(prefix)
        await holds_when_full(broadcaster, channel, capacity)


@rule(30)
async def test_capacity_is_a_hundred_unless_it_is_given(server: Server) -> None:
    broadcaster = server.make()
    await holds_when_full(broadcaster, await broadcaster.new_channel(), 100)


async def until_lapse(broadcaster: Broadcaster, channel: str, expected: list[Any]) -> None:
    """Receive what is expected, then a lapse."""
    assert await received(broadcaster, channel, len(expected)) == expected
    with pytest.raises(ChannelLapsed):
        await received(broadcaster, channel)


@rule(31, 36)
async def test_full_inbox_lapses_once_after_what_it_holds(server: Server) -> None:
    broadcaster = server.make(capacity=3)
    slow, quick = await joined(broadcaster, "g"), await joined(broadcaster, "g")
    assert broadcaster.lapses == 0
    for number in range(6):
        await broadcaster.group_send("g", {"n": number})
        assert await received(broadcaster, quick) == numbered(number)
    assert broadcaster.lapses >= 1
    await until_lapse(broadcaster, slow, numbered(0, 1, 2))
    await broadcaster.group_send("g", {"n": 7})
    await broadcaster.group_send("g", {"last": True})
    assert await until_last(broadcaster, slow) == numbered(7)


@rule(31)
async def test_lapse_is_told_before_what_came_after_the_gap(server: Server) -> None:
    broadcaster = server.make(capacity=2)
    slow, witness = await joined(broadcaster, "g"), await joined(broadcaster, "g")
    for number in (0, 1, 2):
        await broadcaster.group_send("g", {"n": number})
        await received(broadcaster, witness)
    assert await received(broadcaster, slow) == numbered(0)
    await broadcaster.group_send("g", {"n": 3})  # there is room again, behind the gap
    await received(broadcaster, witness)
    await until_lapse(broadcaster, slow, numbered(1))
    await broadcaster.group_send("g", {"n": 4})
    assert await received(broadcaster, slow) == numbered(4)


@rule(31, 32)
async def test_channel_that_nobody_reads_holds_its_capacity_of_ten_thousand_messages(server: Server) -> None:
    one, two = server.make(capacity=50, channel_capacity={"wide.*": 10_000}), server.make()
    sleeping, witness = await joined(one, "g"), await one.new_channel("wide.")
    await one.group_add("g", witness)

    async def send_many(many: range) -> None:
        for number in many:
            await two.group_send("g", {"n": number})

    await send_many(range(50))
    await asyncio.gather(*(send_many(range(50 + part, 10_000, 20)) for part in range(20)))
    await received(one, witness, 10_000)
    await until_lapse(one, sleeping, numbered(*range(50)))
    await two.group_send("g", {"n": 10_000})
    await two.group_send("g", {"last": True})
    assert await until_last(one, sleeping) == numbered(10_000)


@rule(33)
async def test_slow_channel_beside_a_hundred_quick_ones_lapses_alone_and_once(server: Server) -> None:
    one, two = server.make(capacity=5), server.make()
    slow = await joined(one, "g")
    quick = [await joined(one, "g") for _ in range(100)]
    for number in range(20):
        await two.group_send("g", {"n": number})
        async with within(10, "all quick ones receive"):
            found = await asyncio.gather(*(one.receive(channel) for channel in quick))
        assert found == numbered(number) * 100
    await until_lapse(one, slow, numbered(*range(5)))
    await two.group_send("g", {"last": True})
    for channel in (slow, *quick):
        assert await until_last(one, channel) == []


@rule(34)
async def test_send_to_a_full_channel_raises_in_its_process_and_group_send_never(server: Server) -> None:
    broadcaster, other = server.make(capacity=1), server.make()
    channel, of_group = await joined(broadcaster, "g"), await joined(broadcaster, "g")

    async def is_full() -> bool:
        return broadcaster.waits(channel)

    async def has_lapsed() -> bool:
        return broadcaster.lapses == 1

    await broadcaster.send(channel, {"n": 1})
    await eventually(is_full, seconds=30, what="the message is there")
    with pytest.raises(ChannelFull):
        await broadcaster.send(channel, {"n": 2})
    await other.send(channel, {"n": 3})
    await eventually(has_lapsed, seconds=30, what="the message finds the inbox full")
    await broadcaster.group_send("g", {"n": 4})
    await received(broadcaster, of_group)
    await until_lapse(broadcaster, channel, numbered(1))
    await broadcaster.send(channel, {"n": 5})
    assert await received(broadcaster, channel) == numbered(5)


@rule(35)
async def test_expired_message_is_never_received_and_keeps_its_place_until_then(server: Server) -> None:
    broadcaster = server.make(expiry=0, capacity=1)
    channel = await joined(broadcaster, "g")
    await broadcaster.group_send("g", {"n": 1})
    await broadcaster.group_send("g", {"n": 2})

    async def has_lapsed() -> bool:
        return broadcaster.lapses == 1

    await eventually(has_lapsed, seconds=30, what="the second message found the inbox full")
    with pytest.raises(ChannelLapsed):  # the first is not received
        await received(broadcaster, channel)


@rule(35)
async def test_expiry_is_no_lapse(server: Server) -> None:
    broadcaster, other = server.make(expiry=0), server.make()
    channel, witness = await joined(broadcaster, "g"), await joined(other, "g")
    await other.group_send("g", {"n": 1})
    assert await received(other, witness) == numbered(1)
    reading = asyncio.create_task(broadcaster.receive(channel))
    await server.publish_raw("group", "g", b"")
    async with within(10, "the lapse of what cannot be read"):
        with pytest.raises(ChannelLapsed):
            await reading
    assert broadcaster.lapses == 1


# Cancelling


@rule(9, 44)
async def test_cancelled_receive_keeps_the_message_and_the_channel(server: Server) -> None:
    broadcaster = server.make()
    channel, witness = await joined(broadcaster, "g"), await joined(broadcaster, "g")
    for steps in range(4):
        reading = asyncio.create_task(broadcaster.receive(channel))
        await turns(steps)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
    reading = asyncio.create_task(broadcaster.receive(channel))
    await broadcaster.group_send("g", {"n": 1})
    await received(broadcaster, witness)
    reading.cancel()
    found = (await asyncio.gather(reading, return_exceptions=True))[0]
    await broadcaster.group_send("g", {"n": 2})
    kept = [] if isinstance(found, asyncio.CancelledError) else [found]
    assert kept + await received(broadcaster, channel, 2 - len(kept)) == numbered(1, 2)


@rule(26, 44)
async def test_receives_that_time_out_or_are_cancelled_all_the_time_lose_nothing(server: Server) -> None:
    one, two = server.make(capacity=10_000), server.make()
    channel = await joined(one, "g")
    chance = random.Random(7)
    tries = 0
    sent = 0
    found: list[Any] = []

    async def send_all() -> None:
        nonlocal sent
        while tries < 1000:
            await turns(1)  # a fake server answers without one
            await two.group_send("g", {"n": sent})
            sent += 1
            await turns(1)  # fakeredis answers at once
        await two.group_send("g", {"last": True})

    async def impatient() -> Any:
        if chance.random() < 0.5:
            return await asyncio.wait_for(one.receive(channel), chance.choice([0, 0.0001, 0.001]))
        reading = asyncio.create_task(one.receive(channel))
        await turns(chance.randrange(6))
        reading.cancel()
        return await reading

    async with within(30, lambda: f"the last arrives; after {tries} tries {len(found)} of {sent} came"):
        sending = asyncio.create_task(send_all())
        while not (found and found[-1].get("last")):
            tries += 1
            try:
                found.append(await impatient())
            except (TimeoutError, asyncio.CancelledError):
                continue
        await sending
    assert found[:-1] == numbered(*range(sent))


@rule(45)
@pytest.mark.parametrize("cancelled", [0, 1])
@pytest.mark.parametrize("steps", [0, 1, 2, 3, 4, 5])
async def test_receive_that_is_cancelled_while_the_channel_is_made_takes_nothing_from_another(
    server: Server, steps: int, cancelled: int
) -> None:
    broadcaster = server.make()
    readers = [asyncio.create_task(broadcaster.receive("general")) for _ in range(2)]
    await turns(steps)
    readers.pop(cancelled).cancel()
    await until_subscribed(server, "channel", "general", 1)
    await broadcaster.send("general", {"n": 1})
    async with within(10, "the other receives"):
        assert await readers[0] == {"n": 1}


@rule(45)
async def test_one_of_several_waiting_receives_is_cancelled_and_the_others_get_all(server: Server) -> None:
    broadcaster = server.make()
    channel = await broadcaster.new_channel()
    for number in range(50):
        readers = [asyncio.create_task(broadcaster.receive(channel)) for _ in range(3)]
        await turns(1)
        sending = asyncio.create_task(broadcaster.send(channel, {"n": number}))
        await turns(number % 7)
        readers[number % 3].cancel()
        async with within(10, "one of them gets it"):
            while not (got := [each for each in readers if each.done() and not each.cancelled()]):
                waiting = [each for each in readers if not each.done()]
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        assert [each.result() for each in got] == numbered(number)
        for each in readers:
            each.cancel()
        await asyncio.gather(sending, *readers, return_exceptions=True)


# The end


@rule(46)
async def test_flush_forgets_everything_and_the_broadcaster_works_again(server: Server) -> None:
    broadcaster, other = server.make(), server.make()
    old, theirs = await joined(broadcaster, "g"), await joined(other, "g")
    await broadcaster.group_send("g", {"n": 1})
    await broadcaster.flush()
    with pytest.raises(RuntimeError, match="not a channel of this process"):
        await broadcaster.group_add("g", old)
    channel = await joined(broadcaster, "g")
    await broadcaster.group_send("g", {"n": 2})
    assert await received(broadcaster, channel) == numbered(2)
    assert await received(other, theirs, 2) == numbered(1, 2)


@rule(46)
async def test_flush_of_one_that_was_never_used_is_no_error(server: Server) -> None:
    broadcaster = server.make()
    await broadcaster.flush()
    await broadcaster.flush()


@rule(46)
async def test_flush_amid_joins_ends_them_all(server: Server) -> None:
    broadcaster = server.make()
    joins = [asyncio.create_task(joined(broadcaster, "g")) for _ in range(10)]
    await turns(3)
    await broadcaster.flush()
    async with within(10, "all joins end"):
        await asyncio.gather(*joins, return_exceptions=True)
    await broadcaster.flush()
    channel = await joined(broadcaster, "g")
    await broadcaster.group_send("g", {"n": 1})
    assert await received(broadcaster, channel) == numbered(1)


@rule(47)
@pytest.mark.parametrize("end", ["close_channel", "flush", "close"])
async def test_every_waiting_receive_is_told_of_the_end(server: Server, end: str) -> None:
    broadcaster = server.make()
    channel = await joined(broadcaster, "g")
    readers = [asyncio.create_task(broadcaster.receive(channel)) for _ in range(3)]
    await turns(1)
    await getattr(broadcaster, end)(*([channel] if end == "close_channel" else []))
    async with within(10, "all are told"):
        ends = await asyncio.gather(*readers, return_exceptions=True)
    assert [type(each) for each in ends] == [ChannelLapsed] * 3


@rule(48)
async def test_closed_broadcaster_is_of_no_more_use(server: Server) -> None:
    broadcaster = server.make()
    async with broadcaster.channel() as channel:
        await broadcaster.close()
        for use in (
            broadcaster.new_channel(),
            broadcaster.receive(channel),
            broadcaster.send(channel, {}),
            broadcaster.group_add("g", channel),
            broadcaster.group_discard("g", channel),
            broadcaster.group_send("g", {}),
        ):
            with pytest.raises(RuntimeError, match="closed"):
                await use
    for end in (broadcaster.close_channel(channel), broadcaster.flush(), broadcaster.close()):
        await end


@rule(48)
async def test_closed_broadcaster_leaves_no_task(server: Server) -> None:
    before = asyncio.all_tasks()
    broadcaster = server.make()
    await joined(broadcaster, "g")
    await broadcaster.group_send("g", {})
    await broadcaster.close()

    async def gone() -> bool:
        return asyncio.all_tasks() <= before

    await eventually(gone, seconds=30, what="its tasks have ended")


@rule(49)
async def test_use_from_another_loop_is_a_clear_error(server: Server) -> None:
    broadcaster = server.make()
    channel = await joined(broadcaster, "g")

    def elsewhere() -> None:
        for use in (
            broadcaster.new_channel(),
            broadcaster.receive(channel),
            broadcaster.send(channel, {}),
            broadcaster.group_add("g", channel),
            broadcaster.group_discard("g", channel),
            broadcaster.group_send("g", {}),
            broadcaster.close_channel(channel),
            broadcaster.flush(),
            broadcaster.close(),
        ):
            with pytest.raises(RuntimeError, match="another event loop"):
                asyncio.run(use)

    await asyncio.to_thread(elsewhere)
    await broadcaster.group_send("g", {"n": 1})
    assert await received(broadcaster, channel) == numbered(1)


# Taken at once


@rule(56)
async def test_message_is_taken_as_it_comes(server: Server) -> None:
    broadcaster, taken, woken = server.make(), [], []
    channels = [await joined(broadcaster, "g") for _ in range(2)]
    broadcaster.take(
        channels[0], lambda message, readers: not taken.append((message, readers)), lambda: woken.append(1)
    )
    for number in range(3):
        await broadcaster.group_send("g", {"n": number})
    assert await received(broadcaster, channels[1], 3) == numbered(0, 1, 2)
    assert taken == [(message, 2) for message in numbered(0, 1, 2)]
    assert not woken
    assert not broadcaster.waits(channels[0])


@rule(56)
@pytest.mark.parametrize("raises", [False, True])
async def test_what_is_not_taken_is_received_with_all_behind_it(server: Server, raises: bool) -> None:
    broadcaster, taken, woken = server.make(), [], []
    channel, other = await joined(broadcaster, "g"), await joined(broadcaster, "g")

    def odd(message: dict[str, Any], _: int) -> bool:
        if message["n"] % 2:
            taken.append(message["n"])
            return True
        if raises:
            raise ValueError(message)
        return False

    broadcaster.take(channel, odd, lambda: woken.append(1))
    for number in (1, 3, 4, 5):
        await broadcaster.group_send("g", {"n": number})
    await received(broadcaster, other, 4)
    assert (taken, len(woken), broadcaster.waits(channel)) == ([1, 3], 2, True)
    assert await received(broadcaster, channel, 2) == numbered(4, 5)
    assert not broadcaster.waits(channel)
    await broadcaster.group_send("g", {"n": 7})
    await received(broadcaster, other)
    assert taken == [1, 3, 7]


@rule(56)
async def test_lapse_is_received_before_anything_newer_is_taken(server: Server) -> None:
    broadcaster, taken, woken = server.make(capacity=1), [], []
    channel = await joined(broadcaster, "g")

    def take(message: dict[str, Any], _: int) -> bool:
        taken.append(message["n"])
        return message["n"] > 2

    broadcaster.take(channel, take, lambda: woken.append(1))
    for number in range(4):
        await broadcaster.group_send("g", {"n": number})

    async def all_came() -> bool:
        return len(woken) == 4

    await eventually(all_came, seconds=20, what="all have come")
    assert taken == [0]
    assert await received(broadcaster, channel) == numbered(0)
    await lapsed(broadcaster, channel)
    assert not broadcaster.waits(channel)


@rule(56)
async def test_nothing_is_taken_of_another_processs_channel(server: Server) -> None:
    channel = await server.make().new_channel()
    with pytest.raises(RuntimeError):
        server.make().take(channel, lambda *_: True, lambda: None)


@rule(57)
async def test_channel_of_groups_alone_gets_what_they_get_and_nothing_by_its_name(server: Server) -> None:
    broadcaster = server.make()
    channel = await broadcaster.new_channel(of_groups=True)
    await broadcaster.group_add("g", channel)
    await broadcaster.send(channel, {"n": 1})
    await broadcaster.group_send("g", {"n": 2})
    assert await received(broadcaster, channel) == numbered(2)
    await broadcaster.close_channel(channel)


# Construction


@rule(52)
async def test_client_that_was_given_stays_open_and_usable(server: Server) -> None:
    client = server.client()
    await client.set(f"{server.prefix}:key", "value")
    broadcaster = server.make(client=client)
    channel = await joined(broadcaster, "g")
    await server.make().group_send("g", {"n": 1})
    assert await received(broadcaster, channel) == numbered(1)
    await broadcaster.flush()
    await broadcaster.close()
    assert await client.get(f"{server.prefix}:key") in (b"value", "value")


@rule(12, 31)
async def test_message_as_deep_as_can_be_sent_arrives_and_a_deeper_one_is_refused(server: Server) -> None:
    one, two = server.make(), server.make()
    channels = [await joined(two, "g") for _ in range(2)]

    def deep(levels: int) -> dict[str, Any]:
        value: Any = 1
        for _ in range(levels):
            value = [value]
        return {"value": value}

    await one.group_send("g", deep(500))
    for channel in channels:
        (message,) = await received(two, channel)
        assert list(message) == ["value"]
    with pytest.raises(ValueError, match="recursion"):
        await one.group_send("g", deep(5000))
    await one.group_send("g", {"n": 1})
    assert await received(two, channels[0]) == numbered(1)
