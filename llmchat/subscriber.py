"""One subscriber connection to Redis: supervised, never silently reconnected. Knows no channel layer.

redis-py's own reconnecting is off: what it bridges without a word, this tells.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress

from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import RedisError

from llmchat.errors import Unavailable
from llmchat.keys import redis_channel
from llmchat.redis_client import available

SUBSCRIBE_SECONDS = 2.0
HEARTBEAT_SECONDS = 1.5
"""Between heartbeats; a connection on which two in a row did not arrive is given up."""
BACKOFF_SECONDS = (0.1, 2.0)

log = logging.getLogger(__name__)


class Subscriber:
    """The process's one subscriber connection: supervised, never silently reconnected."""

    def __init__(
        self,
        redis: Redis,
        commands: Redis,
        prefix: str,
        deliver: Callable[[str, bytes], None],
        lapse: Callable[[], None],
    ) -> None:
        self._redis = redis
        self._commands = commands
        self._deliver = deliver
        self._lapse = lapse
        self._heartbeat = redis_channel(prefix, "heartbeat", secrets.token_hex(8))
        self._wanted: set[str] = set()  # Redis channels to be subscribed to, now and after a reconnect
        # Redis channel -> SUBSCRIBEs written and not confirmed yet, and what is done when the last one is.
        self._unconfirmed: Counter[str] = Counter()
        self._confirmed: dict[str, asyncio.Future[None]] = {}
        self._pubsub: PubSub | None = None  # while connected
        self.lost = asyncio.Event()  # set from a loss until all is subscribed again
        self.ready = asyncio.Event()  # set while all is subscribed
        self._gap = False  # a connection was lost, and the next one is not complete yet
        self._writing = asyncio.Lock()
        self._beaten = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def subscribe(self, name: str) -> None:
        """Return when Redis has confirmed the subscription. Raises Unavailable."""
        self._wanted.add(name)
        if self._task is None:
            self._task = asyncio.create_task(self._supervise(), name="subscriber")
        if name not in self._confirmed:
            self._confirmed[name] = asyncio.get_running_loop().create_future()
            await self._write_subscribe(name)
        try:
            async with asyncio.timeout(SUBSCRIBE_SECONDS):
                await asyncio.shield(self._confirmed[name])
        except (TimeoutError, KeyError) as error:
            raise Unavailable from error

    async def unsubscribe(self, names: Sequence[str]) -> None:
        """Stop reading channels. Never fails: without a connection there is nothing to stop."""
        for name in names:  # all before the first await, which may be cancelled
            self._wanted.discard(name)
            self._confirmed.pop(name, None)
        async with self._writing:
            unwanted = [name for name in names if name not in self._wanted]
            if self._pubsub is not None and unwanted:
                with suppress(RedisError, OSError):  # the reader sees it too, and reconnects
                    await self._pubsub.unsubscribe(*unwanted)

    async def stop(self) -> None:
        """Drop the connection and every subscription; usable again."""
        self._wanted.clear()
        self._confirmed.clear()
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})
        self._gap = False

    async def close(self) -> None:
        await self._redis.aclose()

    async def _write_subscribe(self, name: str) -> None:
        """Write to the connection, if there is one: a new one subscribes to all that is wanted anyway."""
        async with self._writing:
            if self._pubsub is not None and name in self._wanted:
                self._unconfirmed[name] += 1
                with suppress(RedisError, OSError):
                    await self._pubsub.subscribe(name)

    async def _supervise(self) -> None:
        shortest, longest = BACKOFF_SECONDS
        wait = shortest
        # On Python 3.11 a TaskGroup that unwinds an error may swallow a cancel: look whether we are wanted still.
        while self._task is asyncio.current_task():
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._watch_heartbeat())
                    tasks.create_task(self._read())
            except* (RedisError, OSError, TimeoutError) as lost:
                if not self._gap:
                    log.warning("Lost the subscriber connection to Redis: %s", _cause(lost))
            except* Exception:
                log.exception("The subscriber failed; it begins anew.")
            wait = min(longest, wait * 2) if self._gap else shortest
            self._gap = True
            self.ready.clear()
            self.lost.set()
            if self._task is asyncio.current_task():
                await asyncio.sleep(random.uniform(shortest, wait))  # noqa: S311 - jitter

    async def _read(self) -> None:
        pubsub = self._redis.pubsub()
        try:
            async with self._writing:
                names = [*self._wanted, self._heartbeat]  # confirmed in this order: the heartbeat last
                self._unconfirmed = Counter(names)
                async with asyncio.timeout(SUBSCRIBE_SECONDS):
                    await pubsub.subscribe(*names)
                self._pubsub = pubsub
            while True:
                message = await pubsub.get_message(timeout=None)
                if message is not None:
                    self._take(message["type"], message["channel"].decode(), message["data"])
        finally:
            self._pubsub = None
            with suppress(RedisError, OSError, TimeoutError):
                async with asyncio.timeout(SUBSCRIBE_SECONDS):
                    await pubsub.aclose()  # type: ignore[no-untyped-call]

    def _take(self, kind: str, name: str, envelope: bytes) -> None:
        if kind == "message" and name != self._heartbeat:
            self._deliver(name, envelope)
        elif kind == "message":
            self._beaten.set()
        elif kind == "subscribe":
            self._confirm(name)
            if name == self._heartbeat:
                self.lost.clear()
                self.ready.set()
            if name == self._heartbeat and self._gap:
                log.info("The subscriber connection to Redis is back.")
                self._gap = False
                self._lapse()  # only now: whoever reads the log after this misses nothing more

    def _confirm(self, name: str) -> None:
        self._unconfirmed[name] -= 1
        if self._unconfirmed[name] > 0:
            return
        del self._unconfirmed[name]
        confirmed = self._confirmed.get(name)
        if confirmed is not None and not confirmed.done():
            confirmed.set_result(None)

    async def _watch_heartbeat(self) -> None:
        missed = 0
        while missed < 2:
            self._beaten.clear()
            with suppress(Unavailable):
                async with available(HEARTBEAT_SECONDS):
                    await self._commands.publish(self._heartbeat, b"")
            await asyncio.sleep(HEARTBEAT_SECONDS)
            missed = 0 if self._beaten.is_set() else missed + 1
        raise TimeoutError("no heartbeat came through")


def _cause(lost: BaseExceptionGroup[BaseException]) -> str:
    return ", ".join(f"{type(each).__name__} {each}" for each in lost.exceptions)
