"""A page whose connection a test cuts and mends, for this page alone, and without a frame meanwhile."""

from __future__ import annotations

from playwright.async_api import BrowserContext, Page, expect

FRAGILE = """
window.sockets = [];
window.WebSocket = class extends WebSocket {
  constructor(address, ...rest) {
    super(window.cut ? `${address}nowhere` : address, ...rest);
    sockets.push(this);
  }
};
"""


async def open_fragile(context: BrowserContext, address: str, *scripts: str) -> Page:
    """Open a further tab, which `cut` and `mend` know; the scripts run before those of the page."""
    page = await context.new_page()
    for script in (FRAGILE, *scripts):
        await page.add_init_script(script)
    await page.goto(address)
    await expect(page.locator("chat-transcript:not([data-lost])")).to_be_attached()
    return page


async def cut(page: Page) -> None:
    """End the connection until `mend`, or a reload."""
    await page.evaluate("window.cut = true; sockets.at(-1).close()")
    await expect(page.locator("chat-transcript[data-lost]")).to_be_attached()


async def mend(page: Page) -> None:
    """Let the page connect again, at once."""
    await page.evaluate("window.cut = false; dispatchEvent(new Event('online'))")
