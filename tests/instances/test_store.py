"""The real store of the tests comes back with what it had."""

from __future__ import annotations

import asyncio

import pytest
from redis.exceptions import ConnectionError as Gone

from tests.instances import Store
from tests.waiting import within


@pytest.mark.parametrize("end", ["stop", "kill"])
async def test_store_keeps_what_it_acknowledged_over_its_end(fresh_store: Store, end: str) -> None:
    async with fresh_store.client() as redis:
        await redis.set("name", "value")
    await getattr(fresh_store, end)()
    async with fresh_store.client() as redis:
        with pytest.raises(Gone):
            await redis.ping()
    await fresh_store.start()
    async with fresh_store.client() as redis:
        assert await redis.get("name") == b"value"


async def test_frozen_store_answers_once_it_is_thawed(fresh_store: Store) -> None:
    async with fresh_store.client() as redis:
        await redis.ping()
        fresh_store.freeze()
        asking = asyncio.ensure_future(redis.ping())
        with pytest.raises(AssertionError, match="the frozen store answers"):
            async with within(0.2, "the frozen store answers"):
                await asyncio.shield(asking)
        fresh_store.thaw()
        async with within(5, "the store answers"):
            assert await asking
