"""What `make run` runs where nothing is configured: the embedded store and the real small model."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.conftest import Connect
from tests.instances.child import Child
from tests.instances.client import Client
from tests.instances.instance import ROOT, Instance
from tests.instances.mirror import Event

pytestmark = pytest.mark.timeout(400)  # a real model, beside other tests: for all the waiting in a test


class LocalInstance(Instance):
    """`python -m llmchat` in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        super().__init__("", "")
        self._folder = folder
        self.environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "PORT": str(self.port),
            "DATA_DIR": str(folder / "data"),
            "TEMPERATURE": "0",
        }

    async def launch(self) -> None:
        """Start it as a user does."""
        self._child = Child(sys.executable, "-m", "llmchat", env=self.environment, folder=self._folder)
        self._child.lines = self.log
        await self._child.start()


async def ask(client: Client, conversation: str, text: str) -> Event:
    return await client.command("message.send", conversation=conversation, text=text)


async def test_small_model_answers(tmp_path: Path, connect: Connect) -> None:
    instance = LocalInstance(tmp_path)
    await instance.start()
    client = await connect(instance)
    asked = await client.command("message.send", text="What is the capital of France?")
    await client.ending(asked["answer"], seconds=150)
    assert "Paris" in client.text(asked["answer"])
    assert await instance.stop() == 0


@pytest.mark.long
async def test_small_model_answers_a_conversation_that_outlives_a_restart_of_everything(
    tmp_path: Path, connect: Connect
) -> None:
    instance = LocalInstance(tmp_path)
    await instance.start()
    client = await connect(instance)

    first = await client.command("message.send", text="What is the capital of France?")
    await client.ending(first["answer"], seconds=150)
    assert "Paris" in client.text(first["answer"])

    second = await ask(client, first["conversation"], "And which river flows through it?")
    await client.ending(second["answer"], seconds=150)
    assert "Seine" in client.text(second["answer"])

    before = client.hash(first["conversation"])
    assert await instance.stop() == 0
    await instance.start()
    await client.reconnect(after=False)
    assert client.hash(first["conversation"]) == before

    third = await ask(client, first["conversation"], "Thank you.")
    assert (await client.ending(third["answer"], seconds=150))["type"] == "completion.finished"
    assert await instance.stop() == 0


@pytest.mark.long
async def test_small_model_goes_on_with_an_answer_that_was_stopped(tmp_path: Path, connect: Connect) -> None:
    instance = LocalInstance(tmp_path)
    await instance.start()
    client = await connect(instance)
    asked = await client.command("message.send", text="Tell me a long story about a fox and a raven.")
    conversation, answer = asked["conversation"], asked["answer"]
    await client.until(lambda: len(client.text(answer)) > 40, seconds=150)
    await client.command("completion.stop", conversation=conversation, message=answer)
    kept = client.text(answer)
    started = await client.command(
        "completion.continue", conversation=conversation, message=answer, seconds=60
    )
    assert (started["message"], started["text"]) == (answer, kept)
    await client.until(lambda: len(client.text(answer)) > len(kept) + 40, seconds=150)
    await client.command("completion.stop", conversation=conversation, message=answer)
    whole = client.text(answer)
    assert whole.startswith(kept)
    assert not whole[len(kept) :].startswith(
        kept[:20]
    )  # it is given the beginning, and does not say it again
    assert await instance.stop() == 0
