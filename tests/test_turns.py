"""Answers are made once, whatever happens: over a real store and the tests' model server."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import pytest
from redis.asyncio import Redis

from llmchat import attempt as attempt_room
from llmchat import continuation
from llmchat import turn as turn_room
from llmchat import turns as turns_room
from llmchat.answering import Answering
from llmchat.attachments import Attachments
from llmchat.broadcaster import Broadcaster
from llmchat.budget import Budget
from llmchat.completion import Completions
from llmchat.conversation import Branch, Turn, digest
from llmchat.conversations import Conversations
from llmchat.errors import Unavailable
from llmchat.events import CompletionDelta
from llmchat.failures import FIRST_SECONDS, Failures
from llmchat.folds import Folds
from llmchat.history import TIP, History, Work
from llmchat.keys import TURNS, Keys
from llmchat.lease import Lease, Leases
from llmchat.listing import Listing
from llmchat.model_stream import Deadlines
from llmchat.models import Models
from llmchat.pressure import Pressure
from llmchat.redis_client import connect
from llmchat.settings import Settings
from llmchat.spending import Spending
from llmchat.summaries import Summaries
from llmchat.titles import Titles
from llmchat.turn import DELTA_CHARACTERS, Answer, Delta
from llmchat.turns import MOST_SECONDS, TOGETHER_SECONDS, Turns, _Running
from tests.fakes import CUT, Gate, Line, Model, Reasoning
from tests.instances import Store
from tests.steps import Failure, Step, Text
from tests.waiting import Bell, eventually, within

SESSION = "alice"
ENDINGS = ("completion.finished", "completion.failed")


class Instance:
    """The rooms of one instance that make answers, as the app puts them together."""

    def __init__(self, url: str, prefix: str, settings: Settings) -> None:
        self.redis = connect(url)
        self.keys = Keys(prefix)
        self.conversations = Conversations(self.redis, self.keys, history_days=1)
        self.history = History(self.redis, self.keys, self.conversations, history_days=1)
        self.leases = Leases(self.redis, self.keys)
        self.broadcaster = Broadcaster([url], prefix=prefix, capacity=1000)
        self.completions = Completions(settings.asked, Deadlines.of(settings))
        self.models = Models(settings, self.completions)
        listing = Listing(self.conversations, self.broadcaster, self.models)
        summaries = Summaries(self.redis, self.keys, history_days=1)
        fold_leases = Leases(self.redis, self.keys, of="fold")
        self.pressure = Pressure()
        self.answering = Answering(
            self.redis,
            self.keys,
            "k" * 32,
            most=settings.answers_at_once,
            seconds=60,
            for_whom=bool(settings.tokens_per_day),
        )
        self.spending = Spending(
            self.redis, self.keys, tokens=settings.tokens_per_day, all_tokens=settings.tokens_per_day_in_all
        )
        self.folds = Folds(
            settings, self.history, summaries, fold_leases, self.completions, self.models, self.spending
        )
        self.attachments = Attachments(self.redis, self.keys, largest=1_000_000, most_bytes=4_000_000, days=1)
        self.titles = Titles(settings, self.redis, self.keys, self.completions, listing, self.spending)
        self.turns = Turns(
            settings,
            self.history,
            self.leases,
            self.broadcaster,
            self.completions,
            listing,
            self.folds,
            self.attachments,
            self.models,
            self.titles,
            self.answering,
            self.spending,
            self.pressure,
        )

    async def __aenter__(self) -> Instance:
        await self.turns.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.turns.stop()
        await self.folds.stop()
        await self.titles.stop()
        await self.completions.close()
        await self.broadcaster.close()
        await self.redis.aclose()

    async def send(
        self, message: str, text: str = "Hi", conversation: str = "c1", *, begin: bool = True
    ) -> str:
        """Store a prompt and have it answered; gives the answer's id."""
        sent = await self.history.send(
            session=SESSION, conversation=conversation, new=True, title="t", message=message, text=text,
            parent=TIP, answer=f"{message}.a", model="m",
        )  # fmt: skip
        if begin:
            self.turns.begin(conversation)
        return sent.answer

    async def stop(self, conversation: str = "c1", *, wake: bool = True) -> None:
        """Stop the running answer, as chat does; without `wake` as if the wake-up were lost."""
        answer = await self.history.request_stop(SESSION, conversation)
        assert answer
        if wake:
            await self.turns.wake_for_stop(conversation, answer)

    async def until_listening(self) -> None:
        """Wait until wake-ups reach it."""

        async def look() -> bool:
            subscribed = await self.redis.pubsub_channels(f"*{TURNS}*")
            return any(self.keys.prefix in channel.decode() for channel in subscribed)

        await eventually(look, seconds=30, what="it listens")

    async def frames(self, conversation: str = "c1") -> list[dict[str, Any]]:
        """What the log has."""
        log = self.keys.of_conversation(conversation).log
        return [json.loads(fields[b"frame"]) for _, fields in await self.redis.xrange(log)]

    async def until(self, find: Callable[[list[dict[str, Any]]], Any], conversation: str = "c1") -> Any:
        """Wait until something is found in the log."""

        async def look() -> Any:
            return find(await self.frames(conversation))

        return await eventually(look, seconds=30, what="the log has it")

    async def end(self, answer: str, conversation: str = "c1") -> dict[str, Any]:
        """Wait for an answer's last event."""
        return await self.until(  # type: ignore[no-any-return]
            lambda frames: next((f for f in frames if f["type"] in ENDINGS and f["message"] == answer), None),
            conversation,
        )

    async def text_so_far(self, text: str) -> None:
        """Wait until so much of the last answer is placed."""
        await self.until(lambda frames: text_of(frames) == text)

    async def stored(self, message: str, conversation: str = "c1") -> dict[str, Any]:
        """The message as it is stored."""
        return await self.history.message(SESSION, conversation, message)


Start = Callable[..., Awaitable[Instance]]


def text_of(frames: list[dict[str, Any]]) -> str:
    """The last answer's text, by the protocol's rule."""
    text = ""
    for frame in frames:
        if frame["type"] == "completion.started":
            text = frame["text"]
        elif frame["type"] == "completion.delta":
            text += frame["text"]
    return text


def types(frames: list[dict[str, Any]]) -> list[str]:
    return [frame["type"] for frame in frames]


@pytest.fixture
def prefix() -> str:
    return f"turns-{secrets.token_hex(4)}"


@pytest.fixture
async def start(store: Store, prefix: str, settings: Settings) -> AsyncIterator[Start]:
    """Start instances of one service."""
    async with AsyncExitStack() as leaving:

        async def begin(url: str = store.url, models: tuple[str, ...] = ("m",)) -> Instance:
            offering = replace(settings, openai_models=models)
            return await leaving.enter_async_context(Instance(url, prefix, offering))

        yield begin


@pytest.fixture
async def instance(start: Start) -> Instance:
    return await start()


async def test_answer_is_placed_whole(instance: Instance, model: Model) -> None:
    model.answer("Hel", "lo *wor", "ld*\n\nBye 👋")
    ended = await instance.end(await instance.send("m1"))
    frames = await instance.frames()
    assert types(frames)[:2] == ["message.added", "completion.started"]
    assert set(types(frames)[2:-1]) == {"completion.delta"}
    assert [frame["at"]["offset"] for frame in frames] == list(range(1, len(frames) + 1))
    text = "Hello *world*\n\nBye 👋"
    assert text_of(frames) == text
    assert (ended["finish_reason"], ended["digest"]) == ("stop", digest(text))
    assert ended["usage"]["completion_tokens"] == 4
    stored = await instance.stored("m1.a")
    assert (stored["text"], stored["state"], stored["model"]) == (text, "done", "m")
    assert await instance.history.turn("c1") is None


async def test_context_holds_the_branch_and_the_system_prompt(
    instance: Instance, model: Model, settings: Settings
) -> None:
    model.answer("One.", times=2)
    await instance.end(await instance.send("m1", "First"))
    await instance.end(await instance.send("m2", "Second"))
    await model.asked()
    asked = await model.asked()
    assert [(each["role"], each["content"]) for each in asked.messages] == [
        ("system", settings.system_prompt), ("user", "First"), ("assistant", "One."), ("user", "Second")
    ]  # fmt: skip
    assert asked.body["model"] == "m"


async def test_deltas_are_fewer_than_the_models_pieces(instance: Instance, model: Model) -> None:
    said = [f"{number} " for number in range(500)]
    model.answer(*said)
    await instance.end(await instance.send("m1"))
    frames = await instance.frames()
    assert text_of(frames) == "".join(said)
    assert types(frames).count("completion.delta") < 250


async def test_answer_goes_on_without_blocks_while_rendering_has_had_its_share(
    instance: Instance, model: Model
) -> None:
    gate = Gate()
    model.answer("# One\n\n", "Two.\n\n", gate, "Three.\n\n", "Four.")
    instance.turns._rendering = Budget(share=0, at_once=0)
    answer = await instance.send("m1")
    await instance.text_so_far("# One\n\nTwo.\n\n")
    assert not any(frame["blocks"] for frame in await instance.frames() if "blocks" in frame)
    gate.open()
    ended = await instance.end(answer)
    assert [block for block, _ in ended["blocks"]] == [0, 1, 2, 3]


async def test_more_is_one_event_the_more_answers_are_made(instance: Instance) -> None:
    turns = instance.turns
    assert turns._pace() == TOGETHER_SECONDS
    turns._running.update({f"c{number}": _Running() for number in range(100)})
    assert TOGETHER_SECONDS < turns._pace() < MOST_SECONDS
    turns._running.update({f"d{number}": _Running() for number in range(1000)})
    assert turns._pace() == MOST_SECONDS
    turns._running.clear()


async def test_next_prompt_is_answered_when_it_is_sent_the_moment_the_answer_ends(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns_room, "GRACE_SECONDS", 3600)  # nobody takes over what was not begun
    instance = await start()

    class Quick(Listing):
        """Somebody sends the next prompt as soon as the answer is placed."""

        asked = False

        async def updated(self, session: str, conversation: str, *, used: bool = False) -> None:
            if used and not self.asked:
                self.asked = True
                await instance.send("m2")

    instance.turns._listing = Quick(instance.history, instance.broadcaster, instance.models)
    await instance.end(await instance.send("m1"))
    await instance.end("m2.a")


class WatchedLeases(Leases):
    """Tells when somebody tried to take one."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.tried = asyncio.Event()

    async def take(self, conversation: str) -> Lease | None:
        """Take it, if nobody holds it."""
        lease = await super().take(conversation)
        self.tried.set()
        return lease


async def test_next_prompt_is_answered_when_another_instance_takes_it_the_moment_the_answer_ends(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns_room, "GRACE_SECONDS", 3600)  # nobody takes over what was not begun
    maker, other = await start(), await start()
    leases = other.turns._leases = WatchedLeases(other.redis, other.keys)

    class Quick(History):
        """The other instance gets the next prompt before the lease of this answer is given back."""

        async def finish(self, *args: Any) -> None:
            await super().finish(*args)
            if not leases.tried.is_set():
                await other.send("m2")
                async with within(10, "the other instance tries to take the turn"):
                    await leases.tried.wait()

    maker.turns._history = Quick(maker.redis, maker.keys, maker.conversations, history_days=1)
    await maker.end(await maker.send("m1"))
    assert (await maker.end("m2.a"))["finish_reason"] == "stop"
    started = [frame for frame in await maker.frames() if frame["type"] == "completion.started"]
    assert [(frame["message"], frame["attempt"]) for frame in started] == [("m1.a", 1), ("m2.a", 1)]


async def test_what_came_at_once_is_placed_in_several_steps_while_the_model_pauses(
    instance: Instance, model: Model
) -> None:
    said = "word " * (DELTA_CHARACTERS // 2)
    gate = Gate()
    model.answer(said, gate)
    answer = await instance.send("m1")
    await instance.text_so_far(said)
    gate.open()
    await instance.end(answer)
    deltas = [frame for frame in await instance.frames() if frame["type"] == "completion.delta"]
    assert len(deltas) > 1
    assert max(len(frame["text"]) for frame in deltas) <= DELTA_CHARACTERS


@pytest.mark.parametrize("usage", [None, {"prompt_tokens": 1, "completion_tokens": 1}], ids=["", "figures"])
async def test_answer_longer_than_it_may_be_ends_and_closes_the_model(
    instance: Instance, model: Model, monkeypatch: pytest.MonkeyPatch, usage: dict[str, int] | None
) -> None:
    monkeypatch.setattr(turn_room, "MAX_ANSWER_BYTES", 10)
    event = {"choices": [{"index": 0, "delta": {"content": "123456"}}], "usage": usage}
    piece = Line("data: " + json.dumps(event))
    model.answer(piece, piece, Gate(), "never said")
    ended = await instance.end(await instance.send("m1"))
    await (await model.asked()).closed()
    assert ended["finish_reason"] == "length"
    assert text_of(await instance.frames()) == "1234561234"


# Stops


async def test_late_wake_up_of_another_answer_stops_nothing(start: Start, model: Model) -> None:
    instance, other = await start(), await start()
    gate = Gate()
    model.answer("Half ", gate, "whole", to="Go on")
    model.answer("Half ", Gate(), to="Stop")
    stays = await instance.send("m1", "Go on")
    goes = await instance.send("n1", "Stop", conversation="c2")
    for conversation in ("c1", "c2"):
        await instance.until(lambda frames: text_of(frames) == "Half ", conversation)
    await other.turns.wake_for_stop("c1", "an answer before")
    await other.turns.wake_for_stop("c2", goes)  # heard after the one before it
    assert (await instance.end(goes, "c2"))["finish_reason"] == "stopped"
    gate.open()
    assert (await instance.end(stays))["finish_reason"] == "stop"
    assert (await instance.stored(stays))["text"] == "Half whole"


@pytest.mark.parametrize("wake", [True, False], ids=["woken", "by the flag alone"])
async def test_stop_in_mid_answer_closes_the_model_and_keeps_the_text(
    start: Start, model: Model, wake: bool
) -> None:
    maker, other = await start(), await start()
    model.answer("Half ", Gate(), "never said")
    answer = await maker.send("m1")
    await maker.text_so_far("Half ")
    await other.stop(wake=wake)
    ended = await maker.end(answer)
    await (await model.asked()).closed()
    assert (ended["type"], ended["finish_reason"]) == ("completion.finished", "stopped")
    assert text_of(await maker.frames()) == "Half "
    assert (await maker.stored(answer))["text"] == "Half "


async def test_stop_before_the_answer_began_asks_no_model(instance: Instance, model: Model) -> None:
    answer = await instance.send("m1", begin=False)
    await instance.stop()
    instance.turns.begin("c1")
    ended = await instance.end(answer)
    assert (ended["finish_reason"], ended["digest"]) == ("stopped", digest(""))
    assert types(await instance.frames()) == ["message.added", "completion.started", "completion.finished"]
    assert model.requests == []


async def test_stop_before_the_first_token_closes_the_model(instance: Instance, model: Model) -> None:
    gate = Gate()
    model.answer(gate, "never said")
    answer = await instance.send("m1")
    await gate.wait()
    await instance.stop()
    ended = await instance.end(answer)
    await (await model.asked()).closed()
    assert ended["finish_reason"] == "stopped"
    assert "completion.delta" not in types(await instance.frames())


# What the model's server does


async def test_refusal_fails_the_turn_in_words_and_the_next_one_works(
    instance: Instance, model: Model
) -> None:
    model.refuse(401)
    answer = await instance.send("m1")
    failed = await instance.end(answer)
    assert (failed["type"], failed["code"], failed["retryable"]) == (
        "completion.failed",
        "provider_auth",
        False,
    )
    stored = await instance.stored(answer)
    assert (stored["state"], stored["error"]["code"]) == ("failed", "provider_auth")
    await instance.history.regenerate(
        session=SESSION, conversation="c1", prompt="m1", answer="again", model="m"
    )
    instance.turns.begin("c1")
    assert (await instance.end("again"))["type"] == "completion.finished"


async def test_context_too_long_for_the_model_is_shortened_until_it_is_taken(
    instance: Instance, model: Model
) -> None:
    await instance.end(await instance.send("m1", "Remember this."))
    model.refuse_length(times=3)
    model.answer("Taken", usage={})
    digits = "1234567890 " * 1400
    assert (await instance.end(await instance.send("m2", digits)))["finish_reason"] == "stop"
    asked = [sum(len(each["content"]) for each in request.messages) for request in model.requests[1:]]
    assert len(asked) == 4
    assert asked == sorted(asked, reverse=True)
    assert asked[-1] < asked[0]
    known = await instance.conversations.conversation(SESSION, "c1")
    assert known.calibration > 1  # the next time it is shorter at once

    model.refuse_length(times=20)
    failed = await instance.end(await instance.send("m3", digits))
    assert (failed["type"], failed["code"]) == ("completion.failed", "context_too_long")
    assert (await instance.conversations.conversation(SESSION, "c1")).calibration == known.calibration


async def test_reasoning_takes_nothing_of_the_context(start: Start, model: Model) -> None:
    instance = await start()
    for number in range(6):
        model.answer(Reasoning("hm, " * 20_000), f"Answer {number}")
        await instance.end(await instance.send(f"m{number}", f"Prompt {number}"))
    assert (await instance.stored("m5.a"))["reasoning"].startswith("hm, ")
    sent = [each["content"] for each in model.requests[-1].messages[1:]]
    assert sent[:2] == ["Prompt 0", "Answer 0"]
    assert sent[-1] == "Prompt 5"
    assert len(sent) == 11


@pytest.mark.parametrize("step", [CUT, None], ids=["cut", "no reason"])
async def test_answer_that_breaks_off_is_kept_as_interrupted(
    instance: Instance, model: Model, step: Any
) -> None:
    model.answer("Some text", *([step] if step else []), finish_reason=None, usage={}, done=False)
    answer = await instance.send("m1")
    ended = await instance.end(answer)
    assert (ended["type"], ended["finish_reason"]) == ("completion.finished", "interrupted")
    assert (await instance.stored(answer))["text"] == "Some text"


async def test_empty_answer_fails(instance: Instance, model: Model) -> None:
    model.answer(usage={})
    failed = await instance.end(await instance.send("m1"))
    assert (failed["type"], failed["code"]) == ("completion.failed", "provider_refused")


# Several instances


async def test_two_instances_make_one_answer(start: Start, model: Model) -> None:
    one, two = await start(), await start()
    answer = await one.send("m1")
    for _ in range(3):
        for each in (one, two):
            each.turns.begin("c1")
    await one.end(answer)
    assert types(await one.frames()).count("completion.started") == 1
    assert len(model.requests) == 1


async def test_holder_that_lost_its_lease_writes_nothing_more(start: Start, model: Model) -> None:
    maker = await start()
    gate = Gate()
    model.answer("Half ", gate, "never placed")
    await maker.send("m1")
    await maker.text_so_far("Half ")
    lease = None
    while lease is None:  # a renewal may come between
        await maker.redis.delete(maker.keys.of_conversation("c1").lease)
        lease = await maker.leases.take("c1")
    await maker.redis.persist(maker.keys.of_conversation("c1").lease)  # the maker does not take it again
    before = await maker.frames()
    gate.open()
    await (await model.asked()).over()

    async def given_up() -> bool:
        return "c1" not in maker.turns._running

    await eventually(given_up, seconds=30, what="the maker gives the turn up")
    assert await maker.frames() == before
    assert await maker.leases.renew(lease)


async def test_stopped_instances_turn_is_taken_over_by_another(start: Start, model: Model) -> None:
    one = await start()
    model.answer("Half ", Gate())
    answer = await one.send("m1")
    await one.text_so_far("Half ")
    two = await start()
    model.answer("Whole")
    await one.turns.stop()
    await (await model.asked()).closed()
    ended = await two.end(answer)
    assert ended["finish_reason"] == "stop"
    frames = await two.frames()
    assert [frame["attempt"] for frame in frames if frame["type"] == "completion.started"] == [1, 2]
    assert text_of(frames) == "Whole"
    assert (await two.stored(answer))["text"] == "Whole"


async def test_instance_that_stopped_begins_nothing(start: Start, model: Model) -> None:
    one = await start()
    await one.turns.stop()
    await one.send("m1")
    await asyncio.sleep(0)
    assert one.turns._tasks == set()
    assert model.requests == []


async def test_turn_whose_keys_are_damaged_is_left_alone_for_longer_each_time_and_others_are_made(
    instance: Instance, caplog: pytest.LogCaptureFixture
) -> None:
    now = 0.0
    instance.turns._failures = Failures(lambda: now)
    await instance.send("m1", begin=False)
    damaged = instance.keys.of_conversation("c1").conversation
    await instance.redis.delete(damaged)
    await instance.redis.set(damaged, "no hash")

    async def failed(times: int) -> None:
        async def told() -> bool:
            return len([each for each in caplog.records if "A turn failed" in each.message]) == times

        await eventually(told, seconds=30, what=f"it failed {times} times")

    await failed(1)
    now += FIRST_SECONDS
    await failed(2)
    now += FIRST_SECONDS  # it would take twice as much
    assert (await instance.end(await instance.send("m2", conversation="c2", begin=False), "c2"))[
        "finish_reason"
    ] == "stop"
    await failed(2)


async def test_prompt_that_nobody_began_is_taken_up(instance: Instance) -> None:
    assert (await instance.end(await instance.send("m1", begin=False)))["finish_reason"] == "stop"


async def leave(instance: Instance, attempts: int, text: str, *, first: int = 1) -> str:
    """Leave a turn as instances do that died in their attempts, of which the `first` may be a later one."""
    answer = await instance.send("m1", begin=False)
    for attempt in range(first, first + attempts):
        lease = await instance.leases.take("c1")
        assert lease
        found = await instance.history.turn("c1")
        assert found
        made = Answer(conversation="c1", message=answer, prompt="m1", model="m", created="t", attempt=attempt)
        record, started = made.record(), made.started()
        await instance.history.begin("c1", lease.fence, attempt, record, "", started, before=found[1])
        if text:
            made.take(Delta(text))
            delta = made.delta()
            assert delta
            await instance.history.append("c1", lease.fence, answer, attempt, 1, text, "", delta)
        await instance.leases.release(lease)
    return answer


@pytest.mark.parametrize(
    ("attempts", "text", "kind"), [(3, "Seen", "completion.finished"), (2, "", "completion.failed")]
)
async def test_turn_begun_too_often_ends_with_the_text_there_is(
    instance: Instance, model: Model, attempts: int, text: str, kind: str
) -> None:
    answer = await leave(instance, attempts, text)
    instance.turns.begin("c1")
    ended = await instance.end(answer)
    assert ended["type"] == kind
    assert ended.get("finish_reason", ended.get("code")) == (
        "interrupted" if text else "provider_unavailable"
    )
    assert (await instance.stored(answer))["text"] == text
    assert types(await instance.frames()).count("completion.started") == attempts
    assert model.requests == []
    assert instance.turns.tally.begun.total() == instance.turns.tally.ended.total() == 1


NOTHING: dict[str, list[Step]] = {"stop": [], "length": [Reasoning("Hm.")], "blank": [Text("\n"), CUT]}


@pytest.mark.parametrize(
    ("attempts", "how"), [(1, "refused"), (2, "refused"), (1, "stop"), (1, "length"), (1, "blank")]
)
async def test_takeover_that_brings_nothing_leaves_the_text_that_was_seen(
    instance: Instance, model: Model, attempts: int, how: str
) -> None:
    if how == "refused":
        model.refuse(400)
    else:
        model.answer(*NOTHING[how], finish_reason=how if how in ("stop", "length") else None)
    answer = await leave(instance, attempts, "Seen")
    instance.turns.begin("c1")
    ended = await instance.end(answer)
    stored = await instance.stored(answer)
    assert (ended["finish_reason"], stored["text"].strip()) == ("interrupted", "Seen")
    assert ended["digest"] == digest(stored["text"])
    assert text_of(await instance.frames()) == stored["text"]
    assert await instance.history.earlier("c1", answer) == ""


@pytest.mark.parametrize("said", ["", " ", "Seen"])
async def test_text_that_was_seen_outlives_an_attempt_that_died_without_a_new_word(
    instance: Instance, model: Model, said: str
) -> None:
    model.refuse(400)
    answer = await leave(instance, 1, "Seen by all")
    await leave(instance, 1, said, first=2)  # the last: while it put the text back
    instance.turns.begin("c1")
    ended = await instance.end(answer)
    assert (ended["finish_reason"], ended["digest"]) == ("interrupted", digest("Seen by all"))
    assert (await instance.stored(answer))["text"] == "Seen by all"


async def test_text_that_was_seen_outlives_a_store_that_lost_the_beginning_of_the_takeover(
    instance: Instance, model: Model
) -> None:
    gate = Gate()
    model.answer(gate, Failure())
    answer = await leave(instance, 1, "Seen")
    keys = instance.keys.of_conversation("c1")
    kept = [keys.conversation, keys.messages, keys.tree, keys.log, keys.turn, keys.text]
    before = {key: await instance.redis.dump(key) for key in kept}
    instance.turns.begin("c1")
    await gate.wait()
    for key, value in before.items():
        await instance.redis.restore(key, 0, value, replace=True)
    gate.open()
    ended = await instance.end(answer)
    assert (ended["finish_reason"], ended["digest"]) == ("interrupted", digest("Seen"))


async def test_stop_of_a_takeover_before_its_first_word_leaves_the_text_that_was_seen(
    instance: Instance, model: Model
) -> None:
    model.answer(Gate())
    answer = await leave(instance, 1, "Seen")
    instance.turns.begin("c1")
    await model.asked()
    await instance.stop()
    ended = await instance.end(answer)
    assert (ended["finish_reason"], ended["digest"]) == ("stopped", digest("Seen"))


async def test_answer_by_a_model_that_is_not_on_offer_any_more_is_made_by_one_that_is(
    start: Start, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = await start(models=("new", "newer"))
    answer = await instance.send("m1")
    assert (await instance.end(answer))["finish_reason"] == "stop"
    assert (await model.asked()).body["model"] == "new"
    assert (await instance.stored(answer))["model"] == "new"
    (server,) = instance.completions._servers.values()
    assert list(server._continuation._questions) == ["new"]
    gate = Gate()
    model.answer("Half ", gate, to="Again")
    answer = await instance.send("m2", "Again")
    await instance.text_so_far("Half ")
    monkeypatch.setattr(Answer, "take", lambda *_: 1 / 0)
    gate.open()
    assert (await instance.end(answer))["finish_reason"] == "interrupted"
    assert (await instance.stored(answer))["model"] == "new"


async def test_turn_of_the_dead_is_taken_over_though_messages_are_lost_for_long(instance: Instance) -> None:
    await instance.until_listening()
    instance.broadcaster.lost.set()
    answer = await leave(instance, 1, "Seen")
    assert (await instance.end(answer))["finish_reason"] == "stop"


@pytest.mark.parametrize(("attempts", "text"), [(2, "Seen"), (1, "")])
async def test_turn_is_begun_once_more_before_it_was_begun_too_often(
    instance: Instance, attempts: int, text: str
) -> None:
    answer = await leave(instance, attempts, text)
    instance.turns.begin("c1")
    assert (await instance.end(answer))["finish_reason"] == "stop"
    assert types(await instance.frames()).count("completion.started") == attempts + 1


async def test_turn_that_is_handed_over_costs_nothing(start: Start, model: Model) -> None:
    model.answer(Gate(), times=5)
    instances = [await start()]
    answer = await instances[0].send("m1")
    for _ in range(5):
        await model.asked()
        await instances[-1].until(lambda frames: "completion.started" in types(frames))
        instances.append(await start())
        await instances[-2].turns.stop()
    ended = await instances[-1].end(answer)
    assert ended["finish_reason"] == "stop"
    frames = await instances[-1].frames()
    attempts = [frame["attempt"] for frame in frames if frame["type"] == "completion.started"]
    assert attempts == [1, 2, 3, 4, 5, 6]


async def test_turn_is_handed_over_without_waiting_for_anybody_to_look(
    start: Start, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns_room, "WATCH_SECONDS", 3600)
    one, two = await start(), await start()
    await two.until_listening()
    model.answer("Half ", Gate())
    answer = await one.send("m1")
    await one.text_so_far("Half ")
    await one.turns.stop()
    assert (await two.end(answer))["finish_reason"] == "stop"


async def test_text_is_kept_where_the_model_goes_on_from_it(start: Start, model: Model) -> None:
    model.continues = True
    model.answer(Reasoning("Hm. "), "Half ", Gate(), "and half")
    model.answer(Reasoning("Hm. "), "Half ", "and half")
    one = await start()
    answer = await one.send("m1")
    await one.text_so_far("Half ")
    two = await start()
    await one.turns.stop()
    ended = await two.end(answer)
    frames = await two.frames()
    started = [frame for frame in frames if frame["type"] == "completion.started"]
    assert [(frame["attempt"], frame["text"]) for frame in started] == [(1, ""), (2, "Half ")]
    assert started[0]["created"] == started[1]["created"]
    assert (text_of(frames), ended["digest"]) == ("Half and half", digest("Half and half"))
    stored = await two.stored(answer)
    assert (stored["text"], stored["reasoning"]) == ("Half and half", "Hm. ")
    assert [asked.kept for asked in model.requests] == ["", "Half "]


async def test_model_server_is_asked_whether_it_goes_on_before_that_has_to_be_known(
    instance: Instance, model: Model
) -> None:
    model.continues = True
    await instance.end(await instance.send("m1"))
    await instance.end(await instance.send("m2"))

    async def asked() -> int:
        return model.questions

    assert await eventually(asked, seconds=30, what="it is asked") == 1


async def test_text_that_takes_most_of_the_context_is_not_kept(
    start: Start, model: Model, settings: Settings
) -> None:
    model.continues = True
    long = "words of it " * settings.context_tokens
    model.answer(long, Gate())
    model.answer("Short")
    one = await start()
    answer = await one.send("m1")
    await one.until(lambda frames: len(text_of(frames)) > settings.context_tokens * 3)
    two = await start()
    await one.turns.stop()
    await two.end(answer)
    assert (await two.stored(answer))["text"] == "Short"


async def test_turn_stopped_while_its_instance_is_dead_ends_with_the_text_there_is(
    instance: Instance, model: Model
) -> None:
    answer = await leave(instance, 1, "Seen")
    await instance.stop(wake=False)
    instance.turns.begin("c1")
    ended = await instance.end(answer)
    assert ended["finish_reason"] == "stopped"
    assert (await instance.stored(answer))["text"] == "Seen"
    assert ended["digest"] == digest("Seen")
    assert model.requests == []


async def test_stop_while_the_turn_is_taken_over_keeps_the_text_there_is(
    instance: Instance, model: Model
) -> None:
    class Stopped(History):
        """Somebody stops between the look at the turn and its next attempt."""

        stopped = False

        async def turn(self, conversation: str) -> tuple[str, Turn] | None:
            found = await super().turn(conversation)
            if not self.stopped:
                self.stopped = True
                await self.request_stop(SESSION, conversation)
            return found

    answer = await leave(instance, 1, "Seen")
    instance.turns._history = Stopped(instance.redis, instance.keys, instance.conversations, history_days=1)
    instance.turns.begin("c1")
    ended = await instance.end(answer)
    assert (ended["finish_reason"], ended["digest"]) == ("stopped", digest("Seen"))
    assert (await instance.stored(answer))["text"] == "Seen"
    assert types(await instance.frames()).count("completion.started") == 1
    assert model.requests == []


@pytest.mark.parametrize("where", ["read", "begin", "append"])
async def test_bug_while_an_answer_is_made_fails_the_answer_and_nothing_else(
    instance: Instance, caplog: pytest.LogCaptureFixture, where: str
) -> None:
    class Faulty(History):
        """Has a bug that strikes once."""

        struck = False

        def _strike(self, here: str) -> None:
            if here == where and not self.struck:
                self.struck = True
                raise RuntimeError("a bug")

        async def read(self, *args: Any, **options: Any) -> Branch:
            self._strike("read")
            return await super().read(*args, **options)

        async def begin(self, *args: Any, **options: Any) -> bool:
            self._strike("begin")
            return await super().begin(*args, **options)

        async def append(self, *args: Any) -> bool:
            self._strike("append")
            return await super().append(*args)

    instance.turns._history = Faulty(instance.redis, instance.keys, instance.conversations, history_days=1)
    failed = await instance.end(await instance.send("m1"))
    assert (failed["type"], failed["code"]) == ("completion.failed", "internal")
    assert "a bug" not in json.dumps(await instance.frames())
    assert (await instance.end(await instance.send("m2")))["finish_reason"] == "stop"
    assert [record.exc_info is not None for record in caplog.records if record.levelname == "ERROR"] == [True]


async def test_bug_in_the_middle_of_an_answer_leaves_what_was_seen_of_it(
    instance: Instance, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate()
    model.answer("All of this was seen. ", gate, "More")
    answer = await instance.send("m1")
    await instance.text_so_far("All of this was seen. ")
    whole, struck = Answer.delta, []

    def faulty(self: Answer) -> CompletionDelta | None:
        if not struck:
            struck.append(True)
            raise RuntimeError("a bug")
        return whole(self)

    monkeypatch.setattr(Answer, "delta", faulty)
    gate.open()
    ended = await instance.end(answer)
    assert (ended["type"], ended["finish_reason"]) == ("completion.finished", "interrupted")
    assert (await instance.stored(answer))["text"] == "All of this was seen. "


@pytest.mark.parametrize("continued", [False, True])
async def test_bug_after_an_answer_leaves_the_next_one_alone(
    instance: Instance, model: Model, monkeypatch: pytest.MonkeyPatch, continued: bool
) -> None:
    gate = Gate()
    if continued:
        model.answer("First", Gate(), to="one")
        await instance.send("m1", "one")
        await instance.text_so_far("First")
        await instance.stop()
        await instance.end("m1.a")
        model.answer(" goes on", gate)
        await instance.history.go_on(
            session=SESSION, conversation="c1", message="m1.a", command="x", model="m"
        )
        instance.turns.begin("c1")
    else:
        model.answer("First", gate, to="one")
        await instance.send("m1", "one")
    await instance.until(lambda frames: frames[-1]["type"] == "completion.delta")
    model.answer("Second", to="two")
    await instance.send("m2", "two")
    monkeypatch.setattr(attempt_room, "fold_up_to", lambda *_: 1 / 0)
    gate.open()
    assert (await instance.end("m2.a"))["finish_reason"] == "stop"
    assert (await instance.stored("m2.a"))["text"] == "Second"


async def test_takeovers_do_not_wait_for_a_question_that_nobody_answers(
    start: Start, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await start()
    names = [f"c{number}" for number in range(8)]
    model.answer("Half ", Gate(), times=len(names))
    for name in names:
        await one.send("m1", conversation=name)
    for name in names:
        await one.until(lambda frames: text_of(frames) == "Half ", name)
    monkeypatch.setattr(continuation, "QUESTION_SECONDS", 3600)
    monkeypatch.setattr(continuation.Continuation, "_ask_how", lambda *_: asyncio.Event().wait())
    two = await start()
    await two.until_listening()
    await one.turns.stop()
    for name in names:
        await two.until(lambda frames: types(frames).count("completion.started") == 2, name)


async def test_deleted_conversations_answer_is_stopped_and_all_goes_on(
    instance: Instance, model: Model
) -> None:
    model.answer("Half ", Gate(), to="Delete")
    answer = await instance.send("m1", "Delete me")
    await instance.text_so_far("Half ")
    await instance.conversations.delete(SESSION, "c1")
    await instance.turns.wake_for_stop("c1", answer)
    await (await model.asked()).closed()

    async def ended() -> bool:
        return not (await instance.history.with_turn(["c1"]))[0]

    await eventually(ended, seconds=30, what="its turn ends")
    assert (await instance.end(await instance.send("n1", conversation="c2"), "c2"))["finish_reason"] == "stop"


async def test_conversation_deleted_before_its_answer_began_is_whole_once_restored(
    instance: Instance, model: Model
) -> None:
    await instance.send("m1", begin=False)
    await instance.conversations.delete(SESSION, "c1")
    instance.turns.begin("c1")
    await instance.conversations.restore(SESSION, "c1")
    assert (await instance.end("m1.a"))["finish_reason"] == "stopped"
    branch = await instance.history.read(SESSION, "c1", limit=9, max_bytes=9999)
    assert [message["id"] for message in branch.messages] == ["m1", "m1.a"]
    assert types(await instance.frames()) == ["message.added", "completion.started", "completion.finished"]
    assert model.requests == []


# The store goes away


@pytest.mark.parametrize("way", ["restarted", "frozen", "cut off"])
async def test_nothing_of_an_answer_is_lost_while_the_store_is_away(
    start: Start, fresh_store: Store, model: Model, way: str
) -> None:
    instance = await start(fresh_store.url)
    first, rest = Gate(), Gate()
    model.answer("one ", first, "two ", rest, "three")
    answer = await instance.send("m1")
    await instance.text_so_far("one ")
    if way == "restarted":
        await fresh_store.stop()
        first.open()
        await rest.wait()
        await fresh_store.start()
    elif way == "frozen":
        fresh_store.freeze()
        first.open()
        await rest.wait()
        fresh_store.thaw()
    else:
        first.open()
        async with fresh_store.client() as redis:
            await cut_off(redis)
    rest.open()
    ended = await instance.end(answer)
    frames = await instance.frames()
    assert text_of(frames) == (
        "two three" if way == "restarted" else "one two three"
    )  # of the new epoch, there
    assert ended["digest"] == digest("one two three")
    assert (await instance.stored(answer))["text"] == "one two three"
    assert [frame["at"]["offset"] for frame in frames] == list(range(1, len(frames) + 1))
    assert len(model.requests) == 1


@pytest.mark.parametrize("trouble", ["away", "slow"])
async def test_begun_turn_is_left_to_its_holder_for_a_moment_when_the_store_was_in_trouble(
    instance: Instance, model: Model, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    monkeypatch.setattr(turns_room, "PATIENCE_SECONDS", 3600)
    answer = await instance.send("m1", begin=False)
    lease = await instance.leases.take("c1")
    found = await instance.history.turn("c1")
    assert lease
    assert found
    made = Answer(
        conversation="c1", message=answer, prompt="m1", model="m", created="2026-11-22T10:00:00Z", attempt=1
    )
    await instance.history.begin("c1", lease.fence, 1, made.record(), "", made.started())
    read, bell = instance.history.work, Bell()
    looks, troubled = 0, False

    async def work() -> tuple[list[Work], str]:
        nonlocal looks, troubled
        looks += 1
        bell.ring()
        if trouble == "away" and not troubled:
            troubled = True
            raise Unavailable
        return await read()

    if trouble == "slow":
        monkeypatch.setattr(turns_room, "SLOW_SECONDS", -1)
    monkeypatch.setattr(instance.history, "work", work)
    await bell.until(lambda: looks > 2, seconds=30, what="the watch looked")
    await instance.leases.release(lease)  # as one that ran out meanwhile
    instance.turns.begin("c1")  # as a stop or another prompt does
    seen = looks
    await bell.until(lambda: looks > seen + 6, seconds=20, what="the watch saw the turn that nobody holds")
    assert model.requests == []
    monkeypatch.setattr(turns_room, "SLOW_SECONDS", 3600)
    instance.turns._patient_until = 0
    assert (await instance.end(answer))["finish_reason"] == "stop"
    assert len(model.requests) == 1


async def test_prompt_that_nobody_began_is_answered_at_once_also_when_the_store_was_in_trouble(
    instance: Instance,
) -> None:
    instance.turns._patient_until = float("inf")
    assert (await instance.end(await instance.send("m1")))["finish_reason"] == "stop"


async def cut_off(redis: Redis) -> None:
    """Close everybody's connection but one's own."""
    for kind in ("normal", "pubsub"):
        await redis.client_kill_filter(_type=kind, skipme=True)
