"""Connections come and go by the thousand, and leave nothing behind. `make soak` makes it 10,000."""

from __future__ import annotations

import asyncio
import os
import random
from dataclasses import dataclass
from pathlib import Path

from tests.fakes import Model
from tests.instances import Client, Instance, Store
from tests.waiting import eventually

ROUND = 25
NEVER_MORE = ("tasks", "descriptors", "subscriptions", "keys")
POOLS = 50 + 50 + 2
"""Connections to Redis that one instance may have."""
CONNECTIONS = int(os.environ.get("SOAK", "300"))


@dataclass(frozen=True)
class Holdings:
    """What an instance holds while nobody is connected."""

    tasks: int
    descriptors: int
    """Without the connections to Redis."""
    connections: int
    subscriptions: int
    keys: int


async def held(instance: Instance, store: Store) -> Holdings:
    """Count what is held."""
    descriptors = await asyncio.to_thread(lambda: len(list(Path(f"/proc/{instance.pid}/fd").iterdir())))
    async with store.client() as redis:
        connections = len(await redis.client_list()) - 1
        return Holdings(
            tasks=await instance.count_tasks(),
            descriptors=descriptors - connections,
            connections=connections,
            subscriptions=len(await redis.pubsub_channels("*")),
            keys=await redis.dbsize(),
        )


async def settled(instance: Instance, store: Store) -> Holdings:
    """Count once nobody is served any more, and what is given back has been."""
    counts = [await held(instance, store)]

    async def stands() -> bool:
        counts.append(await held(instance, store))
        return counts[-1].tasks < 20 and counts[-1] == counts[-2]

    await eventually(stands, seconds=40, what=f"what is held settles; it was {counts}")
    return counts[-1]


async def visit(instance: Instance, client: Client, conversation: str, way: int) -> None:
    """Come, do something, and go: in order, without a word, or in the middle of a command."""
    await client.connect(instance)
    if way < 2:
        await client.command("conversation.open", conversation=conversation)
    else:
        await client.send("conversation.open", conversation=conversation)
    if way % 2:
        await client.drop()
    await client.close()


async def test_connections_that_come_and_go_leave_nothing_behind(fresh_store: Store, model: Model) -> None:
    """Nothing grows but the pool of connections to Redis, which has its bound."""
    chance = random.Random(CONNECTIONS)
    async with Instance(fresh_store.url, model.url, module="tests.instances.counted") as instance:
        owner = Client()
        await owner.connect(instance)
        model.answer("Hello")
        await owner.prompt("Hi")
        (conversation,) = owner.mirrors
        await owner.close()
        idle = await settled(instance, fresh_store)

        async def come_and_go() -> None:
            visitors = [Client(owner.jar) for _ in range(ROUND)]
            ways = [chance.randrange(4) for _ in visitors]
            await asyncio.gather(
                *(visit(instance, one, conversation, way) for one, way in zip(visitors, ways, strict=True))
            )

        assert CONNECTIONS >= ROUND
        for _ in range(CONNECTIONS // ROUND):
            await come_and_go()

        now = await settled(instance, fresh_store)
        print(f"{CONNECTIONS} connections came and went; before {idle}, after {now}")
        assert all(getattr(now, name) <= getattr(idle, name) for name in NEVER_MORE)
        assert now.connections <= POOLS
