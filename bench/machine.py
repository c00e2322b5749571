"""This machine: which core does what, the processes that are measured, and what they take of it. Linux alone."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import platform
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.figures import MILLISECONDS, percentile

ROOT = Path(__file__).resolve().parents[1]
TICKS = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGESIZE")
DEATH_SIGNAL = 1
"""prctl(2): PR_SET_PDEATHSIG."""
SELDOM = 100_000
"""Objects made since garbage was last looked for: each look holds the loop up."""
STOP_SECONDS = 5.0
LOOK_SECONDS = 0.05
LAG_SECONDS = 0.005
"""How often the loop of the generator is asked how late it is."""
GENERATOR_SHARE = 0.85
"""Of its core, from where on the generator may be what is measured."""
GENERATOR_LAG_MS = 20.0
"""At the 99th percentile; likewise."""
OTHERS_SHARE = 0.10
"""Of the server's core, from where on what else runs on this machine disturbs."""
LAST_LINES = 30

Json = dict[str, Any]


def cores() -> tuple[set[int], set[int]]:
    """Give the core of the server under test, and those of everything else."""
    first, *others = sorted(_all_cores)
    return {first}, set(others) or {first}


_all_cores = os.sched_getaffinity(0)


def take_own_cores() -> None:
    """Leave the server's core to the server; and have garbage looked for seldom, as there is little of it."""
    os.sched_setaffinity(0, cores()[1])
    gc.set_threshold(SELDOM)


@contextmanager
def on_all_cores() -> Iterator[None]:
    """Have processes that this one starts meanwhile run wherever there is room."""
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, _all_cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, own)


def machine() -> Json:
    """Say on what this runs."""
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "cores": len(_all_cores),
        "processor": names[0] if names else platform.machine(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
    }


def free_port() -> int:
    """Find a port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def cpu_seconds(*pids: int) -> float:
    """Tell what processes took so far, with all their threads, and what their ended children took."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += sum(map(int, fields[11:15]))
    return total / TICKS


def busy_seconds(core: int) -> float:
    """Tell for how long a core was not idle so far, whoever used it."""
    line = next(
        each for each in Path("/proc/stat").read_text().splitlines() if each.startswith(f"cpu{core} ")
    )
    user, nice, system, _idle, _waiting, interrupts, soft_interrupts, stolen = map(int, line.split()[1:9])
    return (user + nice + system + interrupts + soft_interrupts + stolen) / TICKS


def family(pid: int) -> list[int]:
    """List a process and its descendants."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(each for child in children for each in family(int(child)))]


def unshared_bytes(pid: int) -> int:
    """Tell the memory that is a process' own."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    kib = sum(int(line.split()[1]) for line in lines if line.startswith(("Private_Clean:", "Private_Dirty:")))
    return kib * 1024


def resident_bytes(pid: int) -> int:
    """Tell the memory that a process has, shared or not."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES


class Child:
    """A process on cores of its own; what it writes goes to a file."""

    def __init__(
        self, command: Sequence[str], *, env: Mapping[str, str], folder: Path, cores: set[int], log: Path
    ) -> None:
        self._command = command
        self._env = env
        self._folder = folder
        self._cores = cores
        self._log = log
        self._running: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """Its id."""
        assert self._running
        return self._running.pid

    @property
    def stdin(self) -> asyncio.StreamWriter:
        """What it reads."""
        assert self._running
        assert self._running.stdin
        return self._running.stdin

    @property
    def text(self) -> str:
        """What it wrote."""
        return self._log.read_text(errors="replace")

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._running is not None and self._running.returncode is None

    async def __aenter__(self) -> Child:
        cores = self._cores

        def prepare() -> None:
            os.sched_setaffinity(0, cores)
            ctypes.CDLL(None).prctl(DEATH_SIGNAL, signal.SIGKILL)

        with self._log.open("wb") as log:
            self._running = await asyncio.create_subprocess_exec(
                *self._command,
                env=self._env,
                cwd=self._folder,
                stdin=asyncio.subprocess.PIPE,
                stdout=log,
                stderr=asyncio.subprocess.STDOUT,
                preexec_fn=prepare,
            )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.alive:
            assert self._running
            self._running.terminate()
            try:
                async with asyncio.timeout(STOP_SECONDS):
                    await self._running.wait()
            except TimeoutError:
                self._running.kill()
                await self._running.wait()

    async def until(self, ready: Callable[[], bool], *, seconds: float, what: str) -> None:
        """Wait until something is so. Raises RuntimeError where the process ends before, or it takes too long."""
        last = time.monotonic() + seconds
        while not ready():
            if not self.alive or time.monotonic() > last:
                lines = "\n".join(self.text.splitlines()[-LAST_LINES:])
                raise RuntimeError(f"{what}: not within {seconds:.0f} s.\n{lines}")
            await asyncio.sleep(LOOK_SECONDS)


def listens(port: int) -> bool:
    """Whether somebody takes connections on a port of 127.0.0.1."""
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


@dataclass(slots=True)
class Usage:
    """What was taken of the machine in a window: shares are of one core."""

    seconds: float = 0.0
    server: float = 0.0
    redis: float = 0.0
    generator: float = 0.0
    others: float = 0.0
    """Of the server's core, what the server did not use."""
    lag_p99_ms: float = 0.0

    @property
    def limited(self) -> str | None:
        """Say so where something else than the server may have been the limit."""
        if self.generator > GENERATOR_SHARE or self.lag_p99_ms > GENERATOR_LAG_MS:
            return f"limited by the generator: {self.generator:.0%} of its core, lag p99 {self.lag_p99_ms:.1f} ms"
        if self.others > OTHERS_SHARE:
            return f"disturbed: others took {self.others:.0%} of the server's core"
        return None

    def __str__(self) -> str:
        told = (
            f"server {self.server:.0%}  redis {self.redis:.0%}  generator {self.generator:.0%}, "
            f"lag p99 {self.lag_p99_ms:.1f} ms, others {self.others:.0%}"
        )
        return f"{told}  ({self.limited})" if self.limited else told


@asynccontextmanager
async def watching(server: int | Sequence[int], redis: int) -> AsyncIterator[Usage]:
    """Measure what is taken of the machine while the context is entered, and how late the loop is."""
    usage, lags = Usage(), []

    async def look() -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + LAG_SECONDS
            await asyncio.sleep(LAG_SECONDS)
            lags.append(loop.time() - due)

    looking = asyncio.create_task(look())
    (core,) = cores()[0]
    servers = [server] if isinstance(server, int) else server
    ours = [pid for each in servers for pid in family(each)]
    pids = {"server": ours, "redis": [redis], "generator": [os.getpid()]}
    before = {name: cpu_seconds(*each) for name, each in pids.items()}
    busy, began = busy_seconds(core), time.monotonic()
    try:
        yield usage
    finally:
        looking.cancel()
        usage.seconds = time.monotonic() - began
        for name, each in pids.items():
            setattr(usage, name, (cpu_seconds(*each) - before[name]) / usage.seconds)
        usage.others = max(0.0, (busy_seconds(core) - busy) / usage.seconds - usage.server)
        usage.lag_p99_ms = percentile(sorted(lags), 0.99) * MILLISECONDS


def python_environment(root: Path) -> dict[str, str]:
    """Give the environment of a Python that imports from a root."""
    return {"PATH": os.environ["PATH"], "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(root)}


PYTHON = sys.executable
