"""Where the reader is in the conversation is the reader's own affair."""

from __future__ import annotations

import pytest
from playwright.async_api import ElementHandle, Locator, Page, expect

from tests.browser.conftest import OpenPage
from tests.browser.person import answers, at_end, box, button, chats, idle, messages, say
from tests.fakes import Gate, Model, Reasoning
from tests.instances import Instance

Instances = tuple[Instance, Instance]
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
LONG = "".join(
    f"Paragraph {number} of a long answer, with words enough to be broken into lines on a phone, "
    "and more than once where the window is narrow.\n\n"
    for number in range(40)
)
LATE = (
    "".join(f"Line {number}.\n\n" for number in range(6))
    + "```\n"
    + "wide " * 60
    + "\n" * 3
    + "```\n\n"
    + LONG
)
DISTANCE = "() => { const log = document.querySelector('[role=log]'); return log.scrollHeight - log.scrollTop - log.clientHeight; }"
SCROLL = "(by) => document.querySelector('[role=log]').scrollBy({ top: by, behavior: 'instant' })"
TOP_OF = "(element) => element.getBoundingClientRect().top - document.querySelector('[role=log]').getBoundingClientRect().top"
READ = """() => {
  const { left, top, width } = document.querySelector("[role=log]").getBoundingClientRect();
  for (let y = top + 4; ; y += 8) {
    const found = document.elementFromPoint(left + width / 2, y)?.closest(":is(.blocks, [data-section]) > p");
    if (found && found.getBoundingClientRect().top >= top) return found;
  }
}"""
AT_REST = """() => new Promise((done) => {
  const log = document.querySelector("[role=log]");
  let position = -1, frames = 0;
  const look = () => {
    frames = log.scrollTop === position ? frames + 1 : 0;
    position = log.scrollTop;
    if (frames > 8) done();
    else requestAnimationFrame(look);
  };
  look();
})"""
WATCH_TOP = """(element) => {
  const seen = (window.seen = []);
  const look = () => { seen.push(element.getBoundingClientRect().top); requestAnimationFrame(look); };
  look();
}"""

LAG = """() => {
  const log = document.querySelector("[role=log]");
  window.lag = 0; // of the end that is painted, at most
  new ResizeObserver(() => (lag = Math.max(lag, log.scrollHeight - log.scrollTop - log.clientHeight))).observe(log.querySelector(".column"));
}"""
# A key that the page does not take does nothing here, for a script presses it.
PRESS_END = """(element) => {
  const untaken = element.dispatchEvent(new KeyboardEvent("keydown", { key: "End", bubbles: true, cancelable: true }));
  if (untaken) return "left to the browser";
  const { bottom } = document.querySelector("[role=log] chat-message:last-child").getBoundingClientRect();
  return bottom <= document.querySelector("[role=log]").getBoundingClientRect().bottom ? "at the end" : "elsewhere";
}"""
DRAG = """by => {
  const log = document.querySelector("[role=log]");
  const touch = (type, y) => log.dispatchEvent(new TouchEvent(type, { bubbles: true, touches: [new Touch({ identifier: 1, target: log, clientY: y })] }));
  touch("touchstart", 300);
  touch("touchmove", 300 + by);
}"""


def pinned(page: Page) -> Locator:
    """The transcript, while it follows its end."""
    return page.locator("chat-transcript[data-pinned]")


def jump(page: Page) -> Locator:
    """The way back to the end."""
    return page.get_by_role("button", name="Jump to latest")


async def reading(page: Page) -> ElementHandle:
    """The first paragraph that is wholly in the box."""
    found = (await page.evaluate_handle(READ)).as_element()
    assert found
    return found


async def drag(page: Page, by: int) -> None:
    """Draw a finger over the conversation."""
    session = await page.context.new_cdp_session(page)
    for kind, y in (
        ("touchStart", 300),
        ("touchMove", 300 + by // 2),
        ("touchMove", 300 + by),
        ("touchEnd", 0),
    ):
        points = [] if kind == "touchEnd" else [{"x": 200, "y": y}]
        await session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})


async def test_reader_leaves_the_growing_end_in_every_way_and_comes_back_to_it(
    open_page: OpenPage, instances: Instances, model: Model
) -> None:
    page = await open_page(instances[0], **PHONE)
    ways = {
        "wheel": lambda: page.mouse.wheel(0, -150),
        "touch": lambda: drag(page, 150),
        "key": lambda: page.keyboard.press("PageUp"),
        "selection": lambda: answers(page).get_by_text("Paragraph 39").select_text(),
        "scrollbar": lambda: page.evaluate(SCROLL, -150),
    }
    gates = {way: Gate() for way in ways}
    steps = [step for way, gate in gates.items() for step in (gate, f"After the {way}.\n\n" * 20)]
    end = Gate()
    model.answer(LONG, *steps, end, "The end.\n\n" * 5)
    await box(page).fill("A long one")
    await button(page, "Send").click()
    await expect(answers(page)).to_contain_text("Paragraph 39")
    await at_end(page)
    for way, leave in ways.items():
        await expect(pinned(page)).to_be_attached()
        await page.get_by_role("log").hover()
        await page.get_by_role("log").focus()
        await leave()
        await expect(pinned(page), way).not_to_be_attached()
        await page.evaluate(AT_REST)
        read = await reading(page)
        before = await read.evaluate(TOP_OF)
        gates[way].open()
        await expect(answers(page)).to_contain_text(f"After the {way}.")
        await page.evaluate(AT_REST)
        assert abs(await read.evaluate(TOP_OF) - before) <= 1, way
        await expect(jump(page), way).to_be_visible()
        await page.evaluate("document.getSelection().removeAllRanges()")
        if way == "key":
            await jump(page).click()
        else:
            distance = await page.evaluate(DISTANCE)
            await page.evaluate(SCROLL, distance - 50)
        await expect(pinned(page), way).to_be_attached()
        await expect(jump(page), way).to_be_hidden()
    end.open()
    await at_end(page)


async def test_wheel_at_the_very_end_has_it_followed_again(page: Page, model: Model) -> None:
    more = Gate()
    model.answer(LONG, more, "After it.\n\n" * 20)
    await say(page, "A long one")
    await expect(answers(page)).to_contain_text("Paragraph 39")
    await at_end(page)
    await answers(page).get_by_text("Paragraph 39").select_text()
    await expect(pinned(page)).not_to_be_attached()
    await page.evaluate("document.getSelection().removeAllRanges()")
    await page.get_by_role("log").hover()
    await page.mouse.wheel(0, 100)  # where nothing is left to be scrolled
    await expect(pinned(page)).to_be_attached()
    more.open()
    await expect(answers(page)).to_contain_text("After it.")
    await at_end(page)


@pytest.mark.parametrize(("motion", "least", "most"), [("no-preference", 20, 900), ("reduce", 0, 2)])
async def test_end_is_glided_after_or_where_the_system_asks_for_it_there_at_once(
    open_page: OpenPage, instances: Instances, model: Model, motion: str, least: int, most: int
) -> None:
    page = await open_page(instances[0], reduced_motion=motion)
    more, end = Gate(), Gate()
    model.answer(LONG, more, "And more.\n\n" * 3, end)
    await say(page, "A long one")
    await expect(answers(page)).to_contain_text("Paragraph 39")
    await at_end(page)
    await page.evaluate(AT_REST)
    await page.evaluate(LAG)
    more.open()
    await expect(answers(page)).to_contain_text("And more.")
    await at_end(page)
    assert least <= await page.evaluate("lag") < most
    end.open()


@pytest.mark.parametrize(
    ("kept", "left"),
    [((SCROLL, -2), (SCROLL, -3)), ((DRAG, 9), (DRAG, 10))],
    ids=["a move under 3 px", "a drag under 10 px"],
)
async def test_end_is_followed_after_a_hand_that_trembles(
    page: Page, model: Model, kept: tuple[str, int], left: tuple[str, int]
) -> None:
    more, end = Gate(), Gate()
    model.answer(LONG, more, "And more.", end)
    await say(page, "A long one")
    await expect(answers(page)).to_contain_text("Paragraph 39")
    await at_end(page)
    await page.evaluate(AT_REST)
    await page.evaluate(*kept)
    await page.evaluate(AT_REST)
    await expect(pinned(page)).to_be_attached()
    more.open()
    await expect(answers(page)).to_contain_text("And more.")
    await at_end(page)
    await page.evaluate(AT_REST)
    await page.evaluate(*left)
    await expect(pinned(page)).not_to_be_attached()
    end.open()


async def test_jump_button_shows_itself_far_from_the_end_and_has_a_dot_for_new_text(
    page: Page, model: Model
) -> None:
    more, end = Gate(), Gate()
    model.answer(LONG, more, "And more.", end)
    await say(page, "A long one")
    await expect(answers(page)).to_contain_text("Paragraph 39")
    await at_end(page)
    await page.evaluate(SCROLL, -150)
    await expect(pinned(page)).not_to_be_attached()
    await expect(jump(page)).to_be_hidden()
    await page.evaluate(SCROLL, -150)
    await expect(jump(page)).to_be_visible()
    await expect(jump(page)).not_to_have_attribute("data-new", "")
    more.open()
    await expect(jump(page)).to_have_attribute("data-new", "")
    await jump(page).focus()
    await page.evaluate(SCROLL, 10_000)
    await expect(jump(page)).to_be_hidden()
    await expect(page.get_by_role("log")).to_be_focused()
    await page.evaluate(SCROLL, -300)
    await jump(page).click()
    await at_end(page)
    await expect(jump(page)).to_be_hidden()
    await expect(page.locator(".jump")).not_to_have_attribute("data-new", "")
    end.open()


async def test_jump_button_knows_words_from_free_room_and_an_editor_from_the_end(
    page: Page, model: Model
) -> None:
    for prompt in ("First", "Second", "Third"):
        await say(page, prompt)
        await expect(answers(page).last).to_contain_text(f"You said: {prompt}")
    await idle(page)
    await page.get_by_role("log").hover()
    await page.mouse.wheel(0, -300)
    await expect(pinned(page)).not_to_be_attached()
    await page.evaluate(AT_REST)
    await expect(answers(page).last).to_be_in_viewport()
    await expect(jump(page)).to_be_hidden()
    model.answer(LONG, to="Fourth")
    await say(page, "Fourth")
    await expect(answers(page).last).to_contain_text("Paragraph 39")
    await idle(page)
    await at_end(page)
    await box(page).press("ArrowUp")
    await expect(page.get_by_role("textbox", name="Edit message")).to_be_in_viewport(ratio=1)
    await expect(pinned(page)).not_to_be_attached()
    await expect(jump(page)).to_be_hidden()
    await page.keyboard.press("Escape")
    await expect(box(page)).to_be_focused()
    await expect(pinned(page)).to_be_attached()
    await at_end(page)
    await say(page, "Fifth")
    await expect(answers(page).last).to_contain_text("You said: Fifth")
    await idle(page)
    words = page.get_by_text("Fifth", exact=True).last
    before = await words.evaluate(TOP_OF)
    await box(page).press("ArrowUp")
    await page.keyboard.press("Escape")
    await page.evaluate(AT_REST)
    assert abs(await words.evaluate(TOP_OF) - before) <= 1
    await expect(pinned(page)).to_be_attached()
    await page.get_by_role("log").hover()
    await page.mouse.wheel(0, -1200)
    await jump(page).click()
    await at_end(page)
    await page.evaluate(AT_REST)
    await expect(answers(page).last).to_be_in_viewport(ratio=1)
    assert await answers(page).nth(3).get_by_text("Paragraph 39").evaluate(TOP_OF) > 0  # no emptiness below


async def test_prompt_goes_near_the_top_and_stays_until_its_answer_fills_the_box(
    page: Page, model: Model
) -> None:
    model.answer(LONG, to="First")
    gate, end = Gate(), Gate()
    model.answer("Short.\n\n" * 3, gate, LONG, end, to="Second")
    await say(page, "First")
    await expect(answers(page)).to_contain_text("Paragraph 39")
    await say(page, "Second")
    await expect(answers(page).last).to_contain_text("Short.")
    words = page.get_by_text("Second", exact=True).last
    assert 32 <= await words.evaluate(TOP_OF) <= 50
    await words.evaluate(WATCH_TOP)
    await expect(answers(page).last.get_by_text("Short.")).to_have_count(3)
    await page.evaluate(AT_REST)
    tops = await page.evaluate("seen")
    assert max(tops) - min(tops) <= 1
    gate.open()
    await expect(answers(page).last).to_contain_text("Paragraph 39")
    await at_end(page)  # then it is followed
    end.open()


async def test_answers_are_not_followed_where_the_person_does_not_want_it(page: Page, model: Model) -> None:
    follow = page.get_by_role("switch", name="Follow answers")
    await expect(follow).to_be_checked()
    await follow.click()
    await page.reload()
    await expect(follow).not_to_be_checked()
    model.answer(LONG, to="First")
    await say(page, "First")
    await expect(answers(page)).to_contain_text("Paragraph 39")
    await idle(page)
    assert 20 <= await page.get_by_text("First", exact=True).last.evaluate(TOP_OF) <= 50
    await expect(jump(page)).to_be_visible()
    await follow.click()
    model.answer(LONG, "The end.", to="Second")
    await say(page, "Second")
    await expect(answers(page).last).to_contain_text("The end.")
    await at_end(page)


async def test_place_in_a_chat_is_found_again_after_another_chat_a_reload_and_in_another_width(
    page: Page, model: Model
) -> None:
    model.answer(LONG, to="First")
    await say(page, "First")
    await expect(answers(page)).to_contain_text("Paragraph 39")
    await idle(page)
    await page.get_by_role("log").hover()
    await page.mouse.wheel(0, -900)
    await expect(jump(page)).to_be_visible()
    await page.evaluate(AT_REST)
    read = await reading(page)
    words, before = await read.inner_text(), await read.evaluate(TOP_OF)
    paragraph = answers(page).get_by_text(words.split(",")[0], exact=False).first
    await button(page, "New chat").first.click()
    await expect(messages(page)).to_have_count(0)
    await chats(page).filter(has_text="First").click()
    await expect(paragraph).to_be_in_viewport()
    assert abs(await paragraph.evaluate(TOP_OF) - before) <= 1
    await page.reload()
    await expect(paragraph).to_be_in_viewport()
    assert abs(await paragraph.evaluate(TOP_OF) - before) <= 1
    for width in (500, 1280):
        await page.set_viewport_size({"width": width, "height": 720})
        await page.evaluate(AT_REST)
        await expect(paragraph).to_be_in_viewport()
    assert abs(await paragraph.evaluate(TOP_OF) - before) <= 4
    await jump(page).click()
    await page.reload()
    await at_end(page)


async def test_nothing_that_changes_its_height_above_moves_what_is_read(page: Page, model: Model) -> None:
    more, end = Gate(), Gate()
    model.answer(LATE, more, "After the code.", end)
    await say(page, "First")
    await expect(answers(page)).to_contain_text("Paragraph 39")
    await at_end(page)
    await page.get_by_role("log").hover()
    await page.mouse.wheel(0, -900)
    await expect(pinned(page)).not_to_be_attached()
    await page.evaluate(AT_REST)
    read = await reading(page)
    before = await read.evaluate(TOP_OF)
    changes = {
        "a late height": lambda: page.evaluate(
            "document.querySelector('.blocks > p').style.height = '300px'"
        ),
        "lines wrapped": lambda: page.evaluate("document.querySelector('[role=log] .wrap').click()"),
        "the theme": lambda: page.get_by_role("radio", name="Dark").check(),
        "a keyboard": lambda: page.set_viewport_size({"width": 1280, "height": 420}),
        "no keyboard": lambda: page.set_viewport_size({"width": 1280, "height": 720}),
        "the chats": lambda: button(page, "Hide chats").click(),
        "new text": lambda: more.open() or expect(answers(page)).to_contain_text("After the code."),
        "the end": lambda: end.open() or expect(button(page, "Send")).to_be_visible(),
    }
    for what, change in changes.items():
        if (going := change()) is not None:
            await going
        await page.evaluate(AT_REST)
        assert abs(await read.evaluate(TOP_OF) - before) <= 1, what


async def test_reader_who_scrolls_in_a_box_inside_goes_on_following_the_answer(
    page: Page, model: Model
) -> None:
    more, end = Gate(), Gate()
    model.answer("Said before.\n\n" * 40, to="First")
    model.answer(Reasoning("A thought.\n" * 60), more, LONG, end, to="Second")
    await say(page, "First")
    await say(page, "Second")
    thoughts = page.get_by_role("group", name="Reasoning")
    await page.wait_for_function("() => document.querySelector('.thoughts')?.scrollTop > 200")
    await thoughts.hover()
    await page.mouse.wheel(0, -100)
    await page.wait_for_function(
        "() => { const { scrollTop, scrollHeight, clientHeight } = document.querySelector('.thoughts');"
        " return scrollTop < scrollHeight - clientHeight - 50 }"
    )
    await expect(pinned(page)).to_be_attached()
    more.open()
    await expect(answers(page).last).to_contain_text("Paragraph 39")
    await at_end(page)
    end.open()


async def test_end_key_goes_to_the_end_of_the_box_inside_that_it_is_pressed_in_then_of_all(
    page: Page, model: Model
) -> None:
    model.answer(Reasoning("A thought.\n" * 60), LONG)
    await say(page, "A long one")
    await idle(page)
    await page.locator(".thoughts").evaluate(
        "(box) => { box.closest('details').open = true; box.scrollTop = 0; }"
    )
    await page.evaluate(SCROLL, -1_000)
    await expect(pinned(page)).not_to_be_attached()
    assert await page.locator(".thoughts").evaluate(PRESS_END) == "left to the browser"
    await page.locator(".thoughts").evaluate("(box) => { box.scrollTop = box.scrollHeight; }")
    assert await page.locator(".thoughts").evaluate(PRESS_END) == "at the end"
    await expect(pinned(page)).to_be_attached()
    await at_end(page)


async def test_code_and_table_stay_in_hand_and_scrolled_sideways_while_they_are_drawn_again(
    open_page: OpenPage, instances: Instances, model: Model
) -> None:
    page = await open_page(instances[0], **PHONE)
    closing, row, end = Gate(), Gate(), Gate()
    wide = "wide " * 60
    columns = f"|{'wide|' * 20}\n|{'-|' * 20}\n|{'wide|' * 20}\n"
    model.answer(f"```\n{wide}\n", closing, "```\n\n", columns, row, "|3|4|\n\nAfter.", end)
    await box(page).fill("Wide ones")
    await button(page, "Send").click()
    held = "element => { element.focus(); element.scrollLeft = 150; }"
    code, table = page.locator("figure.code pre"), page.get_by_role("group", name="Table")
    await expect(page.locator("figure.code[data-open]")).to_be_attached()
    await code.evaluate(held)
    closing.open()
    await expect(page.locator("figure.code[data-open]")).not_to_be_attached()
    await expect(code).to_be_focused()
    await expect(code).to_have_js_property("scrollLeft", 150)
    await button(page, "Wrap lines").focus()
    await expect(table.get_by_role("row")).to_have_count(2)
    await table.evaluate(held)
    row.open()
    await expect(table).to_contain_text("4")
    await expect(table).to_be_focused()
    await expect(table).to_have_js_property("scrollLeft", 150)
    end.open()


async def test_rendering_of_words_with_a_link_does_not_let_go_of_the_end(page: Page, model: Model) -> None:
    gate = Gate()
    model.answer(LONG + "See https://example.com/", gate, " more.\n\n" + LONG)
    await say(page, "Explain")
    await expect(answers(page).get_by_role("link")).to_be_visible()
    await page.get_by_role("log").press("End")
    await at_end(page)
    # Text comes more often than its rendering.
    await answers(page).evaluate("(answer, text) => answer.grow({ text, blocks: [] })", "\n\nIt is\n" * 9)
    await at_end(page)
    await page.evaluate(AT_REST)
    gate.open()
    await idle(page)
    await expect(pinned(page)).to_have_count(1)
    await at_end(page)
