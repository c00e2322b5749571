"""Files beside a prompt: picked, pasted, dropped, kept, sent, seen and taken away."""

from __future__ import annotations

import base64
import re
from typing import Any

import pytest
from playwright.async_api import FilePayload, Locator, Page, Route, expect

from llmchat.redis_client import connect
from tests.browser.conftest import OpenPage
from tests.browser.files import CAT, NOTES, PNG, attached, pick, tray
from tests.browser.fragile import cut, mend, open_fragile
from tests.browser.line import Line
from tests.browser.person import answers, box, button, chats, delete, hold_back, idle, messages
from tests.browser.watch import Watch
from tests.conftest import StartInstance
from tests.fakes import Model
from tests.instances import Instance, Store

Instances = tuple[Instance, Instance]
HAND_OVER = """({type, name, kind, bytes, text}) => {
  const data = new DataTransfer();
  if (bytes) data.items.add(new File([Uint8Array.from(atob(bytes), (each) => each.charCodeAt(0))], name, {type: kind}));
  if (text) data.setData("text/plain", text);
  const target = document.querySelector(type === "paste" ? "textarea" : "[role=log]");
  const named = type === "paste" ? {clipboardData: data} : {dataTransfer: data};
  const Kind = type === "paste" ? ClipboardEvent : DragEvent;
  target.dispatchEvent(new Kind(type, {...named, bubbles: true, cancelable: true}));
  return document.querySelector("main").hasAttribute("data-drop");
}"""
LOST = """() => {
  IDBObjectStore.prototype.get = () => { throw new Error("The disk is lost"); };
}"""
ABORTED = """() => {
  const put = IDBObjectStore.prototype.put;
  IDBObjectStore.prototype.put = function (...args) {
    const request = put.apply(this, args);
    request.addEventListener("success", () => this.transaction.abort());
    return request;
  };
}"""
SLOW = "() => { window.createImageBitmap = () => new Promise(() => {}); }"
PHOTO = """async (side) => {
  const canvas = Object.assign(document.createElement("canvas"), {width: side, height: side / 2});
  const context = canvas.getContext("2d");
  for (let at = 0; at < side; at += 8) {
    context.fillStyle = `hsl(${at * 7} 60% 50%)`;
    context.fillRect(at, 0, 8, side);
  }
  return canvas.toDataURL("image/png").split(",")[1];
}"""


async def send(page: Page, text: str, said: str) -> None:
    """Send, and wait for the answer's end."""
    await box(page).fill(text)
    await box(page).press("Enter")
    await expect(answers(page).last).to_contain_text(said)
    await expect(button(page, "Stop")).to_be_hidden()


def pictures(page: Page, name: str = "cat.png") -> Locator:
    return messages(page).get_by_role("link", name=name)


def seen(model: Model, at: int = -1) -> list[str]:
    """The kinds of parts that the model was sent as the newest prompt."""
    content: Any = model.requests[at].messages[-1]["content"]
    return [part["type"] for part in content] if isinstance(content, list) else ["text"]


async def test_message_with_files_is_edited_in_sight_on_a_phone(
    open_page: OpenPage, instances: Instances, model: Model
) -> None:
    page = await open_page(
        instances[0], viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True
    )
    model.answer("Line.\n\n" * 30)
    await pick(page, CAT, CAT, NOTES)
    await attached(page, 3)
    await box(page).fill("What is it?")
    await button(page, "Send").tap()
    await expect(answers(page).get_by_text("Line.")).to_have_count(30)
    await idle(page)
    await messages(page).first.scroll_into_view_if_needed()
    await page.evaluate("document.querySelector('[role=log]').scrollTop = 0")
    await page.set_viewport_size({"width": 390, "height": 500})
    await button(page, "Edit").tap()
    form = messages(page).locator("form")
    await expect(form).to_be_in_viewport(ratio=1)
    await expect(button(page, "Jump to latest")).to_be_hidden()
    cancel, log = await button(page, "Cancel").bounding_box(), await page.get_by_role("log").bounding_box()
    assert cancel
    assert log
    assert cancel["y"] + cancel["height"] <= log["y"] + log["height"] - 24  # where it fades


async def test_picked_files_outlive_a_reload_go_to_the_model_and_are_seen_in_another_tab(
    open_page: OpenPage, instances: Instances, model: Model
) -> None:
    page = await open_page(instances[0])
    await pick(page, CAT, NOTES)
    await attached(page, 2)
    await page.reload()
    await attached(page, 2)
    await expect(tray(page)).to_contain_text(["cat.png", "notes.txt"])
    await button(page, "Remove notes.txt").click()
    await expect(tray(page)).to_have_count(1)
    await expect(button(page, "Remove cat.png")).to_be_focused()
    await send(page, "What is it?", "You said: What is it?")
    await expect(tray(page)).to_have_count(0)
    assert seen(model) == ["text", "image_url"]
    other = await open_page(instances[1], page.url.removeprefix(instances[0].url), like=page)
    for tab in (page, other):
        await expect(tab.get_by_role("img", name="cat.png")).to_have_js_property("complete", value=True)
        await expect(tab.get_by_role("img", name="cat.png")).to_have_css("width", "112px")
    await pictures(other).click()
    await expect(other.get_by_role("dialog", name="cat.png")).to_be_visible()
    await other.keyboard.press("Escape")
    await expect(other.get_by_role("dialog")).to_have_count(0)
    await expect(pictures(other)).to_be_focused()
    await button(other, "Regenerate").click()
    await expect(other.get_by_text("2/2")).to_be_visible()
    await expect(answers(page).last).to_contain_text("You said: What is it?")
    assert seen(model) == ["text", "image_url"]
    await page.reload()
    await expect(page.get_by_role("img", name="cat.png")).to_be_visible()
    source = await page.get_by_role("img", name="cat.png").get_attribute("src")
    assert (await page.request.get(f"{instances[0].url}{source}")).status == 200
    await delete(page, "What is it?")
    await expect(chats(page)).to_have_count(0)
    assert (await page.request.get(f"{instances[0].url}{source}")).status == 404


async def test_files_are_pasted_and_dropped_and_a_long_text_is_one_that_can_be_text_again(
    page: Page, model: Model
) -> None:
    given = {"name": "cat.png", "kind": "image/png", "bytes": base64.b64encode(PNG).decode()}
    await page.evaluate(HAND_OVER, {"type": "paste", **given})
    await attached(page, 1)
    await page.evaluate(HAND_OVER, {"type": "paste", **given, "text": "Cells"})  # of a table: words are meant
    assert await page.evaluate(HAND_OVER, {"type": "dragover", **given})
    await expect(page.locator("main[data-drop]")).to_have_count(0)  # nothing tells that it was given up
    assert await page.evaluate(HAND_OVER, {"type": "dragenter", **given})
    assert not await page.evaluate(HAND_OVER, {"type": "drop", **given})
    await attached(page, 2)
    long = "word " * 2_000
    await page.evaluate(HAND_OVER, {"type": "paste", "text": long})
    await attached(page, 3)
    await expect(tray(page).last).to_contain_text("Pasted text.txt")
    await page.evaluate(LOST)
    await button(page, "Keep as text").evaluate("button => { button.click(); button.click(); }")
    await expect(box(page)).to_have_value(long)
    await expect(tray(page)).to_have_count(2)
    await page.reload()
    await box(page).fill("")
    await page.evaluate(HAND_OVER, {"type": "paste", "text": long * 3})
    await attached(page, 3)
    await box(page).press("Enter")
    await expect(answers(page)).to_contain_text("File Pasted text.txt: word word")
    await expect(messages(page).first.get_by_role("link", name="Pasted text.txt 30 KB")).to_be_visible()
    assert seen(model) == ["text", "image_url", "image_url"]


async def test_what_cannot_go_is_told_before_it_is_sent_and_a_large_photo_is_made_smaller(
    page: Page, model: Model
) -> None:
    song: FilePayload = {"name": "song.mp3", "mimeType": "audio/mpeg", "buffer": b"\x00\x01"}
    long: FilePayload = {"name": "long.txt", "mimeType": "text/plain", "buffer": b"x" * 5_000_001}
    await pick(page, song, long)
    await expect(page.get_by_text("song.mp3 cannot be attached.").first).to_be_visible()
    await expect(
        page.get_by_text("long.txt is too large. At most 5 MB can be attached.").first
    ).to_be_visible()
    await pick(page, {"name": "broken.png", "mimeType": "image/png", "buffer": b"no picture"})
    await expect(page.get_by_text("broken.png cannot be read as a picture.").first).to_be_visible()
    await pick(page, *[NOTES] * 7)
    await expect(page.get_by_text("At most 6 files go with one message.").first).to_be_visible()
    await attached(page, 6)
    for _ in range(6):
        await button(page, "Remove notes.txt").first.click()
    await expect(button(page, "Attach files")).to_be_focused()
    await expect(button(page, "Send")).to_be_disabled()
    photo = base64.b64decode(await page.evaluate(PHOTO, 3000))
    await pick(page, {"name": "photo.png", "mimeType": "image/png", "buffer": photo})
    await attached(page, 1)
    await send(page, "Look", "You said: Look")
    await page.reload()
    image = page.get_by_role("img", name="photo.png")
    await expect(image).to_have_js_property("naturalWidth", 2048)
    await expect(image).to_have_js_property("naturalHeight", 1024)


async def test_prompt_with_a_file_waits_for_the_connection_over_a_reload_and_loses_nothing(
    page: Page, watch: Watch, model: Model
) -> None:
    for fault in ("WebSocket connection to", "ERR_FAILED"):
        watch.allow(fault)
    tab = await open_fragile(page.context, page.url)
    tried = 0

    async def refuse(route: Route) -> None:
        nonlocal tried
        tried += 1
        await route.abort()

    await tab.route("**/attachments", refuse)
    await cut(tab)
    await page.close()
    await pick(tab, CAT)
    await expect(tab.locator("attachment-tray [data-state=coming]")).to_have_count(1)
    await box(tab).fill("Look")
    await box(tab).press("Enter")
    await expect(tab.get_by_text("Will be sent when the connection is back", exact=True)).to_be_visible()
    await expect(tab.get_by_role("img", name="cat.png")).to_be_visible()
    await expect(tray(tab)).to_have_count(0)
    await button(tab, "Take back").click()
    await expect(box(tab)).to_have_value("Look")
    await expect(tray(tab)).to_contain_text(["cat.png"])
    await box(tab).press("Enter")
    await expect(tab.get_by_text("Will be sent when the connection is back", exact=True)).to_be_visible()
    await tab.reload()
    await expect(tab.get_by_role("img", name="cat.png")).to_be_visible()
    assert tried > 0
    assert model.requests == []
    await tab.unroute("**/attachments")
    await mend(tab)
    await expect(answers(tab)).to_contain_text("You said: Look")
    assert seen(model) == ["text", "image_url"]
    await expect(pictures(tab)).to_have_count(1)


async def test_file_that_the_server_refuses_is_tried_again_and_one_that_it_lost_is_sent_again(
    page: Page, watch: Watch, model: Model, store: Store
) -> None:
    watch.allow("status of 507")

    async def full(route: Route) -> None:
        await route.fulfill(status=507, json={"detail": "There is no room."})

    await page.route("**/attachments", full)
    await pick(page, CAT)
    await expect(tray(page)).to_contain_text(["There is no room."])
    await box(page).fill("Look")
    await box(page).press("Enter")
    await expect(
        page.get_by_text("cat.png could not be attached. Try it again, or remove it.").first
    ).to_be_visible()
    await page.unroute("**/attachments")
    await button(page, "Try again: cat.png").click()
    await attached(page, 1)
    async with connect(store.url) as redis:
        await redis.delete(*[key async for key in redis.scan_iter("llmchat:{attachment.*}:*")])
    await box(page).press("Enter")
    await expect(answers(page)).to_contain_text("You said: Look")
    assert seen(model) == ["text", "image_url"]


async def test_file_that_cannot_be_looked_at_says_what_to_do(page: Page, watch: Watch, model: Model) -> None:
    for fault in ("ERR_FAILED", "Failed to fetch dynamically imported module"):
        watch.allow(fault)
    (await hold_back(page, "**/pictures.js", lost=True)).set()
    await page.reload()
    await pick(page, CAT)
    await expect(page.locator("#problem")).to_have_text(
        "This file could not be attached. Reload the page, then attach it again."
    )
    await page.unroute("**/pictures.js")
    await page.reload()
    await pick(page, CAT)
    await attached(page, 1)
    await send(page, "Look", "You said: Look")
    assert seen(model) == ["text", "image_url"]


async def test_edit_keeps_the_picture_or_leaves_it_out(page: Page, model: Model) -> None:
    await pick(page, CAT)
    await attached(page, 1)
    await send(page, "One", "You said: One")
    await messages(page).first.hover()
    await button(page, "Edit").click()
    await button(page, "Leave out cat.png").click()
    await page.reload()
    await expect(page.get_by_role("textbox", name="Edit message")).to_be_visible()
    await expect(button(page, "Leave out cat.png")).to_be_hidden()
    await expect(pictures(page)).to_be_hidden()
    await button(page, "Cancel").click()
    await expect(pictures(page)).to_be_visible()
    for text, kept in (("Two", ["text", "image_url"]), ("Three", ["text"])):
        await messages(page).first.hover()
        await button(page, "Edit").click()
        await page.get_by_role("textbox", name="Edit message").fill(text)
        if text == "Three":
            await button(page, "Leave out cat.png").click()
        await page.get_by_role("textbox", name="Edit message").press("Control+Enter")
        await expect(answers(page)).to_contain_text(f"You said: {text}")
        assert seen(model) == kept
    await expect(pictures(page)).to_have_count(0)


@pytest.mark.long
async def test_picture_is_not_sent_to_a_model_that_does_not_see(
    start_instance: StartInstance, open_page: OpenPage, store: Store, model: Model
) -> None:
    page = await open_page(await start_instance(store, OPENAI_MODELS="small,gpt-4o-mini"))
    blind = page.locator("#problem").get_by_text("This model cannot see pictures. Choose another model")
    await pick(page, CAT)
    await attached(page, 1)
    await expect(blind).to_be_visible()
    await box(page).fill("Look")
    await box(page).press("Enter")
    await expect(blind).to_be_visible()
    assert model.requests == []
    await page.get_by_role("combobox", name="Model").select_option("gpt-4o-mini")
    await box(page).press("Enter")
    await expect(answers(page)).to_contain_text("You said: Look")
    assert seen(model) == ["text", "image_url"]


async def test_prompt_with_a_file_waits_where_an_instance_of_an_earlier_version_would_lose_it(
    open_page: OpenPage, instances: Instances, model: Model
) -> None:
    page = await open_page(instances[0])
    line = await Line.lay(page)
    await line.told("session.ready", 1)
    line.bend = lambda frame: re.sub(r'"attachment": ?\d+', '"attachment":0', frame)
    await line.cut(1012)
    await line.told("session.ready", 2)
    await pick(page, NOTES)
    await attached(page, 1)
    await box(page).fill("What is on it?")
    await box(page).press("Enter")
    await expect(messages(page)).to_have_count(2)
    await box(page).fill("No file here")
    await box(page).press("Enter")
    assert not any("message.send" in frame for frame in line.sent)
    line.bend = str
    await line.cut(1012)
    await expect(answers(page).last).to_contain_text("You said: No file here")
    await expect(messages(page).first.get_by_role("link", name="notes.txt")).to_be_visible()
    assert "Buy milk." in str(model.requests[0].messages[-1]["content"])


async def test_prompts_without_words_are_told_apart_by_their_files(page: Page) -> None:
    await expect(page.locator("chat-transcript:not([data-lost])")).to_be_attached()
    await page.locator("chat-transcript").evaluate("""transcript => {
      const prompt = (id) => ({id, role: "user", parent: null, text: "", state: "done",
        attachments: [{id: `file-${id}`, name: `${id}.txt`, type: "text/plain", size: 1}]});
      transcript.send(prompt("mine"), true);
      transcript.add(prompt("another"), "answer");
    }""")
    for name in ("mine.txt", "another.txt"):
        await expect(page.get_by_role("main").get_by_text(name).first).to_be_visible()


async def test_file_goes_though_the_browser_does_not_keep_it_and_one_that_is_read_for_ever_holds_up_its_chat_alone(
    page: Page, model: Model
) -> None:
    await page.evaluate(ABORTED)
    await pick(page, NOTES)
    await attached(page, 1)
    await send(page, "One", "Buy milk.")
    assert "notes.txt" in str(model.requests[-1].messages[-1]["content"])
    await page.evaluate(SLOW)
    await pick(page, CAT)
    await box(page).fill("Two")
    await box(page).press("Enter")
    await expect(page.get_by_text("A file is still being read. Wait a moment.").first).to_be_visible()
    await button(page, "New chat").first.click()
    await send(page, "Three", "You said: Three")
