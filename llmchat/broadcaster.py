"""The channel layer: groups of channels over Redis pub/sub, for any number of processes.

Channels' group words with Channels' meaning. Knows nothing of chats: usable on its own. Pub/sub is for speed and
forgets; whoever must not miss anything keeps a log and, told by `ChannelLapsed`, reads on there.
"""

from __future__ import annotations

import asyncio
import copy
import fnmatch
import logging
import re
import secrets
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import msgpack

from llmchat.errors import LlmchatError
from llmchat.keys import redis_channel
from llmchat.redis_client import available, connect, connect_subscriber
from llmchat.subscriber import Subscriber

CHANNEL_NAME = re.compile(r"[A-Za-z0-9._-]+(![A-Za-z0-9._-]*)?", re.ASCII)
GROUP_NAME = re.compile(r"[A-Za-z0-9._-]+", re.ASCII)
NAME_CHARACTERS = 99

log = logging.getLogger(__name__)

Message = dict[str, Any]


class ChannelFull(LlmchatError):
    """The channel's inbox holds as many messages as it may."""


class ChannelLapsed(LlmchatError):
    """The channel may have missed messages: its inbox was full, or the connection to Redis was lost."""


class _Inbox:
    """What one channel of this process has not received yet."""

    def __init__(self, capacity: int, expiry: float) -> None:
        self.capacity = capacity
        self.groups: set[str] = set()
        self._expiry = expiry
        self._messages: deque[tuple[float, Message]] = deque()
        self._lapsed = False
        self._news = asyncio.Event()

    @property
    def full(self) -> bool:
        return len(self._messages) >= self.capacity

    def put(self, message: Message) -> None:
        if self.full or self._lapsed:  # a lapse is told before anything newer
            self.lapse()
            return
        self._messages.append((asyncio.get_running_loop().time() + self._expiry, message))
        self._news.set()

    def lapse(self) -> None:
        self._lapsed = True
        self._news.set()

    async def get(self) -> Message:
        while True:
            while self._messages:
                deadline, message = self._messages.popleft()
                if asyncio.get_running_loop().time() < deadline:
                    return message
            if self._lapsed:
                self._lapsed = False
                raise ChannelLapsed("Messages may be missing: read on in the log.")
            self._news.clear()
            await self._news.wait()


class Broadcaster:
    """A channel layer on one Redis. One object, one event loop.

    `capacity` is of each channel's inbox, in messages; `channel_capacity` maps globs or patterns to other numbers,
    first match wins. `expiry` is in seconds. `group_expiry` has no effect: a membership is its process's.
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
    ) -> None:
        url = _url(hosts)
        self._commands = connect(url, retries=0)  # a PUBLISH repeated after a lost reply would arrive twice
        self._subscriber = Subscriber(
            connect_subscriber(url), self._commands, prefix, self._deliver, self._lapse_all
        )
        self._prefix = prefix
        self._capacity = capacity
        self._channel_capacity = [
            (re.compile(fnmatch.translate(match)) if isinstance(match, str) else match, number)
            for match, number in (channel_capacity or {}).items()
        ]
        self._expiry = expiry
        self._inboxes: dict[str, _Inbox] = {}  # channel of this process -> what it has not received
        self._readers: dict[str, set[str]] = {}  # Redis channel -> the channels here that get what it carries
        self._loop: asyncio.AbstractEventLoop | None = None
        self.lapses = 0
        """How often a channel may have missed messages."""

    @property
    def lost(self) -> asyncio.Event:
        """Set while the connection to Redis is lost."""
        return self._subscriber.lost

    @property
    def ready(self) -> asyncio.Event:
        """Set while the connection to Redis carries every subscription."""
        return self._subscriber.ready

    async def new_channel(self, prefix: str = "specific.") -> str:
        """Make a channel of this process. What is sent to it from now on arrives. Raises Unavailable."""
        channel = _checked(f"{prefix}{secrets.token_hex(16)}", CHANNEL_NAME, "channel")
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
        """Give a channel back: it leaves its groups. What is not there is no error."""
        inbox = self._inboxes.pop(channel, None)
        if inbox is None:
            return
        groups = [redis_channel(self._prefix, "group", group) for group in inbox.groups]
        names = [redis_channel(self._prefix, "channel", channel), *groups]
        await self._subscriber.unsubscribe([name for name in names if self._forget_reader(name, channel)])

    async def send(self, channel: str, message: Message) -> None:
        """Send to one channel. Raises ChannelFull for a full one of this process, Unavailable."""
        self._check_loop()
        _checked(channel, CHANNEL_NAME, "channel")
        inbox = self._inboxes.get(channel)
        if inbox is not None and inbox.full:
            raise ChannelFull(channel)
        await self._publish(redis_channel(self._prefix, "channel", channel), message)

    async def receive(self, channel: str) -> Message:
        """Wait for the channel's next message. Cancelling keeps the message and the channel.

        Raises ChannelLapsed once after messages may have been missed; the next call goes on.
        """
        self._check_loop()
        _checked(channel, CHANNEL_NAME, "channel")
        if channel not in self._inboxes:
            await self._open(channel)
        return await self._inboxes[channel].get()

    async def group_add(self, group: str, channel: str) -> None:
        """Add a channel of this process to a group; what anyone sends afterwards arrives.

        Raises RuntimeError for a channel that is not of this process, Unavailable.
        """
        self._check_loop()
        _checked(group, GROUP_NAME, "group")
        inbox = self._own(_checked(channel, CHANNEL_NAME, "channel"))
        inbox.groups.add(group)
        try:
            await self._read(redis_channel(self._prefix, "group", group), channel)
        except BaseException:
            await self._leave(group, channel, inbox)
            raise

    async def group_discard(self, group: str, channel: str) -> None:
        """Take a channel out of a group. What is not there is no error."""
        self._check_loop()
        _checked(group, GROUP_NAME, "group")
        inbox = self._inboxes.get(_checked(channel, CHANNEL_NAME, "channel"))
        if inbox is not None and group in inbox.groups:
            await self._leave(group, channel, inbox)

    async def group_send(self, group: str, message: Message) -> None:
        """Send to every channel in a group, the sender's own included. Raises Unavailable, never ChannelFull."""
        self._check_loop()
        _checked(group, GROUP_NAME, "group")
        await self._publish(redis_channel(self._prefix, "group", group), message)

    async def flush(self) -> None:
        """Forget all messages, channels and groups of this process; usable again."""
        self._inboxes.clear()
        self._readers.clear()
        await self._subscriber.stop()

    async def close(self) -> None:
        """End for good."""
        await self.flush()
        await self._subscriber.close()
        await self._commands.aclose()

    async def _open(self, channel: str) -> None:
        self._check_loop()
        if channel not in self._inboxes:
            self._inboxes[channel] = _Inbox(self._capacity_of(channel), self._expiry)
        try:
            await self._read(redis_channel(self._prefix, "channel", channel), channel)
        except BaseException:
            await self.close_channel(channel)
            raise

    async def _leave(self, group: str, channel: str, inbox: _Inbox) -> None:
        inbox.groups.discard(group)
        name = redis_channel(self._prefix, "group", group)
        if self._forget_reader(name, channel):
            await self._subscriber.unsubscribe([name])

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
        async with available():
            await self._commands.publish(name, envelope)

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
            for channel in readers:
                self._inboxes[channel].lapse()
            self.lapses += len(readers)
            return
        flat = all(not isinstance(value, (dict, list)) for value in message.values())
        for inbox in [self._inboxes[channel] for channel in readers]:
            self.lapses += inbox.full
            inbox.put(dict(message) if flat else copy.deepcopy(message))

    def _lapse_all(self) -> None:
        self.lapses += len(self._inboxes)
        for inbox in self._inboxes.values():
            inbox.lapse()

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


def _url(hosts: str | Iterable[Any] | None) -> str:
    if isinstance(hosts, str):
        return hosts
    given = list(hosts) if hosts is not None else ["redis://localhost:6379"]
    if len(given) != 1:
        raise ValueError("One Redis, or one Cluster: several hosts without a Cluster are not supported.")
    host = given[0]
    if isinstance(host, dict):
        host = host["address"]
    if isinstance(host, tuple):
        host = f"redis://{host[0]}:{host[1]}"
    return str(host)
