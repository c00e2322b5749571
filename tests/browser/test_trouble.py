"""The page when something is away, missing or too wide."""

from __future__ import annotations

import pytest
from playwright.async_api import Page, expect

from tests.browser.conftest import OpenPage
from tests.browser.person import answers, button, idle, messages, say
from tests.browser.watch import Watch
from tests.conftest import StartInstance
from tests.fakes import Gate, Model
from tests.instances import Instance, Store

Instances = tuple[Instance, Instance]


@pytest.mark.long
async def test_page_says_that_the_store_is_away_and_goes_on_when_it_is_back(
    fresh_store: Store, start_instance: StartInstance, open_page: OpenPage, model: Model
) -> None:
    page = await open_page(await start_instance(fresh_store))
    gate = Gate()
    model.answer("Before, ", gate, "and after.")
    await say(page, "Tell me")
    await expect(answers(page)).to_contain_text("Before,")
    pill = page.locator("connection-pill")
    await expect(pill).to_be_hidden()
    await fresh_store.stop()
    await expect(pill).to_contain_text("The store is away")
    gate.open()
    await fresh_store.start()
    await expect(answers(page)).to_contain_text("Before, and after.", timeout=20_000)
    await idle(page)
    await expect(pill).to_be_hidden()


@pytest.mark.long
async def test_page_that_could_not_be_made_comes_by_itself_when_the_store_is_back(
    fresh_store: Store, start_instance: StartInstance, open_page: OpenPage, watch: Watch
) -> None:
    instance = await start_instance(fresh_store)
    page = await open_page(instance)
    await say(page, "Hello")
    await expect(answers(page)).to_contain_text("Hello")
    watch.allow("503")
    watch.allow("WebSocket")
    await fresh_store.stop()
    await page.reload()
    await expect(page.get_by_role("heading", name="One moment")).to_be_visible()
    await fresh_store.start()
    await expect(answers(page)).to_contain_text("Hello", timeout=20_000)


@pytest.mark.long
async def test_page_tells_the_cause_of_many_failures_to_eye_and_ear(
    store: Store, start_instance: StartInstance, open_page: OpenPage, watch: Watch
) -> None:
    watch.allow("WebSocket connection to")
    watch.allow("ERR_CONNECTION_REFUSED")
    instance = await start_instance(store)
    page = await open_page(instance)
    await say(page, "Before")
    await expect(answers(page)).to_contain_text("You said: Before")
    await expect(page.get_by_role("status")).to_have_text("Answer complete. You said: Before")
    await instance.kill()
    await expect(page.get_by_role("status")).to_contain_text("The server cannot be reached")
    await expect(page.locator("connection-pill")).to_contain_text("The server cannot be reached")
    await expect(button(page, "Try now")).to_be_visible()
    await instance.start()
    await expect(page.locator("connection-pill")).to_be_hidden(timeout=20_000)
    await expect(page.get_by_role("status")).to_have_text("")
    await say(page, "After")
    await expect(answers(page).last).to_contain_text("You said: After")


@pytest.mark.long
async def test_long_word_is_broken_inside_its_bubble(open_page: OpenPage, instances: Instances) -> None:
    for width in (1280, 390):
        page = await open_page(instances[0], viewport={"width": width, "height": 800})
        await say(page, "https://example.com/" + "a" * 150)
        await expect(answers(page)).to_contain_text("example.com")
        bubble = await messages(page).first.locator(".words").bounding_box()
        assert bubble is not None
        assert bubble["x"] >= 0
        assert bubble["x"] + bubble["width"] <= width
        assert bubble["height"] > 40


async def test_address_of_nothing_says_so_in_our_own_page(
    page: Page, watch: Watch, instances: Instances
) -> None:
    watch.allow("404")
    await page.goto(instances[0].url + "/nope")
    await expect(page.get_by_role("heading", name="There is nothing here")).to_be_visible()
    await page.get_by_role("link", name="New chat").click()
    await expect(page.get_by_role("textbox", name="Message")).to_be_visible()
