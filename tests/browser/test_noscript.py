"""The page where no script runs, where the scripts are late, and where they do not come."""

from __future__ import annotations

import re
import secrets

import pytest
from playwright.async_api import Page, Request, Route, expect

from tests.browser.conftest import OpenPage
from tests.browser.person import answers, box, button, chats, hold_back, idle, messages, say
from tests.browser.watch import Watch
from tests.conftest import StartInstance
from tests.fakes import Gate, Model
from tests.instances import Instance, Store

Instances = tuple[Instance, Instance]
PHONE = {"width": 390, "height": 844}
RENEWED = 20_000  # milliseconds, where the page has to renew itself first


async def send(page: Page, text: str) -> None:
    """Write a prompt and press the button."""
    await box(page).fill(text)
    await button(page, "Send").click()


async def broken(route: Route) -> None:
    """Answer with a module that throws when it runs, behind the elements."""
    body = "export class Wire {}\nexport const newId = () => '';\nthrow new Error('broken on purpose');"
    await route.fulfill(body=body, content_type="text/javascript")


@pytest.mark.long
async def test_person_without_scripts_chats_on_two_instances(
    open_page: OpenPage, instances: Instances, model: Model
) -> None:
    page = await open_page(instances[0], java_script_enabled=False)
    half, whole = Gate(), Gate()
    model.answer(
        "<b>Half</b>\n\n```python\nx = 1\n```\n\n| a |\n|---|\n| b |\n\n", half, "way ", whole, "end"
    )
    model.answer("The next")
    await send(page, "Tell <i>me</i>\nall")
    await expect(answers(page)).to_contain_text("<b>Half</b>", timeout=RENEWED)
    await expect(page.get_by_text("The answer is being written. This page renews itself.")).to_be_visible()
    await expect(answers(page).get_by_role("table")).to_be_visible()
    await expect(messages(page).first.locator(".words")).to_have_text("Tell <i>me</i>\nall")
    await expect(box(page)).to_be_hidden()
    half.open()
    await expect(answers(page)).to_contain_text("way", timeout=RENEWED)

    # Who writes is not disturbed; what is written waits, and can be taken back.
    await page.get_by_role("link", name="Read and write meanwhile").click()
    await send(page, "Then this")
    waiting = page.get_by_role("list", name="Waiting messages").get_by_role("listitem")
    await expect(waiting).to_contain_text(["Then this"])
    await button(page, "Edit").click()
    await expect(box(page)).to_have_value("Then this")
    await expect(waiting).to_have_count(0)
    await button(page, "Send").click()
    await expect(waiting).to_have_count(1)
    await expect(messages(page)).to_have_count(2)
    await page.goto(page.url.replace(instances[0].url, instances[1].url))
    whole.open()
    await expect(answers(page)).to_have_count(2, timeout=RENEWED)
    await expect(answers(page).first).to_contain_text("way end")
    await expect(answers(page).last).to_contain_text("The next", timeout=RENEWED)
    await expect(box(page)).to_be_visible(timeout=RENEWED)
    await expect(messages(page).last).to_be_in_viewport()

    # What needs a script is not there; what does not, is.
    for name in ("Copy", "Edit", "Stop", "Show chats", "Jump to latest", "Earlier messages"):
        await expect(button(page, name)).to_have_count(0)
    await expect(page.get_by_role("radio")).to_have_count(0)
    await expect(page.get_by_role("button", name=re.compile("^Options"))).to_have_count(0)
    await expect(chats(page)).to_have_count(1)
    await button(page, "New chat").first.click()
    await page.get_by_role("button", name=re.compile("^Give me ideas")).click()
    await expect(answers(page)).to_contain_text("You said: Give me five ideas", timeout=RENEWED)
    await expect(chats(page)).to_have_count(2)


@pytest.mark.long
async def test_person_without_scripts_stops_goes_on_and_turns_versions_on_a_phone(
    open_page: OpenPage, instances: Instances, model: Model
) -> None:
    page = await open_page(instances[0], java_script_enabled=False, viewport=PHONE)
    model.answer("As far as ", Gate(), "this")
    await send(page, "Go on")
    await expect(answers(page)).to_contain_text("As far as", timeout=RENEWED)
    await button(page, "Stop").click()
    await (await model.asked()).closed()
    await expect(answers(page)).to_contain_text("Stopped", timeout=RENEWED)
    model.refuse(401)
    await button(page, "Regenerate").click()
    model.answer("Another")
    await button(page, "Retry").click(timeout=RENEWED)
    await expect(answers(page)).to_contain_text("Another", timeout=RENEWED)
    await button(page, "Previous version").click()
    await button(page, "Previous version").click()
    await expect(answers(page)).to_contain_text("As far as")
    await expect(answers(page)).to_contain_text("1/3")
    width = await page.evaluate("document.documentElement.scrollWidth")
    assert width <= PHONE["width"]
    await expect(chats(page)).to_be_hidden()
    await page.get_by_role("link", name="Show chats").click()
    await expect(chats(page)).to_be_in_viewport()
    await page.get_by_role("link", name="Hide chats").click()
    await expect(chats(page)).to_be_hidden()


@pytest.mark.long
async def test_person_without_scripts_is_told_why_a_prompt_was_not_sent(
    open_page: OpenPage, store: Store, start_instance: StartInstance, watch: Watch
) -> None:
    watch.allow("429")
    watch.allow("413")
    watch.allow("403")
    limited = await start_instance(
        store,
        PROMPTS_PER_MINUTE="1",
        ACCESS_PASSWORD="correct horse battery",
        REDIS_PREFIX=f"bare-{secrets.token_hex(4)}",
    )
    page = await open_page(limited, java_script_enabled=False)
    for password in ("a wrong guess", "correct horse battery"):
        await page.get_by_label("Password").fill(password)
        await button(page, "Sign in").click()
    await send(page, "One")
    await expect(answers(page)).to_contain_text("You said: One", timeout=RENEWED)
    await send(page, "Two")
    await expect(page.get_by_text(re.compile(r"Try again in \d+ seconds?\."))).to_be_visible()
    await expect(box(page)).to_have_value("Two")
    await expect(messages(page)).to_have_count(2)
    await send(page, "x" * 70_000)
    await expect(page.get_by_role("heading", name="That is too long to be sent")).to_be_visible()
    await page.go_back()
    await expect(box(page)).to_have_value("x" * 70_000)
    await button(page, "Sign out").click()
    await expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


async def test_prompt_sent_before_the_scripts_run_is_sent_by_form_and_once(
    open_page: OpenPage, instances: Instances, model: Model
) -> None:
    page = await open_page(instances[0])
    posts: list[Request] = []
    page.on("request", lambda request: request.method == "POST" and posts.append(request))
    come = await hold_back(page, "**/js/main.js")
    await page.reload(wait_until="commit")
    await box(page).fill("Early")
    await box(page).press("Enter")
    await expect(box(page)).to_have_value("Early\n")
    await button(page, "Send").click()
    await expect(messages(page).first).to_contain_text("Early")
    assert len(posts) == 1
    come.set()
    await expect(page.locator("html[data-live]")).to_be_attached()
    await expect(answers(page)).to_contain_text("You said: Early")
    await expect(box(page)).to_have_value("")
    await expect(page).to_have_url(re.compile(r"/c/\w+$"))

    # From here on the scripts have it: no form goes, whatever is pressed, and the page stays the same.
    await page.evaluate("window.same = true")
    await say(page, "Later")
    await expect(answers(page).last).to_contain_text("You said: Later")
    await button(page, "Regenerate").last.click()
    await expect(page.get_by_text("2/2")).to_be_visible()
    await button(page, "Previous version").click()
    await expect(page.get_by_text("1/2")).to_be_visible()
    await button(page, "New chat").first.click()
    await page.get_by_role("button", name=re.compile("^Give me ideas")).click()
    await expect(answers(page)).to_contain_text("You said: Give me five ideas")
    assert len(posts) == 1
    assert await page.evaluate("window.same")
    assert [request.prompt for request in model.requests][:3] == ["Early", "Later", "Later"]


@pytest.mark.long
async def test_page_whose_scripts_break_or_do_not_come_works_by_form(
    open_page: OpenPage, instances: Instances, model: Model, watch: Watch
) -> None:
    watch.allow("ERR_FAILED")
    watch.allow("broken on purpose")
    page = await open_page(instances[0])
    await page.clock.install()
    await page.route("**/js/wire.js", broken)
    await page.goto(instances[0].url)
    await expect(button(page, "Show chats")).to_have_count(0)
    gate = Gate()
    model.answer("As far as ", gate, "this")
    await box(page).fill("Without")
    await box(page).press("Enter")
    await expect(box(page)).to_have_value("Without\n")
    await button(page, "Send").click()
    await expect(answers(page)).to_contain_text("As far as", timeout=RENEWED)
    await expect(page.get_by_text("This page renews itself.")).to_be_visible()
    await expect(box(page)).to_be_hidden()

    # What is typed while they might still come is not renewed away when they do not.
    await page.unroute("**/js/wire.js")
    come = await hold_back(page, "**/js/wire.js", lost=True)
    await page.reload(wait_until="commit")
    await box(page).fill("Half")
    come.set()
    await expect(page.locator("html:not([data-js])")).to_be_attached()
    await page.clock.run_for(10_000)
    assert await page.evaluate("fetch(location.href).then(({ status }) => status)") == 200
    await expect(box(page)).to_have_value("Half")
    await button(page, "Send").click()
    gate.open()
    await expect(answers(page).last).to_contain_text("You said: Half", timeout=RENEWED)
    await expect(box(page)).to_be_visible(timeout=RENEWED)
    await page.unroute("**/js/wire.js")
    await page.reload()
    await expect(page.locator("html[data-live]")).to_be_attached()
    await say(page, "With")
    await expect(answers(page).last).to_contain_text("You said: With")
    assert [request.prompt for request in model.requests] == ["Without", "Half", "With"]


@pytest.mark.long
async def test_words_refused_before_the_scripts_ran_are_in_the_box_with_the_reason(
    open_page: OpenPage, instances: Instances, watch: Watch
) -> None:
    watch.allow("422")
    page = await open_page(instances[0])
    come = await hold_back(page, "**/js/main.js")
    await page.reload(wait_until="commit")
    await box(page).fill("x" * 16_001)
    await button(page, "Send").click()
    await expect(page.get_by_text("at most 16000 are taken")).to_be_visible()
    come.set()
    await expect(page.locator("html[data-live]")).to_be_attached()
    await expect(page.get_by_text("1 character too many")).to_be_visible()
    await expect(box(page)).to_have_value("x" * 16_001)
    async with page.expect_request(lambda request: request.is_navigation_request()) as asked:
        await page.reload()
    assert (await asked.value).method == "GET"  # the form is not sent again
    await expect(box(page)).to_have_value("x" * 16_001)


@pytest.mark.long
async def test_address_of_older_messages_shows_the_newest_where_scripts_run(
    open_page: OpenPage, instances: Instances
) -> None:
    page = await open_page(instances[0])
    await say(page, "One")
    await expect(answers(page)).to_contain_text("You said: One")
    await say(page, "Two")
    await expect(answers(page).last).to_contain_text("You said: Two")
    newest = await messages(page).last.get_attribute("data-id")
    await idle(page)
    bare = await open_page(instances[1], java_script_enabled=False, like=page)
    path = page.url.removeprefix(instances[0].url)
    await bare.goto(f"{instances[1].url}{path}?before={newest}")
    await expect(messages(bare)).to_have_count(3)
    await bare.get_by_role("link", name="Newest messages").click()
    await expect(messages(bare)).to_have_count(4)
    await page.goto(f"{instances[0].url}{path}?before={newest}")
    await expect(messages(page)).to_have_count(4)
    await expect(page).to_have_url(instances[0].url + path)
