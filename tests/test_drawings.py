"""Shared chats are drawn once, within bounds, and what was drawn is kept for a while."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from llmchat import drawings
from llmchat.drawings import LONGEST, SECONDS, Drawings, draw
from tests.waiting import eventually, within


def answer(text: str) -> dict[str, Any]:
    """Make an answer of a copy."""
    return {"role": "assistant", "text": text, "created": "2026-01-02T03:04:05.000Z", "model": "m"}


def prompt(text: str) -> dict[str, Any]:
    """Make a prompt of a copy."""
    return {"role": "user", "text": text, "created": "2026-01-02T03:04:05.000Z"}


@pytest.fixture
def rendered(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Collect what is rendered."""
    texts: list[str] = []

    def render(text: str) -> list[str]:
        texts.append(text)
        return [f"<p>{text}</p>"]

    monkeypatch.setattr(drawings, "render", render)
    return texts


async def test_copy_is_drawn_once_for_all_who_look(rendered: list[str]) -> None:
    here, copied = Drawings(), [prompt("*Hi*"), answer("One"), answer("Two")]
    views = await asyncio.gather(*(here.of("t1", copied) for _ in range(5)), here.of("t2", copied[:2]))
    assert [[each.get("html") for each in view] for view in views[:5]] == [
        [None, "<p>One</p>", "<p>Two</p>"]
    ] * 5
    assert views[0][0]["text"] == "*Hi*"
    await here.of("t1", copied)
    assert sorted(rendered) == ["One", "One", "Two"]
    here.drop("t1")
    here.drop("t1")
    await here.of("t1", copied)
    assert len(rendered) == 5


async def test_who_goes_away_leaves_the_drawing_to_the_next(rendered: list[str]) -> None:
    here = Drawings()
    first = asyncio.create_task(here.of("t1", [answer("One")]))
    await asyncio.sleep(0)
    first.cancel()
    async with within(5, "it is drawn"):
        await here.of("t1", [answer("One")])
    assert rendered == ["One"]
    assert first.cancelled()


async def test_drawings_are_kept_up_to_so_many_bytes_and_so_long(
    rendered: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drawings, "KEPT_BYTES", 3000)
    here = Drawings()
    for token in ("t1", "t2", "t1", "t3", "t1", "t2"):
        await here.of(token, [answer(f"{token} " + "a" * 1000)])
    assert [text[:2] for text in rendered] == ["t1", "t2", "t3", "t2"]  # the one used least went first
    await here.of("large", [answer("b" * 5000)])
    assert [*here._kept] == []
    assert here._bytes == 0
    monkeypatch.setattr(drawings, "KEPT_SECONDS", 0.0)
    await here.of("t4", [answer("One")])

    async def let_go() -> bool:
        return not here._kept

    await eventually(let_go, seconds=5, what="it is let go of")


def test_drawing_ends_with_its_time_and_what_is_behind_is_shown_as_it_was_written(
    rendered: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drawings, "thread_time", lambda: 0.4 * SECONDS * len(rendered))
    drawn = draw([answer(str(number)) for number in range(9)])
    assert rendered == ["0", "1", "2"]
    assert [each["text"] for each in drawn] == ["", "", "", *"345678"]
    assert ["html" in each for each in drawn] == [True] * 3 + [False] * 6


def test_answer_out_of_proportion_is_shown_as_it_was_written(rendered: list[str]) -> None:
    long = answer("*" * (LONGEST + 1))
    assert draw([long, answer("*" * LONGEST)])[0] == long
    assert len(rendered) == 1
