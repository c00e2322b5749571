"""What the eye reads stays where it is: when a waiting prompt's turn comes, and when an answer begins anew."""

from __future__ import annotations

from playwright.async_api import Page, expect

from tests.browser.conftest import OpenPage
from tests.browser.person import answers, box, button, say
from tests.browser.watch import Watch
from tests.conftest import StartInstance
from tests.fakes import Gate, Model
from tests.instances import Instance, Store

Instances = tuple[Instance, Instance]
LONG = "".join(f"Paragraph {number} of a long answer.\n\n" for number in range(40))
AT_END = """() => {
  const log = document.querySelector("[role=log]");
  return log.scrollTop > 0 && log.scrollHeight - log.scrollTop - log.clientHeight < 2;
}"""
STILL = 8  # pixels that nobody minds


async def height_of(page: Page, text: str) -> float:
    """Tell how far below the window's top a text stands."""
    rectangle = await page.get_by_text(text, exact=True).bounding_box()
    assert rectangle
    return rectangle["y"]


async def test_finished_answer_stays_in_sight_when_the_turn_of_a_waiting_prompt_comes(
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
    await expect(button(watcher, "Take back")).to_be_attached()
    before = {}
    for tab in (page, watcher):
        await tab.wait_for_function(AT_END)
        before[tab] = await height_of(tab, "The last line.")
    end.open()
    await next_one.wait()
    for tab in (page, watcher):
        await expect(answers(tab)).to_have_count(2)
        await expect(button(tab, "Take back")).to_have_count(0)
        assert abs(await height_of(tab, "The last line.") - before[tab]) < STILL
    next_one.open()
    for tab in (page, watcher):
        await expect(answers(tab).last).to_contain_text("Paragraph 39")
        assert abs(await height_of(tab, "The last line.") - before[tab]) < STILL
        await button(tab, "Jump to latest").click()
        await tab.wait_for_function(AT_END)


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
    await page.wait_for_function(AT_END)
    await page.get_by_role("log").hover()
    await page.mouse.wheel(0, -300)
    await expect(page.locator("chat-transcript")).not_to_have_attribute("data-pinned", "")
    position = "document.querySelector('[role=log]').scrollTop"
    before = await page.evaluate(position)
    await doomed.kill()
    await again.wait(seconds=30)
    await expect(answers(page).get_by_text("Starting again after an interruption")).to_be_in_viewport()
    await expect(page.get_by_role("status")).to_have_text("The answer begins again")
    await expect(answers(page)).to_contain_text("Paragraph 39")
    assert await page.evaluate(position) == before
    again.open()
    await expect(answers(page)).to_contain_text("The end.")
    assert await page.evaluate(position) == before
    await expect(answers(page).get_by_text("Starting again after an interruption")).to_be_hidden()
    await expect(answers(page).get_by_text("Paragraph 39")).to_have_count(1)
