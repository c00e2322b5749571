"""Hostile Markdown: whatever an answer says, its HTML holds an answer's elements and nothing else."""

from __future__ import annotations

import random
import re
from functools import cache

import pytest

from llmchat.markdown import LiveMarkdown, _cleaner, render
from tests.harmless import assert_clean, assert_harmless
from tests.hostile import FOR_MARKDOWN, PAYLOADS, PLACES, placed

SHARES = 8
IN_A_WORD = re.compile(r"(?<=[A-Za-z0-9])(?=[A-Za-z0-9])")
share = pytest.mark.parametrize("share", range(SHARES))


def check(blocks: list[str]) -> None:
    assert_clean(blocks)
    assert_harmless(blocks)


@cache
def prefixes() -> list[str]:
    """All beginnings, each once, as many texts have the same. Within a word nothing but the word becomes longer."""
    found = set()
    for payload in PAYLOADS:
        within = {match.start() for match in IN_A_WORD.finditer(payload)}
        found |= {payload[:end] for end in range(1, len(payload)) if end not in within}
    return sorted(found)


def test_corpus_is_a_large_one() -> None:
    assert len(PAYLOADS) > 4_000
    assert len(FOR_MARKDOWN) > 300


@share
def test_hostile_text_is_harmless_wherever_it_stands(share: int) -> None:
    for number, payload in list(enumerate(PAYLOADS))[share::SHARES]:
        for place in {PLACES[0], *(PLACES[(number // SHARES + step) % len(PLACES)] for step in (0, 17))}:
            check(render(placed(payload, place)))


@share
def test_text_for_markdown_is_harmless_in_every_place(share: int) -> None:
    for payload in FOR_MARKDOWN[share::SHARES]:
        for place in PLACES:
            check(render(placed(payload, place), running=True))


@share
def test_every_prefix_of_hostile_text_is_harmless(share: int) -> None:
    for text in prefixes()[share::SHARES]:
        assert_harmless(render(text, running=True))


@share
def test_hostile_text_that_grows_is_harmless_at_every_step(share: int) -> None:
    """Many of them in one answer, in pieces of every size."""
    source = random.Random(share)
    texts = [placed(payload, source.choice(PLACES)) for payload in PAYLOADS[share::SHARES]]
    for start in range(0, len(texts), 12):
        text = source.choice(("\n\n", "\n", " ")).join(texts[start : start + 12])
        live, blocks, at = LiveMarkdown(), {}, 0
        while at < len(text):
            size = source.choice((1, 2, 5, 20, 60))
            live.append(text[at : at + size])
            at += size
            changed = dict(live.changed())
            assert_harmless(changed.values())
            blocks.update(changed)
        blocks.update(live.finish())
        final = [blocks[index] for index in range(live.count)]
        assert final == render(text)
        check(final)


@pytest.mark.parametrize(
    "around", ["{}", "<math><mtext>{}</mtext></math>", "<math><mi>{}", "<div><span>{}", "<table><tr><td>{}"]
)
def test_sanitiser_alone_makes_hostile_html_harmless(around: str) -> None:
    """It has the last word: nothing depends on the parser's escaping. Read twice, as a browser may."""
    for payload in PAYLOADS:
        cleaned = _cleaner().clean(around.replace("{}", payload))
        assert_harmless([cleaned])
        assert_harmless([_cleaner().clean(cleaned)])
