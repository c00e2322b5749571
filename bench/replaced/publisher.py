"""Sends to the group of a chat what the bench asks for: each line of stdin is how many messages to send now.

With "timed" behind the chat's name, each carries the clock's seconds at its sending.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "bench.replaced.settings")

import django
from channels.layers import get_channel_layer

TEXT = " of three"
"""As long as what a model says within 40 ms."""


async def publish(chat: str, *, timed: bool) -> None:
    """Send as asked until stdin ends."""
    layer = get_channel_layer()
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    index = 0
    while line := await lines.readline():
        for _ in range(int(line)):
            text = repr(time.monotonic()) if timed else TEXT
            await layer.group_send(f"chat_{chat}", {"type": "chat.delta", "text": text, "index": index})
            index += 1


if __name__ == "__main__":
    django.setup()
    asyncio.run(publish(sys.argv[1], timed=sys.argv[2:] == ["timed"]))
