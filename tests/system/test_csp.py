"""The policy that instances send with everything they answer: csp_evaluator finds nothing in it."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.instances import Client, Instance
from tests.instances.test_requests import heard_to_the_end
from tests.waiting import within

HERE = Path(__file__).parent / "csp"
PATHS = [
    "/",
    "/settings",
    "/settings/data",
    "/search?q=a",
    "/sign-in",
    "/s/none",
    "/nothing",
    "/session",
    "/healthz",
]
POLICY = "Content-Security-Policy"


async def output(*command: str, folder: Path, said: str = "") -> str:
    """Run a command to its end."""
    running = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with within(240, lambda: f"{command} ends"):
        told, _ = await running.communicate(said.encode())
    assert running.returncode == 0, told.decode()
    return told.decode()


@pytest.fixture(scope="module")
async def evaluator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the evaluator in a folder of its own, as the lock file has it."""
    folder = tmp_path_factory.mktemp("csp") / "csp"
    shutil.copytree(HERE, folder)
    await output("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", folder=folder)
    return folder


async def findings(evaluator: Path, policies: list[str]) -> list[Any]:
    """Have policies evaluated."""
    told = await output("node", "evaluate.js", folder=evaluator, said="\n".join(policies))
    return [json.loads(line) for line in told.splitlines()]


async def test_evaluator_finds_nothing_in_the_policy_of_any_answer(
    instances: tuple[Instance, Instance], evaluator: Path
) -> None:
    client = Client()
    client.instance = instances[0]
    pages = [await client.page(path) for path in PATHS]
    await client.close()
    refused = (await heard_to_the_end(instances[0], b"no request\r\n\r\n")).decode().lower()
    own = refused.split(f"{POLICY.lower()}: ")[1].split("\r\n")[0]
    policies = [*(page.headers[POLICY] for page in pages), own]
    assert len(set(policies[:-1])) == len(PATHS), "each page has a nonce of its own"
    assert await findings(evaluator, policies) == [[]] * len(policies)


async def test_evaluator_finds_what_is_weak(evaluator: Path) -> None:
    found = await findings(evaluator, ["script-src 'self' 'unsafe-inline'; object-src 'none'"])
    assert {each["value"] for each in found[0]} >= {"'self'", "'unsafe-inline'"}
