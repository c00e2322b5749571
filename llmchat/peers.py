"""What a peer may do to Hypercorn's connections: limits that it lacks and has no settings for.

Knows Hypercorn's inside, and nothing of what is served. Each limit says what happens without it.
"""

from __future__ import annotations

import asyncio
import copy
import logging
import math
import resource
import socket
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from contextvars import Context
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any, cast

import h11
import h11._connection
import hypercorn.asyncio.run
import hypercorn.asyncio.tcp_server
import hypercorn.protocol.h11
from hypercorn.asyncio.task_group import TaskGroup, _handle
from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.asyncio.worker_context import WorkerContext
from hypercorn.config import Config
from hypercorn.events import Closed
from hypercorn.protocol import ws_stream
from hypercorn.protocol.events import Body, Data, Event, Request, Response, StreamClosed
from hypercorn.protocol.h11 import H11Protocol, H11WSConnection
from hypercorn.protocol.http_stream import HTTPStream
from hypercorn.protocol.ws_stream import ASGIWebsocketState, WSStream
from wsproto.connection import Connection, ConnectionState
from wsproto.events import CloseConnection, Message, Ping, Pong
from wsproto.events import Event as FrameEvent
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import LocalProtocolError

from llmchat.deflate import Deflate
from llmchat.doors import ABORT, DIRECT, HEADERS, policy
from llmchat.events import MAX_FRAME_BYTES
from llmchat.limits import network_of
from llmchat.strictness import BAD_REQUEST, StrictBuffer, refusal

UNREAD_TIMEOUT: int | None = getattr(socket, "TCP_USER_TIMEOUT", None)  # Linux has it

LINGER_SECONDS = 1.0
"""For the close frame to be read."""
REST_SECONDS = 5.0
"""For the rest of a body to come that was answered early …"""
REST_BYTES_A_SECOND = 20_000
"""… or longer, where it comes as fast …"""
REST_MOST_SECONDS = 60.0
"""… but no longer than this."""
UNREAD_BODY = 256 * 1024
"""Of a request's body that the app has not read; what comes while there is so much is dropped."""
PIECE_BYTES = 512
"""What a piece of a body costs beside its bytes: it may have a single one."""
SWITCHED = 101
"""The status of an answer behind which there is a websocket."""
TEXT, DEFLATED = 0x81, 0x40
"""How a frame begins that is a whole text message; and where it is compressed."""
AT_ONCE_BYTES = 64 * 1024
"""Of a frame; a longer one goes the way on which a peer has to take it in time."""
FEW = 4
"""Connections with the same frame for which it is compressed, once for each: for more, only once encoded."""
WORTH_DEFLATING = range(64, 32 * 1024)
"""Bytes of a frame."""
REST_OF_WINDOW_SECONDS = 1.0
"""Since the last frame that was compressed."""
TRANSPORT = "llmchat.transport"
"""In a scope's state: what a connection is written to."""
BITS_PER_SECOND = 50
BITS_AT_ONCE = 400
"""Of frames that are no whole message: pings, pongs and parts. Whoever sends more, for longer, is a flood."""
CONNECTIONS_OF_PEER = 500
"""Of one address at once, where no proxy stands before it: twice the websockets that it may have."""
OWN_HEADERS = [policy(), *HEADERS]
"""Of what Hypercorn answers for itself."""
FILES_ASKED = 65_536
FILES_OF_OURS = 256
"""Open files that are no peers: Redis, the model, what is being served."""

Headers = list[tuple[bytes, bytes]]

log = logging.getLogger(__name__)


def limit_peers(of_one: int = 0) -> None:
    """Put the limits on every connection that Hypercorn serves in this process from now on.

    So many at once may be of one address; 0 is no limit, as where all come through a proxy.
    """
    for module, name, ours in (
        (h11._connection, "ReceiveBuffer", StrictBuffer),
        (ws_stream, "Connection", _Frames),
        (ws_stream, "PerMessageDeflate", _deflate),
        (hypercorn.protocol.h11, "WSStream", _Stream),
        (hypercorn.protocol.h11, "HTTPStream", _Request),
        (hypercorn.protocol, "H11Protocol", _Protocol),
        (hypercorn.asyncio.run, "TCPServer", _server_for(most_peers(), of_one)),
        (hypercorn.asyncio.tcp_server, "TaskGroup", _Tasks),
        (WorkerContext, "event_class", _Event),
    ):
        getattr(module, name)  # fails where another version has no such name
        setattr(module, name, ours)


def most_peers() -> int:
    """Ask the system for more open files, and tell how many peers fit in. Without it, some 700 stop a server."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES_ASKED if hard == resource.RLIM_INFINITY else min(hard, FILES_ASKED)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    return max(soft - FILES_OF_OURS, soft // 2)


def limit_unread(listening: socket.socket, seconds: int) -> None:
    """Have the kernel drop what a socket accepts once its peer has read nothing for so long, where it can.

    Without it a connection that ends while something waits for its peer stays until the peer goes.
    """
    if UNREAD_TIMEOUT is not None:
        listening.setsockopt(socket.IPPROTO_TCP, UNREAD_TIMEOUT, seconds * 1000)


def _deflate() -> Deflate:
    return Deflate(most=4 * MAX_FRAME_BYTES)  # Hypercorn counts characters, of up to four bytes


def _encoded(payload: bytes, first: int = TEXT) -> bytes:
    """Make a frame as it goes over the wire."""
    size = len(payload)
    if size < 126:
        return b"%c%c%b" % (first, size, payload)
    if size < 1 << 16:
        return b"%c\x7e%b%b" % (first, size.to_bytes(2, "big"), payload)
    return b"%c\x7f%b%b" % (first, size.to_bytes(8, "big"), payload)


class _Event:
    """What Hypercorn waits for, with an asyncio.Event from when it waits: of most, nothing ever does."""

    __slots__ = ("_event", "_is_set")

    def __init__(self) -> None:
        self._is_set = False
        self._event: asyncio.Event | None = None

    async def clear(self) -> None:
        self._is_set = False
        if self._event is not None:
            self._event.clear()

    async def set(self) -> None:
        self._is_set = True
        if self._event is not None:
            self._event.set()

    async def wait(self) -> None:
        if not self._is_set:
            self._event = self._event or asyncio.Event()
            await self._event.wait()

    def is_set(self) -> bool:
        return self._is_set


class _Accepted:
    """All that is asked of a handshake once it is over."""

    accepted = True


class _NoTasks:
    """All that is asked of a group of tasks once an app serves a websocket: to begin to ping."""

    def spawn(self, begin: Callable[[], None]) -> None:
        begin()


_ACCEPTED: Any = _Accepted()
_NO_TASKS: Any = _NoTasks()
_NO_CONTEXT = Context()
"""Of timers: that in which one is begun would keep what an app had there."""
_encoded_once = lru_cache(maxsize=1)(_encoded)  # for all who get the same


class _Frames(Connection):
    """The frames of a peer, up to its first breach of the protocol, which Hypercorn answers with no close frame.

    Or up to its flood of frames that are no messages, which no app counts: ten thousand come at once.
    """

    breach: CloseConnection | None = None
    """What the websocket is to be closed with."""
    _bits = 0.0
    _counted = -math.inf

    def events(self) -> Iterator[FrameEvent]:  # type: ignore[override]
        """Give what has come."""
        for event in super().events():
            if isinstance(event, CloseConnection) and self.state is ConnectionState.OPEN:
                self.breach = event
            elif self._is_bit(event) and self._is_flood():
                self.breach = CloseConnection(CloseReason.POLICY_VIOLATION, "Too many frames.")
            if self.breach is not None:
                return
            yield event

    @staticmethod
    def _is_bit(event: FrameEvent) -> bool:
        part = isinstance(event, Message) and event.frame_finished and not event.message_finished
        return part or isinstance(event, Ping | Pong)

    def _is_flood(self) -> bool:
        now = asyncio.get_running_loop().time()
        self._bits = max(0.0, self._bits - (now - self._counted) * BITS_PER_SECOND) + 1
        self._counted = now
        return self._bits > BITS_AT_ONCE


class _Stream(WSStream):
    """A websocket that ends with its first message over the size: all that came after it would be kept.

    And one that the app writes to at once, where its peer takes it: through Quart's, Hypercorn's and wsproto's layers, a
    task and two locks, a frame takes ten times as long.
    """

    _pinging: asyncio.TimerHandle | None = None  # once it was accepted
    _resting: asyncio.TimerHandle | None = None  # while there is a window of compression
    _compression: Deflate | None = None  # where the peer knows it

    async def _accept(self, message: Any) -> None:
        self.task_group = _NO_TASKS
        await super()._accept(message)
        self.scope["headers"].clear()  # type: ignore[attr-defined] # a list, and read by now
        self.scope = cast(Any, {"state": self.scope["state"]})
        self.handshake = _ACCEPTED
        accepted = self.connection._proto.extensions
        self._compression = next((each for each in accepted if isinstance(each, Deflate)), None)

    def _write_at_once(self, frame: str | bytes, readers: int) -> bool:
        """Write a frame, unless something waits before it. Compressed where there are few readers, and it is worth it."""
        transport: asyncio.WriteTransport = self.scope["state"][TRANSPORT]
        if (
            self.closed
            or self.state is not ASGIWebsocketState.CONNECTED
            or self.connection.state is not ConnectionState.OPEN
            or transport.is_closing()
            or transport.get_write_buffer_size()
        ):
            return False
        payload = frame.encode() if isinstance(frame, str) else frame
        if len(payload) > AT_ONCE_BYTES:
            return False
        if readers > FEW:
            transport.write(_encoded_once(payload))
        elif self._compression is not None and len(payload) in WORTH_DEFLATING:
            transport.write(_encoded(self._compression.deflated(payload), TEXT | DEFLATED))
            if self._resting is None:
                self._rest_later()
        else:
            transport.write(_encoded(payload))
        return True

    def _rest_later(self) -> None:
        self._resting = asyncio.get_running_loop().call_later(
            REST_OF_WINDOW_SECONDS, self._rest, context=_NO_CONTEXT
        )

    def _rest(self) -> None:
        self._resting = None
        if self._compression is not None and not self._compression.rest():
            self._rest_later()

    def _send_pings(self) -> None:  # type: ignore[override]
        """As Hypercorn does, without a task for each websocket. The first one is due after an interval, too."""
        if self.closed:  # while it was accepted
            return
        seconds = self.config.websocket_ping_interval or 0.0  # Hypercorn asks for pings where it is set
        self._pinging = asyncio.get_running_loop().call_later(seconds, self._ping, context=_NO_CONTEXT)

    def _ping(self) -> None:
        transport: asyncio.WriteTransport = self.scope["state"][TRANSPORT]
        if self.closed or transport.is_closing():
            return
        with suppress(LocalProtocolError):
            transport.write(self.connection.send(Ping()))
        self._send_pings()

    async def handle(self, event: Event) -> None:
        if isinstance(event, Request):
            event.state[DIRECT] = self._write_at_once
        if isinstance(event, StreamClosed):
            for timer in (self._pinging, self._resting):
                if timer is not None:
                    timer.cancel()
        early = isinstance(event, Body | Data) and not (self.closed or self.handshake.accepted)
        await super().handle(event)
        if early and self.app_put is not None:
            # Hypercorn has answered 400 and tells the app nothing, which would wait for ever.
            await self.app_put({"type": "websocket.disconnect", "code": 1006})
            asyncio.get_running_loop().call_later(LINGER_SECONDS, self.scope["state"][ABORT])
        elif isinstance(event, Data) and not self.closed:
            breach: CloseConnection | None = cast(Any, self.connection).breach
            if breach is not None:
                await self._send_wsproto_event(breach)
            if breach is not None or self.buffer.length > self.buffer.max_length:
                await self._take_no_more()

    async def _take_no_more(self) -> None:
        """Tell the app that it is over, and have the peer read why."""
        self.buffer.clear()
        await self.handle(StreamClosed(stream_id=self.stream_id))
        self.scope["state"][TRANSPORT].write_eof()
        asyncio.get_running_loop().call_later(LINGER_SECONDS, self.scope["state"][ABORT])


class _Tasks(TaskGroup):
    """The tasks of a connection, with a queue of an app's messages that takes a sixth of an asyncio.Queue's memory."""

    async def spawn_app(self, app: Any, config: Config, scope: Any, send: Any) -> Any:
        queue = _Messages(config.max_app_queue_size)
        self.spawn(_handle, app, config, scope, queue.get, send, None, None)  # what only WSGI needs
        return queue.put


class _Waiting:
    """Ends a connection that waits too long for its next request, or when the server ends.

    As Hypercorn's task does, of which there would be two for each connection and each request.
    """

    __slots__ = ("_closing", "_end", "_seconds", "_timer", "_waiting")

    def __init__(
        self, seconds: float, end: Callable[[], Coroutine[Any, Any, None]], waiting: set[_Waiting]
    ) -> None:
        self._seconds = seconds
        self._end = end
        self._waiting = waiting
        self._timer: asyncio.TimerHandle | None = None
        self._closing: asyncio.Task[None] | None = None

    async def restart(self, task_group: object, action: object) -> None:
        """Wait from now on. Called as Hypercorn's is."""
        await self.stop()
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self.over, context=_NO_CONTEXT)
        self._waiting.add(self)

    async def stop(self) -> None:
        """Wait no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._waiting.discard(self)

    def over(self) -> None:
        """Have the connection ended."""
        self._waiting.discard(self)
        self._closing = asyncio.get_running_loop().create_task(self._end())


class _Messages:
    """Messages for one app, which takes them one by one. As asyncio.Queue is, for one that takes."""

    __slots__ = ("_getter", "_messages", "_most", "_putters")

    def __init__(self, most: int) -> None:
        self._most = most or math.inf
        self._messages: list[Any] = []
        self._getter: asyncio.Future[None] | None = None
        self._putters: list[asyncio.Future[None]] = []

    async def put(self, message: Any) -> None:
        """Add a message, once there is room."""
        while len(self._messages) >= self._most:
            room: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._putters.append(room)
            try:
                await room
            except asyncio.CancelledError:
                if not room.cancelled():  # it was given room that it does not use
                    self._give_room()
                raise
        self._messages.append(message)
        if self._getter is not None and not self._getter.done():
            self._getter.set_result(None)

    async def get(self) -> Any:
        """Take the next message, once there is one."""
        while not self._messages:
            self._getter = asyncio.get_running_loop().create_future()
            try:
                await self._getter
            finally:
                self._getter = None
        message = self._messages.pop(0)
        self._give_room()
        return message

    def _give_room(self) -> None:
        while self._putters and len(self._messages) < self._most:
            room = self._putters.pop(0)
            if not room.done():
                room.set_result(None)
                return


class _Request(HTTPStream):
    """A request whose end the app is told of, also where it reads no body.

    Hypercorn keeps ten pieces of one and then waits for the app, also to say that the peer has gone: whatever the app
    had open stayed open for ever.
    """

    def __init__(self, app: Any, config: Config, *arguments: Any) -> None:
        config = copy.copy(config)
        config.max_app_queue_size = 0
        super().__init__(partial(self._read, app), config, *arguments)
        self._unread = 0

    async def _read(self, app: Any, scope: Any, receive: Any, *rest: Any) -> None:
        """Serve by the app, and notice what it reads."""

        async def received() -> Any:
            message = await receive()
            if message.get("body"):
                self._unread -= len(message["body"]) + PIECE_BYTES
            return message

        await app(scope, received, *rest)

    async def handle(self, event: Event) -> None:
        if isinstance(event, Body):
            self._unread += len(event.data) + PIECE_BYTES
            if self._unread > UNREAD_BODY:
                return
        await super().handle(event)


class _Protocol(H11Protocol):
    """HTTP/1.1 alone. HTTP/2 without TLS has no limits of its own, and goes through a proxy as a tunnel, in which a
    peer writes what a trusted proxy would have written.

    A request that is answered before its body has come is read on, in time: to close before its end is to reset, and
    what the peer has not read of the answer by then, it never reads.
    """

    _rest: asyncio.TimerHandle | None = None
    """Runs while what comes belongs to a request that has been answered."""
    _rest_began = 0.0
    _rest_bytes = 0

    async def handle(self, event: Any) -> None:
        await super().handle(event)
        if self._rest is None:
            return
        self._rest.cancel()
        if isinstance(event, Closed) or self._has_come():
            self._rest = None
            await super()._maybe_recycle()
            if self.connection.their_state is h11.IDLE:  # the next request may have come behind it
                await self._handle_events()
        else:
            self._rest_bytes += len(event.data)
            self._wait_for_rest()

    async def _maybe_recycle(self) -> None:
        whole = self.connection.our_state in {h11.DONE, h11.MUST_CLOSE}
        if whole and self.connection.their_state is h11.SEND_BODY and not self.context.terminated.is_set():
            await self._close_stream()
            self._rest_began, self._rest_bytes = asyncio.get_running_loop().time(), 0
            self._wait_for_rest()
        else:
            await super()._maybe_recycle()

    def _wait_for_rest(self) -> None:
        seconds = min(REST_SECONDS + self._rest_bytes / REST_BYTES_A_SECOND, REST_MOST_SECONDS)
        cut = self.connection_state[ABORT]
        self._rest = asyncio.get_running_loop().call_at(self._rest_began + seconds, cut)

    def _has_come(self) -> bool:
        """Drop what has come of the rest, and tell whether it was the last of it."""
        with suppress(h11.RemoteProtocolError):
            while isinstance(self.connection.next_event(), h11.Data):
                pass
        return self.connection.their_state is not h11.SEND_BODY

    async def _check_protocol(self, event: h11.Request) -> None:
        pass

    async def stream_send(self, event: Event) -> None:
        if isinstance(event, Response) and event.status_code != SWITCHED:
            event = replace(event, headers=self._completed(event.headers))
        await super().stream_send(event)
        if isinstance(event, Response) and event.status_code == SWITCHED:
            cast(Any, self.connection).h11_connection = None  # it was for the handshake

    def _completed(self, headers: Headers) -> Headers:
        """Add what is missing where Hypercorn answers for itself, or ends what an app answered instead of a websocket."""
        told = any(name.lower() == OWN_HEADERS[0][0] for name, _ in headers)
        added = [] if told else OWN_HEADERS
        if isinstance(self.connection, H11WSConnection) and (b"connection", b"close") not in headers:
            return [*headers, *added, (b"connection", b"close")]
        return [*headers, *added]

    async def _send_error_response(self, status_code: int, *headers: tuple[bytes, bytes]) -> None:
        ours = [(b"content-length", b"0"), (b"connection", b"close")]
        answer = h11.Response(
            status_code=status_code,
            headers=[*ours, *OWN_HEADERS, *headers, *self.config.response_headers("h11")],
        )
        await self._send_h11_event(answer)
        await self._send_h11_event(h11.EndOfMessage())

    async def _create_stream(self, request: h11.Request) -> None:
        refused = refusal(request)
        try:
            if refused is None:
                await super()._create_stream(request)
                return
        except UnicodeDecodeError:  # in a header of a handshake
            refused = BAD_REQUEST
        await self._send_error_response(refused.status, *refused.headers)
        await self.send(Closed())


def _server_for(most: int, of_one: int = 0) -> type[TCPServer]:
    """Make the server of connections: so many at once, for at the limit of open files nobody is let in any more.

    And so many of one address.
    """
    peers: set[Any] = set()
    of_address: Counter[str] = Counter()
    waiting: set[_Waiting] = set()
    served: Any = None  # Hypercorn's context of a server
    ending: asyncio.Task[None] | None = None  # kept, so that it goes on
    told = False

    async def end_all() -> None:
        await served.terminated.wait()
        for each in list(waiting):
            each.over()

    class Server(TCPServer):
        """A connection that the app can cut (`scope["state"]`): closing one waits for a peer that may never read."""

        def __init__(
            self,
            app: Any,
            loop: Any,
            config: Any,
            context: Any,
            state: Any,
            reader: Any,
            writer: asyncio.StreamWriter,
        ) -> None:
            state = {**state, ABORT: writer.transport.abort, TRANSPORT: writer.transport}
            super().__init__(app, loop, config, context, state, reader, writer)
            self.idle_task = cast(
                Any, _Waiting(config.keep_alive_timeout, self._initiate_server_close, waiting)
            )

        async def run(self) -> None:
            nonlocal told, served, ending
            if served is not self.context:
                served = self.context
                ending = asyncio.create_task(end_all(), context=Context())
            if served.terminated.is_set():
                self.writer.transport.abort()
                return
            if len(peers) >= most:
                if not told:
                    log.warning("%d connections are open: no more are taken until some end.", most)
                told = True
                self.writer.transport.abort()
                return
            address = network_of((self.writer.get_extra_info("peername") or ("",))[0])
            if of_one and of_address[address] >= of_one:
                self.writer.transport.abort()
                return
            peers.add(self)
            of_address[address] += 1
            try:
                await super().run()
            finally:
                peers.discard(self)
                of_address[address] -= 1
                if not of_address[address]:
                    del of_address[address]
                told = told and len(peers) > most // 2

    return Server
