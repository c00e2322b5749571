"""A child process whose output is kept line by line; it ends with the tests, whatever happens to them."""

from __future__ import annotations

import asyncio
import ctypes
import os
import secrets
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from itertools import count
from pathlib import Path

from tests.waiting import Bell, within

PR_SET_PDEATHSIG = 1  # prctl(2), Linux only
LINE_LIMIT = 1024 * 1024
PORTS = range(20_000, 32_000)  # below those that Linux gives to outgoing connections
WORKERS = 8  # of one run, that have ports of their own


def end_with_parent() -> None:
    """Have the kernel kill this process when the one that started it dies."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # whatever the tests inherited


@cache
def _ports_of_this_worker() -> Iterator[int]:
    """Give each port of this worker's share in turn: what was given a moment ago may not be listened on yet."""
    share = len(PORTS) // WORKERS
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % WORKERS
    start = secrets.randbelow(share)
    return (PORTS[worker * share + (start + turn) % share] for turn in count())


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on, and that no outgoing connection takes, nor a test beside."""
    while True:
        port = next(_ports_of_this_worker())
        with socket.socket() as sock, suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port


class Child:
    """One process: started, signalled, waited for. `lines` holds what it wrote to stdout and stderr.

    A `reading` one gets what is `write`n to it.
    """

    def __init__(self, *command: str, env: dict[str, str], folder: Path, reading: bool = False) -> None:
        self.lines: list[str] = []
        self._command = command
        self._env = env
        self._folder = folder
        self._stdin = asyncio.subprocess.PIPE if reading else asyncio.subprocess.DEVNULL
        self._bell = Bell()
        self._running: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._running
        return self._running.pid

    @property
    def alive(self) -> bool:
        """Whether it was started and has not ended."""
        return self._running is not None and self._running.returncode is None

    async def start(self) -> None:
        """Start it."""
        assert not self.alive, "started twice"
        self._running = await asyncio.create_subprocess_exec(
            *self._command,
            env=self._env,
            cwd=self._folder,
            stdin=self._stdin,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            preexec_fn=end_with_parent if sys.platform == "linux" else None,
            limit=LINE_LIMIT,
        )
        self._reading = asyncio.create_task(self._read(self._running))

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._running
        self._running.send_signal(number)

    def write(self, line: str) -> None:
        """Write a line to its stdin, at once."""
        assert self._running
        assert self._running.stdin
        self._running.stdin.write(f"{line}\n".encode())

    async def line(self, text: str, *, seconds: float = 15) -> str:
        """Wait for a line with this text in all it ever wrote."""
        return await self._bell.until(
            lambda: next((line for line in self.lines if text in line), None),
            seconds=seconds,
            what=lambda: (
                f"a line with {text!r} in the output of {self._command[0]}:\n" + "\n".join(self.lines)
            ),
        )

    async def ended(self, *, seconds: float = 30) -> int:
        """Wait for its end and return its exit code."""
        assert self._running
        assert self._reading
        async with within(seconds, lambda: f"{self._command} ends:\n" + "\n".join(self.lines)):
            code = await self._running.wait()
            await self._reading
        return code

    async def close(self) -> None:
        """Kill it, where it still lives, and wait for its end."""
        if self.alive:
            self.signal(signal.SIGKILL)
        if self._running:
            await self.ended()

    async def _read(self, running: asyncio.subprocess.Process) -> None:
        assert running.stdout
        async for line in running.stdout:
            self.lines.append(line.decode(errors="replace").rstrip("\n"))
            self._bell.ring()
