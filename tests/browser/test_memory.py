"""What a chat remembers: read and put right in the dialog."""

from __future__ import annotations

import pytest
from playwright.async_api import Page, expect

from tests.browser.conftest import OpenPage
from tests.browser.line import Line
from tests.browser.person import answers, button, chats, idle, messages, say
from tests.conftest import StartInstance
from tests.instances import Store

WORDS = "words " * 150


async def open_memory(page: Page) -> None:
    """Choose "Memory" from the menu of the first chat, and wait for it."""
    await ask_memory(page)
    await expect(page.get_by_role("dialog", name="Memory")).to_be_visible()


async def ask_memory(page: Page) -> None:
    """Choose "Memory" from the menu of the first chat."""
    await chats(page).first.hover()
    await page.get_by_role("button", name="Options for").first.click()
    await page.get_by_role("menuitem", name="Memory").click()


async def test_chat_without_a_summary_says_that_all_is_sent_whole(page: Page) -> None:
    await say(page, "Hi")
    await idle(page)
    await expect(chats(page)).to_have_count(1)
    await open_memory(page)
    dialog = page.get_by_role("dialog", name="Memory")
    await expect(dialog).to_contain_text("still sent to the model whole")
    await expect(dialog.get_by_role("button", name="Save")).to_be_hidden()
    await expect(dialog.get_by_role("heading", name="Memory")).to_be_focused()
    await page.keyboard.press("Escape")
    await expect(dialog).to_be_hidden()


async def test_memory_that_comes_late_is_not_laid_over_another_chat_and_is_not_awaited_for_ever(
    page: Page,
) -> None:
    await page.clock.install()
    line = await Line.lay(page)
    await say(page, "Hi")
    await idle(page)
    line.hold("conversation.summary")
    await ask_memory(page)
    await line.asked("conversation.summary")
    await button(page, "New chat").first.click()
    await say(page, "Other")
    await expect(answers(page)).to_contain_text("You said: Other")
    await line.holds()
    line.tell(line.held.pop())
    await say(page, "More")
    await expect(answers(page).last).to_contain_text("You said: More")
    await expect(page.get_by_role("dialog", name="Memory")).to_be_hidden()
    await ask_memory(page)
    await line.asked("conversation.summary", 2)
    await page.clock.run_for(16_000)
    await expect(page.get_by_text("did not answer in time").first).to_be_visible()


@pytest.mark.long
async def test_summary_is_read_and_corrected(
    store: Store, start_instance: StartInstance, open_page: OpenPage
) -> None:
    page = await open_page(await start_instance(store, CONTEXT_TOKENS="2000"))
    line = await Line.lay(page)
    for number in range(12):
        await say(page, f"#{number} {WORDS}")
        await expect(messages(page)).to_have_count(2 * number + 2)
        await idle(page)
    await open_memory(page)
    dialog = page.get_by_role("dialog", name="Memory")
    field = dialog.get_by_role("textbox", name="Summary")
    await expect(dialog).to_contain_text("messages are sent to the model in these words")
    summary = await field.input_value()
    await expect(
        dialog.get_by_role("heading", name="Memory")
    ).to_be_focused()  # no keyboard comes up on a phone
    await field.fill("They count")
    await page.keyboard.press("Escape")
    await expect(dialog).to_be_hidden()
    await open_memory(page)
    await expect(field).to_have_value("They count")
    await expect(dialog.get_by_text("not saved yet")).to_be_visible()
    await dialog.get_by_role("button", name="Discard").click()
    await expect(field).to_have_value(summary)
    await expect(dialog.get_by_text("not saved yet")).to_be_hidden()
    await field.fill("They count in words." * 4000)
    await dialog.get_by_role("button", name="Save").click()
    await expect(dialog.get_by_role("alert")).to_contain_text(
        "at most 8000 characters: this is 72000 too many"
    )
    await expect(field).to_have_value("They count in words." * 4000)
    await field.fill("They count in words.")
    await field.evaluate(
        """field => { for (let times = 0; times < 2; times++)
             field.dispatchEvent(new KeyboardEvent("keydown", {key: "Enter", ctrlKey: true, bubbles: true})); }"""
    )
    await expect(dialog).to_be_hidden()
    assert line.count('"summary.correct"') == 1
    await open_memory(page)
    await expect(field).to_have_value("They count in words.")
    await expect(dialog).to_contain_text("corrected by you")
