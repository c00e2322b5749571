"""Fixtures for tests in a real Chromium: `open_page(instance)`, or `page` where one is enough."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Page, async_playwright, expect

from tests.browser.watch import Watch
from tests.instances import Instance

OpenPage = Callable[..., Awaitable[Page]]
NAMES = ("chromium", "chromium-browser", "google-chrome")
PLAYWRIGHTS = (  # Playwright's own (chromiumSwitches.ts of 1.65), for the last list that Chromium is given counts
    "AvoidUnnecessaryBeforeUnloadCheckSync", "DestroyProfileOnBrowserClose", "HttpsUpgrades",
    "HttpsFirstBalancedModeAutoEnable", "LensOverlay", "MediaRouter", "PaintHolding", "ThirdPartyStoragePartitioning",
    "AvoidCorsURLLoaderRestartOnRedirect", "OptimizationHints", "NetworkTimeServiceQuerying", "AimEnabled",
    "PreconnectToSearch",
)  # fmt: skip
OF_WINDOWS = (  # what a window of a browser has beside its page: more than half of the work
    "WebUIOmniboxPopup", "WebUIOmniboxAimPopup", "WebUIOmniboxFullPopup", "PreloadTopChromeWebUI",
    "SpareRendererForSitePerProcess",
)  # fmt: skip
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    f"--disable-features={','.join(PLAYWRIGHTS + OF_WINDOWS)}",
]
DEADLINE = 30_000  # milliseconds, for every wait on the page
BEHIND = Path(__file__).with_name("behind")


def installed() -> str | None:
    """Return the system's Chromium, or None for Playwright's own."""
    return next(filter(None, map(shutil.which, NAMES)), None)


@pytest.fixture(scope="session")
async def chromium() -> AsyncIterator[Browser]:
    """One browser process for all tests; every page lives in a context of its own."""
    expect.set_options(timeout=DEADLINE)
    async with async_playwright() as playwright:
        found = installed() or playwright.chromium.executable_path
        browser = await playwright.chromium.launch(
            executable_path=BEHIND, env={**os.environ, "CHROMIUM": found}, args=FLAGS
        )
        yield browser
        await browser.close()


@pytest.fixture
def watch() -> Watch:
    """What is noticed of all pages of this test; `watch.allow("…")` for faults that the test brings about."""
    return Watch()


@pytest.fixture
async def open_page(chromium: Browser, watch: Watch) -> AsyncIterator[OpenPage]:
    """Open an instance's page: `await open_page(instance, "/c/…")`.

    `like`: with the cookies and local storage of another page, as a further tab of the same browser, on
    whichever instance. Other keywords go to the context: viewport, color_scheme, has_touch, locale.
    """
    contexts = []

    async def open_page(
        instance: Instance, path: str = "/", *, like: Page | None = None, **options: Any
    ) -> Page:
        state = await like.context.storage_state() if like else None
        context = await chromium.new_context(storage_state=state, service_workers="block", **options)
        contexts.append(context)
        context.set_default_timeout(DEADLINE)
        await watch.follow(context)
        page = await context.new_page()
        await page.goto(instance.url + path)
        return page

    yield open_page
    for context in contexts:
        await context.close()
    watch.check()


@pytest.fixture
async def page(open_page: OpenPage, instances: tuple[Instance, Instance]) -> Page:
    """The first instance's page for a new chat."""
    return await open_page(instances[0])
