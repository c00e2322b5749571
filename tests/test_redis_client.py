"""Whose fault an answer of Redis is."""

from __future__ import annotations

import pytest
from redis.exceptions import ResponseError

from llmchat.errors import Unavailable
from llmchat.redis_client import available, connect
from tests.instances import Store


async def test_store_that_takes_no_writes_is_unavailable_and_a_command_in_a_pipeline_too(
    fresh_store: Store,
) -> None:
    async with connect(fresh_store.url) as redis:
        await redis.replicaof("127.0.0.1", 1)
        with pytest.raises(Unavailable):
            async with available():
                await redis.set("key", "value")
        pipe = redis.pipeline(transaction=False)
        pipe.get("key")
        pipe.set("key", "value")
        with pytest.raises(Unavailable):
            async with available():
                await pipe.execute()


async def test_answer_to_a_wrong_command_is_a_bug_of_ours(store: Store) -> None:
    async with connect(store.url) as redis:
        with pytest.raises(ResponseError):
            async with available():
                await redis.execute_command("NONSENSE")
        pipe = redis.pipeline(transaction=False)
        pipe.execute_command("NONSENSE")
        with pytest.raises(ResponseError):
            async with available():
                await pipe.execute()
