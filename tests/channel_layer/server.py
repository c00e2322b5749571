"""What a server offers to the tests of the channel layer. A new kind of server is one class and two imports.

A test module of a server imports the rules and defines the fixture `server`, which gives each test a `Service` of its
own: broadcasters of one prefix that nobody else uses. The server behind may be shared by the tests of the module.
"""

from __future__ import annotations

import asyncio
import secrets
from abc import ABC, abstractmethod
from contextlib import AsyncExitStack
from typing import Any, Protocol, Self

from redis.asyncio import Redis

from llmchat.broadcaster import Broadcaster
from llmchat.keys import redis_channel
from tests.instances import Store
from tests.waiting import eventually


class Server(Protocol):
    """For `rules.py`: what fakeredis can do, too."""

    prefix: str

    def make(self, **options: Any) -> Broadcaster:
        """Make a broadcaster of its own, as another process has one; it is closed at the end of the test."""

    def client(self) -> Redis:
        """Make a redis-py client of this server; it is closed at the end of the test."""

    async def publish_raw(self, kind: str, name: str, envelope: bytes) -> None:
        """Publish to a "group" or a "channel" past every broadcaster: by SPUBLISH on a Cluster."""

    async def subscribers(self, kind: str, name: str) -> int:
        """Count the connections that Redis has subscribed to a "group" or a "channel"."""


class SocketServer(Server, Protocol):
    """For `connection_rules.py`. What a test stops or freezes, the fixture brings back."""

    url: str
    """for a child process; a Cluster's and a Sentinel's are redis+cluster:// and redis+sentinel://"""
    shards: int
    """how many subscriber connections a broadcaster has: 1, or the primaries of a Cluster"""

    async def connections(self) -> int:
        """Count all connections to the server; what it counts by is always the same."""

    async def cut(self) -> int:
        """Cut every subscriber connection of everybody, and tell how many there were."""

    async def stop(self) -> None:
        """End the server: whoever connects is refused."""

    async def start(self) -> None:
        """Start it again at the same address, and return when it serves."""

    def freeze(self) -> None:
        """Have it say nothing, with all connections open."""

    def thaw(self) -> None:
        """Have it go on."""


class Service(ABC):
    """The broadcasters and clients of one test; a Server's class inherits the making and the closing."""

    def __init__(self) -> None:
        self.prefix = f"layer-{secrets.token_hex(4)}"
        self._leaving = AsyncExitStack()

    @abstractmethod
    def where(self) -> dict[str, Any]:
        """Name the server for a Broadcaster: by hosts or client."""

    @abstractmethod
    def connect(self) -> Redis:
        """Make a redis-py client."""

    def make(self, **options: Any) -> Broadcaster:
        place = {} if {"hosts", "client"} & options.keys() else self.where()
        broadcaster = Broadcaster(**({"prefix": self.prefix} | place | options))
        self._leaving.push_async_callback(close, broadcaster)
        return broadcaster

    def client(self) -> Redis:
        client = self.connect()
        self._leaving.push_async_callback(client.aclose)
        return client

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._leaving.aclose()


class UrlService(Service):
    """What is named by a URL."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url
        self._looking = self.client()

    def where(self) -> dict[str, Any]:
        return {"hosts": [self.url]}


class PlainService(UrlService):
    """One server, or the one of several that is the master."""

    shards = 1

    def connect(self) -> Redis:
        return Redis.from_url(self.url)

    async def publish_raw(self, kind: str, name: str, envelope: bytes) -> None:
        await self._looking.publish(redis_channel(self.prefix, kind, name), envelope)

    async def subscribers(self, kind: str, name: str) -> int:
        ((_, count),) = await self._looking.pubsub_numsub(redis_channel(self.prefix, kind, name))
        return int(count)

    async def connections(self) -> int:
        return len(await self._looking.client_list())

    async def cut(self) -> int:
        return int(await self._looking.client_kill_filter(_type="pubsub"))


class StoreService(PlainService):
    """One store, shared with other tests: what this one stops or freezes it brings back."""

    def __init__(self, store: Store) -> None:
        super().__init__(store.url)
        self._store = store

    async def stop(self) -> None:
        await self._store.stop()

    async def start(self) -> None:
        await self._store.start()

    def freeze(self) -> None:
        self._store.freeze()

    def thaw(self) -> None:
        self._store.thaw()

    async def __aexit__(self, *details: object) -> None:
        if not self._store.alive:
            await self.start()
        self.thaw()
        await super().__aexit__(*details)


async def close(broadcaster: Broadcaster) -> None:
    """Close a broadcaster, or fail: a deadline by cancelling may be lost in what hangs."""
    closing = asyncio.create_task(broadcaster.close())
    await asyncio.wait({closing}, timeout=10)
    assert closing.done(), "a broadcaster does not close"
    await closing


async def until_subscribed(server: Server, kind: str, name: str, count: int) -> None:
    """Wait until Redis has so many subscribers of a group or a channel."""

    async def has() -> bool:
        return await server.subscribers(kind, name) == count

    await eventually(has, seconds=30, what=f"the {kind} {name} has {count} subscribers")
