"""One message: the model's reasoning, its code, what can be done with it, and how it tells what became of it."""

from __future__ import annotations

import json
import re

import pytest
from playwright.async_api import Locator, Page, expect

from tests.browser.conftest import OpenPage
from tests.browser.line import Line
from tests.browser.person import answers, at_end, box, button, idle, messages, say
from tests.conftest import StartInstance
from tests.fakes import Gate, Model, Reasoning
from tests.instances import Instance, Store

Instances = tuple[Instance, Instance]
THOUGHTS = "First, <b>this</b>.\n\n  Then that.\n" + "".join(f"Thought {number}.\n" for number in range(60))
CODE = "\tif (a < b && 'c' != \"d\") {   \n\t\treturn `é 👋 {\u00a0}`;\n\n\t}\t\n\n  // the end"
FOLLOWED = """() => {
  const box = document.querySelector(".thoughts");
  return box.scrollTop > 0 && box.scrollHeight - box.scrollTop - box.clientHeight < 2;
}"""
CUT = 40  # characters of it come first


def reasoning(page: Page) -> Locator:
    """What the model thought before its newest answer."""
    return answers(page).last.get_by_role("group", name="Reasoning")


def item(page: Page, name: str) -> Locator:
    """An item of the open menu."""
    return page.get_by_role("menuitem", name=name, exact=True)


async def other_tab(open_page: OpenPage, page: Page, instance: Instance) -> Page:
    """The chat of a page, in another tab at an instance."""
    return await open_page(instance, "/c/" + page.url.rpartition("/c/")[2], like=page)


async def clipboard(page: Page) -> str:
    """What was copied."""
    return str(await page.evaluate("navigator.clipboard.readText()"))


async def test_reasoning_is_open_while_it_comes_and_closed_by_the_answer_unless_a_hand_was_at_it(
    open_page: OpenPage, instances: Instances, model: Model
) -> None:
    page = await open_page(instances[0])
    thinking, writing, ending = Gate(), Gate(), Gate()
    model.answer(
        Reasoning(THOUGHTS[:20]), Reasoning(THOUGHTS[20:]), thinking, "So", writing, " it is.", ending
    )
    await say(page, "Think")
    summary = answers(page).locator("summary")
    await expect(summary).to_have_text("Thinking…")
    await expect(answers(page).get_by_text("Waiting for the answer")).to_be_hidden()
    await page.wait_for_function(FOLLOWED)
    assert await reasoning(page).evaluate("box => box.textContent") == THOUGHTS
    await expect(reasoning(page)).to_have_css("white-space", "pre-wrap")
    other = await other_tab(open_page, page, instances[1])  # its first paint has it
    await expect(reasoning(other)).to_be_visible()
    await answers(other).locator("summary").click()
    await answers(other).locator("summary").press("Enter")
    thinking.open()
    await writing.wait()
    await expect(answers(page)).to_contain_text("So")
    await expect(reasoning(page)).to_be_hidden()
    await expect(reasoning(other)).to_be_visible()
    for tab in (page, other):
        await expect(answers(tab).locator("summary")).to_have_text(
            re.compile(r"^Thought for (a moment|\d+ s)$")
        )
    late = await other_tab(open_page, page, instances[1])
    await expect(answers(late).locator("summary")).to_have_text("Thought")  # nobody told it how long
    await expect(reasoning(late)).to_be_hidden()
    writing.open()
    ending.open()
    await expect(button(late, "Send")).to_be_visible()
    words = await summary.text_content()
    await expect(answers(late).locator("summary")).to_have_text(words or "")
    await page.reload()
    await expect(summary).to_have_text(words or "")
    await expect(reasoning(page)).to_be_hidden()
    await summary.click()
    await expect(reasoning(page).get_by_text("First, <b>this</b>.")).to_be_visible()


async def test_reasoning_of_an_attempt_that_was_lost_gives_way_to_that_of_the_next(
    page: Page, model: Model
) -> None:
    line = await Line.lay(page)
    gate = Gate()
    model.answer(Reasoning("Old thoughts."), gate, "The end")
    await say(page, "Think")
    await expect(reasoning(page)).to_have_text("Old thoughts.")
    started = json.loads(next(frame for frame in line.received if "completion.started" in frame))
    delta = json.loads(next(frame for frame in line.received if "Old thoughts." in frame))
    place = delta["at"]
    line.tell(json.dumps({**started, "attempt": 2, "at": {**place, "offset": place["offset"] + 1}}))
    again = {**delta, "reasoning": "New thoughts.", "at": {**place, "offset": place["offset"] + 2}}
    line.tell(json.dumps(again))
    await expect(reasoning(page)).to_have_text("New thoughts.")


async def test_code_is_copied_as_it_was_written_and_stays_wrapped_however_it_is_rendered(
    open_page: OpenPage, instances: Instances, model: Model
) -> None:
    page = await open_page(instances[0])
    await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    line = await Line.lay(page)
    early, half, whole, done = Gate(), Gate(), Gate(), Gate()
    language = "a-language-of-a-name-" * 9
    beginning, end = (part.replace("\n", "\r\n") for part in (CODE[:CUT], CODE[CUT:]))
    model.answer(
        f"```js\r\n{beginning[:9]}",
        early,
        beginning[9:],
        half,
        f"{end}\r\n```\n\n",
        f"- ```{language}\n  x\n  ```\n",
        whole,
        "End.",
        done,
    )
    await say(page, "Code")
    wrap = button(page, "Wrap lines")
    await wrap.click()
    early.open()
    await expect(answers(page).locator("code")).to_contain_text("return")
    copy = button(page, "Copy code").first
    await copy.click()
    await expect(page.get_by_role("status")).to_have_text("Code copied")
    assert await clipboard(page) == CODE[:CUT]
    half.open()
    await whole.wait()
    await expect(wrap).to_have_count(2)
    await wrap.last.click()
    whole.open()
    await done.wait()
    await expect(answers(page)).to_contain_text("End.")
    conversation = page.url.rpartition("/")[2]
    line.tell(
        json.dumps(
            {"type": "completion.delta", "conversation": conversation, "at": {"epoch": "lost", "offset": 1}}
        )
    )
    await line.told("conversation.snapshot", 1)
    await expect(wrap.first).to_have_attribute("aria-pressed", "true")
    await expect(wrap.last).to_have_attribute("aria-pressed", "true")
    done.open()
    await idle(page)
    for each in await wrap.all():
        await expect(each).to_have_attribute("aria-pressed", "true")
    await page.clock.install()
    await copy.click()
    await expect(page.get_by_role("status")).to_have_text("Code copied")
    await expect(copy).to_have_attribute("data-copied", "")
    await page.clock.fast_forward(2100)
    await expect(copy).not_to_have_attribute("data-copied", "")
    assert await clipboard(page) == CODE
    header = answers(page).locator("code-header").last
    assert await header.evaluate("bar => bar.scrollWidth <= bar.clientWidth")


async def test_another_model_answers_from_the_menu_by_keyboard_and_what_is_known_is_told_on_request(
    store: Store, start_instance: StartInstance, open_page: OpenPage, model: Model
) -> None:
    instance = await start_instance(store, OPENAI_MODELS="small,large,huge")
    page = await open_page(instance, locale="de-DE", timezone_id="Asia/Tokyo")
    await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    model.answer(
        "**Bold** words", usage={"prompt_tokens": 1234, "completion_tokens": 5, "total_tokens": 1239}
    )
    await say(page, "First")
    await idle(page)
    others = button(page, "Regenerate with another model")
    await expect(others).to_have_attribute("aria-haspopup", "menu")
    await others.press("Enter")
    await expect(item(page, "large")).to_be_focused()
    await page.keyboard.press("ArrowUp")
    await expect(item(page, "huge")).to_be_focused()
    await expect(page.get_by_role("menuitem")).to_have_count(2)
    await page.keyboard.press("Escape")
    await expect(others).to_be_focused()
    await others.click()
    await others.click()
    await expect(page.get_by_role("menu")).to_have_count(0)
    await others.click()
    await page.keyboard.press("ArrowDown")
    await page.keyboard.press("Enter")
    await expect(page.get_by_text("2/2")).to_be_visible()
    await expect(answers(page)).to_contain_text("You said: First")
    assert [request.body["model"] for request in model.requests] == ["small", "huge"]
    await button(page, "Previous version").click()
    await expect(answers(page)).to_contain_text("Bold words")
    await page.reload()
    more = answers(page).get_by_role("button", name="More", exact=True)
    await more.click()
    await item(page, "Raw text").click()
    dialog = page.get_by_role("dialog", name="Raw text")
    await expect(dialog.get_by_role("group", name="Source")).to_have_text("**Bold** words")
    await dialog.get_by_role("button", name="Copy").click()
    await expect(page.get_by_role("status")).to_have_text("Message copied")
    assert await clipboard(page) == "**Bold** words"
    await page.keyboard.press("Escape")
    await expect(more).to_be_focused()
    await more.press("Enter")
    await page.keyboard.press("End")
    await page.keyboard.press("Enter")
    about = page.get_by_role("dialog", name="Information")
    await expect(about).to_contain_text("1.234")
    await expect(about).to_contain_text("Complete")
    await expect(about.get_by_text("small")).to_be_visible()
    time = about.locator("time")
    created = await time.get_attribute("datetime")
    spoken = "iso => new Intl.DateTimeFormat('de-DE', {dateStyle: 'full', timeStyle: 'medium', timeZone: 'Asia/Tokyo'}).format(new Date(iso))"
    await expect(time).to_have_text(await page.evaluate(spoken, created))
    await expect(about.locator("code")).to_have_text(await answers(page).get_attribute("data-id") or "")


async def test_long_prompt_is_folded_until_all_of_it_is_asked_for_and_its_words_are_no_links(
    page: Page,
) -> None:
    text = "https://example.com/\n" + "".join(f"Line {number}\n" for number in range(40)) + "Its end"
    await say(page, text)
    await expect(answers(page)).to_contain_text("Its end")
    await idle(page)
    bubble = messages(page).first.locator(".words")
    for opened in (False, True):
        if opened:
            await page.reload()
            await idle(page)  # it is where its reader left it, which need not be the end
            await page.get_by_role("log").evaluate("log => log.scrollTo(0, log.scrollHeight)")
        await at_end(page)
        folded = await bubble.bounding_box()
        assert folded
        assert folded["height"] < 24 * 26
        await button(page, "Show all").press("Enter")
        less = button(page, "Show less")
        await expect(less).to_be_focused()
        await expect(less).to_have_attribute("aria-expanded", "true")
        whole = await bubble.bounding_box()
        assert whole
        assert whole["height"] > 40 * 20
        assert abs(whole["y"] - folded["y"]) < 2
        assert await bubble.inner_text() == text
        assert await bubble.locator("a").count() == 0
    await less.click()
    await expect(button(page, "Show all")).to_be_in_viewport()


async def test_waiting_is_counted_from_the_answers_beginning_also_by_who_comes_later(
    page: Page, model: Model
) -> None:
    await page.clock.install()
    await page.reload()
    gate = Gate()
    model.answer(gate, "At last")
    await say(page, "Think first")
    await gate.wait()
    elapsed = answers(page).locator(".elapsed")
    assert re.fullmatch(r"|([5-9]|\d\d) s", await elapsed.inner_text())  # the first seconds are not told
    await page.clock.fast_forward(40_000)
    await expect(elapsed).to_have_text(re.compile(r"^[4-9]\d s$"))
    await page.reload()
    await expect(elapsed).to_have_text(re.compile(r"^[4-9]\d s$"))
    gate.open()
    await expect(answers(page)).to_contain_text("At last")
    await expect(elapsed).to_have_count(0)


async def test_what_came_after_an_answer_that_is_made_anew_can_be_had_back(page: Page, model: Model) -> None:
    model.refuse(401)
    await say(page, "First")
    await expect(page.get_by_text("when the operator of this chat has put it right")).to_be_visible()
    await say(page, "Second")
    await expect(answers(page).last).to_contain_text("You said: Second")
    await idle(page)
    await page.reload()
    await expect(page.get_by_text("when the operator of this chat has put it right")).to_be_visible()
    await button(page, "Retry").click()
    await expect(answers(page)).to_contain_text(["You said: First"])
    await expect(answers(page)).to_have_count(1)
    await expect(page.locator("undo-toast.told")).to_contain_text(
        "The later messages are in the other version"
    )
    await button(page, "Show them").click()
    await expect(answers(page).last).to_contain_text("You said: Second")
    await expect(messages(page)).to_have_count(4)


async def test_editor_has_the_hand_at_its_end_and_tells_its_keys(page: Page) -> None:
    await say(page, "First")
    await idle(page)
    await messages(page).first.hover()
    await button(page, "Edit").click()
    editor = page.get_by_role("textbox", name="Edit message")
    await expect(editor).to_be_focused()
    assert await editor.evaluate("box => [box.selectionStart, box.selectionEnd]") == [5, 5]
    await expect(editor).to_have_accessible_description("Ctrl+Enter sends, Esc cancels")
    await page.keyboard.type(" words")
    await page.keyboard.press("Escape")
    await expect(button(page, "Edit")).to_be_focused()
    await page.keyboard.press("Enter")
    await page.keyboard.type(" of all")
    await page.keyboard.press("Control+Enter")
    await expect(answers(page)).to_contain_text("You said: First of all")


@pytest.mark.long
async def test_actions_of_a_message_can_be_touched_one_by_one(
    store: Store, start_instance: StartInstance, open_page: OpenPage
) -> None:
    instance = await start_instance(store, OPENAI_MODELS="small,a-model-of-a-very-long-name-that-has-no-end")
    page = await open_page(instance, viewport={"width": 320, "height": 640}, has_touch=True, is_mobile=True)
    await box(page).fill("First")
    await button(page, "Send").tap()
    await expect(answers(page)).to_contain_text("You said: First")
    await button(page, "Regenerate").tap()
    await expect(page.get_by_text("2/2")).to_be_visible()
    await idle(page)
    places = [await each.bounding_box() for each in await answers(page).locator(".actions button").all()]
    boxes = [place for place in places if place]
    assert len(boxes) == 6
    for index, one in enumerate(boxes):
        assert min(one["width"], one["height"]) >= 44
        assert one["x"] >= 0
        assert one["x"] + one["width"] <= 320
        for other in boxes[:index]:
            beside = one["x"] >= other["x"] + other["width"] - 1 or other["x"] >= one["x"] + one["width"] - 1
            assert beside or abs(one["y"] - other["y"]) >= 44
