"""What the eye reads stays where it is: when a waiting prompt's turn comes, and when an answer begins anew."""

from __future__ import annotations

import re

import pytest
from playwright.async_api import Page, expect

from tests.browser.conftest import OpenPage
from tests.browser.person import answers, at_end, box, button, chip, idle, messages, say, waiting
from tests.browser.test_scrolling import AT_REST, TOP_OF
from tests.browser.watch import Watch
from tests.conftest import StartInstance
from tests.fakes import Gate, Model
from tests.instances import Instance, Store

Instances = tuple[Instance, Instance]
LONG = "".join(f"Paragraph {number} of a long answer.\n\n" for number in range(40))
WATCH_LAST_PROMPT = """() => {
  const log = document.querySelector("[role=log]"), seen = (window.seen = new Map());
  const before = document.querySelectorAll("[data-role=user]").length;
  const look = () => {
    if (window.seen !== seen) return;
    const prompt = document.querySelectorAll("[data-role=user]")[before];
    if (prompt?.checkVisibility()) {
      const top = prompt.querySelector(".words").getBoundingClientRect().top - log.getBoundingClientRect().top;
      seen.set(prompt.dataset.state, top).set(`${prompt.dataset.state}, lowest`, Math.max(top, seen.get(`${prompt.dataset.state}, lowest`) ?? top));
    }
    requestAnimationFrame(look);
  };
  look();
}"""
ABOVE_EDGE = "(element) => document.querySelector('[role=log]').getBoundingClientRect().bottom - element.getBoundingClientRect().bottom"
FIRST_IN_SIGHT = """() => {
  const { top } = document.querySelector("[role=log]").getBoundingClientRect();
  const first = [...document.querySelectorAll(":is(.blocks, [data-section]) > p")].find((each) => each.getBoundingClientRect().top > top + 100);
  return [first.textContent, first.getBoundingClientRect().top];
}"""
STILL = 8  # pixels that nobody minds


async def height_of(page: Page, text: str) -> float:
    """Tell how far below the window's top a text stands."""
    rectangle = await page.get_by_text(text, exact=True).bounding_box()
    assert rectangle
    return rectangle["y"]


@pytest.mark.long
async def test_finished_answer_stays_in_sight_when_the_turn_of_a_waiting_prompt_comes_whose_answer_is_followed(
    open_page: OpenPage, instances: Instances, model: Model
) -> None:
    page = await open_page(instances[0])
    end, next_one = Gate(), Gate()
    model.answer(LONG, "The last line.", end, to="First")
    model.answer(next_one, LONG, to="Second")
    await say(page, "First")
    await expect(answers(page)).to_contain_text("The last line.")
    watcher = await open_page(instances[1], page.url.removeprefix(instances[0].url), like=page)
    await expect(answers(watcher)).to_contain_text("The last line.")
    await box(page).fill("Second")
    await box(page).press("Enter")
    await expect(waiting(watcher)).to_have_text(re.compile("Second"))
    before = {}
    for tab in (page, watcher):
        await at_end(tab)
        before[tab] = await height_of(tab, "The last line.")
    end.open()
    await next_one.wait()
    for tab in (page, watcher):
        await expect(answers(tab)).to_have_count(2)
        await expect(waiting(tab)).to_have_count(0)
        assert abs(await height_of(tab, "The last line.") - before[tab]) < STILL
    await watcher.get_by_role("log").hover()
    await watcher.mouse.wheel(0, -100)
    await expect(watcher.locator("chat-transcript")).not_to_have_attribute("data-pinned", "")
    await watcher.evaluate(AT_REST)
    before[watcher] = await height_of(watcher, "The last line.")
    next_one.open()
    for tab in (page, watcher):
        await expect(answers(tab).last).to_contain_text("Paragraph 39")
    await at_end(page)
    assert abs(await height_of(watcher, "The last line.") - before[watcher]) < STILL
    await button(watcher, "Jump to latest").click()
    await at_end(watcher)


async def test_prompt_that_is_sent_now_goes_near_the_top_and_its_answer_is_followed(
    page: Page, model: Model
) -> None:
    first, second = Gate(), Gate()
    model.answer(LONG, first, to="First")
    model.answer("Slowly.", second, LONG, to="Second")
    await say(page, "First")
    await expect(answers(page)).to_contain_text("Paragraph 39")
    await box(page).fill("Second")
    await box(page).press("Enter")
    await page.get_by_role("log").hover()
    await page.mouse.wheel(0, -900)
    await chip(page, "Send now").click()
    await expect(answers(page).last).to_contain_text("Slowly.")
    words = messages(page).get_by_text("Second", exact=True)
    assert 32 <= await words.evaluate(TOP_OF) <= 50
    second.open()
    await expect(answers(page).last).to_contain_text("Paragraph 39")
    await at_end(page)


@pytest.mark.long
async def test_what_is_being_written_is_in_sight_on_a_low_window_however_many_prompts_wait(
    open_page: OpenPage, instances: Instances, model: Model
) -> None:
    page = await open_page(instances[0], viewport={"width": 640, "height": 400})
    gate = Gate()
    model.answer("This is being written just now.", gate, to="Slowly")
    await say(page, "Hello")
    await expect(answers(page)).to_contain_text("You said: Hello")
    await say(page, "Slowly")
    await gate.wait()
    for text in ("One", "Two", "Three", "Four"):
        await box(page).fill(text)
        await box(page).press("Enter")
    await expect(button(page, "3 more waiting")).to_be_visible()
    for width, height in ((640, 400), (844, 390)):
        await page.set_viewport_size({"width": width, "height": height})
        await page.evaluate(AT_REST)
        words = answers(page).get_by_text("This is being written just now.")
        assert await words.evaluate(TOP_OF) >= 0
        assert await words.evaluate(ABOVE_EDGE) > 0


@pytest.mark.long
async def test_answer_that_begins_anew_after_a_takeover_leaves_its_reader_in_place_and_says_why(
    store: Store,
    start_instance: StartInstance,
    open_page: OpenPage,
    instances: Instances,
    model: Model,
    watch: Watch,
) -> None:
    watch.allow("WebSocket connection to")
    watch.allow("ERR_CONNECTION_REFUSED")
    doomed = await start_instance(store)
    writer = await open_page(doomed)
    again = Gate()
    model.answer(LONG, Gate(), to="First")
    model.answer(again, LONG, "The end.", to="First")
    await say(writer, "First")
    await expect(answers(writer)).to_contain_text("Paragraph 39")
    page = await open_page(instances[1], writer.url.removeprefix(doomed.url), like=writer)
    await at_end(page)
    await page.get_by_role("log").hover()
    await page.mouse.wheel(0, -300)
    await expect(page.locator("chat-transcript")).not_to_have_attribute("data-pinned", "")
    await page.evaluate(AT_REST)
    read, before = await page.evaluate(FIRST_IN_SIGHT)
    await doomed.kill()
    await again.wait(seconds=30)
    await expect(answers(page).get_by_text("Starting again after an interruption")).to_be_in_viewport()
    await expect(page.get_by_role("status")).to_have_text("The answer begins again")
    await expect(answers(page)).to_contain_text("Paragraph 39")
    assert abs(await height_of(page, read) - before) < STILL
    again.open()
    await expect(answers(page)).to_contain_text("The end.")
    assert abs(await height_of(page, read) - before) < STILL
    await expect(answers(page).get_by_text("Starting again after an interruption")).to_be_hidden()
    await expect(answers(page).get_by_text("Paragraph 39")).to_have_count(1)


async def test_prompt_does_not_jump_when_it_is_accepted_and_stands_clear_of_the_header(
    page: Page, model: Model
) -> None:
    places: list[float] = []
    for prompt in ("First", "Second"):
        gate = Gate()
        model.answer(gate, "Done", to=prompt)
        await page.evaluate(WATCH_LAST_PROMPT)
        await say(page, prompt)
        await gate.wait()
        await expect(button(page, "Stop")).to_be_visible()
        await page.wait_for_function("() => seen.has('done')")
        gate.open()
        await idle(page)
        places += await page.evaluate("[...seen.values()]")
    assert max(places) - min(places) < STILL
    assert min(places) > 16


async def test_failure_counts_down_over_snapshots_and_offers_no_retry_where_it_cannot_help(
    page: Page, model: Model
) -> None:
    await page.clock.install()
    await page.reload()
    model.refuse(429, retry_after=90, to="alpha", times=9)
    await say(page, "alpha")
    retry = page.get_by_role("button", name="Retry")
    await expect(retry).to_be_disabled()
    await say(page, "beta")
    await expect(answers(page).last).to_contain_text("You said: beta")
    await button(page, "Regenerate").last.click()
    await expect(page.get_by_text("2/2")).to_be_visible()
    await idle(page)
    await button(page, "Previous version").last.click()
    await expect(page.get_by_text("1/2")).to_be_visible()
    await page.clock.fast_forward(92_000)
    await expect(retry).to_be_enabled()
    await expect(retry).to_have_text("Retry")
    model.refuse_length(to="gamma", times=9)
    await say(page, "gamma")
    await expect(page.get_by_text("Make your message shorter").last).to_be_visible()
    await expect(page.get_by_role("status")).to_have_text("")
    await expect(retry).to_have_count(1)
    await page.reload()
    await expect(page.get_by_text("Make your message shorter").last).to_be_visible()
    await expect(retry).to_have_count(1)
