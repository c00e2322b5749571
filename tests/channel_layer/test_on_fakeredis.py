"""The rules on fakeredis: `Broadcaster(client=FakeAsyncRedis(server=…))`, for the tests of whoever uses the layer.

It has no sockets: what concerns connections is shown on Valkey. It also keeps a closed connection's subscriptions.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from fakeredis import FakeAsyncRedis, FakeServer
from redis.asyncio import Redis

from llmchat.keys import redis_channel
from tests.channel_layer.rules import *  # noqa: F403
from tests.channel_layer.server import Service


class FakeService(Service):
    """A server within this process, for one test."""

    def __init__(self) -> None:
        super().__init__()
        self._server = FakeServer()
        self._looking = self.client()

    def where(self) -> dict[str, Any]:
        return {"client": self.client()}

    def connect(self) -> Redis:
        return FakeAsyncRedis(server=self._server)

    async def publish_raw(self, kind: str, name: str, envelope: bytes) -> None:
        await self._looking.publish(redis_channel(self.prefix, kind, name), envelope)

    async def subscribers(self, kind: str, name: str) -> int:
        ((_, count),) = await self._looking.pubsub_numsub(redis_channel(self.prefix, kind, name))
        return int(count)


@pytest.fixture
async def server() -> AsyncIterator[FakeService]:
    async with FakeService() as server:
        yield server
