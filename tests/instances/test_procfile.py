"""The Procfile as a process manager runs it."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import aiohttp

from tests.fakes import Model
from tests.instances import Store
from tests.instances.child import Child, free_port
from tests.instances.instance import ROOT, SECRET_KEY
from tests.waiting import eventually


def command_of(pid: int) -> list[str] | None:
    """Read the command line of a process; None where it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")[:-1]
    except FileNotFoundError:
        return None


async def test_procfile_serves_as_python_itself_and_ends_with_its_manager(store: Store, model: Model) -> None:
    port = free_port()
    child = Child(
        str(Path(sys.executable).with_name("honcho")), "start", "-e", os.devnull, "web",  # no .env of yours
        env={
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "SECRET_KEY": SECRET_KEY,
            "REDIS_URL": store.url,
            "OPENAI_BASE_URL": model.url,
            "PORT": str(port),
        },
        folder=ROOT,
    )  # fmt: skip
    pid = 0

    async def serves() -> bool:
        assert child.alive, child.lines
        try:
            async with aiohttp.ClientSession() as http, http.get(f"http://localhost:{port}/readyz") as page:
                return page.status == 200
        except aiohttp.ClientError:
            return False

    try:
        await child.start()
        started = await child.line("started (pid=")
        pid = int(started.rpartition("=")[2].rstrip(")"))
        await eventually(serves, seconds=30, what="the Procfile's process serves")
        command = command_of(pid)
        assert command
        assert Path(command[0]).name.startswith("python")
        assert command[1:] == ["-m", "llmchat", "serve"]  # no shell around it, which would keep signals
        child.signal(signal.SIGTERM)
        await child.ended(seconds=40)
        assert command_of(pid) is None
    finally:
        if pid and command_of(pid):
            os.killpg(pid, signal.SIGKILL)  # the manager gives each process a group
        await child.close()
