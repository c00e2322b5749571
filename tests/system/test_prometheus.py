"""Debian's promtool on what a Prometheus gets of us: the rules, the way to scrape, and `/metrics` itself."""

from __future__ import annotations

import asyncio
import re
import secrets
from pathlib import Path

import aiohttp

from tests.conftest import Connect, StartInstance
from tests.fakes import Model
from tests.instances import Store
from tests.instances.instance import ROOT
from tests.scrape import TOKEN
from tests.waiting import within

DOCUMENT = (ROOT / "docs" / "metrics.md").read_text()


async def promtool(*words: str, read: bytes = b"") -> str:
    """Have it check something, and give what it says; fails where that is a complaint."""
    running = await asyncio.create_subprocess_exec(
        *("promtool", "check", *words),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with within(60, "promtool has checked it"):
        said, _ = await running.communicate(read)
    assert running.returncode == 0, said.decode()
    return said.decode()


async def test_rules_are_rules() -> None:
    rules = ROOT / "docs" / "alerts.yml"
    said = await promtool("rules", str(rules))
    assert f"{rules.read_text().count('- alert:')} rules found" in said


async def test_way_to_scrape_in_the_document_is_a_configuration(tmp_path: Path) -> None:
    whole, names = re.findall(r"```yaml\n(.*?)```", DOCUMENT, re.DOTALL)
    (tmp_path / "alerts.yml").write_bytes((ROOT / "docs" / "alerts.yml").read_bytes())
    file = tmp_path / "prometheus.yml"
    for text in (whole, whole + names):
        file.write_text(text)
        assert "SUCCESS" in await promtool("config", "--syntax-only", str(file))


async def test_what_is_told_is_as_prometheus_likes_it(
    store: Store, start_instance: StartInstance, connect: Connect, model: Model
) -> None:
    instance = await start_instance(
        store, METRICS_TOKEN=TOKEN, REDIS_PREFIX=f"prometheus-{secrets.token_hex(4)}"
    )
    client = await connect(instance)
    await client.prompt("Hi")
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with (
        aiohttp.ClientSession() as http,
        http.get(f"{instance.url}/metrics", headers=headers) as response,
    ):
        text = await response.read()
    assert await promtool("metrics", read=text) == ""
