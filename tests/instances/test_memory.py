"""What the model is sent of a long conversation, by a real instance."""

from __future__ import annotations

from typing import Any

from llmchat.conversation import ANSWER_SHARE, MESSAGE_TOKENS, estimated_tokens
from tests.conftest import Connect, StartInstance
from tests.fakes import SILENCE, Model, Request
from tests.instances import Client, Store

CONTEXT_TOKENS = 1000
TURNS = 12
PROMPT = "Remember the number {} and " + "these words " * 20


def estimated(messages: list[dict[str, Any]]) -> int:
    return sum(estimated_tokens(message["content"]) + MESSAGE_TOKENS for message in messages)


async def talk(client: Client, model: Model, usage: dict[str, int]) -> Request:
    """Have a conversation longer than the context, and return the last request that it made.

    The summary of what falls out does not come: for that, see test_summaries.py.
    """
    model.summarise(SILENCE)
    conversation: dict[str, str] = {}
    request: Request | None = None
    for number in range(TURNS):
        model.answer(f"I remember {number}. " + "Well said. " * 20, usage=usage)
        ended = await client.prompt(PROMPT.format(number), **conversation)
        assert ended["type"] == "completion.finished"
        conversation = {"conversation": ended["conversation"]}
        request = await model.asked()
    assert request is not None
    return request


async def test_long_conversation_is_sent_as_far_as_it_fits(
    store: Store, start_instance: StartInstance, connect: Connect, model: Model
) -> None:
    instance = await start_instance(store, CONTEXT_TOKENS=str(CONTEXT_TOKENS), SYSTEM_PROMPT="Be kind.")
    client = await connect(instance)

    plain = (await talk(client, model, {})).messages
    assert plain[0] == {"role": "system", "content": "Be kind."}
    assert plain[1]["role"] == "user"
    assert plain[-1]["content"] == PROMPT.format(TURNS - 1)
    assert 4 < len(plain) < 2 * TURNS
    assert estimated(plain) <= CONTEXT_TOKENS - CONTEXT_TOKENS // ANSWER_SHARE

    # A provider that counts far more than we estimate is sent less the next time.
    calibrated = (await talk(client, model, {"prompt_tokens": 1500, "completion_tokens": 60})).messages
    assert calibrated[0] == plain[0]
    assert calibrated[-1]["content"] == plain[-1]["content"]
    assert len(calibrated) < len(plain)
