"""Connections that wait for their next request: when they are ended, and when they are not."""

from __future__ import annotations

import asyncio

from llmchat.peers import _Event, _Waiting
from tests.waiting import within


async def test_connection_is_ended_when_it_has_waited_so_long_and_only_then() -> None:
    ended = asyncio.Event()
    waiting: set[_Waiting] = set()

    last_ended = asyncio.Event()

    async def end() -> None:
        ended.set()

    async def last_end() -> None:
        last_ended.set()

    short = _Waiting(0.01, end, waiting)
    await short.restart(None, None)
    assert waiting == {short}
    async with within(10, "it is ended"):
        await ended.wait()
    ended.clear()
    assert not waiting
    stopped, restarted = _Waiting(0.01, end, waiting), _Waiting(0.01, end, waiting)
    await stopped.restart(None, None)
    await stopped.stop()
    await restarted.restart(None, None)
    await restarted.restart(None, None)
    await restarted.stop()
    last = _Waiting(0.05, last_end, waiting)
    await last.restart(None, None)
    async with within(10, "the last one is ended"):
        await last_ended.wait()
    assert not ended.is_set(), "one that waits no more was ended"


async def test_event_is_that_of_asyncio_also_before_anybody_waits() -> None:
    event = _Event()
    assert not event.is_set()
    await event.set()
    await event.wait()
    await event.clear()
    assert not event.is_set()
    waits = [asyncio.create_task(event.wait()) for _ in range(2)]
    await asyncio.sleep(0)
    assert not any(each.done() for each in waits)
    await event.set()
    await asyncio.gather(*waits)
    await event.clear()
    late = asyncio.create_task(event.wait())
    await asyncio.sleep(0)
    assert not late.done()
    await event.set()
    await late
