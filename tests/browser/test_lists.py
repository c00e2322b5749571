"""Which chats stand in the list: pinned, archived and temporary ones, and what a name must have."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.async_api import Page, expect

from tests.browser.conftest import OpenPage
from tests.browser.line import Line
from tests.browser.person import answers, box, button, chats, delete, idle, say
from tests.browser.test_chats import begin, chat, choose
from tests.browser.watch import Watch
from tests.fakes import Gate, Model
from tests.instances import Instance
from tests.trunk import as_json, ours

Instances = tuple[Instance, Instance]
NOTE = "This chat is in no list and in no search."
ARCHIVED = "This chat is archived."
COUNT_ANSWERED = """() => {
  window.answered = 0;
  document.addEventListener("answered", ({ detail }) => window.answered += detail.title === "Left");
}"""
NEW_ANSWER = "There is a new answer"


async def bring(page: Page, *told: dict[str, Any]) -> None:
    """Import chats, and show them."""
    address = page.url.removesuffix("/")
    imported = await page.request.post(f"{address}/import", data=as_json(list(told)))
    assert imported.ok, await imported.text()
    await page.reload()


async def bring_pinned(page: Page) -> None:
    """Import 75 chats, of which the two used longest ago are pinned."""
    await bring(
        page,
        *(
            ours(
                id=f"c{number}",
                title=f"Chat {number:02}",
                updated=f"2026-01-{number % 28 + 1:02}T{number // 28:02}:00:00.000Z",
                pinned=number in (0, 1),
            )
            for number in range(75)
        ),
    )


async def test_archived_chat_leaves_the_list_in_all_tabs_and_what_is_said_in_it_brings_it_back(
    open_page: OpenPage, instances: Instances
) -> None:
    page = await open_page(instances[0])
    await begin(page, "One", "Two")
    other = await open_page(instances[1], like=page)
    await choose(page, "One", "Archive")
    for each in (page, other):
        await expect(chats(each)).to_have_text(["Two"])
    await button(page, "Undo").click()
    for each in (page, other):
        await expect(chats(each)).to_have_text(["Two", "One"])
    await choose(page, "Two", "Archive")  # the one that is shown
    await expect(chats(other)).to_have_text(["One"])
    await page.reload()
    await expect(chats(page)).to_have_text(["One"])
    await say(page, "More")
    for each in (page, other):
        await expect(chats(each)).to_have_text(["Two", "One"])
    await expect(chats(page).first).to_have_attribute("aria-current", "page")


async def test_open_archived_chat_says_so_in_all_tabs_and_is_brought_back(
    open_page: OpenPage, instances: Instances
) -> None:
    page = await open_page(instances[0])
    await begin(page, "One", "Two")
    other = await open_page(instances[1], page.url.removeprefix(instances[0].url), like=page)
    await choose(page, "Two", "Archive")
    for each in (page, other):
        await expect(each.get_by_text(ARCHIVED)).to_be_visible()
    await other.reload()
    await expect(other.get_by_text(ARCHIVED)).to_be_visible()
    await chats(page).first.click()
    await expect(page.get_by_text(ARCHIVED)).to_be_hidden()
    await page.go_back()
    await expect(page.get_by_text(ARCHIVED)).to_be_visible()
    await button(other, "Bring back").click()
    await expect(box(other)).to_be_focused()
    for each in (page, other):
        await expect(each.get_by_text(ARCHIVED)).to_be_hidden()
        await expect(chats(each)).to_have_text(["Two", "One"])
        await expect(chats(each).first).to_have_attribute("aria-current", "page")


async def test_person_without_scripts_brings_an_archived_chat_back(
    open_page: OpenPage, instances: Instances
) -> None:
    page = await open_page(instances[0])
    await begin(page, "One")
    await choose(page, "One", "Archive")
    plain = await open_page(
        instances[0], page.url.removeprefix(instances[0].url), like=page, java_script_enabled=False
    )
    await expect(plain.get_by_text(ARCHIVED)).to_be_visible()
    await button(plain, "Bring back").click()
    await expect(plain.get_by_text("The chat is among your chats again.")).to_be_visible()
    await expect(page.get_by_text(ARCHIVED)).to_be_hidden()


async def test_way_to_the_settings_is_that_of_the_chat_that_is_shown(
    page: Page, model: Model, watch: Watch
) -> None:
    watch.allow("404")
    way = page.get_by_role("link", name="Chat settings")
    await expect(way).to_be_hidden()
    gate = Gate()
    model.answer(gate, "You said: One")
    await box(page).fill("One")
    await box(page).press("Enter")
    await expect(way).to_have_attribute("href", re.compile(r"^/c/[\w-]+/options$"))
    gate.open()
    await expect(answers(page)).to_contain_text("You said: One")
    first = await way.get_attribute("href")
    await begin(page, "Two")
    await expect(way).not_to_have_attribute("href", first or "")
    await chats(page).last.click()
    await expect(way).to_have_attribute("href", first or "")
    await button(page, "New chat").first.click()
    await expect(way).to_be_hidden()
    await page.go_back()
    await way.click()
    await expect(page.get_by_role("heading", level=1)).to_contain_text("One")
    await button(page, "Delete").click()
    await page.get_by_role("heading", name="The chat is deleted").wait_for()
    await page.go_back()
    await page.go_back()
    await page.get_by_role("heading", name="This chat is not here").wait_for()
    await expect(way).to_be_hidden()


async def test_pinned_chats_all_stand_first_however_long_ago_they_were_used_and_no_page_is_left_out(
    open_page: OpenPage, instances: Instances
) -> None:
    page = await open_page(instances[0])
    await bring_pinned(page)
    await expect(chats(page).nth(0)).to_have_text("Chat 01")
    await expect(chats(page).nth(1)).to_have_text("Chat 00")
    await expect(chats(page)).to_have_count(52)
    await choose(page, "Chat 00", "Unpin")  # which brings it to the end of those that are there
    await expect(chats(page).last).to_have_text("Chat 00")
    await chats(page).last.scroll_into_view_if_needed()
    await expect(chats(page)).to_have_count(75)


@pytest.mark.long
async def test_older_chats_that_come_late_do_not_bring_back_what_was_deleted_since_they_were_asked_for(
    open_page: OpenPage, instances: Instances
) -> None:
    page = await open_page(instances[0])
    await bring_pinned(page)
    other = await open_page(instances[1], like=page)
    line = await Line.lay(page)
    await line.told("conversation.listed", 2)
    await chats(other).last.scroll_into_view_if_needed()
    await expect(chats(other)).to_have_count(75)
    oldest = str(await chats(other).last.text_content())
    line.hold("conversation.listed")
    await chats(page).last.scroll_into_view_if_needed()
    await line.holds()
    await delete(other, oldest)
    await line.told("conversation.deleted", 1)
    line.tell(line.held.pop())
    await expect(chats(page)).to_have_count(74)
    await expect(chat(page, oldest)).to_have_count(0)


@pytest.mark.long
async def test_pinned_chats_that_were_deleted_and_unpinned_while_the_line_was_cut_leave_their_place(
    open_page: OpenPage, instances: Instances
) -> None:
    page = await open_page(instances[0])
    await bring_pinned(page)
    line = await Line.lay(page)
    await chats(page).last.scroll_into_view_if_needed()
    await expect(chats(page)).to_have_count(75)
    other = await open_page(instances[1], like=page)
    line.silent = True
    await delete(other, "Chat 00")
    await choose(other, "Chat 01", "Unpin")
    await expect(other.get_by_text("Pinned", exact=True)).to_have_count(0)
    await expect(chat(page, "Chat 00")).to_have_count(1)
    line.silent = False
    await line.cut(1012)
    await expect(page.get_by_text("Pinned", exact=True)).to_have_count(0)
    await chats(page).last.scroll_into_view_if_needed()
    await expect(chats(page)).to_have_count(74)
    await expect(chat(page, "Chat 00")).to_have_count(0)
    await expect(chats(page).nth(-3)).to_have_text("Chat 01")


async def test_chats_stand_under_the_days_of_the_readers_own_time_zone_also_once_it_is_midnight_there(
    open_page: OpenPage, instances: Instances
) -> None:
    page = await open_page(instances[0], timezone_id="Asia/Tokyo", locale="en-US")
    await page.clock.install(time="2026-03-10T14:50:00Z")  # ten minutes to midnight
    days = {
        "At the end of today": "2026-03-10T14:00:00.000Z",
        "First of today": "2026-03-09T15:00:00.000Z",
        "Last of yesterday": "2026-03-09T14:59:59.999Z",
        "A week ago": "2026-03-02T15:00:00.000Z",
        "Before": "2026-03-02T14:59:59.999Z",
        "In January": "2026-01-31T15:00:00.000Z",
        "In December": "2025-12-31T14:59:59.999Z",
    }
    await bring(page, *(ours(id=f"d{at}", title=title, updated=days[title]) for at, title in enumerate(days)))
    at_end, first, last, week, before, january, december = days
    rows = page.get_by_role("navigation", name="Chats").get_by_role("listitem")
    older = ["Previous 30 days", before, "February", january, "December 2025", december]
    await expect(rows).to_have_text(
        ["Today", at_end, first, "Yesterday", last, "Previous 7 days", week, *older]
    )
    await page.clock.fast_forward("10:02")
    older = ["Previous 30 days", week, before, *older[2:]]
    await expect(rows).to_have_text(["Yesterday", at_end, first, "Previous 7 days", last, *older])


async def ask_in_a_new_chat(page: Page, model: Model) -> Gate:
    """Begin a chat, "Left", whose answer is being written until the gate opens."""
    gate = Gate()
    model.answer("Some", gate, " more")
    await button(page, "New chat").first.click()
    await say(page, "Left")
    await expect(answers(page)).to_contain_text("Some")
    return gate


async def test_answer_that_ended_in_a_chat_that_is_not_shown_is_marked_in_all_browsers_until_it_is(
    open_page: OpenPage, instances: Instances, model: Model
) -> None:
    page = await open_page(instances[0])
    await begin(page, "Shown")
    gate = await ask_in_a_new_chat(page, model)
    other = await open_page(instances[1], like=page)
    await chat(page, "Shown").click()
    for each in (page, other):
        await expect(chat(each, "Left")).to_have_accessible_description("An answer is being written")
    gate.open()
    for each in (page, other):
        await expect(chat(each, "Left")).to_have_accessible_description(NEW_ANSWER)
        await expect(chat(each, "Left").locator(".sign")).to_be_visible()
        await expect(chat(each, "Shown")).to_have_accessible_description("")
    for each in (page, other):
        await chat(each, "Left").click()
        await expect(answers(each)).to_contain_text("Some more")
        await expect(chat(each, "Left")).to_have_accessible_description("")
        await expect(chat(each, "Left").locator(".sign")).to_be_hidden()


@pytest.mark.parametrize("pinned", [pytest.param(False, marks=pytest.mark.long), True])
async def test_list_that_comes_late_does_not_undo_what_was_told_since_it_was_read(
    open_page: OpenPage, instances: Instances, model: Model, pinned: bool
) -> None:
    page = await open_page(instances[0])
    await begin(page, "Deleted")
    gate = await ask_in_a_new_chat(page, model)
    if pinned:
        await choose(page, "Left", "Pin")
    other = await open_page(instances[1], like=page)
    line = await Line.lay(other)
    await line.told("conversation.listed", 2)
    line.hold("conversation.listed")
    await other.goto(f"{instances[1].url}/")
    await line.holds(2)
    await other.evaluate(COUNT_ANSWERED)
    await expect(chat(other, "Left")).to_have_accessible_description("An answer is being written")
    gate.open()
    await expect(chat(other, "Left")).to_have_accessible_description("")
    await delete(page, "Deleted")
    await expect(chats(other)).to_have_text(["Left"])
    for frame in line.held:
        line.tell(frame)
    await begin(page, "After the lists")
    await expect(chats(other)).to_have_text(
        ["Left", "After the lists"] if pinned else ["After the lists", "Left"]
    )
    await expect(chat(other, "Left")).to_have_accessible_description("")
    assert await other.evaluate("() => answered") == 1  # each is a notification


async def test_chat_that_is_to_have_no_name_keeps_the_one_it_has_and_says_so(
    open_page: OpenPage, instances: Instances
) -> None:
    page = await open_page(instances[0])
    await begin(page, "One")
    await choose(page, "One", "Rename")
    await page.get_by_role("textbox", name="Title").fill("   ")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("status")).to_have_text("A chat needs a name: it keeps the one it has.")
    await expect(chats(page)).to_have_text(["One"])


async def test_temporary_chat_is_in_no_list_and_no_search_and_is_there_after_a_reload(
    open_page: OpenPage, instances: Instances
) -> None:
    page = await open_page(instances[0])
    await begin(page, "Listed")
    other = await open_page(instances[1], like=page)
    await button(page, "New chat").first.click()
    await page.get_by_role("switch", name="Temporary chat").check()
    await expect(page.get_by_text(NOTE)).to_be_visible()
    await say(page, "Unlisted secret")
    await expect(answers(page)).to_contain_text("You said: Unlisted secret")
    await idle(page)
    await say(page, "More of it")
    await expect(answers(page).last).to_contain_text("You said: More of it")
    await idle(page)
    await page.keyboard.press("Control+Shift+Backspace")
    await button(page, "Undo").click()
    await expect(answers(page)).to_have_count(2)
    await expect(chats(page)).to_have_text(["Listed"])
    await page.reload()
    await expect(answers(page)).to_have_count(2)
    await expect(page.get_by_text(NOTE)).to_be_visible()
    for each in (page, other):
        await expect(chats(each)).to_have_text(["Listed"])
    await other.get_by_role("searchbox", name="Search chats").fill("secret")
    await expect(other.get_by_role("status")).to_have_text("Nothing found")
    await button(page, "New chat").first.click()
    await expect(page.get_by_text(NOTE)).to_be_hidden()
    await expect(page.get_by_role("switch", name="Temporary chat")).not_to_be_checked()


async def test_person_without_scripts_begins_a_temporary_chat_and_is_offered_nothing_of_lists(
    open_page: OpenPage, instances: Instances
) -> None:
    page = await open_page(instances[0], java_script_enabled=False)
    await page.get_by_role("switch", name="Temporary chat").check()
    await box(page).fill("Unlisted")
    await button(page, "Send").click()
    await expect(answers(page)).to_contain_text("You said: Unlisted", timeout=20_000)
    await expect(page.get_by_text(NOTE)).to_be_visible()
    await expect(chats(page)).to_have_count(0)
    await page.get_by_role("link", name="Chat settings").click()
    await expect(button(page, "Delete")).to_be_visible()
    for act in ("Pin", "Archive", "Create link"):  # it is in no list
        await expect(button(page, act)).to_have_count(0)
