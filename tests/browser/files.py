"""Files as a person attaches them."""

from __future__ import annotations

import base64

from playwright.async_api import FilePayload, Locator, Page, expect

from tests.browser.person import button

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)
CAT: FilePayload = {"name": "cat.png", "mimeType": "image/png", "buffer": PNG}
NOTES: FilePayload = {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"Buy milk."}


def tray(page: Page) -> Locator:
    """The files that go with the next message."""
    return page.get_by_role("list", name="Attachments of your message").get_by_role("listitem")


async def pick(page: Page, *files: FilePayload) -> None:
    """Pick files as a person does."""
    async with page.expect_file_chooser() as chosen:
        await button(page, "Attach files").click()
    await (await chosen.value).set_files(list(files))


async def attached(page: Page, count: int) -> None:
    """Wait until so many files are with the server."""
    await expect(page.locator("attachment-tray [data-state=taken]")).to_have_count(count)
