"""The page where a password is asked, and where a limit is reached."""

from __future__ import annotations

import re
import secrets

import pytest
from playwright.async_api import Page, expect

from tests.browser.conftest import OpenPage
from tests.browser.person import answers, box, button, chats, messages, say
from tests.browser.watch import Watch
from tests.conftest import StartInstance
from tests.instances import Instance, Store

PASSWORD = "correct horse battery"


@pytest.fixture
async def asking(store: Store, start_instance: StartInstance) -> Instance:
    """An instance that asks for the password."""
    return await start_instance(
        store, ACCESS_PASSWORD=PASSWORD, REDIS_PREFIX=f"asking-{secrets.token_hex(4)}"
    )


async def give(page: Page, password: str) -> None:
    """Fill in the form and send it with Enter."""
    await page.get_by_label("Password").fill(password)
    await page.get_by_label("Password").press("Enter")


async def test_person_signs_in_chats_and_signs_out_in_all_tabs(
    asking: Instance, open_page: OpenPage, watch: Watch
) -> None:
    watch.allow("403")
    page = await open_page(asking)
    await expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    await expect(page.get_by_label("Password")).to_be_focused()
    await give(page, "a wrong guess")
    await expect(page.get_by_role("alert")).to_have_text("This is not the password.")
    await expect(page.get_by_label("Password")).to_be_focused()
    await give(page, PASSWORD)
    await page.wait_for_url(f"{asking.url}/")  # and its scripts: before them, Enter is a new line
    await say(page, "Hello")
    await expect(answers(page)).to_contain_text("You said: Hello")

    tab = await page.context.new_page()
    await tab.goto(page.url)
    await expect(answers(tab)).to_contain_text("You said: Hello")
    await button(page, "Sign out").click()
    await expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    await expect(tab.locator("connection-pill")).to_contain_text("You are signed out")
    await box(tab).fill("Half a thought")
    await tab.reload()
    await expect(tab.get_by_role("heading", name="Sign in")).to_be_visible()
    await give(tab, PASSWORD)
    await expect(tab).to_have_url(re.compile("/c/"))
    await expect(chats(tab)).to_have_count(1)
    await expect(box(tab)).to_have_value("Half a thought")


async def test_page_without_a_password_has_no_way_out(page: Page) -> None:
    await expect(button(page, "New chat").first).to_be_visible()
    await expect(button(page, "Sign out")).to_have_count(0)


async def test_prompt_over_the_limit_waits_and_says_how_long_and_can_be_taken_back(
    store: Store, start_instance: StartInstance, open_page: OpenPage
) -> None:
    page = await open_page(
        await start_instance(store, PROMPTS_PER_MINUTE="1", REDIS_PREFIX=f"limit-{secrets.token_hex(4)}")
    )
    await say(page, "One")
    await expect(answers(page)).to_contain_text("You said: One")
    await say(page, "Two")
    await expect(page.get_by_text(re.compile(r"Will be sent in \d+ s$"))).to_be_visible()
    await expect(messages(page).nth(2)).to_contain_text("Two")
    await expect(box(page)).to_have_value("")
    await box(page).press("Escape")
    await expect(box(page)).to_have_value("Two")
    await expect(messages(page)).to_have_count(2)
