"""Every colour of the page against what it stands on, in both themes, as WCAG counts."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from coloraide import Color

CSS = Path(__file__).resolve().parent.parent / "static" / "css"
COLOUR = r"oklch\([^()]*\)"
ONE = re.compile(rf"--([\w-]+): ({COLOUR});")
TWO = re.compile(rf"--([\w-]+): light-dark\(({COLOUR}), ({COLOUR})\);")

TEXT, UI = 4.5, 3.0  # WCAG 1.4.3, and 1.4.11: what tells a control, its state or the focus
PAPERS = ("paper", "paper-sunk", "paper-raised", "paper-pressed")
CODE = ("text", "comment", "keyword", "constant", "name", "tag", "string", "number", "inserted", "deleted")
STANDS_ON = {
    ("ink", TEXT): (*PAPERS, "accent-wash", "accent-line", "failed-wash"),
    ("ink-soft", TEXT): (*PAPERS, "accent-wash", "failed-wash", "code-background"),
    ("ink-faint", TEXT): PAPERS[:3],
    ("accent", TEXT): (*PAPERS[:3], "accent-wash"),
    ("accent", UI): ("paper-pressed", "code-background"),
    ("accent-strong", TEXT): (*PAPERS, "accent-wash", "code-background"),
    ("accent-ink", TEXT): ("accent", "accent-strong"),
    ("failed", TEXT): (*PAPERS, "failed-wash"),
    ("paper", TEXT): ("ink",),
    ("hairline-strong", UI): PAPERS[:3],
    **{(f"code-{name}", TEXT): ("code-background",) for name in CODE},
}
BESIDE_WORDS = {
    "hairline",
    "accent-line",
    "failed-line",
    "scrim",
    "scrim-picture",
}  # these tell nothing that words do not


def colours() -> dict[str, tuple[str, str]]:
    """Give each token's colour in the light and in the dark: of two declarations the last is for the dark."""
    found: dict[str, tuple[str, str]] = {}
    for sheet in ("tokens", "code"):
        text = (CSS / f"{sheet}.css").read_text()
        found |= {name: (light, dark) for name, light, dark in TWO.findall(text)}
        for name, colour in ONE.findall(text):
            found[name] = (found.get(name, (colour, ""))[0], colour)
    return found


COLOURS = colours()
PAIRS = [(front, back, least) for (front, least), backs in STANDS_ON.items() for back in backs]


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize(
    ("front", "back", "least"), PAIRS, ids=[f"{front} on {back}" for front, back, _ in PAIRS]
)
def test_colour_is_told_from_what_it_stands_on(front: str, back: str, least: float, theme: int) -> None:
    one, other = (Color(COLOURS[name][theme]).fit("srgb") for name in (front, back))
    assert one.contrast(other) >= least


def test_every_colour_is_looked_at() -> None:
    known = {name for pair in PAIRS for name in pair[:2]} | BESIDE_WORDS
    assert set(COLOURS) - known == set(), "say in STANDS_ON what these are read on"


def test_colours_around_the_page_are_those_of_its_paper_in_both_themes() -> None:
    paper = [Color(each).convert("srgb").to_string(hex=True) for each in COLOURS["paper"]]
    around = re.findall(r"#[0-9a-f]{6}", (CSS.parents[1] / "templates" / "_app.html").read_text())
    assert around == paper
    manifest = json.loads((CSS.parent / "manifest.webmanifest").read_text())
    assert [manifest["background_color"], manifest["theme_color"]] == [paper[0]] * 2
