"""The subscriber connections to Redis: one for each server, supervised, every gap told. Knows no channel layer.

What redis-py's own PubSub bridges without a word, this tells.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, cast

from redis.asyncio import Redis
from redis.exceptions import MovedError, RedisError

from llmchat.cluster import slot_of
from llmchat.errors import Unavailable
from llmchat.keys import redis_channel
from llmchat.redis_client import available, said_by
from llmchat.shards import Line, Shards

SUBSCRIBE_SECONDS = 1.8
"""Until a subscription is confirmed."""
HEARTBEAT_SECONDS = 1.25
"""Between heartbeats; a connection on which two in a row did not arrive is given up."""
BACKOFF_SECONDS = (0.05, 0.8)
LOST = (RedisError, OSError, TimeoutError)

log = logging.getLogger(__name__)


class Subscriber:
    """The process's subscriber connections: one, or in a Cluster one for each primary.

    They are one: a gap in any is told as a gap in all. Only a slot that moves concerns its own channels alone.
    """

    def __init__(
        self,
        shards: Shards,
        commands: Redis,
        prefix: str,
        deliver: Callable[[str, bytes], None],
        lapse: Callable[[Iterable[str] | None], None],
        on_loss: Callable[[], object],
        on_return: Callable[[], object],
    ) -> None:
        self._shards = shards
        self._commands = commands
        self._prefix = prefix
        self._deliver = deliver
        self._lapse = lapse  # all, or those that read some Redis channels, may have missed something
        self._on_loss = on_loss
        self._on_return = on_return
        self._wanted: set[str] = set()  # Redis channels to be subscribed to, now and after a reconnect
        # Redis channel -> what is done when the last SUBSCRIBE written for it is confirmed.
        self._confirmed: dict[str, asyncio.Future[None]] = {}
        # (shard, Redis channel) -> SUBSCRIBEs on their way, likewise UNSUBSCRIBEs
        self._unconfirmed: Counter[tuple[str, str]] = Counter()
        self._unwritten: list[str] = []  # Redis channels for which no SUBSCRIBE was written yet
        self._leaving: Counter[tuple[str, str]] = Counter()
        self._moved: set[str] = set()  # Redis channels whose slot moved, until they are subscribed to again
        self._heartbeats: dict[str, str] = {}  # Redis channel of a heartbeat -> its shard
        self._beaten: dict[str, asyncio.Event] = {}  # shard -> whether its heartbeat came
        self._lines: dict[str, Line] = {}  # shard -> its connection, while there is one
        self._whole: set[str] = set()  # shards on which all is subscribed
        self.lost = asyncio.Event()  # set from a loss until all is subscribed again
        self.ready = asyncio.Event()  # set while all is subscribed
        self._gap = False  # a connection was lost, and the next one is not complete yet
        self.gaps = 0  # how often one began
        self._writing = asyncio.Lock()
        self._writes: set[asyncio.Task[None]] = set()
        self._group: asyncio.TaskGroup | None = None  # of the connections, while there are some
        self._task: asyncio.Task[None] | None = None

    async def subscribe(self, name: str) -> None:
        """Return when Redis has confirmed the subscription. Raises Unavailable."""
        self._wanted.add(name)
        if self._task is None:
            self._task = asyncio.create_task(self._supervise(), name="subscriber")
        confirmed = self._confirmed.get(name)
        if confirmed is None:
            confirmed = self._confirmed[name] = asyncio.get_running_loop().create_future()
            self._unwritten.append(name)
            if len(self._unwritten) == 1:
                self._spawn(self._write(self._write_subscribe))
        try:
            async with asyncio.timeout(SUBSCRIBE_SECONDS):
                await asyncio.shield(confirmed)
        except TimeoutError as error:
            raise Unavailable from error

    def unsubscribe(self, names: Sequence[str]) -> None:
        """Stop reading channels."""
        for name in names:
            self._wanted.discard(name)
            self._moved.discard(name)
            self._let_go(name)
        if names:
            self._spawn(self._write(partial(self._write_unsubscribe, names)))

    async def stop(self) -> None:
        """Drop the connections and every subscription; usable again."""
        self._wanted.clear()
        self._unwritten.clear()
        self._moved.clear()
        for name in list(self._confirmed):
            self._let_go(name)
        task, self._task = self._task, None
        ending = {*self._writes, *([task] if task is not None else [])}
        for each in ending:
            each.cancel()
        # All is as at first before the first await: whoever subscribes meanwhile begins anew, beside what ends.
        self._group = None
        self._gap = False
        self.lost.clear()
        self.ready.clear()
        if ending:
            await asyncio.wait(ending)

    def _doubt(self, names: Iterable[str]) -> None:
        """Have those who subscribe from now on wait for the next confirmation, also where there was one."""
        for name in names:
            if name in self._confirmed and self._confirmed[name].done():
                self._confirmed[name] = asyncio.get_running_loop().create_future()

    def _let_go(self, name: str) -> None:
        """Let those go on who wait for a subscription that nobody wants any more."""
        confirmed = self._confirmed.pop(name, None)
        if confirmed is not None and not confirmed.done():
            confirmed.set_result(None)

    # Writing: in tasks of our own, for a write that is broken off ends the connection

    def _spawn(self, write: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(write)
        self._writes.add(task)
        task.add_done_callback(self._writes.discard)

    async def _write(self, write: Callable[[], Awaitable[None]]) -> None:
        """Write alone, and not for ever: what fails, or is not taken, the reader or the heartbeat sees, too."""
        with suppress(*LOST):
            async with asyncio.timeout(SUBSCRIBE_SECONDS), self._writing:
                await write()

    async def _write_subscribe(self) -> None:
        """Write what was asked for to the connection, if there is one: a new one subscribes to all that is wanted anyway."""
        names, self._unwritten = self._unwritten, []
        shards: dict[str, list[str]] = {}
        for name in names:
            if name in self._wanted and self._group is not None:
                with suppress(RedisError):  # nobody has its slot: whoever waits for it is told in time
                    shards.setdefault(self._shards.of(name), []).append(name)
        for shard, wanted in shards.items():
            line = self._lines.get(shard)
            if line is not None:
                await self._subscribe_on(shard, line, wanted)
            elif shard not in self._beaten and self._group is not None:
                with suppress(RuntimeError):  # all are being given up: the next ones take it along
                    self._open(self._group, shard)

    async def _write_unsubscribe(self, names: Sequence[str]) -> None:
        for name in names:
            if name in self._wanted or self._group is None:
                continue
            shard = self._shards.of(name)
            line = self._lines.get(shard)
            if line is not None:
                self._leaving[shard, name] += 1
                await line.unsubscribe(name)

    async def _subscribe_on(self, shard: str, line: Line, names: Sequence[str]) -> None:
        self._unconfirmed.update((shard, name) for name in names)
        await line.subscribe(names)

    # The connections

    async def _supervise(self) -> None:
        shortest, longest = BACKOFF_SECONDS
        wait = shortest
        # On Python 3.11 a TaskGroup that unwinds an error may swallow a cancel: look whether we are wanted still.
        while self._task is asyncio.current_task():
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._connect(group))
            except* LOST as lost:
                if not self._gap:
                    log.warning("Lost the subscriber connection to Redis: %s", _causes(lost))
            except* Exception:
                log.exception("The subscriber failed; it begins anew.")
            if self._task is not asyncio.current_task():
                return  # stopped: others may have begun
            self._group = None
            self._doubt(list(self._confirmed))
            wait = min(longest, wait * 2) if self._gap else shortest
            if not self._gap:
                self._gap = True
                self.gaps += 1
                self.ready.clear()
                self.lost.set()
                self._on_loss()
            if self._task is asyncio.current_task():
                await asyncio.sleep(random.uniform(shortest, wait))  # nosec B311 # noqa: S311 - jitter

    async def _connect(self, group: asyncio.TaskGroup) -> None:
        """Open a connection to every shard, each with all that is wanted there."""
        async with asyncio.timeout(SUBSCRIBE_SECONDS):
            await self._shards.look()
        for known in (self._unconfirmed, self._leaving, self._heartbeats, self._beaten, self._whole):
            known.clear()
        self._unwritten.clear()  # they are wanted: these connections subscribe to them
        self._moved.clear()
        self._group = group
        for shard in self._shards.all():
            self._open(group, shard)

    def _open(self, group: asyncio.TaskGroup, shard: str) -> None:
        self._beaten[shard] = asyncio.Event()
        heartbeat = self._heartbeat_on(shard)
        self._heartbeats[heartbeat] = shard
        group.create_task(self._read(shard, heartbeat))
        group.create_task(self._watch_heartbeat(shard, heartbeat))

    def _heartbeat_on(self, shard: str) -> str:
        while True:
            name = redis_channel(self._prefix, "heartbeat", secrets.token_hex(8))
            if self._shards.of(name) == shard:
                return name

    async def _read(self, shard: str, heartbeat: str) -> None:
        reading = cast("asyncio.Task[None]", asyncio.current_task())
        async with self._shards.line(shard) as line:
            try:
                async with asyncio.timeout(SUBSCRIBE_SECONDS), self._writing:
                    wanted = [name for name in self._wanted if self._shards.of(name) == shard]
                    await self._subscribe_on(shard, line, [*wanted, heartbeat])  # this one is confirmed last
                    self._lines[shard] = line
                # A client that was given may swallow a cancel, as wait_for does on Python 3.11.
                while not reading.cancelling():
                    try:
                        kind, name, envelope = await line.read()
                    except MovedError as moved:  # the answer to a subscription
                        self._refused(shard, moved.slot_id)
                    else:
                        self._take(shard, kind, name, envelope)
            finally:
                if self._lines.get(shard) is line:
                    del self._lines[shard]

    def _take(self, shard: str, kind: str, name: str, envelope: bytes) -> None:
        """Take what came. A message behind a gap is not delivered before the lapse is told, which covers it, too."""
        match kind:
            case "message" if name in self._heartbeats:
                self._beaten[shard].set()
            case "message" if not self._gap and name not in self._moved:
                self._deliver(name, envelope)
            case "subscribe":
                self._confirm(shard, name)
            case "unsubscribe":
                self._left(shard, name)

    def _confirm(self, shard: str, name: str) -> None:
        self._unconfirmed[shard, name] -= 1
        if self._unconfirmed[shard, name] > 0:
            return
        del self._unconfirmed[shard, name]
        if not self._gap:
            self._tell_confirmed(name)
        if name in self._moved:
            self._moved.discard(name)
            self._lapse([name])
        if name in self._heartbeats:
            self._whole.add(shard)
        if self._whole == set(self._beaten) and not self.ready.is_set():
            self._complete()

    def _complete(self) -> None:
        self.lost.clear()
        self.ready.set()
        if self._gap:
            log.info("The subscriber connection to Redis is back.")
            self._gap = False
            self._lapse(None)  # only now: whoever reads the log after this misses nothing more
            for name in self._confirmed:
                if not self._unconfirmed[self._shards.of(name), name]:
                    self._tell_confirmed(name)
            self._on_return()

    def _tell_confirmed(self, name: str) -> None:
        """Let those go on who wait for a subscription; behind a gap not before all are there and it is told."""
        confirmed = self._confirmed.get(name)
        if confirmed is not None and not confirmed.done():
            confirmed.set_result(None)

    def _left(self, shard: str, name: str) -> None:
        """Note the end of a subscription; one that nobody asked for says that the channel's slot moved."""
        if self._leaving[shard, name] > 1:
            self._leaving[shard, name] -= 1
        elif not self._leaving.pop((shard, name), 0):
            self._follow([name])

    def _refused(self, shard: str, slot: int) -> None:
        """Note that a shard does not carry a slot's channels any more."""
        names = [name for name in (*self._wanted, *self._heartbeats) if slot_of(name) == slot]
        for name in names:
            self._unconfirmed.pop((shard, name), None)
            self._leaving.pop((shard, name), None)
        self._follow(names)

    def _follow(self, names: Sequence[str]) -> None:
        if any(name in self._heartbeats for name in names):
            raise ConnectionError("the slot of the heartbeat moved")
        moved = [name for name in names if name in self._wanted]
        self._moved.update(moved)
        self._doubt(moved)
        if moved and self._group is not None:
            self._group.create_task(self._subscribe_again(moved))

    async def _subscribe_again(self, names: list[str]) -> None:
        """Subscribe to channels whose slot moved, where it is now."""
        await asyncio.sleep(BACKOFF_SECONDS[0])  # servers hear of a move one after the other
        async with asyncio.timeout(SUBSCRIBE_SECONDS):
            await self._shards.look()
        self._unwritten += names
        await self._write(self._write_subscribe)

    async def _watch_heartbeat(self, shard: str, heartbeat: str) -> None:
        loop = asyncio.get_running_loop()
        missed = 0
        beaten = self._beaten[shard]
        publish = self._commands.spublish if self._shards.sharded else self._commands.publish
        while missed < 2:
            beaten.clear()
            next_at = loop.time() + HEARTBEAT_SECONDS
            with suppress(Unavailable):
                async with available(HEARTBEAT_SECONDS):
                    await publish(heartbeat, b"")
            await asyncio.sleep(next_at - loop.time())
            missed = 0 if beaten.is_set() else missed + 1
        raise TimeoutError("no heartbeat came through")


def _causes(lost: BaseExceptionGroup[BaseException]) -> str:
    return ", ".join(f"{type(each).__name__} {said_by(each)}" for each in lost.exceptions)
