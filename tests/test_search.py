"""Words are found in texts of any script, and what is shown of a text is a part of it that was found."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from llmchat import search
from llmchat.blueprints.search import text_fragment
from llmchat.search import AFTER, BEFORE, MOST_MARKS, Query, fold, units

# Letters that fold to several, marks that stand alone, what joins, turns or is not seen, and anything else.
TRICKY = (
    "ßİıŉǰΐᾳͅςﬁĳÅÅéẹ́カガｶﾞ゙각가각한ﾡㅏनि़்ொেো\u00ad\u200b\u200d\u202e\u2066\ufeff\0\u0301\u0344👩🏽💻🇩🇪️ ´\u3000"
)
TEXTS = st.text(st.one_of(st.sampled_from(TRICKY), st.characters(codec="utf-8")), max_size=30)


def words_of(typed: str) -> list[str]:
    """Give the words that are looked for: controls and quotation marks are none."""
    return fold(re.sub(r'[\x00-\x1f\x7f-\x9f"]', " ", typed)).split()


@given(TEXTS)
def test_fold_of_a_text_is_that_of_its_units(text: str) -> None:
    assert "".join(units(text)) == text
    assert "".join(map(fold, units(text))) == fold(text)
    assert fold(fold(text)) == fold(text)


@given(TEXTS, st.data())
def test_text_finds_what_is_cut_out_of_it(text: str, data: st.DataObject) -> None:
    parts = list(units(text))
    start = data.draw(st.integers(0, len(parts)))
    part = "".join(parts[start : data.draw(st.integers(start, len(parts)))])
    assume(words_of(part))
    assert Query.read(part.replace('"', " ")).matches(text)


@given(TEXTS, TEXTS)
def test_what_is_found_has_every_word(typed: str, text: str) -> None:
    assume(words_of(typed))
    has = all(word in fold(text) for word in words_of(typed))
    assert Query.read(typed.replace('"', " ")).matches(text) == has


@given(TEXTS, TEXTS, TEXTS)
def test_hit_of_a_snippet_has_the_word_and_is_no_longer_than_it_must(
    before: str, word: str, after: str
) -> None:
    words = words_of(word)
    text = f"{before} {word} {after}"
    assume(len(words) == 1 and Query.read(words[0]).matches(text))
    hit = Query.read(words[0]).snippet(text).hit
    assert words[0] in fold(hit)
    parts = [part for part in units(hit) if fold(part)]
    assert words[0] not in fold("".join(parts[1:]))
    assert words[0] not in fold("".join(parts[:-1]))


@given(TEXTS, st.text("ab ßéक्", min_size=0, max_size=5000), st.sampled_from(["needle", "Straße", "कि", "が"]))
def test_snippet_is_short_and_has_nothing_that_turns_or_breaks_it(tail: str, text: str, word: str) -> None:
    snippet = Query.read(word).snippet(f"{text} {word} {tail}")
    shown = snippet.before + snippet.hit + snippet.after
    assert len(shown) <= BEFORE + AFTER + 60
    assert not set(shown) & set("\0\n\t\u202e\u2066")
    assert "  " not in snippet.before


@pytest.mark.parametrize(
    ("typed", "text", "hit"),
    [
        ("strasse", "Die Straße", "Straße"),
        ("STRASSE", "die straße", "straße"),
        ("cafe", "Le Cafe\u0301 noir", "Cafe\u0301"),
        ("ＡＢＣ", "an abc", "abc"),
        ("カフェ", "ｶﾌｪに行く", "ｶﾌｪ"),
        ("كتاب", "قرأت الكتاب", "كتاب"),
        ("محمد", "قال مُحَمَّد ذلك", "مُحَمَّد"),
        ("القراءة", "هي القِراءَةُ هنا", "القِراءَةُ"),
        ("ابراهيم", "إلى إبراهيم اليوم", "إبراهيم"),
        ("القرآن", "من القران", "القران"),
        ("رحيم", "الرحـــيم", "رحـــيم"),
        ("مُحَمَّد", "محمد", "محمد"),
        ("שלום", "ואמר שָׁלוֹם לך", "שָׁלוֹם"),
        ("елка", "Ёлка", "Ёлка"),
        ("ΣΊΣΥΦΟΣ", "ο σίσυφος", "σίσυφος"),
        ("cooperate", "co\u00adoperate", "co\u00adoperate"),
        ("한국", "대한국어", "한국"),
        ('"a big cat"', "It is a  big\ncat.", "a big cat"),
        ("fi", "ofﬁce", "ﬁ"),
        ("big small", "small things are not big", "small"),
    ],
)
def test_word_is_found_in_another_form(typed: str, text: str, hit: str) -> None:
    assert Query.read(typed).matches(text)
    assert Query.read(typed).snippet(text).hit == hit


@pytest.mark.parametrize(
    ("typed", "text"),
    [
        ("か", "が"),
        ("कि", "का"),
        ("กา", "กี"),
        ("فتح", "فتخ"),
        ("cat dog", "a cat"),
        ('"big cat"', "big, cat"),
    ],
)
def test_other_words_are_not_found(typed: str, text: str) -> None:
    assert not Query.read(typed).matches(text)


HEAPS = [
    "a" + "\u0301\u0316" * 5000,
    "a" + "\u0344" * 5000,
    "\u0915\u093c" + "\u1dc0\u1dc2" * 5000,
    "\u0915" + ("\u1dc0\u1dc2" * 14 + "\u200b") * 300,
    "\u0628" + ("\u1dc0\u1dc2" * 14 + "\u0640") * 300,
    "\u0628" + ("\u1dc0\u1dc2" * 14 + "\u034f") * 300,
    "x" + "".join(map(chr, range(0x1DC0, 0x1DF0))) * 100,
]


@pytest.mark.parametrize("heap", HEAPS)
def test_marks_heaped_on_a_letter_are_put_in_order_a_few_at_once(
    heap: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[int] = []

    class Unicode:
        combining, category = unicodedata.combining, unicodedata.category

        @staticmethod
        def normalize(form: Any, text: str) -> str:
            marks = 0
            for character in map(unicodedata.combining, text):
                marks = marks + 1 if character else 0
                runs.append(marks)
            return unicodedata.normalize(form, text)

    monkeypatch.setattr(search, "unicodedata", Unicode)
    text = f"before {heap} needle {heap[:-40]}"
    assert Query.read("needle").snippet(text).hit == "needle"
    assert Query.read(heap).matches(text)
    assert len(Query.read(heap).snippet(text).hit) < 10_000
    assert fold(fold(text)) == fold(text)
    assert fold(text) == "".join(map(fold, units(text)))
    assert max(runs) <= MOST_MARKS + 4


@given(
    st.text(st.sampled_from("a\u0915\u093c\u0301\u0344\u1dc0\u1dc2\u200b\u0640\u034f\u0345!"), max_size=120)
)
def test_fold_of_many_marks_is_that_of_its_units(text: str) -> None:
    assert "".join(map(fold, units(text))) == fold(text)
    assert fold(fold(text)) == fold(search.bounded(text)) == fold(text)


@pytest.mark.parametrize("typed", ["", "  ", "\u200b", '""', "\u0301"])
def test_query_without_a_word_is_none(typed: str) -> None:
    with pytest.raises(ValueError, match="no word"):
        Query.read(typed)


def test_snippet_begins_and_ends_with_whole_words() -> None:
    text = "one two three four five six seven eight nine ten eleven needle " + "after that " * 30
    snippet = Query.read("needle").snippet(text)
    assert snippet.before == "…five six seven eight nine ten eleven "
    assert snippet.after.startswith(" after that after")
    assert snippet.after.endswith("that…") or snippet.after.endswith("after…")


def test_snippet_cuts_no_family_in_two() -> None:
    family = "👩🏽‍👩🏽‍👧"
    snippet = Query.read("needle").snippet(family * 20 + "needle" + family * 40)
    for part in (snippet.before.strip("…"), snippet.after.strip("…")):
        assert set(part.split(family)) == {""}
        assert part


def test_snippet_has_nothing_that_turns_what_stands_behind_it() -> None:
    snippet = Query.read("needle").snippet("left \u202eright\u2066 needle\u202d\0 end")
    assert snippet.before + snippet.hit + snippet.after == "left right needle end"


@pytest.mark.parametrize("filler", ["plain words. ", "gr\u00fc\u00dfe \u1109\u1161 ", "\u0915\u093f\u304c"])
def test_word_far_down_in_a_long_text_is_found_where_it_is(filler: str) -> None:
    text = filler * 2000 + "Stra\u00dfe" + filler * 10
    snippet = Query.read("strasse").snippet(text)
    assert snippet.hit == "Stra\u00dfe"
    assert snippet.before.endswith(" ".join(filler.split())[-1] + " " * filler.endswith(" "))
    assert " ".join(filler.split())[:3] in snippet.after


def test_find_deep_in_a_text_has_a_text_fragment_of_whole_words_and_one_at_its_beginning_has_none() -> None:
    text = "A title of words, and then - after (some) more - the nëedle-like thing; and so on"
    found = Query.read("eedle").snippet(text, before=30, after=20)
    assert text_fragment(found.shaped()) == ":~:text=%28some%29%20more%20%2D%20the-,n%C3%ABedle%2Dlike"
    assert text_fragment(Query.read("title").snippet(text).shaped()) == ""
