"""One websocket of the protocol: a reader, and the places up to which it has told each conversation.

Carries out commands through `chat`; owns no answer, so it may end at any moment. Most connections are idle: only the
reader is always there, and a task for each other part as long as it has something to do.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from sys import getsizeof
from typing import Any, Protocol

from llmchat import events
from llmchat.broadcaster import Broadcaster, ChannelLapsed
from llmchat.chat import Chat
from llmchat.errors import CommandError, NotFound, RateLimited, Unavailable
from llmchat.events import Command, ConversationCurrent, Error, Event, Pong
from llmchat.keys import group_of_conversation, group_of_session
from llmchat.limits import Allowance

COMMANDS_WAITING = 100
FRAMES_WAITING = 1000
BYTES_WAITING = 4 * 1024 * 1024
"""Of memory, in frames that are not written yet; a single one may be larger."""
ALL_BYTES_WAITING = 256 * 1024 * 1024
"""Likewise of all connections together; over it, those with more than a little are too slow."""
LITTLE_WAITING = 128 * 1024
SEND_SECONDS = 10.0
CLOSE_SECONDS = 2.0
FRAMES_PER_SECOND = 50
FRAMES_AT_ONCE = 400
"""A client that sends more, for longer, is a flood."""
OPEN_CONVERSATIONS = 100
"""At once; one more closes the one opened first."""
REPEAT_SECONDS = 0.25
RECENT_AFTER_LAPSE = 20

COUNT_SECONDS = 1.0
"""Between two takings of the allowance for frames: a second of them is bounded here."""

BUG_CODE = "internal"
RESTARTING, TOO_SLOW, FLOOD, TOO_LARGE, BUG, SIGNED_OUT, GONE = 1012, 1013, 1008, 1009, 1011, 4401, 1006
CODES = RESTARTING, TOO_SLOW, FLOOD, TOO_LARGE, BUG, SIGNED_OUT, GONE

Direct = Callable[[str | bytes, int], bool]
"""Writes a frame, which so many connections here get, to the peer at once; tells whether it could."""
log = logging.getLogger(__name__)


class Socket(Protocol):
    """What a connection needs of a websocket."""

    async def receive(self) -> str | bytes | None:
        """Raises Gone."""

    async def send(self, frame: str) -> None: ...
    async def close(self, code: int, reason: str = "") -> None: ...


class Closing(Exception):
    """Ends the connection with a close code."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


Welcome = Callable[[], Awaitable[Closing | None]]
"""Tells what ends the connection of who was let in, None where it still is. Raises Unavailable."""


class Gone(Closing):
    """Ends the connection whose peer is not there any more."""

    def __init__(self) -> None:
        super().__init__(GONE, "The peer is gone.")


@dataclass(slots=True)
class _Told:
    """Up to where this connection was told a conversation."""

    epoch: str
    offset: int


class Meter:
    """Counts the frames read, and takes them of the allowance now and then: reading waits for nothing."""

    def __init__(self, allowance: Allowance) -> None:
        self._allowance = allowance
        self._untaken = 0
        self._due: asyncio.TimerHandle | None = None
        self.begin: Callable[[], object] = lambda: None
        """Called COUNT_SECONDS after the first of those that are to be taken: has `take` run."""

    def count(self) -> None:
        """Count one."""
        self._untaken += 1
        if self._untaken == 1:
            self._due = asyncio.get_running_loop().call_later(COUNT_SECONDS, self.begin)

    async def take(self) -> None:
        """Take those of the last second. Raises Closing where they are too many; not while Redis is away."""
        try:
            await self._take()
        except RateLimited:
            raise Closing(FLOOD, "Too many frames.") from None

    async def settle(self) -> None:
        """Take what is left when the connection has ended, so that short ones count, too."""
        if self._due is not None:
            self._due.cancel()
        with suppress(RateLimited):
            await self._take()

    async def _take(self) -> None:
        count, self._untaken = self._untaken, 0
        with suppress(Unavailable):
            await self._allowance.frames(count)


async def frames(socket: Socket, meter: Meter) -> AsyncIterator[str | None]:
    """Read text frames, None for one of another kind. Raises Closing for one too large, and for a flood."""
    loop = asyncio.get_running_loop()
    tokens, last = float(FRAMES_AT_ONCE), loop.time()
    while True:
        frame = await socket.receive()
        meter.count()
        now = loop.time()
        tokens, last = min(FRAMES_AT_ONCE, tokens + (now - last) * FRAMES_PER_SECOND) - 1, now
        if tokens < 0:
            raise Closing(FLOOD, "Too many frames.")
        if not isinstance(frame, str):
            yield None
            continue
        most = events.MAX_FRAME_BYTES
        if len(frame) > most or len(frame.encode("utf-8", "surrogatepass")) > most:
            raise Closing(TOO_LARGE, "The frame is too large.")
        yield frame


async def send(socket: Socket, frame: str) -> None:
    """Write a frame. Raises Closing where the peer does not read it in time."""
    try:
        async with asyncio.timeout(SEND_SECONDS):
            await socket.send(frame)
    except TimeoutError:
        raise Closing(TOO_SLOW, "You read too slowly.") from None


async def check_welcome(welcome: Welcome | None) -> None:
    """Raise Closing where who was let in is not any more; asks until Redis can tell."""
    while welcome is not None:
        try:
            closing = await welcome()
            if closing is None:
                return
            raise closing
        except Unavailable:
            await asyncio.sleep(REPEAT_SECONDS)


def code_of(closing: BaseException) -> int:
    """Tell the close code of what a connection ended in; a bug of ours has one, too."""
    return closing.code if isinstance(closing, Closing) else BUG


async def close(socket: Socket, closing: BaseException) -> None:
    """Close a websocket that may be gone already."""
    if isinstance(closing, Gone) or not isinstance(closing, Closing):
        return
    try:
        async with asyncio.timeout(CLOSE_SECONDS):
            await socket.close(closing.code, closing.reason)
    except Exception as error:  # in whatever way the server tells that it is gone
        log.debug("A websocket was gone before it was closed: %s", type(error).__name__)


class Traffic:
    """What goes through all connections of an instance together."""

    def __init__(self) -> None:
        self.backlog = 0  # bytes of memory that wait to be written
        self.commands = Counter(dict.fromkeys(events.COMMANDS, 0))  # carried out, or tried to, by type
        self.errors = Counter(
            {BUG_CODE: 0} | dict.fromkeys([each.code for each in CommandError.__subclasses__()], 0)
        )
        """Told to clients, by code."""


class Connection:
    """Serves one websocket until either side ends it."""

    __slots__ = (
        "_allowance", "_broadcaster", "_channel", "_chat", "_closing", "_commands", "_direct", "_ending",
        "_failed", "_frames", "_meter", "_obeying", "_ready", "_relaying", "_searching", "_serving", "_session",
        "_socket", "_store_told", "_tasks", "_telling", "_told", "_traffic", "_waiting", "_welcome", "_writing", "ended",
    )  # fmt: skip

    def __init__(
        self,
        socket: Socket,
        allowance: Allowance,
        chat: Chat,
        broadcaster: Broadcaster,
        ready: Event,
        traffic: Traffic,
        *,
        direct: Direct | None = None,
        welcome: Welcome | None = None,
    ) -> None:
        self._socket = socket
        self._direct = direct
        self._session = allowance.session
        self._allowance = allowance
        self._meter = Meter(allowance)
        self._meter.begin = partial(self._begin, self._meter.take)
        self._welcome = welcome  # where sign-outs are to be heard of
        self._chat = chat
        self._broadcaster = broadcaster
        self._ready = ready
        self._channel = ""  # once the store could be reached
        self._store_told = True  # whether it is there, as was told last
        self._commands: list[tuple[float, str]] = []  # that wait, with when each came
        self._obeying = False
        self._failed = float("-inf")  # when the store last failed a command
        self._frames: list[str | bytes] = []  # that wait
        self._writing = False
        self._relaying = True  # and what is to be received waits; at first for what is told before all else
        self._waiting = 0  # bytes of memory in frames that are not written yet
        self._traffic = traffic  # which counts them, too
        self._told: dict[str, _Told] = {}  # conversation that is open here -> up to where it was told
        self._telling = asyncio.Lock()  # held from a read of the log to the last frame that comes of it
        self._tasks = asyncio.TaskGroup()
        self._serving = False
        self._ending = False
        self._closing: Closing | None = None  # that was asked for before it was served
        self._searching: asyncio.Task[object] | None = None
        self.ended = GONE
        """The close code, once it was served."""

    def close(self, code: int, reason: str) -> None:
        """End the connection from outside."""
        if self._serving:
            self._begin(partial(self._end, Closing(code, reason)))
        else:
            self._closing = Closing(code, reason)

    async def serve(self) -> None:
        """Serve until the end; then close the websocket, if it is still there, with what it ended in."""
        closing: BaseException = Closing(BUG, "An error of ours.")
        try:
            async with self._tasks:
                self._serving = True
                try:
                    await self._serve()
                finally:
                    self._ending = True
        except* Closing as ended:
            closing = ended.exceptions[0]
        except* Exception:
            log.exception("A connection failed.")
        finally:
            self._broadcaster.watchers.discard(self._tell_store)
            self._count_waiting(-self._waiting)
            await self._meter.settle()
            if self._channel:
                await self._broadcaster.close_channel(self._channel)
        self.ended = code_of(closing)
        await close(self._socket, closing)
        closing.__traceback__ = None  # it leads to this frame: a ring, until the collector looks

    async def _serve(self) -> None:
        if self._closing is not None:
            raise self._closing
        with suppress(Unavailable):
            await self._join_session()
        self._tell(self._ready)
        self._tell_store(bool(self._channel) and not self._broadcaster.lost.is_set())
        self._broadcaster.watchers.add(self._tell_store)
        if self._welcome is None and self._channel:
            self._relaying = False
            self._wake()
        else:
            self._begin(self._relay_first)
        await self._read()

    def _begin(self, part: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Have a part carried out beside the others, unless all end; its failure ends them."""
        if not self._ending:
            self._tasks.create_task(self._carry_out(part))

    async def _carry_out(self, part: Callable[[], Coroutine[Any, Any, object]]) -> None:
        try:
            await part()
        except Exception:
            self._ending = True
            raise

    async def _end(self, closing: Closing) -> None:
        raise closing

    async def _join_session(self) -> None:
        """Have told here what every connection of the session is told. Raises Unavailable."""
        channel = await self._broadcaster.new_channel("connection.", of_groups=True)
        try:
            await self._broadcaster.group_add(group_of_session(self._session), channel)
        except BaseException:
            await self._broadcaster.close_channel(channel)
            raise
        self._broadcaster.take(channel, self._take, self._wake)
        self._channel = channel

    # The parts

    async def _read(self) -> None:
        """Only read, check and count: what waits here is memory."""
        async for frame in frames(self._socket, self._meter):
            if frame is None:
                self._tell_error(Error(code="bad_frame", detail="The frame is not text."))
                continue
            if len(self._commands) >= COMMANDS_WAITING:
                raise Closing(FLOOD, "Too many commands at once.")
            self._commands.append((asyncio.get_running_loop().time(), frame))
            if not self._obeying:
                self._obeying = True
                self._begin(self._obey)

    async def _obey(self) -> None:
        """Carry out the commands that wait, one after the other."""
        while self._commands:
            came, frame = self._commands.pop(0)
            try:
                command = events.parse_frame(frame)
            except CommandError as error:
                self._tell_error(Error(id=error.id, code=error.code, detail=error.detail))
                continue
            if not isinstance(command, events.Ping) and (not self._channel or came < self._failed):
                self._refuse(
                    command, Unavailable()
                )  # what has waited while the store failed another: that is enough
                continue
            refused = await self._attempt(command, getattr(self, METHODS[type(command)]))
            if isinstance(refused, Unavailable):
                self._failed = asyncio.get_running_loop().time()
        self._obeying = False

    async def _attempt(
        self, command: Command, carry_out: Callable[[Any], Awaitable[None]]
    ) -> CommandError | None:
        """Carry a command out, or tell why it is not; gives the reason."""
        self._traffic.commands[TYPES[type(command)]] += 1
        try:
            await carry_out(command)
        except CommandError as error:
            if isinstance(error, NotFound):
                await check_welcome(self._welcome)  # what is not the session's any more may be the person's
            self._refuse(command, error)
            return error
        except Closing:
            raise
        except Exception:
            number = secrets.token_hex(4)
            log.exception("A command failed; error %s.", number)
            detail = f"Something is wrong on our side. If you report it, quote {number}."
            self._tell_error(Error(id=command.id, code=BUG_CODE, detail=detail))
        return None

    def _refuse(self, command: Command, error: CommandError) -> None:
        self._tell_error(
            Error(id=command.id, code=error.code, detail=error.detail, retry_after=error.retry_after)
        )

    def _tell_error(self, error: Error) -> None:
        self._traffic.errors[error.code] += 1
        self._tell(error)

    def _tell_store(self, available: bool) -> None:
        """Tell when Redis is away, and when it is back; what was missed meanwhile comes by the lapse."""
        if available == self._store_told or (available and not self._channel):
            return
        self._store_told = available
        detail = None if available else "The store is away; nothing is lost"
        try:
            self._tell(events.SessionStore(available=available, detail=detail))
        except Closing as closing:
            self.close(closing.code, str(closing))

    async def _relay_first(self) -> None:
        """Begin to pass on what comes: once the store could be reached, to whoever still is welcome."""
        while not self._channel:
            try:
                await self._broadcaster.ready.wait()
                await self._join_session()
                await self._bring_up_all()
            except Unavailable:
                await asyncio.sleep(REPEAT_SECONDS)
        self._tell_store(self._broadcaster.ready.is_set())
        await check_welcome(self._welcome)  # a sign-out between the handshake and the join was not heard of
        await self._relay()

    def _wake(self) -> None:
        """Have what waits received."""
        if not self._relaying and self._broadcaster.waits(self._channel):
            self._relaying = True
            self._begin(self._relay)

    async def _relay(self) -> None:
        """Pass on what waits."""
        while self._broadcaster.waits(self._channel):
            try:
                message = await self._broadcaster.receive(self._channel)
            except ChannelLapsed:
                await check_welcome(self._welcome)  # it may have been a sign-out
                await self._bring_up_all()
                continue
            # Others than we may publish in our Redis, and what is no message of ours is passed over.
            match message:
                case {
                    "type": "event",
                    "conversation": str(),
                    "epoch": str(),
                    "offset": int(),
                    "frame": bytes(),
                }:
                    await self._relay_event(message)
                case {"type": "signed_out"}:
                    # One of several browsers of a session, perhaps another one.
                    await check_welcome(self._welcome)
                case {"type": "session.event", "frame": str(frame)}:
                    self._put(frame)
        self._relaying = False

    async def _write(self) -> None:
        """Write the frames that wait."""
        while self._frames:
            frame = self._frames.pop(0)
            self._count_waiting(-getsizeof(frame))
            await send(self._socket, frame if isinstance(frame, str) else frame.decode())
        self._writing = False

    def _tell(self, event: Event) -> None:
        self._put(event.encode())

    def _put(self, frame: str | bytes, readers: int = 1) -> None:
        """Have a frame written: at once, where the peer takes it and nothing waits before it."""
        if self._direct is not None and not self._writing and self._direct(frame, readers):
            return
        size = getsizeof(frame)
        most = LITTLE_WAITING if self._traffic.backlog + size > ALL_BYTES_WAITING else BYTES_WAITING
        if len(self._frames) >= FRAMES_WAITING or (self._waiting + size > most and self._frames):
            raise Closing(TOO_SLOW, "You read too slowly.")
        self._count_waiting(size)
        self._frames.append(frame)
        if not self._writing:
            self._writing = True
            self._begin(self._write)

    def _count_waiting(self, size: int) -> None:
        self._waiting += size
        self._traffic.backlog += size

    # Places

    def _take(self, message: dict[str, Any], readers: int) -> bool:
        """Pass on, without a turn of the loop, the event that is the next one."""
        if message.get("type") != "event" or self._telling.locked() or self._ending:
            return False
        conversation, frame = message.get("conversation"), message.get("frame")
        told = self._told.get(conversation) if isinstance(conversation, str) else None
        if told is None or message.get("epoch") != told.epoch or message.get("offset") != told.offset + 1:
            return False
        if not isinstance(frame, bytes):
            return False
        try:
            self._put(frame, readers)
        except Closing as closing:
            self.close(closing.code, str(closing))
        told.offset += 1
        return True

    async def _relay_event(self, message: dict[str, Any]) -> None:
        """Pass an event on if it is the next one; drop it if it was told; fetch what is missing before it."""
        conversation = message["conversation"]
        async with self._telling:
            told = self._told.get(conversation)
            if told is None:
                return
            if message["epoch"] == told.epoch and message["offset"] <= told.offset:
                return
            if message["epoch"] == told.epoch and message["offset"] == told.offset + 1:
                self._put(message["frame"])
                told.offset += 1
                return
        await self._bring_up(conversation)

    async def _bring_up(self, conversation: str) -> None:
        """Tell what an open conversation's connection missed, as soon as Redis can be read."""
        while True:
            try:
                async with self._telling:
                    told = self._told.get(conversation)
                    if told is not None:
                        await self._resume(conversation, events.Place(epoch=told.epoch, offset=told.offset))
                return
            except NotFound:
                await self._leave(conversation)
                self._tell(events.ConversationDeleted(conversation=conversation))
                return
            except Unavailable:
                await asyncio.sleep(REPEAT_SECONDS)

    async def _bring_up_all(self) -> None:
        """After a lapse: bring every open conversation and the list up to date."""
        for conversation in list(self._told):
            await self._bring_up(conversation)
        newest = events.ConversationList(type="conversation.list", limit=RECENT_AFTER_LAPSE)
        while True:
            try:
                listed = await self._chat.listed(self._session, newest)
            except Unavailable:
                await asyncio.sleep(REPEAT_SECONDS)
                continue
            for recent in listed.conversations:
                self._tell(events.ConversationUpdated(conversation=recent))
            return

    async def _resume(
        self, conversation: str, place: events.Place | None, command: str | None = None
    ) -> None:
        """Tell what came after a place, or all there is. The caller holds `_telling`."""
        if place is not None:
            try:
                frames, at = await self._chat.after(self._session, conversation, place)
            except LookupError:
                pass
            else:
                for frame in frames:
                    self._put(frame)
                self._tell(ConversationCurrent(id=command, conversation=conversation, at=at))
                self._told[conversation] = _Told(**at)
                return
        snapshot = await self._chat.snapshot(self._session, conversation, command=command)
        self._tell(snapshot)
        self._told[conversation] = _Told(**snapshot.at)

    async def _join(self, conversation: str) -> None:
        if conversation not in self._told and len(self._told) >= OPEN_CONVERSATIONS:
            oldest = next(iter(self._told))
            await self._leave(oldest)
        await self._broadcaster.group_add(group_of_conversation(conversation), self._channel)

    async def _leave(self, conversation: str) -> None:
        self._told.pop(conversation, None)
        await self._broadcaster.group_discard(group_of_conversation(conversation), self._channel)

    # Commands

    async def _open(self, command: events.ConversationOpen) -> None:
        conversation = command.conversation
        await self._chat.check(self._session, conversation)  # nobody joins another session's group
        await self._join(conversation)
        try:
            async with self._telling:
                await self._resume(conversation, command.after, command.id)
        except CommandError:
            if conversation not in self._told:
                await self._leave(conversation)
            raise

    async def _close_conversation(self, command: events.ConversationClose) -> None:
        await self._leave(command.conversation)

    async def _older(self, command: events.ConversationOlder) -> None:
        self._tell(await self._chat.older(self._session, command))

    async def _list(self, command: events.ConversationList) -> None:
        self._tell(await self._chat.listed(self._session, command))

    async def _search(self, command: events.ConversationSearch) -> None:
        """Begin to search, and end the search before: no other command waits for one."""
        if self._searching is not None:
            self._searching.cancel()
        self._searching = self._tasks.create_task(
            self._carry_out(partial(self._attempt, command, self._find))
        )

    async def _find(self, command: events.ConversationSearch) -> None:
        self._tell(await self._chat.search(self._session, command))

    async def _summary(self, command: events.ConversationSummary) -> None:
        self._tell(await self._chat.summary(self._session, command))

    async def _correct(self, command: events.SummaryCorrect) -> None:
        self._tell(await self._chat.correct(self._session, command))

    async def _share(self, command: events.ShareCreate) -> None:
        self._tell(await self._chat.share(self._session, command))

    async def _list_shares(self, command: events.ShareList) -> None:
        self._tell(await self._chat.shares(self._session, command))

    async def _revoke(self, command: events.ShareRevoke) -> None:
        self._tell(await self._chat.revoke(self._session, command))

    async def _update(self, command: events.ConversationUpdate) -> None:
        updated = await self._chat.update(self._session, command)
        if command.id is not None:
            self._tell(replace(updated, id=command.id))

    async def _delete(self, command: events.ConversationDelete) -> None:
        await self._chat.delete(self._session, command.conversation)
        if command.id is not None:
            self._tell(events.ConversationDeleted(id=command.id, conversation=command.conversation))

    async def _restore(self, command: events.ConversationRestore) -> None:
        restored = await self._chat.restore(self._session, command.conversation)
        if command.id is not None:
            self._tell(replace(restored, id=command.id))

    async def _see(self, command: events.ConversationRead) -> None:
        read = await self._chat.read(self._session, command.conversation)
        if command.id is not None:
            self._tell(replace(read, id=command.id))

    async def _send(self, command: events.MessageSend) -> None:
        conversation = await self._chat.conversation_of(self._session, command)
        if command.conversation is not None and conversation not in self._told:
            await self._chat.check(self._session, conversation)
        await self._join(conversation)
        try:
            async with self._telling:
                accepted = await self._chat.send(self._session, command, self._allowance)
                if conversation not in self._told:
                    self._told[conversation] = _Told(**accepted.told)
                self._tell(accepted.event)
        except CommandError:
            if conversation not in self._told:
                await self._leave(conversation)
            raise
        if not accepted.repeated:
            await self._chat.tell_list(self._session, conversation)

    async def _select(self, command: events.MessageSelect) -> None:
        await self._chat.select(self._session, command)

    async def _stop(self, command: events.CompletionStop) -> None:
        if not await self._chat.stop(self._session, command):
            await self._tell_current(command.conversation, command.id)

    async def _regenerate(self, command: events.CompletionRegenerate) -> None:
        if not await self._chat.regenerate(self._session, command, self._allowance):
            await self._tell_current(command.conversation, command.id)

    async def _continue(self, command: events.CompletionContinue) -> None:
        if not await self._chat.go_on(self._session, command, self._allowance):
            await self._tell_current(command.conversation, command.id)

    async def _withdraw(self, command: events.MessageWithdraw) -> None:
        if not await self._chat.withdraw(self._session, command):
            await self._tell_current(command.conversation, command.id)

    async def _tell_current(self, conversation: str, command: str | None) -> None:
        """Answer a command that brings nothing about with where the client stands."""
        async with self._telling:
            told = self._told.get(conversation)
            at = asdict(told) if told else await self._chat.place(self._session, conversation)
            self._tell(ConversationCurrent(id=command, conversation=conversation, at=at))

    async def _ping(self, command: events.Ping) -> None:
        self._tell(Pong(id=command.id))


METHODS: dict[type[Command], str] = {
    events.ConversationOpen: "_open",
    events.ConversationClose: "_close_conversation",
    events.ConversationOlder: "_older",
    events.ConversationList: "_list",
    events.ConversationSearch: "_search",
    events.ConversationSummary: "_summary",
    events.SummaryCorrect: "_correct",
    events.ShareCreate: "_share",
    events.ShareList: "_list_shares",
    events.ShareRevoke: "_revoke",
    events.ConversationUpdate: "_update",
    events.ConversationDelete: "_delete",
    events.ConversationRestore: "_restore",
    events.ConversationRead: "_see",
    events.MessageSend: "_send",
    events.MessageSelect: "_select",
    events.MessageWithdraw: "_withdraw",
    events.CompletionStop: "_stop",
    events.CompletionRegenerate: "_regenerate",
    events.CompletionContinue: "_continue",
    events.Ping: "_ping",
}
"""What carries each command out."""
TYPES = {command: name for name, command in events.COMMANDS.items()}
