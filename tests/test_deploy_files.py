"""The files that a host reads agree with each other and with the product."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import replace
from typing import Any

from llmchat.app import create_app
from llmchat.serve import HARD_STOP_SECONDS
from llmchat.settings import Settings
from tests.instances import Store
from tests.instances.instance import ROOT

START = "python -m llmchat serve"


def railway() -> dict[str, dict[str, Any]]:
    read: dict[str, dict[str, Any]] = json.loads((ROOT / "railway.json").read_text())
    return read


def test_every_host_starts_the_same() -> None:
    procfile = dict(line.split(": ", 1) for line in (ROOT / "Procfile").read_text().splitlines())
    nixpacks = tomllib.loads((ROOT / "nixpacks.toml").read_text())
    assert procfile == {"web": f"exec {START}"}
    assert nixpacks["start"]["cmd"] == f"exec {START}"
    assert nixpacks["providers"] == ["python"]
    assert railway()["deploy"]["startCommand"] == START  # exec is a shell's word, and there may be none


def test_railway_gets_numbers_where_it_wants_them() -> None:
    for name in ("healthcheckTimeout", "drainingSeconds", "overlapSeconds", "restartPolicyMaxRetries"):
        assert type(railway()["deploy"][name]) is int


async def test_health_check_is_answered_with_200_to_the_host_that_asks_it(
    store: Store, settings: Settings
) -> None:
    app = create_app(replace(settings, redis_url=store.url))
    async with app.test_app():
        path = str(railway()["deploy"]["healthcheckPath"])
        answer = await app.test_client().get(path, headers={"Host": "healthcheck.railway.app"})
    assert answer.status_code == 200


def test_railway_waits_longer_than_a_start_waits_for_redis() -> None:
    waits = Settings.read({}, local=False).redis_wait_seconds
    assert railway()["deploy"]["healthcheckTimeout"] > waits


def test_railway_gives_more_time_to_stop_than_a_stop_takes() -> None:
    assert railway()["deploy"]["drainingSeconds"] > HARD_STOP_SECONDS


def test_python_is_one_that_is_supported() -> None:
    version = (ROOT / ".python-version").read_text().strip()
    assert version == "3.11"
    assert f"FROM python:{version}-slim" in (ROOT / "docker" / "Dockerfile").read_text()
    assert re.search(r'requires-python = ">=3\.11"', (ROOT / "pyproject.toml").read_text())


def test_requirements_include_no_other_file() -> None:
    for line in (ROOT / "requirements.txt").read_text().splitlines():
        assert not line.startswith(("-r", "-c", "--index", "--find"))  # a host copies this file alone
