"""The box one writes in: how it grows, what its keys do, what it says, and how a page looks that has nothing else yet."""

from __future__ import annotations

import re

import pytest
from playwright.async_api import Locator, Page, expect

from tests.browser.conftest import OpenPage
from tests.browser.fragile import cut, open_fragile
from tests.browser.person import answers, box, button, chats, idle, messages, say, waiting
from tests.browser.watch import Watch
from tests.fakes import Gate, Model
from tests.instances import Instance

Instances = tuple[Instance, Instance]
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
LINE = 26  # pixels
NO_FIELD_SIZING = """
CSS.supports = () => false;
addEventListener("DOMContentLoaded", () => (document.querySelector("#message").style.fieldSizing = "fixed"));
"""
SAFARIS_ENTER = """box => box.dispatchEvent(
  new KeyboardEvent("keydown", {key: "Enter", keyCode: 229, bubbles: true, cancelable: true}))"""


async def rectangle(locator: Locator) -> dict[str, float]:
    """Tell where something is on the page."""
    found = await locator.bounding_box()
    assert found
    return dict(found)


async def height(page: Page, lines: int) -> tuple[int, bool]:
    """Write so many lines: how high the box is, and whether it scrolls."""
    await box(page).fill("\n".join(map(str, range(lines))))
    high, whole = await box(page).evaluate("box => [box.clientHeight, box.scrollHeight]")
    return high, whole > high


@pytest.mark.parametrize("scripts", [[], [NO_FIELD_SIZING]], ids=["by itself", "by script"])
async def test_box_grows_by_lines_up_to_eight_or_four_on_a_phone_and_then_scrolls(
    page: Page, open_page: OpenPage, instances: Instances, scripts: list[str]
) -> None:
    phone = await open_page(instances[0], **PHONE)
    for tab, most in ((page, 8), (phone, 4)):
        for script in scripts:
            await tab.context.add_init_script(script)
            await tab.reload()
        one, scrolls = await height(tab, 1)
        assert not scrolls
        assert await height(tab, 3) == (one + 2 * LINE, False)
        assert await height(tab, most) == (one + (most - 1) * LINE, False)
        assert await height(tab, most + 3) == (one + (most - 1) * LINE, True)
        await expect(button(tab, "Send")).to_be_in_viewport(ratio=1)
        assert await height(tab, 1) == (one, False)


async def test_keys_of_the_box_send_break_lines_and_leave_what_is_being_composed_alone(
    page: Page, model: Model, open_page: OpenPage, instances: Instances
) -> None:
    await expect(box(page)).to_be_focused()
    await page.keyboard.press("Enter")
    await page.keyboard.type(" ")
    await page.keyboard.press("Enter")
    await expect(button(page, "Send")).to_be_disabled()
    keyboard = await page.context.new_cdp_session(page)
    await box(page).fill("")
    await keyboard.send("Input.imeSetComposition", {"text": "にほん", "selectionStart": 3, "selectionEnd": 3})
    await page.keyboard.press("Enter")
    await page.keyboard.press("ArrowUp")
    await box(page).evaluate(SAFARIS_ENTER)
    await expect(messages(page)).to_have_count(0)
    await keyboard.send("Input.insertText", {"text": "日本"})
    await page.keyboard.press("Shift+Enter")
    await page.keyboard.type("語")
    await page.keyboard.press("Enter")
    await expect(answers(page)).to_contain_text("You said: 日本")
    assert [request.prompt for request in model.requests] == ["日本\n語"]
    phone = await open_page(instances[0], **PHONE)
    await box(phone).tap()
    await phone.keyboard.type("One")
    await phone.keyboard.press("Enter")
    await phone.keyboard.type("two")
    await expect(box(phone)).to_have_value("One\ntwo")
    await button(phone, "Send").tap()
    await expect(answers(phone)).to_contain_text("You said: One")


async def test_button_that_sends_and_stops_keeps_its_place_and_escape_stops_when_nothing_is_open(
    page: Page, model: Model
) -> None:
    composer = page.locator("chat-composer")
    await expect(button(page, "Send")).to_be_disabled()
    model.answer("As far as", Gate(), to="First")
    await say(page, "First")
    await expect(answers(page)).to_contain_text("As far as")
    await expect(button(page, "Stop")).to_be_enabled()
    await expect(button(page, "Send")).to_have_count(0)
    place = await rectangle(button(page, "Stop"))
    await expect(composer).not_to_have_attribute("data-queues", "")
    await box(page).fill("Second")
    await expect(composer).to_have_attribute("data-queues", "")
    await expect(button(page, "Stop")).to_be_enabled()
    await expect(button(page, "Send")).to_be_enabled()
    assert await rectangle(button(page, "Stop")) == place
    sends = await rectangle(button(page, "Send"))
    assert sends["x"] + sends["width"] < place["x"]
    await chats(page).first.hover()
    await button(page, "Options for First").click()
    menu = page.get_by_role("menu")
    await expect(menu).to_be_visible()
    await box(page).evaluate("box => box.focus()")
    await page.keyboard.press("Escape")
    await expect(menu).to_be_hidden()
    await box(page).press("x")
    await expect(button(page, "Stop")).to_be_visible()
    await expect(page.locator("chat-transcript[data-running]")).to_be_attached()
    await page.keyboard.press("Escape")
    await expect(answers(page)).to_contain_text("Stopped")
    await expect(box(page)).to_have_value("Secondx")
    await expect(box(page)).to_be_focused()


async def test_arrow_up_in_an_empty_box_changes_what_was_said_last_or_waits_last(
    page: Page, model: Model
) -> None:
    gate = Gate()
    await say(page, "First")
    await expect(answers(page)).to_contain_text("You said: First")
    await idle(page)
    editor = page.get_by_role("textbox", name="Edit message")
    await box(page).fill("Half")
    await box(page).press("ArrowUp")
    await expect(editor).to_have_count(0)
    await box(page).fill("")
    await box(page).press("ArrowUp")
    await expect(editor).to_be_focused()
    await expect(editor).to_have_value("First")
    await editor.press("Escape")
    await expect(box(page)).to_be_focused()
    model.answer("Slowly", gate, to="Second")
    await say(page, "Second")
    await gate.wait()
    for text in ("Third", "Fourth"):
        await box(page).fill(text)
        await box(page).press("Enter")
    await expect(waiting(page)).to_have_count(2)
    await expect(waiting(page).last).to_have_attribute("data-state", "queued")
    await box(page).press("ArrowUp")
    await expect(box(page)).to_have_value("Fourth")
    await expect(waiting(page)).to_have_text([re.compile("Third")])


async def test_box_says_how_much_is_too_much_and_keeps_a_draft_for_each_chat(
    page: Page, instances: Instances
) -> None:
    await say(page, "First")
    await expect(answers(page)).to_contain_text("You said: First")
    limit = int(await page.evaluate("JSON.parse(document.body.dataset.limits).text"))
    await box(page).fill("x" * (limit - 1))
    await expect(page.get_by_text("1 character left.")).to_be_visible()
    await expect(button(page, "Send")).to_be_enabled()
    await box(page).fill("x" * (limit + 1200))
    problem = page.get_by_role("main").get_by_text(
        "1,200 characters too many. Shorten your message to send it."
    )
    await expect(problem).to_be_visible()
    await expect(box(page)).to_have_accessible_description(re.compile("1,200 characters too many"))
    await expect(button(page, "Send")).to_be_disabled()
    await box(page).press("Enter")
    await expect(messages(page)).to_have_count(2)
    await box(page).fill("For the first")
    await expect(problem).to_be_hidden()
    await button(page, "New chat").first.click()
    await expect(box(page)).to_have_value("")
    await box(page).fill("For a new one")
    await chats(page).filter(has_text="First").click()
    await expect(box(page)).to_have_value("For the first")
    await page.goto(instances[0].url)
    await expect(box(page)).to_have_value("For a new one")


async def test_connection_is_told_under_the_header_over_neither_title_nor_model(
    page: Page, open_page: OpenPage, instances: Instances, watch: Watch
) -> None:
    watch.allow("WebSocket connection to")
    await say(page, "A title that is long enough to fill the whole width of a phone")
    await expect(page).to_have_url(re.compile("/c/"))
    tab = await open_fragile(page.context, page.url)
    await page.close()
    await cut(tab)
    await box(tab).fill("Typed without a connection")
    await box(tab).press("Enter")
    await box(tab).fill("And another")
    await box(tab).press("Enter")
    await expect(messages(tab)).to_have_count(4)
    told = messages(tab).get_by_text("Will be sent when the connection is back").locator("visible=true")
    await expect(told).to_have_count(1)
    pill = tab.locator("connection-pill")
    for width in (320, 390, 1280):
        await tab.set_viewport_size({"width": width, "height": 700})
        await expect(pill).to_be_visible()
        at = await rectangle(pill)
        header = await rectangle(tab.get_by_role("heading", name="A title").locator("xpath=ancestor::header"))
        assert at["y"] >= header["y"] + header["height"]
        assert at["x"] >= 0
        assert at["x"] + at["width"] <= width


async def test_new_chat_has_a_greeting_the_box_and_suggestions_in_sight_on_any_screen(
    open_page: OpenPage, instances: Instances, model: Model
) -> None:
    page = await open_page(instances[0], has_touch=True)
    suggestion = page.get_by_role("group", name="Suggestions").get_by_role("button").first
    for width, height in ((320, 568), (390, 844), (390, 420), (844, 390), (768, 1024), (1280, 800)):
        await page.set_viewport_size({"width": width, "height": height})
        for part in (
            page.get_by_role("heading", name="What is on your mind?"),
            suggestion,
            box(page),
            button(page, "Send"),
            page.locator("model-picker .model:not([hidden])"),
        ):
            await expect(part).to_be_in_viewport(ratio=1)
        if height >= 480:
            await expect(page.get_by_text("A model can be wrong.")).to_be_in_viewport(ratio=1)
        assert await page.evaluate("document.documentElement.scrollWidth") <= width
    await suggestion.tap()
    await expect(answers(page)).to_contain_text("You said: Explain how a rainbow forms")
    await expect(box(page)).to_have_value("")
    assert len(model.requests) == 1


async def test_draft_is_written_by_the_tab_in_which_it_was_typed_alone(page: Page) -> None:
    other = await page.context.new_page()
    await other.goto(page.url)
    await box(other).fill("Cleared")
    await box(other).fill("")
    for text in ("Typed here", "Typed here, and more"):
        await box(page).fill(text)
        await page.wait_for_function("text => localStorage['llmchat.draft.new'] === text", arg=text)
        await other.reload()  # which leaves a page first
        await expect(box(other)).to_have_value(text)
