"""What lies in the browser's storage may be of another version of the page, or of nobody: it stops nothing."""

from __future__ import annotations

import json

import pytest
from playwright.async_api import expect

from tests.browser.conftest import OpenPage
from tests.browser.person import answers, idle, say
from tests.instances import Instance

STRANGE = [
    "{}",
    "null",
    "5",
    "[null]",
    "[{}]",
    '"',
    '[["c", null]]',
    '{"id": 1}',
    '{"id": "x", "text": "", "attachments": [null]}',
]
FILL = """values => values.forEach((value, at) => {
  const id = location.pathname.split("/").at(-1);
  localStorage.setItem(`llmchat.outbox.${at}`, value);
  localStorage.setItem("llmchat.draft-files." + (at === 0 ? "new" : id), value);
  localStorage.setItem("llmchat.theme", value);
  sessionStorage.setItem("llmchat.places", value);
  sessionStorage.setItem("llmchat.removed", value);
})"""


@pytest.mark.long
async def test_strange_things_in_the_storage_stop_nothing(
    open_page: OpenPage, instances: tuple[Instance, Instance]
) -> None:
    page = await open_page(instances[0])
    await say(page, "First")
    await expect(answers(page)).to_contain_text("You said: First")
    await idle(page)
    for value in STRANGE:
        await page.evaluate(FILL, [value] * 2)
        await page.reload()
        await expect(page.locator("html")).to_have_attribute("data-live", "")
    await page.evaluate("channel => new BroadcastChannel(channel).postMessage(null)", "llmchat.outbox")
    await page.evaluate(FILL, STRANGE)
    await page.reload()
    await say(page, json.dumps(STRANGE))
    await expect(answers(page)).to_have_count(2)
    await expect(answers(page).last).to_contain_text("You said:")
