"""Chats are searched in the sidebar: what is found, the way to it, and by keyboard, phone and without scripts."""

from __future__ import annotations

import re

import pytest
from playwright.async_api import Locator, Page, expect

from tests.browser.axe import findings
from tests.browser.conftest import OpenPage
from tests.browser.line import Line
from tests.browser.long_chat import lengthen
from tests.browser.person import answers, box, button, chats, delete, idle, messages, say
from tests.browser.watch import Watch
from tests.fakes import Model
from tests.instances import Instance, Store

Instances = tuple[Instance, Instance]
TYPED_AS_IT_CONNECTS = """box => {
  box.value = "tree";
  box.dispatchEvent(new Event("input", { bubbles: true }));
  box.closest("chat-search").again();
}"""
SEARCHED = '"searched":{"conversations":400,"of":1000,"complete":false}'
MARK_IN_SIGHT = """() => [...(CSS.highlights.get("found") ?? [])].every((range) => {
  const { top, bottom, height } = range.getBoundingClientRect();
  const log = document.querySelector("[role=log]").getBoundingClientRect();
  return height > 0 && top >= log.top && bottom <= log.bottom;
})"""
BEFORE_MARK = """() => {
  const [range] = CSS.highlights.get("found");
  return range.startContainer.data.slice(range.startOffset - 20, range.startOffset);
}"""
TARGET = """() => {
  const words = document.querySelector("chat-message .words").firstChild;
  const range = new Range();
  const at = words.data.indexOf("needle");
  range.setStart(words, at);
  range.setEnd(words, at + 6);
  return [document.querySelector("[role=log]"), range].map((each) => each.getBoundingClientRect());
}"""
PHONE = {"width": 390, "height": 844}


def field(page: Page) -> Locator:
    """The box to search with."""
    return page.get_by_role("searchbox", name="Search chats")


def found(page: Page) -> Locator:
    """The chats that were found."""
    return page.locator("chat-search").get_by_role("listitem")


def told(page: Page, words: str) -> Locator:
    """What the search says of itself, for the eye."""
    return page.locator("chat-search").get_by_text(words)


async def marked(page: Page, words: str) -> None:
    """Wait until these words are marked as found, and in sight; "" for none."""
    await page.wait_for_function(
        "words => [...(CSS.highlights.get('found') ?? [])].join() === words", arg=words
    )
    await page.wait_for_function(MARK_IN_SIGHT)


async def begin(page: Page, *prompts: str) -> None:
    """Begin a chat with these prompts, and wait for each answer."""
    await button(page, "New chat").first.click()
    for number, prompt in enumerate(prompts, 1):
        await say(page, prompt)
        await expect(answers(page)).to_have_count(number)
        await idle(page)


async def test_words_are_found_in_titles_and_texts_of_any_script_and_lead_to_their_message(
    page: Page, model: Model
) -> None:
    model.answer("Die Straße heißt Königsallee.")
    await begin(page, "Wie heißt sie?")
    model.answer("نعم، الكتاب على الطاولة.")
    await begin(page, "أين الكتاب؟")
    model.answer("カフェに行きました。")
    await begin(page, "ｶﾌｪはどこ？")
    await field(page).fill("STRASSE")
    await expect(found(page)).to_have_count(1)
    await expect(chats(page)).to_have_count(2)  # its title, and what was found; the list is out of sight
    await expect(found(page).locator("mark")).to_have_text("Straße")
    await expect(told(page, "1 chat found")).to_be_visible()
    await expect(page.get_by_role("status")).to_have_text("1 chat found")
    await found(page).get_by_role("link", name="Königsallee").click()
    await expect(answers(page)).to_have_text(re.compile("Königsallee"))
    await expect(answers(page)).to_have_attribute("data-found", "")
    await expect(answers(page)).to_be_focused()
    await expect(page).to_have_url(re.compile(r"/c/[\w-]+$"))
    for words, mark in (("كتاب", "كتاب"), ("カフェ", "ｶﾌｪ")):
        await field(page).fill(words)
        await expect(found(page).locator("mark").first).to_have_text(mark)
        await expect(found(page)).to_have_count(1)
    await field(page).fill("nothing of it")
    await expect(told(page, "All words have to be in one title or one message.")).to_be_visible()
    await field(page).fill('""')
    await expect(told(page, "Type a word to search for.")).to_be_visible()
    await field(page).fill("")
    await expect(chats(page)).to_have_count(3)


async def test_message_far_above_is_gone_to_and_by_its_address(
    page: Page, store: Store, open_page: OpenPage, instances: Instances
) -> None:
    await begin(page, "The end")
    await lengthen(page, store, 120)
    await page.reload()
    await field(page).fill('"question 8:"')
    link = found(page).get_by_role("link", name="Question 8:")
    await link.click()
    there = messages(page).filter(has_text="Question 8:")
    await expect(there).to_be_in_viewport()
    await expect(there).to_be_focused()
    await expect(field(page)).to_have_value('"question 8:"')
    other = await open_page(instances[0], await link.get_attribute("href") or "", like=page)
    await expect(messages(other).filter(has_text="Question 8:")).to_be_focused()
    await expect(messages(other).filter(has_text="Question 8:")).to_be_in_viewport()
    await expect(messages(other).last).to_contain_text("You said: The end")
    await expect(other).to_have_url(re.compile(r"/c/[\w-]+$"))


async def test_words_deep_in_a_message_are_gone_to_and_marked(page: Page, model: Model) -> None:
    model.answer(
        "\n\n".join(f"The *step* number {number} is like the one before." for number in range(90))
        + "\n\nBut a **golden** `key` opens it.\n\n"
        + "\n\n".join(f"And so on, {number} times." for number in range(90))
    )
    paragraphs = [f"Paragraph {number} has a word." for number in range(150)]
    paragraphs[140] = "Paragraph 140 has a needle, or two needles."
    await begin(page, "\n\n".join(paragraphs))
    await field(page).fill("needle")
    await found(page).get_by_role("link", name="needle").click()
    await marked(page, "needle")
    await expect(button(page, "Show less")).to_be_visible()
    assert "two" not in await page.evaluate(BEFORE_MARK)
    await box(page).click()
    await marked(page, "")
    await field(page).fill("golden key")
    await found(page).get_by_role("link", name="golden").click()
    await marked(page, "golden")
    await field(page).fill('"step number 77"')
    await expect(told(page, "Nothing found")).to_be_visible()
    await field(page).fill('"number 77 is"')
    await found(page).get_by_role("link", name="number 77 is").click()
    await marked(page, "number 77 is")
    await button(page, "New chat").first.click()
    await marked(page, "")


async def test_words_deep_in_a_message_are_gone_to_without_scripts(
    page: Page, open_page: OpenPage, instances: Instances
) -> None:
    paragraphs = [f"Paragraph {number} has a word." for number in range(150)]
    paragraphs[140] = "Here, in the midst - of all of it, (stands) a needle, as-if."
    await begin(page, "\n\n".join(paragraphs))
    plain = await open_page(instances[1], "/search?q=needl", like=page, java_script_enabled=False)
    link = found(plain).get_by_role("link", name=re.compile("^You"))
    assert ":~:text=" in (await link.get_attribute("href") or "")
    await link.click()
    await plain.wait_for_url("**/c/**")
    log, there = await plain.evaluate(TARGET)
    assert log["top"] <= there["top"] <= there["bottom"] <= log["bottom"]


async def test_message_of_another_version_is_shown_on_request(page: Page, model: Model) -> None:
    model.answer("An apple")
    await begin(page, "Fruit?")
    model.answer("A pear")
    await answers(page).hover()
    await button(page, "Regenerate").click()
    await expect(answers(page)).to_contain_text("A pear")
    await idle(page)
    await field(page).fill("apple")
    await found(page).get_by_role("link", name="An apple").click()
    await expect(page.get_by_text("This is in another version of the chat").first).to_be_visible()
    await expect(answers(page)).to_contain_text("A pear")
    await button(page, "Show it").click()
    await expect(answers(page)).to_contain_text("An apple")
    await expect(answers(page)).to_be_focused()


@pytest.mark.long
async def test_chat_deleted_in_another_browser_goes_from_what_was_found(
    open_page: OpenPage, instances: Instances
) -> None:
    page = await open_page(instances[0])
    await begin(page, "A green tree")
    await begin(page, "A red tree")
    other = await open_page(instances[1], like=page)
    await field(page).fill("tree")
    await expect(found(page)).to_have_count(2)
    await delete(other, "A red tree")
    await expect(found(page)).to_have_count(1)
    await expect(told(page, "1 chat found")).to_be_visible()


async def test_search_that_did_not_see_all_says_how_far_it_came(page: Page) -> None:
    line = await Line.lay(page)
    line.bend = lambda frame: re.sub(r'"searched":{[^}]*}', SEARCHED, frame)
    await begin(page, "A tree")
    await field(page).fill("tree")
    await expect(told(page, "1 chat found. Searched the newest 400 of 1,000 chats")).to_be_visible()


async def test_words_stay_without_a_connection_and_are_searched_when_it_is_back(page: Page) -> None:
    line = await Line.lay(page)
    await begin(page, "A tree")
    line.closing = 1013
    await line.cut(1013)
    await field(page).fill("tree")
    await expect(told(page, "There is no connection right now")).to_be_visible()
    await expect(field(page)).to_have_value("tree")
    line.closing = None
    await expect(found(page)).to_have_count(1)


async def test_words_typed_in_the_moment_in_which_the_connection_comes_are_searched(page: Page) -> None:
    await begin(page, "A tree")
    await page.wait_for_function("() => customElements.get('chat-search')")
    await field(page).evaluate(TYPED_AS_IT_CONNECTS)
    await expect(found(page)).to_have_count(1)


async def test_search_by_keyboard(page: Page) -> None:
    await begin(page, "A green tree", "And a bush")
    await begin(page, "A red tree")
    await box(page).press("/")
    await expect(box(page)).to_have_value("/")
    await box(page).fill("")
    await page.keyboard.press("Control+k")
    await expect(field(page)).to_be_focused()
    await page.keyboard.type("tree/")
    await expect(field(page)).to_have_value("tree/")
    await page.keyboard.press("Backspace")
    await expect(found(page)).to_have_count(2)
    links = found(page).get_by_role("link")
    await page.keyboard.press("ArrowDown")
    await expect(links.first).to_be_focused()
    await page.keyboard.press("ArrowUp")
    await expect(field(page)).to_be_focused()
    await page.keyboard.press("Tab")
    await expect(links.first).to_be_focused()
    await found(page).get_by_role("link", name="You A green tree").focus()
    await page.keyboard.press("Enter")
    await expect(messages(page).first).to_be_focused()
    await expect(messages(page).first).to_contain_text("A green tree")
    await page.keyboard.press("/")
    await expect(field(page)).to_be_focused()
    await page.keyboard.press("Escape")
    await expect(field(page)).to_have_value("")
    await expect(field(page)).to_be_focused()
    await expect(chats(page)).to_have_count(2)
    await page.keyboard.press("Escape")
    await expect(box(page)).to_be_focused()


async def test_only_what_was_typed_last_is_shown(page: Page) -> None:
    line = await Line.lay(page)
    await begin(page, "A tree")
    await begin(page, "A bush")
    line.hold("conversation.found")
    await field(page).fill("tree")
    await line.holds()
    line.bend = str
    await field(page).fill("bush")
    await expect(found(page)).to_contain_text(["A bush"])
    line.tell(line.held.pop())
    await say(page, "More")
    await expect(answers(page).last).to_contain_text("You said: More")
    await expect(found(page).locator("mark").first).to_have_text("bush")


async def test_search_on_a_phone(open_page: OpenPage, instances: Instances) -> None:
    page = await open_page(instances[0], viewport=PHONE, has_touch=True, reduced_motion="reduce")
    await box(page).fill("A green tree")
    await button(page, "Send").click()
    await expect(answers(page)).to_contain_text("A green tree")
    await page.keyboard.press("Control+k")
    await expect(field(page)).to_be_focused()
    await field(page).fill("tree")
    await expect(found(page)).to_have_count(1)
    for link in await found(page).get_by_role("link").all():
        size = await link.bounding_box()
        assert size
        assert size["height"] >= 44
    assert await findings(page) == []
    await page.keyboard.press("Escape")
    await expect(field(page)).to_be_visible()
    await field(page).fill("tree")
    await found(page).get_by_role("link", name="You A green tree").click()
    await expect(field(page)).to_be_hidden()
    await expect(messages(page).first).to_have_attribute("data-found", "")


@pytest.mark.long
async def test_person_without_scripts_searches(
    page: Page, open_page: OpenPage, instances: Instances, store: Store, watch: Watch
) -> None:
    watch.allow("422")
    await begin(page, "The <b>end</b> of it")
    await lengthen(page, store, 120)
    plain = await open_page(instances[1], like=page, java_script_enabled=False)
    await field(plain).fill("<b>end</b>")
    await button(plain, "Search").click()
    await expect(plain).to_have_url(re.compile(r"/search\?q="))
    await expect(found(plain)).to_have_count(1)
    await expect(found(plain).locator("mark").first).to_have_text("<b>end</b>")
    await expect(plain.get_by_role("status")).to_have_text("1 chat found")
    await field(plain).fill('"question 8:"')
    await field(plain).press("Enter")
    await found(plain).get_by_role("link", name="Question 8:").click()
    there = messages(plain).filter(has_text="Question 8:")
    await expect(there).to_be_in_viewport()
    await expect(messages(plain).last).to_contain_text("Question 8:")
    await expect(there).to_have_css("border-inline-start-style", "solid")
    newest = plain.get_by_role("link", name="Newest messages")
    await newest.click()
    last = await messages(plain).last.get_attribute("data-id")
    await plain.goto(f"{plain.url}?at={last}#by-{last}")
    await expect(messages(plain).last).to_have_css("border-inline-start-style", "solid")
    await expect(newest).to_have_count(0)
    await plain.goto(f"{instances[1].url}/search?q=nowhere")
    await expect(plain.get_by_text("Nothing found")).to_be_visible()
    await plain.goto(f"{instances[1].url}/search?q={'x' * 201}")
    await expect(plain.get_by_role("alert")).to_contain_text("At most 200 characters")
    await page.goto(f"{instances[0].url}/search?q=end")
    await expect(found(page)).to_have_count(1)
    assert await findings(page) == []
