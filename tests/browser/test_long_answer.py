"""An answer of 10,000 tokens is shown without a long task, and leaves nothing behind when it is."""

from __future__ import annotations

import pytest
from playwright.async_api import Browser, CDPSession, Page, expect

from bench.page import main_thread
from tests.browser.person import answers, at_end, button, idle, say
from tests.browser.test_painting import spoken
from tests.fakes import Gate, Model

CHARACTERS = 43_000  # of 10,000 tokens
LAST = 9_000  # characters whose tasks are looked at: the longer an answer is, the longer they may be
THROTTLE = 4  # times that a phone needs longer than this machine
LONG_TASK_MILLISECONDS = 50
OUTLIERS = 10  # tasks that a busy machine makes long: there are thousands
PIECE, PAUSE_SECONDS = 16, 0.018  # four times as fast as 50 tokens a second
QUICK, QUICK_SECONDS = 400, 0.01  # of what is only to be there
KEPT_CHATS = 5  # that a page keeps for whoever comes back to them
ROW_NODES = 60  # of a chat in the list, which two more chats may bring
FEW_LISTENERS = 10
FEW_BYTES = 300_000  # that the engine itself keeps
ALMOST = "\n\nHere the rest begins.\n\n"
PROSE = (
    "Every part is told what it needs and no more, so that **what is said once** holds for `all of them`, and a "
    "[reader](https://example.org/part/{number}) who comes to part {number} later finds the same words there. "
)
SECTION = (
    """## Part {number}: how it works

"""
    + 3 * PROSE
    + """

- Point one of part {number}, with `code` and a few more words behind it
- Point **two**, which has

  a paragraph of its own
- Point three
  - and what is below it

```python
def part_{number}(value: int, name: str = "part {number}") -> dict[str, int]:
    if value > {number}:
        return {{name: value * {number}}}  # larger than it was
    return {{name: sum(range(value)), "rest": {number}}}
```

"""
    + 2 * PROSE
    + """

| Name | Value | What it is for |
|---|---:|---|
| `first_{number}` | 37 | holds what **part {number}** needs |
| `second_{number}` | 74 | holds the rest |
| `third_{number}` | 111 | holds nothing, and says so |

$$ \\sum_{{k=0}}^{{{number}}} \\frac{{k^2}}{{2}} = \\overline{{x}} $$

For part {number} one has $x_{{{number}}}^2 + \\frac{{a}}{{b}} = \\sqrt{{c}}$, and so it goes on.

> A quotation of part {number}.

1. Do *this*
2. before that

"""
)


def long_answer() -> str:
    """Make an answer with all that Markdown has."""
    text = "".join(SECTION.format(number=number) for number in range(CHARACTERS // len(SECTION) + 1))
    return text[:CHARACTERS] + "\n\nThe end."


async def left(session: CDPSession) -> dict[str, float]:
    """Count what is there once all garbage is collected."""
    await session.send("HeapProfiler.enable")
    for _ in range(3):
        await session.send("HeapProfiler.collectGarbage")
    counters = await session.send("Memory.getDOMCounters")
    heap = await session.send("Runtime.getHeapUsage")
    return {"nodes": counters["nodes"], "listeners": counters["jsEventListeners"], "bytes": heap["usedSize"]}


async def begin(page: Page) -> None:
    """Begin a chat."""
    await button(page, "New chat").first.click()
    await say(page, "First")
    await expect(answers(page)).to_contain_text("You said: First")
    await idle(page)


async def ended(page: Page) -> None:
    """Wait until the long answer is there."""
    await expect(answers(page).last).to_contain_text("The end.", timeout=60_000)
    await idle(page)


@pytest.mark.long
async def test_long_answer_takes_no_long_task_of_a_slow_machine(
    page: Page, chromium: Browser, model: Model
) -> None:
    await begin(page)
    text, gate = long_answer(), Gate()
    beginning, end = text[:-LAST] + ALMOST, text[-LAST:]
    model.answer(
        *spoken(beginning, QUICK_SECONDS, QUICK), gate, *spoken(end, PAUSE_SECONDS, PIECE), to="Everything"
    )
    await say(page, "Everything")
    await gate.wait(seconds=60)
    await expect(answers(page).last).to_contain_text(ALMOST.strip())
    async with main_thread(chromium) as tasks:
        gate.open()
        await button(page, "Send").wait_for(timeout=60_000)
    await at_end(page)
    print(f"{len(tasks)} tasks, {sum(tasks):.0f} ms, the longest: {[round(task, 1) for task in tasks[:12]]}")
    assert len(tasks) > 1000
    too_long = [task for task in tasks if task * THROTTLE > LONG_TASK_MILLISECONDS]
    assert len(too_long) <= OUTLIERS, too_long


@pytest.mark.long
async def test_long_answers_in_one_chat_after_another_leave_nothing_behind(page: Page, model: Model) -> None:
    session = await page.context.new_cdp_session(page)
    found = []
    for _ in range(KEPT_CHATS + 3):
        await begin(page)
        model.answer(*spoken(long_answer(), QUICK_SECONDS, QUICK), to="Everything")
        await say(page, "Everything")
        await ended(page)
        await button(page, "New chat").first.click()
        await expect(answers(page)).to_have_count(0)
        found.append(await left(session))
    print(*found, sep="\n")
    before, after = found[-3], found[-1]
    assert after["listeners"] - before["listeners"] <= FEW_LISTENERS
    assert after["nodes"] - before["nodes"] <= 2 * ROW_NODES
    assert after["bytes"] - before["bytes"] <= FEW_BYTES
