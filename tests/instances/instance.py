"""One instance of the product as a real process, with an environment that the test names in full."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Self

import aiohttp

from tests.instances.child import Child, free_port
from tests.waiting import eventually

ROOT = Path(__file__).resolve().parents[2]
SECRET_KEY = "only-for-the-tests-" + "0123456789" * 3
PRODUCT, QUICK = "llmchat", "tests.quick"
COUNTED = "counted "
BUGS = ("Traceback (most recent call last)", "never retrieved", "never awaited", "Task was destroyed")


async def _found(lines: list[str]) -> bool:
    return any(line.startswith(COUNTED) for line in lines)


class Instance:
    """`python -m llmchat serve` on a port of 127.0.0.1; instances with one store are one service.

    Those of this version are started by `quick.py`.
    """

    def __init__(
        self,
        store_url: str,
        model_url: str,
        *,
        root: Path = ROOT,
        module: str | None = None,
        **environment: str,
    ) -> None:
        self.port = int(environment.pop("PORT", "0")) or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.environment = {
            "PATH": os.environ["PATH"],
            "PYTHONUNBUFFERED": "1",
            "SECRET_KEY": SECRET_KEY,
            "REDIS_URL": store_url,
            "OPENAI_BASE_URL": model_url,
            "OPENAI_API_KEY": "sk-of-the-tests",
            "HOST": "127.0.0.1",
            "PORT": str(self.port),
            "ALLOWED_HOSTS": "localhost,127.0.0.1",
            "TITLE_MODEL": "off",  # tests of them turn them on
            # All tests are one address; those of the limits set them.
            "PROMPTS_PER_MINUTE": "0",
            "ANSWERS_AT_ONCE": "0",
            "CONNECTIONS_PER_MINUTE": "0",
            "FRAMES_PER_MINUTE": "0",
            "PAGES_PER_MINUTE": "0",
            **environment,
        }
        self.log: list[str] = []
        self._root = root
        self._module = module or (QUICK if root == ROOT else PRODUCT)
        self._child: Child | None = None

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._child
        return self._child.pid

    @property
    def alive(self) -> bool:
        """Whether it was started and has not ended."""
        return self._child is not None and self._child.alive

    async def launch(self) -> None:
        """Start the process without waiting until it serves."""
        self._child = Child(
            sys.executable, "-m", self._module, "serve", env=self.environment, folder=self._root
        )
        self._child.lines = self.log
        await self._child.start()

    async def start(self, *, seconds: float = 120) -> None:
        """Start and wait until it serves."""
        await self.launch()
        await eventually(
            self.serves, seconds=seconds, what=lambda: f"instance {self.port} serves:\n{self.text}"
        )

    async def serves(self) -> bool:
        """Tell whether /healthz answers; fail where the process has ended instead."""
        assert self._child
        assert self._child.alive, f"instance {self.port} ended:\n{self.text}"
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as http,
                http.get(f"{self.url}/healthz") as response,
            ):
                return response.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def logged(self, text: str, *, seconds: float = 30) -> str:
        """Wait for a line of its log."""
        assert self._child
        return await self._child.line(text, seconds=seconds)

    async def count_tasks(self) -> int:
        """Count the tasks of its event loop. Its module must be tests.instances.counted."""
        assert self._child
        mark = len(self.log)
        self._child.signal(signal.SIGUSR1)
        await eventually(lambda: _found(self.log[mark:]), seconds=30, what="it counts")
        line = next(line for line in self.log[mark:] if line.startswith(COUNTED))
        return int(json.loads(line.removeprefix(COUNTED))["tasks"])

    def terminate(self) -> None:
        """SIGTERM: ask it to stop in order."""
        assert self._child
        self._child.signal(signal.SIGTERM)

    async def ended(self, *, seconds: float = 30) -> int:
        """Wait for its end and return its exit code."""
        assert self._child
        return await self._child.ended(seconds=seconds)

    async def stop(self, *, seconds: float = 30) -> int:
        """Stop in order and return the exit code."""
        self.terminate()
        return await self.ended(seconds=seconds)

    async def kill(self) -> None:
        """End it at once, kill -9."""
        assert self._child
        self._child.signal(signal.SIGKILL)
        await self.ended()

    async def restart(self) -> None:
        """Stop in order and start again on the same port."""
        await self.stop()
        await self.start()

    def freeze(self) -> None:
        """SIGSTOP: a zombie in the making."""
        assert self._child
        self._child.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        assert self._child
        self._child.signal(signal.SIGCONT)

    @property
    def text(self) -> str:
        """Its whole log, over all starts."""
        return "\n".join(self.log)

    def check_log(self) -> None:
        """Fail where the log tells of a bug, or holds a secret."""
        for bug in BUGS:
            assert bug not in self.text, f"{bug!r} in the log of instance {self.port}:\n{self.text}"
        for name in ("SECRET_KEY", "OPENAI_API_KEY"):
            assert self.environment[name] not in self.text, f"{name} in the log of instance {self.port}"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Stop, where it still runs, and look through its log."""
        if self._child and self._child.alive:
            self.thaw()
            try:
                await self.stop()
            finally:
                await self._child.close()
        if kind is None:
            self.check_log()
