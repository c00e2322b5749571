"""A process that sends to every group it is told of, at once: `python -m tests.channel_layer.sender <url> <prefix>`.

A line of stdin is a number; what is sent is that, to the group of its name.
"""

from __future__ import annotations

import asyncio
import sys

from llmchat.broadcaster import Broadcaster


async def send_all(url: str, prefix: str) -> None:
    """Send until stdin ends."""
    broadcaster = Broadcaster([url], prefix=prefix)
    await broadcaster.group_send("warm", {})
    print("ready", flush=True)
    while line := (await asyncio.to_thread(sys.stdin.readline)).strip():
        await broadcaster.group_send(line, {"n": int(line)})
    await broadcaster.close()


if __name__ == "__main__":
    asyncio.run(send_all(*sys.argv[1:]))
