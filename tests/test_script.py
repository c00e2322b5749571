"""How scripts are run on a store that forgets them."""

from __future__ import annotations

from typing import Any

import pytest

from llmchat.script import Script
from tests.instances import Store


async def test_script_runs_on_a_store_that_has_forgotten_it_whenever_it_starts_anew(
    fresh_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with fresh_store.client() as redis, fresh_store.client() as admin:
        evalsha = redis.evalsha

        async def forgotten(*arguments: Any) -> Any:
            await admin.script_flush()
            return await evalsha(*arguments)

        limit = Script(redis, "limit")
        for _ in range(2):
            assert await limit(["limit"], 1, 10, 1, "look") == 0
        monkeypatch.setattr(redis, "evalsha", forgotten)
        for _ in range(2):
            assert await limit(["limit"], 1, 10, 1, "look") == 0
