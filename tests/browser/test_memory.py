"""What a chat remembers: read and put right in the dialog."""

from __future__ import annotations

from playwright.async_api import Page, expect

from tests.browser.conftest import OpenPage
from tests.browser.person import button, chats, say
from tests.conftest import StartInstance
from tests.instances import Store

WORDS = "words " * 150


async def open_memory(page: Page) -> None:
    """Choose "Memory" from the menu of the only chat."""
    await chats(page).first.hover()
    await page.get_by_role("button", name="Options for").first.click()
    await page.get_by_role("menuitem", name="Memory").click()
    await expect(page.get_by_role("dialog", name="Memory")).to_be_visible()


async def test_chat_without_a_summary_says_that_all_is_sent_whole(page: Page) -> None:
    await say(page, "Hi")
    await expect(button(page, "Send")).to_be_visible()
    await expect(chats(page)).to_have_count(1)
    await open_memory(page)
    dialog = page.get_by_role("dialog", name="Memory")
    await expect(dialog).to_contain_text("still sent to the model whole")
    await expect(dialog.get_by_role("button", name="Save")).to_be_hidden()
    await page.keyboard.press("Escape")
    await expect(dialog).to_be_hidden()


async def test_summary_is_read_and_corrected(
    store: Store, start_instance: StartInstance, open_page: OpenPage
) -> None:
    page = await open_page(await start_instance(store, CONTEXT_TOKENS="2000"))
    for number in range(12):
        await say(page, f"#{number} {WORDS}")
        await expect(page.get_by_role("log").get_by_role("article")).to_have_count(2 * number + 2)
        await expect(button(page, "Send")).to_be_visible()
    await open_memory(page)
    dialog = page.get_by_role("dialog", name="Memory")
    field = dialog.get_by_role("textbox", name="Summary")
    await expect(dialog).to_contain_text("messages are sent to the model in these words")
    await field.fill("They count in words.")
    await dialog.get_by_role("button", name="Save").click()
    await expect(dialog).to_be_hidden()
    await open_memory(page)
    await expect(field).to_have_value("They count in words.")
    await expect(dialog).to_contain_text("corrected by you")
