"""Asking for answers without a chat around: of one provider, or of several in order."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from llmchat.completion import Completions
from llmchat.errors import ProviderError
from llmchat.model_stream import Deadlines
from llmchat.provider import OPENAI, Provider
from llmchat.turn import Delta
from tests.fakes import Model

KEY = "sk-secret-of-the-tests"
MODEL = "gpt-4o-mini"
PROMPT = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}]
SOON = 0.01
"""Seconds: what the model server asks to wait before a retry."""


def provider(
    url: str,
    name: str = OPENAI,
    key: str | None = KEY,
    *,
    models: Mapping[str, str] | None = None,
    api_version: str | None = None,
) -> Provider:
    return Provider(
        name=name, models=models or {MODEL: MODEL}, api_key=key, base_url=url, api_version=api_version
    )


@asynccontextmanager
async def asking(
    *providers: Provider, continuation: str = "auto", **deadlines: float
) -> AsyncIterator[Completions]:
    patient = {"connect": 5.0, "first": 60.0, "between": 30.0, "answer": 300.0}
    completions = Completions(providers, Deadlines(**patient | deadlines), continuation=continuation)
    try:
        yield completions
    finally:
        await completions.close()


@asynccontextmanager
async def opened(
    model: Model, key: str | None = KEY, *, continuation: str = "auto", **deadlines: float
) -> AsyncIterator[Completions]:
    async with asking(provider(model.url, key=key), continuation=continuation, **deadlines) as completions:
        yield completions


async def ask(completions: Completions, model: str = MODEL, kept: str = "", **parameters: Any) -> Delta:
    """Ask, and give all that was said: in how many pieces it comes is the network's."""
    async with completions.stream(model, PROMPT, parameters, kept=kept) as deltas:
        return whole([delta async for delta in deltas])


def whole(deltas: list[Delta]) -> Delta:
    return Delta(
        text_of(deltas),
        "".join(delta.reasoning for delta in deltas),
        next((delta.finish_reason for delta in deltas if delta.finish_reason), None),
        next((delta.usage for delta in reversed(deltas) if delta.usage), None),
    )


async def ask_until_error(
    completions: Completions, every: float = 0.0, kept: str = ""
) -> tuple[list[Delta], ProviderError]:
    got: list[Delta] = []

    async def read() -> None:
        async with completions.stream(MODEL, PROMPT, {}, kept=kept, every=lambda: every) as deltas:
            async for delta in deltas:
                got.append(delta)  # noqa: PERF401, for what came before the error counts

    with pytest.raises(ProviderError) as caught:
        await read()
    return got, caught.value


def text_of(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas)
