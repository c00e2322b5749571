"""The settings, the options of a chat, starting prompts and shared links: with scripts and without."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.async_api import Page, expect

from tests.browser.axe import findings
from tests.browser.conftest import OpenPage
from tests.browser.line import Line
from tests.browser.person import answers, box, button, chats, idle, messages, say
from tests.browser.watch import Watch
from tests.fakes import Model
from tests.instances import Instance

Instances = tuple[Instance, Instance]
PHONE = {"width": 390, "height": 844}
WIDE = {"width": 1280, "height": 800}
SAID = "Give me three names for: [animal]"


async def add_prompt(page: Page, name: str, text: str) -> None:
    """Save a starting prompt, on the page of the settings."""
    if not await page.locator("#text-new").is_visible():
        await page.get_by_text("New starting prompt").click()
    await page.locator("#title-new").fill(name)
    await page.locator("#text-new").fill(text)
    await page.locator(".add").get_by_role("button", name="Save").click()
    await expect(page.get_by_role("status").first).to_contain_text("is saved")


async def open_share(page: Page) -> None:
    """Choose "Share" from the menu of the first chat."""
    await chats(page).first.hover()
    await page.get_by_role("button", name="Options for").first.click()
    await page.get_by_role("menuitem", name="Share").click()


async def hello(page: Page) -> None:
    """Begin a chat, and wait until it has its address and its answer."""
    await say(page, "Hello there")
    await expect(answers(page)).to_contain_text("You said")
    await idle(page)
    await page.wait_for_url("**/c/*")


async def narrow(page: Page) -> bool:
    """Tell whether nothing is wider than the window."""
    return bool(
        await page.evaluate(
            "[document.documentElement, document.querySelector('main')].every(each => each.scrollWidth <= innerWidth)"
        )
    )


# The pages themselves


@pytest.mark.long
async def test_settings_lead_back_to_the_chat_that_the_tab_was_in(page: Page) -> None:
    await hello(page)
    chat = page.url
    await page.get_by_role("link", name="Settings", exact=True).click()
    await add_prompt(page, "Names", SAID)
    await page.get_by_role("link", name="Export, import, delete").click()
    await page.get_by_role("link", name="Back to the chat").click()
    await expect(page).to_have_url(chat)
    await page.get_by_role("link", name="Settings", exact=True).click()
    await page.get_by_role("link", name="Export, import, delete").click()
    await page.get_by_label("Yes, delete everything").check()
    await button(page, "Delete everything").click()
    await page.get_by_role("link", name="Back to the chat").click()
    await expect(page.get_by_role("heading", name="What is on your mind?")).to_be_visible()


@pytest.mark.parametrize("path", ["/settings", "/settings/data", "options"])
async def test_settings_scroll_by_keyboard_without_a_focus(
    page: Page, instances: Instances, path: str
) -> None:
    await page.set_viewport_size({"width": 1280, "height": 500})
    if path == "options":
        await hello(page)
        path = page.url.removeprefix(instances[0].url) + "/options"
    await page.goto(instances[0].url + path)
    await page.keyboard.press("End")
    await page.wait_for_function(
        "() => scrollY > 0 && scrollY + innerHeight > document.body.scrollHeight - 2"
    )


# Starting prompts


async def test_own_starting_prompt_fills_the_box_and_is_written_on(page: Page) -> None:
    await page.get_by_role("link", name="Settings", exact=True).click()
    await add_prompt(page, "Names", SAID)
    await add_prompt(page, "ترجمة", "ترجم هذا النص:")
    await page.get_by_role("link", name="Back to the chat").click()
    starters = page.get_by_role("group", name="Suggestions")
    await expect(starters.get_by_role("link")).to_contain_text(["ترجمة", "Names"])
    await expect(starters.get_by_role("button")).to_have_count(2)
    await box(page).fill("and be quick")
    await starters.get_by_role("link", name="Names").click()
    await expect(box(page)).to_have_value(f"{SAID}\n\nand be quick")
    await expect(box(page)).to_be_focused()
    await expect(messages(page)).to_have_count(0)
    await page.get_by_role("link", name="All prompts").click()
    await page.get_by_role("link", name="Use “Names”").click()
    await expect(box(page)).to_have_value(re.compile(re.escape(SAID)))
    await expect(box(page)).to_be_focused()
    await box(page).fill("Names of cats")
    await box(page).press("Enter")
    await expect(answers(page)).to_contain_text("You said: Names of cats")


@pytest.mark.long
async def test_starting_prompt_that_is_gone_or_cannot_be_read_is_told_and_nothing_is_lost(
    page: Page, open_page: OpenPage, instances: Instances, watch: Watch
) -> None:
    watch.allow("404")
    watch.allow("ERR_INTERNET_DISCONNECTED")
    await page.goto(instances[0].url + "/settings")
    await add_prompt(page, "Names", SAID)
    await page.goto(instances[0].url)
    starter = page.get_by_role("link", name="Names")
    other = await open_page(instances[1], "/settings", like=page)
    await other.get_by_text("Names", exact=True).click()
    await page.context.set_offline(True)
    await box(page).fill("My words")
    await starter.click()
    await expect(page.get_by_text("cannot be read now").first).to_be_visible()
    await page.context.set_offline(False)
    await other.get_by_role("button", name="Delete").click()
    await expect(other.get_by_role("status").first).to_contain_text("is deleted")
    await starter.click()
    await expect(page.get_by_text("is not here any more").first).to_be_visible()
    await expect(box(page)).to_have_value("My words")
    address = await starter.get_attribute("href") or ""
    await page.goto(instances[0].url + address)
    await expect(page.locator("#problem")).to_contain_text("is not here any more")
    await expect(box(page)).to_have_value("My words")


@pytest.mark.long
@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no scripts"])
async def test_starting_prompts_are_kept_in_words_that_are_not_lost(
    open_page: OpenPage, instances: Instances, scripts: bool, watch: Watch
) -> None:
    watch.allow("422")
    watch.allow("404")
    page = await open_page(instances[0], "/settings", java_script_enabled=scripts, viewport=PHONE)
    await add_prompt(page, "Names", SAID)
    await page.get_by_text("New starting prompt").click()
    await page.locator("#title-new").fill(" ")
    await page.locator("#text-new").fill("Words\nof mine")
    await page.locator(".add").get_by_role("button", name="Save").click()
    await expect(page.get_by_role("alert")).to_have_text("Give the starting prompt a name.")
    await expect(page.locator("#text-new")).to_have_value("Words\nof mine")

    # One that was deleted in another tab is saved as a new one.
    twin = await open_page(instances[1], "/settings", like=page, java_script_enabled=scripts)
    await twin.get_by_text("Names", exact=True).click()
    await page.get_by_text("Names", exact=True).click()
    await page.get_by_role("button", name="Delete").click()
    await expect(page.get_by_text("is deleted")).to_be_visible()
    await twin.get_by_label("Text").first.fill("Other words")
    await twin.get_by_role("button", name="Save").first.click()
    await expect(twin.get_by_role("alert")).to_contain_text("save them as a new one")
    await twin.locator(".add").get_by_role("button", name="Save").click()
    await expect(twin.get_by_role("link", name="Use “Names”")).to_be_visible()
    await twin.get_by_role("link", name="Use “Names”").click()
    await expect(box(twin)).to_have_value("Other words")
    assert await narrow(page)


# The settings and the options


@pytest.mark.long
async def test_settings_list_what_is_archived_and_shared_and_tell_the_number_of_the_browser(
    page: Page, instances: Instances
) -> None:
    await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await hello(page)
    await page.goto(page.url + "/options")
    await button(page, "Create link").click()
    await expect(page.get_by_text("The link is made.")).to_be_visible()
    await button(page, "Archive").click()
    await expect(page.get_by_text("The chat is archived.")).to_be_visible()
    await page.goto(instances[0].url + "/settings")
    await page.get_by_role("radio", name="Dark").click()
    await expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    cookies = await page.context.cookies()
    session = next(each["value"] for each in cookies if each["name"] == "llmchat").split(".")[0]
    await button(page, "Copy the number of this browser").click()
    assert await page.evaluate("navigator.clipboard.readText()") == session
    link = await page.get_by_role("textbox", name="Link of").input_value()
    await button(page, "Copy the link of “Hello there”").click()
    assert await page.evaluate("navigator.clipboard.readText()") == link
    await button(page, "Revoke the link of “Hello there”").click()
    await expect(page.get_by_text("The link is revoked")).to_be_visible()
    await expect(page.get_by_role("textbox", name="Link of")).to_have_count(0)
    await button(page, "Unarchive “Hello there”").click()
    await expect(page.get_by_text("among your chats again")).to_be_visible()
    await page.reload()
    await expect(page.locator("html")).to_have_attribute("data-theme", "dark")


async def options_without_scripts(open_page: OpenPage, instances: Instances) -> Page:
    """Begin a chat where no script runs, and go to its options."""
    page = await open_page(instances[0], java_script_enabled=False, viewport=PHONE)
    await box(page).fill("Hello there")
    await button(page, "Send").click()
    await expect(answers(page)).to_contain_text("You said", timeout=20_000)
    await page.get_by_role("link", name="Chat settings").click()
    return page


@pytest.mark.long
async def test_person_without_scripts_renames_and_pins_a_chat(
    open_page: OpenPage, instances: Instances, watch: Watch
) -> None:
    watch.allow("422")
    page = await options_without_scripts(open_page, instances)
    title = page.get_by_role("textbox", name="Title", exact=True)
    await title.fill("  ")
    await button(page, "Rename").click()
    await expect(page.get_by_role("alert")).to_contain_text("A chat needs a name: it keeps the one it has.")
    await expect(page.get_by_role("heading", level=1)).to_contain_text("Hello there")
    await title.fill("שלום עולם")
    await button(page, "Rename").click()
    await expect(page.get_by_role("heading", level=1)).to_contain_text("שלום עולם")
    await button(page, "Pin").click()
    await expect(button(page, "Unpin")).to_be_visible()


@pytest.mark.long
async def test_person_without_scripts_sets_deletes_and_brings_back_a_chat(
    open_page: OpenPage, instances: Instances, model: Model, watch: Watch
) -> None:
    watch.allow("422")
    page = await options_without_scripts(open_page, instances)
    system = page.get_by_label("System prompt")
    await system.fill("Speak\nlike a pirate")
    await page.get_by_label("Temperature").fill("2,5")
    await button(page, "Save").click()
    await expect(page.get_by_role("alert")).to_contain_text("Temperature is a number from 0 to 2")
    await expect(system).to_have_value("Speak\nlike a pirate")
    await expect(page.get_by_label("Temperature")).to_have_value("2,5")
    await page.get_by_label("Temperature").fill("0,5")
    await page.get_by_label("Longest answer").fill("100")
    await button(page, "Save").click()
    await expect(page.get_by_label("Temperature")).to_have_value("0.5")
    await page.get_by_role("link", name="Back to the chat").click()
    await box(page).fill("Again")
    await button(page, "Send").click()
    await expect(answers(page).last).to_contain_text("You said: Again", timeout=20_000)
    asked: Any = [await model.asked() for _ in range(2)][-1]
    assert asked.body["messages"][0]["content"] == "Speak\nlike a pirate"
    assert (asked.body["temperature"], asked.body["max_tokens"]) == (0.5, 100)

    address = page.url.split("#")[0]
    await page.get_by_role("link", name="Chat settings").click()
    assert await narrow(page)
    await button(page, "Use the default system prompt").click()
    await expect(page.get_by_label("Temperature")).to_have_value("0.5")
    await expect(page.get_by_text("pirate")).to_have_count(0)
    await expect(button(page, "Use the default system prompt")).to_have_count(0)
    await button(page, "Delete").click()
    await expect(page.get_by_role("heading", name="The chat is deleted")).to_be_visible()
    watch.allow("404")
    lost = await open_page(instances[1], address.removeprefix(instances[0].url), like=page)
    await expect(lost.get_by_role("heading", name="This chat is not here")).to_be_visible()
    await button(page, "Undo").click()
    await expect(page.get_by_text("The chat is back.")).to_be_visible()
    await page.goto(address)
    await expect(answers(page)).to_have_count(2)


# Sharing


async def test_chat_is_shared_from_its_menu_with_whoever_has_the_link_until_it_is_revoked(
    page: Page, open_page: OpenPage, instances: Instances, model: Model, watch: Watch
) -> None:
    watch.allow("404")
    await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    model.answer(f"Some **cheese**\n\n```python\nx = {'1' * 200}\n```\n\n$$x^2$$")
    await say(page, "What is there?")
    await expect(answers(page)).to_contain_text("Some cheese")
    await idle(page)
    await open_share(page)
    dialog = page.get_by_role("dialog", name="Share")
    await expect(dialog).to_contain_text("What is said later is not in it")
    await expect(dialog.get_by_role("heading", name="Share")).to_be_focused()
    await dialog.get_by_role("button", name="Create link").click()
    link = await dialog.get_by_role("textbox", name="Link of").input_value()
    await expect(dialog.get_by_role("textbox", name="Link of")).to_be_focused()
    await dialog.get_by_role("button", name="Copy").click()
    assert await page.evaluate("navigator.clipboard.readText()") == link
    await page.keyboard.press("Escape")
    await expect(dialog).to_have_count(0)
    await say(page, "And later?")
    await expect(answers(page)).to_have_count(2)
    await idle(page)

    stranger = await open_page(instances[1], link.removeprefix(instances[0].url), viewport=PHONE)
    shown = stranger.get_by_role("article")
    await expect(shown).to_contain_text(["What is there?", "Some cheese"])
    await expect(stranger.get_by_text(re.compile(r"Shared on \d+ \w+ \d{4}"))).to_be_visible()
    await expect(stranger.get_by_text("And later?")).to_have_count(0)
    assert await stranger.context.cookies() == []
    assert await narrow(stranger)

    await open_share(page)
    await expect(dialog.get_by_role("textbox", name="Link of")).to_have_value(link)
    await dialog.get_by_role("button", name="Create another link").click()
    await expect(dialog.get_by_role("textbox", name="Link of")).to_have_count(2)
    await dialog.get_by_role("button", name="Revoke").last.click()
    await expect(dialog.get_by_role("textbox", name="Link of")).to_have_count(1)
    await expect(dialog.get_by_role("textbox", name="Link of")).not_to_have_value(link)
    await expect(dialog.get_by_role("button", name="Create another link")).to_be_focused()
    await stranger.reload()
    await expect(stranger.get_by_role("heading", name="There is nothing at this link")).to_be_visible()


@pytest.mark.long
async def test_sharing_without_a_connection_says_so_and_makes_one_link_when_it_is_back(
    page: Page, watch: Watch
) -> None:
    watch.allow("ERR_INTERNET_DISCONNECTED")
    line = await Line.lay(page)
    await hello(page)
    await expect(chats(page)).to_have_count(1)
    await open_share(page)
    dialog = page.get_by_role("dialog", name="Share")
    await expect(dialog).to_be_visible()
    line.hold("share.created")
    await dialog.get_by_role("button", name="Create link").click()
    await line.holds()
    opened = line.count('"conversation.open"')
    await line.cut(1012)
    await expect(dialog.get_by_role("alert")).to_contain_text("There is no connection now")
    line.bend = str
    await line.connected(2)
    await line.asked('"conversation.open"', opened + 1)  # it is ready then
    await dialog.get_by_role("button", name="Create link").click()
    await expect(dialog.get_by_role("textbox", name="Link of")).to_have_count(1)
    await page.keyboard.press("Escape")
    await open_share(page)
    await expect(dialog.get_by_role("textbox", name="Link of")).to_have_count(1)


# For everybody


@pytest.mark.long
@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["desk", "phone"])
async def test_settings_options_and_a_shared_chat_keep_to_the_rules_of_access(
    open_page: OpenPage, instances: Instances, size: dict[str, int], model: Model
) -> None:
    touch = size is PHONE
    page = await open_page(instances[0], viewport=size, has_touch=touch)
    model.answer(
        "# One\n\n- a **b** [c](https://example.org)\n\n```python\n# why\nx = 1\n```\n\n| a |\n| --- |\n| b |"
    )
    await box(page).fill("Hello there")
    await button(page, "Send").click()
    await expect(answers(page)).to_contain_text("One")
    await idle(page)
    await page.wait_for_url("**/c/*")
    if not touch:
        await open_share(page)
        await page.get_by_role("button", name="Create link").click()
        await expect(page.get_by_role("textbox", name="Link of")).to_be_visible()
        assert await findings(page) == []
        await page.keyboard.press("Escape")
    address = page.url
    await page.goto(address + "/options")
    await button(page, "Create link").click()
    await expect(page.get_by_text("The link is made.")).to_be_visible()
    link = await page.get_by_role("textbox", name="Link of").first.input_value()
    assert await findings(page) == []
    await button(page, "Archive").click()
    await page.goto(instances[0].url + "/settings")
    await add_prompt(page, "Names", SAID)
    await page.get_by_text("Names", exact=True).click()
    assert await findings(page) == []
    assert await narrow(page)
    if touch:
        small = await page.evaluate(
            """() => [...document.querySelectorAll("main :is(button, summary, .text-button, input:not([type=radio]))")]
              .filter(each => each.checkVisibility() && each.getBoundingClientRect().height < 43.5).map(each => each.outerHTML)"""
        )
        assert small == []
    await page.goto(link)
    await expect(page.get_by_role("article")).to_have_count(2)
    assert await findings(page) == []
    await page.goto(address + "/deleted")
    assert await findings(page) == []
