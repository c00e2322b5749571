"""Prompts that wait, answers that go on: the history's part, on fakeredis and on a real store."""

from __future__ import annotations

import asyncio

import pytest
from fakeredis import FakeAsyncRedis
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from llmchat.conversation import COST_IN_VAIN, MAX_COST
from llmchat.errors import BadField, Busy, Fenced, NotFound
from llmchat.history import MAX_QUEUED
from llmchat.turn import MAX_ANSWER_BYTES, Answer, Delta
from tests.test_history import SESSION, Story, redis, story

__all__ = ["redis", "story"]


async def shown(story: Story) -> list[tuple[str, str | None, str]]:
    """Id, parent and state of the messages of the current branch."""
    read = await story.history.read(SESSION, story.id, limit=100, max_bytes=1_000_000)
    return [(message["id"], message["parent"], message["state"]) for message in read.messages]


async def open_turn(story: Story) -> str | None:
    found = await story.history.turn(story.id)
    return found[1].answer if found else None


async def withdraw(story: Story, message: str) -> bool:
    return await story.history.withdraw(SESSION, story.id, message)


# Waiting


async def test_prompt_waits_behind_the_answer_that_is_to_come(story: Story) -> None:
    await story.send("m1")
    await story.send("m2")
    await story.begin()
    await story.send("m3")
    added = [frame for frame in await story.frames() if frame["type"] == "message.added"]
    assert [(frame["message"]["state"], frame["message"]["parent"]) for frame in added] == [
        ("done", None), ("queued", "m1.a"), ("queued", "m2.a")
    ]  # fmt: skip
    assert await shown(story) == [
        ("m1", None, "done"),
        ("m1.a", "m1", "running"),
        ("m2", "m1.a", "queued"),
        ("m3", "m2.a", "queued"),
    ]


async def test_prompts_that_wait_are_answered_in_order(story: Story) -> None:
    for name in ("m1", "m2", "m3"):
        await story.send(name)
    for name in ("m1", "m2", "m3"):
        assert await open_turn(story) == f"{name}.a"
        fence, answer = await story.begin()
        states = {message: state for message, _, state in await shown(story)}
        assert states[name] == "done"
        await story.say(fence, answer, 1, f"answer to {name}")
        await story.finish(fence, answer)
    assert await open_turn(story) is None
    assert await story.branch() == ["m1", "m1.a", "m2", "m2.a", "m3", "m3.a"]


async def test_prompt_whose_turn_has_come_still_waits_for_those_who_were_told_so(story: Story) -> None:
    await story.send("m1")
    await story.send("m2")
    await story.answer()
    assert (await shown(story))[-1] == ("m2", "m1.a", "queued")
    with pytest.raises(Busy):
        await withdraw(story, "m2")
    await story.begin()
    assert (await shown(story))[-2] == ("m2", "m1.a", "done")


async def test_next_turn_is_there_in_the_step_that_ends_the_one_before(story: Story) -> None:
    await story.send("m1")
    await story.send("m2")
    fence, answer = await story.begin()
    await story.say(fence, answer, 1, "x")
    await story.finish(fence, answer)
    await story.finish(fence, answer)  # the reply was lost
    assert await open_turn(story) == "m2.a"
    again = Answer(conversation=story.id, message="m1.a", prompt="m1", model="m", created="t", attempt=2)
    with pytest.raises(Fenced):
        await story.history.begin(story.id, fence, 2, again.record(), "", again.started())


async def test_only_so_many_wait(story: Story) -> None:
    await story.send("m0")
    for number in range(MAX_QUEUED):
        await story.send(f"q{number}")
    with pytest.raises(Busy):
        await story.send("more")
    await story.answer()
    await story.send("more")


async def test_prompts_sent_at_once_are_one_behind_the_other(story: Story) -> None:
    await asyncio.gather(*(story.send(f"m{number}") for number in range(8)))
    read = await shown(story)
    assert [state for _, _, state in read] == ["done", *["queued"] * 7]
    assert [parent for _, parent, _ in read] == [None, *(f"{name}.a" for name, _, _ in read[:-1])]


async def test_repeat_of_one_that_waits_is_the_same(story: Story) -> None:
    await story.send("m1")
    first = await story.send("m2")
    again = await story.send("m2")
    assert (again.answer, again.at, again.repeated) == (first.answer, first.at, True)
    assert len(await shown(story)) == 2


async def test_edit_while_an_answer_runs_waits_on_its_own_branch_and_moves_nobody_when_it_begins(
    story: Story,
) -> None:
    await story.send("m1")
    await story.send("edited", parent="")
    await story.answer()
    assert await story.branch() == ["edited"]
    await story.history.select(SESSION, story.id, "m1")
    await story.answer()
    assert await story.branch() == ["m1", "m1.a"]
    await story.history.select(SESSION, story.id, "edited")
    assert await story.branch() == ["edited", "edited.a"]


async def test_prompt_behind_a_regenerate_goes_below_the_new_answer(story: Story) -> None:
    await story.exchange("m1")
    await story.regenerate("m1", "again")
    await story.send("m2")
    assert (await shown(story))[-1] == ("m2", "again", "queued")
    await story.answer()
    assert await story.branch() == ["m1", "again", "m2"]


async def test_answer_to_come_is_no_message(story: Story) -> None:
    await story.send("m1")
    await story.send("m2")
    for answer in ("m1.a", "m2.a"):
        with pytest.raises(NotFound):
            await story.history.message(SESSION, story.id, answer)
        with pytest.raises(NotFound):
            await story.history.select(SESSION, story.id, answer)


async def test_select_of_a_branch_that_ends_in_an_answer_to_come_names_the_last_message(story: Story) -> None:
    await story.exchange("m0")
    await story.send("m1")
    await story.send("m2")
    await story.history.select(SESSION, story.id, "m0")
    assert (await story.frames())[-1]["message"] == "m2"
    await story.send("m3")
    assert (await shown(story))[-1][:2] == ("m3", "m2.a")


# Withdrawing


async def test_withdrawn_prompt_is_gone_and_what_waited_behind_it_moves_up(story: Story) -> None:
    for name in ("m1", "m2", "m3", "m4"):
        await story.send(name)
    await withdraw(story, "m2")
    assert (await story.frames())[-1] | {"at": None} == {
        "type": "message.withdrawn", "conversation": story.id, "message": "m2", "at": None
    }  # fmt: skip
    assert await shown(story) == [("m1", None, "done"), ("m3", "m1.a", "queued"), ("m4", "m3.a", "queued")]
    for _ in range(3):
        await story.answer()
    assert await story.branch() == ["m1", "m1.a", "m3", "m3.a", "m4", "m4.a"]
    assert await open_turn(story) is None


async def test_last_prompt_that_waits_can_be_withdrawn(story: Story) -> None:
    await story.send("m1")
    await story.send("m2")
    await withdraw(story, "m2")
    await story.send("m3")
    assert await shown(story) == [("m1", None, "done"), ("m3", "m1.a", "queued")]
    await story.answer()
    await story.answer()
    assert await story.branch() == ["m1", "m1.a", "m3", "m3.a"]


async def test_withdrawn_edit_shows_the_version_before(story: Story) -> None:
    await story.exchange("m0")
    await story.send("m1")
    await story.send("edited", parent="m0.a")
    await withdraw(story, "edited")
    assert await story.types() == [
        *["message.added", "completion.started", "completion.delta", "completion.finished"],
        *["message.added", "message.added", "message.withdrawn", "conversation.selected"],
    ]
    assert (await story.frames())[-1]["message"] == "m1"
    await story.answer()
    assert await story.branch() == ["m0", "m0.a", "m1", "m1.a"]
    read = await story.history.read(SESSION, story.id, limit=9, max_bytes=9_000)
    assert [message["siblings"] for message in read.messages] == [["m0"], ["m0.a"], ["m1"], ["m1.a"]]


async def test_withdraw_elsewhere_leaves_the_branch_that_is_shown(story: Story) -> None:
    await story.exchange("m0")
    await story.send("m1")
    await story.send("edited", parent="m0.a")
    await story.history.select(SESSION, story.id, "m1")
    await withdraw(story, "edited")
    assert (await story.types())[-1] == "message.withdrawn"
    assert await story.branch() == ["m0", "m0.a", "m1"]


async def test_repeat_of_a_withdrawn_prompt_stores_it_no_more(story: Story) -> None:
    await story.send("m1")
    await story.send("m2")
    assert await withdraw(story, "m2")
    assert (await story.send("m2")).repeated
    assert await shown(story) == [("m1", None, "done")]
    placed = await story.types()
    assert not await withdraw(story, "m2")
    assert await story.types() == placed


async def test_only_what_waits_can_be_withdrawn(story: Story) -> None:
    await story.exchange("m0")
    await story.send("m1")
    for message, error in {"m0": BadField, "m0.a": BadField, "m1": Busy, "nobody": NotFound}.items():
        with pytest.raises(error):
            await withdraw(story, message)
    await story.begin()
    with pytest.raises(Busy):
        await withdraw(story, "m1")
    with pytest.raises(NotFound):
        await story.history.withdraw("mallory", story.id, "m1")


Steps = st.lists(
    st.tuples(
        st.sampled_from(["send", "send", "send", "edit", "withdraw", "answer", "select"]), st.integers(0, 99)
    ),
    max_size=14,
)


@given(steps=Steps)
@hypothesis_settings(max_examples=30, deadline=None)
async def test_whatever_is_done_every_prompt_that_was_not_withdrawn_is_answered_once_in_order(
    steps: list[tuple[str, int]],
) -> None:
    await take(steps)


@pytest.mark.long
@given(steps=Steps)
@hypothesis_settings(max_examples=150, deadline=None)
async def test_every_prompt_that_was_not_withdrawn_is_answered_once_in_order_in_many_more_cases(
    steps: list[tuple[str, int]],
) -> None:
    await take(steps)


async def take(steps: list[tuple[str, int]]) -> None:
    """Do what a person and a model may do, and see after each step that all is well."""
    async with FakeAsyncRedis() as fake:
        story = Story(fake)
        sent = ["first"]
        await story.exchange("first")
        done: list[str] = []

        async def answer() -> None:
            if (turn := await open_turn(story)) is not None:
                done.append(turn.removesuffix(".a"))
                await story.answer()

        waiting: list[str] = []  # the one whose turn it is first
        for number, (verb, choice) in enumerate(steps):
            name = f"m{number}"
            if verb in ("send", "edit"):
                parents = ["", *(f"{each}.a" for each in sent)]
                await story.send(
                    name, **({"parent": parents[choice % len(parents)]} if verb == "edit" else {})
                )
                sent.append(name)
                waiting.append(name)
            elif verb == "withdraw" and len(waiting) > 1:
                gone = waiting.pop(1 + choice % (len(waiting) - 1))
                sent.remove(gone)
                await withdraw(story, gone)
            elif verb == "answer" and waiting:
                await answer()
                assert done[-1] == waiting.pop(0)
            elif verb == "select":
                await story.history.select(SESSION, story.id, sent[choice % len(sent)])
            branch = await shown(story)
            assert all(parent is None or parent in story_nodes(branch) for _, parent, _ in branch)
        while waiting:
            await answer()
            assert done[-1] == waiting.pop(0)
        assert await open_turn(story) is None
        assert sorted(done) == sorted(sent[1:])
        for name in sent:
            await story.history.select(SESSION, story.id, name)
            branch = await shown(story)
            assert [(name, "done"), (f"{name}.a", "done")] == [
                (message, state) for message, _, state in branch if message in (name, f"{name}.a")
            ]
            parents = [None, *(message for message, _, _ in branch[:-1])]
            assert [parent for _, parent, _ in branch] == parents


def story_nodes(branch: list[tuple[str, str | None, str]]) -> set[str]:
    """What parents may be: what is shown, and the answers to come of it."""
    return {message for message, _, _ in branch} | {f"{message}.a" for message, _, _ in branch}


# Going on


async def end(story: Story, finish_reason: str) -> None:
    """Make the open turn's answer, and end it so."""
    fence, answer = await story.begin()
    await story.say(fence, answer, 1, "Half ", "hm. ")
    if finish_reason == "length":
        answer._finish_reason = "length"
    ended = answer.end(seconds=1.0, stopped=finish_reason == "stopped")
    await story.history.finish(story.id, fence, 1, 1, answer.record(ended), None, ended)


async def go_on(story: Story, message: str, command: str = "c", session: str = SESSION) -> bool:
    return await story.history.go_on(
        session=session, conversation=story.id, message=message, command=command, model="m"
    )


@pytest.mark.parametrize("finish_reason", ["stopped", "interrupted", "length"])
async def test_answer_goes_on_from_its_text_and_reasoning(story: Story, finish_reason: str) -> None:
    await story.send("m1")
    await end(story, finish_reason)
    assert await go_on(story, "m1.a")
    found = await story.history.turn(story.id)
    assert found
    turn = found[1]
    assert (turn.answer, turn.prompt, turn.attempt, turn.kept) == ("m1.a", "m1", 0, 5)
    known = await story.conversations.conversation(SESSION, story.id)
    assert known.running is None  # nobody was told yet
    fence, _ = await story.begin()
    answer = Answer(
        conversation=story.id, message="m1.a", prompt="m1", model="m", created="t", attempt=1, earlier=1,
        kept="Half ", reasoning="hm. ",
    )  # fmt: skip
    assert answer.started().attempt == 2
    await story.say(fence, answer, 1, "and half", "well")
    assert (await story.conversations.conversation(SESSION, story.id)).running == "m1.a"
    message = await story.history.message(SESSION, story.id, "m1.a")
    assert message["state"] == "running"
    await story.finish(fence, answer)
    message = await story.history.message(SESSION, story.id, "m1.a")
    assert (message["state"], message["finish_reason"], message["reasoning"]) == ("done", "stop", "hm. well")
    assert await story.branch() == ["m1", "m1.a"]


async def test_answer_that_ended_by_itself_cannot_go_on(story: Story) -> None:
    await story.exchange("m1")
    for message, error in {"m1.a": BadField, "m1": BadField, "nobody": NotFound}.items():
        with pytest.raises(error):
            await go_on(story, message)
    assert await open_turn(story) is None


async def test_answer_that_is_as_long_as_it_may_be_cannot_go_on(story: Story) -> None:
    await story.send("m1")
    fence, answer = await story.begin()
    answer.take(Delta("x" * (MAX_ANSWER_BYTES + 1)))
    count = 0
    while (delta := answer.delta()) is not None:
        count += 1
        await story.history.append(story.id, fence, "m1.a", 1, count, delta.text, "", delta)
    ended = answer.end(seconds=1.0)
    await story.history.finish(story.id, fence, 1, count, answer.record(ended), None, ended)
    with pytest.raises(BadField):
        await go_on(story, "m1.a")


async def test_answer_goes_on_once_for_each_command(story: Story) -> None:
    await story.send("m1")
    await end(story, "length")
    assert await go_on(story, "m1.a")
    assert not await go_on(story, "m1.a")
    with pytest.raises(Busy):
        await go_on(story, "m1.a", "another")
    await end(story, "length")
    assert not await go_on(story, "m1.a")
    assert await go_on(story, "m1.a", "another")
    await end(story, "length")
    for command in ("c", "another"):
        assert not await go_on(story, "m1.a", command)
        assert await story.history.has_gone_on(story.id, "m1.a", command)
    assert not await story.history.has_gone_on(story.id, "m1.a", "anoth")


async def test_answer_does_not_go_on_for_others_or_while_another_runs(story: Story) -> None:
    await story.send("m1")
    await end(story, "stopped")
    with pytest.raises(NotFound):
        await go_on(story, "m1.a", session="mallory")
    await story.send("m2")
    with pytest.raises(Busy):
        await go_on(story, "m1.a")


# Attempts


@pytest.mark.parametrize(
    ("says", "costs"),
    [
        (["Half", "Half", "Half"], [2, 11, MAX_COST]),
        (["", ""], [17, 34]),
        (["Half", "Half and more", "Half and still more"], [2, 4, 6]),
        (["", "Half", "Half"], [17, 19, 28]),
        (["Half", "", "Half"], [2, 19, 28]),
        (["." * size for size in range(1, 11)], [*range(2, 19, 2), MAX_COST]),
    ],
)
async def test_attempts_cost_what_came_of_them(story: Story, says: list[str], costs: list[int]) -> None:
    await story.send("m1")
    found = []
    for attempt, said in enumerate(says, 1):
        fence, answer = await story.begin(attempt)
        if said:
            await story.say(fence, answer, 1, said)
        turn = await story.history.turn(story.id)
        assert turn
        found.append(turn[1].cost)
    assert found == costs


async def test_attempt_that_is_handed_over_costs_nothing(story: Story) -> None:
    await story.send("m1")
    fence, _ = await story.begin()
    assert await story.history.hand_over(story.id, fence)
    found = await story.history.turn(story.id)
    assert found
    assert (found[1].handed, found[1].cost) == (True, 0)
    await story.begin(2)
    found = await story.history.turn(story.id)
    assert found
    assert (found[1].handed, found[1].cost) == (False, COST_IN_VAIN)


async def test_only_the_holder_hands_over_and_only_what_there_is(story: Story) -> None:
    await story.send("m1")
    fence, answer = await story.begin()
    assert not await story.history.hand_over(story.id, "0")
    await story.say(fence, answer, 1, "x")
    await story.finish(fence, answer)
    assert not await story.history.hand_over(story.id, fence)


async def test_stop_that_means_another_answer_stops_nothing(story: Story) -> None:
    await story.send("m1")
    assert await story.history.request_stop(SESSION, story.id, "m0.a") is None
    assert not await story.history.stop_wanted(story.id)
    assert await story.history.request_stop(SESSION, story.id, "m1.a") == "m1.a"
    assert await story.history.stop_wanted(story.id)
