"""The heart of the channel layer, over a real store: fakeredis has no sockets, so it can neither lose nor kill one."""

from __future__ import annotations

import asyncio
import math
import re
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, suppress
from typing import Any

import msgpack
import pytest
from redis.asyncio import Redis

from llmchat.broadcaster import Broadcaster, ChannelFull, ChannelLapsed, Message
from llmchat.errors import Unavailable
from llmchat.keys import redis_channel
from tests.instances import Proxy, Store
from tests.waiting import eventually, within

Make = Callable[..., Broadcaster]

UP_TO_99 = "a" * 99
BAD_GROUPS = ["", "a b", "a!b", "ünder", "a\n", "a:b", "a" * 100, "١", 7, None, b"bytes"]
BAD_CHANNELS = ["", "a b", "a!b!c", "!b", "ünder", "a\n", "a" * 100, 7, None, b"bytes"]


@pytest.fixture
def prefix() -> str:
    return f"broadcaster-{secrets.token_hex(4)}"


@pytest.fixture
async def make(store: Store, prefix: str) -> AsyncIterator[Make]:
    """Make broadcasters of one service, as one process each would have; they are closed at the end."""
    async with AsyncExitStack() as leaving:

        async def close(broadcaster: Broadcaster) -> None:
            closing = asyncio.create_task(broadcaster.close())
            await asyncio.wait({closing}, timeout=10)  # a deadline by cancelling may be lost in what hangs
            assert closing.done(), "a broadcaster does not close"
            await closing

        def new(url: str = store.url, **options: Any) -> Broadcaster:
            broadcaster = Broadcaster([url], **({"prefix": prefix} | options))
            leaving.push_async_callback(close, broadcaster)
            return broadcaster

        yield new


@pytest.fixture
async def client(store: Store) -> AsyncIterator[Redis]:
    async with store.client() as redis:
        yield redis


async def received(broadcaster: Broadcaster, channel: str, count: int = 1) -> list[Message]:
    async with within(10, f"{count} messages arrive"):
        return [await broadcaster.receive(channel) for _ in range(count)]


async def until_last(broadcaster: Broadcaster, channel: str) -> list[Any]:
    """Receive up to the message {"last": True}; a lapse is among them as "lapsed"."""
    found: list[Any] = []
    async with within(10, lambda: f"the last message arrives; before it came {found}"):
        while True:
            try:
                message = await broadcaster.receive(channel)
            except ChannelLapsed:
                found.append("lapsed")
                continue
            if message.get("last"):
                return found
            found.append(message)


async def joined(broadcaster: Broadcaster, *groups: str) -> str:
    channel = await broadcaster.new_channel()
    for group in groups:
        await broadcaster.group_add(group, channel)
    return channel


def numbered(*numbers: int) -> list[Message]:
    return [{"n": number} for number in numbers]


# Names


@pytest.mark.parametrize("name", BAD_GROUPS)
async def test_bad_group_name_is_a_type_error_everywhere(make: Make, name: Any) -> None:
    broadcaster = make()
    channel = "specific.x"
    for use in (
        broadcaster.group_add(name, channel),
        broadcaster.group_discard(name, channel),
        broadcaster.group_send(name, {}),
    ):
        with pytest.raises(TypeError, match="name"):
            await use


@pytest.mark.parametrize("name", BAD_CHANNELS)
async def test_bad_channel_name_is_a_type_error_everywhere(make: Make, name: Any) -> None:
    broadcaster = make()
    for use in (
        broadcaster.send(name, {}),
        broadcaster.receive(name),
        broadcaster.group_add("g", name),
        broadcaster.group_discard("g", name),
    ):
        with pytest.raises(TypeError, match="name"):
            await use


async def test_bad_prefix_of_a_channel_is_a_type_error(make: Make) -> None:
    with pytest.raises(TypeError):
        await make().new_channel("no spaces")
    with pytest.raises(TypeError):
        await make().new_channel("a" * 90)


@pytest.mark.parametrize("name", ["a", "A-b_c.9", UP_TO_99])
async def test_good_names_are_taken(make: Make, name: str) -> None:
    broadcaster = make()
    channel = await joined(broadcaster, name)
    await broadcaster.group_send(name, {"n": 1})
    await broadcaster.send(name if len(name) == 99 else f"{name}!local", {})
    assert await received(broadcaster, channel) == numbered(1)


async def test_new_channels_have_their_prefix_and_are_never_the_same(make: Make) -> None:
    one, two = make(), make()
    names = [await each.new_channel("mine.") for each in (one, one, two)]
    assert len(set(names)) == 3
    assert all(name.startswith("mine.") for name in names)
    assert (await one.new_channel()).startswith("specific.")


# Sending


async def test_group_gets_every_message_once_and_in_order_the_sender_too(make: Make) -> None:
    one, two = make(capacity=200), make(capacity=200)
    channels = [(one, await joined(one, "g")), (one, await joined(one, "g")), (two, await joined(two, "g"))]
    await two.group_add("g", channels[2][1])  # twice is once
    for number in range(100):
        await one.group_send("g", {"n": number})
    await one.group_send("g", {"last": True})
    for broadcaster, channel in channels:
        assert await until_last(broadcaster, channel) == numbered(*range(100))


async def test_each_senders_order_is_kept_among_many(make: Make) -> None:
    reader = make(capacity=1000)
    channel = await joined(reader, "g")

    async def send_all(name: str, sender: Broadcaster) -> None:
        for number in range(50):
            await sender.group_send("g", {"from": name, "n": number})

    await asyncio.gather(*(send_all(name, make()) for name in "abc"))
    found = await received(reader, channel, 150)
    for name in "abc":
        assert [message["n"] for message in found if message["from"] == name] == list(range(50))


async def test_group_without_a_channel_is_sent_to_in_vain(make: Make) -> None:
    broadcaster = make()
    await broadcaster.group_send("nobody", {"n": 1})
    channel = await joined(broadcaster, "nobody")
    await broadcaster.group_send("nobody", {"n": 2})
    assert await received(broadcaster, channel) == numbered(2)


async def test_sender_need_not_be_in_the_group(make: Make) -> None:
    reader, sender = make(), make()
    channel = await joined(reader, "g")
    await sender.group_send("g", {"n": 1})
    assert await received(reader, channel) == numbered(1)


async def test_message_to_a_channel_reaches_it_alone_from_anywhere(make: Make) -> None:
    one, two = make(), make()
    channel, other = await joined(one, "g"), await joined(one, "g")
    await two.send(channel, {"n": 1})
    await two.group_send("g", {"last": True})
    assert await until_last(one, channel) == numbered(1)
    assert await until_last(one, other) == []


async def test_channel_gets_only_what_its_groups_get(make: Make) -> None:
    broadcaster = make()
    both, one = await joined(broadcaster, "a", "b"), await joined(broadcaster, "b")
    await broadcaster.group_send("a", {"n": 1})
    await broadcaster.group_send("b", {"n": 2})
    assert await received(broadcaster, both, 2) == numbered(1, 2)
    assert await received(broadcaster, one) == numbered(2)


async def test_several_readers_of_one_channel_share_its_messages(make: Make) -> None:
    broadcaster = make()
    channel = await broadcaster.new_channel()
    readers = [asyncio.create_task(broadcaster.receive(channel)) for _ in range(3)]
    for number in range(3):
        await broadcaster.send(channel, {"n": number})
    async with within(10, "each reader gets one"):
        found = await asyncio.gather(*readers)
    assert sorted(message["n"] for message in found) == [0, 1, 2]


async def test_receiving_on_a_general_name_subscribes_to_it(make: Make) -> None:
    one, two = make(), make()
    readers = [asyncio.create_task(each.receive("general")) for each in (one, two)]
    async with make_client(one) as redis:
        await eventually(
            lambda: subscribers(redis, one, "channel", "general", 2), seconds=10, what="both read"
        )
    await one.send("general", {"n": 1})
    async with within(10, "each process gets a copy"):
        assert await asyncio.gather(*readers) == numbered(1, 1)


def make_client(broadcaster: Broadcaster) -> Redis:
    """A connection to the same store."""
    return Redis(**{key: value for key, value in broadcaster._commands.connection_pool.connection_kwargs.items()
                    if key in ("host", "port")})  # fmt: skip


async def subscribers(redis: Redis, broadcaster: Broadcaster, kind: str, name: str, count: int) -> bool:
    """Tell whether Redis has so many subscribers of a group or a channel."""
    ((_, found),) = await redis.pubsub_numsub(redis_channel(broadcaster._prefix, kind, name))
    return bool(found == count)


async def test_two_prefixes_on_one_store_never_meet(make: Make) -> None:
    one, two = make(), make(prefix=f"other-{secrets.token_hex(4)}")
    mine, theirs = await joined(one, "g"), await joined(two, "g")
    await one.group_send("g", {"n": 1})
    await two.group_send("g", {"n": 2})
    assert await received(one, mine) == numbered(1)
    assert await received(two, theirs) == numbered(2)


# Joining and leaving


async def test_what_is_sent_at_once_after_a_join_arrives(make: Make) -> None:
    one, two = make(), make()
    await two.group_send("warm", {})
    for number in range(200):
        async with one.channel() as channel:
            await one.group_add(f"g{number}", channel)
            await two.group_send(f"g{number}", {"n": number})
            assert await received(one, channel) == numbered(number)


async def test_what_is_sent_at_once_after_a_channel_is_made_arrives(make: Make) -> None:
    one, two = make(), make()
    for number in range(50):
        async with one.channel() as channel:
            await two.send(channel, {"n": number})
            assert await received(one, channel) == numbered(number)


async def test_many_join_one_group_at_once_and_all_get_the_next_message(make: Make) -> None:
    one, two = make(), make()
    channels = await asyncio.gather(*(joined(one, "g") for _ in range(50)))
    await two.group_send("g", {"n": 1})
    for channel in channels:
        assert await received(one, channel) == numbered(1)


async def test_channel_of_another_process_cannot_be_added(make: Make) -> None:
    one, two = make(), make()
    channel = await one.new_channel()
    with pytest.raises(RuntimeError, match="not a channel of this process"):
        await two.group_add("g", channel)


async def test_discarding_what_is_not_there_is_no_error(make: Make) -> None:
    one, two = make(), make()
    channel = await joined(one, "g")
    await one.group_discard("nothing", channel)
    await one.group_discard("g", "specific.nobody")
    await two.group_discard("g", channel)
    await one.close_channel("specific.nobody")
    await two.group_send("g", {"n": 1})
    assert await received(one, channel) == numbered(1)


async def test_channel_that_left_gets_nothing_and_the_others_still_do(make: Make) -> None:
    broadcaster = make()
    gone, stays = await joined(broadcaster, "g"), await joined(broadcaster, "g")
    await broadcaster.group_discard("g", gone)
    await broadcaster.group_discard("g", gone)
    await broadcaster.group_send("g", {"n": 1})
    await broadcaster.send(gone, {"last": True})
    assert await received(broadcaster, stays) == numbered(1)
    assert await until_last(broadcaster, gone) == []


async def test_group_that_is_left_and_joined_again_works(make: Make) -> None:
    broadcaster = make()
    channel = await broadcaster.new_channel()
    for number in range(30):
        await broadcaster.group_add("g", channel)
        await broadcaster.group_send("g", {"n": number})
        assert await received(broadcaster, channel) == numbered(number)
        await broadcaster.group_discard("g", channel)


async def test_last_channel_to_leave_frees_the_subscription(make: Make, client: Redis) -> None:
    broadcaster = make()

    async def has(kind: str, name: str, count: int) -> None:
        await eventually(
            lambda: subscribers(client, broadcaster, kind, name, count),
            seconds=10,
            what=f"{name} has {count}",
        )

    async with broadcaster.channel() as one:
        await broadcaster.group_add("g", one)
        await broadcaster.group_add("h", one)
        async with broadcaster.channel() as two:
            await broadcaster.group_add("g", two)
        await has("channel", two, 0)
        await has("group", "g", 1)
        await broadcaster.group_discard("h", one)
        await has("group", "h", 0)
        await has("channel", one, 1)
    await has("group", "g", 0)
    await has("channel", one, 0)


async def test_channels_that_are_gone_leave_nothing_behind(make: Make) -> None:
    broadcaster = make()
    for _ in range(20):
        async with broadcaster.channel() as channel:
            await broadcaster.group_add("g", channel)
    subscriber = broadcaster._subscriber
    assert not broadcaster._inboxes
    assert not broadcaster._readers
    assert not subscriber._wanted
    assert not subscriber._confirmed
    assert not subscriber._unconfirmed


@pytest.mark.parametrize("turns", [1, 2, 3, 5])
async def test_leaving_that_is_broken_off_harms_nobody_else(make: Make, turns: int) -> None:
    broadcaster = make()
    stays, goes = await joined(broadcaster, "g"), await joined(broadcaster, *(f"g{n}" for n in range(9)), "g")
    leaving = asyncio.create_task(broadcaster.close_channel(goes))
    for _ in range(turns):
        await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    for number in range(9):
        await broadcaster.group_send(f"g{number}", {"n": number})
    await broadcaster.group_send("g", {"last": True})
    assert await until_last(broadcaster, stays) == []


# Inboxes


async def test_full_inbox_lapses_once_after_what_it_holds_and_harms_nobody_else(make: Make) -> None:
    broadcaster = make(capacity=3)
    slow, quick = await joined(broadcaster, "g"), await joined(broadcaster, "g")
    for number in range(6):
        await broadcaster.group_send("g", {"n": number})
        assert await received(broadcaster, quick) == numbered(number)
    assert broadcaster.lapses >= 1
    await broadcaster.group_send("g", {"n": 6})
    assert await received(broadcaster, quick) == numbered(6)
    assert await received(broadcaster, slow, 3) == numbered(0, 1, 2)
    with pytest.raises(ChannelLapsed):
        await received(broadcaster, slow)
    await broadcaster.group_send("g", {"n": 7})
    await broadcaster.group_send("g", {"last": True})
    assert await until_last(broadcaster, slow) == numbered(7)


async def test_lapse_is_told_before_what_came_after_the_gap(make: Make) -> None:
    broadcaster = make(capacity=2)
    slow, witness = await joined(broadcaster, "g"), await joined(broadcaster, "g")
    for number in (0, 1, 2):
        await broadcaster.group_send("g", {"n": number})
        await received(broadcaster, witness)
    assert await received(broadcaster, slow) == numbered(0)
    await broadcaster.group_send("g", {"n": 3})  # there is room again, behind the gap
    await received(broadcaster, witness)
    assert await received(broadcaster, slow) == numbered(1)
    with pytest.raises(ChannelLapsed):
        await received(broadcaster, slow)


async def test_send_to_a_full_channel_of_this_process_raises(make: Make) -> None:
    broadcaster, other = make(capacity=1), make()
    channel, witness = await broadcaster.new_channel(), await joined(broadcaster, "g")
    await broadcaster.send(channel, {"n": 1})
    await broadcaster.group_send("g", {})
    await received(broadcaster, witness)
    with pytest.raises(ChannelFull):
        await broadcaster.send(channel, {"n": 2})
    with pytest.raises(broadcaster.ChannelFull):
        await broadcaster.send(channel, {"n": 2})
    await other.send(channel, {"n": 3})  # knows nothing of it
    assert (await received(broadcaster, channel)) == numbered(1)


async def test_capacity_is_by_name_first_match_wins(make: Make) -> None:
    broadcaster = make(
        capacity=1, channel_capacity={"big.*": 3, re.compile(r"big\.or\.none"): 0, re.compile("mid"): 2}
    )
    for prefix, capacity in (("big.", 3), ("middle.", 2), ("other.", 1)):
        channel, witness = await broadcaster.new_channel(prefix), await joined(broadcaster, "g")
        for number in range(capacity):
            await broadcaster.send(channel, {"n": number})
        await broadcaster.group_send("g", {})
        await received(broadcaster, witness)
        with pytest.raises(ChannelFull):
            await broadcaster.send(channel, {})
        assert await received(broadcaster, channel, capacity) == numbered(*range(capacity))


async def test_expired_message_is_never_received(make: Make) -> None:
    broadcaster = make(expiry=0, capacity=1)
    channel = await joined(broadcaster, "g")
    await broadcaster.group_send("g", {"n": 1})
    await broadcaster.group_send("g", {"n": 2})

    async def has_lapsed() -> bool:
        return broadcaster.lapses == 1

    await eventually(has_lapsed, seconds=10, what="the second message found the inbox full")
    with pytest.raises(ChannelLapsed):  # the first is not received, the second found the inbox full
        await received(broadcaster, channel)


async def test_cancelled_receive_keeps_the_message_and_the_channel(make: Make) -> None:
    broadcaster = make()
    channel, witness = await joined(broadcaster, "g"), await joined(broadcaster, "g")
    for turns in range(4):
        reading = asyncio.create_task(broadcaster.receive(channel))
        for _ in range(turns):
            await asyncio.sleep(0)
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


# Messages


SCALARS = [
    True,
    False,
    None,
    0,
    -(2**63),
    2**64 - 1,
    1.5,
    math.inf,
    "",
    "é👩‍👩‍👧\x00",
    b"",
    b"\x00\xff",
    [],
    {},
    [[1], {"a": [b"x"]}],
]


async def test_values_come_through_as_they_were(make: Make) -> None:
    one, two = make(), make()
    channel = await joined(two, "g")
    for value in SCALARS:
        await one.group_send("g", {"type": "value", "value": value})
    found = [message["value"] for message in await received(two, channel, len(SCALARS))]
    assert found == SCALARS
    assert [type(value) for value in found] == [type(value) for value in SCALARS]


async def test_tuple_comes_through_as_a_list(make: Make) -> None:
    broadcaster = make()
    channel = await broadcaster.new_channel()
    await broadcaster.send(channel, {"value": (1, 2)})
    assert await received(broadcaster, channel) == [{"value": [1, 2]}]


async def test_message_of_a_megabyte_passes(make: Make) -> None:
    one, two = make(), make()
    channel = await joined(two, "g")
    big = {"text": "é" * 500_000, "bytes": b"\xff" * 1_000_000}
    await one.group_send("g", big)
    assert await received(two, channel) == [big]


@pytest.mark.parametrize("message", ["text", None, [], 7, b"x"])
async def test_message_that_is_no_dict_is_a_type_error(make: Make, message: Any) -> None:
    broadcaster = make()
    channel = await broadcaster.new_channel()
    for use in (broadcaster.send(channel, message), broadcaster.group_send("g", message)):
        with pytest.raises(TypeError):
            await use


@pytest.mark.parametrize(
    "message",
    [{1: "a"}, {"in": {1: "a"}}, {"in": [{(1, 2): "a"}]}, {"value": object()}, {"value": 2**64}],
    ids=["key", "inner key", "deep key", "object", "large"],
)
async def test_message_that_cannot_be_carried_is_refused_where_it_is_sent(make: Make, message: Any) -> None:
    one, two = make(), make()
    channel = await joined(two, "g")
    with pytest.raises((TypeError, ValueError, OverflowError)):
        await one.group_send("g", message)
    await one.group_send("g", {"last": True})
    assert await until_last(two, channel) == []


@pytest.mark.parametrize(
    "envelope", [b"", b"\xc1", b"\xa1", msgpack.packb({1: 2}), msgpack.packb([1]), b"\x01"]
)
async def test_what_somebody_else_publishes_to_a_group_silences_nobody(
    make: Make, client: Redis, prefix: str, envelope: bytes
) -> None:
    broadcaster = make()
    channel = await joined(broadcaster, "g")
    await client.publish(redis_channel(prefix, "group", "g"), envelope)
    await lapsed(broadcaster, channel)
    await broadcaster.group_send("g", {"n": 1})
    assert await received(broadcaster, channel) == [{"n": 1}]


async def test_nobody_shares_a_message_with_anybody(make: Make) -> None:
    broadcaster = make()
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


# A lost connection


async def lapsed(broadcaster: Broadcaster, channel: str) -> None:
    async with within(10, "the channel is told of its lapse"):
        while True:
            try:
                await broadcaster.receive(channel)
            except ChannelLapsed:
                return


async def test_lost_connection_lapses_every_channel_once_and_all_works_again(
    make: Make, fresh_store: Store
) -> None:
    one, two = make(fresh_store.url), make(fresh_store.url)
    channels = [await joined(one, "g"), await joined(one, "h"), await joined(one)]
    async with fresh_store.client() as redis:
        for _ in range(2):
            assert await redis.client_kill_filter(_type="pubsub") >= 1
            for channel in channels:
                await lapsed(one, channel)
            for group in ("g", "h"):
                await two.group_send(group, {"n": 1})
            await two.send(channels[2], {"n": 1})
            for channel in channels:
                await two.send(channel, {"last": True})
            for channel in channels:
                assert await until_last(one, channel) == numbered(1)
    assert one.lapses == 6


async def test_whatever_is_lost_with_a_connection_is_followed_by_a_lapse(
    make: Make, fresh_store: Store
) -> None:
    one, two = make(fresh_store.url, capacity=10_000), make(fresh_store.url)
    channel = await joined(one, "g")
    async with fresh_store.client() as redis:
        for number in range(300):
            await two.group_send("g", {"n": number})
            if number in (100, 200):
                await redis.client_kill_filter(_type="pubsub")
    await lapsed(one, channel)
    found: list[int] = []

    async def heard() -> bool:
        """Send one more: it may be lost with a connection, too, or come before a lapse is told."""
        await two.group_send("g", {"last": True})
        with suppress(TimeoutError):
            async with asyncio.timeout(1):
                while True:
                    with suppress(ChannelLapsed):
                        message = await one.receive(channel)
                        if message.get("last"):
                            return True
                        found.append(message["n"])
        return False

    await eventually(heard, seconds=20, what="all works again")
    assert found == sorted(set(found))


async def test_broadcaster_is_unavailable_while_the_store_is_down_and_comes_back(
    make: Make, fresh_store: Store
) -> None:
    broadcaster = make(fresh_store.url)
    channel = await joined(broadcaster, "g")
    await fresh_store.stop()
    for use in (
        broadcaster.group_send("g", {}),
        broadcaster.send("specific.x", {}),
        broadcaster.new_channel(),
        broadcaster.group_add("h", channel),
    ):
        async with within(10, "the use ends"):
            with pytest.raises(Unavailable):
                await use
    await fresh_store.start()
    await lapsed(broadcaster, channel)
    await broadcaster.group_add("h", channel)
    for group in ("g", "h"):
        await broadcaster.group_send(group, {"n": 1})
    assert await received(broadcaster, channel, 2) == numbered(1, 1)


async def test_message_is_sent_once_when_the_reply_of_the_store_is_lost(make: Make, store: Store) -> None:
    reader = make()
    channel = await joined(reader, "g")
    async with Proxy(store) as proxy:
        proxy.lose = b"PUBLISH"
        with pytest.raises(Unavailable):
            await make(proxy.url).group_send("g", {"n": 1})
    await reader.group_send("g", {"last": True})
    assert await until_last(reader, channel) == numbered(1)


async def test_join_that_failed_is_no_membership(make: Make, fresh_store: Store) -> None:
    broadcaster = make(fresh_store.url)
    channel = await joined(broadcaster, "g")
    await fresh_store.stop()
    with pytest.raises(Unavailable):
        await broadcaster.group_add("h", channel)
    await fresh_store.start()
    await lapsed(broadcaster, channel)
    await broadcaster.group_send("h", {"n": 1})
    await broadcaster.group_send("g", {"last": True})
    assert await until_last(broadcaster, channel) == []


# The end


async def test_flush_forgets_everything_and_the_broadcaster_works_again(make: Make, client: Redis) -> None:
    broadcaster = make()
    assert broadcaster.extensions == ["groups", "flush"]
    old = await joined(broadcaster, "g")
    await broadcaster.group_send("g", {"n": 1})
    await broadcaster.flush()
    await eventually(
        lambda: subscribers(client, broadcaster, "group", "g", 0), seconds=10, what="nobody reads"
    )
    with pytest.raises(RuntimeError):
        await broadcaster.group_add("g", old)
    channel = await joined(broadcaster, "g")
    await broadcaster.group_send("g", {"n": 2})
    assert await received(broadcaster, channel) == numbered(2)


async def test_flush_of_one_that_was_never_used_is_no_error(make: Make) -> None:
    await make().flush()


async def test_closed_broadcaster_keeps_no_connection(fresh_store: Store) -> None:
    async with fresh_store.client() as redis:
        before = len(await redis.client_list())
        broadcaster = Broadcaster([fresh_store.url])
        await joined(broadcaster, "g")
        await broadcaster.group_send("g", {})
        assert len(await redis.client_list()) > before
        await broadcaster.close()

        async def gone() -> bool:
            return len(await redis.client_list()) == before

        await eventually(gone, seconds=10, what="its connections are gone")


async def test_many_channels_share_one_subscriber_connection(fresh_store: Store, make: Make) -> None:
    broadcaster = make(fresh_store.url)
    await asyncio.gather(*(joined(broadcaster, f"g{number}") for number in range(20)))
    async with fresh_store.client() as redis:
        assert len(await redis.client_list(_type="pubsub")) == 1


async def test_use_from_another_loop_is_a_clear_error(make: Make) -> None:
    broadcaster = make()
    channel = await broadcaster.new_channel()

    def elsewhere() -> str:
        async def use() -> None:
            await broadcaster.send(channel, {})

        with pytest.raises(RuntimeError) as raised:
            asyncio.run(use())
        return str(raised.value)

    assert "another event loop" in await asyncio.to_thread(elsewhere)


@pytest.mark.parametrize(
    "hosts",
    [
        lambda store: store.url,
        lambda store: [store.url],
        lambda store: [("127.0.0.1", store.port)],
        lambda store: [{"address": store.url}],
    ],
    ids=["address", "list", "pair", "dict"],
)
async def test_host_is_named_as_channels_names_it(store: Store, hosts: Callable[[Store], Any]) -> None:
    broadcaster = Broadcaster(hosts(store), prefix=f"hosts-{secrets.token_hex(4)}")
    try:
        channel = await joined(broadcaster, "g")
        await broadcaster.group_send("g", {"n": 1})
        assert await received(broadcaster, channel) == numbered(1)
    finally:
        await broadcaster.close()


def test_two_hosts_are_an_error_that_names_the_cluster() -> None:
    with pytest.raises(ValueError, match="Cluster"):
        Broadcaster(["redis://one", "redis://two"])
