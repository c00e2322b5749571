"""The page as an app: installed, in a tab that nobody looks at, with what was chosen; and titles that come by themselves."""

from __future__ import annotations

import json
import struct
from collections.abc import AsyncIterator
from urllib.parse import urljoin

import pytest
from playwright.async_api import Page, expect

from tests.browser.conftest import OpenPage
from tests.browser.person import answers, button, chats, hide, idle, say
from tests.conftest import StartInstance, pair_of
from tests.fakes import Gate, Model
from tests.instances import Instance, Store

Instances = tuple[Instance, Instance]
NOTIFIED = """permission => {
  window.notified = [];
  window.Notification = class {
    static permission = permission.before;
    static async requestPermission() { return (this.permission = permission.after); }
    constructor(title, options) { notified.push({ title, ...options }); window.newest = this; }
    close() { window.closed_ = true; }
  };
}"""
BADGE = """
  window.badges = [];
  navigator.setAppBadge = async (count) => void badges.push(count);
  navigator.clearAppBadge = async () => void badges.push(0);
"""
UNREAD = "element => element.closest('li').hasAttribute('data-unread')"


@pytest.fixture(scope="module")
async def naming(store: Store, model_server: Model) -> AsyncIterator[Instances]:
    """Two instances that have chats named by the model that answers."""
    async with pair_of(store, model_server, TITLE_MODEL="") as pair:
        yield pair


async def with_notifications(page: Page, *, before: str = "default", after: str = "granted") -> None:
    """Give the page a browser that notes what it is asked to show."""
    await page.add_init_script(f"({NOTIFIED})({json.dumps({'before': before, 'after': after})})")
    await page.reload()


async def test_manifest_has_no_fault_and_its_icons_are_what_it_says(page: Page) -> None:
    cdp = await page.context.new_cdp_session(page)
    found = await cdp.send("Page.getAppManifest")
    assert found["errors"] == []
    response = await page.request.get(found["url"])
    assert response.headers["content-type"] == "application/manifest+json"
    manifest = await response.json()
    assert (manifest["start_url"], manifest["display"]) == ("/", "standalone")
    apple = await page.locator("link[rel=apple-touch-icon]").get_attribute("href")
    icons = [(each["src"], each["sizes"]) for each in manifest["icons"]] + [(apple, "180x180")]
    assert {"maskable"} < {each.get("purpose", "any") for each in manifest["icons"]}
    for src, sizes in icons:
        icon = await page.request.get(urljoin(found["url"], src))
        assert icon.headers["content-type"] == "image/png"
        width, height = struct.unpack(">II", (await icon.body())[16:24])
        assert sizes == f"{width}x{height}"


async def test_colour_around_the_app_is_that_of_the_theme_that_was_chosen(page: Page) -> None:
    shown = "() => [...document.querySelectorAll('[name=theme-color]')].find(({media}) => matchMedia(media).matches).content"
    light = await page.evaluate(shown)
    await page.get_by_role("radio", name="Dark").check(force=True)
    dark = await page.evaluate(shown)
    assert light != dark
    await page.reload()
    await expect(page.get_by_role("radio", name="Dark")).to_be_checked()
    assert await page.evaluate(shown) == dark


async def test_title_and_icon_of_a_tab_that_nobody_looks_at_count_the_chats_with_new_answers(
    page: Page, model: Model
) -> None:
    await page.add_init_script(BADGE)
    await page.reload()
    await say(page, "One")
    await idle(page)
    first, second = Gate(), Gate()
    model.answer(first, "done", to="Two")
    model.answer(second, "done", to="Three")
    await say(page, "Two")
    await first.wait()
    await button(page, "New chat").first.click()
    await say(page, "Three")
    await second.wait()
    await hide(page)
    first.open()
    await expect(page).to_have_title("(1) Three")
    await page.wait_for_function("() => badges.at(-1) === 1")
    second.open()
    await expect(page).to_have_title("(2) Three")
    await page.wait_for_function("() => badges.at(-1) === 2")
    await hide(page, False)
    await expect(page).to_have_title("Three")
    assert await page.evaluate("badges.at(-1)") == 0
    await say(page, "Four")
    await expect(answers(page).last).to_contain_text("You said: Four")
    await idle(page)
    await expect(page).to_have_title("Three")


async def test_answer_in_a_hidden_tab_is_notified_where_that_is_wanted_and_a_click_leads_to_it(
    page: Page, model: Model
) -> None:
    await with_notifications(page)
    switch = page.get_by_role("switch", name="Notify me of answers")
    await expect(switch).not_to_be_checked()
    await switch.click()
    await expect(switch).to_be_checked()
    gate = Gate()
    model.answer(gate, "The **first** sentence. And more.")
    await say(page, "One")
    await gate.wait()
    await hide(page)
    gate.open()
    await page.wait_for_function("() => notified.length === 1")
    await hide(page, False)
    (told,) = await page.evaluate("notified")
    assert (told["title"], told["body"]) == ("One", "The first sentence.")
    assert page.url.endswith(told["tag"])
    await button(page, "New chat").first.click()
    await page.evaluate("newest.onclick()")
    await expect(answers(page)).to_contain_text("The first sentence.")
    assert await page.evaluate("closed_")
    await say(page, "Seen")
    await expect(answers(page).last).to_contain_text("You said: Seen")
    await idle(page)
    assert await page.evaluate("notified.length") == 1


async def test_answer_is_not_notified_while_another_tab_of_the_browser_is_looked_at(
    page: Page, instances: Instances, model: Model
) -> None:
    await with_notifications(page, before="granted")
    await page.get_by_role("switch", name="Notify me of answers").click()
    gate = Gate()
    model.answer(gate, "done")
    await say(page, "One")
    await gate.wait()
    other = await page.context.new_page()
    await other.goto(instances[0].url)
    await expect(other.get_by_role("switch", name="Follow answers")).to_be_visible()
    await other.wait_for_function(
        "async () => (await navigator.locks.query()).held.some(({ name }) => name === 'llmchat.seen')"
    )
    await hide(page)
    gate.open()
    await expect(page).to_have_title("(1) One")
    await hide(other)
    await say(page, "Two")
    await page.wait_for_function("() => notified.length === 1")
    assert [each["body"] for each in await page.evaluate("notified")] == ["You said: Two"]


async def test_browser_that_refuses_notifications_is_said_so_and_the_switch_stays_off(page: Page) -> None:
    await with_notifications(page, after="denied")
    switch = page.get_by_role("switch", name="Notify me of answers")
    await switch.click()
    await expect(page.get_by_role("status")).to_contain_text("does not let this page notify you")
    await expect(page.locator("notify-switch")).to_contain_text("in the browser’s settings")
    await expect(page.get_by_role("region", name="Notices")).to_be_hidden()
    await expect(switch).not_to_be_checked()


@pytest.mark.long
async def test_what_was_chosen_is_kept_and_is_the_same_in_all_tabs(page: Page, instances: Instances) -> None:
    other = await page.context.new_page()
    for each in (page, other):
        await each.goto(instances[0].url)
        await with_notifications(each, before="granted")
    await page.get_by_role("radio", name="Dark").check(force=True)
    await page.get_by_role("switch", name="Follow answers").click()
    await page.get_by_role("switch", name="Notify me of answers").click()
    await button(page, "Keyboard shortcuts").click()
    await page.get_by_role("switch", name="Use these shortcuts").uncheck()
    await page.keyboard.press("Escape")
    for _ in range(2):
        await expect(other.locator("html")).to_have_attribute("data-theme", "dark")
        await expect(other.get_by_role("radio", name="Dark")).to_be_checked()
        await expect(other.get_by_role("switch", name="Follow answers")).not_to_be_checked()
        await expect(other.get_by_role("switch", name="Notify me of answers")).to_be_checked()
        await button(other, "Keyboard shortcuts").click()
        await expect(other.get_by_role("switch", name="Use these shortcuts")).not_to_be_checked()
        await other.reload()
    await button(page, "Hide chats").click()
    for _ in range(2):
        await expect(button(other, "Show chats")).to_be_visible()
        await other.reload()


async def test_title_of_a_chat_comes_by_itself_in_two_browsers_and_moves_and_marks_nothing(
    open_page: OpenPage, naming: Instances, model: Model
) -> None:
    gate = Gate()
    model.name(gate, "Rainbows in Simple Words")
    page = await open_page(naming[0])
    await say(page, "How does a rainbow form?")
    await gate.wait()
    other = await open_page(naming[1], like=page)
    await expect(chats(other)).to_have_text(["How does a rainbow form?"])
    model.name("Second")
    await say(other, "Something else")
    await expect(chats(other)).to_have_text(["Second", "How does a rainbow form?"])
    await idle(other)
    await expect(chats(page)).to_have_text(["Second", "How does a rainbow form?"])
    gate.open()
    for each in (page, other):
        await expect(chats(each)).to_have_text(["Second", "Rainbows in Simple Words"])
        assert not await chats(each).nth(1).evaluate(UNREAD)
    await expect(page.get_by_role("heading", level=1)).to_have_text("Rainbows in Simple Words")
    await expect(page).to_have_title("Rainbows in Simple Words")
    await expect(other.get_by_role("heading", level=1)).to_have_text("Second")


@pytest.mark.long
async def test_models_of_the_provider_can_be_chosen_on_a_phone_however_many_and_long_they_are(
    store: Store, start_instance: StartInstance, open_page: OpenPage, model: Model
) -> None:
    long = "organisation/a-very-long-name-of-a-model-" + "x" * 120
    model.models = (*(f"model-{number}" for number in range(150)), long, "text-embedding-3-small")
    page = await open_page(
        await start_instance(store, OPENAI_MODELS=f"*,{long}"), viewport={"width": 390, "height": 700}
    )
    picker = page.get_by_role("combobox", name="Model")
    await expect(picker.get_by_role("option")).to_have_count(100)
    await expect(picker).to_have_value(long)
    assert await page.evaluate("document.documentElement.scrollWidth") == 390
    await expect(button(page, "New chat").last).to_be_in_viewport()
    await picker.select_option("model-42")
    await say(page, "Hello")
    await expect(answers(page)).to_contain_text("You said: Hello")
    assert model.requests[-1].body["model"] == "model-42"
