"""One provider's model server: asked for its models, and for an answer until that begins. Knows no other provider."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from llmchat.continuation import Continuation, given
from llmchat.errors import ProviderError
from llmchat.lean_openai import AsyncAzureOpenAI, AsyncOpenAI, AsyncStream, DefaultAioHttpClient, openai
from llmchat.model_stream import Deadlines, ModelStream
from llmchat.provider import OPENAI, Provider
from llmchat.provider_errors import provider_error, retry_after

RETRIES = 2
"""Before the first delta, after what Retry-After says, as long as the first delta may still come in time."""
RETRY_SECONDS = 0.5
"""Before the first retry, where the model server does not say; then twice as long."""
NO_KEY = "none"
MODELS_SECONDS = 10.0
"""For the model server to name its models."""


class ModelServer:
    """One client for the whole process. Models are named as ours."""

    def __init__(self, provider: Provider, deadlines: Deadlines, continuation: str) -> None:
        self.provider = provider
        self.name = provider.name
        self.shown = provider.shown
        self._deadlines = deadlines
        self._client = _client(provider, deadlines)
        self._continuation = Continuation(continuation, self._say_how, provider.shown)
        self._listed: list[str] = []  # when it was asked for its models last

    async def close(self) -> None:
        """Close all connections to it."""
        await self._continuation.close()
        await self._client.close()

    def has(self, model: str) -> bool:
        """Tell whether a model is named as its, or on its own list where that is on offer."""
        return model in self.provider.models or (self.provider.has_own_list and model in self._listed)

    async def models(self) -> list[str]:
        """List what it names. Raises ProviderError."""
        try:
            async with asyncio.timeout(MODELS_SECONDS):
                told: Any = await self._client.get("/models", cast_to=object)
        except Exception as error:  # the SDK lets json's and the transport's own errors through
            raise provider_error(error) from None
        entries = told.get("data") if isinstance(told, dict) else told
        if not isinstance(entries, list):
            raise ProviderError("provider_refused", "The model server's list cannot be read.", retryable=True)
        ids = [entry.get("id") for entry in entries if isinstance(entry, dict)]
        self._listed = [name for name in ids if isinstance(name, str)]
        return self._listed

    def learn(self, model: str) -> None:
        """Have it asked how a model goes on from a beginning, where that is not known."""
        self._continuation.learn(self.provider.own_name(model))

    async def continues(self, model: str) -> bool:
        """Tell whether a model goes on from a given beginning of its answer; False while its server does not say."""
        return await self._continuation.how(self.provider.own_name(model)) != "never"

    async def ask(
        self,
        model: str,
        body: Mapping[str, Any],
        kept: str,
        *,
        first: float,
        last: float,
        retry: bool,
        every: Callable[[], float],
    ) -> ModelStream:
        """Ask for an answer that goes on from `kept`, and wait for its first delta. Raises ProviderError.

        That has to come until `first`, and the answer has to be through at `last`, in the loop's time.
        """
        own_name = self.provider.own_name(model)
        beginning, flags = given(kept, await self._continuation.how(own_name)) if kept else ([], {})
        asked = {**body, "model": own_name, "messages": [*body["messages"], *beginning], **flags}
        try:
            async with asyncio.timeout_at(first):
                response = await self._open(asked, first, RETRIES if retry else 0)
        except Exception as error:  # the SDK lets json's and the transport's own errors through
            raise provider_error(error) from None
        stream = ModelStream(response, self._deadlines.between, last, every)
        try:
            await stream.begin(first)
        except BaseException:
            await stream.close()
            raise
        return stream

    async def _open(self, body: Mapping[str, Any], deadline: float, retries: int) -> AsyncStream[object]:
        """Ask, and ask again where that may help; the last refusal is raised before a wait beyond the deadline."""
        for attempt in range(retries):
            try:
                return await self._post(body)
            except (openai.RateLimitError, openai.InternalServerError, openai.APIConnectionError) as error:
                wait = retry_after(error)
                if wait is None:
                    wait = RETRY_SECONDS * 2**attempt
                if asyncio.get_running_loop().time() + wait >= deadline:
                    raise
            await asyncio.sleep(wait)
        return await self._post(body)

    async def _post(self, body: Mapping[str, Any]) -> AsyncStream[object]:
        # As plain dicts: half the SDK's cost per delta goes into building its typed ones.
        return await self._client.post(
            "/chat/completions", body=body, cast_to=object, stream=True, stream_cls=AsyncStream[object]
        )

    async def _say_how(self, body: Mapping[str, Any]) -> object:
        return await self._client.post("/chat/completions", body=body, cast_to=object)


def _client(provider: Provider, deadlines: Deadlines) -> AsyncOpenAI:
    options: dict[str, Any] = {
        "api_key": provider.api_key or NO_KEY,
        "max_retries": 0,
        # Reading has its deadlines here: the transport's own would be set anew with each piece that comes.
        "timeout": openai.Timeout(None, connect=deadlines.connect, write=deadlines.connect),
        "http_client": DefaultAioHttpClient(),
    }
    if provider.api_version is None:
        client = AsyncOpenAI(base_url=provider.base_url, **options)
    else:
        client = AsyncAzureOpenAI(
            azure_endpoint=provider.base_url or "", api_version=provider.api_version, **options
        )
    if provider.name != OPENAI:
        # What the SDK reads of the environment for each of its clients is meant for OpenAI.
        client.organization = client.project = None
        client._custom_headers = {}
    return client
