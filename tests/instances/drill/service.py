"""The service under fire: one store, one model server, some instances; made once for all runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from pathlib import Path

import aiohttp

from tests.fakes import Answering, Model, Text
from tests.instances import Client, Instance, Proxy, Refused, Store
from tests.instances.drill.plan import Prompt
from tests.instances.instance import BUGS
from tests.steps import Pause, Step
from tests.waiting import eventually

SILENT_SECONDS = "3"
"""So that a model server that hangs does not take long."""


@dataclass(frozen=True)
class Act:
    """The model is that far, and something else happens: a step of an answer."""

    act: Callable[[], Awaitable[None]]

    async def play(self, answering: Answering) -> None:
        """Have it happen."""
        await self.act()


@dataclass(frozen=True)
class Service:
    """All that a run needs to be there."""

    store: Store
    model: Model
    instances: Sequence[Instance]
    deployed_answers: int = 20  # run while instances are replaced
    proxy: Proxy | None = None  # before the store, for half of the instances
    striking: asyncio.Lock = field(
        default_factory=asyncio.Lock
    )  # held while an instance is away: one at a time

    def teach(self, prompt: Prompt, ending: Sequence[Step]) -> None:
        """Have the model answer a prompt piece by piece, as often as it is asked; `ending` is before the last."""
        steps = [step for piece in prompt.pieces for step in (Pause(prompt.pause_seconds), Text(piece))]
        self.model.answer(*steps[:-1], *ending, steps[-1], to=prompt.text, times=1000)

    async def reset(self) -> None:
        """Begin anew with the model server. It goes on from a given beginning; instances ask it that only once."""
        await self.model.reset()
        self.model.continues = True

    async def revive(self) -> None:
        """Have every instance serve that does not, and the store likewise."""
        if not self.store.alive:
            await self.store.start()
        self.store.thaw()
        for instance in self.instances:
            if instance.alive:
                instance.thaw()
        await asyncio.gather(*(instance.start() for instance in self.instances if not instance.alive))

    async def cut_off(self, kind: str) -> None:
        """Break the connections that instances have to the store: `pubsub` or `normal`."""
        async with self.store.client() as redis:
            await redis.client_kill_filter(_type=kind, skipme=True)

    def bugs(self, since: Sequence[int]) -> list[str]:
        """Return what the logs tell of bugs, each from a line on."""
        return [
            f"instance {instance.port} logged:\n" + "\n".join(instance.log[first:])
            for instance, first in zip(self.instances, since, strict=True)
            if any(bug in line for line in instance.log[first:] for bug in BUGS)
        ]


@asynccontextmanager
async def serving(folder: Path, *, deployed_answers: int) -> AsyncIterator[Service]:
    """Start everything."""
    async with AsyncExitStack() as started:
        store = await started.enter_async_context(Store(folder))
        model = await started.enter_async_context(Model())
        proxy = await started.enter_async_context(Proxy(store))
        silent = {"MODEL_FIRST_SECONDS": SILENT_SECONDS, "MODEL_BETWEEN_SECONDS": SILENT_SECONDS}
        instances = [
            Instance(url, model.url, CONTINUATION=way, **silent)
            for url, way in product([store.url, proxy.url], ["auto", "never"])
        ]
        await asyncio.gather(*(started.enter_async_context(instance) for instance in instances))
        yield Service(store, model, instances, deployed_answers, proxy)


async def opened(instance: Instance, jar: aiohttp.CookieJar, conversations: Sequence[str]) -> Client:
    """Return a new tab that has opened conversations from their snapshots, as soon as it can."""
    client = Client(jar)
    try:
        await eventually(lambda: _connected(client, instance), seconds=30, what="a new tab is connected")
        for each in conversations:
            await eventually(partial(_open, client, each), seconds=30, what="a new tab opens")
    except BaseException:
        await client.close()
        raise
    return client


async def _connected(client: Client, instance: Instance) -> bool:
    await client.connect(instance)
    return True


async def _open(client: Client, conversation: str) -> bool:
    try:
        await client.command("conversation.open", conversation=conversation)
    except Refused as refused:
        if refused.code != "unavailable":
            raise
        return False
    return True
