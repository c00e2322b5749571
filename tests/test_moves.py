"""What an anonymous session had becomes a person's: all of it, whatever comes in between."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from redis.asyncio import Redis

from llmchat.answering import Answering
from llmchat.arrivals import LONGEST_MS, Arrivals
from llmchat.attachments import Attachments
from llmchat.broadcaster import Broadcaster
from llmchat.conversation import Choices
from llmchat.erasure import Erasure
from llmchat.errors import NotFound
from llmchat.intake import Intake
from llmchat.limits import KINDS
from llmchat.listing import Listing
from llmchat.models import Models
from llmchat.moves import Moves
from llmchat.prompts import Prompts
from llmchat.redis_client import connect
from llmchat.shares import SHARED_BYTES, SHARED_MESSAGES, Shares
from llmchat.takeout import Takeout
from llmchat.transcripts import Transcripts
from tests import pictures
from tests.instances import Store
from tests.test_history import SESSION, Story, redis
from tests.trunk import as_json, ours

__all__ = ["redis"]

PERSON = "person"
MANY = 10**6


class Moving(Story):
    """What alice has in her browser, and a person who takes it along."""

    def __init__(self, redis: Redis, url: str) -> None:
        super().__init__(redis)
        self.attachments = Attachments(redis, self.keys, largest=100, most_bytes=1000, days=1)
        self.shares = Shares(redis, self.keys, "of the tests " * 4, history_days=400)
        self.prompts = Prompts(redis, self.keys, history_days=400, most_characters=100)
        self.erasure = Erasure(redis, self.keys, KINDS)
        self.broadcaster = Broadcaster([url], prefix=self.keys.prefix, capacity=100)
        self.answering = Answering(redis, self.keys, "k" * 32, most=100, seconds=60)
        self.told: list[str] = []
        self.listing = Told(self.conversations, self.broadcaster, Nobody(), self.told)
        self.moves = self.moving(redis)

    def moving(self, redis: Redis) -> Moves:
        """The moves, with a client of Redis."""
        return Moves(
            redis,
            self.keys,
            self.conversations,
            self.attachments,
            self.shares,
            self.prompts,
            self.listing,
            self.broadcaster,
            self.answering,
        )

    async def has(self, conversation: str, **fields: str) -> None:
        """Let alice have a conversation, with these fields."""
        choices = Choices(temporary=bool(fields.get("temporary")))
        await self.send(f"{conversation}.1", conversation=conversation, choices=choices)
        known = await self.conversations.conversation(SESSION, conversation)
        await self.conversations.touch(SESSION, known)
        if changes := {name: value for name, value in fields.items() if name != "temporary"}:
            await self.conversations.update(SESSION, conversation, changes)

    async def move(self) -> int:
        """Sign in, and come back."""
        await self.moves.begin(SESSION, PERSON)
        return await self.moves.finish(PERSON)

    async def listed(self, session: str, **wanted: Any) -> set[str]:
        """A list of a session's."""
        found, _ = await self.conversations.listed(session, before_ms=None, limit=500, **wanted)
        return {each.id for each in found}


class Told(Listing):
    """Keeps what is told."""

    def __init__(self, *parts: Any) -> None:
        *others, self._told = parts
        super().__init__(*others)

    async def updated(self, session: str, conversation: str, *, used: bool = False) -> None:
        await super().updated(session, conversation, used=used)
        self._told.append(conversation)


class Nobody(Models):
    """No model is on offer."""

    def __init__(self) -> None:
        pass

    offered = ("m",)


@pytest.fixture
async def story(redis: Redis, store: Store) -> AsyncIterator[Moving]:
    moving = Moving(redis, store.url)
    yield moving
    await moving.broadcaster.close()


async def test_all_chats_are_the_persons_and_nobody_elses(story: Moving) -> None:
    await story.has("plain")
    await story.has("pinned", pinned="1")
    await story.has("kept", archived="1", pinned="1")
    await story.has("short", temporary="1")
    await story.has("gone")
    await story.conversations.delete(SESSION, "gone")
    await story.erasure.note(SESSION, "gone")
    await story.conversations.unlist(SESSION, "gone")
    before, _ = await story.conversations.listed(SESSION, before_ms=None, limit=10)

    assert await story.move() == 3
    assert await story.listed(PERSON) == {"plain", "pinned", "kept"}
    assert await story.listed(PERSON, pinned=True) == {"pinned", "kept"}
    assert await story.listed(PERSON, archived=True) == {"kept"}
    after, _ = await story.conversations.listed(PERSON, before_ms=None, limit=10)
    assert [each.id for each in after] == [each.id for each in before]
    assert set(await story.erasure.all(PERSON)) == {"plain", "pinned", "kept", "short", "gone"}
    assert (await story.conversations.conversation(PERSON, "short")).temporary
    restored, _ = await story.conversations.restore(PERSON, "gone")
    assert restored.id == "gone"
    assert await story.erasure.all(SESSION) == []
    with pytest.raises(NotFound):
        await story.conversations.check(SESSION, "plain")
    assert set(story.told) == {"plain", "pinned", "kept"}
    assert await story.moves.finish(PERSON) == 0


async def test_files_links_and_starting_prompts_come_along_whatever_the_person_has(story: Moving) -> None:
    await story.exchange("m1")
    picture = pictures.PNG.ljust(100, b".")
    file = (await story.attachments.put(SESSION, "k", "cat.png", picture)).id
    await story.attachments.keep(SESSION, story.id, [file])
    loose = (await story.attachments.put(SESSION, "k2", "dog.png", picture)).id
    lives_ms = await story.redis.pttl(story.keys.attachment_bytes(file))
    for key in ("k1", "k2"):
        await story.attachments.put(PERSON, key, "cat.png", picture)  # with the others more than a quarter
    branch = await story.history.read(
        SESSION, story.id, limit=SHARED_MESSAGES, max_bytes=SHARED_BYTES, texts_only=True
    )
    share = await story.shares.create(SESSION, "s1", branch)
    prompt = await story.prompts.add(SESSION, "p1", "Greet", "Say hello")

    await story.move()
    found = await story.attachments.find(PERSON, [file, loose])
    assert [each.name for each in found if each] == ["cat.png", "dog.png"]
    assert await story.attachments.find(SESSION, [file, loose]) == [None, None]
    assert lives_ms - 60_000 < await story.redis.pttl(story.keys.attachment_bytes(file)) <= lives_ms
    own, others = (story.keys.attachments_of(each) for each in (SESSION, PERSON))
    assert await story.redis.exists(own, f"{own}:bytes") == 0
    assert int(await story.redis.get(f"{others}:bytes")) == 400
    assert int(await story.redis.get(f"{story.keys.attachments}:bytes")) == 400
    assert await story.shares.listed(PERSON) == [share]
    assert await story.shares.find(share.id) is not None
    assert await story.shares.listed(SESSION) == []
    await story.shares.revoke(PERSON, share.id)
    assert await story.shares.find(share.id) is None
    assert await story.prompts.listed(PERSON) == [prompt]
    assert await story.prompts.listed(SESSION) == []


async def test_second_browser_adds_its_chats_to_those_of_the_first(story: Moving) -> None:
    await story.has("first")
    assert await story.move() == 1
    await story.send("o1", session="other", conversation="second")
    await story.moves.begin("other", PERSON)
    assert await story.moves.finish(PERSON) == 1
    assert await story.listed(PERSON) == {"first", "second"}


async def test_who_is_first_has_it_when_two_persons_take_one_browser_along(story: Moving) -> None:
    await story.has("c1")
    await story.moves.begin(SESSION, PERSON)
    await story.moves.begin(SESSION, "somebody")
    assert await story.moves.finish("somebody") == 0
    assert await story.moves.finish(PERSON) == 1
    assert await story.listed("somebody") == set()
    assert await story.erasure.sessions("somebody", ever=True) == ["somebody"]


async def test_session_that_moved_is_known_to_have(story: Moving) -> None:
    assert not await story.moves.has_moved(SESSION)
    await story.moves.begin(SESSION, PERSON)
    assert await story.moves.has_moved(SESSION)
    assert not await story.moves.has_moved(PERSON)


async def test_what_comes_to_the_former_session_meanwhile_is_the_persons_a_moment_later(
    story: Moving,
) -> None:
    await story.has("c1")
    await story.move()
    await story.conversations.announce(SESSION, "late", temporary=False)  # before its prompt is stored
    assert await story.moves.finish(PERSON) == 0
    await story.has("late")
    file = (await story.attachments.put(SESSION, "k", "cat.png", pictures.PNG.ljust(100, b"."))).id
    assert await story.moves.finish(PERSON) == 1
    assert await story.listed(PERSON) == {"c1", "late"}
    assert (await story.attachments.find(PERSON, [file]))[0]


async def test_nobody_looks_any_more_once_nothing_can_be_under_way(story: Moving) -> None:
    await story.has("c1")
    await story.move()
    formers = story.keys.formers(PERSON)
    await story.redis.zincrby(formers, -LONGEST_MS - 1000, SESSION)  # as if it were long ago
    await story.has("late")
    assert await story.moves.finish(PERSON) == 1
    assert await story.erasure.sessions(PERSON) == [PERSON]
    assert await story.erasure.sessions(PERSON, ever=True) == [PERSON, SESSION]
    assert await story.moves.finish(PERSON) == 0


class Dies(Exception):
    """The instance."""


class Dying:
    """A client of Redis whose instance dies once so many commands and pipelines are `left`."""

    def __init__(self, redis: Redis) -> None:
        self.left = MANY
        self._redis = redis

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._redis, name)
        if name == "pipeline":
            return lambda **options: self._counted_pipeline(found(**options))
        return self._counted(found) if callable(found) and not name.startswith("_") else found

    def _counted(self, act: Callable[..., Any]) -> Callable[..., Any]:
        async def counted(*args: Any, **options: Any) -> Any:
            self.left -= 1
            if self.left < 0:
                raise Dies
            return await act(*args, **options)

        return counted

    def _counted_pipeline(self, pipe: Any) -> Any:
        pipe.execute = self._counted(pipe.execute)
        return pipe


async def test_move_that_breaks_off_anywhere_is_gone_on_with(store: Store) -> None:
    after, done = 0, False
    async with connect(store.url) as client:
        while not done:
            dying = Dying(client)
            story = Moving(dying, store.url)  # type: ignore[arg-type]
            await story.has("plain")
            await story.has("kept", archived="1", pinned="1")
            await story.attachments.put(SESSION, "k", "cat.png", pictures.PNG.ljust(100, b"."))
            await story.prompts.add(SESSION, "p1", "Greet", "Say hello")
            for conversation in (
                "plain",
                "kept",
            ):  # what leads nowhere is taken off the lists when it is so old
                await story.conversations.update(
                    SESSION, conversation, {"updated": "2026-01-01T00:00:00.000Z"}
                )
                await story.conversations.touch(
                    SESSION, await story.conversations.conversation(SESSION, conversation)
                )
            await story.moves.begin(SESSION, PERSON)
            dying.left = after
            try:
                await story.moves.finish(PERSON)
                done = True
            except Dies:
                after += 1
            dying.left = MANY
            for session in (SESSION, PERSON):  # a tab of before, and one that comes first
                await story.listed(session)
            await story.moves.finish(PERSON)
            assert await story.listed(PERSON) == {"plain", "kept"}, after
            assert await story.listed(PERSON, archived=True) == {"kept"}
            assert len(await story.prompts.listed(PERSON)) == 1
            assert int(await client.get(f"{story.keys.attachments_of(PERSON)}:bytes")) == 100
            assert await story.erasure.all(SESSION) == []
            await story.broadcaster.close()
    assert after > 10


async def test_delete_everything_reaches_what_is_under_way_to_a_former_session(story: Moving) -> None:
    await story.has("c1")
    await story.move()
    await story.has("late")
    arrivals = Arrivals(story.redis, story.keys)
    takeout = Takeout(
        Transcripts(story.redis, story.keys, history_days=400),
        story.attachments,
        story.erasure,
        story.listing,
    )
    async with arrivals.expect(SESSION) as arrival:
        assert await takeout.forget(PERSON) == 2
        assert not await arrivals.wanted(arrival)
    assert await story.moves.finish(PERSON) == 0
    assert await story.listed(PERSON) == set()


async def test_import_of_before_is_known_for_what_it_is_after_the_move(story: Moving) -> None:
    arrivals = Arrivals(story.redis, story.keys)
    transcripts = Transcripts(story.redis, story.keys, history_days=400)
    intake = Intake(transcripts, story.attachments, story.erasure, story.listing, arrivals, takes_system=bool)
    file = as_json(ours())
    before = [report async for report in intake.read(SESSION, io.BytesIO(file), len(file))][-1]
    assert (before.imported, before.already_here) == (1, 0)
    await story.move()
    after = [report async for report in intake.read(PERSON, io.BytesIO(file), len(file))][-1]
    assert (after.imported, after.already_here) == (0, 1)
