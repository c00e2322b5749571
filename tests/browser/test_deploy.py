"""A page during a deploy: it comes from an instance of one version, and its files from one of another."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest
from playwright.async_api import Page, Route, expect

from tests.browser.conftest import OpenPage
from tests.browser.person import answers, idle, say
from tests.browser.watch import Watch
from tests.conftest import StartInstance
from tests.instances import Instance, Store
from tests.instances.instance import ROOT

Deploy = tuple[Instance, Instance]


@pytest.fixture
async def deploy(store: Store, start_instance: StartInstance, tmp_path: Path) -> Deploy:
    """Two instances of one service, the second with other files."""
    for name in ("llmchat", "static", "templates"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    # Each module of the new version needs another one of it: no old module fits.
    labels, main = tmp_path / "static" / "js" / "labels.js", tmp_path / "static" / "js" / "main.js"
    labels.write_text(labels.read_text() + '\nexport const version = "new";\n')
    main.write_text(
        'import { version } from "./labels.js";\n'
        + main.read_text()
        + "\ndocument.documentElement.dataset.version = version;\n"
    )
    old, new = await asyncio.gather(start_instance(store), start_instance(store, root=tmp_path))
    return old, new


async def open_mixed(open_page: OpenPage, watch: Watch, page_of: Instance, files_of: Instance) -> Page:
    """Open the page of one instance, whose files and websocket come from the other."""
    watch.allow("favicon.ico")  # of the bare address
    page = await open_page(page_of, "/healthz")

    async def elsewhere(route: Route) -> None:
        answer = await route.fetch(url=route.request.url.replace(page_of.url, files_of.url))
        await route.fulfill(response=answer)

    await page.route("**/static/**", elsewhere)
    await page.goto(page_of.url, timeout=60_000)  # each of its files is fetched by the test
    return page


@pytest.mark.parametrize("page_is_new", [True, False], ids=["a new page", "an old page"])
async def test_page_is_of_one_version_whoever_serves_its_files(
    deploy: Deploy, open_page: OpenPage, watch: Watch, page_is_new: bool
) -> None:
    old, new = deploy
    page = await open_mixed(open_page, watch, new if page_is_new else old, old if page_is_new else new)
    await say(page, "Hello")
    await expect(answers(page)).to_contain_text("You said: Hello")
    await idle(page)
    version = await page.locator("html").get_attribute("data-version")
    assert version == ("new" if page_is_new else None)
    await page.unroute_all(behavior="wait")  # files are still on their way that are needed later
