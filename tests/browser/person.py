"""What a person does on the page, by role and name, and what befalls it."""

from __future__ import annotations

import asyncio

from playwright.async_api import Locator, Page, Route, expect

AT_END = """() => {
  const log = document.querySelector("[role=log]");
  return log.scrollTop > 0 && log.scrollHeight - log.scrollTop - log.clientHeight < 2;
}"""
HIDE = """hidden => {
  Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
}"""


def box(page: Page) -> Locator:
    """The text box."""
    return page.get_by_role("textbox", name="Message", exact=True)


async def say(page: Page, text: str) -> None:
    """Write a prompt and send it with Enter, once no answer is being made."""
    await idle(page)
    await box(page).fill(text)
    await box(page).press("Enter")


async def idle(page: Page) -> None:
    """Wait until no answer is being made."""
    await button(page, "Send").wait_for()


def messages(page: Page) -> Locator:
    """All messages of the transcript, of both sides."""
    return page.get_by_role("log", name="Conversation").get_by_role("article")


def answers(page: Page) -> Locator:
    """The model's messages."""
    return page.get_by_role("log", name="Conversation").get_by_role("article", name="Answer")


def button(page: Page, name: str) -> Locator:
    """A button of the page by its whole name."""
    return page.get_by_role("button", name=name, exact=True)


def chats(page: Page) -> Locator:
    """The links of the sidebar, one for each conversation."""
    return page.get_by_role("navigation", name="Chats").get_by_role("listitem").get_by_role("link")


async def delete(page: Page, title: str) -> None:
    """Delete a chat."""
    await chats(page).filter(has_text=title).hover()
    await button(page, f"Options for {title}").click()
    await page.get_by_role("menuitem", name="Delete").click()
    await expect(chats(page).filter(has_text=title)).to_have_count(0)


def waiting(page: Page) -> Locator:
    """The prompts that wait for the answer before them, above the box."""
    return page.get_by_role("list", name="Waiting messages").get_by_role("listitem")


def chip(page: Page, name: str, at: int = 0) -> Locator:
    """The button of this name of one of the prompts that wait."""
    return waiting(page).nth(at).get_by_role("button", name=name, exact=True)


async def at_end(page: Page) -> None:
    """Wait until a conversation that is longer than its box is at its end."""
    await page.wait_for_function(AT_END)


async def hide(page: Page, hidden: bool = True) -> None:
    """Turn to another tab, or back to this one."""
    await page.evaluate(HIDE, hidden)


async def hold_back(page: Page, files: str, *, lost: bool = False) -> asyncio.Event:
    """Let files of the page come only once the event is set; or then be lost."""
    come = asyncio.Event()

    async def late(route: Route) -> None:
        await come.wait()
        await (route.abort() if lost else route.continue_())

    await page.route(files, late)
    return come
