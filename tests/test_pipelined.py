"""Commands of many tasks, on a real server."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from llmchat import pipelined
from llmchat.errors import Unavailable
from llmchat.pipelined import Pipelined
from llmchat.redis_client import connect
from tests.instances import Store

MANY = 250


@pytest.fixture
async def redis(store: Store) -> AsyncIterator[Redis]:
    async with connect(store.url) as client:
        yield client


@pytest.fixture
def key() -> str:
    return f"pipelined-{secrets.token_hex(4)}"


async def pipelines_of(redis: Redis, work: asyncio.Future[object]) -> int:
    """Do some work, and count the pipelines."""
    made = 0
    pipeline = redis.pipeline

    def counted(**options: bool) -> object:
        nonlocal made
        made += 1
        return pipeline(**options)

    redis.pipeline = counted  # type: ignore[method-assign, assignment]
    await work
    return made


async def test_each_gets_its_own_answer_and_they_share_pipelines(redis: Redis, key: str) -> None:
    run = Pipelined(redis)
    work = asyncio.gather(*(run("ECHO", f"{key} {number}") for number in range(MANY)))
    assert await pipelines_of(redis, work) == 3
    assert work.result() == [f"{key} {number}".encode() for number in range(MANY)]


async def test_commands_are_carried_out_in_order(redis: Redis, key: str) -> None:
    run = Pipelined(redis)
    assert await asyncio.gather(*(run("RPUSH", key, number) for number in range(MANY))) == [
        *range(1, MANY + 1)
    ]
    assert await redis.lrange(key, 0, -1) == [str(number).encode() for number in range(MANY)]


async def test_wrong_command_is_told_to_who_gave_it_alone(redis: Redis, key: str) -> None:
    run = Pipelined(redis)
    before, wrong, after = await asyncio.gather(
        run("SET", key, 1), run("LPUSH", key, 1), run("GET", key), return_exceptions=True
    )
    assert (before, after) == (True, b"1")
    assert isinstance(wrong, ResponseError)


async def test_who_is_cancelled_takes_nobody_along(redis: Redis, key: str) -> None:
    run = Pipelined(redis)
    first, second, third = (asyncio.create_task(run("INCR", key)) for _ in range(3))
    await asyncio.sleep(0)
    second.cancel()
    assert await asyncio.gather(first, third) in ([1, 2], [1, 3])
    assert second.cancelled()


async def test_store_that_refuses_or_is_away_is_unavailable(
    redis: Redis, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Pipelined(redis)
    oom = "return redis.error_reply('OOM command not allowed when used memory > maxmemory.')"
    refused, served = await asyncio.gather(run("EVAL", oom, 0), run("ECHO", "a"), return_exceptions=True)
    assert (type(refused), served) == (Unavailable, b"a")
    monkeypatch.setattr(redis.connection_pool, "get_connection", _fail)
    for failed in await asyncio.gather(*(run("ECHO", "a") for _ in range(3)), return_exceptions=True):
        assert isinstance(failed, Unavailable)
    monkeypatch.undo()
    assert await run("ECHO", "b") == b"b"


async def _fail(*_: object, **__: object) -> None:
    raise ConnectionError("away")


async def test_those_that_come_meanwhile_go_next(
    redis: Redis, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipelined, "MOST_COMMANDS", 2)
    run = Pipelined(redis)

    async def twice(number: int) -> list[bytes]:
        return [await run("ECHO", str(number)), await run("ECHO", str(number))]

    found = await asyncio.gather(*map(twice, range(7)))
    assert found == [[str(number).encode()] * 2 for number in range(7)]
