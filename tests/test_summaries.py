"""Summaries in the store: found for a branch, made once, corrected, gone with their conversation."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from fakeredis import FakeAsyncRedis

from llmchat import summaries
from llmchat.conversation import Branch, Summary
from llmchat.errors import BadField, Conflict, Fenced, NotFound
from llmchat.lease import Leases
from llmchat.summaries import TRIES, Summaries
from tests.test_history import SESSION, Story

FIRST = Summary("m1.a", "They like tea.", 2, "t")
SECOND = Summary("m2.a", "They like tea and rain.", 4, "t")


class Told(Story):
    """A conversation of three turns, and its summaries."""

    def __init__(self, redis: FakeAsyncRedis) -> None:
        super().__init__(redis)
        self.summaries = Summaries(redis, self.keys, history_days=400)
        self.fold_leases = Leases(redis, self.keys, of="fold")

    async def talk(self, message: str, **changed: str) -> None:
        await self.send(message, **changed)
        await self.finish(*await self.begin())

    async def fence(self) -> str:
        await self.redis.delete(self.of.fold_lease)
        lease = await self.fold_leases.take(self.id)
        assert lease
        return lease.fence

    async def fold(
        self,
        before: Summary | None,
        after: Summary,
        *,
        fence: str | None = None,
        answers: Sequence[str] = (),
        continued: int = 0,
    ) -> bool:
        """Store a summary of `answers`; by default of the one under which it stands."""
        return await self.summaries.fold(
            self.id,
            fence or await self.fence(),
            before,
            after,
            answers=answers or [after.message],
            continued=continued,
        )

    async def go_on(self, message: str) -> None:
        """Have an answer go on that may, and not end."""
        record = json.loads(await self.redis.hget(self.of.messages, message) or "")
        await self.redis.hset(self.of.messages, message, json.dumps(record | {"finish_reason": "length"}))
        await self.history.go_on(
            session=SESSION, conversation=self.id, message=message, command="c", model="m"
        )

    async def read(self) -> Branch:
        return await self.history.read(SESSION, self.id, limit=50, max_bytes=10_000, to_summary=True)


@pytest.fixture
async def told(fake_redis: FakeAsyncRedis) -> Told:
    told = Told(fake_redis)
    for number in (1, 2, 3):
        await told.talk(f"m{number}")
    return told


async def test_newest_summary_of_a_branch_is_found(told: Told) -> None:
    assert await told.summaries.newest(SESSION, told.id) is None
    await told.fold(None, FIRST)
    await told.fold(FIRST, SECOND)
    assert await told.summaries.newest(SESSION, told.id) == SECOND
    branch = await told.history.read(SESSION, told.id, limit=50, max_bytes=10_000, to_summary=True)
    assert branch.summary == SECOND
    assert [message["id"] for message in branch.messages] == ["m3", "m3.a"]


async def test_branch_from_above_a_summary_does_not_use_it(told: Told) -> None:
    await told.fold(None, FIRST)
    await told.fold(FIRST, SECOND)
    await told.talk("other", parent="m1.a")
    assert await told.summaries.newest(SESSION, told.id) == FIRST
    await told.talk("root", parent="")
    assert await told.summaries.newest(SESSION, told.id) is None
    branch = await told.history.read(SESSION, told.id, limit=50, max_bytes=10_000, to_summary=True)
    assert branch.summary is None
    assert [message["id"] for message in branch.messages] == ["root", "root.a"]


@pytest.mark.parametrize("limit", [3, 4])
async def test_summary_is_found_where_a_read_ends_at_its_limit(told: Told, limit: int) -> None:
    await told.fold(None, FIRST)
    branch = await told.history.read(SESSION, told.id, limit=limit, max_bytes=10_000, to_summary=True)
    assert branch.summary == FIRST
    assert len(branch.messages) == limit


async def test_oldest_without_a_summary_are_found_however_many_there_are(told: Told) -> None:
    assert await told.summaries.oldest_uncovered(SESSION, told.id, "m3.a", 50) == "m3.a"
    assert await told.summaries.oldest_uncovered(SESSION, told.id, "m3.a", 2) == "m1.a"
    await told.fold(None, FIRST)
    assert await told.summaries.oldest_uncovered(SESSION, told.id, "m3.a", 2) == "m2.a"
    assert await told.summaries.oldest_uncovered(SESSION, told.id, "m1.a", 2) == ""


async def test_fold_of_what_was_corrected_meanwhile_is_not_stored(told: Told) -> None:
    await told.fold(None, FIRST)
    await told.summaries.correct(SESSION, told.id, "m1.a", "They like coffee.")
    assert not await told.fold(FIRST, SECOND)
    found = await told.summaries.newest(SESSION, told.id)
    assert found == Summary("m1.a", "They like coffee.", 2, "t", corrected=True)


async def test_fold_of_a_holder_that_was_replaced_is_not_stored(told: Told) -> None:
    fence = await told.fence()
    await told.fence()
    await told.summaries.want(told.id, "m1.a", "m")
    with pytest.raises(Fenced):
        await told.fold(None, FIRST, fence=fence)
    with pytest.raises(Fenced):
        await told.summaries.wanted(told.id, fence)
    with pytest.raises(Fenced):
        await told.summaries.forgo(told.id, fence)
    wanted = await told.summaries.wanted(told.id, await told.fence())
    assert wanted
    assert wanted.tries == 0


async def test_lease_of_a_fold_is_not_in_the_way_of_an_answer(told: Told) -> None:
    assert await told.fold_leases.take(told.id)
    await told.redis.delete(told.of.lease)
    assert await told.leases.take(told.id)


async def test_fold_is_wanted_until_it_is_made(told: Told) -> None:
    await told.summaries.want(told.id, "m1.a", "m")
    await told.summaries.close(told.id)
    assert await told.summaries.open() == [told.id], "it is listed for as long as it is wanted"
    fence = await told.fence()
    await told.fold(None, FIRST, fence=fence)
    assert await told.summaries.wanted(told.id, fence) is None
    await told.summaries.close(told.id)
    assert await told.summaries.open() == []


async def test_fold_is_dropped_after_its_tries(told: Told) -> None:
    await told.summaries.want(told.id, "m1.a", "m")
    fence = await told.fence()
    for number in range(TRIES):
        wanted = await told.summaries.wanted(told.id, fence)
        assert wanted
        assert (wanted.session, wanted.up_to, wanted.model, wanted.tries) == (SESSION, "m1.a", "m", number)
    assert await told.summaries.wanted(told.id, fence) is None
    assert not await told.redis.exists(told.of.fold)


async def test_fold_that_leaves_some_has_all_its_tries_again_for_the_rest(told: Told) -> None:
    await told.summaries.want(told.id, "m2.a", "m")
    fence = await told.fence()
    await told.summaries.wanted(told.id, fence)
    assert await told.fold(None, FIRST, fence=fence)
    wanted = await told.summaries.wanted(told.id, fence)
    assert wanted
    assert (wanted.up_to, wanted.tries) == ("m2.a", 0)
    await told.summaries.forgo(told.id, fence)
    assert not await told.redis.exists(told.of.fold)
    assert await told.fold(FIRST, SECOND, fence=fence)
    assert not await told.redis.exists(told.of.fold), "nothing is left of a wish that was given up"


async def test_correction_of_an_older_summary_is_a_conflict(told: Told) -> None:
    await told.fold(None, FIRST)
    await told.fold(FIRST, SECOND)
    with pytest.raises(Conflict):
        await told.summaries.correct(SESSION, told.id, "m1.a", "They like coffee.")


async def test_nobody_else_reads_or_corrects_a_summary(told: Told) -> None:
    await told.fold(None, FIRST)
    with pytest.raises(NotFound):
        await told.summaries.newest("mallory", told.id)
    with pytest.raises(NotFound):
        await told.summaries.correct("mallory", told.id, "m1.a", "They like coffee.")


async def test_summaries_go_and_come_back_with_their_conversation(told: Told) -> None:
    await told.fold(None, FIRST)
    kept_ms = await told.redis.pttl(told.of.messages)
    assert abs(await told.redis.pttl(told.of.summaries) - kept_ms) < 60_000
    await told.conversations.delete(SESSION, told.id)
    assert 0 < await told.redis.pttl(told.of.summaries) <= 30_000
    await told.conversations.restore(SESSION, told.id)
    assert await told.redis.pttl(told.of.summaries) > 30_000
    assert await told.summaries.newest(SESSION, told.id) == FIRST


@pytest.mark.parametrize("temporary", [False, True])
async def test_summaries_live_as_long_as_the_messages_of_a_conversation_that_is_used(
    told: Told, temporary: bool
) -> None:
    assert await told.fold(None, FIRST)
    if temporary:
        await told.redis.hset(told.of.conversation, "temporary", "1")
    await told.redis.pexpire(told.of.summaries, 1000)  # as if nothing had been folded for long
    await told.talk("m4")
    left = [await told.redis.pttl(key) for key in (told.of.messages, told.of.summaries)]
    assert left[0] == pytest.approx(left[1], abs=60_000)


async def test_fold_of_a_deleted_conversation_leaves_nothing(told: Told) -> None:
    await told.summaries.want(told.id, "m1.a", "m")
    await told.conversations.delete(SESSION, told.id)
    assert not await told.fold(None, FIRST)
    await told.summaries.want(told.id, "m1.a", "m")
    assert not await told.redis.exists(told.of.summaries, told.of.fold)


@pytest.mark.parametrize("answer", ["m1.a", "m2.a"])
async def test_fold_of_an_answer_that_goes_on_meanwhile_is_not_stored(told: Told, answer: str) -> None:
    answers = ["m1.a", "m2.a"]
    continued = (await told.read()).conversation.continued
    await told.go_on(answer)
    assert not await told.fold(None, SECOND, answers=answers, continued=continued), "it is being made"
    await told.finish(*await told.begin())
    assert not await told.fold(None, SECOND, answers=answers, continued=continued), "it has more text now"
    assert await told.summaries.newest(SESSION, told.id) is None
    continued = (await told.read()).conversation.continued
    assert await told.fold(None, SECOND, answers=answers, continued=continued)


async def test_answer_that_a_summary_tells_of_does_not_go_on(told: Told) -> None:
    await told.fold(None, SECOND, answers=["m1.a", "m2.a"])
    await told.summaries.correct(SESSION, told.id, "m2.a", "They like coffee.")
    for answer in ("m1.a", "m2.a"):
        with pytest.raises(BadField, match="a summary tells of it"):
            await told.go_on(answer)
    await told.go_on("m3.a")
    found = await told.summaries.newest(SESSION, told.id)
    assert found
    assert found.text == "They like coffee."


async def test_newest_summary_is_found_above_any_number_of_messages(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(summaries, "WALKED", 2)
    assert await told.summaries.newest(SESSION, told.id) is None
    await told.fold(None, FIRST)
    assert await told.summaries.newest(SESSION, told.id) == FIRST
    assert await told.summaries.newest(SESSION, told.id, "m1.a") == FIRST
