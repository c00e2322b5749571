"""What is drawn already is not styled again, and what answers are made of was drawn before the first of them."""

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
CELLS = 2 * ROWS
TURN = 100  # elements: a prompt, the dots of its answer, the box and its buttons, the chat's row in the list
BLOCK = 12
END = 90  # the buttons of an answer, the box and its buttons
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
NOTE_DRAWN = """() => {
  window.drawn = new Set();
  const note = (node) => {
    if (node.matches?.("chat-message.unseen")) for (const part of node.querySelectorAll(".blocks *")) drawn.add(part.localName);
  };
  new MutationObserver((records) => records.forEach(({ addedNodes }) => addedNodes.forEach(note)))
    .observe(document, { childList: true, subtree: true });
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


async def test_turn_a_block_and_the_end_of_an_answer_have_little_styled_that_is_drawn_already(
    chromium: Browser, page: Page, model: Model
) -> None:
    before, after, end = Gate(), Gate(), Gate()
    model.answer(TABLE, before, "A word.\n\n", after, "The last ones.", end)
    async with styled(chromium) as of_turn:
        await say(page, "Hello")
        await before.wait()
    await expect(answers(page).get_by_role("row")).to_have_count(ROWS + 1)
    async with styled(chromium) as of_block:
        before.open()
        await after.wait()
        await expect(answers(page)).to_contain_text("A word.")
    after.open()
    await end.wait()
    await expect(answers(page)).to_contain_text("The last ones.")
    await expect(page.locator("chat-message .waiting")).to_have_count(0)  # to take it out styles the answer
    async with styled(chromium) as of_end:
        end.open()
        await idle(page)
    assert 0 < max(of_turn) <= TURN < CELLS
    assert 0 < max(of_block) <= BLOCK
    assert 0 < max(of_end) <= END < CELLS


async def test_what_answers_are_made_of_is_drawn_unseen_before_the_first_of_them(
    page: Page,
) -> None:
    await page.add_init_script(f"({NOTE_DRAWN})()")
    await page.reload()
    tags = sorted(set(TAG.findall("".join(render(KINDS)))))
    assert {"h3", "code", "math", "td"} <= set(tags)
    await page.wait_for_function("(tags) => tags.every((tag) => drawn.has(tag))", arg=tags)
    await expect(page.locator("chat-message")).to_have_count(0)
