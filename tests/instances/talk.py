"""What tests of instances have people say."""

from __future__ import annotations

from typing import Any

from tests.instances.client import Client


async def begin(client: Client, text: str = "Hi") -> str:
    """Begin a conversation, wait until its first answer is whole, and return its id."""
    accepted = await client.command("message.send", text=text)
    await client.ending(accepted["answer"])
    return str(accepted["conversation"])


async def send(client: Client, conversation: str, text: str, **fields: Any) -> str:
    """Send a further prompt and return the id of the answer to come."""
    accepted = await client.command("message.send", conversation=conversation, text=text, **fields)
    return str(accepted["answer"])
