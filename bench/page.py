"""The page in Chromium under answers of ten thousand pieces, with a CPU four times as slow as this one.

    python -m bench.page [--root /another/clone] [--repeat 3]

How long tasks take is told in the time of their thread. Chromium makes it slow by the clock: again and again it has the
thread spin for three times what has passed since, of which a millisecond at most counts, also where the thread only waited
for a core. So the browser has all cores, and what else this machine does should be little. How much one and the same task
varies here is measured right after: the machine's part in the longest ones.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, CDPSession, Page, async_playwright

from bench.answer import RATE, Answer
from bench.answers import numbers
from bench.figures import MICROSECONDS, MILLISECONDS, percentile
from bench.machine import ROOT, on_all_cores
from bench.measured import Measured, measure_as_told
from bench.model import Model
from bench.servers import Server, serving

PIECES = 10_000
SHORT_PIECES = 50
QUICK_RATE = 400
"""Pieces a second of the answers that only the memory is measured of."""
SLOWDOWN = 4
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
NAMES = ("chromium", "chromium-browser", "google-chrome")
LATE_MS = 120_000
ENDED = "() => !document.querySelector('chat-transcript[data-running]')"
POLLING_MS = 500
LONG_MS = 50.0
MIB = 2**20
SAME_TASK = """([steps, every]) => {
  window.times = 0;
  setInterval(() => {
    window.times += 1;
    let sum = 0;
    for (let step = 0; step < steps; step++) sum += (step * step) % 7;
    window.sum = sum;
  }, every);
}"""
STEPS = 400_000
"""Of some 20 ms."""
EVERY_MS = 50
WARM_SECONDS = 10.0
SAME_SECONDS = 100.0
COLLECTIONS = 3
"""Of garbage: what has finalizers takes more than one."""


async def measure(stack: str, *, root: Path = ROOT) -> Measured:
    """Have a page show such answers."""
    async with Model() as model, serving(stack, model.url, root=root) as server, _browser() as browser:
        return await _in_browser(browser, server, model)


@asynccontextmanager
async def _browser() -> AsyncIterator[Browser]:
    found = next(filter(None, map(shutil.which, NAMES)), None)
    with on_all_cores():
        playwright = await async_playwright().start()
        browser = await playwright.chromium.launch(executable_path=found, args=FLAGS)
    try:
        yield browser
    finally:
        await browser.close()
        await playwright.stop()


async def _in_browser(browser: Browser, server: Server, model: Model) -> Measured:
    """Have a page of a server show a short answer and three long ones."""
    page, session = await _slow_page(browser, f"http://127.0.0.1:{server.port}/")
    await _ready(page)
    await _show(page, model, SHORT_PIECES, RATE)
    heaps = [await _leave(page, session)]
    async with main_thread(browser) as tasks:
        await _show(page, model, PIECES, RATE)
    heaps.append(await _leave(page, session))
    for _ in range(2):
        await _show(page, model, PIECES, QUICK_RATE)
        heaps.append(await _leave(page, session))
    await page.close()
    same = await _same_task(browser)
    figures = {
        "longest task ms": tasks[-1],
        "tasks over 50 ms": float(sum(each > LONG_MS for each in tasks)),
        "task p99 ms": percentile(tasks, 0.99),
        "tasks": float(len(tasks)),
        "one and the same task: median ms": percentile(same, 0.5),
        "one and the same task: longest over median": same[-1] / percentile(same, 0.5),
        "busy s": sum(tasks) / MILLISECONDS,
        "heap MiB before": heaps[0] / MIB,
        "heap MiB after one": heaps[1] / MIB,
        "heap MiB after two": heaps[2] / MIB,
        "heap MiB after three": heaps[3] / MIB,
        "heap, third over second": heaps[3] / heaps[2],
    }
    return Measured("browser", server.stack, figures)


async def _slow_page(browser: Browser, address: str) -> tuple[Page, CDPSession]:
    page = await browser.new_page()
    page.set_default_timeout(LATE_MS)
    session = await page.context.new_cdp_session(page)
    await session.send("Emulation.setCPUThrottlingRate", {"rate": SLOWDOWN})
    await page.goto(address)
    return page, session


async def _show(page: Page, model: Model, pieces: int, rate: int) -> None:
    """Have an answer shown in the chat that is open, whose box has the focus. Nothing looks for elements meanwhile."""
    answer = Answer(next(numbers), pieces, rate)
    model.answers[answer.number] = answer
    await page.keyboard.insert_text(answer.prompt)
    await page.keyboard.press("Enter")
    async with asyncio.timeout(pieces / rate + LATE_MS / MILLISECONDS):
        await answer.whole.wait()
    await page.wait_for_function(ENDED, polling=POLLING_MS)


async def _ready(page: Page) -> None:
    """Have the box of a new chat the focus. To look for elements takes tasks of up to 100 ms."""
    await page.get_by_role("button", name="Send", exact=True).wait_for()
    await page.get_by_role("textbox", name="Message", exact=True).focus()


async def _leave(page: Page, session: CDPSession) -> int:
    """Go to a new chat, have all garbage collected, and tell the bytes of the heap then."""
    await page.get_by_role("button", name="New chat", exact=True).first.click()
    await page.get_by_role("article", name="Answer").first.wait_for(state="detached")
    await _ready(page)
    for _ in range(COLLECTIONS):
        await session.send("HeapProfiler.collectGarbage")
    return int((await session.send("Runtime.getHeapUsage"))["usedSize"])


async def _same_task(browser: Browser) -> list[float]:
    """Have a page that shows nothing do the same work again and again: milliseconds of each, the longest last."""
    page, _ = await _slow_page(browser, "about:blank")
    await page.evaluate(SAME_TASK, [STEPS, EVERY_MS])
    await asyncio.sleep(WARM_SECONDS)
    async with main_thread(browser) as tasks:
        before = await page.evaluate("times")
        await asyncio.sleep(SAME_SECONDS)
        after = await page.evaluate("times")
    await page.close()
    return tasks[before - after :]


@asynccontextmanager
async def main_thread(browser: Browser) -> AsyncIterator[list[float]]:
    """Note what each task of the page's main thread takes of its time: milliseconds, the longest last."""
    session = await browser.new_browser_cdp_session()
    events: list[dict[str, Any]] = []
    complete = asyncio.Event()
    session.on("Tracing.dataCollected", lambda told: events.extend(told["value"]))
    session.on("Tracing.tracingComplete", lambda _: complete.set())
    only = {
        "includedCategories": ["toplevel"],
        "excludedCategories": ["*"],
        "recordMode": "recordAsMuchAsPossible",
    }
    await session.send("Tracing.start", {"transferMode": "ReportEvents", "traceConfig": only})
    # The clock of the trace, which itself begins and ends in long tasks of this thread.
    began = time.monotonic()
    tasks: list[float] = []
    yield tasks
    ended = time.monotonic()
    await session.send("Tracing.end")
    async with asyncio.timeout(LATE_MS / MILLISECONDS):
        await complete.wait()
    renderers = {
        (event["pid"], event["tid"])
        for event in events
        if event["name"] == "thread_name" and event["args"]["name"] == "CrRendererMain"
    }
    of_thread: dict[tuple[int, int], list[float]] = defaultdict(list)
    for event in events:
        if event["name"] != "ThreadControllerImpl::RunTask" or event["ph"] != "X" or "tdur" not in event:
            continue
        if began < event["ts"] / MICROSECONDS < ended:
            of_thread[event["pid"], event["tid"]].append(event["tdur"] / MILLISECONDS)
    tasks.extend(sorted(max((of_thread[each] for each in renderers), key=sum)))


if __name__ == "__main__":
    raise SystemExit(asyncio.run(measure_as_told(measure, __doc__, stacks=("ours",))))
