"""A chat of 5,000 messages opens at once, and is read up and down without a jump."""

from __future__ import annotations

import json
import re

import pytest
from playwright.async_api import Page, expect

from tests.browser.line import Line
from tests.browser.long_chat import lengthen
from tests.browser.person import answers, box, button, chats, chip, idle, messages, say
from tests.fakes import Gate, Model
from tests.instances import Store
from tests.waiting import eventually

MESSAGES = 5_000
HTML_BYTES = 100 * 1024
EMPTY_BYTES = 32 * 1024
NODES = 30_000  # of 350 messages
# Scrolls up, some steps a frame, and follows what stands in the middle of the box from one frame to the next: how far
# it strayed from where the scrolling put it, at most, until so many messages are here.
READ_UP = """([messages, step]) => new Promise((resolve) => {
  const log = document.querySelector("[role=log]"), column = log.querySelector(".column");
  const box = log.getBoundingClientRect(), middle = [box.left + box.width / 2, box.top + box.height / 2];
  let followed = null, top = 0, strayed = 0, where = "";
  const pick = () => document.elementFromPoint(...middle)?.closest(":is(.blocks, [data-section]) > :not([data-section]), .words, .actions");
  const frame = () => {
    if (followed?.isConnected) {
      const by = Math.abs(followed.getBoundingClientRect().top - top);
      if (by > strayed) [strayed, where] = [by, followed.textContent.slice(0, 60)];
    }
    if (column.children.length >= messages) return resolve({ strayed, where });
    log.scrollTop -= step;
    followed = pick();
    top = followed?.getBoundingClientRect().top;
    requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
})"""
STEP = (
    210  # px a frame; no answer's height is wrong by as much, so that the two cannot be taken for each other
)
DRAWN = """() => [...document.querySelectorAll("chat-message h2")]
  .filter((heading) => heading.checkVisibility({ contentVisibilityAuto: true })).length"""
MOST_DRAWN = 40  # of 350 messages: those around what is read, and the newest
TOP_OF = "(element) => element.getBoundingClientRect().top"
HOLES = """() => {
  const here = [...document.querySelectorAll("[role=log] chat-message")];
  return here.filter(({ dataset }, at) => at > 0 && dataset.parent !== here[at - 1].dataset.id).length;
}"""
MANY_CHATS = """() => {
  const socket = new WebSocket(document.body.dataset.socket, "llmchat.v1");
  socket.onopen = () => {
    for (let number = 0; number < 50; number++) {
      const text = `Chat ${number}, with a title that is as long as titles are, or longer`;
      socket.send(JSON.stringify({ type: "message.send", id: crypto.randomUUID(), text }));
    }
  };
}"""
# As where what is shown ends near the top, and nobody follows its end.
ASKS_AT_ONCE = """() => {
  const transcript = document.querySelector("chat-transcript");
  transcript.show = (...given) => {
    Object.getPrototypeOf(transcript).show.apply(transcript, given);
    transcript.dispatchEvent(new CustomEvent("older", { detail: transcript.oldest }));
  };
}"""
READ_LAST = """(log, down) => {
  const { top } = log.querySelector("chat-message:last-child").getBoundingClientRect();
  log.scrollTop += top - log.getBoundingClientRect().top + down;
}"""
TURN_TO = """(element, id) => {
  element.dispatchEvent(new CustomEvent("version", { bubbles: true, detail: id }));
  return element.getBoundingClientRect().top;
}"""
DRAWN_TOP_OF = """async (element) => {
  for (let frame = 0; frame < 10; frame++) await new Promise(requestAnimationFrame);
  return element.getBoundingClientRect().top;
}"""
AT_TOP = "() => document.querySelector('[role=log]').scrollTop === 0"
BELOW_TOP = "() => document.querySelector('[role=log]').scrollTop > 0"


async def presses(page: Page, key: str, until: str) -> None:
    """Press a key again and again: what is drawn on the way is higher than it was taken for,
    and Chromium leaves out a key that comes just as the way of the one before ends."""

    async def reached() -> bool:
        await page.keyboard.press(key)
        return bool(await page.evaluate(until))

    await eventually(reached, seconds=30, what=f"{key} leads there")


async def opened(page: Page, store: Store, number: int) -> None:
    """Show a chat of so many messages."""
    await say(page, "The newest question")
    await idle(page)
    await expect(answers(page)).to_contain_text("You said")
    await lengthen(page, store, number - 2)
    await page.reload()


@pytest.mark.long
async def test_chat_of_5000_messages_opens_at_its_end_and_is_read_upwards_without_a_jump(
    page: Page, store: Store
) -> None:
    empty = await page.request.get(page.url)
    assert len(await empty.body()) <= EMPTY_BYTES
    await opened(page, store, MESSAGES)
    response = await page.request.get(page.url)
    assert len(await response.body()) <= HTML_BYTES
    await expect(answers(page).last.get_by_text("The newest question")).to_be_in_viewport()
    inline = await messages(page).count()
    assert 5 < inline < 50
    read = await page.evaluate(READ_UP, [inline + 300, STEP])
    assert read["strayed"] <= 1, read
    assert await page.evaluate("document.getElementsByTagName('*').length") < NODES
    assert await page.evaluate(DRAWN) < MOST_DRAWN
    await page.get_by_role("log").focus()
    await page.keyboard.press("End")
    await expect(answers(page).last.get_by_text("The newest question")).to_be_in_viewport()


async def test_message_that_was_never_drawn_is_shown_where_it_is_put(page: Page, store: Store) -> None:
    await opened(page, store, 60)
    await expect(answers(page).last).to_be_in_viewport()
    far = messages(page).nth(-15)
    top = await messages(page).last.evaluate(TURN_TO, await far.get_attribute("data-id"))
    await expect(far).to_be_in_viewport()
    assert abs(await far.evaluate(DRAWN_TOP_OF) - top) <= 1


@pytest.mark.parametrize(("height", "read"), [(2_000, 300), (2_000, 1_950), (100, 1_800)])
async def test_version_of_a_tall_answer_is_shown_from_where_that_was_read_and_never_out_of_sight(
    page: Page, store: Store, height: int, read: int
) -> None:
    await opened(page, store, 60)
    await expect(answers(page).last).to_be_in_viewport()
    far, last, log = messages(page).nth(-15), messages(page).last, page.get_by_role("log")
    for message, tall in ((far, height), (last, 3_000)):
        await message.evaluate("(element, tall) => { element.style.blockSize = `${tall}px`; }", tall)
    await log.evaluate(READ_LAST, read)
    await page.evaluate("() => new Promise(requestAnimationFrame)")
    top = await last.evaluate(TURN_TO, await far.get_attribute("data-id"))
    await expect(far).to_be_in_viewport()
    shown = max(top, await log.evaluate(TOP_OF) + min(height, 80) - height)
    assert abs(await far.evaluate(DRAWN_TOP_OF) - shown) <= 1


async def test_version_far_above_is_found_though_scrolling_asks_for_the_same_messages(
    page: Page, store: Store
) -> None:
    await opened(page, store, 200)
    await expect(answers(page).last).to_be_in_viewport()
    await page.evaluate(ASKS_AT_ONCE)
    await messages(page).last.evaluate(TURN_TO, "seeded-49")
    await expect(page.locator("[data-id=seeded-49]")).to_be_in_viewport()


async def test_earlier_messages_come_under_a_reader_who_waits_at_the_top_and_a_failure_leaves_the_button(
    page: Page, store: Store
) -> None:
    await opened(page, store, 200)
    line = await Line.lay(page)

    def fail(frame: str) -> str:
        told = json.loads(frame)
        if told["type"] != "conversation.older":
            return frame
        return json.dumps({"type": "error", "code": "internal", "detail": "No.", "id": told["id"]})

    line.hold("conversation.older")
    transcript, first = page.locator("chat-transcript"), messages(page).first
    earlier = page.get_by_role("button", name="Earlier messages")
    await page.get_by_role("log").focus()
    await presses(page, "Home", AT_TOP)
    await line.asked("conversation.older")
    await expect(transcript).to_have_attribute("data-loading", "")
    await expect(earlier).to_be_in_viewport()
    element = await first.element_handle()
    assert element
    before = await element.evaluate(TOP_OF)
    count = await messages(page).count()
    await line.holds()
    line.bend = fail
    line.tell(line.held[0])
    await expect(messages(page)).to_have_count(count + 30)
    assert abs(await element.evaluate(DRAWN_TOP_OF) - before) <= 1
    await presses(page, "Home", AT_TOP)
    await expect(transcript).to_have_attribute("data-failed", "")
    asked = line.count("conversation.older")
    await presses(page, "PageDown", BELOW_TOP)
    await presses(page, "Home", AT_TOP)
    assert line.count("conversation.older") == asked
    line.bend = str
    await earlier.press("Enter")
    await expect(messages(page)).to_have_count(count + 60)
    await expect(transcript).not_to_have_attribute("data-failed", "")


@pytest.mark.long
async def test_older_messages_that_come_late_go_only_before_what_they_lead_to(
    page: Page, store: Store
) -> None:
    await say(page, "Another chat")
    await expect(answers(page)).to_contain_text("You said")
    await button(page, "New chat").first.click()
    await opened(page, store, 200)
    line = await Line.lay(page)
    held: list[str] = []

    def hold(frame: str) -> str:
        if (
            '"conversation.older"' not in frame
            or sum('"conversation.older"' in told for told in line.received) < 2
        ):
            return frame
        held.append(frame)
        return ""

    async def up(times: int) -> None:
        async def come() -> bool:
            for key in ("PageDown", "Home"):
                await page.keyboard.press(key)
            return len(held) >= times

        await page.get_by_role("log").focus()
        await eventually(come, seconds=30, what="older messages come")

    line.bend = hold
    await up(1)
    told = json.loads(held[0])
    for message in told["messages"]:
        message["id"] = f"other-{message['id']}"  # of a branch that was left meanwhile
    line.tell(json.dumps(told))
    await up(2)
    assert await page.evaluate(HOLES) == 0
    await chats(page).filter(has_text="Another").click()
    await expect(messages(page)).to_have_count(2)
    await chats(page).filter(has_text="newest").click()
    await expect(messages(page).last).to_contain_text("The newest question")
    line.tell(held[1])
    await up(3)
    line.tell(held[2])
    await up(4)
    assert await messages(page).count() > 60
    assert await page.evaluate(HOLES) == 0


@pytest.mark.long
async def test_first_response_is_small_whatever_its_chat_holds_and_the_page_makes_it_whole(
    page: Page, model: Model
) -> None:
    links = "".join(
        f"A [link {number}](https://example.com/{number}) *more*. " + "\n\n" * (number % 9 == 0)
        for number in range(3_000)
    )
    paragraphs = f"{links}\n\nThe end."
    gate = Gate()
    model.answer(paragraphs, to="Links")
    model.answer("It runs", gate, to="Slowly")
    await page.evaluate(MANY_CHATS)
    await expect(chats(page)).to_have_count(50)
    await button(page, "New chat").first.click()
    await say(page, "Links")
    await expect(answers(page)).to_contain_text("The end.")
    await idle(page)
    response = await page.request.get(page.url)
    assert len(await response.body()) <= HTML_BYTES
    assert "The end." in await response.text()
    whole = await page.request.get(f"{page.url}?whole")
    assert "link 0<" in await whole.text()
    await page.reload()
    await expect(answers(page)).to_contain_text("link 0")
    await say(page, "Slowly")
    await expect(answers(page).last).to_contain_text("It runs")
    for number in range(20):
        await box(page).fill(f"Prompt {number} " + "and so on " * 1_490)
        await box(page).press("Enter")
    await expect(button(page, "17 more waiting")).to_be_visible()
    await expect(page.locator("queue-chips [data-state=queued]")).to_have_count(20)
    response = await page.request.get(page.url)
    assert len(await response.body()) <= HTML_BYTES
    await page.reload()
    await expect(button(page, "17 more waiting")).to_be_visible()
    await expect(answers(page).last).to_contain_text("It runs")
    await expect(page.locator("chat-transcript")).not_to_have_attribute("data-cut", "")
    await chip(page, "Edit").click()
    await expect(box(page)).to_have_value(re.compile("Prompt 0 and so on"))
    await expect(button(page, "16 more waiting")).to_be_visible()
    await page.keyboard.press("Control+Shift+Backspace")  # nothing of it is asked for in the tests after it
    await expect(messages(page)).to_have_count(0)
    gate.open()
