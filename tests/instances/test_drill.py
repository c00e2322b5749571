"""A short cut of the drill (`make drill`): clients of one session over two instances while quick things break."""

from __future__ import annotations

import asyncio

import pytest

from tests.conftest import StartInstance
from tests.fakes import Model
from tests.instances import Store
from tests.instances.drill.report import Report
from tests.instances.drill.run import run
from tests.instances.drill.service import Service


@pytest.mark.long  # a neighbour of the second promise in test_promises.py
@pytest.mark.parametrize("seed", [8, 16])
async def test_clients_see_the_same_over_drops_reloads_and_lost_connections(
    seed: int, fresh_store: Store, start_instance: StartInstance, model: Model
) -> None:
    instances = await asyncio.gather(start_instance(fresh_store), start_instance(fresh_store))
    report = Report(seed)
    await run(seed, Service(fresh_store, model, instances), report, slow=False)
    assert {"drops", "reloads", "kills", "prompts"} <= set(+report.counts)
