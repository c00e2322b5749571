"""The blocks of a long answer stand in sections: nobody sees where one ends, and every block is still found."""

from __future__ import annotations

import pytest
from playwright.async_api import Page, expect

from tests.browser.person import answers, hide, idle, say
from tests.browser.test_painting import HOLD_FRAMES, spoken
from tests.fakes import Gate, Model

LOOSE, SIZE = 32, 16  # as block-list.js has them
PART = """A paragraph of part {number}.

---

## A heading of part {number}

### One below it

1. One

> A quotation of part {number}.

```python
part = {number}
```

- Another

A second paragraph.

"""
KINDS = 9  # of blocks in a part: by turns each is the first of a section
PARTS = 18
UNMARKED = 3  # sections that have the last 24 blocks
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


async def test_reader_sees_no_edge_of_a_section(page: Page, model: Model, text: str) -> None:
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
    assert len({kinds for kinds, _ in edges}) == KINDS
    for kinds, gap in grown["gaps"][LOOSE - 1 :]:
        assert abs(gap - inside[kinds]) <= 1, f"{kinds}: {gap}, not {inside[kinds]}"
    await page.reload()
    await expect(answers(page).last).to_contain_text("The end.")
    assert await page.evaluate(BLOCKS) == grown


async def test_block_in_an_earlier_section_is_drawn_anew_where_it_is(
    page: Page, model: Model, text: str
) -> None:
    gate = Gate()
    early = text.replace("A paragraph of part 9.", "See [there] in part 9.")
    model.answer(*spoken(early), gate, "\n\n[there]: https://example.org/", to="Everything")
    await say(page, "Everything")
    await expect(answers(page).last).to_contain_text("The end.", timeout=30_000)
    await expect(
        page.locator("[data-section][data-past]").get_by_text("See [there] in part 9.")
    ).to_be_attached()
    gate.open()
    await expect(answers(page).last.get_by_role("link", name="there")).to_have_count(2)
    await idle(page)
    grown = await page.evaluate(BLOCKS)
    await page.reload()
    await expect(answers(page).last).to_contain_text("The end.")
    assert await page.evaluate(BLOCKS) == grown


async def test_answer_that_came_while_its_tab_was_hidden_is_past_but_for_its_end(
    page: Page, model: Model, text: str
) -> None:
    gate = Gate()
    at = text.index("A paragraph of part 3.")
    model.answer(*spoken(text[:at]), gate, *spoken(text[at:]), to="Everything")
    await say(page, "Everything")
    await gate.wait()
    await expect(answers(page).last).to_contain_text("A heading of part 2")
    await page.evaluate(HOLD_FRAMES)
    await hide(page)
    gate.open()
    await expect(answers(page).last).to_contain_text("The end.", timeout=30_000)
    await idle(page)
    await page.evaluate("free()")
    await hide(page, False)
    await expect(page.locator(".blocks > :not([data-past])")).to_have_count(UNMARKED)
