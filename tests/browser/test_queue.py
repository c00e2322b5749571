"""Prompts that wait: behind an answer, in the outbox, over reloads, tabs and instances that die."""

from __future__ import annotations

import re

import pytest
from playwright.async_api import Page, expect

from tests.browser.conftest import OpenPage
from tests.browser.line import TRY_AGAIN_LATER, Line
from tests.browser.person import answers, box, button, chip, hold_back, idle, messages, say, waiting
from tests.browser.watch import Watch
from tests.conftest import StartInstance
from tests.fakes import Gate, Model
from tests.instances import Instance, Store

Instances = tuple[Instance, Instance]


async def add(page: Page, text: str) -> None:
    """Write a prompt and send it with Enter, whatever runs."""
    await box(page).fill(text)
    await box(page).press("Enter")
    await expect(box(page)).to_have_value("")


async def two_wait(page: Page, model: Model) -> Gate:
    """Have a second and a third prompt wait, and be stored, behind a first answer that ends once the gate is open."""
    gate = Gate()
    model.answer("Slowly", gate, to="First")
    await say(page, "First")
    await gate.wait()
    for text in ("Second", "Third"):
        await add(page, text)
    await expect(page.locator("queue-chips [data-state=queued]")).to_have_count(2)
    return gate


def said(text: str) -> str:
    """What the model answers, as it is drawn."""
    return f"You said: {text}"


async def shown(page: Page, *texts: str) -> None:
    """Wait until the transcript has exactly these messages, in this order."""
    await expect(messages(page)).to_contain_text(list(texts))
    await expect(messages(page)).to_have_count(len(texts))


async def test_prompts_typed_while_an_answer_runs_wait_and_are_answered_in_order(
    open_page: OpenPage, instances: Instances, model: Model
) -> None:
    page = await open_page(instances[0])
    gate = Gate()
    model.answer("Slowly", gate, to="First")
    await say(page, "First")
    await gate.wait()
    await add(page, "Second")
    await add(page, "Third")
    await expect(waiting(page)).to_have_count(2)
    await expect(waiting(page)).to_contain_text(["Second", "Third"])
    await shown(page, "First", "Slowly")
    await expect(button(page, "Stop")).to_have_attribute("title", "Stop: the next message is answered then")
    gate.open()
    whole = ["First", "Slowly", "Second", said("Second"), "Third", said("Third")]
    await shown(page, *whole)
    await expect(waiting(page)).to_have_count(0)
    await page.reload()
    await shown(page, *whole)
    assert [asked.prompt for asked in model.requests] == ["First", "Second", "Third"]


async def test_waiting_prompts_come_with_the_page_are_folded_deleted_given_back_and_sent_now(
    open_page: OpenPage, instances: Instances, model: Model
) -> None:
    page = await open_page(instances[0])
    gate = Gate()
    model.answer("Slowly", gate, to="First")
    await say(page, "First")
    await gate.wait()
    for text in ("Second", "Third\nin two lines", "Fourth", "Fifth", "Sixth"):
        await add(page, text)
    await expect(waiting(page)).to_have_count(3)
    await button(page, "2 more waiting").click()
    await expect(waiting(page)).to_contain_text(["Second", "Third", "Fourth", "Fifth", "Sixth"])
    await button(page, "Show fewer").click()
    await expect(waiting(page)).to_have_count(3)
    other = await open_page(instances[1], like=page)
    run = await hold_back(other, "**/js/main.js")
    await other.goto(instances[1].url + page.url.removeprefix(instances[0].url), wait_until="commit")
    for _ in ("before the scripts", "after them"):
        await expect(waiting(other)).to_contain_text(["Second", "Third", "Fourth"])
        await expect(button(other, "2 more waiting")).to_be_visible()
        await expect(chip(other, "Send now")).to_be_visible()
        await shown(other, "First", "Slowly")
        run.set()
        await expect(other.locator("chat-transcript:not([data-lost])")).to_be_attached()
    await chip(page, "Delete").focus()
    await page.keyboard.press("Enter")
    await expect(waiting(other)).to_contain_text(["Third", "Fourth", "Fifth"])
    await expect(chip(page, "Delete")).to_be_focused()
    await expect(chip(page, "Delete")).to_have_accessible_description(re.compile("Third"))
    await expect(chip(page, "Send now")).to_be_visible()
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("status")).to_have_text("2 messages deleted")
    await expect(waiting(other)).to_contain_text(["Fourth", "Fifth", "Sixth"])
    await button(page, "Undo").click()
    await expect(box(page)).to_have_value("Second\n\nThird\nin two lines")
    await expect(box(page)).to_be_focused()
    await expect(waiting(page)).to_have_count(3)
    await box(page).fill("")
    await chip(page, "Delete", 2).click()
    await expect(waiting(page)).to_have_count(2)
    await expect(chip(page, "Delete", 1)).to_be_focused()
    await chip(other, "Send now").click()
    await expect(box(other)).to_be_focused()
    for tab in (page, other):
        await shown(tab, "First", "Stopped", "Fourth", said("Fourth"), "Fifth", said("Fifth"))
        await expect(tab.get_by_role("list", name="Waiting messages")).to_be_hidden()
    await expect(box(page)).to_be_focused()
    assert [asked.prompt for asked in model.requests] == ["First", "Fourth", "Fifth"]


async def test_waiting_prompt_is_taken_back_in_all_tabs_and_its_words_are_in_the_box(
    open_page: OpenPage, instances: Instances, model: Model
) -> None:
    page = await open_page(instances[0])
    gate = Gate()
    model.answer("Slowly", gate, to="First")
    await say(page, "First")
    await gate.wait()
    await add(page, "Second")
    await add(page, "Third")
    await expect(waiting(page)).to_have_count(2)
    other = await open_page(instances[1], page.url.removeprefix(instances[0].url), like=page)
    await expect(waiting(other)).to_have_count(2)
    await expect(chip(page, "Edit")).to_have_accessible_description("Second")
    await chip(page, "Edit").click()
    await expect(box(page)).to_have_value("Second")
    await expect(page.get_by_role("status")).to_have_text("Message taken back")
    for tab in (page, other):
        await expect(waiting(tab)).to_have_count(1)
    gate.open()
    for tab in (page, other):
        await shown(tab, "First", "Slowly", "Third", said("Third"))
    assert [asked.prompt for asked in model.requests] == ["First", "Third"]


async def test_words_taken_back_are_in_the_box_once_also_where_only_a_snapshot_tells(
    page: Page, model: Model
) -> None:
    line = await Line.lay(page)
    gate = Gate()
    model.answer("Slowly", gate, to="First")
    await say(page, "First")
    await gate.wait()
    await add(page, "Second")
    await expect(page.locator("queue-chips [data-state=queued]")).to_have_count(1)  # the server has it
    lost: list[str] = []

    def lose(frame: str) -> str:
        if '"message.withdrawn"' in frame:
            lost.append(frame)
            return '{"type": "lost"}'
        return re.sub(r'("epoch":\s*")', r"\1other-", frame)

    line.bend = lose
    await chip(page, "Edit").click()
    await line.told('"lost"', 1)
    await line.cut(TRY_AGAIN_LATER)
    await expect(box(page)).to_have_value("Second")
    snapshots = sum("conversation.snapshot" in frame for frame in line.received)
    line.tell(lost[0])
    await line.told("conversation.snapshot", snapshots + 1)
    await expect(waiting(page)).to_have_count(0)
    await expect(box(page)).to_have_value("Second")
    gate.open()
    await shown(page, "First", "Slowly")
    assert [asked.prompt for asked in model.requests] == ["First"]


async def test_answer_is_stopped_with_a_finger_while_the_next_prompt_is_written(
    open_page: OpenPage, instances: Instances, model: Model
) -> None:
    page = await open_page(instances[0], viewport={"width": 390, "height": 844}, has_touch=True)
    model.answer("As far as ", Gate(), "this")
    await box(page).fill("First")
    await button(page, "Send").tap()
    await expect(answers(page)).to_contain_text("As far as")
    await box(page).fill("Half a thought")
    await page.keyboard.press("Tab")
    await expect(button(page, "Send")).to_be_focused()
    await page.keyboard.press("Tab")
    await expect(button(page, "Stop")).to_be_focused()
    await button(page, "Stop").tap()
    await expect(answers(page)).to_contain_text("Stopped")
    await expect(button(page, "Stop")).to_be_hidden()
    await idle(page)
    await expect(box(page)).to_have_value("Half a thought")
    assert [asked.prompt for asked in model.requests] == ["First"]


@pytest.mark.long
async def test_prompts_typed_while_the_instance_is_dead_go_once_in_order_after_a_reload(
    store: Store, start_instance: StartInstance, open_page: OpenPage, model: Model, watch: Watch
) -> None:
    watch.allow("WebSocket connection to")
    watch.allow("ERR_CONNECTION_REFUSED")
    instance = await start_instance(store)
    page = await open_page(instance)
    await say(page, "First")
    await shown(page, "First", said("First"))
    await idle(page)
    await instance.kill()
    await expect(page.locator("connection-pill")).to_be_visible()
    await add(page, "Second")
    await add(page, "Third")
    await expect(messages(page).get_by_text("Will be sent when the connection is back").last).to_be_visible()
    await instance.start()
    await page.reload()
    other = await page.context.new_page()
    await other.goto(page.url)
    for tab in (page, other):
        await shown(tab, "First", said("First"), "Second", said("Second"), "Third", said("Third"))
    assert [asked.prompt for asked in model.requests] == ["First", "Second", "Third"]


async def test_prompts_outlive_the_instance_and_a_reload_on_another_tab(
    store: Store,
    start_instance: StartInstance,
    open_page: OpenPage,
    instances: Instances,
    model: Model,
    watch: Watch,
) -> None:
    watch.allow("WebSocket connection to")
    watch.allow("ERR_CONNECTION_REFUSED")
    doomed = await start_instance(store)
    page = await open_page(doomed)
    gate = Gate()
    model.answer("Slowly", gate, to="First")
    await say(page, "First")
    await gate.wait()
    await add(page, "Second")
    await add(page, "Third")
    await expect(page.locator("queue-chips [data-state=queued]")).to_have_count(2)  # stored
    path = page.url.removeprefix(doomed.url)
    await doomed.kill()
    gate.open()
    other = await open_page(instances[1], path, like=page)
    await expect(messages(other)).to_have_count(6, timeout=30_000)
    await expect(answers(other).last).to_contain_text(said("Third"), timeout=30_000)
    asked = [request.prompt for request in model.requests]
    assert asked.count("Second") == asked.count("Third") == 1


async def test_own_message_is_edited_in_place_and_the_version_before_stays(page: Page) -> None:
    await say(page, "First")
    await shown(page, "First", said("First"))
    await idle(page)
    await messages(page).first.hover()
    await button(page, "Edit").click()
    field = page.get_by_role("textbox", name="Edit message")
    await expect(field).to_be_focused()
    await expect(field).to_be_in_viewport(ratio=1)
    await field.fill("Forget it")
    await field.press("Escape")
    await shown(page, "First", said("First"))
    await button(page, "Undo").click()
    await expect(field).to_be_focused()
    await expect(field).to_have_value("Forget it")
    await button(page, "Cancel").click()
    await shown(page, "First", said("First"))
    await button(page, "Edit").click()
    await field.fill("Better")
    await field.press("Control+Enter")
    await shown(page, "Better", said("Better"))
    await messages(page).first.hover()
    await button(page, "Previous version").first.click()
    await shown(page, "First", said("First"))


async def test_stopped_answer_goes_on_in_the_same_message(page: Page, model: Model) -> None:
    gate = Gate()
    model.answer("Once upon", gate, " a time", to="First")
    await say(page, "First")
    await expect(answers(page)).to_contain_text("Once upon")
    await box(page).press("Escape")
    await button(page, "Continue").click()
    await idle(page)
    await expect(button(page, "Continue")).to_have_count(0)
    await expect(answers(page)).to_have_count(1)


async def test_prompt_goes_once_however_often_enter_is_pressed(page: Page, model: Model) -> None:
    await box(page).fill("Once")
    await box(page).evaluate(
        """box => { for (let times = 0; times < 3; times++)
             box.dispatchEvent(new KeyboardEvent("keydown", {key: "Enter", bubbles: true, cancelable: true})); }"""
    )
    await expect(answers(page)).to_contain_text("You said: Once")
    await expect(messages(page)).to_have_count(2)
    assert [request.prompt for request in model.requests].count("Once") == 1


async def test_words_of_a_waiting_prompt_are_in_the_draft_from_the_press_on_and_out_of_it_if_it_is_answered(
    page: Page, model: Model
) -> None:
    line = await Line.lay(page)
    gate = await two_wait(page, model)
    line.silent = True
    await chip(page, "Edit").click()
    await expect(box(page)).to_have_value("Second")
    await button(page, "New chat").first.click()
    await expect(box(page)).to_have_value("")
    await page.go_back()
    await expect(box(page)).to_have_value("Second")
    await chip(page, "Delete", 1).click()
    await expect(page.get_by_role("status")).to_have_text("Message deleted")
    gate.open()
    assert [(await model.asked()).prompt for _ in range(3)] == ["First", "Second", "Third"]
    line.silent = False
    await line.cut(TRY_AGAIN_LATER)
    await shown(page, "First", "Slowly", "Second", said("Second"), "Third", said("Third"))
    await expect(box(page)).to_have_value("")
    await expect(button(page, "Undo")).to_be_hidden()


async def test_deleted_prompts_come_back_after_a_reload_and_whatever_else_was_said(
    page: Page, model: Model
) -> None:
    line = await Line.lay(page)
    await two_wait(page, model)
    await chip(page, "Delete").click()
    await expect(waiting(page)).to_have_count(1)
    line.bend = lambda frame: "" if '"message.withdrawn"' in frame else frame
    await chip(page, "Delete").click()
    await line.asked("message.withdraw", 2)
    await page.reload()
    await expect(page.get_by_text("2 messages deleted", exact=True).last).to_be_visible()
    await line.connected(2)
    line.tell('{"type": "error", "code": "busy", "detail": "Something else"}')
    await expect(page.locator("undo-toast.told")).to_have_text(re.compile("Something else"))
    await button(page, "Undo").click()
    await expect(box(page)).to_have_value("Second\n\nThird")


async def test_end_of_an_answer_is_told_with_the_beginning_of_the_one_that_waited(
    page: Page, model: Model
) -> None:
    gate = Gate()
    model.answer("Slowly", gate, to="First")
    model.answer("As far as", Gate(), to="Second")
    await say(page, "First")
    await gate.wait()
    await add(page, "Second")
    await expect(page.locator("queue-chips [data-state=queued]")).to_have_count(1)  # stored
    gate.open()
    await expect(page.get_by_role("status")).to_have_text("Answer complete. Slowly. Answer started")


@pytest.mark.long
async def test_answer_is_asked_for_anew_once_and_not_beside_another_one(
    store: Store, start_instance: StartInstance, open_page: OpenPage, model: Model
) -> None:
    instance = await start_instance(store, OPENAI_MODELS="small,large")
    page = await open_page(instance)
    await say(page, "First")
    await idle(page)
    line = await Line.lay(page)
    await messages(page).last.hover()
    await button(page, "Regenerate").evaluate("button => { button.click(); button.click(); }")
    await expect(page.get_by_text("2/2")).to_be_visible()
    await idle(page)
    assert line.count("completion.regenerate") == 1
    other = await page.context.new_page()
    await other.goto(page.url)
    await messages(page).last.hover()
    await button(page, "Regenerate with another model").click()
    gate = Gate()
    model.answer("As far as", gate, to="Second")
    await say(other, "Second")
    await expect(answers(page).last).to_contain_text("As far as")
    await page.get_by_role("menuitem", name="large").click()
    await expect(page.get_by_role("status")).to_contain_text("An answer is still being written here.")
    await expect(box(page)).to_be_focused()
    assert line.count("completion.regenerate") == 1
    gate.open()  # else another instance goes on with it, in the next test
    await idle(page)
