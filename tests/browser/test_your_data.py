"""Your data, as a person meets it: exported, imported and deleted, with scripts and without."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
from playwright.async_api import FilePayload, Locator, Page, Request, expect

from tests.browser.axe import findings
from tests.browser.conftest import OpenPage
from tests.browser.person import answers, box, button, chats, idle, say
from tests.browser.watch import Watch
from tests.fakes import Gate, Model
from tests.instances import Instance
from tests.trunk import as_json, chatgpt, ours

Instances = tuple[Instance, Instance]
PHONE = {"width": 390, "height": 844}
PATH = "/settings/data"
NOTE_PROGRESS = """() => {
  const far = document.querySelector(".far");
  window.shares = [];
  window.counts = [];
  new MutationObserver(() => {
    shares.push(far.previousElementSibling.value);
    const [count] = far.textContent.match(/\\d+$/) ?? [];
    if (count) counts.push(Number(count));
  }).observe(far, { childList: true });
}"""


def told(page: Page) -> Locator:
    """What is told of an import."""
    return page.get_by_role("status")


async def choose(page: Page, body: bytes, name: str = "conversations.json") -> None:
    """Choose a file of chats."""
    file: FilePayload = {"name": name, "mimeType": "application/json", "buffer": body}
    await page.get_by_label("File", exact=True).set_input_files(file)


async def saved(page: Page, name: str, folder: Path) -> Path:
    """Press a link, and keep the file that comes."""
    async with page.expect_download() as coming:
        await page.get_by_role("link", name=name).click()
    download = await coming.value
    await download.save_as(folder / download.suggested_filename)
    return folder / download.suggested_filename


@pytest.mark.parametrize(
    "scripts", [True, pytest.param(False, marks=pytest.mark.long)], ids=["scripts", "no scripts"]
)
async def test_one_chat_is_exported_by_the_links_among_its_options(
    open_page: OpenPage, instances: Instances, tmp_path: Path, model: Model, scripts: bool
) -> None:
    page = await open_page(instances[0], java_script_enabled=scripts)
    model.answer("Une **réponse**")
    await box(page).fill("Von mir")
    await button(page, "Send").click()
    await expect(answers(page)).to_contain_text("Une réponse", timeout=20_000)
    if scripts:
        await chats(page).hover()
        await button(page, "Options for Von mir").click()
        await page.get_by_role("menuitem", name="Chat settings").click()
    else:
        await page.get_by_role("link", name="Chat settings").click()
    text = await saved(page, "As Markdown", tmp_path)
    assert text.name == "Von mir.md"
    assert {"# Von mir", "Une **réponse**"} <= set(text.read_text().splitlines())
    whole = await saved(page, "As JSON", tmp_path)
    assert whole.name == "Von mir.json"
    assert [each["text"] for each in json.loads(whole.read_text())["conversation"]["messages"]] == [
        "Von mir", "Une **réponse**"
    ]  # fmt: skip
    await expect(page.get_by_role("heading", level=1)).to_have_text("Chat settings Von mir")


@pytest.mark.long
async def test_person_takes_chats_to_another_browser(
    open_page: OpenPage, instances: Instances, tmp_path: Path
) -> None:
    page, other = await open_page(instances[0]), await open_page(instances[1])
    await say(page, "Von mir")
    await idle(page)
    await expect(chats(page)).to_have_count(1)
    await page.goto(instances[0].url + PATH)
    archive = await saved(page, "Export all chats", tmp_path)
    assert archive.name == "llmchat.zip"
    with zipfile.ZipFile(archive) as opened:
        assert json.loads(opened.read("chats/00001-Von-mir.json"))["format"] == "llmchat"

    tab = await other.context.new_page()
    await tab.goto(instances[1].url + PATH)
    await choose(tab, archive.read_bytes(), "llmchat.zip")
    await button(tab, "Import").click()
    await expect(told(tab)).to_contain_text("Imported: 1. Here already: 0. Left out: 0.")
    await expect(chats(other)).to_have_count(1)  # in the tab that was open
    await chats(other).click()
    await expect(answers(other)).to_contain_text("You said: Von mir")
    await button(tab, "Import").click()
    await expect(told(tab)).to_contain_text("Imported: 0. Here already: 1. Left out: 0.")


@pytest.mark.long
async def test_import_shows_how_far_it_is_and_what_was_left_out_and_the_newest_come_live_in_another_browser(
    open_page: OpenPage, instances: Instances, watch: Watch
) -> None:
    watch.allow("422")
    page = await open_page(instances[0], PATH, viewport=PHONE)
    sent: list[Request] = []
    page.on("request", lambda request: request.method == "POST" and sent.append(request))
    other = await open_page(instances[1], like=page)
    await page.evaluate(NOTE_PROGRESS)
    many = [chatgpt(conversation_id=f"g{at}", title=f"Chat {at}") for at in range(400)]
    parts = {"content_type": "multimodal_text", "parts": ["See", {"content_type": "image_asset_pointer"}]}
    many[0]["mapping"]["p"]["message"]["content"] = parts
    await choose(page, as_json([*many, {"title": "<b>Odd</b> שלום"}]))
    await button(page, "Import").click()
    await expect(told(page)).to_contain_text("Imported: 400. Here already: 0. Left out: 1.", timeout=20_000)
    await expect(page.get_by_role("progressbar")).to_be_hidden()
    shares, counts = await page.evaluate("[shares, counts]")
    assert shares == sorted(shares)
    assert any(0.5 < share < 1 for share in shares)
    assert any(0 < count < 400 for count in counts)
    await expect(chats(other)).to_have_count(20)  # the newest, which open tabs are told of
    await expect(button(page, "Import")).to_be_enabled()
    await expect(told(page)).to_contain_text("Missing in other chats1 picture is left out.")
    await page.get_by_text("By chat").click()
    await expect(told(page)).to_contain_text("<b>Odd</b> שלום: This is no conversation.")
    assert await page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    await choose(page, b"hello", "x.txt")
    await button(page, "Import").click()
    await expect(told(page)).to_contain_text("This is no file of chats")
    assert len(sent) == 2
    assert page.url.endswith(PATH)


@pytest.mark.long
async def test_import_without_a_connection_is_told_and_can_be_repeated(
    page: Page, instances: Instances, watch: Watch
) -> None:
    watch.allow("ERR_FAILED")
    watch.allow("ERR_INTERNET_DISCONNECTED")
    watch.allow("502")
    await page.goto(instances[0].url + PATH)
    await page.route("**/import", lambda route: route.fulfill(status=502, body="<h1>Bad gateway</h1>"))
    await choose(page, as_json(ours()))
    await button(page, "Import").click()
    await expect(told(page)).to_contain_text("The server did not take the file.")
    await page.unroute("**/import")
    await page.route("**/import", lambda route: route.abort())
    await choose(page, as_json(ours()))
    await button(page, "Import").click()
    await expect(told(page)).to_contain_text("The connection broke off.")
    await page.unroute("**/import")
    await button(page, "Import").click()
    await expect(told(page)).to_contain_text("Imported: 1.")


@pytest.mark.long
async def test_everything_is_deleted_in_two_tabs_on_two_instances_while_an_answer_is_written(
    open_page: OpenPage, instances: Instances, model: Model
) -> None:
    one = await open_page(instances[0])
    await say(one, "Old")
    await idle(one)
    await expect(chats(one)).to_have_count(1)
    two = await open_page(instances[1], like=one)
    await expect(chats(two)).to_have_count(1)
    model.answer("Some ", Gate(), "more")
    await button(two, "New chat").first.click()
    await say(two, "Running")
    await expect(answers(two)).to_contain_text("Some")
    await expect(chats(one)).to_have_count(2)
    settings = await one.context.new_page()
    await settings.goto(instances[0].url + PATH)
    await button(settings, "Delete everything").click()
    await expect(chats(one)).to_have_count(2)  # the box was not ticked
    await settings.get_by_label("Yes, delete everything").check()
    await button(settings, "Delete everything").click()
    await expect(settings.get_by_text("Everything was deleted.")).to_be_visible()
    for page in (one, two):
        await expect(chats(page)).to_have_count(0)
    await one.reload()
    await expect(chats(one)).to_have_count(0)
    await one.goto(instances[0].url)
    await say(one, "Anew")
    await expect(answers(one)).to_contain_text("You said: Anew")


async def test_person_without_scripts_exports_imports_and_deletes(
    open_page: OpenPage, instances: Instances, tmp_path: Path, watch: Watch
) -> None:
    watch.allow("422")
    page = await open_page(instances[0], PATH, java_script_enabled=False)
    await choose(page, as_json([ours(), {"title": "Odd"}]))
    await button(page, "Import").click()
    await expect(told(page)).to_contain_text("Imported: 1. Here already: 0. Left out: 1.")
    await expect(told(page)).to_contain_text("1 × This is no conversation.")
    archive = await saved(page, "Export all chats", tmp_path)
    assert zipfile.is_zipfile(archive)
    await choose(page, b"hello")
    await button(page, "Import").click()
    await expect(page.get_by_role("alert")).to_contain_text("This is no file of chats")
    await page.get_by_label("Yes, delete everything").check()
    await button(page, "Delete everything").click()
    await expect(page.get_by_text("Everything was deleted.")).to_be_visible()
    await page.get_by_role("link", name="Back to the chat").click()
    await expect(chats(page)).to_have_count(0)


@pytest.mark.long
async def test_axe_finds_nothing_on_the_page_of_your_data(open_page: OpenPage, instances: Instances) -> None:
    page = await open_page(instances[0], PATH)
    assert await findings(page) == []
    await choose(page, as_json([ours(), {"title": "Odd"}]))
    await button(page, "Import").click()
    await page.get_by_text("By chat").click()
    assert await findings(page) == []
    await page.set_viewport_size({"width": 390, "height": 844})
    assert await findings(page) == []
