"""The rules on a Valkey, over connections; and those that need a proxy before it, or its configuration."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import pytest

from llmchat.broadcaster import Broadcaster, ChannelLapsed
from llmchat.errors import Unavailable
from tests.channel_layer.connection_rules import *  # noqa: F403
from tests.channel_layer.rules import *  # noqa: F403
from tests.channel_layer.rules import rule
from tests.channel_layer.server import StoreService
from tests.channel_layer.steps import joined, numbered, received, until_last
from tests.instances import Proxy, Store
from tests.waiting import eventually, within


@pytest.fixture(scope="module")
async def valkey(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Store]:
    """A Valkey for this module's tests alone: each leaves it running."""
    async with Store(tmp_path_factory.mktemp("valkey")) as store:
        yield store


@pytest.fixture
async def server(valkey: Store) -> AsyncIterator[StoreService]:
    async with StoreService(valkey) as server:
        yield server


@rule(26)
async def test_message_is_sent_once_when_the_answer_of_the_server_is_lost(
    server: StoreService, valkey: Store
) -> None:
    reader = server.make()
    channel = await joined(reader, "g")
    async with Proxy(valkey) as proxy:
        sender = server.make(hosts=[proxy.url])
        proxy.lose = b"PUBLISH"
        for use in (sender.group_send("g", {"n": 1}), sender.send(channel, {"n": 2})):
            with pytest.raises(Unavailable):
                await use
    await reader.group_send("g", {"last": True})
    assert await until_last(reader, channel) == numbered(1, 2)


@rule(26, 27, 37, 38)
async def test_subscriber_that_is_cut_because_it_reads_too_slowly_is_told_of_the_gap(
    server: StoreService, valkey: Store
) -> None:
    limit = "client-output-buffer-limit"
    fill = b"." * 64 * 1024
    sent = 0
    async with Proxy(valkey) as proxy, valkey.client() as admin:
        usual = (await admin.config_get(limit))[limit]
        await admin.config_set(limit, "pubsub 64kb 32kb 1")
        reader, sender = server.make(hosts=[proxy.url], capacity=10_000), server.make()
        channel = await joined(reader, "g")

        async def was_cut() -> bool:
            nonlocal sent
            for _ in range(20):
                await sender.group_send("g", {"n": sent, "fill": fill})
                sent += 1
            told = await admin.info("stats")
            return int(told["client_output_buffer_limit_disconnections"]) > 0

        try:
            await sender.group_send("g", {"n": sent})
            sent += 1
            await admin.config_resetstat()
            proxy.flowing.clear()
            await eventually(was_cut, seconds=30, what="the server cuts the subscriber")
        finally:
            proxy.flowing.set()
            await admin.config_set(limit, usual)
        await lapsed_after(reader, channel, sent)
        await sender.group_send("g", {"n": sent})
        assert await received(reader, channel) == numbered(sent)


async def lapsed_after(reader: Broadcaster, channel: str, sent: int) -> None:
    """Receive up to the lapse: the first of what was sent, in order, and not all."""
    found: list[int] = []
    async with within(30, "the reader is told"):
        with suppress(ChannelLapsed):
            while True:
                found.append((await reader.receive(channel))["n"])
    assert found == list(range(len(found)))
    assert 0 < len(found) < sent


@rule(50)
@pytest.mark.parametrize(
    "hosts",
    [
        lambda store: store.url,
        lambda store: [store.url],
        lambda store: (store.url,),
        lambda store: [("127.0.0.1", store.port)],
        lambda store: [["127.0.0.1", store.port]],
        lambda store: [{"address": store.url}],
        lambda store: [{"address": ("127.0.0.1", store.port)}],
        lambda store: [{"address": store.url, "db": 3}],
        lambda store: [{"host": "127.0.0.1", "port": store.port}],
    ],
    ids=["url", "list", "tuple", "pair", "list pair", "dict", "dict pair", "dict with more", "host and port"],
)
async def test_host_is_named_as_channels_names_it(
    server: StoreService, valkey: Store, hosts: Callable[[Store], Any]
) -> None:
    broadcaster = server.make(hosts=hosts(valkey))
    channel = await joined(broadcaster, "g")
    await server.make().group_send("g", {"n": 1})
    assert await received(broadcaster, channel) == numbered(1)
