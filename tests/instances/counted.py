"""`python -m llmchat`, which on SIGUSR1 writes how many tasks its event loop has."""

from __future__ import annotations

import asyncio
import json
import signal
import sys

from llmchat.__main__ import main
from tests.instances.instance import COUNTED


def _count(*_: object) -> None:
    tasks = len(asyncio.all_tasks(asyncio.get_running_loop()))
    print(COUNTED + json.dumps({"tasks": tasks}), file=sys.stderr, flush=True)


signal.signal(signal.SIGUSR1, _count)
if __name__ == "__main__":
    sys.exit(main())
