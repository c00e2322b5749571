"""Signing in by a certified OpenID provider, npm's oidc-provider, as a person does it in two browsers."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from tests.browser.conftest import OpenPage
from tests.browser.person import answers, button, chats, say
from tests.conftest import StartInstance
from tests.instances import Instance, Store
from tests.instances.child import Child, free_port

pytest_plugins = ["tests.browser.conftest"]

FOLDER = Path(__file__).with_name("openid")
CLIENT_ID = "llmchat of the tests"
INSTALL_SECONDS = 240


@pytest.fixture(scope="module")
async def node() -> str:
    """Node, beside which the provider is installed, each of its packages with the digest of the lock file."""
    found, npm = shutil.which("node"), shutil.which("npm")
    assert found
    assert npm
    installing = await asyncio.create_subprocess_exec(
        npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline", cwd=FOLDER
    )
    async with asyncio.timeout(INSTALL_SECONDS):
        assert await installing.wait() == 0
    return found


@pytest.fixture(params=[f"{secrets.token_hex(8)}:+%/", ""], ids=["with a secret", "public"])
async def instance(
    request: pytest.FixtureRequest, node: str, store: Store, start_instance: StartInstance
) -> AsyncIterator[Instance]:
    """An instance with the provider, as a client that has a secret, or as one that has none."""
    port, chat_port = free_port(), free_port()
    async with serving(node, port, request.param, f"http://127.0.0.1:{chat_port}"):
        yield await start_instance(
            store,
            PORT=str(chat_port),
            REDIS_PREFIX=f"openid-{secrets.token_hex(4)}",
            OIDC_ISSUER=f"http://127.0.0.1:{port}",
            OIDC_CLIENT_ID=CLIENT_ID,
            OIDC_CLIENT_SECRET=request.param,
            OIDC_NAME="the provider",
            OIDC_ALLOWED="example.com",
            OIDC_REQUIRED="false",
        )


@asynccontextmanager
async def serving(node: str, port: int, secret: str, chat: str) -> AsyncIterator[None]:
    """Run the provider."""
    told = {"PORT": str(port), "CLIENT_ID": CLIENT_ID, "CLIENT_SECRET": secret, "CHAT": chat}
    child = Child(node, "provider.js", env={"PATH": os.environ["PATH"], **told}, folder=FOLDER)
    await child.start()
    try:
        await child.line("The provider serves")
        yield
    finally:
        await child.close()
        print("\n".join(child.lines))


async def sign_in(page: Page, name: str = "Ann") -> None:
    """Follow the links, and say one's name there."""
    await page.get_by_role("link", name="Sign in", exact=True).click()
    await page.get_by_role("link", name="Sign in with the provider").click()
    await page.get_by_label("Name").fill(name)
    await button(page, "Enter").click()
    await expect(page.get_by_role("link", name=f"{name} Example")).to_be_visible()


async def test_person_has_the_same_history_on_two_devices_until_they_sign_out_everywhere(
    instance: Instance, open_page: OpenPage
) -> None:
    phone, desk = await open_page(instance), await open_page(instance)
    await say(phone, "Said on the phone")
    await expect(answers(phone)).to_contain_text("You said: Said on the phone")
    await sign_in(phone)
    await expect(phone.get_by_text("1 chat of this browser came along")).to_be_visible()
    await sign_in(desk)
    await chats(desk).filter(has_text="Said on the phone").click()
    await expect(answers(desk)).to_contain_text("You said: Said on the phone")
    await say(desk, "Said at the desk")
    await expect(answers(phone).nth(1)).to_contain_text("You said: Said at the desk")

    stranger = await open_page(instance)
    await sign_in(stranger, "Bob")
    await expect(chats(stranger)).to_have_count(0)

    await desk.get_by_role("link", name="Ann Example").click()
    await button(desk, "Sign out everywhere").click()
    await expect(desk.get_by_role("heading", name="You are signed out")).to_be_visible()
    await expect(phone.locator("connection-pill")).to_contain_text("You are signed out")
    await expect(stranger.locator("connection-pill")).to_have_attribute("data-state", "connected")
    await desk.get_by_role("link", name="Sign in with the provider").click()  # which knows the person yet
    await desk.get_by_role("link", name="Back to the chat").click()
    await expect(chats(desk)).to_have_count(1)


async def test_sign_out_at_the_provider_leads_back_and_ends_the_visit_here(
    instance: Instance, open_page: OpenPage
) -> None:
    page, other = await open_page(instance), await open_page(instance)
    await sign_in(page)
    await sign_in(other)
    tab = await page.context.new_page()
    await button(page, "Sign out").click()
    way_out = page.get_by_role("link", name="Sign out of the provider, too")
    address = await way_out.get_attribute("href")
    assert address
    await page.get_by_role("link", name="Sign in with the provider").click()
    await expect(page.get_by_role("link", name="Ann Example")).to_be_visible()
    await tab.goto(address)
    await button(tab, "Sign out").click()
    await expect(tab).to_have_url(re.compile("/sign-in$"))
    await expect(page.locator("connection-pill")).to_contain_text("You are signed out")
    await expect(other.locator("connection-pill")).to_have_attribute("data-state", "connected")
