"""The style sheets, as text."""

from __future__ import annotations

import re

from tests.instances.instance import ROOT

DRAWN = re.compile(r"[^{};]*::(?:before|after)\s*{([^{}]*)")
SIZE, EDGE = (
    re.compile(r"(?:inline|block)-size:"),
    re.compile(r"border(?:-block|-inline)?(?:-start|-end)?:|padding"),
)


def test_what_is_drawn_before_or_after_an_element_counts_its_border_in_its_size() -> None:
    sheets = sorted((ROOT / "static" / "css").rglob("*.css"))
    drawn = [
        (sheet.name, rule)
        for sheet in sheets
        for rule in DRAWN.findall(sheet.read_text("utf-8"))
        if "content:" in rule
    ]
    assert len(drawn) > 10
    sized = [(name, rule) for name, rule in drawn if SIZE.search(rule) and EDGE.search(rule)]
    assert len(sized) >= 4
    assert [name for name, rule in sized if "box-sizing: border-box;" not in rule] == []
