"""Conversations, branches and the log: each promise on fakeredis, and on a real store where that is cheap."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import astuple
from typing import Any

import msgpack
import pytest
from fakeredis import FakeAsyncRedis
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from llmchat.conversation import RESTORE_SECONDS
from llmchat.conversations import Conversations
from llmchat.errors import BadField, Busy, Conflict, Fenced, NotFound, Unavailable
from llmchat.history import LOG_SECONDS, TIP, History, Sent
from llmchat.keys import Keys
from llmchat.lease import Leases
from llmchat.redis_client import connect
from llmchat.turn import Answer, Delta
from tests.instances import Store
from tests.waiting import within

DAY_MS = 86_400_000
SESSION = "alice"


class Story:
    """A conversation under test, told through the history as chat and turns tell it."""

    def __init__(self, redis: Redis, *, history_days: int = 400, conversation: str = "c1") -> None:
        self.redis = redis
        self.keys = Keys(f"history-{secrets.token_hex(4)}")
        self.conversations = Conversations(redis, self.keys, history_days=history_days)
        self.history = History(redis, self.keys, self.conversations, history_days=history_days)
        self.leases = Leases(redis, self.keys)
        self.id = conversation
        self.of = self.keys.of_conversation(conversation)

    async def send(self, message: str, text: str = "Hi", **changed: Any) -> Sent:
        """Send a prompt to the tip, or as `changed` says; its answer is to be `<message>.a`."""
        given: dict[str, Any] = {"session": SESSION, "conversation": self.id, "new": True, "title": "Greeting",
                                 "parent": TIP, "model": "m", "answer": f"{message}.a"}  # fmt: skip
        return await self.history.send(**(given | {"message": message, "text": text} | changed))

    async def begin(self, attempt: int = 1) -> tuple[str, Answer]:
        """Take the open turn and place its start; gives the fence and the answer."""
        await self.redis.delete(self.of.lease)
        lease = await self.leases.take(self.id)
        found = await self.history.turn(self.id)
        assert lease
        assert found
        turn = found[1]
        self.count = 0
        answer = Answer(conversation=self.id, message=turn.answer, prompt=turn.prompt, model=turn.model,
                        created="2026-11-22T10:00:00.000Z", attempt=attempt)  # fmt: skip
        record, started = answer.record(), answer.started()
        await self.history.begin(self.id, lease.fence, attempt, record, "", started, before=turn)
        return lease.fence, answer

    async def say(self, fence: str, answer: Answer, count: int, text: str, reasoning: str = "") -> bool:
        """Place a delta; tells whether a stop is wanted."""
        answer.take(Delta(text, reasoning))
        delta = answer.delta()
        assert delta
        name = answer.record()["id"]
        self.count = count
        return await self.history.append(
            self.id, fence, name, answer.attempt, count, delta.text, delta.reasoning or "", delta
        )

    async def finish(self, fence: str, answer: Answer) -> None:
        """Place the end."""
        answer.take(Delta(finish_reason="stop"))
        ended = answer.end(seconds=1.0)
        await self.history.finish(
            self.id, fence, answer.attempt, self.count, answer.record(ended), 1.5, ended
        )

    async def answer(self, text: str = "Hello") -> None:
        """Make the open turn's answer."""
        fence, answer = await self.begin()
        await self.say(fence, answer, 1, text)
        await self.finish(fence, answer)

    async def exchange(self, message: str, parent: str = TIP) -> str:
        """Send a prompt, answer it, and give the answer's id."""
        sent = await self.send(message, f"text of {message}", parent=parent)
        await self.answer(f"answer to {message}")
        return sent.answer

    async def regenerate(self, prompt: str, answer: str) -> None:
        """Answer a prompt once more."""
        await self.history.regenerate(
            session=SESSION, conversation=self.id, prompt=prompt, answer=answer, model="m"
        )

    async def branch(self) -> list[str]:
        """The ids of the current branch."""
        read = await self.history.read(SESSION, self.id, limit=1000, max_bytes=10_000_000)
        return [message["id"] for message in read.messages]

    async def frames(self) -> list[dict[str, Any]]:
        """What the log has."""
        return [json.loads(fields[b"frame"]) for _, fields in await self.redis.xrange(self.of.log)]

    async def types(self) -> list[str]:
        """The types in the log."""
        return [frame["type"] for frame in await self.frames()]

    async def offset(self) -> int:
        """The conversation's place."""
        return (await self.conversations.conversation(SESSION, self.id)).offset

    async def every_key(self) -> list[str]:
        """All keys of this story."""
        return sorted([key.decode() async for key in self.redis.scan_iter(f"{self.keys.prefix}:*")])

    async def ttls(self) -> dict[str, int]:
        """All its keys with their time to live, in ms; -1 is for ever."""
        return {key: await self.redis.pttl(key) for key in await self.every_key()}


@pytest.fixture(params=["fakeredis", "valkey"])
async def redis(
    request: pytest.FixtureRequest, fake_redis: FakeAsyncRedis, store: Store
) -> AsyncIterator[Redis]:
    if request.param == "fakeredis":
        yield fake_redis
        return
    async with connect(store.url) as client:
        yield client


@pytest.fixture
def story(redis: Redis) -> Story:
    return Story(redis)


# Prompts


async def test_prompt_is_stored_placed_and_its_turn_takeable_when_sent(story: Story) -> None:
    sent = await story.send("m1", "Hi 👋")
    assert (sent.answer, sent.at["offset"], sent.repeated) == ("m1.a", 1, False)
    assert sent.now == sent.at
    (frame,) = await story.frames()
    assert frame["type"] == "message.added"
    assert frame["message"] | {"created": ""} == {
        "id": "m1", "role": "user", "parent": None, "text": "Hi 👋", "created": "", "state": "done"
    }  # fmt: skip
    assert (frame["answer"], frame["at"]) == ("m1.a", sent.at)
    found = await story.history.turn(story.id)
    assert found
    assert (found[0], found[1].answer, found[1].prompt, found[1].attempt) == (SESSION, "m1.a", "m1", 0)
    assert [work.conversation for work in (await story.history.work())[0]] == [story.id]
    assert await story.history.with_turn([story.id, "other"]) == [True, False]


async def test_repeated_prompt_gets_the_same_answer_and_stores_nothing(story: Story) -> None:
    first = await story.send("m1")
    for place in (1, 4):
        again = await story.send("m1", answer="another", parent="nonsense")
        assert (again.answer, again.at, again.repeated) == (first.answer, first.at, True)
        assert again.now["offset"] == place
        assert len(await story.frames()) == place
        if place == 1:
            await story.answer()


async def test_repeated_prompt_makes_no_second_turn_once_it_is_answered(story: Story) -> None:
    await story.exchange("m1")
    await story.send("m1", "text of m1")
    assert await story.history.turn(story.id) is None
    assert await story.branch() == ["m1", "m1.a"]


async def test_id_used_before_with_another_text_is_a_conflict(story: Story) -> None:
    await story.send("m1", "Hi")
    with pytest.raises(Conflict):
        await story.send("m1", "Ho")
    assert await story.types() == ["message.added"]


async def test_one_prompt_sent_many_times_at_once_is_stored_once(story: Story) -> None:
    found = await asyncio.gather(*(story.send("m1") for _ in range(8)))
    assert len({(each.answer, each.at["epoch"], each.at["offset"]) for each in found}) == 1
    assert [each.repeated for each in found].count(False) == 1
    assert await story.types() == ["message.added"]


async def test_prompt_goes_to_the_tip_that_moved_while_it_was_sent(redis: Redis) -> None:
    class Moving(History):
        """Another tab selects another branch between our look and our step."""

        before_storing: Callable[[], Awaitable[None]] | None = None

        async def _where_to_grow(self, *args: Any) -> tuple[str, str, list[str]]:
            found = await super()._where_to_grow(*args)
            act, self.before_storing = self.before_storing, None
            if act:
                await act()
            return found

    story = Story(redis)
    history = story.history = Moving(redis, story.keys, story.conversations, history_days=1)
    first = await story.exchange("m1")
    await story.exchange("m2", parent="")
    history.before_storing = lambda: history.select(SESSION, story.id, first)
    await story.send("m3")
    assert history.before_storing is None
    assert await story.branch() == ["m1", "m1.a", "m3"]


async def test_prompt_to_an_unknown_conversation_is_not_found_unless_it_may_begin(story: Story) -> None:
    with pytest.raises(NotFound):
        await story.send("m1", new=False)
    assert await story.redis.exists(*astuple(story.of)) == 0
    await story.send("m1")
    assert await story.branch() == ["m1"]


# Places


async def test_places_rise_by_one_and_what_is_published_is_what_is_in_the_log(story: Story) -> None:
    async with story.redis.pubsub() as pubsub:
        await pubsub.subscribe(story.of.channel)
        await story.exchange("m1")
        await story.exchange("m2")
        await story.exchange("m3", parent="")
        await story.history.select(SESSION, story.id, "m1")
        entries = await story.redis.xrange(story.of.log)
        published = [await next_published(pubsub) for _ in entries]
    epoch = (await story.conversations.conversation(SESSION, story.id)).epoch
    assert [name for name, _ in entries] == [f"{n}-0".encode() for n in range(1, len(entries) + 1)]
    for number, ((_, fields), message) in enumerate(zip(entries, published, strict=True), start=1):
        assert message == {
            "type": "event",
            "conversation": story.id,
            "epoch": epoch,
            "offset": number,
            "frame": fields[b"frame"],
        }
        assert json.loads(fields[b"frame"])["at"] == {"epoch": epoch, "offset": number}
    assert await story.offset() == len(entries) == 13


async def next_published(pubsub: Any) -> Any:
    async with within(10, "an event is published"):
        while True:
            message = await pubsub.get_message(ignore_subscribe_messages=True, timeout=5)
            if message:
                return msgpack.unpackb(message["data"])


@pytest.mark.parametrize(
    "text",
    ["x" * 70_000, "é漢👩‍👩‍👧 \u2028\x00\t" * 5_000, "\x7f\x80\xff", '{"at":[]}', "1" * 20, "\\u0000 \\n"],
    ids=["big", "not ASCII", "edges", "JSON", "digits", "escapes"],
)
@pytest.mark.parametrize("conversation", ["c", "c" * 31, "c-_" * 10 + "cc", "c" * 64])
async def test_envelope_decodes_whatever_the_frame_holds(redis: Redis, conversation: str, text: str) -> None:
    story = Story(redis, conversation=conversation)
    async with redis.pubsub() as pubsub:
        await pubsub.subscribe(story.of.channel)
        await story.send("m1", text)
        message = await next_published(pubsub)
    assert (message["type"], message["conversation"], message["offset"]) == ("event", conversation, 1)
    assert message["epoch"] == (await story.conversations.conversation(SESSION, conversation)).epoch
    assert json.loads(message["frame"])["message"]["text"] == text


# Branches


async def test_first_prompt_is_at_the_root_and_the_next_one_under_the_answer(story: Story) -> None:
    await story.exchange("m1")
    await story.send("m2")
    frames = await story.frames()
    assert [frame["message"]["parent"] for frame in frames if "role" in str(frame.get("message"))] == [
        None,
        "m1.a",
    ]


async def test_prompt_may_name_root_or_an_answer_as_its_parent(story: Story) -> None:
    await story.exchange("m1")
    await story.exchange("m2")
    await story.exchange("m3", parent="m1.a")
    assert await story.branch() == ["m1", "m1.a", "m3", "m3.a"]
    await story.exchange("m4", parent="")
    assert await story.branch() == ["m4", "m4.a"]


@pytest.mark.parametrize(("parent", "error"), [("m1", BadField), ("nobody", NotFound)])
async def test_prompt_under_what_is_no_answer_is_refused(
    story: Story, parent: str, error: type[Exception]
) -> None:
    await story.exchange("m1")
    before = await story.offset()
    with pytest.raises(error):
        await story.send("m2", parent=parent)
    assert await story.offset() == before
    assert await story.history.turn(story.id) is None


async def test_siblings_are_told_oldest_first_with_the_message_itself(story: Story) -> None:
    await story.exchange("m1")
    await story.exchange("m2")
    await story.exchange("m3", parent="m1.a")
    await story.send("m4", parent="m1.a")
    added = [frame for frame in await story.frames() if frame["type"] == "message.added"]
    assert [frame["message"].get("siblings") for frame in added] == [
        None,
        None,
        ["m2", "m3"],
        ["m2", "m3", "m4"],
    ]
    read = await story.history.read(SESSION, story.id, limit=10, max_bytes=10_000)
    assert [message["siblings"] for message in read.messages] == [["m1"], ["m1.a"], ["m2", "m3", "m4"]]


async def test_regenerated_answer_is_a_sibling_and_becomes_current(story: Story) -> None:
    await story.exchange("m1")
    await story.exchange("m2")
    await story.regenerate("m1", "again")
    assert await story.branch() == ["m1", "m1.a", "m2", "m2.a"]  # until it begins
    await story.answer()
    read = await story.history.read(SESSION, story.id, limit=10, max_bytes=10_000)
    assert [message["id"] for message in read.messages] == ["m1", "again"]
    assert read.messages[-1]["siblings"] == ["m1.a", "again"]


async def test_regenerate_is_busy_not_found_or_a_repeat(story: Story) -> None:
    await story.exchange("m1")
    with pytest.raises(NotFound):
        await story.regenerate("nobody", "again")
    await story.regenerate("m1", "again")
    await story.regenerate("m1", "again")
    with pytest.raises(Busy):
        await story.regenerate("m1", "once more")
    await story.answer()
    await story.regenerate("m1", "again")
    assert await story.history.turn(story.id) is None


async def test_select_leads_down_to_the_last_chosen_descendant(story: Story) -> None:
    await story.exchange("m1")
    await story.exchange("m2")
    await story.exchange("m3", parent="")
    await story.history.select(SESSION, story.id, "m1")
    assert await story.branch() == ["m1", "m1.a", "m2", "m2.a"]
    assert (await story.frames())[-1] | {"at": None} == {
        "type": "conversation.selected", "conversation": story.id, "message": "m2.a", "at": None
    }  # fmt: skip


async def test_select_of_an_unknown_message_is_not_found_and_places_nothing(story: Story) -> None:
    await story.exchange("m1")
    before = await story.offset()
    with pytest.raises(NotFound):
        await story.history.select(SESSION, story.id, "nobody")
    assert await story.offset() == before


async def test_branch_that_a_prompt_went_to_is_the_one_chosen_from_above(story: Story) -> None:
    await story.exchange("m1")
    await story.exchange("m2")
    await story.exchange("m3", parent="m1.a")
    await story.exchange("m4", parent="m2.a")
    assert await story.branch() == ["m1", "m1.a", "m2", "m2.a", "m4", "m4.a"]
    await story.history.select(SESSION, story.id, "m1")
    assert await story.branch() == ["m1", "m1.a", "m2", "m2.a", "m4", "m4.a"]


class Tree:
    """What branches mean, in plain Python: whatever becomes current is chosen, all the way from the root; an answer
    becomes current where its prompt is."""

    def __init__(self) -> None:
        self.parents: dict[str, str] = {}
        self.children: dict[str, list[str]] = {"": []}
        self.chosen: dict[str, str] = {}
        self.tip = ""

    def path(self, message: str) -> list[str]:
        found: list[str] = []
        while message:
            found.insert(0, message)
            message = self.parents[message]
        return found

    def grow(self, message: str, parent: str) -> None:
        self.join(message, parent)
        self._choose(message)

    def answer(self, message: str, prompt: str) -> None:
        moves = prompt in self.path(self.tip)
        self.join(message, prompt)
        if moves:
            self._choose(message)
        else:
            self.chosen.setdefault(prompt, message)

    def join(self, message: str, parent: str) -> None:
        self.parents[message] = parent
        self.children[parent].append(message)
        self.children[message] = []

    def select(self, message: str) -> None:
        while self.children[message]:
            message = self.chosen[message]
        self._choose(message)

    def _choose(self, tip: str) -> None:
        self.tip = tip
        for message in self.path(tip):
            self.chosen[self.parents[message]] = message


Steps = st.lists(
    st.tuples(
        st.sampled_from(["tip", "send", "send", "regenerate", "select", "select"]), st.integers(0, 1000)
    ),
    max_size=12,
)


@given(steps=Steps)
@hypothesis_settings(max_examples=30, deadline=None)
async def test_branches_are_those_of_a_plain_tree_whatever_is_done(steps: list[tuple[str, int]]) -> None:
    await take(steps)


@pytest.mark.long
@given(steps=Steps)
@hypothesis_settings(max_examples=150, deadline=None)
async def test_branches_are_those_of_a_plain_tree_in_many_more_cases(steps: list[tuple[str, int]]) -> None:
    await take(steps)


async def take(steps: list[tuple[str, int]]) -> None:
    """Take steps in the history and in a plain tree, and compare."""
    tree = Tree()
    async with FakeAsyncRedis() as redis:
        story = Story(redis)
        for number, (verb, choice) in enumerate([*[("tip", 0)] * 3, *steps]):
            await take_step(story, tree, f"m{number}", verb, choice)
        read = await story.history.read(SESSION, story.id, limit=100, max_bytes=1_000_000)
    assert [message["id"] for message in read.messages] == tree.path(tree.tip)
    assert read.conversation.tip == tree.tip
    for message in read.messages:
        assert message["siblings"] == tree.children[tree.parents[message["id"]]]


async def take_step(story: Story, tree: Tree, name: str, verb: str, choice: int) -> None:
    """Take the same step in both."""
    prompts = [message for message in tree.parents if not message.endswith(".a")]
    answers = [message for message in tree.parents if message.endswith(".a")]
    if verb in ("tip", "send"):
        parent = tree.tip if verb == "tip" else ["", *answers][choice % (len(answers) + 1)]
        await story.exchange(name, TIP if verb == "tip" else parent)
        tree.grow(name, parent)
        tree.grow(f"{name}.a", name)
    elif verb == "regenerate":
        prompt = prompts[choice % len(prompts)]
        await story.regenerate(prompt, f"{name}.a")
        await story.answer()
        tree.answer(f"{name}.a", prompt)
    else:
        message = [*prompts, *answers][choice % len(tree.parents)]
        await story.history.select(SESSION, story.id, message)
        tree.select(message)


# The turn


async def test_answer_is_begun_said_and_finished_by_the_holder_of_the_fence(story: Story) -> None:
    await story.send("m1")
    fence, answer = await story.begin()
    running = await story.history.read(SESSION, story.id, limit=1, max_bytes=0)
    assert running.conversation.turn
    assert (running.conversation.turn.attempt, running.messages[0]["state"]) == (1, "running")
    await story.say(fence, answer, 1, "Hel", "hm, ")
    await story.say(fence, answer, 2, "lo 👋", "well")
    so_far = await story.history.message(SESSION, story.id, "m1.a")
    assert (so_far["text"], so_far["reasoning"]) == ("Hello 👋", "hm, well")
    await story.finish(fence, answer)
    assert await story.types() == ["message.added", "completion.started", *["completion.delta"] * 2,
                                   "completion.finished"]  # fmt: skip
    whole = await story.history.message(SESSION, story.id, "m1.a")
    assert (whole["text"], whole["state"], whole["reasoning"]) == ("Hello 👋", "done", "hm, well")
    known = await story.conversations.conversation(SESSION, story.id)
    assert (known.turn, known.calibration) == (None, 1.5)
    assert not await story.redis.exists(story.of.turn, story.of.text, story.of.reasoning)


async def test_branch_is_read_with_its_texts_only_as_far_as_they_reach(story: Story) -> None:
    for number in range(1, 9):
        await story.send(f"m{number}", text=f"Prompt {number}")
        fence, answer = await story.begin()
        await story.say(fence, answer, 1, "t" * 1000, "r" * 4000)
        await story.finish(fence, answer)
    texts = await story.history.read(SESSION, story.id, limit=50, max_bytes=5_500, texts_only=True)
    assert [message["text"][:8] for message in texts.messages[::2]] == [f"Prompt {n}" for n in range(3, 9)]
    assert not any("reasoning" in message for message in texts.messages)
    whole = await story.history.read(SESSION, story.id, limit=50, max_bytes=5_500)
    assert [message["id"] for message in whole.messages] == ["m8", "m8.a"]
    assert len(whole.messages[-1]["reasoning"]) == 4000


async def test_repeats_after_lost_replies_place_nothing(story: Story) -> None:
    await story.send("m1")
    fence, answer = await story.begin()
    await story.history.begin(story.id, fence, 1, answer.record(), "", answer.started())
    await story.say(fence, answer, 1, "one ")
    answer.take(Delta("two"))
    delta = answer.delta()
    assert delta
    for _ in range(2):
        await story.history.append(story.id, fence, "m1.a", 1, 2, delta.text, "r", delta)
    assert (await story.history.message(SESSION, story.id, "m1.a"))["text"] == "one two"
    assert (await story.history.message(SESSION, story.id, "m1.a"))["reasoning"] == "r"
    answer.take(Delta(finish_reason="stop"))
    ended = answer.end(seconds=1)
    for _ in range(2):
        await story.history.finish(story.id, fence, 1, 2, answer.record(ended), None, ended)
    assert (await story.types())[1:] == [
        "completion.started",
        *["completion.delta"] * 2,
        "completion.finished",
    ]
    assert (await story.history.message(SESSION, story.id, "m1.a"))["text"] == "one two"


async def test_repeated_end_leaves_the_next_turn_alone(story: Story) -> None:
    await story.send("m1")
    fence, answer = await story.begin()
    await story.say(fence, answer, 1, "Hello")
    await story.finish(fence, answer)
    await story.send("m2")
    await story.finish(fence, answer)
    found = await story.history.turn(story.id)
    assert found
    assert found[1].answer == "m2.a"
    assert (await story.types())[-1] == "message.added"


async def test_holder_of_an_old_fence_writes_nothing(story: Story) -> None:
    await story.send("m1")
    old, answer = await story.begin()
    await story.say(old, answer, 1, "Hel")
    await story.begin(attempt=2)
    before = await dump(story)
    for attempt in (1, 2, 3):
        with pytest.raises(Fenced):
            await story.history.begin(story.id, old, attempt, answer.record(), "", answer.started())
    with pytest.raises(Fenced):
        await story.say(old, answer, 2, "lo")
    with pytest.raises(Fenced):
        await story.finish(old, answer)
    assert await dump(story) == before


async def test_holder_writes_nothing_into_a_turn_of_another_answer(story: Story) -> None:
    await story.send("m1")
    fence, answer = await story.begin()
    await story.finish(fence, answer)
    await story.send("m2")
    before = await dump(story)
    with pytest.raises(Fenced):
        await story.say(fence, answer, 1, "too late")
    with pytest.raises(Fenced):
        await story.history.begin(story.id, fence, 2, answer.record(), "", answer.started())
    assert await dump(story) == before


async def test_further_attempt_begins_with_the_text_that_is_kept(story: Story) -> None:
    await story.send("m1")
    fence, answer = await story.begin()
    await story.say(fence, answer, 1, "lost", "thoughts")
    await story.redis.delete(story.of.lease)
    lease = await story.leases.take(story.id)
    assert lease
    again = Answer(
        conversation=story.id, message="m1.a", prompt="m1", model="m", created="t", attempt=2, kept="Ke"
    )
    await story.history.begin(story.id, lease.fence, 2, again.record(), "Ke", again.started())
    await story.say(lease.fence, again, 1, "pt")  # counted anew
    read = await story.history.message(SESSION, story.id, "m1.a")
    assert read["text"] == "Kept"
    assert read["reasoning"] == "thoughts"
    assert await story.branch() == ["m1", "m1.a"]
    started = [frame for frame in await story.frames() if frame["type"] == "completion.started"]
    assert [(frame["attempt"], frame["text"]) for frame in started] == [(1, ""), (2, "Ke")]


async def test_further_attempt_that_keeps_nothing_begins_without_reasons(story: Story) -> None:
    await story.send("m1")
    fence, answer = await story.begin()
    await story.say(fence, answer, 1, "lost", "thoughts")
    await story.begin(2)
    read = await story.history.message(SESSION, story.id, "m1.a")
    assert (read["text"], read.get("reasoning")) == ("", None)


async def test_stop_is_seen_by_whatever_the_holder_writes_next(story: Story) -> None:
    await story.exchange("m0")
    assert await story.history.request_stop(SESSION, story.id) is None
    await story.send("m1")
    fence, answer = await story.begin()
    assert not await story.say(fence, answer, 1, "a")
    assert not await story.history.stop_wanted(story.id)
    assert await story.history.request_stop(SESSION, story.id) == "m1.a"
    assert await story.history.stop_wanted(story.id)
    assert await story.say(fence, answer, 2, "b")
    found = await story.history.turn(story.id)
    assert found
    assert found[1].stop
    await story.finish(fence, answer)
    await story.send("m2")
    assert not await story.history.stop_wanted(story.id)


async def test_stop_before_the_answer_began_is_seen_as_it_begins(story: Story) -> None:
    await story.send("m1")
    assert await story.history.request_stop(SESSION, story.id) == "m1.a"
    lease = await story.leases.take(story.id)
    assert lease
    answer = Answer(conversation=story.id, message="m1.a", prompt="m1", model="m", created="t", attempt=1)
    assert await story.history.begin(story.id, lease.fence, 1, answer.record(), "", answer.started())


async def test_attempt_after_a_stop_begins_nothing_and_keeps_the_text_there_is(story: Story) -> None:
    await story.send("m1")
    fence, answer = await story.begin()
    await story.say(fence, answer, 1, "Seen", "hm")
    assert await story.history.request_stop(SESSION, story.id) == "m1.a"
    await story.redis.delete(story.of.lease)
    lease = await story.leases.take(story.id)
    assert lease
    again = Answer(conversation=story.id, message="m1.a", prompt="m1", model="m", created="t", attempt=2)
    before = await story.frames()
    assert await story.history.begin(story.id, lease.fence, 2, again.record(), "", again.started())
    assert await story.frames() == before
    message = await story.history.message(SESSION, story.id, "m1.a")
    assert (message["text"], message["reasoning"]) == ("Seen", "hm")
    found = await story.history.turn(story.id)
    assert found
    assert found[1].attempt == 1


# Reading


async def read(story: Story, **how: Any) -> tuple[list[str], bool]:
    given = {"limit": 50, "max_bytes": 1_000_000} | how
    branch = await story.history.read(SESSION, story.id, **given)
    return [message["id"] for message in branch.messages], branch.more


async def test_branch_is_read_upwards_page_by_page(story: Story) -> None:
    for name in ("m1", "m2", "m3"):
        await story.exchange(name)
    assert await read(story) == (["m1", "m1.a", "m2", "m2.a", "m3", "m3.a"], False)
    assert await read(story, limit=4) == (["m2", "m2.a", "m3", "m3.a"], True)
    assert await read(story, limit=6) == (["m1", "m1.a", "m2", "m2.a", "m3", "m3.a"], False)
    assert await read(story, start="m2", above=True, limit=1) == (["m1.a"], True)
    assert await read(story, start="m2", above=True) == (["m1", "m1.a"], False)
    assert await read(story, start="m1", above=True) == ([], False)
    assert await read(story, start="m2") == (["m1", "m1.a", "m2"], False)


async def test_branch_is_cut_at_a_number_of_bytes_but_never_to_nothing(story: Story) -> None:
    for name in ("m1", "m2"):
        await story.exchange(name)
    assert await read(story, max_bytes=0) == (["m2.a"], True)
    sizes = [len(record) for record in await story.redis.hmget(story.of.messages, "m2.a", "m2", "m1.a")]
    assert await read(story, max_bytes=sum(sizes)) == (["m1.a", "m2", "m2.a"], True)
    assert await read(story, max_bytes=sum(sizes) - 1) == (["m2", "m2.a"], True)


async def test_what_is_not_there_is_not_found(story: Story) -> None:
    with pytest.raises(NotFound):
        await read(story)
    await story.exchange("m1")
    for how in ({"start": "nobody"}, {"start": "nobody", "above": True}):
        with pytest.raises(NotFound):
            await read(story, **how)
    with pytest.raises(NotFound):
        await story.history.message(SESSION, story.id, "nobody")
    with pytest.raises(NotFound):
        await story.conversations.conversation(SESSION, "nobody")


async def test_frames_after_a_place_are_read_from_the_log(story: Story) -> None:
    sent = await story.send("m1")
    epoch = sent.at["epoch"]
    await story.answer("Hello")
    logged = [fields[b"frame"].decode() for _, fields in await story.redis.xrange(story.of.log)]
    for offset in range(5):
        frames, at = await story.history.after(SESSION, story.id, epoch, offset)
        assert frames == logged[offset:]
        assert at == {"epoch": epoch, "offset": 4}


async def test_log_that_lacks_a_frame_is_not_read(story: Story) -> None:
    epoch = (await story.send("m1")).at["epoch"]
    await story.answer()
    with pytest.raises(LookupError):
        await story.history.after(SESSION, story.id, "another", 1)
    await story.redis.xtrim(story.of.log, maxlen=2, approximate=False)
    frames, _ = await story.history.after(SESSION, story.id, epoch, 2)
    assert len(frames) == 2
    with pytest.raises(LookupError):
        await story.history.after(SESSION, story.id, epoch, 1)
    await story.redis.delete(story.of.log)
    with pytest.raises(LookupError):
        await story.history.after(SESSION, story.id, epoch, 3)
    assert await story.history.after(SESSION, story.id, epoch, 4) == ([], {"epoch": epoch, "offset": 4})


async def test_places_go_on_when_the_log_is_gone(story: Story) -> None:
    epoch = (await story.send("m1")).at["epoch"]
    await story.answer()
    await story.redis.delete(story.of.log)
    sent = await story.send("m2")
    assert sent.at == {"epoch": epoch, "offset": 5}
    frames, at = await story.history.after(SESSION, story.id, epoch, 4)
    assert (len(frames), at) == (1, sent.at)


# Another session


async def dump(story: Story) -> dict[str, Any]:
    """Everything in the store that belongs to the conversation."""
    found = {}
    for key in astuple(story.of):
        kind = await story.redis.type(key)
        if kind == b"hash":
            found[key] = await story.redis.hgetall(key)
        elif kind == b"string":
            found[key] = await story.redis.get(key)
        elif kind == b"stream":
            found[key] = await story.redis.xrange(key)
    return found


STRANGE: dict[str, Callable[[Story, str], Awaitable[Any]]] = {
    "send": lambda story, who: story.send("m9", session=who, new=False),
    "send new": lambda story, who: story.send("m9", session=who),
    "send repeat": lambda story, who: story.send("m1", "text of m1", session=who),
    "send under": lambda story, who: story.send("m9", session=who, parent="m1.a", new=False),
    "send under nobody": lambda story, who: story.send("m9", session=who, parent="nobody", new=False),
    "regenerate": lambda story, who: story.history.regenerate(
        session=who, conversation=story.id, prompt="m1", answer="x", model="m"
    ),
    "select": lambda story, who: story.history.select(who, story.id, "m2"),
    "stop": lambda story, who: story.history.request_stop(who, story.id),
    "read": lambda story, who: story.history.read(who, story.id, limit=9, max_bytes=9),
    "read older": lambda story, who: story.history.read(
        who, story.id, start="m1.a", above=True, limit=9, max_bytes=9
    ),
    "message": lambda story, who: story.history.message(who, story.id, "m1"),
    "after": lambda story, who: story.history.after(who, story.id, "any", 0),
    "conversation": lambda story, who: story.conversations.conversation(who, story.id),
    "update": lambda story, who: story.conversations.update(who, story.id, {"title": "Mine"}),
    "update nothing": lambda story, who: story.conversations.update(who, story.id, {}),
    "delete": lambda story, who: story.conversations.delete(who, story.id),
    "restore": lambda story, who: story.conversations.restore(who, story.id),
}


@pytest.mark.parametrize("act", STRANGE.values(), ids=STRANGE)
@pytest.mark.parametrize("deleted", [False, True], ids=["kept", "deleted"])
async def test_another_session_can_neither_read_nor_write(
    fake_redis: FakeAsyncRedis, act: Callable[[Story, str], Awaitable[Any]], deleted: bool
) -> None:
    story = Story(fake_redis)
    await story.exchange("m1")
    await story.exchange("m2", parent="")
    await story.send("m3")
    if deleted:
        await story.conversations.delete(SESSION, story.id)
    before = await dump(story)
    with pytest.raises(NotFound) as refused:
        await act(story, "mallory")
    assert await dump(story) == before
    assert await story.conversations.listed("mallory", before_ms=None, limit=9, query=None) == ([], False)
    if act not in (STRANGE["send new"], STRANGE["send repeat"]):  # with an id of her own she may begin one
        with pytest.raises(NotFound) as unknown:
            await act(Story(fake_redis), "mallory")
        assert unknown.value.detail == refused.value.detail


# What belongs to it as a whole


async def test_update_changes_what_it_names_and_nothing_else(story: Story) -> None:
    await story.exchange("m1")
    before = await story.conversations.conversation(SESSION, story.id)
    changes = {"title": "Käse", "pinned": "1", "archived": "1", "system": "", "model": "n",
               "parameters": '{"temperature":0.5}'}  # fmt: skip
    after = await story.conversations.update(SESSION, story.id, changes)
    assert (after.title, after.pinned, after.archived, after.system, after.model, after.parameters) == (
        "Käse", True, True, "", "n", {"temperature": 0.5}
    )  # fmt: skip
    assert (after.tip, after.offset, after.updated) == (before.tip, before.offset, before.updated)
    again = await story.conversations.update(SESSION, story.id, {"pinned": "0"})
    assert (again.pinned, again.title) == (False, "Käse")
    assert await story.conversations.update(SESSION, story.id, {}) == again


# Deletion and retention


async def test_deleted_conversation_is_hidden_at_once_from_everything(story: Story) -> None:
    epoch = (await story.send("m1")).at["epoch"]
    await story.answer()
    await story.conversations.delete(SESSION, story.id)
    history = story.history
    for act in (
        history.read(SESSION, story.id, limit=1, max_bytes=1),
        history.message(SESSION, story.id, "m1"),
        history.after(SESSION, story.id, epoch, 0),
        story.conversations.conversation(SESSION, story.id),
        story.conversations.update(SESSION, story.id, {"title": "x"}),
        history.select(SESSION, story.id, "m1"),
        history.request_stop(SESSION, story.id),
        story.send("m2"),
        story.send("m1"),
        story.regenerate("m1", "again"),
    ):
        with pytest.raises(NotFound):
            await act
    assert await story.conversations.listed(SESSION, before_ms=None, limit=9, query=None) == ([], False)


async def test_everything_of_a_deleted_conversation_goes_in_time(story: Story) -> None:
    await story.send("m1")
    fence, answer = await story.begin()
    await story.say(fence, answer, 1, "Hel", "hm")
    await story.conversations.delete(SESSION, story.id)
    assert await story.history.stop_wanted(story.id)
    for _ in range(2):  # as it is deleted, and after the turn that was stopped wrote its last
        left = [await story.redis.pttl(key) for key in astuple(story.of)[:8] if await story.redis.exists(key)]
        assert left
        assert all(0 < ms <= RESTORE_SECONDS * 1000 for ms in left), left
        await story.finish(fence, answer)


@pytest.mark.parametrize("history_days", [400, 0])
async def test_restored_conversation_is_as_it_was(redis: Redis, history_days: int) -> None:
    story = Story(redis, history_days=history_days)
    await story.exchange("m1")
    before = await story.conversations.conversation(SESSION, story.id)
    lasting = await story.ttls()
    await story.conversations.delete(SESSION, story.id)
    restored, _ = await story.conversations.restore(SESSION, story.id)
    assert restored == before
    assert await story.branch() == ["m1", "m1.a"]
    found, _ = await story.conversations.listed(SESSION, before_ms=None, limit=9, query=None)
    assert [each.id for each in found] == [story.id]
    for key, ms in (await story.ttls()).items():
        if key in lasting and key != story.of.log:
            assert (ms > DAY_MS) == (lasting[key] > DAY_MS), key
    await story.exchange("m2")
    assert (await story.types())[-1] == "completion.finished"


async def test_restore_of_what_is_not_deleted_changes_nothing(story: Story) -> None:
    await story.exchange("m1")
    before = await dump(story)
    await story.conversations.restore(SESSION, story.id)
    assert await dump(story) == before
    with pytest.raises(NotFound):
        await story.conversations.restore(SESSION, "nobody")


async def test_id_of_a_conversation_that_is_gone_may_begin_anew(story: Story) -> None:
    await story.send("m1")
    fence, answer = await story.begin()
    await story.conversations.delete(SESSION, story.id)
    await story.say(fence, answer, 1, "the last words of a deleted one")
    await story.finish(fence, answer)
    for key, ms in (await story.ttls()).items():  # what half a minute does
        if 0 <= ms <= RESTORE_SECONDS * 1000:
            await story.redis.delete(key)
    sent = await story.send("m1")
    assert (sent.at["offset"], sent.repeated) == (1, False)


async def test_everything_is_kept_for_the_days_of_history(story: Story) -> None:
    short = await ttls_at_all_times(story)
    assert set(short) == {story.of.log, story.of.lease, story.of.fence}
    for key, ms in (await story.ttls()).items():
        if key not in short and key != story.keys.work:
            assert 399 * DAY_MS < ms <= 400 * DAY_MS, key


async def test_nothing_but_the_log_goes_when_history_is_kept_for_ever(redis: Redis) -> None:
    story = Story(redis, history_days=0)
    short = await ttls_at_all_times(story)
    assert set(short) == {story.of.log, story.of.lease, story.of.fence}
    assert short[story.of.log] <= LOG_SECONDS * 1000
    assert {ms for key, ms in (await story.ttls()).items() if key not in short} == {-1}


async def test_what_was_to_go_in_time_is_kept_for_ever_once_history_is(redis: Redis) -> None:
    story = Story(redis, history_days=400)
    await story.exchange("m1")
    story.conversations = Conversations(redis, story.keys, history_days=0)
    story.history = History(redis, story.keys, story.conversations, history_days=0)
    await story.send("m2")
    fence, answer = await story.begin()
    await story.say(fence, answer, 1, "Hello", "hm")
    await story.conversations.touch(SESSION, await story.conversations.conversation(SESSION, story.id))
    lasting = {*astuple(story.of)[:8], story.keys.conversations(SESSION)} - {story.of.log}
    found = await story.ttls() | {story.of.queue: -1}
    assert {key: found[key] for key in lasting} == dict.fromkeys(lasting, -1)
    await story.finish(fence, answer)
    assert {ms for key, ms in (await story.ttls()).items() if key in lasting} == {-1}


async def ttls_at_all_times(story: Story) -> dict[str, int]:
    """Go through a conversation's life; gives what had a short TTL, and leaves a turn open."""
    short: dict[str, int] = {}

    async def look() -> None:
        for key, ms in (await story.ttls()).items():
            if ms == -1:
                assert story.history._retention_ms == 0 or key == story.keys.work, key
            elif ms <= DAY_MS:
                short[key] = ms

    await story.send("m1")
    await look()
    fence, answer = await story.begin()
    await look()
    await story.say(fence, answer, 1, "Hello", "hm")
    await look()
    await story.finish(fence, answer)
    await look()
    await story.history.select(SESSION, story.id, "m1")
    await story.regenerate("m1", "again")
    fence, answer = await story.begin()
    await story.say(fence, answer, 1, "Hello", "hm")
    await look()
    return short


async def test_use_renews_the_time_that_history_is_kept(story: Story) -> None:
    await story.exchange("m1")
    for key in astuple(story.of)[:3]:
        await story.redis.pexpire(key, 1000 * DAY_MS)
    await story.exchange("m2")
    for key in astuple(story.of)[:3]:
        assert await story.redis.pttl(key) <= 400 * DAY_MS


# The index of work


async def test_stale_work_is_forgotten_unless_it_was_renewed(story: Story) -> None:
    await story.send("m1")
    ((entry,), _) = await story.history.work()
    assert entry.age_seconds >= 0
    await story.redis.zadd(story.keys.work, {story.id: entry.since_ms + 1})
    await story.history.forget_work(entry)
    ((renewed,), _) = await story.history.work()
    await story.history.forget_work(renewed)
    assert (await story.history.work())[0] == []


async def test_conversation_without_a_turn_has_none(story: Story) -> None:
    assert await story.history.turn(story.id) is None
    await story.exchange("m1")
    assert await story.history.turn(story.id) is None
    assert await story.history.with_turn([story.id]) == [False]
    assert await story.history.with_turn([]) == []


async def test_history_is_unavailable_while_the_store_is_down_and_loses_nothing(fresh_store: Store) -> None:
    async with connect(fresh_store.url) as client:
        story = Story(client)
        epoch = (await story.send("m1")).at["epoch"]
        await story.answer()
        await fresh_store.stop()
        history = story.history
        for act in (
            story.send("m2"),
            history.read(SESSION, story.id, limit=1, max_bytes=1),
            history.after(SESSION, story.id, epoch, 0),
            story.conversations.listed(SESSION, before_ms=None, limit=9, query=None),
            history.turn(story.id),
            history.work(),
            story.conversations.announce(SESSION, story.id, temporary=False),
            story.conversations.delete(SESSION, story.id),
        ):
            with pytest.raises(Unavailable):
                await act
        await fresh_store.start()
        assert await story.branch() == ["m1", "m1.a"]
        at = (await story.send("m2")).at
    assert at["epoch"] != epoch  # nobody can tell what a store that started anew has lost
    assert at["offset"] == 1
