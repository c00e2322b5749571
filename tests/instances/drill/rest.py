"""What is left when all is quiet: in the store, which must tell what clients show, and at the model server."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from redis.asyncio import Redis

from llmchat.keys import Keys
from tests.instances import Client
from tests.instances.drill.service import Service
from tests.instances.mirror import Mirror
from tests.waiting import eventually

MAX_ASKED = 3
GOING = ("turn", "queue", "text", "reasoning", "lease", "fold", "fold_lease")
"""Keys of a conversation that last as long as its answers are made."""
STALE_SECONDS = 15


async def left(service: Service, fresh: Client, conversations: Sequence[str], mark: str) -> list[str]:
    """Say what of the store's rest and of the model server's requests should not be so."""
    found: list[str] = []
    async with service.store.client() as redis:
        for conversation in conversations:
            found += await _conversation(redis, fresh.mirror(conversation))
    return found + await _requests(service, mark)


async def _conversation(redis: Redis, mirror: Mirror) -> list[str]:
    keys = Keys("llmchat").of_conversation(mirror.conversation)
    going: dict[str, str] = {name: getattr(keys, name) for name in GOING}

    async def idle() -> bool:
        return not await redis.exists(*going.values())

    try:
        await eventually(idle, seconds=30, what="nothing is made")
    except AssertionError:
        return [f"{key} is left" for key in going.values() if await redis.exists(key)]
    records: dict[bytes, bytes] = await redis.hgetall(keys.messages)  # type: ignore[assignment]
    stored = {name.decode(): json.loads(record) for name, record in records.items() if b":" not in name}
    return _differences(mirror, stored)


def _differences(mirror: Mirror, stored: dict[str, dict[str, Any]]) -> list[str]:
    """Say where the store's records differ from what a client shows."""
    found = []
    for shown in mirror.branch():
        record = stored.get(shown.id)
        if record is None:
            found.append(f"{shown} is not stored")
        elif record["text"] != shown.text or record.get("role") != shown.role:
            found.append(f"{record} is stored, and shown is {shown}")
    answered = [record.get("parent") for record in stored.values() if record["role"] == "assistant"]
    found += [
        f"{name} has no answer"
        for name, record in stored.items()
        if record["role"] == "user" and name not in answered
    ]
    return found


async def index_is_empty(service: Service) -> None:
    """Wait until the index of work is empty: what is stale in it is taken off after some seconds."""

    async def empty() -> bool:
        async with service.store.client() as redis:
            return not await redis.exists(Keys("llmchat").work)

    await eventually(empty, seconds=STALE_SECONDS, what="the index of work is empty")


async def _requests(service: Service, mark: str) -> list[str]:
    """Say which requests of a drill are still open."""
    found = []
    for request in service.model.requests:
        if f"[{mark}/" in request.prompt:
            try:
                await request.over(seconds=30)
            except AssertionError:
                found.append(f"the model server is still asked {request.prompt!r}")
    return found
