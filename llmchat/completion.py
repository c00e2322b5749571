"""Messages -> deltas: asks the model server. Alone knows openai; knows neither conversations nor the wire."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import openai
from openai import AsyncOpenAI, AsyncStream, DefaultAioHttpClient

from llmchat.errors import ProviderError
from llmchat.turn import Delta

CONNECT_SECONDS = 5.0
FIRST_DELTA_SECONDS = 60.0
BETWEEN_DELTAS_SECONDS = 30.0
ANSWER_SECONDS = 300.0
USAGE_SECONDS = 2.0
"""For what may follow a finish_reason: the usage figures."""
RETRIES = 2
"""Before the first delta; the SDK honours Retry-After."""
NO_KEY = "none"

log = logging.getLogger(__name__)


class Completions:
    """One client for the whole process."""

    def __init__(self, *, api_key: str | None, base_url: str | None) -> None:
        self._client = AsyncOpenAI(
            api_key=api_key or NO_KEY,
            base_url=base_url,
            max_retries=RETRIES,
            timeout=openai.Timeout(
                FIRST_DELTA_SECONDS, connect=CONNECT_SECONDS, read=FIRST_DELTA_SECONDS, write=CONNECT_SECONDS
            ),
            http_client=DefaultAioHttpClient(),
        )

    async def close(self) -> None:
        """Close all connections to the model server."""
        await self._client.close()

    @asynccontextmanager
    async def stream(
        self, model: str, messages: Sequence[Mapping[str, str]], parameters: Mapping[str, Any]
    ) -> AsyncIterator[AsyncGenerator[Delta]]:
        """Ask for an answer; leaving the context closes the connection to the model server.

        The deltas end in a Delta with a finish_reason, or raise ProviderError.
        """
        body = {
            "model": model,
            "messages": list(messages),
            "stream": True,
            "stream_options": {"include_usage": True},
            **parameters,
        }
        deltas = self._deltas(body)
        try:
            yield deltas
        finally:
            await deltas.aclose()

    async def _deltas(self, body: Mapping[str, Any]) -> AsyncGenerator[Delta]:
        loop = asyncio.get_running_loop()
        last = loop.time() + ANSWER_SECONDS
        # A timeout must not span a yield: it would strike whoever reads us.
        try:
            first = loop.time() + FIRST_DELTA_SECONDS
            async with asyncio.timeout_at(first):
                chunks = await self._open(body)
            try:
                deadline = first
                while True:
                    async with asyncio.timeout_at(min(deadline, last)):
                        delta = await _next(chunks)
                    if delta is None:
                        return
                    yield delta
                    patience = USAGE_SECONDS if delta.finish_reason else BETWEEN_DELTAS_SECONDS
                    deadline = loop.time() + patience
            finally:
                await chunks.close()
        except (GeneratorExit, asyncio.CancelledError):
            raise
        except Exception as error:  # the SDK lets json's and the transport's own errors through
            log.warning("The model server failed: %s", type(error).__name__)
            raise _provider_error(error) from error

    async def _open(self, body: Mapping[str, Any]) -> AsyncStream[object]:
        # As plain dicts: half the SDK's cost per delta goes into building its typed ones.
        return await self._client.post(
            "/chat/completions", body=body, cast_to=object, stream=True, stream_cls=AsyncStream[object]
        )


async def _next(chunks: AsyncStream[object]) -> Delta | None:
    """Wait for a chunk that says something; None at the end."""
    async for chunk in chunks:
        delta = _delta(chunk)
        if delta is not None:
            return delta
    return None


def _delta(chunk: Any) -> Delta | None:
    if not isinstance(chunk, dict):
        return None
    choice = (chunk.get("choices") or [{}])[0]
    said = choice.get("delta") or {}
    text = said.get("content") or ""
    reasoning = said.get("reasoning_content") or said.get("reasoning") or ""
    finish_reason = choice.get("finish_reason")
    usage = chunk.get("usage")
    if not (text or reasoning or finish_reason or usage):
        return None
    return Delta(_sound(text), _sound(reasoning), finish_reason, _counts(usage))


def _counts(usage: Any) -> dict[str, int] | None:
    if not isinstance(usage, dict):
        return None
    names = ("prompt_tokens", "completion_tokens")
    return {name: usage[name] for name in names if isinstance(usage.get(name), int)} or None


def _sound(text: str) -> str:
    """Replace lone surrogates, which JSON may carry and UTF-8 may not."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _provider_error(error: Exception) -> ProviderError:
    match error:
        case openai.AuthenticationError() | openai.PermissionDeniedError():
            return ProviderError(
                "provider_auth", "The model server did not accept this chat's key.", retryable=False
            )
        case openai.RateLimitError():
            return ProviderError(
                "provider_rate_limited",
                "The model server is asked too much right now.",
                retryable=True,
                retry_after=_retry_after(error),
            )
        case openai.APITimeoutError() | TimeoutError():
            return ProviderError("provider_timeout", "The model server took too long.", retryable=True)
        case openai.InternalServerError():
            return ProviderError("provider_unavailable", "The model server has a problem.", retryable=True)
        case openai.APIStatusError() if _context_exceeded(error):
            return ProviderError(
                "context_too_long", "This conversation is too long for the model.", retryable=False
            )
        case openai.APIStatusError():
            return ProviderError("provider_refused", "The model server refused the request.", retryable=True)
        case openai.APIConnectionError() | OSError():
            return ProviderError(
                "provider_unavailable", "The model server cannot be reached.", retryable=True
            )
    return ProviderError("provider_refused", "The model server's answer cannot be read.", retryable=True)


def _retry_after(error: openai.APIStatusError) -> float | None:
    try:
        return max(0.0, float(error.response.headers["retry-after"]))
    except (KeyError, ValueError):
        return None


def _context_exceeded(error: openai.APIStatusError) -> bool:
    body = error.body if isinstance(error.body, dict) else {}
    return {body.get("code"), body.get("type")} & {
        "context_length_exceeded",
        "exceed_context_size_error",
    } != set()
