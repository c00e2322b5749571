"""What the product is installed with: pinned, of known licences, and looked up for known vulnerabilities."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from tests import audit as auditing
from tests import licences
from tests.audit import Audit, audit, main
from tests.licences import Licence, installed, pinned, told

ROOT = Path(__file__).resolve().parent.parent
LOCKED = [*ROOT.glob("requirements*.txt"), *ROOT.glob("bench/replaced/requirements*.txt")]
VULNERABLE = {
    "id": "PYSEC-2000-1",
    "modified": "2000-01-01T00:00:00Z",
    "affected": [
        {
            "package": {"name": "quart", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "99.1"}]}],
        }
    ],
}


@pytest.fixture
async def service() -> AsyncIterator[str]:
    """Run what answers as OSV's service does, and knows of something in quart."""

    async def answer(asked: web.Request) -> web.Response:
        package = (await asked.json())["package"]["name"]
        return web.json_response({"vulns": [VULNERABLE]} if package == "quart" else {})

    app = web.Application()
    app.router.add_post("/query", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/query"
    await runner.cleanup()


@pytest.fixture
def pins(tmp_path: Path) -> str:
    lines = (ROOT / "requirements.txt").read_text()
    some = re.findall(r"^(?:quart|redis)==(?:.*\\\n)+.*\n", lines, re.MULTILINE)
    assert len(some) == 2
    file = tmp_path / "requirements.txt"
    file.write_text("".join(some))
    return str(file)


async def test_vulnerability_that_is_known_is_a_finding(service: str, pins: str) -> None:
    found = await asyncio.to_thread(audit, [pins], ["--vulnerability-service", "osv", "--osv-url", service])
    assert len(found.findings) == 1
    assert re.fullmatch(r"quart [0-9.]+: PYSEC-2000-1, mended in 99\.1", found.findings[0])
    assert (found.packages, found.lacking) == (2, "")


async def test_vulnerability_that_does_not_concern_us_can_be_passed_over(service: str, pins: str) -> None:
    options = ["--vulnerability-service", "osv", "--osv-url", service, "--ignore-vuln", "PYSEC-2000-1"]
    assert await asyncio.to_thread(audit, [pins], options) == Audit(packages=2)


def test_nobody_who_could_be_asked_is_told_and_no_finding(
    pins: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUDIT", "--vulnerability-service osv --osv-url http://127.0.0.1:1/query")
    monkeypatch.delenv("AUDIT_STRICT", raising=False)
    assert main([pins]) == 0
    assert "WARNING: No packages could be looked up" in capsys.readouterr().err
    monkeypatch.setenv("AUDIT_STRICT", "1")
    assert main([pins]) == 2


def test_findings_fail_the_check_also_where_not_all_could_be_looked_up(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    vulnerable = {"name": "a", "version": "1", "vulns": [{"id": "PYSEC-1", "fix_versions": []}]}
    report = {"dependencies": [vulnerable, {"name": "b", "skip_reason": "not found"}]}
    monkeypatch.setattr(auditing, "audit", lambda *_: Audit.of(json.loads(json.dumps(report))))
    assert main([]) == 1
    told = capsys.readouterr().err
    assert "a 1: PYSEC-1, mended in none yet" in told
    assert (
        "Not all packages could be looked up for known vulnerabilities (1 were): unknown to the service: b"
        in told
    )


def test_every_package_is_pinned_with_hashes_and_names_no_host() -> None:
    assert len(LOCKED) == 4
    for file in LOCKED:
        text = file.read_text()
        assert "://" not in text, file
        entries = re.split(r"\n(?=\S)", "\n".join(line for line in text.splitlines() if "#" not in line))
        for entry in filter(None, entries):
            assert re.match(r"[A-Za-z0-9._-]+(\[[a-z,-]+\])?==", entry), (file, entry)
            assert "--hash=sha256:" in entry, (file, entry)


def test_licences_that_are_told_are_those_of_the_pinned_packages() -> None:
    rows, here = {each.package: each for each in told()}, {each.package: each for each in installed()}
    assert {name: row.version for name, row in rows.items()} == {name: pinned()[name] for name in rows}
    assert {name: here[name] for name in rows} == rows
    everywhere = {
        licences.plain(line.partition("==")[0])
        for file in licences.PINNED
        for line in (ROOT / file).read_text().splitlines()
        if "==" in line and not line.startswith(" ") and ";" not in line
    }
    assert everywhere <= set(rows)


def test_licences_are_those_that_anybody_may_use_in_a_server() -> None:
    assert [each for each in told() if not each.usable] == []
    for name in ("GNU Affero General Public License v3", "UNKNOWN", "MIT AND GPL-3.0-only", "Proprietary"):
        assert not Licence("a", "1", name).usable
    assert Licence("a", "1", "GPL-2.0-only OR MIT").usable
