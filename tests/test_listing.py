"""What is told last of a conversation is what it is. On fakeredis."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

from fakeredis import FakeAsyncRedis

from llmchat.errors import NotFound
from llmchat.listing import Listing
from tests.test_history import SESSION, Story


class Told:
    """In the broadcaster's place: takes what is told, and has something happen in the moment of the first."""

    def __init__(self, meanwhile: Callable[[], Awaitable[object]]) -> None:
        self.events: list[dict[str, Any]] = []
        self._meanwhile = meanwhile

    async def group_send(self, group: str, message: dict[str, Any]) -> None:
        """Take one."""
        self.events.append(json.loads(message["frame"]))
        if len(self.events) == 1:
            await self._meanwhile()


async def tell(story: Story, meanwhile: Callable[[], Awaitable[object]]) -> list[dict[str, Any]]:
    """Tell of a conversation that changes after it was read."""
    told = Told(meanwhile)
    models: Any = SimpleNamespace(offered=("m",))
    broadcaster: Any = told
    listing = Listing(story.conversations, broadcaster, models)
    known = await story.conversations.conversation(SESSION, story.id)
    try:
        answer = await listing.changed(SESSION, known)
    except NotFound:
        assert told.events[-1]["type"] == "conversation.deleted"
    else:
        assert (
            json.loads(answer.encode()) == told.events[-1]
        )  # who asked for the change is told nothing older
    return told.events


async def test_change_told_before_what_was_read_earlier_is_told_again(fake_redis: FakeAsyncRedis) -> None:
    story = Story(fake_redis)
    await story.send("m1")
    events = await tell(story, lambda: story.conversations.update(SESSION, story.id, {"title": "Named"}))
    assert [event["conversation"]["title"] for event in events] == ["Greeting", "Named"]


async def test_conversation_deleted_before_its_change_is_told_is_told_as_deleted(
    fake_redis: FakeAsyncRedis,
) -> None:
    story = Story(fake_redis)
    await story.send("m1")
    events = await tell(story, lambda: story.conversations.delete(SESSION, story.id))
    assert [event["type"] for event in events] == ["conversation.updated", "conversation.deleted"]


async def test_conversation_that_stays_is_told_once(fake_redis: FakeAsyncRedis) -> None:
    story = Story(fake_redis)
    await story.send("m1")
    assert len(await tell(story, fake_redis.ping)) == 1
