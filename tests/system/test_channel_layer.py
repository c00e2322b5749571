"""The rules of the channel layer where several servers are one: Sentinels, a Cluster; and over TLS."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.crc import key_slot

from llmchat.broadcaster import ChannelLapsed
from llmchat.errors import Unavailable
from llmchat.keys import redis_channel
from llmchat.redis_client import connect
from tests.channel_layer.connection_rules import *  # noqa: F403
from tests.channel_layer.rules import *  # noqa: F403
from tests.channel_layer.server import PlainService, SocketServer, StoreService, UrlService
from tests.channel_layer.steps import gaps, joined, lapsed, numbered, received
from tests.system.cluster import Cluster
from tests.system.sentinel import Sentinels
from tests.system.tls import TlsStore
from tests.waiting import eventually


class SentinelService(PlainService):
    """Sentinels, whose stores end, freeze and come back all at once."""

    def __init__(self, sentinels: Sentinels) -> None:
        super().__init__(sentinels.url)
        self._sentinels = sentinels

    def connect(self) -> Redis:
        return connect(self.url)

    async def cut(self) -> int:
        """Leave the Sentinels alone, who are subscribed to the master, too, and come back when they like."""
        found = await self._looking.client_list(_type="pubsub")
        ours = [each for each in found if not each["name"].startswith("sentinel-")]
        for each in ours:
            await self._looking.client_kill_filter(_id=each["id"])
        return len(ours)

    async def stop(self) -> None:
        await asyncio.gather(*(store.kill() for store in self._sentinels.stores))

    async def start(self) -> None:
        await asyncio.gather(*(store.start() for store in self._sentinels.stores if not store.alive))
        await self._sentinels.settled()

    def freeze(self) -> None:
        for store in self._sentinels.stores:
            store.freeze()

    def thaw(self) -> None:
        for store in self._sentinels.stores:
            if store.alive:
                store.thaw()

    async def __aexit__(self, *details: object) -> None:
        self.thaw()
        if not all(store.alive for store in self._sentinels.stores):
            await self.start()
        await self._sentinels.settled()
        await super().__aexit__(*details)


class ClusterService(UrlService):
    """A Cluster, where pub/sub is sharded."""

    shards = 3

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster.url)
        self._cluster = cluster

    def connect(self) -> Redis:
        return connect(self.url)

    async def publish_raw(self, kind: str, name: str, envelope: bytes) -> None:
        await self._looking.spublish(redis_channel(self.prefix, kind, name), envelope)

    async def subscribers(self, kind: str, name: str) -> int:
        channel = redis_channel(self.prefix, kind, name)
        async with self._cluster.node(await self._cluster.owner(key_slot(channel.encode()))) as node:
            _, count = await node.execute_command("PUBSUB", "SHARDNUMSUB", channel)
        return int(count)

    async def connections(self) -> int:
        return sum([len(await node.client_list()) async for node in self._nodes()])

    async def cut(self) -> int:
        count = sum([len(await node.client_list(_type="pubsub")) async for node in self._nodes()])
        async for node in self._nodes():
            await node.client_kill_filter(_type="pubsub")
        return count

    async def stop(self) -> None:
        await asyncio.gather(*map(self._cluster.kill, self._cluster.ports))

    async def start(self) -> None:
        await asyncio.gather(*map(self._cluster.start, self._cluster.ports))
        await self._cluster.settled()

    def freeze(self) -> None:
        for port in self._cluster.ports:
            self._cluster.freeze(port)

    def thaw(self) -> None:
        for port in filter(self._cluster.alive, self._cluster.ports):
            self._cluster.thaw(port)

    async def _nodes(self) -> AsyncIterator[Redis]:
        for port in self._cluster.ports:
            async with self._cluster.node(port) as node:
                yield node

    async def __aexit__(self, *details: object) -> None:
        self.thaw()
        if not all(map(self._cluster.alive, self._cluster.ports)):
            await self.start()
        await self._cluster.settled()
        await super().__aexit__(*details)


@pytest.fixture(scope="module")
async def started(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Callable[[str], Any]]:
    """Start each kind once."""
    async with AsyncExitStack() as leaving:
        running: dict[str, Any] = {}

        async def start(kind: str) -> Any:
            if kind not in running:
                folder: Path = tmp_path_factory.mktemp(kind)
                made = {
                    "sentinel": lambda: Sentinels(folder),
                    "cluster": lambda: Cluster(folder),
                    "tls": lambda: TlsStore(folder, clients="yes"),
                }[kind]()
                running[kind] = await leaving.enter_async_context(made)
            return running[kind]

        yield start


SERVICES = {"sentinel": SentinelService, "cluster": ClusterService, "tls": StoreService}


@pytest.fixture(params=SERVICES)
async def server(
    request: pytest.FixtureRequest, started: Callable[[str], Any]
) -> AsyncIterator[SocketServer]:
    kind: str = request.param
    async with SERVICES[kind](await started(kind)) as server:
        yield server


@pytest.mark.parametrize("way", ["in order", "killed", "frozen"])
async def test_channels_are_told_of_a_failover_and_go_on_with_the_new_master(
    tmp_path: Path, way: str
) -> None:
    async with Sentinels(tmp_path) as sentinels, SentinelService(sentinels) as server:
        one, two = server.make(), server.make()
        channel = await joined(one, "g")
        await two.group_send("g", {"n": 1})
        assert await received(one, channel) == numbered(1)
        if way == "in order":
            await sentinels.failover()
        elif way == "killed":
            await sentinels.kill_master()
        else:
            await sentinels.another(await sentinels.freeze_master())
        await lapsed(one, channel)

        async def sent() -> bool:
            try:
                await two.group_send("g", {"n": 2})
            except Unavailable:
                return False
            return True

        await eventually(sent, seconds=20, what="the new master takes a message")
        assert await received(one, channel) == numbered(2)


async def test_channel_whose_slot_moves_is_told_and_no_other(started: Callable[[str], Any]) -> None:
    cluster: Cluster = await started("cluster")
    async with ClusterService(cluster) as server:
        one, two = server.make(), server.make()
        moving, staying = await joined(one, "moving"), await joined(one, "staying")
        slot = key_slot(redis_channel(server.prefix, "group", "moving").encode())
        owner = await cluster.owner(slot)
        for to_port in (next(port for port in cluster.ports if port != owner), owner):
            await cluster.move_slot(slot, to_port)
            await lapsed(one, moving)
            for number in range(50):
                await two.group_send("moving", {"n": number})
            assert await received(one, moving, 50) == numbered(*range(50))
        await two.group_send("staying", {"n": 1})
        assert await received(one, staying) == numbered(1)


async def test_members_hear_what_is_sent_while_the_slot_of_their_group_moves_or_are_told(
    started: Callable[[str], Any],
) -> None:
    cluster: Cluster = await started("cluster")
    async with ClusterService(cluster) as server:
        one, two = server.make(capacity=10_000), server.make()
        channel = await joined(one, "g")
        slot = key_slot(redis_channel(server.prefix, "group", "g").encode())
        owner = await cluster.owner(slot)
        moved = asyncio.create_task(
            cluster.move_slot(slot, next(port for port in cluster.ports if port != owner))
        )
        sent = 0
        while not moved.done():
            await two.group_send("g", {"n": sent})
            sent += 1
        await moved
        found: list[Any] = []

        async def heard() -> bool:
            """Send one more, which may be lost in the gap, too, until one arrives."""
            await two.group_send("g", {"last": True})
            with suppress(TimeoutError):
                async with asyncio.timeout(1):
                    while True:
                        try:
                            message = await one.receive(channel)
                        except ChannelLapsed:
                            found.append("lapsed")
                            continue
                        if message.get("last"):
                            return True
                        found.append(message)
            return False

        await eventually(heard, seconds=20, what="all works again")
        assert gaps([*found, {"n": sent}])[1] == []


async def test_many_at_once_wait_for_a_connection_to_the_cluster(started: Callable[[str], Any]) -> None:
    async with ClusterService(await started("cluster")) as server:
        client = server.client()
        await asyncio.gather(*(client.set(f"{server.prefix}:{number}", "1") for number in range(1000)))


async def test_client_of_redis_py_for_a_cluster_is_taken(started: Callable[[str], Any]) -> None:
    cluster: Cluster = await started("cluster")
    async with ClusterService(cluster) as server, cluster.client() as client:
        broadcaster = server.make(client=client)
        channel = await joined(broadcaster, "g")
        await server.make().group_send("g", {"n": 1})
        assert await received(broadcaster, channel) == numbered(1)
        await broadcaster.close()
        assert await client.set(f"{server.prefix}:key", "value")
