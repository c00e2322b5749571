"""What concerns the inside of the broadcaster alone; its rules are shown in tests/channel_layer/."""

from __future__ import annotations

from llmchat.broadcaster import Broadcaster
from tests.channel_layer.server import close
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
