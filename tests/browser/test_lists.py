"""Which chats stand in the list: pinned, archived and temporary ones, and what a name must have."""

from __future__ import annotations

from playwright.async_api import expect

from tests.browser.conftest import OpenPage
from tests.browser.person import answers, box, button, chats, idle, say
from tests.browser.test_chats import begin, choose
from tests.instances import Instance
from tests.trunk import as_json, ours

Instances = tuple[Instance, Instance]
NOTE = "This chat is in no list and in no search."


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


async def test_pinned_chats_all_stand_first_however_long_ago_they_were_used_and_no_page_is_left_out(
    open_page: OpenPage, instances: Instances
) -> None:
    page = await open_page(instances[0])
    told = [
        ours(id=f"c{number}", title=f"Chat {number:02}", updated=f"2026-01-{number % 28 + 1:02}T{number // 28:02}:00:00.000Z",
             pinned=number in (0, 1))
        for number in range(75)
    ]  # fmt: skip
    imported = await page.request.post(f"{instances[0].url}/import", data=as_json(told))
    assert imported.ok, await imported.text()
    await page.reload()
    await expect(chats(page).nth(0)).to_have_text("Chat 01")
    await expect(chats(page).nth(1)).to_have_text("Chat 00")
    await expect(chats(page)).to_have_count(52)
    await chats(page).last.scroll_into_view_if_needed()
    await expect(chats(page)).to_have_count(75)


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
    await page.get_by_role("link", name="Options").click()
    await expect(button(page, "Delete")).to_be_visible()
    for act in ("Pin", "Archive", "Create link"):  # it is in no list
        await expect(button(page, act)).to_have_count(0)
