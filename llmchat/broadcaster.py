"""The channel layer: groups of channels over Redis pub/sub, for any number of processes.

Channels' group words with Channels' meaning. Knows nothing of chats: usable on its own. Pub/sub is for speed and
forgets; whoever must not miss anything keeps a log and, told by `ChannelLapsed`, reads on there.
"""

from __future__ import annotations

import asyncio
import fnmatch
import logging
import re
import secrets
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import msgpack
from redis.asyncio import Redis

from llmchat.errors import LlmchatError
from llmchat.hosts import connected
from llmchat.keys import redis_channel
from llmchat.redis_client import available
from llmchat.shards import Shards
from llmchat.subscriber import Subscriber

CHANNEL_NAME = re.compile(r"[A-Za-z0-9._-]+(![A-Za-z0-9._-]*)?", re.ASCII)
GROUP_NAME = re.compile(r"[A-Za-z0-9._-]+", re.ASCII)
NAME_CHARACTERS = 99

log = logging.getLogger(__name__)

Message = dict[str, Any]
Taker = Callable[[Message, int], bool]
"""Given a message and how many channels here get it, tells whether it took it. It must neither change it nor wait."""


class ChannelFull(LlmchatError):
    """The channel's inbox holds as many messages as it may."""


class ChannelLapsed(LlmchatError):
    """The channel may have missed messages: its inbox was full, or the connection to Redis was lost."""


@dataclass(slots=True)
class _Reading:
    """That one channel gets what one Redis channel carries."""

    waiting: int = 0
    """how many wait for Redis to confirm it"""
    confirmed: bool = False


class _Inbox:
    """What one channel of this process has not received yet. Thousands are idle: what few need is made when it is."""

    __slots__ = (
        "_ended", "_expiry", "_lapsed", "_messages", "_news", "capacity", "groups", "own", "taker", "wake",
    )  # fmt: skip

    def __init__(self, capacity: int, expiry: float) -> None:
        self.capacity = capacity
        self.own = _Reading()  # of what is sent to the channel itself
        self.groups: dict[str, _Reading] = {}
        self._expiry = expiry
        self._messages: deque[tuple[float, Message]] | None = None  # and by when each is to be received
        self._lapsed = False
        self._ended = False
        self._news: asyncio.Event | None = None  # once somebody has waited
        self.taker: Taker | None = None
        self.wake: Callable[[], object] | None = None

    @property
    def depth(self) -> int:
        return len(self._messages or ())

    @property
    def full(self) -> bool:
        return len(self._messages or ()) >= self.capacity

    @property
    def waits(self) -> bool:
        """Whether there is something to be received."""
        return bool(self._messages) or self._lapsed

    def offer(self, message: Message, readers: int) -> bool:
        """Tell whether the taker took a message that nothing waits before."""
        if self.taker is None or self._messages or self._lapsed:
            return False
        try:
            return self.taker(message, readers)
        except Exception:  # what is not ours must not end the connection
            log.exception("A message was not taken.")
            return False

    def put(self, message: Message) -> None:
        if self.full or self._lapsed:  # a lapse is told before anything newer
            self.lapse()
            return
        if self._messages is None:
            self._messages = deque()
        self._messages.append((asyncio.get_running_loop().time() + self._expiry, message))
        self._tell()

    def lapse(self) -> None:
        self._lapsed = True
        self._tell()

    def end(self) -> None:
        """Tell each who waits, and whoever comes late, of a lapse."""
        self._ended = True
        self.groups.clear()
        self.lapse()

    def _tell(self) -> None:
        if self._news is not None:
            self._news.set()
        if self.wake is not None:
            try:
                self.wake()
            except Exception:  # likewise
                log.exception("Whoever receives was not woken.")

    async def get(self) -> Message:
        while True:
            while self._messages:
                deadline, message = self._messages.popleft()
                if not self._messages:
                    self._messages = None
                if asyncio.get_running_loop().time() < deadline:
                    return message
            if self._lapsed:
                self._lapsed = self._ended
                raise ChannelLapsed("Messages may be missing: read on in the log.")
            if self._news is None:
                self._news = asyncio.Event()
            self._news.clear()
            await self._news.wait()


class Broadcaster:
    """A channel layer on one Redis, a master that Sentinels know, or a Cluster. One object, one event loop.

    `hosts` is an address (URL), or a list with one of what Channels knows: a URL, `(host, port)`, a dict with
    `address` or with `sentinels` and `master_name`. Instead of it, `client` is a redis-py client: its server is used,
    over connections of our own. `capacity` is of each channel's inbox, in messages; `channel_capacity` maps globs or
    patterns to other numbers, first match wins. `expiry` is in seconds. `group_expiry` has no effect: a membership is
    its process's. `on_disconnect` and `on_reconnect` are called, without arguments, when the connection is lost and
    when all is subscribed again. `symmetric_encryption_keys` and another `serializer_format` are refused.
    """

    extensions: ClassVar[list[str]] = ["groups", "flush"]
    ChannelFull = ChannelFull
    ChannelLapsed = ChannelLapsed

    def __init__(
        self,
        hosts: str | Iterable[Any] | None = None,
        prefix: str = "asgi",
        capacity: int = 100,
        channel_capacity: Mapping[str | re.Pattern[str], int] | None = None,
        expiry: float = 60,
        group_expiry: float = 86400,
        *,
        client: Redis | None = None,
        on_disconnect: Callable[[], object] | None = None,
        on_reconnect: Callable[[], object] | None = None,
        symmetric_encryption_keys: Sequence[str | bytes] | None = None,
        serializer_format: str = "msgpack",
    ) -> None:
        if symmetric_encryption_keys:
            raise ValueError("Messages are not encrypted here: use TLS (rediss://), and leave the keys out.")
        if serializer_format != "msgpack":
            raise ValueError("Messages are MessagePack here: leave serializer_format out.")
        if client is not None and hosts is not None:
            raise ValueError("Give hosts or a client, not both.")
        prefix = _checked_prefix(prefix)
        self._commands, reading = connected(hosts, client)
        self._shards = Shards(reading)
        self._subscriber = Subscriber(
            self._shards,
            self._commands,
            prefix,
            self._deliver,
            self._lapse,
            on_loss=partial(self._tell, False, on_disconnect),
            on_return=partial(self._tell, True, on_reconnect),
        )
        self.watchers: set[Callable[[bool], object]] = set()
        """Each is called with False when the connection to Redis is lost, and with True when all is subscribed again."""
        self._reading = reading
        self._prefix = prefix
        self._capacity = _checked_capacity(capacity)
        self._channel_capacity = [
            (
                re.compile(fnmatch.translate(match)) if isinstance(match, str) else match,
                _checked_capacity(number),
            )
            for match, number in (channel_capacity or {}).items()
        ]
        self._expiry = _checked_expiry(expiry)
        self._inboxes: dict[str, _Inbox] = {}  # channel of this process -> what it has not received
        self._readers: dict[str, set[str]] = {}  # Redis channel -> the channels here that get what it carries
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self.lapses = 0
        """How often a channel may have missed messages."""
        self.overflows = 0
        """How often among them because its inbox was full."""

    @property
    def gaps(self) -> int:
        """How often the connection to Redis was lost."""
        return self._subscriber.gaps

    @property
    def depths(self) -> list[int]:
        """How many messages wait in each channel of this process."""
        return [inbox.depth for inbox in self._inboxes.values()]

    @property
    def lost(self) -> asyncio.Event:
        """Set while the connection to Redis is lost."""
        return self._subscriber.lost

    @property
    def ready(self) -> asyncio.Event:
        """Set while the connection to Redis carries every subscription."""
        return self._subscriber.ready

    async def new_channel(self, prefix: str = "specific.", *, of_groups: bool = False) -> str:
        """Make a channel of this process. What is sent to it from now on arrives. Raises Unavailable.

        One that is `of_groups` gets only what is sent to its groups, and costs Redis no subscription of its own.
        """
        channel = _checked(f"{prefix}{secrets.token_hex(16)}", CHANNEL_NAME, "channel")
        if of_groups:
            self._check_open()
            inbox = self._inboxes[channel] = _Inbox(self._capacity_of(channel), self._expiry)
            inbox.own.confirmed = True
        else:
            await self._open(channel)
        return channel

    @asynccontextmanager
    async def channel(self, prefix: str = "specific.") -> AsyncIterator[str]:
        """Make a channel and give it back at the end."""
        name = await self.new_channel(prefix)
        try:
            yield name
        finally:
            await self.close_channel(name)

    async def close_channel(self, channel: str) -> None:
        """Give a channel back: it leaves its groups. What is not there is no error.

        Whoever waits for a message of it is told of a lapse.
        """
        self._check_loop()
        inbox = self._inboxes.get(_checked(channel, CHANNEL_NAME, "channel"))
        if inbox is not None:
            self._give_back(channel, inbox)

    async def send(self, channel: str, message: Message) -> None:
        """Send to one channel. Raises ChannelFull for a full one of this process, Unavailable."""
        self._check_open()
        _checked(channel, CHANNEL_NAME, "channel")
        inbox = self._inboxes.get(channel)
        if inbox is not None and inbox.full:
            raise ChannelFull(channel)
        await self._publish(redis_channel(self._prefix, "channel", channel), message)

    async def receive(self, channel: str) -> Message:
        """Wait for the channel's next message. Cancelling keeps the message and the channel.

        Raises ChannelLapsed once after messages may have been missed; the next call goes on.
        """
        self._check_open()
        _checked(channel, CHANNEL_NAME, "channel")
        inbox = self._inboxes.get(channel)
        if inbox is None or not inbox.own.confirmed:
            inbox = await self._open(channel)
        return await inbox.get()

    def take(self, channel: str, taker: Taker, wake: Callable[[], object]) -> None:
        """Have messages of a channel of this process taken as they come, rather than received by a task that waits.

        What is not taken, what comes behind it and a lapse are received: `wake` is called for each. Raises RuntimeError
        for a channel that is not of this process.
        """
        inbox = self._own(_checked(channel, CHANNEL_NAME, "channel"))
        inbox.taker, inbox.wake = taker, wake

    def waits(self, channel: str) -> bool:
        """Tell whether a channel of this process has something to be received."""
        inbox = self._inboxes.get(_checked(channel, CHANNEL_NAME, "channel"))
        return inbox is not None and inbox.waits

    async def group_add(self, group: str, channel: str) -> None:
        """Add a channel of this process to a group; what anyone sends afterwards arrives.

        Raises RuntimeError for a channel that is not of this process, Unavailable.
        """
        self._check_open()
        _checked(group, GROUP_NAME, "group")
        inbox = self._own(_checked(channel, CHANNEL_NAME, "channel"))
        reading = inbox.groups.setdefault(group, _Reading())
        with self._waiting(reading) as alone:
            try:
                await self._read(redis_channel(self._prefix, "group", group), channel)
                reading.confirmed = True
            except BaseException:
                if alone() and inbox.groups.get(group) is reading:
                    self._leave(group, channel, inbox)
                raise

    async def group_discard(self, group: str, channel: str) -> None:
        """Take a channel out of a group. What is not there is no error."""
        self._check_open()
        _checked(group, GROUP_NAME, "group")
        inbox = self._inboxes.get(_checked(channel, CHANNEL_NAME, "channel"))
        if inbox is not None and group in inbox.groups:
            self._leave(group, channel, inbox)

    async def group_send(self, group: str, message: Message) -> None:
        """Send to every channel in a group, the sender's own included. Raises Unavailable, never ChannelFull."""
        self._check_open()
        _checked(group, GROUP_NAME, "group")
        await self._publish(redis_channel(self._prefix, "group", group), message)

    async def flush(self) -> None:
        """Forget all messages, channels and groups of this process, and close its connections; usable again.

        Whoever waits for a message is told of a lapse.
        """
        self._check_loop()
        inboxes = list(self._inboxes.values())
        self._inboxes.clear()
        self._readers.clear()
        for inbox in inboxes:
            inbox.taker = inbox.wake = None
            inbox.end()
        await self._subscriber.stop()
        closing = (self._reading.aclose(), self._commands.aclose())
        for failed in await asyncio.gather(*closing, return_exceptions=True):
            if failed is not None:
                log.debug("A connection did not close in order: %s", failed)

    async def close(self) -> None:
        """End for good."""
        self._check_loop()
        self._closed = True
        await self.flush()

    async def _open(self, channel: str) -> _Inbox:
        self._check_open()
        inbox = self._inboxes.get(channel)
        if inbox is None:
            inbox = self._inboxes[channel] = _Inbox(self._capacity_of(channel), self._expiry)
        with self._waiting(inbox.own) as alone:
            try:
                await self._read(redis_channel(self._prefix, "channel", channel), channel)
                inbox.own.confirmed = True
            except BaseException:
                if alone() and self._inboxes.get(channel) is inbox:
                    self._give_back(channel, inbox)
                raise
        return inbox

    def _give_back(self, channel: str, inbox: _Inbox) -> None:
        del self._inboxes[channel]
        groups = [redis_channel(self._prefix, "group", group) for group in inbox.groups]
        names = [redis_channel(self._prefix, "channel", channel), *groups]
        inbox.taker = inbox.wake = None
        inbox.end()
        self._subscriber.unsubscribe([name for name in names if self._forget_reader(name, channel)])

    @staticmethod
    @contextmanager
    def _waiting(reading: _Reading) -> Iterator[Callable[[], bool]]:
        """Count those who wait at once, and tell whether nobody else does or got it: one that fails takes nothing."""
        reading.waiting += 1
        try:
            yield lambda: reading.waiting == 1 and not reading.confirmed
        finally:
            reading.waiting -= 1

    def _leave(self, group: str, channel: str, inbox: _Inbox) -> None:
        del inbox.groups[group]
        name = redis_channel(self._prefix, "group", group)
        if self._forget_reader(name, channel):
            self._subscriber.unsubscribe([name])

    def _forget_reader(self, name: str, channel: str) -> bool:
        """Tell whether it was the last that read this Redis channel."""
        readers = self._readers.get(name)
        if readers is None:
            return False
        readers.discard(channel)
        if readers:
            return False
        del self._readers[name]
        return True

    async def _read(self, name: str, channel: str) -> None:
        self._readers.setdefault(name, set()).add(channel)
        await self._subscriber.subscribe(name)

    async def _publish(self, name: str, message: Message) -> None:
        if not isinstance(message, dict):
            raise TypeError("A message must be a dict.")
        envelope = _packed(message)
        publish = self._commands.spublish if self._shards.sharded else self._commands.publish
        async with available():
            await publish(name, envelope)

    def _deliver(self, name: str, envelope: bytes) -> None:
        readers = self._readers.get(name)
        if not readers:
            return
        try:
            message = msgpack.unpackb(envelope)
            if not isinstance(message, dict):
                raise TypeError(type(message).__name__)
        except (ValueError, TypeError, msgpack.UnpackException) as error:
            log.warning("A message that cannot be read came on %s: %s", name, type(error).__name__)
            self._lapse([name])
            return
        flat = None  # whether a copy of the dict is enough
        for inbox in [self._inboxes[channel] for channel in readers]:
            if inbox.offer(message, len(readers)):
                continue
            if flat is None:
                flat = all(not isinstance(value, (dict, list)) for value in message.values())
            self.lapses += inbox.full
            self.overflows += inbox.full
            inbox.put(dict(message) if flat else msgpack.unpackb(envelope))  # nobody shares what is in it

    def _lapse(self, names: Iterable[str] | None) -> None:
        """Tell all channels, or those that read some Redis channels, that they may have missed something."""
        channels = (
            self._inboxes
            if names is None
            else {each for name in names for each in self._readers.get(name, ())}
        )
        self.lapses += len(channels)
        for channel in channels:
            self._inboxes[channel].lapse()

    def _tell(self, ready: bool, callback: Callable[[], object] | None) -> None:
        """Call what is not ours: its failure must not end the connection."""
        callbacks: list[Callable[[], object]] = [partial(each, ready) for each in self.watchers]
        for each in [*callbacks, *([callback] if callback is not None else [])]:
            try:
                each()
            except Exception:
                log.exception("Whoever watches the connection to Redis failed.")

    def _own(self, channel: str) -> _Inbox:
        try:
            return self._inboxes[channel]
        except KeyError:
            raise RuntimeError(f"{channel} is not a channel of this process.") from None

    def _capacity_of(self, channel: str) -> int:
        for pattern, number in self._channel_capacity:
            if pattern.match(channel):
                return number
        return self._capacity

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("This Broadcaster is closed.")
        self._check_loop()

    def _check_loop(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise RuntimeError("This Broadcaster is used from another event loop; make one for each loop.")


def _checked(name: str, pattern: re.Pattern[str], kind: str) -> str:
    if not isinstance(name, str) or len(name) > NAME_CHARACTERS or not pattern.fullmatch(name):
        raise TypeError(
            f"A {kind} name is a str of at most {NAME_CHARACTERS} ASCII letters, digits, hyphens, underscores and "
            f"periods{', with at most one !' if kind == 'channel' else ''}; not {name!r:.120}."
        )
    return name


def _packed(message: Message) -> bytes:
    envelope: bytes = msgpack.packb(message)
    try:
        msgpack.unpackb(envelope)
    except ValueError:  # it packs what it refuses to unpack
        raise TypeError("The keys of a message's dicts must be str.") from None
    return envelope


def _checked_prefix(prefix: str) -> str:
    if not isinstance(prefix, str) or set(prefix) & {"{", "}"}:
        raise ValueError(
            "A prefix is a str without braces: they would say where in a Cluster a channel belongs."
        )
    return prefix


def _checked_expiry(expiry: float) -> float:
    if isinstance(expiry, bool) or not isinstance(expiry, int | float) or not expiry >= 0:
        raise ValueError(f"An expiry is a number of seconds, not {expiry!r:.40}.")
    return expiry


def _checked_capacity(capacity: int) -> int:
    if isinstance(capacity, bool) or not isinstance(capacity, int) or capacity < 0:
        raise ValueError(f"A capacity is a number of messages, not {capacity!r:.40}.")
    return capacity
