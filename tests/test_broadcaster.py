"""What concerns the inside of the broadcaster alone; its rules are shown in tests/channel_layer/."""

from __future__ import annotations

import secrets

import msgpack
import pytest

from llmchat.broadcaster import Broadcaster, ChannelLapsed
from llmchat.keys import redis_channel
from tests.channel_layer.server import close
from tests.channel_layer.steps import joined, received
from tests.instances import Store


async def test_channels_that_are_gone_leave_nothing_behind(store: Store) -> None:
    broadcaster = Broadcaster([store.url], prefix="gone")
    for _ in range(20):
        async with broadcaster.channel() as channel:
            await broadcaster.group_add("g", channel)
    subscriber = broadcaster._subscriber
    assert not broadcaster._inboxes
    assert not broadcaster._readers
    assert not subscriber._wanted
    assert not subscriber._confirmed
    assert not subscriber._unconfirmed
    await close(broadcaster)


async def test_message_behind_a_gap_is_not_delivered_before_the_lapse(store: Store) -> None:
    broadcaster = Broadcaster(store.url, prefix=f"broadcaster-{secrets.token_hex(4)}")
    channel = await joined(broadcaster, "g")
    subscriber = broadcaster._subscriber
    name = redis_channel(broadcaster._prefix, "group", "g")
    subscriber._gap = True  # as between a reconnect's first confirmation and its last
    subscriber._take("", "message", name, msgpack.packb({"n": 1}))
    subscriber._complete()
    subscriber._take("", "message", name, msgpack.packb({"n": 2}))  # dropped, too, until the lapse is told
    with pytest.raises(ChannelLapsed):
        await broadcaster.receive(channel)
    subscriber._take("", "message", name, msgpack.packb({"n": 3}))
    assert await received(broadcaster, channel) == [{"n": 3}]
    await close(broadcaster)
