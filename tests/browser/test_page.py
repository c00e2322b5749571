"""The page in Chromium, over two instances: a prompt, its live answer, stop, reload, failure and history."""

from __future__ import annotations

import re

import pytest
from playwright.async_api import Locator, Page, WebSocket, expect

from tests.browser.conftest import OpenPage
from tests.browser.person import answers, box, button, chats, hold_back, idle, messages, say
from tests.browser.watch import Watch
from tests.conftest import StartInstance
from tests.fakes import Gate, Model
from tests.instances import Instance, Proxy, Store
from tests.waiting import Bell

Instances = tuple[Instance, Instance]
CODE = "Look:\n\n```python\ndef add(a, b):\n"
CODE_REST = "    return a + b\n```\n\nThat is **all**."
NO_CONNECTION = re.compile("Reconnecting|cannot be reached")  # the cause is told after a few failures


class Frames:
    """What goes over a page's websockets, once it is loaded anew."""

    def __init__(self, page: Page) -> None:
        self._sent: list[str] = []
        self._received: list[str] = []
        self._bell = Bell()
        page.on("websocket", self._follow)

    def sent(self, text: str) -> int:
        """Count the frames with this text."""
        return sum(text in frame for frame in self._sent)

    async def received(self, text: str) -> None:
        """Wait for a frame with this text."""
        await self._bell.until(
            lambda: any(text in frame for frame in self._received), seconds=30, what=f"{text!r} is received"
        )

    def _follow(self, socket: WebSocket) -> None:
        socket.on("framesent", lambda frame: self._sent.append(str(frame)))
        socket.on("framereceived", self._take)

    def _take(self, frame: str | bytes) -> None:
        self._received.append(str(frame))
        self._bell.ring()


def toast(page: Page) -> Locator:
    """The words of what is told for some seconds; they are none until something is told."""
    return page.locator("undo-toast.told .words")


async def test_page_shows_the_answer_as_live_markdown(page: Page, model: Model) -> None:
    in_code = Gate()
    model.answer(CODE, in_code, CODE_REST)
    await say(page, "Write a function")
    await expect(box(page)).to_have_value("")
    await expect(box(page)).to_be_focused()
    code = answers(page).get_by_role("figure").locator("code")
    await expect(code).to_contain_text("def add(a, b):")
    await expect(button(page, "Stop")).to_be_visible()
    in_code.open()
    await expect(answers(page).locator("strong")).to_have_text("all")
    await expect(code).to_have_text("def add(a, b):\n    return a + b\n")
    await expect(code.locator("span").first).to_be_attached()
    await idle(page)
    await expect(page).to_have_url(re.compile(r"/c/[\w-]+$"))
    await expect(chats(page)).to_have_text(["Write a function"])


async def test_page_shows_that_an_answer_is_awaited_until_its_first_words(page: Page, model: Model) -> None:
    gate = Gate()
    model.answer(gate, "At last")
    await say(page, "Think first")
    await gate.wait()
    awaited = answers(page).get_by_text("Waiting for the answer")
    await expect(awaited).to_be_visible()
    await page.reload()
    await expect(awaited).to_be_visible()
    gate.open()
    await expect(answers(page)).to_contain_text("At last")
    await expect(awaited).to_be_hidden()


async def test_stop_keeps_the_text_and_closes_the_models_connection(page: Page, model: Model) -> None:
    gate = Gate()
    model.answer("As far as ", gate, "this")
    await say(page, "Go on")
    await expect(answers(page)).to_contain_text("As far as")
    await button(page, "Stop").click()
    await (await model.asked()).closed()
    await expect(answers(page)).to_contain_text("Stopped")
    await expect(answers(page)).to_contain_text("As far as")
    await idle(page)


@pytest.mark.parametrize("reloaded_on", [0, 1], ids=["the same instance", "the other instance"])
async def test_reload_in_mid_answer_finds_the_rest(
    open_page: OpenPage, instances: Instances, model: Model, reloaded_on: int
) -> None:
    page = await open_page(instances[0])
    gate = Gate()
    model.answer("Before the reload, ", gate, "and after it.")
    await say(page, "Tell me")
    await expect(answers(page)).to_contain_text("Before the reload,")
    await expect(page).to_have_url(re.compile(r"/c/"))
    path = page.url.removeprefix(instances[0].url)
    await page.goto(instances[reloaded_on].url + path)
    await expect(answers(page)).to_contain_text("Before the reload,")
    await expect(button(page, "Stop")).to_be_visible()
    gate.open()
    await expect(answers(page)).to_contain_text("Before the reload, and after it.")
    await idle(page)
    await page.reload()
    await expect(messages(page)).to_have_count(2)
    await expect(answers(page)).to_contain_text("Before the reload, and after it.")


async def test_two_tabs_on_two_instances_show_the_same_live(
    open_page: OpenPage, instances: Instances, model: Model
) -> None:
    one = await open_page(instances[0])
    await say(one, "First")
    await expect(answers(one)).to_contain_text("You said: First")
    path = one.url.removeprefix(instances[0].url)
    two = await open_page(instances[1], path, like=one)
    await expect(messages(two)).to_have_count(2)
    gate = Gate()
    model.answer("Half ", gate, "whole")
    await say(one, "Second")
    await expect(messages(two).nth(2)).to_contain_text("Second")
    await expect(answers(two).last).to_contain_text("Half")
    await expect(button(two, "Stop")).to_be_visible()
    gate.open()
    for page in (one, two):
        await expect(answers(page).last).to_contain_text("Half whole")
    await say(two, "Third")
    await expect(answers(one)).to_have_count(3)
    await expect(answers(one).last).to_contain_text("You said: Third")
    await expect(chats(two)).to_have_text(["First"])


async def test_failure_is_told_under_the_message_and_retry_mends_it(page: Page, model: Model) -> None:
    model.refuse(401, message="Incorrect API key provided: sk-secret")
    model.answer("Now it works")
    await say(page, "Try")
    await expect(button(page, "Retry")).to_be_visible()
    await expect(page.get_by_role("main")).not_to_contain_text("sk-secret")
    await button(page, "Retry").click()
    await expect(answers(page).last).to_contain_text("Now it works")
    await expect(button(page, "Retry")).to_be_hidden()


async def test_new_chat_and_the_list_lead_back_and_forth(page: Page) -> None:
    await say(page, "One")
    await expect(answers(page)).to_contain_text("You said: One")
    await button(page, "New chat").first.click()
    await expect(messages(page)).to_have_count(0)
    await say(page, "Two")
    await expect(answers(page)).to_contain_text("You said: Two")
    await expect(chats(page)).to_have_text(["Two", "One"])
    await chats(page).filter(has_text="One").click()
    await expect(answers(page)).to_contain_text("You said: One")
    await page.go_back()
    await expect(answers(page)).to_contain_text("You said: Two")


async def test_first_response_holds_the_messages(page: Page, instances: Instances) -> None:
    await say(page, "In the HTML")
    await expect(answers(page)).to_contain_text("You said: In the HTML")
    await idle(page)
    response = await page.request.get(page.url)
    assert response.status == 200
    assert "<strong>In the HTML</strong>" in await response.text()


@pytest.mark.long
async def test_page_reconnects_to_its_instance_and_goes_on(
    open_page: OpenPage, store: Store, start_instance: StartInstance, watch: Watch
) -> None:
    watch.allow("WebSocket connection to")
    watch.allow("ERR_CONNECTION_REFUSED")
    watch.allow("/session)")  # 503 while it stops
    instance = await start_instance(store)
    page = await open_page(instance)
    await say(page, "Before")
    await expect(answers(page)).to_contain_text("You said: Before")
    await instance.restart()
    await say(page, "After")
    await expect(answers(page)).to_have_count(2)
    await expect(answers(page).last).to_contain_text("You said: After")


async def test_prompt_goes_through_once_when_the_store_was_away_for_a_while(
    fresh_store: Store, start_instance: StartInstance, open_page: OpenPage, model: Model
) -> None:
    page = await open_page(await start_instance(fresh_store))
    await say(page, "Before")
    await expect(answers(page)).to_contain_text("You said: Before")
    await idle(page)
    await fresh_store.stop()
    await say(page, "After")
    await expect(toast(page)).to_contain_text("Your message is kept here")
    await expect(messages(page).nth(2)).to_contain_text("After")
    await fresh_store.start()
    await expect(answers(page).last).to_contain_text("You said: After")
    await idle(page)
    await expect(box(page)).to_have_value("")
    await page.reload()
    await expect(messages(page)).to_have_count(4)
    await expect(messages(page).nth(2)).to_contain_text("After")
    assert [request.prompt for request in model.requests] == ["Before", "After"]


@pytest.mark.long
async def test_prompt_is_stored_once_when_the_store_took_it_and_its_reply_was_lost(
    store: Store, start_instance: StartInstance, open_page: OpenPage, model: Model
) -> None:
    async with Proxy(store) as proxy:
        page = await open_page(await start_instance(proxy))
        proxy.lose = b"message.added"
        await say(page, "Hi")
        await expect(toast(page)).to_contain_text("Your message is kept here")
        assert proxy.lost > 0
        proxy.lose = None
        await expect(answers(page)).to_contain_text("You said: Hi")
        await expect(page).to_have_url(re.compile(r"/c/[\w-]+$"))
        await expect(chats(page)).to_have_text(["Hi"])
        await page.reload()
        await expect(messages(page)).to_have_count(2)
        assert [request.prompt for request in model.requests] == ["Hi"]


@pytest.mark.long
async def test_lost_connection_is_no_fault_of_commands_carried_out_long_ago(
    open_page: OpenPage, store: Store, start_instance: StartInstance, watch: Watch, model: Model
) -> None:
    watch.allow("WebSocket connection to")
    watch.allow("ERR_CONNECTION_REFUSED")
    instance = await start_instance(store)
    page = await open_page(instance)
    model.answer("As far as ", Gate(), "this")
    model.answer("Another")
    await say(page, "Go on")
    await expect(answers(page)).to_contain_text("As far as")
    await button(page, "Stop").click()
    await expect(answers(page)).to_contain_text("Stopped")
    await button(page, "Regenerate").click()
    await expect(answers(page)).to_contain_text("Another")
    await idle(page)
    await button(page, "Previous version").click()
    await expect(answers(page)).to_contain_text("As far as")
    await instance.kill()
    await expect(page.get_by_role("status")).to_contain_text(NO_CONNECTION)
    await instance.start()
    await say(page, "After")
    await expect(answers(page).last).to_contain_text("You said: After")
    await expect(toast(page)).to_have_text("")


async def test_running_answer_is_shown_on_its_own_branch_only(page: Page, model: Model) -> None:
    frames = Frames(page)
    await page.reload()
    one, two = Gate(), Gate()
    model.answer("Version one", to="Upper")
    model.answer("Version two", to="Upper")
    model.answer("It runs, ", one, "grows ", two, "and ends.", to="Lower")
    await say(page, "Upper")
    await expect(answers(page)).to_contain_text("Version one")
    await button(page, "Regenerate").click()
    await expect(answers(page)).to_contain_text("Version two")
    await say(page, "Lower")
    await expect(answers(page).last).to_contain_text("It runs,")
    await button(page, "Previous version").click()
    await expect(answers(page)).to_have_count(1)
    await expect(answers(page)).to_contain_text("Version one")
    await expect(messages(page)).to_have_count(2)
    await expect(button(page, "Stop")).to_be_visible()
    opened = frames.sent("conversation.open")
    one.open()
    await frames.received("grows")
    await button(page, "Next version").click()
    await expect(answers(page)).to_have_count(2)
    assert frames.sent("conversation.open") == opened + 1  # for the version, none for what grew elsewhere
    await expect(answers(page).last).to_contain_text("It runs, grows")
    await expect(messages(page)).to_have_count(4)
    two.open()
    await expect(answers(page).last).to_contain_text("It runs, grows and ends.")
    await idle(page)
    await button(page, "Previous version").click()
    await expect(messages(page)).to_have_count(2)
    await expect(answers(page)).to_contain_text("Version one")


async def test_what_is_typed_before_the_scripts_run_is_kept(
    instances: tuple[Instance, Instance], open_page: OpenPage
) -> None:
    page = await open_page(instances[0])
    await box(page).fill("A draft.")
    typed = await hold_back(page, "**/js/main.js")
    await page.reload(wait_until="commit")
    await box(page).fill("Early words.")
    typed.set()
    await expect(button(page, "Send")).to_be_enabled()
    await expect(box(page)).to_have_value("A draft.\n\nEarly words.")


async def test_chat_is_in_sight_at_its_end_though_a_script_is_late_and_stays_in_place_when_it_comes(
    page: Page, model: Model
) -> None:
    model.answer("A line of many.\n\n" * 60 + "The end.")
    await say(page, "A long one")
    await expect(answers(page)).to_contain_text("The end.")
    await idle(page)
    seen = await hold_back(page, "**/queue-chips.js")
    await page.reload(wait_until="commit")
    end = answers(page).get_by_text("The end.")
    await expect(end).to_be_in_viewport()
    await page.wait_for_function("() => performance.getEntriesByType('paint').length > 0")
    before = await end.bounding_box()
    seen.set()
    await page.wait_for_function("() => 'live' in document.documentElement.dataset")
    await expect(end).to_be_in_viewport()
    after = await end.bounding_box()
    assert before
    assert after
    assert abs(before["y"] - after["y"]) <= 1
