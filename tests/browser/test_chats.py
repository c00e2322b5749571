"""The chats beside each other: what is done to one, typed in one or on its way in one stays with that one."""

from __future__ import annotations

import json
import re

import pytest
from playwright.async_api import Locator, Page, expect

from tests.browser.conftest import OpenPage
from tests.browser.line import TRY_AGAIN_LATER, Line
from tests.browser.person import answers, box, button, chats, delete, idle, messages, say
from tests.browser.watch import Watch
from tests.conftest import StartInstance
from tests.fakes import Gate, Model
from tests.instances import Instance, Store

UNREADABLE = "() => { IDBObjectStore.prototype.getAll = () => { throw new Error('unreadable'); }; }"
IN_SIGHT = "element => { const {top, bottom} = element.getBoundingClientRect(); return top < innerHeight && bottom > 0; }"
Instances = tuple[Instance, Instance]


async def begin(page: Page, *texts: str) -> None:
    """Begin a chat with each text, and wait for its answer."""
    for text in texts:
        await button(page, "New chat").first.click()
        await say(page, text)
        await expect(answers(page)).to_contain_text(f"You said: {text}")
        await idle(page)


async def begin_long(page: Page) -> None:
    """Begin a chat of 60 messages: more than a snapshot has."""
    await begin(page, "0")
    for number in range(1, 30):
        await say(page, str(number))
        await expect(answers(page)).to_have_count(number + 1)
        await idle(page)


def chat(page: Page, title: str) -> Locator:
    return chats(page).filter(has_text=title)


async def choose(page: Page, title: str, action: str) -> None:
    """Choose from a chat's menu."""
    await chat(page, title).hover()
    await button(page, f"Options for {title}").click()
    await page.get_by_role("menuitem", name=action).click()


async def away(page: Page, store: Store) -> None:
    """Take the store away until the page says so."""
    await store.stop()
    await expect(page.locator("connection-pill")).to_contain_text("The store is away")


async def test_chat_is_renamed_in_place_whatever_happens_meanwhile_and_in_all_tabs(
    open_page: OpenPage, instances: Instances
) -> None:
    page = await open_page(instances[0])
    await begin(page, "One", "Two")
    other = await open_page(instances[1], like=page)
    await choose(page, "One", "Rename")
    title = page.get_by_role("textbox", name="Title")
    await title.fill("A new ti")
    await say(other, "Three")  # a new first row: the list is arranged anew
    await expect(chat(page, "Three")).to_be_visible()
    await expect(title).to_be_focused()
    await title.press_sequentially("tle")
    await title.press("Enter")
    await expect(chats(page)).to_have_text(["Three", "Two", "A new title"])
    await expect(chats(other)).to_have_text(["Three", "Two", "A new title"])
    await choose(page, "A new title", "Rename")
    await title.fill("Never mind")
    await choose(other, "A new title", "Rename")
    await other.get_by_role("textbox", name="Title").fill("The other's")
    await other.keyboard.press("Enter")
    await expect(button(page, "Options for The other's")).to_be_attached()
    await expect(title).to_have_value("Never mind")
    await title.press("Escape")
    await expect(chats(page)).to_have_text(["Three", "Two", "The other's"])
    await choose(page, "The other's", "Rename")
    await title.fill("A new title")
    await title.press("Enter")
    await expect(chats(other)).to_have_text(["Three", "Two", "A new title"])
    await choose(page, "Two", "Rename")
    await title.fill("Never")
    await title.press("Escape")
    await expect(chats(page)).to_have_text(["Three", "Two", "A new title"])
    await choose(page, "Two", "Rename")
    await title.fill("\u200b \u3164")  # nobody sees it
    await title.press("Enter")
    await expect(page.get_by_role("status")).to_have_text("A chat needs a name: it keeps the one it has.")
    await expect(chats(page)).to_have_text(["Three", "Two", "A new title"])


async def test_title_that_was_typed_without_a_connection_is_given_back(page: Page) -> None:
    line = await Line.lay(page)
    await begin(page, "One")
    line.closing = TRY_AGAIN_LATER
    await choose(page, "One", "Rename")
    title = page.get_by_role("textbox", name="Title")
    await title.fill("Long thought of")
    await line.cut(TRY_AGAIN_LATER)
    await expect(page.locator("chat-transcript[data-lost]")).to_be_attached()
    await title.press("Enter")
    await expect(chats(page)).to_have_text(["One"])
    line.closing = None
    await line.told('"session.ready"', 2)  # a connection before may open yet, and be closed
    await expect(page.locator("chat-transcript[data-lost]")).not_to_be_attached()
    await choose(page, "One", "Rename")
    await expect(title).to_have_value("Long thought of")
    await title.press("Enter")
    await expect(chats(page)).to_have_text(["Long thought of"])


async def test_pinned_chat_stands_first_in_all_tabs(open_page: OpenPage, instances: Instances) -> None:
    page = await open_page(instances[0])
    await begin(page, "One", "Two")
    other = await open_page(instances[1], like=page)
    await choose(page, "One", "Pin")
    for each in (page, other):
        await expect(chats(each)).to_have_text(["One", "Two"])
    await choose(page, "One", "Unpin")
    for each in (page, other):
        await expect(chats(each)).to_have_text(["Two", "One"])


@pytest.mark.parametrize("order", [("Three", "One"), ("One", "Three")], ids=["shown first", "shown last"])
async def test_undo_brings_back_all_chats_deleted_since_it_was_offered(
    page: Page, order: tuple[str, str]
) -> None:
    await begin(page, "One", "Two", "Three")
    first, second = order
    await choose(page, first, "Delete")
    await expect(page.get_by_role("status")).to_have_text("Chat deleted")
    await choose(page, second, "Delete")
    await expect(page.get_by_role("status")).to_have_text("2 chats deleted")
    await expect(messages(page)).to_have_count(0)
    await expect(chats(page)).to_have_text(["Two"])
    await button(page, "Undo").click()
    await expect(chats(page)).to_have_text(["Three", "Two", "One"])
    await expect(answers(page)).to_contain_text("You said: Three")
    await expect(page.get_by_role("status")).to_have_text("The chats are back")
    await expect(box(page)).to_be_focused()


async def test_drafts_stay_with_their_chats(page: Page) -> None:
    await begin(page, "One")
    await box(page).fill("for one")
    await button(page, "New chat").first.click()
    await expect(box(page)).to_have_value("")
    await box(page).fill("for a new one")
    await chat(page, "One").click()
    await expect(box(page)).to_have_value("for one")
    await page.reload()
    await expect(box(page)).to_have_value("for one")
    await button(page, "New chat").first.click()
    await expect(box(page)).to_have_value("for a new one")


@pytest.mark.long
@pytest.mark.parametrize("back", [True, False], ids=["and shown again", "and not shown again"])
async def test_first_prompt_of_a_new_chat_that_was_left_goes_through_and_stays_in_its_chat(
    fresh_store: Store, start_instance: StartInstance, open_page: OpenPage, model: Model, back: bool
) -> None:
    page = await open_page(await start_instance(fresh_store))
    await begin(page, "One")
    await button(page, "New chat").first.click()
    await away(page, fresh_store)
    await say(page, "Two")
    await expect(messages(page).first).to_contain_text("Two")
    await box(page).press_sequentially("and a half")
    await chat(page, "One").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("One")
    await expect(messages(page)).to_have_text(
        [re.compile("One"), re.compile("You said: One")]
    )  # as it was left
    if back:
        await button(page, "New chat").first.click()
        await expect(messages(page).first).to_contain_text("Two")
    await fresh_store.start()
    await expect(chats(page)).to_have_text(["Two", "One"], timeout=20_000)
    await expect(answers(page)).to_contain_text(f"You said: {'Two' if back else 'One'}")
    await expect(messages(page)).to_have_count(2)
    await chat(page, "Two").click()
    await expect(answers(page)).to_contain_text("You said: Two")
    await expect(box(page)).to_have_value("and a half" if back else "")
    await button(page, "New chat").first.click()
    await expect(box(page)).to_have_value("" if back else "and a half")
    await expect(page).to_have_url(re.compile(r"/$"))
    await expect(messages(page)).to_have_count(0)
    await expect(page.get_by_text("What is on your mind?")).to_be_visible()
    await chat(page, "One").click()
    await expect(answers(page)).to_contain_text("You said: One")
    assert [request.prompt for request in model.requests] == ["One", "Two"]


@pytest.mark.long
async def test_prompt_on_its_way_is_there_when_its_chat_is_shown_again(
    fresh_store: Store, start_instance: StartInstance, open_page: OpenPage, model: Model
) -> None:
    page = await open_page(await start_instance(fresh_store))
    await begin(page, "One", "Two")
    await away(page, fresh_store)
    await say(page, "Two more")
    await expect(messages(page).nth(2)).to_contain_text("Two more")
    await chat(page, "One").click()
    await expect(page.get_by_role("log")).not_to_contain_text("Two more")
    await chat(page, "Two").click()
    await expect(messages(page).nth(2)).to_contain_text("Two more")
    await expect(button(page, "Stop")).to_be_visible()
    await fresh_store.start()
    await expect(answers(page).last).to_contain_text("You said: Two more", timeout=20_000)
    await expect(messages(page)).to_have_count(4)
    await expect(box(page)).to_have_value("")
    assert [request.prompt for request in model.requests] == ["One", "Two", "Two more"]


@pytest.mark.long
async def test_chat_whose_model_is_not_on_offer_any_more_goes_on_with_the_first(
    store: Store, start_instance: StartInstance, open_page: OpenPage, model: Model
) -> None:
    before = await start_instance(store, OPENAI_MODELS="old,small")
    page = await open_page(before)
    await begin(page, "One")
    after = await start_instance(store, OPENAI_MODELS="new,small")
    page = await open_page(after, page.url.removeprefix(before.url), like=page)
    picker = page.get_by_role("combobox", name="Model")
    for text in ("Two", "Three"):
        await expect(picker).to_have_value("new")
        await say(page, text)
        await expect(answers(page).last).to_contain_text(f"You said: {text}")
    await picker.select_option("small")
    await say(page, "Four")
    await expect(answers(page).last).to_contain_text("You said: Four")
    await expect(picker).to_have_value("small")
    assert [request.body["model"] for request in model.requests] == ["old", "new", "new", "small"]


@pytest.mark.long
async def test_open_page_takes_the_models_of_a_deploy_and_sends_what_was_typed_for_one_that_is_gone(
    store: Store, start_instance: StartInstance, open_page: OpenPage, model: Model, watch: Watch
) -> None:
    watch.allow("WebSocket connection to")
    watch.allow("ERR_CONNECTION_REFUSED")
    instance = await start_instance(store, OPENAI_MODELS="old,small")
    page = await open_page(instance)
    await begin(page, "One")
    await instance.kill()
    await say(page, "Two")
    await expect(page.get_by_text("Will be sent when the connection is back").last).to_be_visible()
    instance.environment["OPENAI_MODELS"] = "new"
    await instance.start()
    await expect(answers(page)).to_contain_text(["You said: One", "You said: Two"], timeout=20_000)
    await expect(page.get_by_title("The model that answers")).to_have_text("new")
    await expect(page.get_by_role("combobox", name="Model")).to_be_hidden()
    assert [request.body["model"] for request in model.requests] == ["old", "new"]


async def test_choice_of_a_model_stays_while_others_come_and_go(page: Page) -> None:
    line = await Line.lay(page)
    await line.told("conversation.listed", 1)
    picker = page.get_by_role("combobox", name="Model")

    def offer(*models: str) -> None:
        offered = [{"id": each, "label": each.title(), "images": False} for each in models]
        line.tell(json.dumps({"type": "session.ready", "models": offered, "limits": {"attachment": 0}}))

    await expect(picker).to_be_hidden()
    offer("large", "small")
    await expect(picker).to_have_value("large")
    await picker.select_option("Small")
    offer("largest", "larger", "small")
    await expect(picker.get_by_role("option")).to_have_text(["Largest", "Larger", "Small"])
    await expect(picker).to_have_value("small")
    offer("largest", "larger")
    await expect(picker).to_have_value("largest")


@pytest.mark.long
async def test_choice_of_a_model_is_not_undone_by_what_was_told_before_it_came_to_the_server(
    store: Store, start_instance: StartInstance, open_page: OpenPage
) -> None:
    page = await open_page(await start_instance(store, OPENAI_MODELS="large,small"))
    line = await Line.lay(page)
    await begin(page, "One")
    line.hold("conversation.updated")
    picker = page.get_by_role("combobox", name="Model")
    await picker.select_option("small")
    await line.asked('"model":"small"')
    told = {"id": page.url.rpartition("/")[2], "title": "Told before", "updated": "2026-11-22T10:00:00.000Z"}
    flags = dict.fromkeys(("pinned", "archived", "running", "unread"), False)
    event = {"type": "conversation.updated", "conversation": {**told, **flags, "model": "large"}}
    line.tell(json.dumps(event))
    await expect(page.get_by_role("heading", level=1)).to_have_text("Told before")
    await expect(picker).to_have_value("small")


@pytest.mark.long
async def test_older_messages_come_on_request_and_nothing_moves(
    open_page: OpenPage, instances: Instances
) -> None:
    page = await open_page(instances[0])
    await begin_long(page)
    await page.reload()
    await expect(button(page, "Earlier messages")).to_be_attached()
    first = await messages(page).first.element_handle()
    oldest = await first.get_attribute("data-id")
    await first.scroll_into_view_if_needed()
    await expect(messages(page).first).not_to_have_attribute("data-id", oldest or "")
    assert await first.evaluate(IN_SIGHT)
    await messages(page).first.scroll_into_view_if_needed()
    await expect(messages(page)).to_have_count(60)
    await expect(button(page, "Earlier messages")).to_be_hidden()


async def test_back_while_a_title_is_typed_shows_the_chat_before(page: Page) -> None:
    await begin(page, "One", "Two")
    await chat(page, "One").click()
    await expect(answers(page)).to_contain_text("You said: One")
    await choose(page, "Two", "Rename")
    await expect(page.get_by_role("textbox", name="Title")).to_be_focused()
    await page.go_back()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Two")
    await expect(answers(page)).to_contain_text("You said: Two")


async def test_stop_is_of_the_chat_that_is_shown(
    fresh_store: Store, start_instance: StartInstance, open_page: OpenPage, model: Model
) -> None:
    page = await open_page(await start_instance(fresh_store))
    await begin(page, "One")
    gate = Gate()
    model.answer("It runs", gate, to="Two")
    await button(page, "New chat").first.click()
    await say(page, "Two")
    await expect(answers(page)).to_contain_text("It runs")
    await chat(page, "One").click()
    await expect(answers(page)).to_contain_text("You said: One")
    await away(page, fresh_store)
    await say(page, "One more")
    await expect(messages(page).nth(2)).to_contain_text("One more")
    await chat(page, "Two").click()
    await fresh_store.start()
    await expect(answers(page).last).to_contain_text("It runs", timeout=20_000)
    await button(page, "Stop").click()
    await expect(answers(page)).to_contain_text("Stopped")
    await chat(page, "One").click()
    await expect(answers(page).last).to_contain_text("You said: One more")


@pytest.mark.long
@pytest.mark.parametrize("leaves", [True, False], ids=["by a reader who left the end", "from the end"])
async def test_turning_a_version_far_above_keeps_it_in_view_and_in_hand(
    open_page: OpenPage, instances: Instances, model: Model, leaves: bool
) -> None:
    page = await open_page(instances[0])
    await begin_long(page)
    early = answers(page).nth(2)
    model.answer("Anew")
    await early.hover()
    await early.get_by_role("button", name="Regenerate").click()
    await expect(answers(page)).to_have_count(3)
    await expect(answers(page).last).to_contain_text("Anew")
    await answers(page).last.hover()
    if leaves:
        await page.mouse.wheel(0, -3000)
    await answers(page).last.get_by_role("button", name="Previous version").click()
    await expect(early).to_be_in_viewport()
    await expect(early.get_by_role("button", name="Next version")).to_be_focused()
    await expect(page.get_by_role("status")).to_have_text("Version 1 of 2")
    await early.get_by_role("button", name="Next version").click()
    await expect(answers(page)).to_have_count(3)
    await expect(answers(page).last).to_contain_text("Anew")
    await expect(answers(page).last.get_by_role("button", name="Previous version")).to_be_focused()


async def test_suggestion_leaves_what_was_typed(page: Page) -> None:
    await box(page).fill("My long and careful draft")
    await page.get_by_role("group", name="Suggestions").get_by_role("button").first.click()
    await expect(answers(page)).to_contain_text("You said:")
    await expect(box(page)).to_have_value("My long and careful draft")
    await page.reload()
    await expect(box(page)).to_have_value("My long and careful draft")


@pytest.mark.long
async def test_older_messages_come_also_after_they_were_asked_for_in_a_chat_that_was_left(
    open_page: OpenPage, instances: Instances
) -> None:
    page = await open_page(instances[0])
    await begin(page, "Short")
    await begin_long(page)
    await chat(page, "Short").click()
    await expect(messages(page)).to_have_count(2)
    await page.locator("chat-transcript").evaluate("element => element.toggleAttribute('data-loading', true)")
    await chat(page, "0").click()
    await expect(messages(page).last).to_be_in_viewport()
    await messages(page).first.scroll_into_view_if_needed()
    await expect(messages(page)).to_have_count(60)


@pytest.mark.parametrize("reads", [True, False])
async def test_copy_of_a_new_chats_tab_is_of_the_chat_that_begins(page: Page, reads: bool) -> None:
    async with page.expect_popup() as opening:
        await page.evaluate("() => void window.open('/')")
    copy = await opening.value
    greeting = copy.get_by_role("heading", name="What is on your mind?")
    await expect(greeting).to_be_visible()
    if not reads:  # what lies there is sent before this tab has read it
        await copy.evaluate(UNREADABLE)
    await say(page, "First")
    await expect(answers(copy)).to_contain_text("You said: First")
    await expect(messages(copy)).to_have_count(2)
    await expect(greeting).to_be_hidden()
    await expect(copy).to_have_url(page.url)


@pytest.mark.long
async def test_words_for_a_chat_that_is_deleted_elsewhere_are_given_back_where_it_is_not_shown(
    open_page: OpenPage, instances: Instances
) -> None:
    page = await open_page(instances[0])
    await begin(page, "One", "Two")
    other = await open_page(instances[1], like=page)
    await messages(page).first.hover()
    await button(page, "Edit").click()
    await page.get_by_role("textbox", name="Edit message").fill("Two and a half")
    await box(page).fill("A draft")
    await chat(page, "One").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("One")
    await delete(other, "Two")
    await button(page, "Show").click()
    await expect(box(page)).to_have_value("A draft\n\nTwo and a half")
    assert await page.evaluate(
        "[...Object.keys(localStorage), ...Object.keys(sessionStorage)].filter(key => /draft|edit/.test(key))"
    ) == ["llmchat.draft.new"]


@pytest.mark.long
async def test_menus_and_dialogs_of_a_message_do_not_outlive_it_on_the_page(
    open_page: OpenPage, instances: Instances
) -> None:
    page = await open_page(instances[0])
    await begin(page, "One", "Two")
    other = await open_page(instances[1], page.url.removeprefix(instances[0].url), like=page)
    more = answers(page).get_by_role("button", name="More", exact=True)
    await more.click()
    await page.get_by_role("menuitem", name="Raw text").click()
    await expect(page.get_by_role("dialog")).to_be_visible()
    await page.go_back()
    await expect(answers(page)).to_contain_text("You said: One")
    await expect(page.get_by_role("dialog")).to_be_hidden()
    await page.go_forward()
    await expect(answers(page)).to_contain_text("You said: Two")
    await more.click()
    await messages(other).first.hover()
    await button(other, "Edit").click()
    await other.get_by_role("textbox", name="Edit message").fill("Two and a half")
    await other.keyboard.press("Control+Enter")
    await expect(page.get_by_role("menu")).to_be_hidden()
    await expect(box(page)).to_be_focused()
    await expect(answers(page)).to_contain_text("You said: Two and a half")
    await idle(page)
    await more.click()
    await page.keyboard.press("Control+Shift+O")
    await expect(page.get_by_role("menu")).to_be_hidden()
    await expect(box(page)).to_be_focused()
