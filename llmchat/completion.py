"""Messages -> deltas: asks the model server. Alone knows openai; knows neither conversations nor the wire."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Self

import httpx2  # the SDK's transport: its errors come where a body is read

from llmchat.errors import ProviderError, RequestRefused
from llmchat.lean_openai import AsyncOpenAI, AsyncStream, DefaultAioHttpClient, openai
from llmchat.settings import Settings
from llmchat.sse import Events
from llmchat.turn import Delta

USAGE_SECONDS = 2.0
"""For what may follow a finish_reason: the usage figures."""
RETRIES = 2
"""Before the first delta, after what Retry-After says, as long as the first delta may still come in time."""
RETRY_SECONDS = 0.5
"""Before the first retry, where the model server does not say; then twice as long."""
MAX_WAIT_SECONDS = 86_400.0
"""What is told of a Retry-After, at most."""
MAX_COUNT = 10**9
"""Figures of the provider's beyond are not believed."""
NO_KEY = "none"
CONTEXT_CODES = {"context_length_exceeded", "exceed_context_size_error"}
CONTEXT_WORDS = re.compile(
    r"context (length|window|size)|prompt is too long|token count .*exceeds", re.IGNORECASE
)
"""How the servers say it that have no code for it."""
QUESTION_SECONDS = 5.0
"""For the model server to say how it can be given the beginning of an answer."""
PATIENCE_SECONDS = 0.5
"""How long an answer waits for that."""
ASK_AGAIN_SECONDS = 30.0
"""After a question that was not answered."""
HOW_WORDS = (
    ("flag", re.compile(r"cannot set both .*(add_generation_prompt|continue_final_message)", re.IGNORECASE)),
    ("last", re.compile(r"cannot have 2 or more assistant messages at the end", re.IGNORECASE)),
)
"""How it can, and how a server that can refuses the question for it: vLLM and llama.cpp, older llama.cpp."""
QUESTIONS: dict[str, dict[str, Any]] = {
    "flag": {
        "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "H"}],
        "continue_final_message": True,
        "add_generation_prompt": True,
    },
    "last": {
        "messages": [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "H"},
            {"role": "assistant", "content": "i"},
        ],
    },
}
FULL_BYTES = 16 * 1024
"""As much as is read of a response at once, so that more may be there."""
DRAIN_SECONDS = 0.2
"""For the end of a response behind its last event: read to it, the connection serves the next request, too."""
DONE = b"[DONE]"
MODELS_SECONDS = 10.0
"""For the model server to name its models."""
CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Deadlines:
    """How long the model server may take, in seconds: to connect, to its first delta, between two, in all."""

    connect: float
    first: float
    between: float
    answer: float

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Take those that are set."""
        return cls(
            connect=settings.model_connect_seconds,
            first=settings.model_first_seconds,
            between=settings.model_between_seconds,
            answer=settings.model_answer_seconds,
        )


class Completions:
    """One client for the whole process.

    `continuation` is how the model server is given the beginning of an answer to go on with: "flag", "last",
    "prefix" or "never"; "auto" asks it.
    """

    def __init__(
        self,
        *,
        api_key: str | None,
        base_url: str | None,
        deadlines: Deadlines,
        continuation: str = "auto",
    ) -> None:
        self._deadlines = deadlines
        self._questions: dict[
            str, asyncio.Task[str | None]
        ] = {}  # model -> how it goes on, or None: not said
        self._unsaid: dict[str, float] = {}  # model -> when it was asked in vain, by the loop's clock
        self._continuation = continuation
        self._client = AsyncOpenAI(
            api_key=api_key or NO_KEY,
            base_url=base_url,
            max_retries=0,
            # Reading has its deadlines here: the transport's own would be set anew with each piece that comes.
            timeout=openai.Timeout(None, connect=deadlines.connect, write=deadlines.connect),
            http_client=DefaultAioHttpClient(),
        )

    async def close(self) -> None:
        """Close all connections to the model server."""
        questions = list(self._questions.values())
        for question in questions:
            question.cancel()
        await asyncio.gather(*questions, return_exceptions=True)
        await self._client.close()

    async def models(self) -> list[str]:
        """List what the model server names. Raises ProviderError."""
        try:
            async with asyncio.timeout(MODELS_SECONDS):
                told: Any = await self._client.get("/models", cast_to=object)
        except Exception as error:  # the SDK lets json's and the transport's own errors through
            raise _provider_error(error) from error
        entries = told.get("data") if isinstance(told, dict) else told
        if not isinstance(entries, list):
            raise ProviderError("provider_refused", "The model server's list cannot be read.", retryable=True)
        ids = [entry.get("id") for entry in entries if isinstance(entry, dict)]
        return [name for name in ids if isinstance(name, str)]

    async def continues(self, model: str) -> bool:
        """Tell whether a model goes on from a given beginning of its answer; False while its server does not say."""
        return await self._how_of(model) != "never"

    def learn(self, model: str) -> None:
        """Have the model server asked how a model goes on, where that is not known."""
        question = self._questions.get(model)
        if self._continuation != "auto" or (question is not None and not self._was_in_vain(model, question)):
            return
        self._questions[model] = asyncio.create_task(self._question(model), name=f"question {model}")

    def _was_in_vain(self, model: str, question: asyncio.Task[str | None]) -> bool:
        """Whether nothing was said to a question, so long ago that it may be asked again."""
        in_vain = question.done() and (question.cancelled() or question.result() is None)
        return in_vain and asyncio.get_running_loop().time() - self._unsaid.get(model, 0) > ASK_AGAIN_SECONDS

    async def _how_of(self, model: str) -> str:
        if self._continuation != "auto":
            return self._continuation
        self.learn(model)
        done, _ = await asyncio.wait([self._questions[model]], timeout=PATIENCE_SECONDS)
        return next((question.result() or "never" for question in done), "never")

    async def _question(self, model: str) -> str | None:
        """Ask how a model goes on; None where its server does not say."""
        try:
            async with asyncio.timeout(QUESTION_SECONDS):
                return await self._ask_how(model)
        except Exception as error:  # the SDK lets json's and the transport's own errors through
            log.warning("The model server did not say whether it goes on: %s", type(error).__name__)
            self._unsaid[model] = asyncio.get_running_loop().time()
            return None

    async def _ask_how(self, model: str) -> str:
        for how, words in HOW_WORDS:
            body = {"model": model, "max_tokens": 1, **QUESTIONS[how]}
            try:
                await self._client.post("/chat/completions", body=body, cast_to=object)
            except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
                if words.search(error.message):
                    return how
        return "never"

    @asynccontextmanager
    async def stream(
        self,
        model: str,
        messages: Sequence[Mapping[str, Any]],
        parameters: Mapping[str, Any],
        *,
        kept: str = "",
        every: Callable[[], float] = lambda: 0.0,
    ) -> AsyncIterator[AsyncGenerator[Delta]]:
        """Ask for an answer; leaving the context closes the connection to the model server.

        `kept` is its beginning, where there is one and the model goes on from it. What came since the last Delta is one;
        for so many seconds after each nothing is read, unless there is much. The deltas end in a Delta with a
        finish_reason, or raise ProviderError.
        """
        beginning, flags = _given(kept, await self._how_of(model)) if kept else ([], {})
        body = {
            "model": model,
            "messages": [*messages, *beginning],
            "stream": True,
            "stream_options": {"include_usage": True},
            **parameters,
            **flags,
        }
        deltas = self._deltas(body, every)
        try:
            yield deltas
        finally:
            await deltas.aclose()

    async def _deltas(self, body: Mapping[str, Any], every: Callable[[], float]) -> AsyncGenerator[Delta]:
        loop = asyncio.get_running_loop()
        last = loop.time() + self._deadlines.answer
        ended = False
        # A timeout must not span a yield: it would strike whoever reads us.
        try:
            first = min(last, loop.time() + self._deadlines.first)
            async with asyncio.timeout_at(first):
                stream = await self._open(body, first)
            said = _Said(stream.response)
            try:
                deadline = first
                while True:
                    delta = await said.next(min(deadline, last))
                    if delta is None:
                        return
                    yield delta
                    if ended:
                        continue
                    ended = delta.finish_reason is not None
                    if not (ended or said.much):
                        await said.collect(every())
                    deadline = loop.time() + (USAGE_SECONDS if ended else self._deadlines.between)
            finally:
                await stream.close()
        except (GeneratorExit, asyncio.CancelledError):
            raise
        except Exception as error:  # the SDK lets json's and the transport's own errors through
            if ended:
                return  # whole already: only the usage figures are missing
            log.warning("The model server failed: %s", type(error).__name__)
            raise _provider_error(error) from error

    async def _open(self, body: Mapping[str, Any], deadline: float) -> AsyncStream[object]:
        """Ask, and ask again where that may help; the last refusal is raised before a wait beyond the deadline."""
        for attempt in range(RETRIES):
            try:
                return await self._post(body)
            except (openai.RateLimitError, openai.InternalServerError, openai.APIConnectionError) as error:
                wait = _retry_after(error)
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


def _given(kept: str, how: str) -> tuple[list[dict[str, Any]], dict[str, bool]]:
    """Say a beginning to a model server: the message, and the fields beside the messages."""
    message: dict[str, Any] = {"role": "assistant", "content": kept}
    if how == "prefix":
        return [message | {"prefix": True}], {}
    if how == "flag":
        return [message], {"continue_final_message": True, "add_generation_prompt": False}
    return [message], {}


class _Said:
    """What a model server says in a response, in as few pieces as it is read in.

    Read past the SDK's stream, which makes one wake-up of each event: see docs/performance.md.
    """

    def __init__(self, response: httpx2.Response) -> None:
        self._response = response
        self._pieces = response.aiter_bytes()
        self._encoded = bool(response.headers.get("content-encoding"))
        self._events = Events()
        self._failed: Exception | None = None  # to be raised once what was said before it is given
        self._over = False
        self._paused: Any = None  # what reads the connection, while it does not
        self._came = False  # something, since it was: what is awaited next is there
        self.much = False
        """Whether more may be there than what was given."""

    async def next(self, deadline: float) -> Delta | None:
        """Wait for something said until then, in the loop's time; None at the end. Raises what the SDK's stream does."""
        said: list[Delta] = []
        while not said:
            if self._failed is not None:
                raise self._failed
            if self._over:
                await self._drain()
                return None
            if not self._came:
                self._go_on_reading()
                async with asyncio.timeout_at(deadline):
                    piece = await anext(self._pieces, None)
            elif asyncio.get_running_loop().time() < deadline:
                self._came = False
                piece = await anext(self._pieces, None)  # without a wait, which a timeout would need
            else:
                raise TimeoutError
            self._over = piece is None
            self.much = len(piece or b"") >= FULL_BYTES
            said = self._said_in(self._events.feed(piece or b""))
        return _merged(said)

    def _said_in(self, events: Sequence[bytes]) -> list[Delta]:
        said = []
        try:
            for data in events:
                if data.startswith(DONE):
                    self._over = True
                    break
                delta = _delta(self._read(data))
                if delta is not None:
                    said.append(delta)
        except Exception as error:  # whatever is wrong with what a server says
            self._failed = error
        return said

    def _read(self, data: bytes) -> Any:
        event = json.loads(data.decode())
        if isinstance(event, dict) and event.get("error"):
            raise openai.APIError(
                "The stream tells of an error.", self._response.request, body=event["error"]
            )
        return event

    async def collect(self, seconds: float) -> None:
        """Let what comes gather, in the system's buffer rather than in ours piece by piece."""
        protocol, transport, body = _read_from(self._response)
        if protocol is None or not (transport.is_reading() or protocol is self._paused):
            await asyncio.sleep(seconds)
            return
        if self._paused is None:
            protocol._pause_reading_for_buffer()
            self._paused = protocol
        try:
            await asyncio.sleep(seconds)
            if not self._encoded:  # else what came may give no bytes
                self._came = _read_at_once(transport, body)
        finally:
            if not self._came:
                self._go_on_reading()

    def _go_on_reading(self) -> None:
        paused, self._paused = self._paused, None
        if paused is not None:
            paused._resume_reading_for_buffer()

    async def _drain(self) -> None:
        self._go_on_reading()
        if self._response.is_closed:
            return
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                async for _ in self._pieces:
                    pass
        except Exception as error:  # all is said: whatever is wrong behind it harms nobody
            log.debug("A response did not end behind its last event: %s", type(error).__name__)


def _read_from(response: httpx2.Response) -> tuple[Any, Any, Any]:
    """Find a response's protocol, its transport, and where its body is put; the first is None where a version has them elsewhere.

    Neither httpx2 nor the SDK's transport for aiohttp has a way to have reading paused. Without, each piece of an answer
    is a turn of the loop, also those that are not looked at yet: half as much again for an answer. What aiohttp itself
    pauses, it goes on with at each piece that is taken; what it pauses for a buffer of its own stays so over many.
    """
    read = getattr(getattr(response.stream, "_stream", None), "_aiohttp_response", None)
    protocol = getattr(getattr(read, "connection", None), "protocol", None)
    transport = getattr(protocol, "transport", None)
    known = isinstance(transport, asyncio.Transport) and hasattr(protocol, "_resume_reading_for_buffer")
    return (protocol if known else None), transport, getattr(read, "content", None)


def _read_at_once(transport: asyncio.Transport, body: Any) -> bool:
    """Read what has come while reading was paused, as the loop would; tell whether reading may stay paused.

    To have the loop do so takes two calls of the system, and a turn of the loop, for each window of each answer. Where
    asyncio has it elsewhere, and over TLS, the loop does.
    """
    read = getattr(transport, "_read_ready", None)
    before = getattr(body, "total_bytes", None)
    if read is None or before is None or transport.is_closing():
        return False
    read()
    return bool(body.total_bytes > before and not body.is_eof() and not transport.is_closing())


def _merged(said: Sequence[Delta]) -> Delta:
    if len(said) == 1:
        return said[0]
    return Delta(
        "".join(delta.text for delta in said),
        "".join(delta.reasoning for delta in said),
        next((delta.finish_reason for delta in said if delta.finish_reason), None),
        next((delta.usage for delta in reversed(said) if delta.usage), None),
    )


def _delta(event: Any) -> Delta | None:
    if not isinstance(event, dict):
        return None
    choice = (event.get("choices") or [{}])[0]
    said = choice.get("delta") or {}
    text = said.get("content") or ""
    reasoning = said.get("reasoning_content") or said.get("reasoning") or ""
    finish_reason = choice.get("finish_reason")
    usage = event.get("usage")
    if not (text or reasoning or finish_reason or usage):
        return None
    reason = finish_reason if isinstance(finish_reason, str) else None
    return Delta(_sound(text), _sound(reasoning), reason, _counts(usage))


def _counts(usage: Any) -> dict[str, int] | None:
    if not isinstance(usage, dict):
        return None
    names = ("prompt_tokens", "completion_tokens")
    counts = {name: usage[name] for name in names if isinstance(usage.get(name), int)}
    return {name: count for name, count in counts.items() if 0 <= count <= MAX_COUNT} or None


def _sound(text: str) -> str:
    """Drop control characters, which nobody reads, and replace lone surrogates, which UTF-8 cannot carry."""
    text = CONTROLS.sub("", text)
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
        case openai.APITimeoutError() if type(error.__cause__).__name__ == "ConnectTimeout":
            # What the SDK's aiohttp transport makes of a refused connection and of an unknown host, too.
            return ProviderError(
                "provider_unavailable", "The model server cannot be reached.", retryable=True
            )
        case openai.APITimeoutError() | httpx2.TimeoutException() | TimeoutError():
            return ProviderError("provider_timeout", "The model server took too long.", retryable=True)
        case openai.InternalServerError():
            return ProviderError("provider_unavailable", "The model server has a problem.", retryable=True)
        case openai.APIStatusError() if _context_exceeded(error):
            return ProviderError(
                "context_too_long", "This conversation is too long for the model.", retryable=False
            )
        case openai.APIStatusError():
            return RequestRefused()
        case openai.APIConnectionError() | httpx2.TransportError() | OSError():
            return ProviderError(
                "provider_unavailable", "The model server cannot be reached.", retryable=True
            )
    return ProviderError("provider_refused", "The model server's answer cannot be read.", retryable=True)


def _retry_after(error: openai.APIError) -> float | None:
    """Read how many seconds to wait, said as a number or as a date; None where it is not said, or in no such way."""
    if not isinstance(error, openai.APIStatusError):
        return None
    said = error.response.headers.get("retry-after", "")
    try:
        seconds = float(said)
    except ValueError:
        seconds = _seconds_until(said)
    return min(max(0.0, seconds), MAX_WAIT_SECONDS) if math.isfinite(seconds) else None


def _seconds_until(date: str) -> float:
    """Tell how far off an HTTP date is; NaN where it is none."""
    try:
        then = parsedate_to_datetime(date)
    except ValueError:
        return math.nan
    return (then.replace(tzinfo=then.tzinfo or UTC) - datetime.now(UTC)).total_seconds()


def _context_exceeded(error: openai.APIStatusError) -> bool:
    body = error.body if isinstance(error.body, dict) else {}
    if {str(body.get("code")), str(body.get("type"))} & CONTEXT_CODES:
        return True
    return CONTEXT_WORDS.search(str(body.get("message"))) is not None
