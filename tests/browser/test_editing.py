"""Own messages are edited: the words in an editor, what an edit takes the place of, and where the hand is after it."""

from __future__ import annotations

import secrets

import pytest
from playwright.async_api import Locator, Page, expect

from tests.browser.conftest import OpenPage
from tests.browser.person import answers, box, button, chats, chip, delete, idle, messages, say
from tests.browser.watch import Watch
from tests.conftest import StartInstance
from tests.fakes import Gate, Model
from tests.instances import Instance, Store

Instances = tuple[Instance, Instance]


def editor(page: Page) -> Locator:
    """The box in which a message is edited."""
    return page.get_by_role("textbox", name="Edit message")


async def edit(page: Page, index: int, text: str) -> None:
    """Open the editor of a message, and write in it."""
    message = messages(page).nth(index)
    await message.hover()
    await message.get_by_role("button", name="Edit").click()
    await editor(page).fill(text)


async def said(page: Page, *prompts: str) -> None:
    """Say each of these, and wait until it is answered."""
    for prompt in prompts:
        await say(page, prompt)
        await expect(answers(page).last).to_contain_text(f"You said: {prompt}")
    await idle(page)


async def test_words_in_an_editor_outlive_another_chat_a_reload_and_another_tabs_edit(
    open_page: OpenPage, instances: Instances
) -> None:
    page = await open_page(instances[0])
    await said(page, "First", "Second")
    path = page.url.removeprefix(instances[0].url)
    await edit(page, 2, "Long words")
    await page.keyboard.press("Control+Shift+O")
    await expect(messages(page)).to_have_count(0)
    await chats(page).first.click()
    await expect(editor(page)).to_have_value("Long words")
    await page.reload()
    await expect(editor(page)).to_have_value("Long words")
    await editor(page).focus()
    other = await open_page(instances[1], path, like=page)
    await edit(other, 0, "Other")
    await editor(other).press("Control+Enter")
    await expect(box(other)).to_be_focused()
    await expect(answers(page)).to_contain_text(["You said: Other"])
    await expect(box(page)).to_have_value("Long words")
    await expect(box(page)).to_be_focused()
    await expect(page.get_by_text("has another version now").first).to_be_visible()
    await button(page, "Previous version").click()
    await expect(messages(page)).to_have_count(4)
    await expect(editor(page)).to_have_count(0)


@pytest.mark.long
async def test_edit_that_cannot_be_sent_leaves_the_chat_in_sight_and_is_edited_again_when_taken_back(
    store: Store, start_instance: StartInstance, open_page: OpenPage, model: Model, watch: Watch
) -> None:
    watch.allow("WebSocket connection to")
    watch.allow("ERR_CONNECTION_REFUSED")
    instance = await start_instance(store)
    page = await open_page(instance)
    await said(page, "Other")
    await button(page, "New chat").first.click()
    await said(page, "First", "Second")
    await instance.kill()
    await expect(page.locator("connection-pill")).to_be_visible()
    await edit(page, 0, "Better")
    await editor(page).press("Control+Enter")
    await expect(messages(page)).to_have_count(1)
    await expect(messages(page)).to_contain_text("Better")
    await expect(messages(page)).to_be_in_viewport()
    await expect(page.get_by_text("You said: Second")).to_be_visible()
    await expect(box(page)).to_be_focused()
    await chats(page).filter(has_text="Other").click()
    await expect(messages(page)).to_have_count(2)
    await chats(page).filter(has_text="First").click()
    await expect(messages(page)).to_contain_text("Better")
    await expect(page.get_by_text("You said: Second")).to_be_visible()
    await box(page).press("Escape")
    await expect(editor(page)).to_have_value("Better")
    await expect(editor(page)).to_be_focused()
    await expect(box(page)).to_have_value("")
    await expect(messages(page)).to_have_count(4)
    await expect(answers(page).last).to_contain_text("You said: Second")
    await editor(page).press("Control+Enter")
    await instance.start()
    await expect(messages(page)).to_have_count(2)
    await expect(answers(page)).to_contain_text("You said: Better")
    await expect(page.get_by_text("Second").first).to_be_hidden()
    await page.reload()
    await expect(messages(page)).to_have_count(2)
    await expect(editor(page)).to_have_count(0)
    assert [asked.prompt for asked in model.requests] == ["Other", "First", "Second", "Better"]


async def test_running_answer_is_seen_again_while_an_edit_waits_for_it(page: Page, model: Model) -> None:
    gate = Gate()
    model.answer("Slowly", gate, to="First")
    await say(page, "First")
    await expect(answers(page)).to_contain_text("Slowly")
    await edit(page, 0, "Better")
    await editor(page).press("Control+Enter")
    await expect(button(page, "Take back")).to_be_visible()
    await expect(messages(page)).to_have_count(1)
    await button(page, "Previous version").click()
    await expect(answers(page)).to_contain_text("Slowly")
    await button(page, "Next version").click()
    await expect(messages(page)).to_contain_text(["Better"])
    await expect(messages(page)).to_have_count(1)
    gate.open()
    await expect(answers(page)).to_contain_text("You said: Better")


async def test_focus_stays_in_the_box_when_the_button_in_hand_goes(page: Page, model: Model) -> None:
    gate = Gate()
    model.answer("Slowly", gate, to="First")
    await box(page).fill("First")
    await button(page, "Send").click()
    await expect(box(page)).to_be_focused()
    await gate.wait()
    await box(page).fill("Second")
    await box(page).press("Enter")
    await chip(page, "Edit").focus()
    gate.open()
    await expect(answers(page).last).to_contain_text("You said: Second")
    await expect(box(page)).to_be_focused()


async def test_words_in_an_editor_are_in_the_box_of_a_new_chat_when_theirs_is_deleted(
    open_page: OpenPage, instances: Instances
) -> None:
    page = await open_page(instances[0])
    await said(page, "First", "Second")
    await edit(page, 2, "Long words")
    other = await open_page(instances[1], like=page)
    await delete(other, "First")
    await expect(box(page)).to_have_value("Long words")
    await expect(messages(page)).to_have_count(0)


@pytest.mark.long
async def test_answer_is_whole_in_all_tabs_though_an_edit_stood_in_its_place_for_a_while(
    store: Store, start_instance: StartInstance, open_page: OpenPage, model: Model
) -> None:
    prefix = f"fast-{secrets.token_hex(4)}"
    page = await open_page(await start_instance(store, PROMPTS_PER_MINUTE="2", REDIS_PREFIX=prefix))
    one, two = Gate(), Gate()
    model.answer("Alpha ", one, "Beta ", two, "Gamma", to="Second")
    await said(page, "First")
    await say(page, "Second")
    await expect(answers(page).last).to_contain_text("Alpha")
    other = await page.context.new_page()
    await other.goto(page.url)
    await expect(answers(other).last).to_contain_text("Alpha")
    await edit(page, 0, "Better")
    await editor(page).press("Control+Enter")
    for each in (page, other):
        await expect(button(each, "Take back")).to_be_visible()  # it came too fast, and waits
    one.open()
    await two.wait()
    two.open()
    await button(page, "Take back").click()
    for each in (page, other):
        await expect(messages(each)).to_have_count(4)
        await expect(answers(each).last).to_contain_text("Alpha Beta Gamma")
        await expect(each.locator("chat-transcript[data-running]")).to_have_count(0)
