"""Hostile texts in Chromium: as prompts, answers, titles, reasoning, models and errors. None of them does anything."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

import pytest
from playwright.async_api import FilePayload, Page, expect

from tests.browser.conftest import OpenPage
from tests.browser.files import PNG
from tests.browser.person import answers, button, chats, idle, messages, say
from tests.conftest import StartInstance
from tests.fakes import Gate, Model, Reasoning
from tests.hostile import FOR_MARKDOWN, PAYLOADS, PLACES, placed
from tests.instances import Instance, Store

Instances = tuple[Instance, Instance]
CANARY = """
window.sung = [];
for (const name of ["alert", "confirm", "prompt", "print", "open"]) window[name] = (...words) => sung.push([name, ...words]);
"""
STRANGE = """() => {
  const theirs = ":is(.blocks, .words, .thoughts, .raw, chat-list, .by, .failure, h1, model-picker, attachment-list, attachment-tray) *";
  const tags = ":is(script, iframe, object, embed, img, style, link, meta, form, video, audio, base)";
  const own = "attachment-tray img, attachment-list img:is([src^='/attachments/'], [src^='data:image/jpeg;'])"; // drawn by the page
  const acts = (element) => [...element.attributes].some(({ name }) => name.startsWith("on"));
  const leads = (element) => /^\\s*(javascript|data|vbscript):/i.test(element.href?.baseVal ?? element.href ?? "");
  const strange = (element) => acts(element) || (element.matches(theirs) && (leads(element) || element.matches(`${tags}:not(${own})`)));
  return [...document.querySelectorAll("*")].filter(strange).map((element) => element.outerHTML.slice(0, 200));
}"""
KINDS = [
    "<img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "[a](javascript:alert(1))",
    "{{constructor.constructor('alert(1)')()}}",
]

OWN = re.compile(
    r"(?:navigation|request): http://127\.0\.0\.1:\d+/(?:(?:c/[\w-]{16,})?|static/[\w./-]+|attachments(?:/[\w-]+)?)"
    r"|request: data:image/jpeg;base64,.+"
)


class Quiet:
    """Notes what a page does beside showing its texts; `check` fails for any of it."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.done: list[str] = []
        page.on("dialog", lambda dialog: self.done.append(f"dialog: {dialog.message}"))
        page.on("popup", lambda popup: self.done.append(f"popup: {popup.url}"))
        page.on("download", lambda download: self.done.append(f"download: {download.url}"))
        page.on("framenavigated", lambda frame: self.done.append(f"navigation: {frame.url}"))
        page.on("request", lambda request: self.done.append(f"request: {request.url}"))

    async def check(self) -> None:
        """Fail where a text did anything."""
        assert await self.page.evaluate("window.sung ?? []") == []  # where scripts run
        assert await self.page.evaluate(STRANGE) == []
        assert [deed for deed in self.done if not OWN.fullmatch(deed)] == []


@pytest.fixture
async def quiet(open_page: OpenPage, instances: Instances) -> Quiet:
    """A page on which nothing may happen."""
    page = await open_page(instances[0])
    await page.context.add_init_script(CANARY)
    await page.reload(wait_until="load")
    return Quiet(page)


def pieces(text: str, source: random.Random) -> Iterator[str]:
    """Cut a text in pieces of every size."""
    while text:
        size = source.choice((1, 7, 40, 200, 1_000))
        yield text[:size]
        text = text[size:]


@pytest.mark.long
async def test_hostile_prompts_and_answers_do_nothing_while_they_stream_in_full_after_a_reload_and_without_scripts(
    quiet: Quiet, model: Model, open_page: OpenPage, instances: Instances
) -> None:
    page, source = quiet.page, random.Random(6)
    texts = [*FOR_MARKDOWN, *source.sample(PAYLOADS, 400)]
    source.shuffle(texts)
    for share in (texts[::2], texts[1::2]):
        text = "\n\n".join(placed(payload, source.choice(PLACES)) for payload in share)
        end = Gate()
        model.answer(*pieces(text, source), end, "\n\nThe end.")
        await say(page, "\n".join(share)[:15_000])
        await end.wait(seconds=60)
        await quiet.check()
        end.open()
        await expect(button(page, "Send")).to_be_visible(timeout=60_000)
        await expect(answers(page).last).to_contain_text("The end.")
        await quiet.check()
    await button(page, "More").last.click()
    await page.get_by_role("menuitem", name="Raw text").click()
    await quiet.check()
    bare = Quiet(await open_page(instances[0], like=page, java_script_enabled=False))
    await bare.page.goto(page.url)
    await page.reload()
    for shown in (quiet, bare):
        await expect(messages(shown.page)).not_to_have_count(0)
        await expect(answers(shown.page).last).to_contain_text("The end.")
        await shown.check()


async def test_hostile_titles_reasoning_and_errors_do_nothing(
    quiet: Quiet, model: Model, open_page: OpenPage, instances: Instances
) -> None:
    page = quiet.page
    texts = [*KINDS, *random.Random(6).sample(FOR_MARKDOWN, 4)]
    for number, text in enumerate(texts, start=1):
        title = " ".join(text.split())
        if number % 2:
            model.answer(Reasoning(text), f"{text}\n\nDone.")
        else:
            model.refuse(400, code=text, message=text, times=9)
        await say(page, text)
        await expect(messages(page)).to_have_count(2)
        await expect(chats(page)).to_have_count(number)
        await idle(page)
        await expect(chats(page).first).to_contain_text(title[:8])
        await expect(page.get_by_role("heading", level=1)).to_contain_text(title[:8])
        await quiet.check()
        model.forget_script()
        if number in (1, 2):
            bare = Quiet(await open_page(instances[1], like=page, java_script_enabled=False))
            await bare.page.goto(page.url)
            await page.reload()
            for shown in (quiet, bare):
                await expect(chats(shown.page).first).to_contain_text(title[:8])
                await expect(messages(shown.page)).to_have_count(2)
                await shown.check()
        await button(page, "New chat").first.click()
        await expect(messages(page)).to_have_count(0)


async def test_hostile_files_do_nothing_by_name_nor_by_what_is_in_them(
    quiet: Quiet, open_page: OpenPage, instances: Instances, model: Model
) -> None:
    page, everything = quiet.page, "\n".join(PAYLOADS).replace("\0", "").encode()
    names = [name.replace("/", "⁄") for name in (*KINDS, *random.Random(6).sample(PAYLOADS, 2))]
    files: list[FilePayload] = [
        {"name": name, "mimeType": "text/html", "buffer": b"<!doctype html>" + everything} for name in names
    ]
    files[0] |= {"mimeType": "image/png", "buffer": PNG}
    await page.locator("attachment-tray input").set_input_files(files)
    await expect(page.locator("attachment-tray [data-state=taken]")).to_have_count(len(names))
    await quiet.check()
    model.answer("Seen.")
    await say(page, "Look")
    await expect(answers(page)).to_contain_text("Seen.")
    bare = Quiet(await open_page(instances[1], like=page, java_script_enabled=False))
    await bare.page.goto(page.url)
    await page.reload()
    for shown in (quiet, bare):
        listed = messages(shown.page).get_by_role("list", name="Attachments").get_by_role("listitem")
        await expect(listed).to_have_count(len(names))
        for name in names[1:]:
            await expect(listed.get_by_text(" ".join(name.split()), exact=True)).to_be_visible()
        await shown.check()
    picture, text = (messages(page).get_by_role("link").nth(at) for at in (0, 1))
    address = await text.get_attribute("href")
    await picture.click()
    await expect(page.get_by_role("dialog", name=names[0])).to_be_visible()
    await quiet.check()
    await page.goto(f"{instances[0].url}{address}")
    await expect(page.locator("body")).to_contain_text("<!doctype html>")
    await quiet.check()


@pytest.mark.long
async def test_hostile_names_of_models_do_nothing(
    store: Store, start_instance: StartInstance, open_page: OpenPage, model: Model
) -> None:
    others = [name for name in KINDS if not {",", "="} & set(name)]  # an `=` has its own name behind it
    names = ["<script>alert(1)</script>", *others]
    instance = await start_instance(store, OPENAI_MODELS=",".join(names))
    page = await open_page(instance)
    await page.context.add_init_script(CANARY)
    await page.reload(wait_until="load")
    quiet = Quiet(page)
    picker = page.get_by_role("combobox", name="Model")
    for name in names[:2]:
        await picker.select_option(value=name)
        await say(page, "Hello")
        await idle(page)
        await expect(answers(page).last).to_contain_text("You said: Hello")
        assert (await model.asked()).body["model"] == name
        await quiet.check()
    await page.reload()
    await expect(answers(page)).to_have_count(2)
    await quiet.check()
