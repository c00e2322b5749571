"""Titles: what is left of what a model says, and what never stands in one."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchat.conversation import UNTITLED, first_words
from llmchat.title import EXCERPT_CHARACTERS, JOINERS, MOST_CHARACTERS, has_word, one_line, question, title_of

LONG = "How the first railways of the north changed what people ate in winter and why"


@pytest.mark.parametrize(
    ("said", "title"),
    [
        ("Rainbows in Simple Words", "Rainbows in Simple Words"),
        ('"Rainbows, explained."', "Rainbows, explained"),
        ("**Title:** Rainbows", "Rainbows"),
        ("Title: **“Rainbows”**.", "Rainbows"),
        ("# Rainbows\n\nThis title says it all.", "Rainbows"),
        ("\n\n- *Rainbows*\n", "Rainbows"),
        ("1. Rainbows", "Rainbows"),
        ("Chat title: Why 2 + 2 = 4?", "Why 2 + 2 = 4?"),
        ("Titel: »Regenbögen«", "Regenbögen"),
        ("标题：《彩虹是怎么形成的》。", "彩虹是怎么形成的"),
        ("タイトル：「虹のしくみ」", "虹のしくみ"),
        ("شرح قوس قزح", "شرح قوس قزح"),
        ("<think>They ask of rain.\nShort.</think>\n\nRainbows", "Rainbows"),
        ("They ask of rain.</think>Rainbows", "Rainbows"),
        ("<think>They ask of rain, and then", ""),
        ("```\nRainbows\n```", "Rainbows"),
        ("[Rainbows](http://example.com) `now`", "Rainbows now"),
        ("Rain\u202ebows\u2066\u200f \x00\x1b[2J", "Rainbows [2J"),
        ("👩\u200d🚀 Life in Space", "👩\u200d🚀 Life in Space"),
        ("snake_case in Python", "snake_case in Python"),
        ("C++ and C#", "C++ and C#"),
        ("Wait…", "Wait…"),
        (LONG, "How the first railways of the north changed what people ate…"),
        ("x" * 80, "x" * (MOST_CHARACTERS - 1) + "…"),
        ("", ""),
        (" \n ", ""),
        ("Title:", ""),
        ('""', ""),
        ("…", ""),
        ("\u3164\u200f", ""),
        ("I am sorry, but " * 20, ""),
    ],
)
def test_title_is_what_a_model_means_by_it(said: str, title: str) -> None:
    assert title_of(said) == title


ANYTHING = st.text() | st.text(alphabet='"*_`#>-.:… \n\u202e\u200dTitle<think></think>“”«»(a1)')


@given(ANYTHING)
def test_title_is_one_short_line_of_what_can_be_seen_whatever_was_said(said: str) -> None:
    title = title_of(said)
    assert len(title) <= MOST_CHARACTERS
    assert title == one_line(title)
    assert title == "" or has_word(title)
    assert title_of(title) == title


@given(st.text())
def test_line_of_a_title_has_nothing_that_moves_or_hides_others(text: str) -> None:
    for line in (one_line(text), first_words(text)):
        kinds = {unicodedata.category(each) for each in line if each not in JOINERS}
        assert not kinds & {"Cc", "Cf", "Cs", "Zl", "Zp"}
        assert line == line.strip()


def test_first_words_have_no_override_and_are_never_invisible() -> None:
    assert first_words("photo\u202egnp.exe") == "photognp.exe"
    assert first_words("\u202e\u3164\u2800") == UNTITLED


def test_question_for_a_title_is_short_however_much_was_said() -> None:
    system, user = question("p" * 10_000, "a" * 10_000)
    assert system["role"] == "system"
    assert "p" * EXCERPT_CHARACTERS in user["content"]
    assert len(system["content"]) + len(user["content"]) < 2 * EXCERPT_CHARACTERS + 400
