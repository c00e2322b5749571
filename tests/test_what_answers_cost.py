"""What a person is told, and what becomes of an answer, where limits are met: tokens of a day, answers at once, too much to do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import pytest

from llmchat.answering import Place
from llmchat.history import History
from llmchat.settings import Settings
from llmchat.spending import ALL, PIECE
from tests.fakes import Failure, Gate, Model
from tests.house import NOON, FakeSocket, House
from tests.instances import Store
from tests.waiting import eventually

TODAY = NOON.date().isoformat()
Open = Callable[..., Awaitable[House]]


@pytest.fixture
async def open_house(store: Store, settings: Settings) -> AsyncIterator[Open]:
    async with AsyncExitStack() as leaving:

        async def made(**values: Any) -> House:
            return await leaving.enter_async_context(House(store.url, replace(settings, **values)))

        yield made


async def spent(house: House, who: str) -> int:
    return int(await house.redis.get(house.keys.spent(TODAY, who)) or 0)


async def set_spent(house: House, who: str, tokens: int) -> None:
    await house.redis.set(house.keys.spent(TODAY, who), tokens)


async def prompted(tab: FakeSocket, name: str, **more: str) -> dict[str, Any]:
    """Send a prompt, and give what it is answered with at once."""
    return await tab.ask(type="message.send", id=name, text=f"Prompt {name}", **more)


async def nothing_is_answered(house: House, session: str = "alice") -> None:
    async def look() -> bool:
        return not await house.redis.exists(house.keys.answering(session))

    await eventually(look, seconds=30, what="no chat is counted as answered")


# The tokens of a day


async def test_prompt_longer_than_the_context_wants_no_more_than_the_context_has(
    open_house: Open, model: Model
) -> None:
    house = await open_house(tokens_per_day=8000 + PIECE, context_tokens=8000)
    model.answer("Hello", usage={"prompt_tokens": 70, "completion_tokens": 7})
    tab = await house.connect()
    accepted = await tab.ask(type="message.send", id="long", text="語" * 9000)
    assert accepted["type"] == "message.accepted"
    await tab.a("completion.finished")


async def test_answer_pays_what_the_provider_counts_of_the_session_its_address_and_all(
    open_house: Open, model: Model
) -> None:
    house = await open_house(tokens_per_day=10_000, tokens_per_day_in_all=50_000)
    model.answer("Hello", usage={"prompt_tokens": 70, "completion_tokens": 7})
    tab = await house.connect()
    assert (await prompted(tab, "one"))["type"] == "message.accepted"
    await tab.a("completion.finished")
    network = house.answering.network("127.0.0.1")
    assert [await spent(house, who) for who in ("alice", network, ALL)] == [77, 77, 77]


async def test_prompt_without_tokens_is_refused_with_the_time_there_are_new_ones_and_stores_nothing(
    open_house: Open, model: Model
) -> None:
    house = await open_house(tokens_per_day=10_000)
    await set_spent(house, "alice", 9800)
    tab = await house.connect()
    refused = await prompted(tab, "one")
    assert (refused["type"], refused["code"]) == ("error", "quota")
    assert refused["retry_after"] == 12 * 3600
    assert refused["detail"] == (
        "Your tokens for today are used up, or too few for this. There are new ones in 12 hours."
    )
    assert await spent(house, "alice") == 9800
    assert (
        await house.conversations.listed(
            "alice", before_ms=None, limit=10, query="", pinned=None, archived=None
        )
    )[0] == []
    assert not model.requests
    await set_spent(house, "alice", 0)
    assert (await prompted(tab, "one"))["type"] == "message.accepted"


async def test_answer_ends_where_the_tokens_end_and_what_was_said_stays(
    open_house: Open, model: Model
) -> None:
    house = await open_house(tokens_per_day=3 * PIECE)
    model.answer(*["word " * 100] * 30, Gate(), "never said")
    tab = await house.connect()
    await prompted(tab, "one")
    ended = await tab.a("completion.finished")
    await (await model.asked()).closed()
    assert ended["finish_reason"] == "length"
    text = "".join(event["text"] for event in tab.sent if event["type"] == "completion.delta")
    assert text.startswith("word " * 100)
    assert "never" not in text
    assert await spent(house, "alice") >= 2 * PIECE
    continued = await tab.ask(
        type="completion.continue", conversation=ended["conversation"], message=ended["message"]
    )
    assert (continued["type"], continued["code"]) == ("error", "quota")
    again = await tab.ask(
        type="completion.regenerate", conversation=ended["conversation"], message=ended["message"]
    )
    assert (again["type"], again["code"]) == ("error", "quota")


async def test_answer_for_whose_context_too_little_is_left_fails_and_can_be_had_again_later(
    open_house: Open, model: Model
) -> None:
    house = await open_house(tokens_per_day=10_000, system_prompt="word " * 4000)
    await set_spent(house, "alice", 7000)
    tab = await house.connect()
    await prompted(tab, "one")
    failed = await tab.a("completion.failed")
    assert (failed["code"], failed["retryable"]) == ("quota", True)
    assert failed["retry_after"] > 0
    assert not model.requests
    assert await spent(house, "alice") == 7000
    await set_spent(house, "alice", 0)
    model.answer("Here")
    tab.say(type="completion.regenerate", conversation=failed["conversation"], message=failed["message"])
    assert (await tab.a("completion.finished"))["finish_reason"] == "stop"


async def test_request_that_fails_before_a_word_costs_nothing(open_house: Open, model: Model) -> None:
    house = await open_house(tokens_per_day=10_000)
    model.refuse(400)
    tab = await house.connect()
    await prompted(tab, "one")
    await tab.a("completion.failed")
    assert await spent(house, "alice") == 0


async def test_stopped_answer_pays_what_was_said(open_house: Open, model: Model) -> None:
    house = await open_house(tokens_per_day=10_000)
    model.answer("word " * 400, Gate(), "never said")
    tab = await house.connect()
    accepted = await prompted(tab, "one")
    await tab.a("completion.delta")
    tab.say(type="completion.stop", conversation=accepted["conversation"])
    assert (await tab.a("completion.finished"))["finish_reason"] == "stopped"
    assert 500 <= await spent(house, "alice") <= 1000


async def test_title_is_paid_by_the_address_too(open_house: Open, model: Model) -> None:
    house = await open_house(tokens_per_day=10_000, title_model="")
    model.answer("Hello", usage={"prompt_tokens": 700, "completion_tokens": 300})
    tab = await house.connect()
    await prompted(tab, "one")
    await tab.a("completion.finished")
    network = house.answering.network("127.0.0.1")

    async def title_is_paid() -> bool:
        return await spent(house, network) > 1000 and not house.titles._running

    await eventually(title_is_paid, seconds=30, what="the title is paid")
    assert await spent(house, network) == await spent(house, "alice")


async def test_titles_and_further_sessions_are_paid_by_all(open_house: Open, model: Model) -> None:
    house = await open_house(tokens_per_day_in_all=3000, title_model="")
    for session in ("alice", "bob"):
        model.answer("Hello", usage={"prompt_tokens": 700, "completion_tokens": 300})
        tab = await house.connect(session)
        await prompted(tab, session)
        await tab.a("completion.finished")

    async def titles_paid() -> bool:
        return await spent(house, ALL) > 2000 and not house.titles._running

    await eventually(titles_paid, seconds=30, what="the titles are paid")
    await set_spent(house, ALL, 2800)
    refused = await prompted(await house.connect("carol"), "carol")
    assert refused["detail"].startswith("This server's tokens for today are used up")


# Answers at once


async def test_further_chat_waits_until_one_of_those_that_are_answered_has_ended(
    open_house: Open, model: Model
) -> None:
    house = await open_house(answers_at_once=2)
    gates = [Gate(), Gate()]
    for number, gate in enumerate(gates):
        model.answer("Said", gate, to=f"Prompt {number}")
    tab = await house.connect()
    for number in range(2):
        assert (await prompted(tab, str(number)))["type"] == "message.accepted"
    refused = await prompted(tab, "2")
    assert (refused["code"], refused["retry_after"]) == ("rate_limited", 5)
    gates[0].open()
    await tab.a("completion.finished")

    async def taken() -> bool:
        return (await prompted(tab, "2"))["type"] == "message.accepted"

    await eventually(taken, seconds=30, what="the prompt is taken")
    gates[1].open()
    await nothing_is_answered(house)


async def test_prompts_that_wait_in_a_chat_are_counted_with_it(open_house: Open, model: Model) -> None:
    house = await open_house(answers_at_once=1)
    gate = Gate()
    model.answer("Said", gate, to="Prompt 0")
    tab = await house.connect()
    chat = (await prompted(tab, "0"))["conversation"]
    await tab.a("completion.started")
    for name in ("1", "2"):
        assert (await prompted(tab, name, conversation=chat))["type"] == "message.accepted"
    assert (await prompted(tab, "3"))["code"] == "rate_limited"
    gate.open()
    await nothing_is_answered(house)
    assert len([event for event in tab.sent if event["type"] == "completion.finished"]) == 3


async def test_prompt_that_comes_while_its_chat_is_struck_off_is_counted(
    open_house: Open, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = await open_house(answers_at_once=1)
    gate, leave = Gate(), Place.leave
    model.answer("Said", to="Prompt 0")
    model.answer("Said", gate, to="Prompt 1")
    tab, coming, last = await house.connect(), ["1"], {}

    async def left(place: Place) -> None:
        while coming:
            last.update(await prompted(tab, coming.pop(), conversation=place._conversation))
        await leave(place)

    monkeypatch.setattr(Place, "leave", left)
    await prompted(tab, "0")
    await tab.until(
        lambda event: event["type"] == "completion.started" and event["parent"] == last.get("message")
    )
    assert (await prompted(tab, "2"))["code"] == "rate_limited"
    gate.open()
    await nothing_is_answered(house)


async def test_prompt_that_is_stored_after_its_chat_was_struck_off_is_counted(
    open_house: Open, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = await open_house(answers_at_once=1)
    first, second, stored, send = Gate(), Gate(), Gate(), History.send
    model.answer("Said", first, to="Prompt 0")
    model.answer("Said", second, to="Prompt 1")

    async def sent(history: History, **fields: Any) -> Any:
        if fields["text"] == "Prompt 1":
            stored.reached.set()
            await stored.opened()
        return await send(history, **fields)

    monkeypatch.setattr(History, "send", sent)
    tab = await house.connect()
    chat = (await prompted(tab, "0"))["conversation"]
    await tab.a("completion.started")
    late = asyncio.create_task(prompted(tab, "1", conversation=chat))
    await stored.wait()
    first.open()
    await nothing_is_answered(house)
    stored.open()
    assert (await late)["type"] == "message.accepted"
    assert (await prompted(await house.connect(), "2"))["code"] == "rate_limited"
    second.open()
    await nothing_is_answered(house)


@pytest.mark.parametrize("step", [Failure(500, "away"), None], ids=["fails", "is deleted"])
async def test_chat_whose_answer_comes_to_nothing_is_counted_no_more(
    open_house: Open, model: Model, step: Any
) -> None:
    house = await open_house(answers_at_once=1)
    if step is None:
        model.hang()
    else:
        model.refuse(400)
    tab = await house.connect()
    chat = (await prompted(tab, "0"))["conversation"]
    if step is None:
        await model.asked()
        await tab.ask(type="conversation.delete", conversation=chat)
    await nothing_is_answered(house)
    assert (await prompted(tab, "1"))["type"] == "message.accepted"


async def test_prompt_that_is_refused_for_another_reason_is_not_counted(
    open_house: Open, model: Model
) -> None:
    house = await open_house(answers_at_once=1)
    tab = await house.connect()
    refused = await prompted(tab, "0", conversation="nobodys")
    assert refused["code"] == "not_found"
    await house.leave_turn("c1")
    refused = await tab.ask(type="message.send", id="1", text="Again", conversation="c1", parent="m1")
    assert refused["type"] == "error"
    await nothing_is_answered(house)


# Too much to do


async def test_instance_that_makes_as_many_answers_as_it_may_refuses_further_ones_for_a_moment(
    open_house: Open, model: Model
) -> None:
    house = await open_house(answers_per_instance=2, answers_at_once=0)
    gate = Gate()
    model.answer("Said", gate, to="Prompt", times=2)
    tab = await house.connect()
    answers = await asyncio.gather(*(prompted(tab, str(number)) for number in range(3)))
    (refused,) = [event for event in answers if event["type"] == "error"]
    assert refused["code"] == "busy"
    assert 2 <= refused["retry_after"] <= 5
    assert refused["detail"].startswith("The server has very much to do just now. Try again in ")
    gate.open()

    async def taken() -> bool:
        return (await prompted(tab, "2"))["type"] == "message.accepted"

    await eventually(taken, seconds=30, what="the prompt is taken")


async def test_instance_under_pressure_refuses_prompts_and_carries_out_what_it_took(
    open_house: Open, model: Model
) -> None:
    house = await open_house()
    gate = Gate()
    model.answer("Said", gate, " all")
    tab = await house.connect()
    chat = (await prompted(tab, "0"))["conversation"]
    await tab.a("completion.delta")
    house.pressure.high = True
    for command in (
        {"type": "message.send", "text": "More"},
        {"type": "completion.regenerate", "conversation": chat, "message": "m"},
        {"type": "completion.continue", "conversation": chat, "message": "m"},
    ):
        assert (await tab.ask(**command))["code"] == "busy"
    gate.open()
    assert (await tab.a("completion.finished"))["finish_reason"] == "stop"
    house.pressure.high = False
    assert (await prompted(tab, "1"))["type"] == "message.accepted"


async def test_many_at_once_on_two_instances_keep_to_the_budget_together(
    open_house: Open, model: Model
) -> None:
    budget, used = 12_000, 405
    one, two = [await open_house(tokens_per_day_in_all=budget, answers_at_once=0) for _ in range(2)]
    two.spending._keys = one.keys
    usage = {"prompt_tokens": 30, "completion_tokens": used - 30}
    model.answer(*["word " * 100] * 3, usage=usage, to="Prompt", times=100)
    tabs = [await house.connect(f"s{number}") for house in (one, two) for number in range(20)]
    answers = await asyncio.gather(*(prompted(tab, f"p{number}") for number, tab in enumerate(tabs)))
    taken = [tab for tab, event in zip(tabs, answers, strict=True) if event["type"] == "message.accepted"]
    assert {event["code"] for event in answers if event["type"] == "error"} <= {"quota"}
    finished = 0
    for tab in taken:
        ended = await tab.until(lambda event: event["type"] in ("completion.finished", "completion.failed"))
        assert ended.get("code", "quota") == "quota"
        finished += ended["type"] == "completion.finished"
    assert 0 < finished < len(tabs)
    assert await spent(one, ALL) == finished * used <= budget
