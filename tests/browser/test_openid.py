"""Signing in by an OpenID provider, as a person does it."""

from __future__ import annotations

import re
import secrets
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Page, expect

from tests.browser.axe import findings
from tests.browser.conftest import OpenPage
from tests.browser.person import answers, box, button, chats, say
from tests.browser.watch import Watch
from tests.conftest import StartInstance
from tests.instances import Instance, Store
from tests.provider import Provider


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    async with Provider() as provider:
        yield provider


@pytest.fixture
async def instance(provider: Provider, store: Store, start_instance: StartInstance) -> Instance:
    """An instance that has the provider, and lets in anonymous sessions, too."""
    return await start_instance(store, **provider.environment(REDIS_PREFIX=f"openid-{secrets.token_hex(4)}"))


async def sign_in(page: Page) -> None:
    """Follow the links."""
    await page.get_by_role("link", name="Sign in", exact=True).click()
    await page.get_by_role("link", name="Sign in with the tests").click()


async def test_person_takes_chats_and_half_a_thought_along_in_all_tabs_and_finds_them_elsewhere(
    instance: Instance, open_page: OpenPage
) -> None:
    page = await open_page(instance)
    await say(page, "Hello")
    await expect(answers(page)).to_contain_text("You said: Hello")
    tab = await page.context.new_page()
    await tab.goto(page.url)
    await box(tab).fill("Half a thought")

    await sign_in(page)
    await expect(page).to_have_url(re.compile("/c/"))
    await expect(page.get_by_text("1 chat of this browser came along")).to_be_visible()
    await expect(page.get_by_role("link", name="Ann Example")).to_be_visible()
    await expect(answers(page)).to_contain_text("You said: Hello")
    await expect(tab.locator("connection-pill")).to_have_attribute("data-state", "connected")
    await expect(box(tab)).to_have_value("Half a thought")
    await box(tab).press("Enter")
    await expect(answers(tab).nth(1)).to_contain_text("You said: Half a thought")
    await expect(answers(page).nth(1)).to_contain_text("You said: Half a thought")

    elsewhere = await open_page(instance)
    await sign_in(elsewhere)
    await expect(chats(elsewhere)).to_have_count(1)
    await expect(elsewhere.get_by_text("came along")).to_have_count(0)

    await elsewhere.get_by_role("link", name="Ann Example").click()
    await elsewhere.get_by_role("button", name="Sign out everywhere").click()
    await expect(elsewhere.get_by_role("heading", name="You are signed out")).to_be_visible()
    for each in (page, tab):
        await expect(each.locator("connection-pill")).to_contain_text("You are signed out")
    await elsewhere.get_by_role("link", name="Chat without signing in").click()
    await expect(chats(elsewhere)).to_have_count(0)


async def test_chats_can_be_left_to_the_browser(instance: Instance, open_page: OpenPage) -> None:
    page = await open_page(instance)
    await say(page, "For this browser")
    await expect(answers(page)).to_contain_text("You said: For this browser")
    await page.get_by_role("link", name="Sign in", exact=True).click()
    await page.get_by_role("link", name="leave these chats here").click()
    await expect(page.get_by_role("heading", name="What is on your mind?")).to_be_visible()
    await expect(chats(page)).to_have_count(0)
    await button(page, "Sign out").click()
    await page.get_by_role("link", name="Chat without signing in").click()
    await expect(chats(page)).to_have_count(1)


async def test_person_signs_in_and_out_where_no_script_runs(instance: Instance, open_page: OpenPage) -> None:
    page = await open_page(instance, java_script_enabled=False)
    await page.get_by_label("Message", exact=True).fill("Hello")
    await button(page, "Send").click()
    await expect(page.get_by_text("You said: Hello")).to_be_visible()
    await sign_in(page)
    await expect(page.get_by_text("1 chat of this browser came along")).to_be_visible()
    await button(page, "Sign out").click()
    await page.get_by_role("link", name="Sign out of the tests, too").click()
    await expect(page.get_by_text("You are signed out here, too.")).to_be_visible()


async def test_provider_that_is_away_is_told_on_the_page_and_tried_again(
    instance: Instance, provider: Provider, open_page: OpenPage, watch: Watch
) -> None:
    watch.allow("503")
    page = await open_page(instance)
    await provider.close_door()
    await sign_in(page)
    await expect(page.get_by_role("alert")).to_contain_text("cannot be reached now")
    await provider.open_door()
    await page.get_by_role("link", name="Sign in with the tests").click()
    await expect(page.get_by_role("link", name="Ann Example")).to_be_visible()


async def test_every_view_of_signing_in_is_accessible(instance: Instance, open_page: OpenPage) -> None:
    page = await open_page(instance)
    await say(page, "Hello")
    await expect(answers(page)).to_contain_text("You said: Hello")
    assert await findings(page) == []
    await page.get_by_role("link", name="Sign in", exact=True).click()
    await page.get_by_role("link", name="Sign in with the tests").wait_for()
    assert await findings(page) == []
    await page.get_by_role("link", name="Sign in with the tests").click()
    await expect(page.get_by_text("came along")).to_be_visible()
    assert await findings(page) == []
    await page.get_by_role("link", name="Ann Example").click()
    assert await findings(page) == []
    await button(page, "Sign out").click()
    await page.get_by_role("heading", name="You are signed out").wait_for()
    assert await findings(page) == []
