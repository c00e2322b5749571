"""What a conversation is called, and what the model is sent of it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchat.conversation import (
    ANSWER_TOKENS,
    MAX_CALIBRATION,
    MESSAGE_TOKENS,
    MIN_CALIBRATION,
    PROMPT_SHARE,
    TITLE_CHARACTERS,
    UNTITLED,
    Conversation,
    Turn,
    calibrated,
    context,
    derived_id,
    digest,
    estimated_tokens,
    first_words,
    milliseconds,
    timestamp,
)
from llmchat.events import ID

ANY_TEXT = st.text()
TEXTS = st.one_of(ANY_TEXT, st.text("ab c\n", max_size=600), st.text("世界é", max_size=200))


def user(text: str) -> dict[str, Any]:
    return {"id": "u", "role": "user", "text": text}


def assistant(text: str) -> dict[str, Any]:
    return {"id": "a", "role": "assistant", "text": text}


def contents(system: str, branch: list[dict[str, Any]], tokens: int, calibration: float = 1.0) -> list[str]:
    return [message["content"] for message in context(system, branch, tokens, calibration).messages]


def budget(tokens: int, calibration: float = 1.0) -> int:
    return int((tokens - min(ANSWER_TOKENS, tokens // 4)) / calibration)


def test_prompt_is_never_cut_to_nothing_whatever_the_system_prompt_takes() -> None:
    words = "What shall we do with this? " * 100
    system, newest = contents("s" * 16_000, [user(words)], 8_000, MAX_CALIBRATION)
    assert len(system) == 16_000
    assert len(newest) > 1_500


# Titles


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("Hi", "Hi"),
        ("  What is\n\tthe  capital of France?  ", "What is the capital of France?"),
        ("Какая река протекает через Париж?", "Какая река протекает через Париж?"),
        ("法国的首都是哪里？", "法国的首都是哪里？"),
        ("", UNTITLED),
        (" \n\t\u3000", UNTITLED),
        ("x" * TITLE_CHARACTERS, "x" * TITLE_CHARACTERS),
        ("x" * 500, "x" * TITLE_CHARACTERS + "…"),
        ("世" * 500, "世" * TITLE_CHARACTERS + "…"),
        ("word " * 40, ("word " * 9).strip() + "…"),
        (
            "Explain, please, how the tides of the sea come about, and when",
            "Explain, please, how the tides of the sea come…",
        ),
        ("short " + "x" * 500, "short…"),
    ],
)
def test_title_is_the_first_words_of_a_prompt(text: str, title: str) -> None:
    assert first_words(text) == title


def test_title_drops_the_punctuation_before_its_ellipsis() -> None:
    assert first_words("One, two, three, four, five, six, seven, eight, nine, ten") == (
        "One, two, three, four, five, six, seven, eight…"
    )


def test_title_says_something_when_a_prompt_begins_with_punctuation_only() -> None:
    assert first_words("- " * 60).strip("…")


@given(ANY_TEXT)
def test_title_is_one_short_line_whatever_the_prompt(text: str) -> None:
    title = first_words(text)
    assert title
    assert len(title) <= TITLE_CHARACTERS + 1
    assert title == " ".join(title.split())


# Small things


def test_timestamp_is_in_utc_with_milliseconds() -> None:
    noon = datetime(2026, 11, 22, 12, 0, 0, 1_999, tzinfo=UTC)
    assert timestamp(noon) == "2026-11-22T12:00:00.001Z"
    assert timestamp().endswith("Z")
    assert datetime.now(UTC) - datetime.fromisoformat(timestamp()) < timedelta(minutes=1)


def test_timestamp_sorts_as_time_does_when_seconds_are_whole() -> None:
    assert timestamp(datetime(2026, 1, 1, tzinfo=UTC)) == "2026-01-01T00:00:00.000Z"


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        ("1970-01-01T00:00:01.500Z", 1_500),
        ("1970-01-01T01:00:01+01:00", 1_000),
        ("1970-01-01T00:00:00.123456789Z", 123),
    ],
)
def test_milliseconds_are_those_since_1970(time: str, expected: int) -> None:
    assert milliseconds(time) == expected


@pytest.mark.parametrize(
    "time", ["", "yesterday", "2026-01-01", "20260101T000000Z", "2026-01-01T00:00:00", "2026-13-01T00:00:00Z"]
)
def test_milliseconds_are_of_rfc_3339_times_only(time: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - of two kinds
        milliseconds(time)


def test_derived_id_is_the_same_for_the_same_parts_only() -> None:
    assert derived_id("session", "m1") == derived_id("session", "m1")
    assert len({derived_id("session", "m1"), derived_id("session", "m2"), derived_id("m1", "session")}) == 3
    assert ID.fullmatch(derived_id("session", "m1"))


def test_digest_is_of_the_text_in_utf_8() -> None:
    assert digest("é") == "4a99557e4033c3539de2eb65472017cad5f9557f7a0625a09f1c3f6e2ba69c4c"


def test_conversation_is_listed_as_the_protocol_shapes_it() -> None:
    conversation = Conversation("c1", "Greeting", "e", 3, "m2", "created", "updated")
    assert conversation.at == {"epoch": "e", "offset": 3}
    assert conversation.listed(["gpt-4o-mini", "gpt-4o"]) == {
        "id": "c1",
        "title": "Greeting",
        "created": "created",
        "updated": "updated",
        "pinned": False,
        "archived": False,
        "running": False,
        "unread": False,
        "model": "gpt-4o-mini",
    }


def test_conversation_is_listed_as_running_with_its_own_model_when_it_has_a_turn() -> None:
    turn = Turn("m2", "m1", "small", 1)
    conversation = Conversation("c1", "", "e", 3, "m2", "", "", model="small", turn=turn)
    listed = conversation.listed(["gpt-4o-mini", "small"])
    assert listed["running"] is True
    assert listed["model"] == "small"
    json.dumps(listed)


def test_conversation_is_listed_with_the_first_model_when_its_own_is_not_on_offer_any_more() -> None:
    conversation = Conversation("c1", "", "e", 3, "m2", "", "", model="old")
    assert conversation.listed(["new", "small"])["model"] == "new"


# Tokens


@pytest.mark.parametrize(
    ("text", "tokens"), [("", 0), ("a", 1), ("abcd", 1), ("abcde", 2), ("世界", 2), ("abcd世", 2), ("é", 1)]
)
def test_tokens_are_estimated_by_script(text: str, tokens: int) -> None:
    assert estimated_tokens(text) == tokens


@given(ANY_TEXT, ANY_TEXT)
def test_longer_text_is_never_estimated_at_fewer_tokens(text: str, more: str) -> None:
    assert estimated_tokens(text) <= estimated_tokens(text + more)
    assert estimated_tokens(text + more) <= estimated_tokens(text) + estimated_tokens(more)


# The context


def test_context_has_the_system_prompt_first_then_the_branch_in_order() -> None:
    chosen = context("Be kind.", [user("Hi"), assistant("Hello"), user("Bye")], 1_000)
    assert chosen.messages == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "Bye"},
    ]
    assert chosen.estimate == 2 + 1 + 2 + 1 + 4 * MESSAGE_TOKENS


def test_context_has_no_system_message_when_there_is_no_system_prompt() -> None:
    assert context("", [user("Hi")], 1_000).messages == [{"role": "user", "content": "Hi"}]


def test_context_has_the_newest_messages_that_fit() -> None:
    branch = [user(f"{n:04}" * 40) if n % 2 == 0 else assistant(f"{n:04}" * 40) for n in range(101)]
    chosen = contents("Be kind.", branch, 1_000)  # 750 for 46 a message
    assert chosen == ["Be kind.", *(message["text"] for message in branch[-15:])]


def test_context_begins_with_a_prompt_when_the_answer_before_it_would_fit() -> None:
    branch = [user("x" * 4_000), assistant("Short."), user("And now?")]
    assert contents("", branch, 1_000) == ["And now?"]


def test_context_leaves_out_answers_that_failed_without_a_text() -> None:
    branch = [user("Hi"), assistant(""), user("Hello?")]
    assert contents("", branch, 1_000) == ["Hi", "Hello?"]


def test_context_has_no_older_message_in_place_of_one_that_is_too_long() -> None:
    branch = [user("First."), assistant("x" * 4_000), user("Last?")]
    assert contents("", branch, 1_000) == ["Last?"]


@pytest.mark.parametrize("filling", ["x", "世", "word "])
def test_context_keeps_beginning_and_end_of_a_newest_message_that_is_too_long(filling: str) -> None:
    text = "The question: " + filling * 5_000 + " That was it."
    [system, shortened] = contents("Be kind.", [user("Old"), user(text)], 1_000)
    assert system == "Be kind."
    beginning, mark, end = shortened.partition("\n[…]\n")
    assert mark
    assert beginning.startswith("The question: ")
    assert end.endswith(" That was it.")
    assert text.startswith(beginning)
    assert text.endswith(end)
    assert estimated_tokens(shortened) > (budget(1_000) - 20) * 0.8  # and not more is lost than must be


def test_context_has_the_newest_message_and_the_system_prompt_when_that_fills_the_budget() -> None:
    system, newest = contents("s" * 4_000, [user("Old"), user("What now? Tell me.")], 256)
    assert system == "s" * 4_000
    assert newest.startswith("W")


def test_context_leaves_room_for_the_answer() -> None:
    small = context("", [user("x" * 100_000)], 1_000)
    large = context("", [user("x" * 1_000_000)], 100_000)
    assert small.estimate <= 750
    assert 90_000 < large.estimate <= 100_000 - ANSWER_TOKENS


def test_context_is_smaller_when_the_provider_counts_more_tokens() -> None:
    branch = [user("x" * 400) for _ in range(20)]
    lengths = [len(contents("", branch, 1_000, calibration)) for calibration in (0.5, 1.0, 2.0)]
    assert lengths == [14, 7, 3]


@pytest.mark.parametrize(
    ("estimate", "counted", "calibration"),
    [
        (100, 150, 1.5),
        (100, 1, MIN_CALIBRATION),
        (1, 100, MAX_CALIBRATION),
        (100, 0, 1.2),
        (0, 100, 1.2),
    ],
)
def test_calibration_follows_the_figures_within_bounds(
    estimate: int, counted: int, calibration: float
) -> None:
    assert calibrated(1.2, estimate, counted) == calibration


BRANCHES = st.lists(st.tuples(st.sampled_from(["user", "assistant"]), TEXTS), max_size=12).map(
    lambda branch: [{"role": role, "text": text} for role, text in branch]
)


@given(
    st.text(max_size=20),
    BRANCHES,
    TEXTS.filter(bool),
    st.integers(256, 1_200),
    st.floats(MIN_CALIBRATION, MAX_CALIBRATION),
)
def test_context_fits_and_is_the_end_of_the_branch(
    system: str, older: list[dict[str, Any]], newest: str, tokens: int, calibration: float
) -> None:
    branch = [*older, user(newest)]
    chosen = context(system, branch, tokens, calibration)
    costs = [estimated_tokens(message["content"]) + MESSAGE_TOKENS for message in chosen.messages]
    assert chosen.estimate == sum(costs)
    at_least = costs[-1] <= tokens // PROMPT_SHARE + MESSAGE_TOKENS and len(costs) == 1 + bool(system)
    assert chosen.estimate <= budget(tokens, calibration) or at_least
    messages = chosen.messages
    if system:
        assert messages[0] == {"role": "system", "content": system}
        messages = messages[1:]
    assert messages[0]["role"] == messages[-1]["role"] == "user"
    told = [{"role": message["role"], "content": message["text"]} for message in branch if message["text"]]
    if len(messages) > 1 or messages[-1] == told[-1]:
        assert messages == told[-len(messages) :]
    else:
        beginning, _, end = messages[-1]["content"].partition("\n[…]\n")
        assert beginning
        assert newest.startswith(beginning)
        assert newest.endswith(end)
