"""What is drawn already is not styled again, and what answers are made of is laid out before the first of them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from playwright.async_api import Browser, Page, expect

from llmchat.markdown import render
from tests.browser.person import answers, idle, say
from tests.fakes import Gate, Model

ROWS = 60
TABLE = "| Name | Value |\n|---|---|\n" + "".join(f"| row {row} | {row} |\n" for row in range(ROWS)) + "\n"
PARAGRAPHS = "".join(f"Paragraph {number}.\n\n" for number in range(40))
MOST = 120  # elements; those of the table alone are 185
WAIT_SECONDS = 30
KINDS = """# A

## B

**C** *D* `E` $f^1$

- G

1. H

```python
def i():  # J
```

| K |
|---|
| 1 |

$$ \\frac{l}{1} $$
"""
NOTE_LAID_OUT = """() => {
  const seen = (window.seen = { tags: new Set(), heights: new Set() });
  const { remove } = Element.prototype;
  Element.prototype.remove = function () {
    if (this.matches(".unseen:has(chat-message)")) {
      const log = document.querySelector("[role=log]"), high = log.offsetHeight;
      for (const part of this.querySelectorAll(".blocks *")) if (part.getClientRects().length > 0) seen.tags.add(part.localName);
      remove.call(this);
      seen.heights.add(high - log.offsetHeight);
    } else remove.call(this);
  };
}"""
TAG = re.compile(r"<(\w+)")


@asynccontextmanager
async def styled(browser: Browser) -> AsyncIterator[list[int]]:
    """Note how many elements took a style, each time that any did."""
    session = await browser.new_browser_cdp_session()
    events: list[dict[str, Any]] = []
    complete = asyncio.Event()
    session.on("Tracing.dataCollected", lambda told: events.extend(told["value"]))
    session.on("Tracing.tracingComplete", lambda _: complete.set())
    only = {"includedCategories": ["devtools.timeline"], "excludedCategories": ["*"]}
    await session.send("Tracing.start", {"transferMode": "ReportEvents", "traceConfig": only})
    counts: list[int] = []
    yield counts
    await session.send("Tracing.end")
    async with asyncio.timeout(WAIT_SECONDS):
        await complete.wait()
    await session.detach()
    counts.extend(
        each["args"]["elementCount"]
        for each in events
        if each["name"] == "UpdateLayoutTree" and "elementCount" in each["args"]
    )


async def test_new_block_and_a_new_turn_have_little_styled_of_what_is_drawn_already(
    chromium: Browser, page: Page, model: Model
) -> None:
    before, after, again = Gate(), Gate(), Gate()
    model.answer(PARAGRAPHS + TABLE, before, "A word.\n\n", after, to="First")
    model.answer(again, "More.", to="Second")
    await say(page, "First")
    await before.wait()
    await expect(answers(page).get_by_role("row")).to_have_count(ROWS + 1)
    async with styled(chromium) as of_block:
        before.open()
        await after.wait()
        await expect(answers(page)).to_contain_text("A word.")
    after.open()
    await idle(page)
    async with styled(chromium) as of_turn:
        await say(page, "Second")
        await again.wait()
        await expect(page.get_by_text("Waiting for the answer")).to_be_attached()
    again.open()
    await idle(page)
    assert 0 < max(of_block) <= MOST
    assert 0 < max(of_turn) <= MOST


async def test_what_answers_are_made_of_is_laid_out_unseen_before_the_first_and_moves_nothing(
    page: Page,
) -> None:
    await page.add_init_script(f"({NOTE_LAID_OUT})()")
    await page.reload()
    tags = sorted(set(TAG.findall("".join(render(KINDS)))))
    assert {"h3", "code", "math", "td"} <= set(tags)
    await page.wait_for_function("(tags) => tags.every((tag) => seen.tags.has(tag))", arg=tags)
    assert await page.evaluate("[...seen.heights]") == [0]
    await expect(page.locator("chat-message")).to_have_count(0)
