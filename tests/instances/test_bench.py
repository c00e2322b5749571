"""The bench runs: a real instance on a core of its own carries two answers whole."""

from __future__ import annotations

import asyncio
import sys

import pytest

from tests.instances.instance import ROOT
from tests.waiting import within


@pytest.mark.long
async def test_bench_of_answers_has_them_shown_whole() -> None:
    bench = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.answers", "ours", "2", "--seconds", "2"),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with within(90, "the bench is over"):
        told, _ = await bench.communicate()
    assert bench.returncode == 0, told.decode()
    assert "nothing lost" in told.decode()
