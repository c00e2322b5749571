"""Titles by a model: found once, behind the answers, and never over a person's. On fakeredis and a real model server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from fakeredis import FakeAsyncRedis

from llmchat.completion import Completions
from llmchat.listing import Listing
from llmchat.model_stream import Deadlines
from llmchat.settings import Settings
from llmchat.spending import Spending
from llmchat.titles import AT_ONCE, PARAMETERS, SAID_CHARACTERS, TRIES, Titles
from tests.fakes import SILENCE, Gate, Model, Reasoning
from tests.test_history import SESSION, Story
from tests.waiting import eventually

ASKED = ("How does a rainbow form?", "By light in drops.")


class Heard(Listing):
    """Notes what the list is told of."""

    def __init__(self) -> None:
        self.told: list[tuple[str, bool]] = []

    async def updated(self, session: str, conversation: str, *, used: bool = False) -> None:
        """Note it."""
        self.told.append((conversation, used))


class Named(Story):
    """A conversation of one turn, and the room of its title."""

    def __init__(self, redis: FakeAsyncRedis, settings: Settings, completions: Completions) -> None:
        super().__init__(redis)
        self.heard = Heard()
        self.titles = Titles(
            settings,
            redis,
            self.keys,
            completions,
            self.heard,
            Spending(redis, self.keys, tokens=0, all_tokens=0),
        )

    async def want(self, conversation: str = "", model: str = "m") -> None:
        """Want a title, and wait until nobody looks for it any more."""
        self.look(conversation, model)
        await asyncio.gather(*self.titles._running.values())

    def look(self, conversation: str = "", model: str = "m") -> None:
        self.titles.want(SESSION, conversation or self.id, model, *ASKED)

    async def field(self, name: str) -> str | None:
        found = await self.redis.hget(self.of.conversation, name)
        return found.decode() if found is not None else None

    async def title(self) -> str | None:
        return await self.field("title")


@pytest.fixture
async def completions(model: Model, settings: Settings) -> AsyncIterator[Completions]:
    made = Completions(settings.asked, Deadlines.of(settings))
    yield made
    await made.close()


@pytest.fixture
async def named(
    fake_redis: FakeAsyncRedis, settings: Settings, completions: Completions
) -> AsyncIterator[Named]:
    named = Named(fake_redis, replace(settings, title_model=""), completions)
    await named.exchange("m1")
    async with named.titles:
        yield named


async def test_title_is_found_by_the_chats_own_model_and_moves_nothing(named: Named, model: Model) -> None:
    before = await named.field("updated")
    model.name("**Rainbows**")
    await named.want(model="large")
    assert await named.title() == "Rainbows"
    assert await named.field("titled") == "auto"
    assert await named.field("updated") == before
    assert named.heard.told == [(named.id, False)]
    (request,) = model.titles
    assert request.body["model"] == "large"
    assert {name: request.body[name] for name in PARAMETERS} == PARAMETERS
    assert all(words in request.prompt for words in ASKED)


async def test_title_is_found_once(named: Named, model: Model) -> None:
    await named.want()
    await named.want()
    assert len(model.titles) == 1


@pytest.mark.parametrize(
    ("title_model", "local_label", "by"),
    [
        ("", None, "m"),
        ("off", None, None),
        ("tiny", None, "tiny"),
        ("", "Small", None),
        ("tiny", "Small", "tiny"),
    ],
)
def test_model_that_finds_titles_is_the_one_that_is_set(
    settings: Settings, title_model: str, local_label: str | None, by: str | None
) -> None:
    assert replace(settings, title_model=title_model, local_label=local_label).titled_by("m") == by


@pytest.mark.parametrize(
    "fields",
    [
        {"titled": "person"},
        {"temporary": "1"},
        {"deleted": "1"},
        {"session": "another"},
        {"title_tries": str(TRIES)},
    ],
)
async def test_no_title_is_looked_for_where_none_may_be_set(
    named: Named, model: Model, fields: dict[str, str]
) -> None:
    before = await named.title()
    await named.redis.hset(named.of.conversation, mapping=fields)
    await named.want()
    assert (await named.title(), model.titles, named.heard.told) == (before, [], [])


async def test_chat_of_an_earlier_version_keeps_its_title(named: Named, model: Model) -> None:
    await named.redis.hdel(named.of.conversation, "title_tries")
    await named.want()
    assert model.titles == []


@pytest.mark.parametrize("fields", [{"titled": "person"}, {"temporary": "1"}, {"deleted": "1"}])
async def test_title_that_comes_too_late_is_dropped(
    named: Named, model: Model, fields: dict[str, str]
) -> None:
    gate = Gate()
    model.name(gate, "Late")
    named.look()
    await gate.wait()
    await named.redis.hset(named.of.conversation, mapping={"title": "Mine", **fields})
    gate.open()
    await asyncio.gather(*named.titles._running.values())
    assert (await named.title(), named.heard.told) == ("Mine", [])


async def test_title_that_is_none_is_looked_for_once_more_and_no_further(named: Named, model: Model) -> None:
    before = await named.title()
    for _ in range(TRIES + 1):
        model.name('""')
        await named.want()
    assert len(model.titles) == TRIES
    assert (await named.title(), named.heard.told) == (before, [])


async def test_model_that_takes_no_limits_is_asked_without_from_then_on(named: Named, model: Model) -> None:
    model.refuse_name(400)
    model.name("Rainbows")
    await named.want()
    assert await named.title() == "Rainbows"
    with_limits, without = model.titles
    assert set(with_limits.body) - set(without.body) == set(PARAMETERS)
    await named.redis.hdel(named.of.conversation, "titled")
    await named.want()
    assert len(model.titles) == 3
    assert not set(PARAMETERS) & set(model.titles[-1].body)


@pytest.mark.parametrize(
    "pieces",
    [["word " * 100] * (SAID_CHARACTERS // 500 + 1), [Reasoning("hm " * SAID_CHARACTERS)]],
    ids=["babbles", "thinks"],
)
async def test_model_that_goes_on_and_on_is_not_listened_to(
    named: Named, model: Model, pieces: list[Any]
) -> None:
    model.name(*pieces, SILENCE)
    before = await named.title()
    await named.want()
    assert await named.title() == before
    assert await named.field("titled") is None


async def test_further_titles_are_dropped_while_many_are_looked_for_and_cost_no_try(
    named: Named, model: Model
) -> None:
    gates = [Gate() for _ in range(AT_ONCE)]
    for number, gate in enumerate(gates):
        model.name(gate, "Late")
        await named.send("m1", conversation=f"other{number}")
        named.look(f"other{number}")
    for gate in gates:
        await gate.wait()
    named.look()
    named.look("other0")
    assert len(named.titles._running) == AT_ONCE
    assert await named.field("title_tries") == "0"
    for gate in gates:
        gate.open()
    await eventually(lambda: _idle(named.titles), seconds=5, what="all are found")
    await named.want()
    assert await named.field("titled") == "auto"


async def test_stop_ends_all_looks_at_once(named: Named, model: Model) -> None:
    gate = Gate()
    model.name(gate, "Late")
    named.look()
    await gate.wait()
    await named.titles.stop()
    assert not named.titles._running
    await model.titles[0].closed()
    assert await named.field("title_tries") == "1"


async def _idle(titles: Titles) -> Any:
    return not titles._running
