"""What a person does on the page, by role and name."""

from __future__ import annotations

from playwright.async_api import Locator, Page, expect


def box(page: Page) -> Locator:
    """The text box."""
    return page.get_by_role("textbox", name="Message", exact=True)


async def say(page: Page, text: str) -> None:
    """Write a prompt and send it with Enter, once no answer is being made."""
    await expect(button(page, "Send")).to_be_visible()
    await box(page).fill(text)
    await box(page).press("Enter")


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
