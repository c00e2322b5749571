"""The outbox: whatever the browser, the store or another tab does, a prompt is sent once, or its words are in the box."""

from __future__ import annotations

import re
import secrets

import pytest
from playwright.async_api import Locator, Page, expect

from llmchat.history import MAX_QUEUED
from tests.browser.conftest import OpenPage
from tests.browser.fragile import cut, mend, open_fragile
from tests.browser.line import Line
from tests.browser.person import answers, box, button, chats, chip, delete, idle, messages, say, waiting
from tests.browser.watch import Watch
from tests.conftest import StartInstance
from tests.fakes import Gate, Model
from tests.instances import Instance, Store
from tests.waiting import eventually

Instances = tuple[Instance, Instance]
OFFLINE = "Will be sent when the connection is back"
NEWER = """() => new Promise((resolve) => {
  const request = indexedDB.open("llmchat", 2);
  request.onsuccess = () => { request.result.close(); resolve(); };
})"""
KEPT = """() => new Promise((resolve) => {
  const request = indexedDB.open("llmchat", 1);
  request.onsuccess = () => {
    const counting = request.result.transaction("outbox").objectStore("outbox").count();
    counting.onsuccess = () => { request.result.close(); resolve(counting.result > 0); };
  };
})"""
SILENT = "IDBFactory.prototype.open = () => new EventTarget();"
# Until it is loaded again, the page waits for its databases for ever, rather than for two seconds.
PATIENT = """
const set = setTimeout;
const patient = performance.getEntriesByType("navigation")[0].type === "navigate";
window.setTimeout = (act, milliseconds, ...rest) => patient && milliseconds === 2000 ? 0 : set(act, milliseconds, ...rest);
"""
LATE = """
const open = IDBFactory.prototype.open;
window.late = [];
IDBFactory.prototype.open = function (...args) {
  const request = open.apply(this, args);
  const { set } = Object.getOwnPropertyDescriptor(IDBRequest.prototype, "onsuccess");
  Object.defineProperty(request, "onsuccess", { set: (act) =>
    set.call(request, (event) => window.late ? late.push(() => act(event)) : act(event)) });
  return request;
};
window.openNow = () => { const acts = late; window.late = null; for (const act of acts) act(); };
"""
FORBIDDEN = """Object.defineProperty(window, "indexedDB", {
  get() { throw new DOMException("no", "SecurityError"); } });"""
NO_STORAGE = """Object.defineProperty(window, "localStorage", {
  get() { throw new DOMException("no", "SecurityError"); } });"""
FULL = """() => { IDBObjectStore.prototype.add = () => {
  throw new DOMException("full", "QuotaExceededError"); }; }"""
EMPTY_ON_THE_WIRE = """() => {
  const send = WebSocket.prototype.send;
  WebSocket.prototype.send = function (frame) { send.call(this, frame.replace("Refuse me", " ")); };
}"""
TWICE_UNDELETABLE = """() => {
  let times = 0;
  const remove = IDBObjectStore.prototype.delete;
  IDBObjectStore.prototype.delete = function (order) {
    if (++times > 2) remove.call(this, order);
    else this.transaction.abort();
  };
}"""
UNWRITABLE = """() => {
  const abort = function () { this.transaction.abort(); };
  IDBObjectStore.prototype.put = abort;
  IDBObjectStore.prototype.delete = abort;
}"""
COUNTED = """() => {
  const send = WebSocket.prototype.send;
  window.sent = [];
  WebSocket.prototype.send = function (frame) { window.sent.push(frame); send.call(this, frame); };
}"""
UNDELETABLE = """() => { IDBObjectStore.prototype.delete = function () { this.transaction.abort(); }; }"""


@pytest.fixture
async def tab(page: Page, watch: Watch) -> Page:
    """A page with one answer, whose connection `cut` and `mend` know; another tab of its browser is open."""
    watch.allow("WebSocket connection to")
    tab = await open_fragile(page.context, page.url)
    await begin(tab)
    return tab


async def begin(page: Page) -> None:
    await say(page, "First")
    await shown(page, "First", "You said: First")
    await idle(page)


async def add(page: Page, text: str) -> None:
    """Write a prompt and send it with Enter, whatever runs."""
    await box(page).fill(text)
    await box(page).press("Enter")
    await expect(box(page)).to_have_value("")


async def shown(page: Page, *texts: str) -> None:
    """Wait until the transcript has exactly these messages, in this order."""
    await expect(messages(page)).to_contain_text(list(texts))
    await expect(messages(page)).to_have_count(len(texts))


def unsent(page: Page) -> Locator:
    """The prompts that say that they wait for a connection."""
    return messages(page).get_by_text(OFFLINE).locator("visible=true")


async def kept(page: Page) -> None:
    """Wait until a prompt is in the database: a reload before that brings its words into the box."""
    await page.wait_for_function(KEPT)


def asked(model: Model) -> list[str]:
    return [request.prompt for request in model.requests]


async def test_prompt_goes_and_comes_back_when_the_browser_has_closed_the_database(
    page: Page, tab: Page, model: Model
) -> None:
    await page.evaluate(NEWER)
    await add(tab, "Second")
    await shown(tab, "First", "You said: First", "Second", "You said: Second")
    await cut(tab)
    await add(tab, "Third")
    await expect(unsent(tab)).to_have_count(1)
    await box(tab).press("Escape")
    await expect(box(tab)).to_have_value("Third")
    await box(tab).press("Enter")
    await expect(unsent(tab)).to_have_count(1)
    await tab.reload()
    await expect(answers(tab).last).to_contain_text("You said: Third")
    await expect(messages(tab)).to_have_count(6)
    assert asked(model) == ["First", "Second", "Third"]


@pytest.mark.parametrize("database", [SILENT, FORBIDDEN], ids=["never opens", "is forbidden"])
async def test_unsent_prompt_outlives_a_reload_where_the_database(
    page: Page, watch: Watch, model: Model, database: str
) -> None:
    watch.allow("WebSocket connection to")
    tab = await open_fragile(page.context, page.url, database)
    await begin(tab)
    await cut(tab)
    await add(tab, "Second")
    await expect(unsent(tab)).to_have_count(1)
    await tab.reload()
    await shown(tab, "First", "You said: First", "Second", "You said: Second")
    await expect(box(tab)).to_have_value("")
    assert asked(model) == ["First", "Second"]


@pytest.mark.long
async def test_database_that_opens_late_is_used_and_what_it_keeps_is_sent(
    page: Page, watch: Watch, model: Model
) -> None:
    watch.allow("WebSocket connection to")
    tab = await open_fragile(page.context, page.url)
    await page.close()
    await begin(tab)
    await cut(tab)
    await add(tab, "Kept before")
    await kept(tab)
    await tab.add_init_script(LATE)
    await tab.reload()
    await add(tab, "Typed meanwhile")
    await shown(tab, "First", "You said: First", "Typed meanwhile", "You said: Typed meanwhile")
    await tab.evaluate("openNow()")
    await shown(
        tab,
        *("First", "You said: First", "Typed meanwhile", "You said: Typed meanwhile"),
        *("Kept before", "You said: Kept before"),
    )
    await add(tab, "Kept now")
    await expect(answers(tab).last).to_contain_text("You said: Kept now")
    assert asked(model) == ["First", "Typed meanwhile", "Kept before", "Kept now"]


@pytest.mark.long
async def test_refused_words_are_given_back_where_they_were_typed_or_where_that_tab_is_gone(
    page: Page, tab: Page, watch: Watch
) -> None:
    sender = await open_fragile(page.context, tab.url)
    await page.close()
    await sender.evaluate(EMPTY_ON_THE_WIRE)
    await cut(tab)
    await add(tab, "Refuse me")
    await expect(box(tab)).to_have_value("Refuse me", timeout=20_000)
    for each in (tab, sender):
        await shown(each, "First", "You said: First")
    await expect(box(sender)).to_have_value("")
    await cut(sender)
    await add(tab, "Refuse me")
    await expect(unsent(sender)).to_have_count(1)
    await button(tab, "New chat").first.click()
    await mend(sender)
    await expect(tab.get_by_role("status")).to_have_text("A message in another chat was not sent")
    await shown(sender, "First", "You said: First")
    await expect(box(sender)).to_have_value("")
    await tab.close()
    await expect(box(sender)).to_have_value("Refuse me")


async def test_words_are_in_the_box_after_a_reload_that_came_before_they_were_kept(
    page: Page, watch: Watch, model: Model
) -> None:
    watch.allow("WebSocket connection to")
    tab = await open_fragile(page.context, page.url, SILENT, PATIENT)
    await box(tab).fill("First")
    await box(tab).evaluate(
        """box => { box.dispatchEvent(new KeyboardEvent("keydown", { key: "Enter", bubbles: true }));
                    location.reload(); }"""
    )
    await expect(tab.locator("chat-transcript:not([data-lost])")).to_be_attached()
    await expect(box(tab)).to_have_value("First")
    await expect(messages(tab)).to_have_count(0)
    await box(tab).press("Enter")
    await shown(tab, "First", "You said: First")
    await tab.reload()
    await expect(box(tab)).to_have_value("")
    assert asked(model) == ["First"]


async def test_page_asks_before_an_unsent_prompt_goes_with_it_where_the_browser_keeps_nothing(
    page: Page, watch: Watch
) -> None:
    watch.allow("WebSocket connection to")
    tab = await open_fragile(page.context, page.url, FORBIDDEN, NO_STORAGE)
    await begin(tab)
    await cut(tab)
    await add(tab, "Second")
    async with tab.expect_event("dialog") as asking:
        await tab.close(run_before_unload=True)
    await (await asking.value).dismiss()
    await mend(tab)
    await shown(tab, "First", "You said: First", "Second", "You said: Second")


async def test_prompt_taken_back_is_not_sent_after_a_reload_whether_the_database_was_full_or_keeps_it(
    page: Page, tab: Page, model: Model
) -> None:
    await page.goto("about:blank")  # it would send what lies there for some seconds
    await cut(tab)
    await add(tab, "Second")
    await tab.evaluate(FULL)
    await add(tab, "Third")
    await expect(button(tab, "Take back")).to_have_count(2)
    await button(tab, "Take back").first.click()
    await expect(box(tab)).to_have_value("Second")
    await tab.reload()
    await shown(tab, "First", "You said: First", "Third", "You said: Third")
    await expect(box(tab)).to_have_value("Second")
    await cut(tab)
    await box(tab).press("Enter")
    await expect(button(tab, "Take back")).to_have_count(1)
    await tab.evaluate(UNDELETABLE)
    await button(tab, "Take back").click()
    await mend(tab)
    await expect(answers(tab).last).to_contain_text("You said: Second")
    await expect(box(tab)).to_have_value("")
    await expect(button(tab, "Take back")).to_have_count(0)
    assert asked(model) == ["First", "Third", "Second"]


@pytest.mark.long
async def test_prompt_that_another_tab_has_sent_or_taken_back_does_not_wait_here(
    page: Page, tab: Page, model: Model
) -> None:
    await cut(tab)
    await page.goto(tab.url)
    await add(tab, "Second")
    await expect(answers(page).last).to_contain_text("You said: Second")
    await expect(unsent(tab)).to_have_count(0)
    await expect(messages(tab).nth(2)).to_contain_text("Second")
    await box(tab).press("Escape")
    await expect(tab.get_by_role("status")).to_have_text(
        "The answer will be stopped when the connection is back"
    )
    await mend(tab)
    for each in (tab, page):
        await shown(each, "First", "You said: First", "Second", "You said: Second")
        await expect(box(each)).to_have_value("")
    assert asked(model) == ["First", "Second"]


async def test_what_could_not_be_asked_for_too_long_is_told(page: Page, model: Model) -> None:
    line = await Line.lay(page)
    await begin(page)
    gate = Gate()
    model.answer("Slowly", gate, to="Second")
    await add(page, "Second")
    await gate.wait()
    await add(page, "Third")
    await expect(waiting(page)).to_have_attribute("data-state", "queued")
    line.silent = True
    await chip(page, "Edit").click()
    await line.asked("message.withdraw")
    await page.evaluate("const now = Date.now(); Date.now = () => now + 70_000")
    line.silent = False
    await line.cut(1012)
    await expect(page.get_by_text("There was no connection for too long").first).to_be_visible()
    gate.open()
    await shown(page, "First", "You said: First", "Second", "Slowly", "Third", "You said: Third")


async def test_refused_words_are_in_the_box_though_the_database_cannot_be_written(
    page: Page, tab: Page
) -> None:
    await page.close()
    await cut(tab)
    await add(tab, "Refuse me")
    await tab.evaluate(EMPTY_ON_THE_WIRE)
    await tab.evaluate(UNWRITABLE)
    await mend(tab)
    await expect(box(tab)).to_have_value("Refuse me")
    await shown(tab, "First", "You said: First")


async def test_refused_prompt_is_sent_once_though_the_database_could_not_be_written_for_a_moment(
    page: Page, tab: Page
) -> None:
    await page.close()
    await button(tab, "New chat").first.click()
    await cut(tab)
    await add(tab, "Begin anew")
    await add(tab, "Refuse me")
    await tab.evaluate(COUNTED)
    await tab.evaluate(EMPTY_ON_THE_WIRE)
    await tab.evaluate(TWICE_UNDELETABLE)
    await mend(tab)
    await expect(box(tab)).to_have_value("Refuse me")
    await shown(tab, "Begin anew", "You said: Begin anew")
    assert await tab.evaluate("window.sent.filter((frame) => frame.includes('message.send')).length") == 2


@pytest.mark.long
async def test_prompt_that_is_kept_late_does_not_come_back_into_the_box(page: Page, tab: Page) -> None:
    await button(tab, "New chat").first.click()
    await say(tab, "Another")
    await shown(tab, "Another", "You said: Another")
    late = await page.context.new_page()
    await late.add_init_script(SILENT)
    await late.goto(tab.url)
    await add(late, "Only once")
    await chats(late).filter(has_text="First").click()
    await shown(late, "First", "You said: First")
    await chats(late).filter(has_text="Another").click()
    await shown(late, "Another", "You said: Another", "Only once", "You said: Only once")
    await expect(box(late)).to_have_value("")


async def test_prompt_that_was_taken_back_is_not_shown_again_though_its_record_stayed(
    page: Page, model: Model
) -> None:
    line = await Line.lay(page)
    await begin(page)
    await page.evaluate(UNDELETABLE)
    gate = Gate()
    model.answer("Slowly", gate, to="Second")
    await add(page, "Second")
    await gate.wait()
    await add(page, "Third")
    await chip(page, "Edit").click()
    await expect(box(page)).to_have_value("Third")
    await box(page).fill("")
    await page.reload()
    await line.told("message.accepted", 5)  # each of what stayed once more
    await shown(page, "First", "You said: First", "Second", "Slowly")
    gate.open()
    await idle(page)
    await shown(page, "First", "You said: First", "Second", "Slowly")


@pytest.mark.long
async def test_prompts_that_find_the_queue_full_wait_and_go_in_order(page: Page, model: Model) -> None:
    await begin(page)
    gate = Gate()
    model.answer("Slowly", gate, to="Second")
    await add(page, "Second")
    await gate.wait()
    for number in range(MAX_QUEUED + 2):
        await add(page, f"Waits {number:02}")
    await button(page, f"{MAX_QUEUED - 1} more waiting").click()
    await expect(
        waiting(page).get_by_text(re.compile(r"Will be sent in \d+ s$")).locator("visible=true")
    ).to_have_count(1)
    gate.open()
    await expect(answers(page).last).to_contain_text(f"You said: Waits {MAX_QUEUED + 1}", timeout=30_000)
    assert asked(model)[2:] == [f"Waits {number:02}" for number in range(MAX_QUEUED + 2)]


async def test_waiting_prompts_are_in_all_tabs_whatever_their_words_and_each_is_taken_back_in_any(
    page: Page, tab: Page, watch: Watch, model: Model
) -> None:
    other = await open_fragile(page.context, tab.url)
    await page.close()
    for each in (tab, other):
        await cut(each)
    await add(tab, "Never")
    await expect(tab.get_by_role("status")).to_contain_text(
        "Your message will be sent when the connection is back"
    )
    await add(tab, "First")
    await add(tab, "I know it")
    await add(tab, "know")
    for each in (tab, other):
        await shown(each, "First", "You said: First", "Never", "First", "I know it", "know")
        await expect(button(each, "Take back")).to_have_count(4)
        await expect(unsent(each)).to_have_count(1)  # told once for all
    await button(other, "Take back").first.click()
    await expect(button(tab, "Take back")).to_have_count(3)
    await expect(box(other)).to_have_value("Never")
    await box(other).fill("")
    await button(other, "Take back").nth(1).click()
    await expect(button(tab, "Take back")).to_have_count(2)
    await expect(box(other)).to_have_value("I know it")
    await button(other, "Take back").last.click()
    await expect(box(other)).to_have_value("know\n\nI know it")
    await mend(tab)
    await mend(other)
    for each in (tab, other):
        await shown(each, "First", "You said: First", "First", "You said: First")
    assert asked(model) == ["First", "First"]


async def test_prompt_that_another_tab_has_sent_is_promised_no_more(
    page: Page, tab: Page, model: Model
) -> None:
    async def sent() -> bool:
        return asked(model) == ["First", "Second"]

    await cut(tab)
    await add(tab, "Second")
    await expect(tab.get_by_role("status")).to_contain_text("Your message will be sent")
    await eventually(sent, seconds=30, what="the other tab has sent it")
    await expect(unsent(tab)).to_have_count(0)  # and told so
    await tab.evaluate("Object.defineProperty(navigator, 'onLine', { value: false })")
    await expect(tab.get_by_role("status")).to_have_text("Offline: messages will be sent later")


async def test_words_that_wait_for_a_deleted_chat_are_in_the_box_of_a_new_one(
    page: Page, tab: Page, instances: Instances, open_page: OpenPage
) -> None:
    await page.close()
    await cut(tab)
    await add(tab, "Second")
    await add(tab, "Third")
    await box(tab).fill("Half a four")
    other = await open_page(instances[1], like=tab)  # of the same person, with another outbox
    await delete(other, "First")
    await mend(tab)
    await expect(box(tab)).to_have_value("Second\n\nThird\n\nHalf a four")
    await expect(box(tab)).to_be_focused()
    await expect(tab.get_by_text("That chat was deleted. Your message for it is here.").first).to_be_visible()
    await expect(tab.get_by_role("heading", name="New chat")).to_be_visible()
    await expect(messages(tab)).to_have_count(0)


@pytest.mark.long
async def test_words_refused_in_a_chat_that_is_not_shown_are_told_and_found(
    page: Page, tab: Page, instances: Instances, open_page: OpenPage
) -> None:
    await page.close()
    await button(tab, "New chat").first.click()
    await say(tab, "Another")
    await expect(answers(tab)).to_contain_text("You said: Another")
    other = await open_page(instances[1], like=tab)
    await chats(tab).filter(has_text="First").click()
    await shown(tab, "First", "You said: First")
    await cut(tab)
    await add(tab, "Refuse me")
    await chats(tab).filter(has_text="Another").click()
    await tab.evaluate(EMPTY_ON_THE_WIRE)
    await mend(tab)
    await expect(button(tab, "Show")).to_be_visible()
    await tab.reload()  # it is told again: nobody has read it
    await button(tab, "Show").click()
    await expect(box(tab)).to_have_value("Refuse me")
    await shown(tab, "First", "You said: First")
    await box(tab).fill("")
    await cut(tab)
    await add(tab, "Second")
    await chats(tab).filter(has_text="Another").click()
    await delete(other, "First")
    await mend(tab)
    await button(tab, "Show").click()
    await expect(box(tab)).to_have_value("Second")
    await expect(tab.get_by_role("heading", name="New chat")).to_be_visible()
    await chats(tab).filter(has_text="Another").click()
    await cut(tab)
    await box(tab).fill("Half a word")
    await delete(other, "Another")
    await mend(tab)
    await expect(box(tab)).to_have_value("Half a word\n\nSecond")


@pytest.mark.long
async def test_prompt_that_came_too_fast_says_when_it_is_sent(
    store: Store, start_instance: StartInstance, open_page: OpenPage, model: Model
) -> None:
    prefix = f"fast-{secrets.token_hex(4)}"
    page = await open_page(await start_instance(store, PROMPTS_PER_MINUTE="3", REDIS_PREFIX=prefix))
    gate = Gate()
    model.answer("Slowly", gate, to="First")
    await say(page, "First")
    await gate.wait()
    await expect(page.get_by_role("status")).to_have_text("Answer started")
    await add(page, "Second")
    await add(page, "Third")
    await expect(waiting(page)).to_have_count(2)
    await expect(page.get_by_role("status")).to_have_text(
        "Your message waits for the answer that is being written"
    )
    gate.open()
    await expect(answers(page)).to_have_count(3)
    await idle(page)
    await add(page, "Too fast")
    due = messages(page).get_by_text(re.compile(r"Will be sent in \d+ s$"))
    await expect(due).to_be_visible()
    await expect(page.get_by_role("status")).to_contain_text(
        "That was a lot at once. Your message will be sent in"
    )
    await page.reload()
    await expect(due).to_be_visible()
    await expect(answers(page)).to_have_count(3)
    await button(page, "Take back").click()
    await expect(box(page)).to_have_value("Too fast")
