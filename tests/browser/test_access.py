"""WCAG 2.2 AA: what axe finds, a session by keyboard alone, what is spoken, and a page that is zoomed, narrow or recoloured."""

from __future__ import annotations

import secrets
from itertools import pairwise
from pathlib import Path

import pytest
from playwright.async_api import Locator, Page, expect

from tests.browser.axe import STILL, findings
from tests.browser.conftest import OpenPage
from tests.browser.files import CAT, NOTES, attached, pick, tray
from tests.browser.line import TRY_AGAIN_LATER, Line
from tests.browser.person import answers, box, button, chats, hide, idle, messages, say
from tests.browser.watch import Watch
from tests.conftest import StartInstance
from tests.fakes import Gate, Model, Reasoning
from tests.instances import Instance, Store

Instances = tuple[Instance, Instance]
KEYBOARD = Path(__file__).resolve().parents[2] / "docs" / "keyboard.md"
WIDE = {"width": 1280, "height": 800}
PHONE = {"width": 390, "height": 844}
EVERYTHING = """Some **words**, a [link](https://example.org), `code` and a list. And more:

1. One
2. Two
   - inner

### A heading

> quoted

| name | value | of a table that is wider than a phone | and then some more | of it |
| --- | ---: | --- | --- | --- |
| a | 1 | 22222222222222222 | 3333333333333333333 | 44444444444444444 |

- [x] done
- [ ] not done

```python
# A comment
def add(one: int, other: int) -> int:
    return one + other  # and "this line" is far longer than the screen of a phone is wide, so that it scrolls
```

---

The end.
"""


@pytest.fixture
async def wide(open_page: OpenPage, instances: Instances) -> Page:
    """A page at a desk, which copies without asking."""
    return await open_page(instances[0], viewport=WIDE)


def status(page: Page) -> Locator:
    """What is spoken."""
    return page.get_by_role("status")


# What axe finds


class Findings:
    """What axe finds, by the state that the page was in; one page goes through many, since a start costs seconds."""

    def __init__(self) -> None:
        self.all: list[str] = []

    async def look(self, page: Page, state: str) -> None:
        self.all += [f"{state}, {finding}" for finding in await findings(page)]


@pytest.mark.long
async def test_axe_finds_nothing_in_any_state_of_a_chat(wide: Page, model: Model) -> None:
    page, found = wide, Findings()
    line = await Line.lay(page)
    await found.look(page, "empty")
    model.answer(EVERYTHING)
    await say(page, "Show me everything")
    await expect(answers(page)).to_contain_text("The end.")
    await idle(page)
    await button(page, "Options for Show me everything").press("Enter")
    await expect(page.get_by_role("menu")).to_be_visible()
    await found.look(page, "a menu over all kinds of blocks")
    await page.get_by_role("menuitem", name="Memory").press("Enter")
    await expect(page.get_by_role("dialog", name="Memory")).to_be_visible()
    await found.look(page, "memory")
    await page.keyboard.press("Escape")
    await page.keyboard.press("Control+/")
    await expect(page.get_by_role("dialog", name="Keyboard shortcuts")).to_be_visible()
    await found.look(page, "shortcuts")
    await page.keyboard.press("Escape")
    await button(page, "Options for Show me everything").press("Enter")
    await page.get_by_role("menuitem", name="Rename").press("Enter")
    await box(page).press("ArrowUp")
    await expect(page.get_by_role("textbox", name="Edit message")).to_be_focused()
    await page.evaluate(
        "document.querySelector('chat-list').startRename(document.querySelector('li[data-id]').dataset.id)"
    )
    await expect(page.get_by_role("textbox", name="Title")).to_be_focused()
    await found.look(page, "editing a message and a title")
    await page.keyboard.press("Escape")
    await page.get_by_role("textbox", name="Edit message").press("Escape")
    model.answer("Slowly\n\n```python\na = 1\n", Gate(), to="Slow")
    await say(page, "Slow")
    await expect(answers(page).last).to_contain_text("a = 1")
    await box(page).fill("Waits")
    await box(page).press("Enter")
    await expect(status(page)).to_contain_text("waits")
    await found.look(page, "an answer that grows, and a prompt that waits")
    await box(page).press("Escape")
    await expect(answers(page).last).to_contain_text("You said: Waits")
    model.refuse(400, to="Fail", times=9)
    await say(page, "Fail")
    await expect(button(page, "Retry")).to_be_visible()
    await found.look(page, "a stopped and a failed answer")
    await page.context.set_offline(True)
    await line.cut(TRY_AGAIN_LATER)
    await box(page).fill("Later")
    await box(page).press("Enter")
    await expect(page.get_by_text("Will be sent when").last).to_be_visible()
    await expect(page.locator("connection-pill")).to_be_visible()
    await found.look(page, "offline")
    assert not found.all, "\n".join(found.all)


@pytest.mark.long
async def test_axe_finds_nothing_on_a_phone_nor_where_no_chat_or_no_script_is(
    open_page: OpenPage, instances: Instances, model: Model, watch: Watch
) -> None:
    for expected in ("404", "413", "ERR_FAILED"):
        watch.allow(expected)
    found = Findings()
    page = await open_page(instances[0], viewport=PHONE, has_touch=True)
    await found.look(page, "empty on a phone")
    await say(page, "Hello")
    await button(page, "Send").press("Enter") if await box(page).input_value() else None
    await expect(answers(page)).to_contain_text("You said: Hello")
    await found.look(page, "a chat on a phone")
    await button(page, "Show chats").click()
    await expect(button(page, "Hide chats")).to_be_focused()
    await found.look(page, "the drawer")
    await button(page, "Options for Hello").click()
    await page.get_by_role("menuitem", name="Delete").click()
    await expect(button(page, "Undo")).to_be_visible()
    await found.look(page, "an offer to undo")
    await page.goto(f"{instances[0].url}/c/{'0' * 22}")
    await expect(page.get_by_role("heading", name="This chat is not here")).to_be_visible()
    await found.look(page, "a missing chat")
    await page.goto(f"{instances[0].url}/nothing")
    await expect(page.get_by_role("heading", level=1)).to_be_visible()
    await found.look(page, "an error")
    await page.route("**/js/wire.js", lambda route: route.abort())  # axe itself is a script
    await page.goto(instances[0].url)
    await expect(page.locator("html:not([data-js])")).to_be_attached()
    model.answer(EVERYTHING.replace("###", "#"), Gate())  # no script puts its level right
    await box(page).fill("Everything")
    await button(page, "Send").click()
    await page.get_by_role("link", name="Read and write meanwhile").click()
    await expect(answers(page)).to_contain_text("The end.")
    await expect(page.locator("html:not([data-js])")).to_be_attached()
    await found.look(page, "an answer that grows where no script comes")
    await box(page).fill("x" * 70_000)
    await button(page, "Send").click()
    await expect(page.get_by_role("heading", name="That is too long to be sent")).to_be_visible()
    await found.look(page, "words that are given back")
    assert not found.all, "\n".join(found.all)


@pytest.mark.long
async def test_axe_finds_nothing_at_the_door_nor_in_files_menus_and_details(
    store: Store, start_instance: StartInstance, open_page: OpenPage, model: Model, watch: Watch
) -> None:
    watch.allow("403")
    found = Findings()
    instance = await start_instance(
        store,
        ACCESS_PASSWORD="correct horse",
        OPENAI_MODELS="gpt-4o-mini,gpt-4o",
        REDIS_PREFIX=f"axe-{secrets.token_hex(4)}",
    )
    page = await open_page(instance, viewport=WIDE)
    for password in ("a guess", "correct horse"):
        await page.get_by_label("Password").fill(password)
        await page.get_by_label("Password").press("Enter")
        if password == "a guess":
            await expect(page.get_by_role("alert")).to_be_visible()
            await found.look(page, "a wrong password")
    await expect(page.locator("html[data-live]")).to_be_attached()
    await pick(page, CAT, NOTES)
    await attached(page, 2)
    await found.look(page, "files beside the box")
    model.answer(Reasoning("Milk, and a cat."), EVERYTHING)
    await say(page, "What are these?")
    await expect(answers(page)).to_contain_text("The end.")
    await idle(page)
    await answers(page).get_by_text("Thought").click()
    await expect(answers(page).get_by_role("group", name="Reasoning")).to_be_visible()
    await messages(page).get_by_role("link", name="cat.png").scroll_into_view_if_needed()
    await found.look(page, "files of a message, and reasoning")
    await messages(page).get_by_role("link", name="cat.png").press("Enter")
    await expect(page.get_by_role("dialog", name="cat.png")).to_be_visible()
    await found.look(page, "a picture")
    await page.keyboard.press("Escape")
    await button(page, "Edit").press("Enter")
    await expect(button(page, "Leave out cat.png")).to_be_visible()
    await found.look(page, "an editor with files")
    await page.keyboard.press("Escape")
    for name in ("Raw text", "Information"):
        await button(page, "More").last.press("Enter")
        await page.get_by_role("menuitem", name=name).press("Enter")
        await expect(page.get_by_role("dialog", name=name)).to_be_visible()
        await found.look(page, name)
        await page.keyboard.press("Escape")
    await button(page, "More").last.press("Enter")
    await expect(page.get_by_role("menu", name="Message options")).to_be_visible()
    await found.look(page, "the menu of a message")
    await page.keyboard.press("Escape")
    await button(page, "Regenerate with another model").press("Enter")
    await expect(page.get_by_role("menuitem", name="gpt-4o", exact=True)).to_be_visible()
    await found.look(page, "the menu of models")
    assert not found.all, "\n".join(found.all)


# By keyboard alone


ROWS = """rows => rows.map(row => [
  [...row.querySelectorAll("kbd")].map(key => key.firstChild.textContent).join(" "),
  row.querySelector("dt").textContent,
])"""
FOCUSED = """() => {
  const it = document.activeElement;
  if (it === document.body) return "nothing";
  const style = getComputedStyle(it.matches("[type=radio]") ? it.closest("label") : it);
  const frame = it.id === "message" && getComputedStyle(it.closest(".box")).boxShadow !== "none";
  if (!frame && (style.outlineStyle === "none" || parseFloat(style.outlineWidth) < 2)) return `unmarked ${it.outerHTML}`;
  const { top, bottom, left, right } = it.getBoundingClientRect();
  if (bottom <= 0 || top >= innerHeight || right <= 0 || left >= innerWidth) return `unseen ${it.outerHTML}`;
  const named = it.labels?.[0] ?? document.getElementById(it.getAttribute("aria-labelledby"));
  return it.getAttribute("aria-label") ?? (named ?? it).textContent.trim();
}"""


async def focused(page: Page) -> str:
    """Name what has the focus, if it is marked and in sight."""
    return str(await page.evaluate(FOCUSED))


async def tab_to(page: Page, name: str, key: str = "Tab") -> list[str]:
    """Press Tab until something of this name has the focus; gives the names on the way."""
    way: list[str] = []
    while len(way) < 40 and (not way or way[-1] != name):
        await page.keyboard.press(key)
        way.append(await focused(page))
    assert way[-1] == name, f"no {name} among {way}"
    assert not [each for each in way if each == "nothing" or each.startswith(("unmarked", "unseen"))], way
    return way


async def test_whole_session_goes_by_keyboard_alone(wide: Page, model: Model) -> None:
    page, keys, one = wide, wide.keyboard, Gate()
    await expect(box(page)).to_be_focused()
    model.answer(EVERYTHING)
    await keys.type("First")
    await keys.press("Enter")
    await idle(page)
    await expect(answers(page)).to_contain_text("The end.")

    # The order from the top, and the way past it.
    await page.get_by_role("link", name="Skip to the message box").focus()
    assert await focused(page) == "Skip to the message box"
    way = await tab_to(page, "Message")
    order = [
        "Hide chats",
        "New chat",
        "First",
        "Options for First",
        "System",
        "Keyboard shortcuts",
        "Conversation",
    ]
    assert [name for name in way if name in order] == order
    await page.get_by_role("link", name="Skip to the message box").focus()
    await keys.press("Enter")
    await expect(box(page)).to_be_focused()

    # Reading.
    await keys.press("Alt+ArrowUp")
    await expect(answers(page)).to_be_focused()
    await keys.press("Alt+ArrowUp")
    await expect(messages(page).first).to_be_focused()
    await keys.press("Alt+ArrowUp")
    await expect(messages(page).first).to_be_focused()
    await keys.press("Alt+ArrowDown")
    assert await focused(page) == "Answer"
    await tab_to(page, "Wrap lines")
    await keys.press("Enter")
    await expect(button(page, "Wrap lines")).to_have_attribute("aria-pressed", "true")
    await keys.press("Alt+ArrowDown")
    await expect(box(page)).to_be_focused()
    await keys.press("Control+Shift+Semicolon")
    await expect(status(page)).to_have_text("Code copied")
    await keys.press("Control+Shift+KeyC")
    await expect(status(page)).to_have_text("Message copied")

    # Stopping, editing, turning.
    model.answer("Slowly", one, to="Second")
    await keys.type("Second")
    await keys.press("Enter")
    await expect(answers(page).last).to_contain_text("Slowly")
    await keys.press("Shift+Escape")  # is not Escape
    await expect(button(page, "Stop")).to_be_visible()
    await keys.press("Escape")
    await expect(status(page)).to_have_text("Answer stopped")
    await expect(box(page)).to_be_focused()
    await keys.press("ArrowUp")
    await expect(page.get_by_role("textbox", name="Edit message")).to_have_value("Second")
    await keys.type(", better")
    await keys.press("Control+Enter")
    await expect(answers(page).last).to_contain_text("You said: Second, better")
    await idle(page)
    await keys.press("Alt+ArrowUp")
    await keys.press("Alt+ArrowUp")
    await tab_to(page, "Previous version")
    await keys.press("Enter")
    await expect(answers(page).last).to_contain_text("Slowly")
    await expect(button(page, "Next version")).to_be_focused()
    await keys.press("Control+Shift+KeyO")
    await expect(messages(page)).to_have_count(0)
    await expect(box(page)).to_be_focused()

    # The chats: choosing, renaming, deleting, undoing.
    await tab_to(page, "First", "Shift+Tab")
    await keys.press("Enter")
    await expect(messages(page)).to_have_count(4)
    await expect(box(page)).to_be_focused()
    await tab_to(page, "Options for First", "Shift+Tab")
    await keys.press("Enter")
    await expect(page.get_by_role("menuitem", name="Rename")).to_be_focused()
    await focused(page)
    await keys.press("Escape")
    await expect(button(page, "Options for First")).to_be_focused()
    await keys.press("Enter")
    await keys.press("Enter")
    await keys.type("Renamed")
    await keys.press("Enter")
    await expect(chats(page)).to_have_text(["Renamed"])
    await expect(chats(page).first).to_be_focused()
    await keys.press("Control+Shift+Backspace")
    await expect(chats(page)).to_have_count(0)
    await expect(box(page)).to_be_focused()
    # It comes with the reply, after the event that the chat went.
    await expect(button(page, "Undo")).to_be_visible()
    await keys.press("Tab")
    assert await focused(page) == "Undo"
    await keys.press("Enter")
    await expect(chats(page)).to_have_text(["Renamed"])
    await expect(box(page)).to_be_focused()

    # Theme, and a dialog that keeps the focus and gives it back.
    await tab_to(page, "Keyboard shortcuts", "Shift+Tab")
    await tab_to(page, "System", "Shift+Tab")
    await keys.press("ArrowLeft")
    await expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    await tab_to(page, "Keyboard shortcuts")
    await keys.press("Enter")
    sheet = page.get_by_role("dialog", name="Keyboard shortcuts")
    await expect(sheet).to_be_visible()
    for _ in range(4):
        await keys.press("Tab")
        assert not await page.evaluate("document.activeElement.matches('body :not(dialog, dialog *)')")
    await keys.press("Escape")
    await expect(sheet).to_be_hidden()
    await expect(button(page, "Keyboard shortcuts")).to_be_focused()

    # A file: attached, taken away, viewed.
    await keys.press("Control+Shift+KeyO")
    await expect(messages(page)).to_have_count(0)
    await expect(box(page)).to_be_focused()
    await tab_to(page, "Attach files", "Shift+Tab")
    async with page.expect_file_chooser() as chosen:
        await keys.press("Enter")
    await (await chosen.value).set_files([CAT, NOTES])
    await attached(page, 2)
    await tab_to(page, "Remove notes.txt", "Shift+Tab")
    await keys.press("Enter")
    await expect(button(page, "Remove cat.png")).to_be_focused()
    await tab_to(page, "Message")
    await keys.type("A cat")
    await keys.press("Enter")
    await expect(answers(page)).to_contain_text("You said: A cat")
    await idle(page)
    await expect(tray(page)).to_have_count(0)
    await keys.press("Alt+ArrowUp")
    await keys.press("Alt+ArrowUp")
    await keys.press("Tab")
    await expect(messages(page).get_by_role("link", name="cat.png")).to_be_focused()
    await keys.press("Enter")
    picture = page.get_by_role("dialog", name="cat.png")
    await expect(picture).to_be_visible()
    assert await focused(page) == "Close"
    await keys.press("Escape")
    await expect(picture).to_be_hidden()
    await expect(messages(page).get_by_role("link", name="cat.png")).to_be_focused()

    # The chats come and go beside a box that is written in.
    await keys.press("Shift+Escape")
    await keys.type("Half")
    for name in ("Show chats", "Hide chats"):
        await keys.press("Control+Shift+KeyS")
        await expect(button(page, name)).to_be_visible()
        await expect(box(page)).to_be_focused()
    await box(page).fill("")

    # The drawer.
    await page.set_viewport_size(PHONE)
    await keys.press("Control+Shift+KeyS")
    await expect(button(page, "Hide chats")).to_be_focused()
    for _ in range(12):
        await keys.press("Tab")
        assert not await page.evaluate("document.activeElement.matches('main > :not(.toasts) *')")
    await keys.press("Escape")
    await expect(box(page)).to_be_focused()


# Shortcuts


def told(column: int) -> list[list[str]]:
    """Give what docs/keyboard.md has in a column of keys, and what they do."""
    rows = [
        line.strip("| ").split(" | ") for line in KEYBOARD.read_text().splitlines() if line.startswith("| ")
    ]
    return [[row[column], row[2]] for row in rows if set(row[0]) != {"-"}][1:]


async def test_sheet_and_document_tell_the_shortcuts_that_there_are_and_a_switch_ends_them(
    open_page: OpenPage, instances: Instances
) -> None:
    page = await open_page(instances[0], viewport=WIDE)
    await page.keyboard.press("Control+/")
    sheet = page.get_by_role("dialog", name="Keyboard shortcuts")
    await expect(sheet).to_be_visible()
    assert await sheet.locator("dl > div").evaluate_all(ROWS) == told(0)
    await page.keyboard.press("Control+Shift+KeyO")  # not from behind a dialog
    await expect(sheet).to_be_visible()
    await sheet.get_by_role("switch", name="Use these shortcuts").press("Space")
    await page.keyboard.press("Control+/")
    await expect(sheet).to_be_visible()
    await page.keyboard.press("Escape")
    await page.reload()
    await expect(box(page)).to_be_focused()
    await expect(page.locator("shortcut-sheet:defined")).to_be_attached()
    await page.keyboard.press("Control+/")
    await expect(sheet).to_be_hidden()
    await page.keyboard.type("Words")
    await page.keyboard.press("Enter")
    await expect(answers(page)).to_contain_text("You said: Words")


async def test_sheet_that_could_not_be_loaded_is_told_of_and_comes_when_it_can(
    page: Page, watch: Watch, instances: Instances
) -> None:
    watch.allow("shortcut-sheet.js")
    await page.route("**/shortcut-sheet.js", lambda route: route.abort())
    await page.reload()
    await page.get_by_role("button", name="Keyboard shortcuts").click()
    await expect(page.get_by_role("status")).to_have_text(
        "The list of shortcuts can be shown when the connection is back."
    )
    await page.unroute("**/shortcut-sheet.js")
    await page.get_by_role("button", name="Keyboard shortcuts").click()
    await expect(page.get_by_role("dialog", name="Keyboard shortcuts")).to_be_visible()


async def test_shortcuts_of_a_mac_have_its_keys_and_leave_words_that_are_composed_alone(
    open_page: OpenPage, instances: Instances
) -> None:
    page = await open_page(instances[0], viewport=WIDE)
    await page.context.add_init_script(
        "Object.defineProperty(navigator, 'userAgentData', { value: undefined });"
        "Object.defineProperty(navigator, 'platform', { value: 'MacIntel' });"
    )
    await page.reload()
    await expect(box(page)).to_be_focused()
    sheet = page.get_by_role("dialog", name="Keyboard shortcuts")
    await page.keyboard.press("Control+/")
    await box(page).dispatch_event("keydown", {"key": "/", "metaKey": True, "isComposing": True})
    await expect(sheet).to_be_hidden()
    await page.keyboard.press("Meta+/")
    await expect(sheet).to_be_visible()
    await expect(sheet.locator("kbd").first).to_have_text("⌘Command")
    assert await sheet.locator("dl > div").evaluate_all(ROWS) == told(1)
    await page.keyboard.press("Meta+/")
    await expect(sheet).to_be_hidden()
    await expect(box(page)).to_be_focused()


# What is spoken


HEAR = """() => {
  window.heard = [];
  const hear = (role) => {
    const region = document.querySelector(`[role=${role}]`);
    new MutationObserver(() => heard.push([role, region.textContent, Date.now()])).observe(region, { childList: true, characterData: true, subtree: true });
  };
  hear("status");
  hear("alert");
}"""


async def pass_time(page: Page, seconds: int) -> None:
    """Let seconds pass, with the time between them that the server needs to answer a ping."""
    for _ in range(0, seconds, 5):
        await page.clock.run_for(5_000)
        await page.evaluate("fetch('/healthz').then(() => 0)")


async def hears(page: Page, text: str) -> None:
    """Let time pass until a text is heard."""
    for _ in range(200):
        await page.clock.run_for(50)
        if await page.evaluate("text => heard.some(([, words]) => words === text)", text):
            return
    pytest.fail(f"{text!r} is not heard")


async def painted(page: Page, text: str) -> None:
    """Let frames pass until the last answer has a text: where the clock stands still, none come by themselves."""
    for _ in range(200):
        await page.clock.run_for(20)
        if text in (await answers(page).last.text_content() or ""):
            return
    pytest.fail(f"{text!r} is not painted")


async def heard(page: Page, role: str = "status") -> list[str]:
    """Give what was said since this was asked last."""
    return [words for where, words, _ in await page.evaluate("heard.splice(0)") if where == role]


async def test_status_tells_start_progress_and_end_but_no_token_and_the_same_words_again(
    wide: Page, model: Model
) -> None:
    page = wide
    await page.clock.install()
    await page.reload()
    await expect(box(page)).to_be_focused()
    await page.evaluate(HEAR)
    begins, goes_on, ends = Gate(), Gate(), Gate()
    pieces = [f"word{number} " for number in range(40)]
    model.answer(begins, *pieces[:20], goes_on, *pieces[20:], "end. More.", ends, to="Tell")
    await say(page, "Tell me")
    await begins.wait()
    await expect(status(page)).to_have_text("Answer started")
    await page.clock.pause_at(await page.evaluate("Date.now() / 1000 + 1"))
    await pass_time(page, 10)
    (_, _, start), (_, _, first), *_ = await page.evaluate("heard")
    assert first - start >= 6_900  # heard is a little after it is said
    started, *progress = await heard(page)
    assert (started, {*progress} - {""}) == ("Answer started", {"Still waiting for the answer"})
    begins.open()
    await painted(page, "word19")
    assert await heard(page) == []
    await pass_time(page, 70)
    progress = await page.evaluate("heard.splice(0)")
    assert {words for _, words, _ in progress} == {
        "Still writing, 20 words so far",
        "",
    }  # gone before it is said again
    times = [at for _, words, at in progress if words]
    assert len(times) >= 2
    assert min(later - earlier for earlier, later in pairwise(times)) >= 7_000
    goes_on.open()
    await painted(page, "More.")
    assert await heard(page) == []
    ends.open()
    await idle(page)
    await expect(status(page)).to_contain_text("Answer complete. word0")
    await pass_time(page, 30)
    (last,) = await heard(page)
    assert len(last) < 170  # a long sentence is not read out
    for said in (["Message copied"], ["", "Message copied"]):
        await button(page, "Copy").last.click()
        await hears(page, "Message copied")
        assert await heard(page) == said

    await hide(page)
    await say(page, "Hello")
    await idle(page)
    assert await heard(page) == []
    await hide(page, False)
    assert await heard(page) == ["Answer complete. You said: Hello"]
    model.refuse(400, to="Fail", times=9)
    await say(page, "Fail")
    await expect(button(page, "Retry")).to_be_visible()
    assert len(await heard(page, "alert")) == 1


# Zoomed, narrow, still, recoloured, from right to left


SPACED = """() => {
  const sheet = new CSSStyleSheet(); // WCAG 1.4.12
  sheet.replaceSync(`* { line-height: 1.5 !important; letter-spacing: 0.12em !important; word-spacing: 0.16em !important }
    p { margin-block-end: 2em !important }`);
  document.adoptedStyleSheets = [sheet];
}"""
MISFITS = """least => {
  const found = [];
  const tell = (fault, it) => found.push(`${fault}: ${it.localName} ${it.className} ${it.getAttribute("aria-label") ?? it.textContent.trim().slice(0, 30)}`);
  for (const it of document.querySelectorAll("body *")) {
    if (!it.checkVisibility({ visibilityProperty: true }) || it.closest(".unseen, .skip, svg, option, :is(.table, pre) *")) continue;
    const { left, right, width, height } = it.getBoundingClientRect();
    const { overflowX, textOverflow } = getComputedStyle(it);
    if (width > 0 && (right > innerWidth + 1 || left < -1)) tell("beyond the window", it);
    const scrolls = it.clientWidth > 0 && it.scrollWidth > it.clientWidth + 1 && overflowX !== "visible";
    if (scrolls && textOverflow !== "ellipsis" && !it.matches(".table, pre, textarea")) tell("scrolls sideways", it);
    if (!it.matches("button, summary, select, label, a, input") || it.matches("label input, .blocks a")) continue;
    const beside = ["::before", "::after"].map((part) => getComputedStyle(it, part)).filter(({ content, position }) => content !== "none" && position === "absolute");
    const size = (side, own) => Math.max(own, ...beside.map((style) => parseFloat(style[side])));
    if (size("width", width) < least || size("height", height) < least) tell(`smaller than ${least} px`, it);
  }
  return found;
}"""
FLAT = """() => [...document.querySelectorAll("button:enabled, select, textarea")]
  .filter(it => it.checkVisibility({ visibilityProperty: true }) && !it.textContent.trim() && !it.matches("code-header *"))
  .filter(it => !it.matches("textarea") || !it.closest(".box"))
  .filter(it => parseFloat(getComputedStyle(it).borderTopWidth) < 1)
  .map(it => it.outerHTML)"""
SIDE = """it => {
  const line = document.createRange();
  line.selectNodeContents(it);
  const text = [...line.getClientRects()].at(-1), whole = it.getBoundingClientRect();
  return text.left - whole.left < whole.right - text.right ? "left" : "right";
}"""
MOVES = """() => document.getAnimations().filter(each => each.effect.getComputedTiming().activeDuration > 1)
  .map(each => `${each.animationName ?? each.transitionProperty} of ${each.effect.target.className || each.effect.target.localName}`)"""


async def test_page_fits_a_window_of_320_pixels_one_that_is_zoomed_and_any_spacing_of_text(
    open_page: OpenPage, instances: Instances, model: Model
) -> None:
    touched = await open_page(instances[0], viewport={"width": 320, "height": 640}, has_touch=True)
    zoomed = await open_page(instances[0], viewport={"width": 640, "height": 400}, device_scale_factor=2)
    for page, least in ((touched, 44), (zoomed, 24)):
        misfits: dict[str, list[str]] = {}

        async def look(
            state: str, page: Page = page, least: int = least, found: dict[str, list[str]] = misfits
        ) -> None:
            await page.evaluate(STILL)
            found[state] = await page.evaluate(MISFITS, least)
            await page.evaluate(SPACED)
            found[f"{state}, spaced"] = await page.evaluate(MISFITS, 24)
            await page.evaluate("document.adoptedStyleSheets = []")

        await look("empty")
        model.answer(EVERYTHING)
        await box(page).fill(f"Everything, and {'very' * 20} long words")
        await button(page, "Send").click()
        await expect(answers(page)).to_contain_text("The end.")
        await idle(page)
        await look("a chat")
        await box(page).press("ArrowUp")
        await look("an editor")
        await page.keyboard.press("Escape")
        await page.keyboard.press("Control+/")
        await look("shortcuts")
        await page.keyboard.press("Escape")
        await button(page, "Show chats").click()
        await page.get_by_role("button", name="Options for Everything").press("Enter")
        await look("the drawer and a menu")
        await page.get_by_role("menuitem", name="Delete").press("Enter")
        await expect(button(page, "Undo")).to_be_visible()
        await look("an offer to undo")
        assert not (bad := {state: found for state, found in misfits.items() if found}), bad


async def test_nothing_moves_and_every_control_has_an_edge_where_the_system_asks_for_it(
    open_page: OpenPage, instances: Instances, model: Model
) -> None:
    page = await open_page(instances[0], viewport=WIDE, reduced_motion="reduce", forced_colors="active")
    line = await Line.lay(page)
    gate = Gate()
    model.answer(gate, "Words", Gate(), to="Slow")
    await say(page, "Slow")
    await gate.wait()
    await expect(answers(page).get_by_text("Waiting for the answer")).to_be_attached()
    assert await page.evaluate(MOVES) == []
    gate.open()
    await expect(answers(page)).to_contain_text("Words")
    line.closing = TRY_AGAIN_LATER
    await line.cut(TRY_AGAIN_LATER)
    await expect(page.locator("connection-pill")).to_be_visible()
    assert await page.evaluate(MOVES) == []
    assert await page.evaluate(FLAT) == []
    await button(page, "Options for Slow").press("Enter")
    await expect(page.get_by_role("menuitem", name="Rename")).to_be_focused()
    assert await focused(page) == "Rename"  # marked, also where there are no shadows


async def test_words_go_in_their_own_direction_and_the_page_stays(
    open_page: OpenPage, instances: Instances, model: Model
) -> None:
    page = await open_page(instances[0], viewport=PHONE)
    model.answer(
        "`print()` مرحبا (hello)\n\n- שלום\n- second\n\nEnglish\n\n| א | b |\n| --- | --- |\n| ג | d |\n\n```\nif (x) {}\n```"
    )
    await box(page).fill("سؤال طويل جدا عن كل شيء؟\nShort.")
    await box(page).press("Enter")
    await expect(answers(page).locator("pre code")).to_have_text("if (x) {}\n")
    await idle(page)

    async def side(locator: Locator) -> str:
        return str(await locator.evaluate(SIDE))

    for _ in ("as it came", "as it is loaded"):
        blocks = answers(page).locator(".blocks")
        assert [await side(block) for block in await blocks.locator("p").all()] == ["right", "left"]
        assert [await side(item) for item in await blocks.locator("li, td").all()] == ["right"] * 4
        assert await side(blocks.locator("pre")) == "left"
        await expect(blocks.locator("p code")).to_have_css("direction", "ltr")
        words = messages(page).first.locator(".words")
        assert (await words.evaluate("words => getComputedStyle(words).direction"), await side(words)) == (
            "rtl",
            "left",
        )
        for title in (page.get_by_role("heading", level=1), page.locator("chat-list .title")):
            assert await title.evaluate("title => getComputedStyle(title).direction") == "rtl"
            assert await title.evaluate("title => getComputedStyle(title).textAlign") == "left"
        await page.reload()
