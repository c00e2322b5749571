"""What the tests of the channel layer do again and again; each wait has a deadline."""

from __future__ import annotations

import asyncio
from typing import Any

from llmchat.broadcaster import Broadcaster, ChannelLapsed, Message
from tests.waiting import within


def numbered(*numbers: int) -> list[Message]:
    """Give the messages that `{"n": …}` was sent as."""
    return [{"n": number} for number in numbers]


async def joined(broadcaster: Broadcaster, *groups: str) -> str:
    """Make a channel in these groups."""
    channel = await broadcaster.new_channel()
    for group in groups:
        await broadcaster.group_add(group, channel)
    return channel


async def received(broadcaster: Broadcaster, channel: str, count: int = 1) -> list[Message]:
    """Receive so many messages; a lapse is an error."""
    found: list[Message] = []
    async with within(20, lambda: f"{count} messages arrive; there came {len(found)}"):
        while len(found) < count:
            found.append(await broadcaster.receive(channel))
    return found


async def until_last(broadcaster: Broadcaster, channel: str) -> list[Any]:
    """Receive up to the message {"last": True}; a lapse is among them as "lapsed"."""
    found: list[Any] = []
    async with within(20, lambda: f"the last message arrives; before it came {found[-9:]}"):
        while True:
            try:
                message = await broadcaster.receive(channel)
            except ChannelLapsed:
                found.append("lapsed")
                continue
            if message.get("last"):
                return found
            found.append(message)


async def lapsed(broadcaster: Broadcaster, channel: str) -> None:
    """Receive up to the next lapse."""
    async with within(20, "the channel is told of its lapse"):
        while True:
            try:
                await broadcaster.receive(channel)
            except ChannelLapsed:
                return


async def turns(count: int) -> None:
    """Let the others run so many times."""
    for _ in range(count):
        await asyncio.sleep(0)


def gaps(found: list[Any]) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Give the gaps in the numbers received, (last before, first after): those told by a lapse, and those not.

    A lapse tells of what is missing between the last message before it and the first behind it.
    """
    told, untold = [], []
    before = -1
    for at, message in enumerate(found):
        if message == "lapsed":
            continue
        if message["n"] != before + 1:
            last = max((place for place in range(at) if found[place] != "lapsed"), default=-1)
            (told if "lapsed" in found[last + 1 : at] else untold).append((before, message["n"]))
        before = message["n"]
    return told, untold
