"""The blocks of a long answer stand in sections: nobody sees where one ends, and every block is still found."""

from __future__ import annotations

import pytest
from playwright.async_api import Page, expect

from tests.browser.person import answers, idle, say
from tests.browser.test_painting import spoken
from tests.fakes import Gate, Model

LOOSE, SIZE = 32, 16  # as block-list.js has them
PART = """A paragraph of part {number}.

## A heading of part {number}

1. One

> A quotation of part {number}.

---

```python
part = {number}
```

- Another

"""
KINDS = 7  # of blocks in a part: by turns each is the first of a section
PARTS = 17
BLOCKS = """() => {
  const parts = [...document.querySelector("chat-message[data-role=assistant]:last-of-type .blocks").children];
  const sections = parts.filter((part) => part.matches("[data-section]"));
  const blocks = parts.flatMap((part) => part.matches("[data-section]") ? [...part.children] : [part]);
  const gap = ([above, below]) => [
    `${above.localName}, ${below.localName}`,
    Math.round(below.getBoundingClientRect().top - above.getBoundingClientRect().bottom),
  ];
  for (const part of parts) part.style.contentVisibility = "visible";
  const seen = {
    loose: parts.length - sections.length,
    sizes: sections.map((section) => section.children.length),
    kinds: blocks.map(({ localName }) => localName),
    texts: blocks.map(({ innerText }) => innerText.trim()),
    gaps: blocks.slice(1).map((block, index) => gap([blocks[index], block])),
  };
  for (const part of parts) part.style.contentVisibility = "";
  return seen;
}"""


@pytest.fixture
def text() -> str:
    return "".join(PART.format(number=number) for number in range(PARTS)) + "See [there].\n\nThe end."


async def test_sections_are_not_seen(page: Page, model: Model, text: str) -> None:
    model.answer(*spoken(text), to="Everything")
    await say(page, "Everything")
    await expect(answers(page).last).to_contain_text("The end.", timeout=30_000)
    await idle(page)
    grown = await page.evaluate(BLOCKS)
    count = PARTS * KINDS + 2
    assert len(grown["kinds"]) == count
    assert grown["loose"] == LOOSE
    full, rest = divmod(count - LOOSE, SIZE)
    assert grown["sizes"] == [SIZE] * full + [rest]
    inside = dict(grown["gaps"][: LOOSE - 1])
    edges = [grown["gaps"][edge - 1] for edge in range(LOOSE, count, SIZE)]
    assert len({kinds for kinds, _ in edges}) >= KINDS - 1
    for kinds, gap in [*grown["gaps"][LOOSE:], *edges]:
        assert kinds not in inside or abs(gap - inside[kinds]) <= 1, f"{kinds}: {gap}, not {inside[kinds]}"
    await page.reload()
    await expect(answers(page).last).to_contain_text("The end.")
    assert await page.evaluate(BLOCKS) == grown


async def test_block_in_a_section_is_drawn_anew_where_it_is(page: Page, model: Model, text: str) -> None:
    gate = Gate()
    first = "Go [there] first.\n\n" + text
    model.answer(*spoken(first), gate, "\n\n[there]: https://example.org/", to="Everything")
    await say(page, "Everything")
    await expect(answers(page).last).to_contain_text("The end.", timeout=30_000)
    before = await page.evaluate(BLOCKS)
    await expect(answers(page).last.get_by_role("link")).to_have_count(0)
    gate.open()
    await expect(answers(page).last.get_by_role("link", name="there")).to_have_count(2)
    await idle(page)
    after = await page.evaluate(BLOCKS)
    assert (after["loose"], after["sizes"], after["kinds"]) == (
        before["loose"],
        before["sizes"],
        before["kinds"],
    )
