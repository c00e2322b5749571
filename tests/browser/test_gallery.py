"""Every state of the page in a picture, light and dark, on a desktop and on a phone.

`make gallery` keeps the pictures in `gallery/`: look at each after a change of the look.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.async_api import FilePayload, Page, expect

from tests.browser.axe import STILL
from tests.browser.conftest import OpenPage
from tests.browser.line import TRY_AGAIN_LATER, Line
from tests.browser.person import answers, box, button, idle, messages
from tests.browser.watch import Watch
from tests.conftest import StartInstance
from tests.fakes import Gate, Model
from tests.instances import Instance, Store
from tests.provider import Provider
from tests.steps import Reasoning

Instances = tuple[Instance, Instance]
pytestmark = pytest.mark.long
SCREENS = {
    "desktop": {"viewport": {"width": 1280, "height": 800}},
    "phone": {"viewport": {"width": 390, "height": 844}, "has_touch": True},
}
SMALLEST = 8_000  # bytes; a picture of nothing is smaller
SIDEWAYS = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
RICH = """### Fair shares

A cake of weight $w$ for $n$ guests gives each of them

$$
\\frac{w}{n} = \\int_0^{1/n} w \\, dx
$$

| guest | share | dish |
| :--- | ---: | :--- |
| Amina | 120 g | plate |
| Jonas | 120 g | bowl |

- [x] weigh the cake
- [ ] count the guests
  1. those who are there
  2. those who are **late**

> A fair share is one that nobody *envies*.

```python
def shares(weight: float, guests: list[str]) -> dict[str, float]:
    \"\"\"Cut a cake.\"\"\"
    return {guest: weight / len(guests) for guest in guests}  # nobody is left out
```

More at <https://example.com/cake>, or with `len(guests)`.
"""
ARABIC = (
    "الكعكة لثلاثة ضيوف:\n\n1. زِن الكعكة\n2. اقسم على `n`\n\n| ضيف | غرام |\n|---|---|\n| أمينة | ١٢٠ |\n"
)


class Gallery:
    """Takes the pictures of one screen's pages, and looks that nothing of them sticks out sideways."""

    def __init__(self, folder: Path, screen: str) -> None:
        self._folder = folder
        self._screen = screen
        self._number = 0

    async def hang(self, page: Page, state: str) -> None:
        """Take a state's pictures, light and dark."""
        self._number += 1
        pictures = []
        for scheme in ("light", "dark"):
            await page.emulate_media(color_scheme=scheme)
            await page.evaluate(STILL)
            assert await page.evaluate(SIDEWAYS) <= 0, f"{state}: the page can be scrolled sideways"
            name = f"{self._screen}-{self._number:02}-{state}-{scheme}.png"
            pictures.append(await page.screenshot(path=self._folder / name, animations="disabled"))
        assert all(len(picture) > SMALLEST for picture in pictures), f"{state}: there is nothing in it"
        assert pictures[0] != pictures[1], f"{state}: it looks the same in both themes"


@pytest.fixture(params=SCREENS)
def screen(request: pytest.FixtureRequest) -> str:
    """The name of a screen."""
    return str(request.param)


@pytest.fixture
def gallery(screen: str, tmp_path: Path) -> Iterator[Gallery]:
    """Where the pictures go: $GALLERY, or a folder of the test's own."""
    folder = Path(os.environ.get("GALLERY") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    return Gallery(folder, screen)


async def send(page: Page, text: str) -> None:
    """Send a prompt by the button, as on a phone."""
    await box(page).fill(text)
    await button(page, "Send").click()


async def test_every_state_of_a_chat_has_its_picture(
    gallery: Gallery, screen: str, open_page: OpenPage, instances: Instances, model: Model, watch: Watch
) -> None:
    page = await open_page(instances[0], **SCREENS[screen])
    await gallery.hang(page, "empty")
    await box(page).fill("How do I cut a cake for my guests?\nThere are three of them.")
    await gallery.hang(page, "typed")
    thinking, writing, end = Gate(), Gate(), Gate()
    reasons = Reasoning("The guests are three. A cake is cut from its middle.\n")
    model.answer(thinking, reasons, writing, RICH[:520], end, RICH[520:])
    await button(page, "Send").click()
    await thinking.wait()
    await expect(answers(page).get_by_text("Waiting for the answer")).to_be_visible()
    await gallery.hang(page, "waiting")
    thinking.open()
    await writing.wait()
    await gallery.hang(page, "reasoning")
    writing.open()
    await expect(answers(page)).to_contain_text("Jonas")
    await gallery.hang(page, "writing")
    await send(page, "And if a fourth comes, late and hungry, while the cake is being cut?")
    await send(page, "What about the crumbs?")
    await gallery.hang(page, "queued")
    end.open()
    await expect(answers(page)).to_have_count(3)
    await expect(button(page, "Stop")).to_be_hidden()
    await gallery.hang(page, "answered")
    await answers(page).first.scroll_into_view_if_needed()
    await page.mouse.wheel(0, -2000)
    await gallery.hang(page, "scrolled-up")
    await messages(page).first.hover()
    await messages(page).first.get_by_role("button", name="Edit").click()
    await gallery.hang(page, "editing")
    await page.keyboard.press("Escape")
    model.answer("A **second** version of it.")
    await button(page, "Regenerate").last.click()
    await expect(page.get_by_text("2/2")).to_be_visible()
    await idle(page)
    await gallery.hang(page, "versions")
    await send(page, "A long story.\n" * 30)
    await expect(answers(page).last).to_contain_text("A long story.")
    await expect(button(page, "Stop")).to_be_hidden()
    await gallery.hang(page, "folded")


async def test_every_trouble_has_its_picture(
    gallery: Gallery, screen: str, open_page: OpenPage, instances: Instances, model: Model, watch: Watch
) -> None:
    page = await open_page(instances[0], **SCREENS[screen])
    gate = Gate()
    model.answer("As far as this, ", gate)
    await send(page, "Begin")
    await gate.wait()
    await button(page, "Stop").click()
    await expect(button(page, "Continue")).to_be_visible()
    await gallery.hang(page, "stopped")
    model.refuse(429, retry_after=90, times=9)
    await send(page, "Once more")
    await expect(page.get_by_role("button", name="Retry")).to_be_visible()
    await gallery.hang(page, "failed")
    line = await Line.lay(page)
    line.closing = TRY_AGAIN_LATER
    watch.allow("WebSocket")
    await line.cut(1012)
    await expect(page.get_by_role("status")).not_to_have_text("")
    await send(page, "Written in the train, in a tunnel")
    await expect(page.locator(".offline").last).to_be_visible()
    await gallery.hang(page, "offline")
    missing = await open_page(instances[0], "/c/none", **SCREENS[screen])
    watch.allow("404")
    await gallery.hang(missing, "missing")
    error = await open_page(instances[0], "/nothing", **SCREENS[screen])
    await gallery.hang(error, "error")


async def test_files_have_their_pictures(
    gallery: Gallery, screen: str, open_page: OpenPage, instances: Instances, model: Model
) -> None:
    page = await open_page(instances[0], **SCREENS[screen])
    photo = await page.screenshot()
    files: list[FilePayload] = [
        {"name": "kitchen.png", "mimeType": "image/png", "buffer": photo},
        {"name": "recipe.txt", "mimeType": "text/plain", "buffer": b"Flour, eggs, sugar.\n" * 90},
    ]
    await page.locator("attachment-tray input").set_input_files(files)
    await expect(page.locator("attachment-tray [data-state=taken]")).to_have_count(2)
    model.answer("A plain cake: *flour, eggs and sugar* are what it takes.")
    await box(page).fill("What do I bake with these?")
    await gallery.hang(page, "files")
    await button(page, "Send").click()
    await expect(answers(page)).to_contain_text("A plain cake")
    await expect(button(page, "Stop")).to_be_hidden()
    await gallery.hang(page, "files-sent")
    await page.get_by_role("link", name="kitchen.png").click()
    await gallery.hang(page, "picture")


async def test_page_without_scripts_has_its_pictures(
    gallery: Gallery, screen: str, open_page: OpenPage, instances: Instances, model: Model
) -> None:
    page = await open_page(instances[0], java_script_enabled=False, **SCREENS[screen])
    gate = Gate()
    model.answer(RICH, gate)
    await send(page, "How do I cut a cake?")
    await gate.wait()
    await expect(answers(page)).to_contain_text("late")
    await gallery.hang(page, "without-scripts-writing")
    gate.open()
    await expect(page.get_by_text("The answer is being written")).to_be_hidden()
    await gallery.hang(page, "without-scripts")


async def test_every_menu_and_dialog_has_its_picture(
    gallery: Gallery, screen: str, open_page: OpenPage, instances: Instances, model: Model
) -> None:
    page = await open_page(instances[0], **SCREENS[screen])
    for title in ("כמה עולה עוגה?", "A thank-you note for Amina", "Ideas for a quiet weekend"):
        await send(page, title)
        await expect(answers(page)).to_have_count(1)
        await expect(page.locator("chat-list").get_by_text(title)).to_be_attached()
        await expect(button(page, "Stop")).to_be_hidden()
        await page.keyboard.press("Control+Shift+O")
    model.answer(ARABIC)
    await send(page, "كيف أقسم كعكة على ضيوفي؟")
    await expect(answers(page)).to_contain_text("أمينة")
    await gallery.hang(page, "right-to-left")
    if screen == "phone":
        await button(page, "Show chats").click()
    await gallery.hang(page, "chats")
    await button(page, "Options for A thank-you note for Amina").click()
    await gallery.hang(page, "chat-menu")
    await page.get_by_role("menuitem", name="Memory").click()
    await expect(page.get_by_role("dialog", name="Memory")).to_be_visible()
    await gallery.hang(page, "memory")
    await page.keyboard.press("Escape")
    if screen == "phone":
        await button(page, "Hide chats").click()
    await button(page, "More").last.click()
    await gallery.hang(page, "message-menu")
    await page.get_by_role("menuitem", name="Information").click()
    await gallery.hang(page, "information")
    await page.keyboard.press("Escape")
    await page.keyboard.press("Control+/")
    await expect(page.get_by_role("dialog", name="Keyboard shortcuts")).to_be_visible()
    await gallery.hang(page, "shortcuts")


async def test_day_without_tokens_has_its_picture(
    gallery: Gallery,
    screen: str,
    store: Store,
    start_instance: StartInstance,
    open_page: OpenPage,
    model: Model,
) -> None:
    prefix = f"gallery-{screen}"
    instance = await start_instance(store, TOKENS_PER_DAY="1200", CONTEXT_TOKENS="700", REDIS_PREFIX=prefix)
    page = await open_page(instance, **SCREENS[screen])
    model.answer(
        "An answer as long as the tokens go. " * 4, usage={"prompt_tokens": 900, "completion_tokens": 100}
    )
    await send(page, "Begin")
    await expect(answers(page)).to_contain_text("as long as the tokens go")
    await send(page, "Tomorrow, then")
    await expect(messages(page).get_by_text("Will be sent in")).to_be_visible()
    await gallery.hang(page, "without-tokens")


async def test_person_has_pictures(
    gallery: Gallery, screen: str, store: Store, start_instance: StartInstance, open_page: OpenPage
) -> None:
    async with Provider() as provider:
        told = provider.environment(REDIS_PREFIX=f"gallery-person-{screen}")
        page = await open_page(await start_instance(store, **told), **SCREENS[screen])
        await send(page, "Begin")
        await expect(answers(page)).to_have_count(1)
        await expect(button(page, "Stop")).to_be_hidden()
        if screen == "phone":
            await button(page, "Show chats").click()
        await gallery.hang(page, "anonymous")
        await page.get_by_role("link", name="Sign in", exact=True).click()
        await gallery.hang(page, "sign-in-by-provider")
        await page.get_by_role("link", name="Sign in with the tests").click()
        await expect(page.get_by_text("1 chat of this browser came along")).to_be_visible()
        await gallery.hang(page, "signed-in")
        if screen == "phone":
            await button(page, "Show chats").click()
        await page.get_by_role("link", name="Ann Example").click()
        await gallery.hang(page, "settings-of-a-person")
        await page.get_by_role("button", name="Sign out", exact=True).click()
        await expect(page.get_by_role("heading", name="You are signed out")).to_be_visible()
        await gallery.hang(page, "signed-out")


async def test_sign_in_has_its_picture(
    gallery: Gallery, screen: str, store: Store, start_instance: StartInstance, open_page: OpenPage
) -> None:
    instance = await start_instance(store, ACCESS_PASSWORD="a long password")
    page = await open_page(instance, **SCREENS[screen])
    await gallery.hang(page, "sign-in")


async def test_what_is_kept_has_its_pictures(
    gallery: Gallery, screen: str, open_page: OpenPage, instances: Instances, model: Model
) -> None:
    page = await open_page(instances[0], **SCREENS[screen])
    for title in ("How a rainbow forms", "A thank-you note for Amina"):
        model.answer(RICH)
        await send(page, title)
        await expect(answers(page)).to_have_count(1)
        await idle(page)
        await page.keyboard.press("Control+Shift+O")
    await page.get_by_role("switch", name="Temporary chat").check()
    await gallery.hang(page, "temporary")
    await page.get_by_role("switch", name="Temporary chat").uncheck()
    await button(page, "Instructions").click()
    await page.get_by_label("System prompt").fill("Answer in rhymes.")
    await gallery.hang(page, "instructions")
    await button(page, "Clear").click()
    await button(page, "Done").click()
    await page.keyboard.press("Control+k")
    await page.get_by_role("searchbox", name="Search chats").fill("guests")
    await expect(page.get_by_role("status")).to_contain_text("chats")
    await gallery.hang(page, "search")
    await page.goto(instances[0].url)
    if screen == "phone":
        await button(page, "Show chats").click()
    await button(page, "Options for How a rainbow forms").click()
    await page.get_by_role("menuitem", name="Share").click()
    await expect(page.get_by_role("dialog")).to_be_visible()
    await button(page, "Create link").click()
    link = page.get_by_role("dialog").get_by_role("textbox").first
    await expect(link).to_have_value(re.compile("/s/"))
    await gallery.hang(page, "share")
    shared = await link.input_value()
    await page.keyboard.press("Escape")
    row = page.locator("chat-list a[href^='/c/']").last
    path = await row.get_attribute("href")
    for state, address in (
        ("settings", "/settings"),
        ("your-data", "/settings/data"),
        ("options", f"{path}/options"),
        ("found", "/search?q=guests"),
    ):
        await page.goto(instances[0].url + address)
        await gallery.hang(page, state)
    await page.goto(shared)
    await gallery.hang(page, "shared")
