"""An answer that grows moves nothing above its end, touches nothing that is finished, and is painted once a frame."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.async_api import CDPSession, Page, expect

from tests.browser.conftest import OpenPage
from tests.browser.fragile import cut, mend, open_fragile
from tests.browser.line import Line
from tests.browser.person import answers, box, button, chats, hide, idle, messages, say
from tests.browser.watch import Watch
from tests.fakes import Gate, Model
from tests.instances import Instance
from tests.steps import Pause, Step, Text

Instances = tuple[Instance, Instance]
PART = """## A heading of part {number}, long enough to be broken into lines on a phone

A paragraph with **strong** words, `code` and a [link](https://example.org/), which goes on for a line or two.

1. One
2. Two, with
   - something below it
   - and more

- [x] done
- [ ] to do

| Name | Value |
|---|---|
| first | {number} |
| second, which is a good deal wider | 2 |

```python
def part_{number}(value: int) -> int:
    return value * {number}
```

$$ e^{{i\\pi}} + 1 = 0 $$

> A quotation of part {number}.

"""
WATCH = """() => {
  const seen = (window.seen = { shifts: [], touched: [] });
  const blocks = () => document.querySelector("[role=log] [data-state=running] .blocks");
  const growing = (node) => {
    const last = [...(blocks()?.querySelectorAll(":scope > :not([data-section]), :scope > [data-section] > *") ?? [])].slice(-2);
    const element = node?.nodeType === 1 ? node : node?.parentElement;
    return !element || last.some((block) => block === element || block.contains(element)) || element === blocks();
  };
  new PerformanceObserver((list) => {
    for (const { value, sources } of list.getEntries()) {
      const moved = sources.filter(({ node }) => !growing(node)).map(({ node, previousRect: from, currentRect: to }) =>
        `${node?.className || node?.nodeName} ${node?.textContent.slice(0, 30)}: ${from.y}+${from.height} to ${to.y}+${to.height}`);
      if (moved.length > 0) seen.shifts.push([value, moved]);
    }
  }).observe({ type: "layout-shift", buffered: false });
  new MutationObserver((records) => {
    for (const { target, nextSibling } of records) {
      if (!target.isConnected || !blocks()?.contains(target)) continue;
      const earlier = target === blocks() || target.matches?.("[data-section]") ? nextSibling?.nextSibling?.nextSibling : !growing(target);
      if (earlier) seen.touched.push(target.textContent.slice(0, 60));
    }
  }).observe(document.querySelector("[role=log] .column"), { childList: true, characterData: true, subtree: true });
}"""
HOLD_FRAMES = """() => {
  const held = [], real = window.requestAnimationFrame;
  window.requestAnimationFrame = (act) => held.push(act);
  window.painted = 0;
  window.free = () => { window.requestAnimationFrame = real; for (const act of held.splice(0)) act(performance.now()); };
  new MutationObserver(() => (window.painted += 1)).observe(
    document.querySelector("[role=log] .blocks"), { childList: true, characterData: true, subtree: true });
}"""
LEFT_NODES = 60  # of the last blocks that were drawn anew


def spoken(text: str, pause_seconds: float = 0.004, size: int = 24) -> list[str | Step]:
    """An answer in small pieces, as fast as a quick model gives them."""
    pieces = [text[start : start + size] for start in range(0, len(text), size)]
    return [step for piece in pieces for step in (Text(piece), Pause(pause_seconds))]


async def slowed(page: Page) -> CDPSession:
    """Make the page's machine and its network slow."""
    session = await page.context.new_cdp_session(page)
    await session.send("Emulation.setCPUThrottlingRate", {"rate": 4})
    slow = {"offline": False, "latency": 150, "downloadThroughput": 60_000, "uploadThroughput": 30_000}
    await session.send("Network.emulateNetworkConditions", slow)
    return session


@pytest.mark.parametrize("width", [1280, pytest.param(390, marks=pytest.mark.long)])
async def test_answer_moves_nothing_above_its_end_while_it_grows_on_a_slow_machine(
    open_page: OpenPage, instances: Instances, model: Model, width: int
) -> None:
    page = await open_page(instances[0], viewport={"width": width, "height": 800})
    await say(page, "First")  # after it the box has its place
    await expect(answers(page)).to_contain_text("You said: First")
    await idle(page)
    await slowed(page)
    await page.evaluate(WATCH)
    model.answer(*spoken("".join(PART.format(number=number) for number in range(6))), "The end.")
    await say(page, "Everything")
    await expect(answers(page).last).to_contain_text("The end.", timeout=30_000)
    await idle(page)
    seen = await page.evaluate("seen")
    assert seen["shifts"] == []
    assert seen["touched"] == []


async def test_words_that_come_within_a_frame_are_placed_together_and_a_hidden_tab_goes_on_without_frames(
    page: Page, model: Model
) -> None:
    line = await Line.lay(page)
    go, hidden, shown = Gate(), Gate(), Gate()
    model.answer(
        "It begins. ", go, *spoken("a word " * 40, 0.06), hidden, "While hidden. ", shown, "Shown again."
    )
    await say(page, "Go")
    await expect(answers(page)).to_contain_text("It begins.")
    await page.evaluate(HOLD_FRAMES)
    before = sum("completion.delta" in frame for frame in line.received)
    go.open()
    await line.told("completion.delta", before + 5)
    await hidden.wait()
    assert "a word" not in await answers(page).inner_text()
    assert await page.evaluate("painted") == 0
    await page.evaluate("free()")
    await expect(answers(page)).to_contain_text("a word a word")
    assert await page.evaluate("painted") <= 2
    await page.evaluate(HOLD_FRAMES)
    await hide(page)
    hidden.open()
    await expect(answers(page)).to_contain_text("While hidden.")
    await hide(page, False)
    await page.evaluate("free()")
    shown.open()
    await expect(answers(page)).to_contain_text("Shown again.")


async def test_prompt_that_waits_for_its_frame_is_taken_back_and_left_without_a_trace(
    page: Page, instances: Instances, watch: Watch
) -> None:
    watch.allow("WebSocket connection to")
    tab = await open_fragile(page.context, instances[0].url)
    await page.close()  # it would send what the other one keeps for long
    await say(tab, "First")
    await expect(answers(tab)).to_contain_text("You said: First")
    await idle(tab)
    before = await answers(tab).bounding_box()
    await cut(tab)
    await tab.evaluate(HOLD_FRAMES)
    await box(tab).fill("Second")
    await box(tab).press("Enter")
    await expect(tab.locator("chat-message[data-coming]")).to_have_count(1)
    await expect(messages(tab)).to_have_count(2)
    await box(tab).press("Escape")
    await expect(box(tab)).to_have_value("Second")
    await tab.evaluate("free()")
    await expect(tab.locator("chat-message")).to_have_count(2)
    assert await answers(tab).bounding_box() == before
    await mend(tab)
    await expect(tab.locator("chat-transcript:not([data-lost])")).to_be_attached()
    await tab.evaluate(HOLD_FRAMES)
    await box(tab).press("Enter")
    await button(tab, "New chat").first.click()
    await chats(tab).filter(has_text="First").click()
    await expect(answers(tab).last).to_contain_text("You said: Second")
    await expect(messages(tab)).to_have_count(4)
    await tab.evaluate("free()")
    await expect(tab.locator("chat-message[data-coming]")).to_have_count(0)


async def test_page_that_rests_animates_nothing(page: Page, model: Model) -> None:
    gate = Gate()
    model.answer("It begins. ", gate, "It ends.")
    await say(page, "Go")
    await expect(answers(page)).to_contain_text("It begins.")
    assert await page.evaluate("document.getAnimations().length") > 0  # the caret is one
    gate.open()
    await expect(answers(page)).to_contain_text("It ends.")
    await page.wait_for_function("() => document.getAnimations().length === 0")


@pytest.mark.long
async def test_answer_of_ten_thousand_words_leaves_nothing_behind_but_itself(
    page: Page, model: Model
) -> None:
    await say(page, "Warm up")
    await idle(page)
    await expect(answers(page)).to_contain_text("You said")
    session = await page.context.new_cdp_session(page)
    before = await left(session)
    parts = [PART.format(number=number) for number in range(130)]
    model.answer(
        *spoken("".join(parts), 0.005, 100), "The end."
    )  # within its blocks, so that they are drawn anew
    await box(page).fill("A very long one")
    await box(page).press("Enter")
    await expect(answers(page).last).to_contain_text("The end.", timeout=30_000)
    await idle(page)
    assert await left(session) - before < LEFT_NODES


async def left(session: CDPSession) -> int:
    """Count the nodes out of the document that something still holds, after the rubbish is collected."""
    await session.send("HeapProfiler.collectGarbage")
    found = (await session.send("DOM.getDetachedDomNodes"))["detachedNodes"]
    return sum(size(each["treeNode"]) for each in found)


def size(node: dict[str, Any]) -> int:
    """Count a node and those below it."""
    return 1 + sum(size(child) for child in node.get("children", []))
