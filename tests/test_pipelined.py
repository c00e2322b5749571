"""Commands of many tasks, on a real server."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
from redis.exceptions import ConnectionError as Away
from redis.exceptions import ResponseError

from llmchat import pipelined
from llmchat.pipelined import SHARED_BYTES, Pipelining
from llmchat.redis_client import connect
from tests.instances import Store

MANY = 250


class Counted:
    """Counts the pipelines of a client."""

    def __init__(self, redis: Pipelining, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made = 0
        self._exchange = redis._exchange_all
        monkeypatch.setattr(redis, "_exchange_all", self._make)

    async def _make(self, asked: Sequence[Any], answers: list[Any]) -> None:
        self.made += 1
        await self._exchange(asked, answers)


@pytest.fixture
async def redis(store: Store) -> AsyncIterator[Pipelining]:
    async with connect(store.url) as client:
        yield cast(Pipelining, client)


@pytest.fixture
def key() -> str:
    return f"pipelined-{secrets.token_hex(4)}"


async def test_each_gets_its_own_answer_and_they_share_pipelines(
    redis: Pipelining, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = Counted(redis, monkeypatch)
    answers = await asyncio.gather(*(redis.echo(str(number)) for number in range(MANY)))
    assert answers == [str(number).encode() for number in range(MANY)]
    assert counted.made == 3


async def test_commands_are_carried_out_in_order(redis: Pipelining, key: str) -> None:
    lengths = await asyncio.gather(*(redis.rpush(key, number) for number in range(MANY)))
    assert lengths == [*range(1, MANY + 1)]
    assert await redis.lrange(key, 0, -1) == [str(number).encode() for number in range(MANY)]


async def test_answers_are_as_redis_py_gives_them(redis: Pipelining, key: str) -> None:
    assert await redis.set(key, 1) is True
    assert await redis.hgetall(f"{key}:none") == {}
    assert await redis.zadd(f"{key}:z", {"a": 1.5}) == 1
    assert await redis.zrange(f"{key}:z", 0, -1, withscores=True) == [(b"a", 1.5)]
    assert (await redis.info("server"))["tcp_port"]


async def test_wrong_command_is_told_to_who_gave_it_alone(redis: Pipelining, key: str) -> None:
    before, wrong, after = await asyncio.gather(
        redis.set(key, 1), redis.lpush(key, 1), redis.incr(key), return_exceptions=True
    )
    assert (before, after) == (True, 2)
    assert isinstance(wrong, ResponseError)


async def test_who_is_cancelled_takes_nobody_along(redis: Pipelining, key: str) -> None:
    first, second, third = (asyncio.create_task(redis.incr(key)) for _ in range(3))
    await asyncio.sleep(0)
    second.cancel()
    assert await asyncio.gather(first, third) in ([1, 2], [1, 3])
    assert second.cancelled()


async def test_large_command_has_a_connection_to_itself(
    redis: Pipelining, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = Counted(redis, monkeypatch)
    large = "x" * (SHARED_BYTES + 1)
    await asyncio.gather(*(redis.set(f"{key}:{number}", large) for number in range(10)))
    assert (
        await asyncio.gather(*(redis.get(f"{key}:{number}") for number in range(10))) == [large.encode()] * 10
    )
    assert counted.made == 0


async def test_all_who_wait_are_told_of_a_failure_and_the_next_are_served(
    redis: Pipelining, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise Away("away")

    monkeypatch.setattr(redis, "_exchange_all", fail)
    for failed in await asyncio.gather(*(redis.echo("a") for _ in range(3)), return_exceptions=True):
        assert isinstance(failed, Away)
    monkeypatch.undo()
    assert await redis.echo("b") == b"b"


async def test_store_that_starts_anew_is_served_by_the_next_command(fresh_store: Store) -> None:
    async with connect(fresh_store.url) as redis:
        for number in range(3):
            assert await redis.echo(str(number)) == str(number).encode()
            await fresh_store.restart()


async def test_pipeline_without_an_answer_is_given_up(
    fresh_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Pipelining, "seconds", 0.2)
    async with connect(fresh_store.url) as redis:
        assert await redis.echo("a") == b"a"
        fresh_store.freeze()
        with pytest.raises(TimeoutError):
            await redis.echo("b")
        fresh_store.thaw()
        assert await redis.echo("c") == b"c"


async def test_who_waits_when_the_client_is_closed_is_told_and_no_connection_is_left(
    fresh_store: Store,
) -> None:
    async with connect(fresh_store.url) as redis:
        assert await redis.echo("a") == b"a"
        fresh_store.freeze()
        waiting = [asyncio.create_task(redis.echo("b")) for _ in range(3)]
        await asyncio.sleep(0.05)
        waiting += [asyncio.create_task(redis.echo("c"))]
        await asyncio.sleep(0)
        await redis.aclose()
        for told in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(told, Away)
        assert not redis.connection_pool._in_use_connections
    fresh_store.thaw()


async def test_those_that_come_meanwhile_go_next(redis: Pipelining, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipelined, "MOST_COMMANDS", 2)

    async def twice(number: int) -> list[bytes]:
        return [await redis.echo(str(number)), await redis.echo(str(number))]

    found = await asyncio.gather(*map(twice, range(7)))
    assert found == [[str(number).encode()] * 2 for number in range(7)]


async def test_client_that_was_closed_at_once_is_usable_again(store: Store) -> None:
    async with connect(store.url) as redis:
        first = asyncio.create_task(redis.echo("a"))
        await asyncio.sleep(0)
        await redis.aclose()
        with pytest.raises(Away):
            await asyncio.wait_for(first, 5)
        assert await asyncio.wait_for(redis.echo("b"), 5) == b"b"


async def test_answer_that_cannot_be_read_is_its_own_commands_alone(
    redis: Pipelining, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ValueError("unreadable")

    monkeypatch.setitem(redis.response_callbacks, "ZSCORE", fail)
    await redis.zadd("scores", {"a": 1})
    found = await asyncio.gather(
        redis.echo("a"), redis.zscore("scores", "a"), redis.echo("b"), return_exceptions=True
    )
    assert (found[0], type(found[1]), found[2]) == (b"a", ValueError, b"b")
    assert await redis.echo("c") == b"c"


@pytest.mark.parametrize("word", ["\ud800", True, None, [1]])
async def test_word_that_cannot_be_written_is_its_own_commands_alone(redis: Pipelining, word: Any) -> None:
    found = await asyncio.gather(
        redis.echo("a"), redis.execute_command("ECHO", word), redis.echo("b"), return_exceptions=True
    )
    assert (found[0], found[2]) == (b"a", b"b")
    assert word is True or isinstance(found[1], Exception)


async def test_what_was_answered_before_the_connection_broke_is_not_asked_again(
    redis: Pipelining, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await redis.echo("a") == b"a"
    line, broken = redis._line, False
    read = line.read_response

    async def breaking(*given: Any, **options: Any) -> Any:
        nonlocal broken
        answer = await read(*given, **options)
        if answer == 2 and not broken:
            broken = True
            await line.disconnect(nowait=True)
            raise Away("broken off")
        return answer

    monkeypatch.setattr(line, "read_response", breaking)
    # The second one was carried out, but its answer is lost: it is asked again, and the first is not.
    assert await asyncio.gather(*(redis.incr(key) for _ in range(3))) == [1, 4, 5]


async def test_connection_to_a_former_master_is_given_up() -> None:
    async with connect("redis+sentinel://127.0.0.1:1/master") as client:
        redis = cast(Pipelining, client)
        pool: Any = redis.connection_pool
        line = SimpleNamespace(host="127.0.0.1", port=6379)
        assert not redis._has_moved(line)  # nobody has been asked
        pool.master_address = ("127.0.0.1", 6379)
        assert not redis._has_moved(line)
        pool.master_address = ("127.0.0.1", 6380)
        assert redis._has_moved(line)


async def test_lost_connection_asks_anew_where_to_connect(
    redis: Pipelining, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await redis.echo("a") == b"a"
    line, asked = redis._line, 0
    connect_line = line.connect

    async def connecting() -> None:
        nonlocal asked
        asked += 1
        await connect_line()

    monkeypatch.setattr(line, "connect", connecting)  # here, Sentinels are asked
    assert await redis.echo("b") == b"b"
    assert asked == 0
    await line.disconnect(nowait=True)
    assert await redis.echo("c") == b"c"
    assert asked == 1


async def test_connection_that_is_given_up_is_replaced(
    redis: Pipelining, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await redis.echo("a") == b"a"
    before = redis._line
    monkeypatch.setattr(redis, "_has_moved", lambda line: line is before)
    assert await redis.echo("b") == b"b"
    assert redis._line is not before or redis._line.is_connected
    assert len(redis.connection_pool._in_use_connections) == 1
