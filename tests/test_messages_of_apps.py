"""The queue of an app's messages, beside asyncio's."""

from __future__ import annotations

import asyncio
import random

import pytest

from llmchat.peers import _Messages

ROUNDS = 300


@pytest.mark.parametrize("most", [0, 1, 3])
@pytest.mark.parametrize("seed", range(4))
async def test_all_messages_come_once_and_in_order_whatever_is_cancelled(most: int, seed: int) -> None:
    chance, queue = random.Random(seed), _Messages(most)
    put: list[int] = []
    got: list[int] = []
    numbers = iter(range(10_000))

    async def add() -> None:
        number = next(numbers)
        await queue.put(number)
        put.append(number)

    adding = [asyncio.create_task(add()) for _ in range(5)]
    for _ in range(ROUNDS):
        match chance.randrange(4):
            case 0:
                adding.append(asyncio.create_task(add()))
            case 1 if adding:
                adding.pop(chance.randrange(len(adding))).cancel()
            case 2:
                taking = asyncio.create_task(queue.get())
                for _ in range(chance.randrange(3)):
                    await asyncio.sleep(0)
                if taking.done() or not taking.cancel():
                    got.append(taking.result())
                await asyncio.gather(taking, return_exceptions=True)
            case _:
                await asyncio.sleep(0)
    while not all(task.done() for task in adding) or queue._messages:
        got.append(await asyncio.wait_for(queue.get(), 5))
        await asyncio.sleep(0)
    assert got == put


async def test_who_puts_waits_until_there_is_room() -> None:
    queue = _Messages(2)
    putting = [asyncio.create_task(queue.put(number)) for number in range(3)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert [task.done() for task in putting] == [True, True, False]
    assert await queue.get() == 0
    await asyncio.wait_for(putting[2], 5)
    assert [await queue.get(), await queue.get()] == [1, 2]
