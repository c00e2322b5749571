"""What a new chat is told before its first message: written on its page, and sent with it, whatever happens meanwhile."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.async_api import Locator, Page, expect

from tests.browser.axe import findings
from tests.browser.conftest import OpenPage
from tests.browser.line import Line
from tests.browser.person import answers, box, button, chats, idle, say
from tests.browser.test_chats import begin
from tests.conftest import StartInstance
from tests.fakes import Model
from tests.instances import Instance, Store

Instances = tuple[Instance, Instance]
SCREENS: list[dict[str, Any]] = [{}, {"viewport": {"width": 390, "height": 844}, "has_touch": True}]
PIRATE = "Speak like a pirate"
SET = "They go with your first message"


def dialog(page: Page) -> Locator:
    return page.get_by_role("dialog", name="Instructions")


async def instruct(page: Page, system: str, **numbers: str) -> None:
    """Write instructions, and close the dialog with Escape."""
    await button(page, "Instructions").click()
    await dialog(page).get_by_label("System prompt").fill(system)
    for label, number in numbers.items():
        await dialog(page).get_by_label(label.replace("_", " ")).fill(number)
    await page.keyboard.press("Escape")
    await expect(dialog(page)).to_be_hidden()


async def is_set(page: Page, there: bool = True) -> None:
    await expect(button(page, "Instructions")).to_have_accessible_description(SET if there else "")


@pytest.mark.parametrize("screen", SCREENS)
async def test_instructions_are_written_and_put_right_before_the_first_message_takes_them_along(
    open_page: OpenPage, instances: Instances, model: Model, screen: dict[str, Any]
) -> None:
    page = await open_page(instances[0], **screen)
    await is_set(page, False)
    await button(page, "Instructions").click()
    await dialog(page).get_by_label("System prompt").fill(f" {PIRATE} ")
    await dialog(page).get_by_label("Temperature").fill("2,5")
    await button(page, "Done").click()
    await expect(dialog(page).get_by_role("alert")).to_have_text(
        "Temperature is a number from 0 to 2, or empty."
    )
    await expect(dialog(page).get_by_label("Temperature")).to_be_focused()
    assert await findings(page) == []
    await dialog(page).get_by_label("Temperature").fill("0,5")
    await dialog(page).get_by_label("Longest answer").fill("100")
    await button(page, "Done").click()
    await expect(button(page, "Instructions")).to_be_focused()
    await is_set(page)
    await page.reload()
    await is_set(page)
    await page.get_by_role("switch", name="Temporary chat").check()
    await box(page).fill("Hello")
    await button(page, "Send").click()
    await expect(answers(page)).to_contain_text("You said: Hello")
    asked: Any = await model.asked()
    assert asked.body["messages"][0] == {"role": "system", "content": PIRATE}
    assert (asked.body["temperature"], asked.body["max_tokens"]) == (0.5, 100)
    await idle(page)
    await page.get_by_role("link", name="Chat settings").click()
    await expect(page.get_by_label("System prompt")).to_have_value(PIRATE)
    await page.goto(instances[0].url)
    await is_set(page, False)


async def test_instructions_are_forgotten_when_another_chat_is_opened_or_they_are_cleared(
    page: Page, model: Model
) -> None:
    await begin(page, "Other")
    await button(page, "New chat").first.click()
    await instruct(page, PIRATE)
    await is_set(page)
    await chats(page).first.click()
    await expect(answers(page)).to_have_count(1)
    await button(page, "New chat").first.click()
    await is_set(page, False)
    await instruct(page, PIRATE)
    await button(page, "Instructions").click()
    await button(page, "Clear").click()
    await page.keyboard.press("Escape")
    await is_set(page, False)
    await say(page, "Hello")
    await expect(answers(page)).to_contain_text("You said: Hello")
    asked: Any = [await model.asked() for _ in range(2)][-1]
    assert PIRATE not in str(asked.body)


async def test_first_message_written_without_a_connection_keeps_its_instructions_over_another_chat_and_a_reload(
    page: Page, model: Model
) -> None:
    await begin(page, "Other")
    line = await Line.lay(page)
    await page.reload()
    await idle(page)
    await button(page, "New chat").first.click()
    await instruct(page, PIRATE, Top_p="0.9")
    line.closing = 1013
    await line.cut(1013)
    await box(page).fill("Hello")
    await box(page).press("Enter")
    await expect(page.get_by_text("Will be sent when the connection is back", exact=True)).to_be_visible()
    await chats(page).first.click()
    await button(page, "New chat").first.click()
    await expect(page.get_by_text("Will be sent when the connection is back", exact=True)).to_be_visible()
    line.closing = None
    await page.reload()
    await expect(answers(page)).to_contain_text("You said: Hello")
    asked: Any = [await model.asked() for _ in range(2)][-1]
    assert asked.body["messages"][0]["content"] == PIRATE
    assert asked.body["top_p"] == 0.9


async def test_message_whose_instructions_are_refused_is_given_back_with_them(
    start_instance: StartInstance, open_page: OpenPage, store: Store
) -> None:
    page = await open_page(await start_instance(store, CONTEXT_TOKENS="1000"))
    await instruct(page, "word " * 1000)
    await say(page, "Hello")
    await expect(page.locator("#problem")).to_contain_text(
        "takes more than half of what the model can be sent"
    )
    await expect(box(page)).to_have_value("Hello")
    await is_set(page)
    await instruct(page, PIRATE)
    await box(page).press("Enter")
    await expect(answers(page)).to_contain_text("You said: Hello")
