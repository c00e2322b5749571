"""A chat that was shown is there again at once; one that cannot be read now is promised; a branch that is left is forgotten."""

from __future__ import annotations

import re

from playwright.async_api import Page, expect

from tests.browser.conftest import OpenPage
from tests.browser.line import TRY_AGAIN_LATER, Line
from tests.browser.person import answers, box, button, chats, idle, messages, say, waiting
from tests.browser.watch import Watch
from tests.fakes import Gate, Model
from tests.instances import Instance

Instances = tuple[Instance, Instance]
TURN = """async (link) => {
  link.click();
  await null;
  return [document.querySelector("queue-chips").hidden, document.querySelector("[role=log]").inert];
}"""
AWAY = "This chat will be shown when the connection is back"


async def begun(page: Page, *prompts: str) -> None:
    """Have a chat for each prompt."""
    for number, prompt in enumerate(prompts, start=1):
        await button(page, "New chat").first.click()
        await say(page, prompt)
        await expect(answers(page)).to_contain_text(f"You said: {prompt}")
        await idle(page)
        await expect(chats(page)).to_have_count(number)


async def test_chats_shown_before_are_there_without_a_connection_and_others_are_promised(
    open_page: OpenPage, instances: Instances, watch: Watch
) -> None:
    watch.allow("WebSocket connection to")
    page = await open_page(instances[0])
    await begun(page, "One", "Two", "Three")
    line = await Line.lay(page)
    await chats(page).filter(has_text="Two").click()
    await expect(answers(page)).to_contain_text("You said: Two")
    elsewhere = await open_page(instances[1], page.url.removeprefix(instances[0].url), like=page)
    line.closing = TRY_AGAIN_LATER
    await line.cut(TRY_AGAIN_LATER)
    await expect(page.locator("chat-transcript[data-lost]")).to_be_attached()
    await say(elsewhere, "And more")
    await expect(answers(elsewhere)).to_have_count(2)
    await chats(page).filter(has_text="Three").click()
    await expect(answers(page)).to_contain_text("You said: Three")
    await chats(page).filter(has_text="One").click()
    await expect(page.get_by_role("main").get_by_text(AWAY)).to_be_visible()
    await expect(page.get_by_role("status")).to_have_text(AWAY)
    await expect(messages(page)).to_have_count(0)
    await chats(page).filter(has_text="Two").click()
    await expect(page.get_by_role("main").get_by_text(AWAY)).to_be_hidden()
    await expect(answers(page)).to_have_text([re.compile("You said: Two")])
    line.closing = None
    await page.evaluate("dispatchEvent(new Event('online'))")
    await expect(answers(page)).to_have_count(2)
    await expect(answers(page).last).to_contain_text("You said: And more")
    await chats(page).filter(has_text="One").click()
    await expect(answers(page)).to_have_text([re.compile("You said: One")])
    await expect(page.get_by_role("main").get_by_text(AWAY)).to_be_hidden()


async def test_answer_on_another_branch_of_which_a_snapshot_passed_over_words_costs_no_further_snapshot(
    page: Page, model: Model
) -> None:
    line = await Line.lay(page)
    more, end = Gate(), Gate()
    for version in ("Version one", "Version two", "Version three"):
        model.answer(version, to="Upper")
    model.answer("It runs, ", more, "grows ", end, "and ends.", to="Lower")
    await say(page, "Upper")
    await expect(answers(page)).to_contain_text("Version one")
    for version in ("Version two", "Version three"):
        await idle(page)
        await button(page, "Regenerate").click()
        await expect(answers(page)).to_contain_text(version)
    await say(page, "Lower")
    await expect(answers(page).last).to_contain_text("It runs,")
    await button(page, "Previous version").click()
    await expect(answers(page)).to_have_text([re.compile("Version two")])
    line.hold("completion.delta")
    more.open()
    await end.wait()
    await button(page, "Previous version").click()
    await expect(answers(page)).to_have_text([re.compile("Version one")])
    assert line.held
    line.bend = str
    opened = line.count("conversation.open")
    end.open()
    await line.told("completion.finished", 4)
    await idle(page)
    await say(page, "After")
    await expect(answers(page).last).to_contain_text("You said: After")
    assert line.count("conversation.open") == opened


async def test_nothing_of_the_chat_that_is_left_is_at_hand_while_the_next_one_comes(
    page: Page, model: Model
) -> None:
    await begun(page, "One", "Two")
    await page.reload()
    end = Gate()
    model.answer("It runs", end, to="More")
    await say(page, "More")
    await expect(answers(page).last).to_contain_text("It runs")
    await box(page).fill("This waits")
    await box(page).press("Enter")
    await expect(waiting(page)).to_have_count(1)
    link = await chats(page).filter(has_text="One").element_handle()
    assert link
    assert await link.evaluate(TURN) == [True, True]
    await expect(answers(page)).to_have_text([re.compile("You said: One")])
    await expect(page.get_by_role("log")).to_have_js_property("inert", False)
    await chats(page).filter(has_text="Two").click()
    await expect(waiting(page)).to_have_count(1)
    end.open()
