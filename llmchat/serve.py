"""Hypercorn through its API, in this very process, with an orderly stop.

It binds the sockets, serves the app on them, and on SIGTERM or SIGINT lets the app close what is open before
Hypercorn stops. It does not know what the app does, nor where its settings come from.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import gc
import logging
import multiprocessing
import os
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hypercorn.asyncio import serve as serve_with_hypercorn
from hypercorn.config import Config
from hypercorn.utils import LifespanFailureError

from llmchat import __version__
from llmchat.errors import SettingsError, StartError
from llmchat.events import MAX_FRAME_BYTES
from llmchat.log_lines import configure, quiet
from llmchat.peers import CONNECTIONS_OF_PEER, limit_peers, limit_unread
from llmchat.settings import Settings

logger = logging.getLogger(__name__)

PING_SECONDS = 20
GARBAGE = 5_000, 10, 20
"""Objects, and collections of the younger ones, before the collector looks."""
SILENT_PEER_SECONDS = 60
APP_STOP_SECONDS = 1.2
LINGER_SECONDS = 0.3
SERVER_STOP_SECONDS = 1.6
HARD_STOP_SECONDS = 1.9  # Railway may send SIGKILL after 3 s, and 2 s are promised
LOOK_SECONDS = 0.5
PACKAGE = Path(__file__).resolve().parent
WATCHED = (PACKAGE, PACKAGE.parent / "templates", PACKAGE.parent / "static")

EVERYWHERE = "0.0.0.0"  # nosec B104 # noqa: S104 - compared, and listened on where it is asked for
NO_SUCH_ADDRESS = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)  # `localhost` names ::1 without IPv6, too

Ends = Callable[[Callable[[str], None]], None]
Sockets = list[socket.socket]


def bind(host: str, port: int) -> Sockets:
    """Return listening sockets for every address of `host`; `::` takes IPv4, too. Port 0 takes a free one."""
    sockets: Sockets = []
    try:
        for family, address in _addresses(host):
            sockets.append(_listen(family, address, port or (port_of(sockets) if sockets else 0)))
    except OSError as error:
        if not sockets or error.errno not in NO_SUCH_ADDRESS:
            for opened in sockets:
                opened.close()
            raise StartError(_why_not_bound(host, port, error)) from error
    return sockets


def port_of(sockets: Sockets) -> int:
    return int(sockets[0].getsockname()[1])


def address_of(host: str, sockets: Sockets) -> str:
    """Return the address to open in a browser on this machine."""
    name = "localhost" if host in {"127.0.0.1", "localhost", EVERYWHERE, "::", "[::]"} else host.strip("[]")
    return f"http://{f'[{name}]' if ':' in name else name}:{port_of(sockets)}"


def serve(
    settings: Settings, sockets: Sockets, *, announce: Callable[[], None], ends: Ends | None = None
) -> int:
    """Serve the app until a signal, and return the exit code; 1 where `ends` told of a part that ended."""
    instance = secrets.token_hex(4)
    configure(settings, instance)
    stop = _Stop()
    try:
        asyncio.run(_serve(settings, instance, sockets, announce, ends, stop))
    finally:
        stop.ended()
    return stop.code


def _tidy_memory() -> None:
    """Have the collector pass over what is there from the start, a tenth of a second each time, and look less often.

    That takes as long once, with the sockets bound and nobody served yet.
    """
    gc.collect()
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)  # glibc keeps what the start took and does not need any more
    gc.freeze()
    gc.set_threshold(*GARBAGE)


def serve_and_reload(
    settings: Settings, sockets: Sockets, *, announce: Callable[[], None], ends: Ends
) -> int:
    """Serve in a child process that starts anew when a file of the app changes; the parts live on."""
    ended: list[str] = []
    ends(ended.append)
    announce()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job inherits it ignored
    try:
        while not ended:
            _serve_until_a_change(settings, sockets, ended)
    except KeyboardInterrupt:
        return 0
    print(f"llmchat: {ended[0]}", file=sys.stderr)
    return 1


def _serve_until_a_change(settings: Settings, sockets: Sockets, ended: list[str]) -> None:
    # A child that falls over its own change is started again with the next one.
    before = _changed_at()
    child = multiprocessing.get_context("spawn").Process(target=_serve_reloaded, args=(settings, sockets))
    child.start()
    try:
        while not ended and _changed_at() == before:
            threading.Event().wait(LOOK_SECONDS)
    finally:
        child.terminate()
        child.join()


def _serve_reloaded(settings: Settings, sockets: Sockets) -> None:
    os.setsid()  # Ctrl-C reaches the parent alone, which then ends this one
    parent = multiprocessing.parent_process()

    def when_the_parent_ends(told: Callable[[str], None]) -> None:
        def wait() -> None:
            if parent:
                parent.join()
            told("The process that started this one ended.")

        threading.Thread(target=wait, daemon=True).start()

    try:
        sys.exit(serve(settings, sockets, announce=lambda: None, ends=when_the_parent_ends))
    except (SettingsError, StartError) as error:
        sys.exit(f"llmchat: {error}")


def _changed_at() -> dict[Path, int]:
    files = (file for folder in WATCHED for file in folder.rglob("*") if "__pycache__" not in file.parts)
    changed = {}
    for file in files:
        with contextlib.suppress(OSError):
            changed[file] = file.stat().st_mtime_ns
    return changed


async def _serve(
    settings: Settings,
    instance: str,
    sockets: Sockets,
    announce: Callable[[], None],
    ends: Ends | None,
    stop: _Stop,
) -> None:
    # Here, so that a malformed variable does not wait for it, and a reload works.
    from llmchat.app import create_app

    quiet()  # the import may have made the libraries talk
    app = create_app(settings, instance=instance)
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_log_bug)
    if ends:
        ends(stop.ask_from_thread(loop))

    async def until_stopped() -> None:
        _tidy_memory()
        announce()
        logger.info("Instance %s of llmchat %s serves.", instance, __version__)
        await stop.asked.wait()
        logger.info("Stopping: connections move, and answers that are being made.")
        await _stop_app(app)
        stop.cut_what_lingers()

    limit_peers(0 if settings.trusted_proxy_hops else CONNECTIONS_OF_PEER)
    config = hypercorn_config(sockets)
    try:
        with stop.on_signals():
            if await _prepared(app, settings.redis_wait_seconds, stop):
                stop.serving = asyncio.create_task(
                    serve_with_hypercorn(app, config, shutdown_trigger=until_stopped)
                )
                await stop.serving
    except asyncio.CancelledError:
        logger.info("Connections whose peers did not end them are cut.")
    except LifespanFailureError as error:
        raise StartError("The app did not start; the lines above say why.") from error


def _log_bug(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    # asyncio's streams complain of every connection that is cut when the server stops. Its own lines show what a
    # callback was given and what an exception said, which may be anybody's words.
    error = context.get("exception")
    if isinstance(error, asyncio.CancelledError):
        return
    what = "A callback failed." if "handle" in context else context["message"]
    of = context.get("task") or context.get("future")
    logger.error("%s%s", what, f" ({of.get_name()})" if isinstance(of, asyncio.Task) else "", exc_info=error)


class _Stop:
    """What was asked for: a first signal stops in order, a second one at once."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.serving: asyncio.Task[None] | None = None
        self.code = 0
        # Whatever does not even mind being cancelled ends with this.
        self._hard_stop = threading.Timer(HARD_STOP_SECONDS, os._exit, (1,))
        self._hard_stop.daemon = True

    @contextlib.contextmanager
    def on_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._signalled, number)
        try:
            yield
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)

    def ask_from_thread(self, loop: asyncio.AbstractEventLoop) -> Callable[[str], None]:
        def ask(reason: str) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: we are ending anyway
                loop.call_soon_threadsafe(self._fail, reason)

        return ask

    def ended(self) -> None:
        self._hard_stop.cancel()

    def _fail(self, reason: str) -> None:
        if not self.asked.is_set():
            print(f"llmchat: {reason}", file=sys.stderr)
            self.code = 1
            self._begin()

    def _signalled(self, number: int) -> None:
        if self.asked.is_set():
            os._exit(128 + number)
        self._begin()

    def _begin(self) -> None:
        self.asked.set()
        self._hard_stop.start()
        asyncio.get_running_loop().call_later(SERVER_STOP_SECONDS, self._cut)

    def cut_what_lingers(self) -> None:
        """Give connections a moment to end. Python >= 3.12.1 would wait for ever for those of dead peers."""
        asyncio.get_running_loop().call_later(LINGER_SECONDS, self._cut)

    def _cut(self) -> None:
        if self.serving:
            self.serving.cancel()


async def _prepared(app: Any, seconds: float, stop: _Stop) -> bool:
    """Wait for what the app needs; false where a signal came first. Raises StartError."""
    checking = asyncio.create_task(app.extensions["llmchat"].health.check(seconds))
    asked = asyncio.create_task(stop.asked.wait())
    await asyncio.wait((checking, asked), return_when=asyncio.FIRST_COMPLETED)
    asked.cancel()
    if stop.asked.is_set():
        checking.cancel()
        await asyncio.gather(checking, return_exceptions=True)
        return False
    await checking
    return True


async def _stop_app(app: Any) -> None:
    chat = app.extensions.get("llmchat")
    if chat is None:
        return
    try:
        async with asyncio.timeout(APP_STOP_SECONDS):
            await chat.stop()
    except TimeoutError:
        logger.warning("The app did not stop within %s s.", APP_STOP_SECONDS)
    except Exception:
        logger.exception("The app did not stop in order.")


def hypercorn_config(sockets: Sockets) -> Config:
    """Return Hypercorn's configuration for sockets that it takes over."""
    config = Config()
    config.bind = [f"fd://{opened.detach()}" for opened in sockets]
    config.errorlog = logging.getLogger("hypercorn.error")
    config.accesslog = None  # a request's path and cookies are nobody's business
    config.include_server_header = False
    config.alpn_protocols = ["http/1.1"]
    config.graceful_timeout = 0.2
    config.keep_alive_timeout = 5
    config.read_timeout = SILENT_PEER_SECONDS  # pongs count as read: only a silent peer runs into it
    config.websocket_ping_interval = PING_SECONDS
    config.websocket_max_message_size = MAX_FRAME_BYTES
    config.h11_max_incomplete_size = 32 * 1024
    return config


def _addresses(host: str) -> list[tuple[socket.AddressFamily, str]]:
    host = host.strip("[]")
    if host == "::" and not socket.has_dualstack_ipv6():
        host = EVERYWHERE  # a machine without IPv6
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys((family, str(address[0])) for family, _, _, _, address in found))


def _listen(family: socket.AddressFamily, address: str, port: int) -> socket.socket:
    dual = family == socket.AF_INET6 and address == "::"
    listening = socket.create_server((address, port), family=family, backlog=100, dualstack_ipv6=dual)
    limit_unread(listening, SILENT_PEER_SECONDS)
    return listening


def _why_not_bound(host: str, port: int, error: OSError) -> str:
    if isinstance(error, socket.gaierror) or error.errno in NO_SUCH_ADDRESS:
        return f"HOST {host!r} is no address of this machine."
    if error.errno == errno.EADDRINUSE:
        return f"PORT {port} is taken: end what listens there, or set PORT to another."
    return f"PORT {port} cannot be had on {host}: {error.strerror}."
