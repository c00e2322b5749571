"""Five times as many prompts as the instances can answer: refused for a moment and answered later, every one of them."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.conftest import Connect, StartInstance
from tests.fakes import Model
from tests.instances import Client, Instance, Store
from tests.instances.client import Refused
from tests.steps import Babble

PER_INSTANCE = 10
TIMES = 5
HIGH_WATER = re.compile(r"^VmHWM:\s+(\d+) kB$", re.MULTILINE)
MOST_MEGABYTES = 250


@dataclass
class Open:
    """Counts the answers that the model gives at once: a step before them, with one behind them."""

    now: int = 0
    most: int = 0
    ends: Ends = field(init=False)

    def __post_init__(self) -> None:
        self.ends = Ends(self)

    async def play(self, answering: Any) -> None:
        """Count one more."""
        self.now += 1
        self.most = max(self.most, self.now)


@dataclass
class Ends:
    """The step behind them."""

    open: Open

    async def play(self, answering: Any) -> None:
        """Count one less."""
        self.open.now -= 1


async def insist(client: Client, text: str, refusals: list[dict[str, Any]]) -> str:
    """Send a prompt as a page does: again when it may be. Gives the answer's text."""
    while True:
        try:
            ended = await client.prompt(text)
        except Refused as refused:
            refusals.append(refused.event)
            await asyncio.sleep(refused.event["retry_after"])
        else:
            assert ended["type"] == "completion.finished", ended
            return client.mirrors[ended["conversation"]].messages[ended["message"]].text


def most_megabytes(instance: Instance) -> float:
    """Tell how much memory an instance ever had."""
    found = HIGH_WATER.search(Path(f"/proc/{instance.pid}/status").read_text())
    assert found
    return int(found[1]) / 1000


@pytest.mark.long
async def test_five_times_what_can_be_answered_is_answered_bit_by_bit_and_nothing_is_lost(
    store: Store, start_instance: StartInstance, connect: Connect, model: Model
) -> None:
    instances = [
        await start_instance(store, ANSWERS_PER_INSTANCE=str(PER_INSTANCE), REDIS_PREFIX="overload")
        for _ in range(2)
    ]
    counted = Open()
    model.answer(counted, Babble("word ", 20, 0.05), counted.ends, to="Prompt", times=10**6)  # type: ignore[arg-type]
    capacity = PER_INSTANCE * len(instances)
    clients = [await connect(instances[number % 2]) for number in range(capacity * TIMES)]
    refusals: list[dict[str, Any]] = []
    answers = asyncio.gather(
        *(insist(client, f"Prompt {number}", refusals) for number, client in enumerate(clients))
    )
    healthy = 0
    async with aiohttp.ClientSession() as http:
        while not answers.done():
            for instance in instances:
                async with http.get(f"{instance.url}/healthz") as response:
                    healthy += response.status == 200
            await asyncio.wait([answers], timeout=1)
    assert await answers == ["word " * 20] * len(clients)
    assert counted.most <= capacity
    assert refusals, "there was more than could be done"
    assert {event["code"] for event in refusals} == {"busy"}
    assert {event["retry_after"] for event in refusals} <= {2, 3, 4, 5}
    assert healthy > 0
    assert [each for each in map(most_megabytes, instances) if each > MOST_MEGABYTES] == []
