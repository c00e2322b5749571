"""What is folded, and with which words: pure."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from llmchat.conversation import Summary, estimated_tokens
from llmchat.summary import (
    FOLDED,
    HEADING,
    LEFT,
    SENT_SHARE,
    cost,
    first_to_fold,
    fold_up_to,
    most_characters,
    question,
    with_summary,
)

SIZES = st.lists(st.integers(0, 900), min_size=1, max_size=60)


def branch(sizes: list[int], letter: str = "x") -> list[dict[str, Any]]:
    """Prompts and answers in turn, of so many characters."""
    return [
        {"id": f"m{index}", "role": ("user", "assistant")[index % 2], "text": letter * size}
        for index, size in enumerate(sizes)
    ]


def test_nothing_is_folded_while_half_of_the_budget_is_left() -> None:
    assert fold_up_to(branch([40] * 10), 1000) is None


@given(SIZES, st.integers(100, 4000))
def test_what_is_left_begins_with_a_prompt_and_takes_a_quarter_at_least(
    sizes: list[int], budget: int
) -> None:
    messages = branch(sizes)
    up_to = fold_up_to(messages, budget)
    if up_to is not None:
        index = [message["id"] for message in messages].index(up_to)
        assert messages[index]["role"] == "assistant"
        assert sum(map(cost, messages[index + 1 :])) >= budget * LEFT


@given(SIZES, st.integers(256, 8000), st.floats(0.5, 8))
def test_what_is_folded_at_once_is_the_oldest_and_fits(
    sizes: list[int], context_tokens: int, calibration: float
) -> None:
    messages = branch(sizes)
    folded = first_to_fold(messages, context_tokens, calibration)
    assert folded
    assert folded == messages[: len(folded)]
    exchanges = [message for message in folded if message["role"] == "assistant"]
    if len(exchanges) > 1:
        assert sum(map(cost, folded)) <= context_tokens * FOLDED / calibration


@given(st.sampled_from("xä漢"), st.integers(1000, 16000))
def test_question_fits_the_context_however_long_the_messages_are(letter: str, context_tokens: int) -> None:
    messages = branch([60_000, 60_000], letter)
    asked = question(letter * 8000, messages, context_tokens, 1.0)
    assert sum(estimated_tokens(message["content"]) for message in asked) <= context_tokens * 0.95


def test_question_has_the_summary_so_far_before_the_messages() -> None:
    asked = question("They like tea.", branch([5, 5]), 8000, 1.0)
    assert [message["role"] for message in asked] == ["system", "user"]
    assert asked[1]["content"].index("They like tea.") < asked[1]["content"].index("User: xxxxx")
    assert "Assistant: xxxxx" in asked[1]["content"]


def test_summary_stands_in_the_system_prompt_under_its_heading() -> None:
    summary = Summary("m1", "They like tea.", 2, "t")
    assert with_summary("Be kind.", summary, 8000, 1.0) == f"Be kind.\n\n{HEADING}\nThey like tea."
    assert with_summary("", summary, 8000, 1.0) == f"{HEADING}\nThey like tea."
    assert with_summary("Be kind.", None, 8000, 1.0) == "Be kind."
    assert with_summary("Be kind.", Summary("m1", "", 2, "t"), 8000, 1.0) == "Be kind."


def test_summary_that_a_person_made_long_is_sent_with_its_beginning_and_its_end() -> None:
    sent = with_summary("", Summary("m1", "a" * 4000 + "z" * 4000, 2, "t"), 1000, 1.0)
    assert estimated_tokens(sent) <= 1000 / SENT_SHARE + estimated_tokens(HEADING) + 1
    assert sent.endswith("z")


def test_summary_of_a_model_is_bounded() -> None:
    assert most_characters(8000) == most_characters(100_000) == 4000
    assert most_characters(1000) == 500
