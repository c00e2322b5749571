"""A model server of the tests' own: they enqueue its answers and read what it was asked.

It speaks the chat completions of OpenAI over a real port of this machine, so that the code under test may live
in this process or in another one. An answer is a list of steps: texts, and what else a model server may do
(`Gate`, `Reasoning`, `Failure`, `Line`, `Drip`, `CUT`, `SILENCE`). It knows nothing of llmchat.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Self

from aiohttp import web

from tests.steps import CUT, SILENCE, Drip, Ended, Failure, Gate, Line, Reasoning, Step, Text
from tests.waiting import Bell

__all__ = [
    "CUT",
    "SILENCE",
    "Drip",
    "Failure",
    "Gate",
    "Line",
    "Model",
    "Reasoning",
    "Request",
    "Text",
    "echo",
    "pieces",
]

CREATED = 1_790_000_000  # seconds since 1970; any will do, as long as it stays


@dataclass
class Answer:
    """What the model server does with one request."""

    steps: list[Step]
    finish_reason: str | None = "stop"
    usage: dict[str, int] | None = None
    done: bool = True
    to: str | None = None
    times: int = 1

    def meets(self, request: Request) -> bool:
        """Tell whether it is for this request."""
        return self.to is None or self.to in request.prompt

    def after(self, kept: str) -> list[Step]:
        """Return the steps that are left where the answer has this beginning already; all, where it has another."""
        said = "".join(step.text for step in self.steps if isinstance(step, Text))
        if not kept or not said.startswith(kept):
            return self.steps
        left = list(self.steps)
        while kept:
            step = left.pop(0)
            if isinstance(step, Text):
                rest = step.text[len(kept) :]
                kept = kept[len(step.text) :]
                if rest:
                    left.insert(0, Text(rest))
        return left

    async def play(self, answering: Answering) -> None:
        """Go through the steps, then end as an answer should."""
        for step in self.after(answering.request.kept):
            await step.play(answering)
        if self.finish_reason is not None:
            await answering.finish(self.finish_reason)
        if usage := counted(answering) if self.usage is None else self.usage:
            await answering.use(usage)
        if self.done:
            await answering.write(b"data: [DONE]\n\n")


@dataclass
class Refusal:
    """A status and an error body in place of an answer."""

    status: int
    body: dict[str, Any]
    headers: dict[str, str] = field(default_factory=dict)
    to: str | None = None
    times: int = 1

    def meets(self, request: Request) -> bool:
        """Tell whether it is for this request."""
        return self.to is None or self.to in request.prompt


class Request:
    """What the model server was asked, and how it went."""

    def __init__(
        self, body: dict[str, Any], headers: dict[str, str], peer: object = None, path: str = ""
    ) -> None:
        self.path = path  # with its query
        self.body = body
        self.headers = headers
        self.peer = peer  # the address of the client's end of the connection
        self.kept = ""  # the beginning of the answer that it was given to go on with
        self.outcome = ""  # then "answered", "cut" (by us) or "closed" (by the client)
        self._bell = Bell()

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The context that the client sent."""
        return list(self.body.get("messages", []))

    @property
    def prompt(self) -> str:
        """The text of the newest message of the user."""
        texts = [message["content"] for message in self.messages if message["role"] == "user"]
        return as_text(texts[-1]) if texts else ""

    @property
    def asks_how(self) -> bool:
        """Whether it is no prompt, but a question for how to give the beginning of an answer."""
        twice = [message["role"] for message in self.messages[-2:]] == ["assistant", "assistant"]
        return twice or bool(self.body.get("add_generation_prompt"))

    @property
    def asks_summary(self) -> bool:
        """Whether it is no prompt, but asks for a summary of a conversation."""
        first = self.messages[:1]
        return bool(first) and "Write a summary" in as_text(first[0]["content"])

    @property
    def asks_title(self) -> bool:
        """Whether it is no prompt, but asks for a conversation's title."""
        first = self.messages[:1]
        return bool(first) and "You name chats" in as_text(first[0]["content"])

    async def closed(self, *, seconds: float = 30) -> None:
        """Wait until the client has closed the connection before the answer was through."""
        outcome = await self.over(seconds=seconds)
        assert outcome == "closed", f"the request was {outcome}"

    async def over(self, *, seconds: float = 30) -> str:
        """Wait for the outcome."""
        return await self._bell.until(lambda: self.outcome or None, seconds=seconds, what="a request ends")

    def end(self, outcome: str) -> None:
        """Keep the first outcome."""
        self.outcome = self.outcome or outcome
        self._bell.ring()


class Answering:
    """One answer under way: as a stream of events, or collected into one body."""

    def __init__(self, http: web.Request, request: Request) -> None:
        self.request = request
        self.text = ""
        self.reasoning = ""
        self.finish_reason: str | None = None
        self.usage: dict[str, int] | None = None
        self._http = http
        self._stream: web.StreamResponse | None = None

    def response(self) -> web.StreamResponse:
        """Return what was streamed, or else the whole answer."""
        return self._stream or web.json_response(self._whole())

    async def write(self, line: bytes) -> None:
        """Send bytes of the stream, where one was asked for; its head goes before the first of them."""
        if not self.request.body.get("stream"):
            return
        if not self._stream:
            self._stream = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
            await self._stream.prepare(self._http)
        await self._stream.write(line)

    async def event(self, event: dict[str, Any]) -> None:
        """Send one object of the stream."""
        await self.write(b"data: " + json.dumps(event, ensure_ascii=False).encode() + b"\n\n")

    async def delta(self, delta: dict[str, str]) -> None:
        """Send a piece."""
        await self.event(self._frame([{"index": 0, "delta": delta, "finish_reason": None}]))

    async def finish(self, reason: str) -> None:
        """Say why the answer ends."""
        self.finish_reason = reason
        await self.event(self._frame([{"index": 0, "delta": {}, "finish_reason": reason}]))

    async def use(self, usage: dict[str, int]) -> None:
        """Tell the figures, where the client asked for them."""
        self.usage = usage
        if self.request.body.get("stream_options", {}).get("include_usage"):
            await self.event({**self._frame([]), "usage": usage})

    def abort(self) -> None:
        """Break the connection, without a word."""
        self.request.end("cut")
        if self._http.transport:
            self._http.transport.abort()

    def _frame(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        model = self.request.body.get("model", "")
        return {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "created": CREATED,
            "model": model,
            "choices": choices,
        }

    def _whole(self) -> dict[str, Any]:
        message = {"role": "assistant", "content": self.text}
        if self.reasoning:
            message["reasoning_content"] = self.reasoning
        choice = {"index": 0, "message": message, "finish_reason": self.finish_reason}
        return {**self._frame([choice]), "object": "chat.completion", "usage": self.usage}


class Model:
    """The server. `async with Model() as model:` opens it on a free port; `model.url` is the base URL."""

    def __init__(self, *models: str) -> None:
        self.own = models or ("gpt-4o-mini",)
        self.models: tuple[str, ...] | None = self.own  # None: it has no list
        self.gate: Gate | None = None  # before the list
        self.continues = False  # a given beginning, as vLLM and llama.cpp do
        self.questions = 0  # whether it does
        self.requests: list[Request] = []
        self.summaries: list[Request] = []  # what asked for one: the others' script is not for them
        self.titles: list[Request] = []  # what asked for one, likewise
        self.port = 0
        self._script: list[Answer | Refusal] = []
        self._summaries: list[Answer] = []
        self._titles: list[Answer | Refusal] = []
        self._handed = 0
        self._bell = Bell()
        self._runner: web.AppRunner | None = None
        self._site: web.TCPSite | None = None

    @property
    def url(self) -> str:
        """What OPENAI_BASE_URL is set to."""
        return f"{self.endpoint}/v1"

    @property
    def endpoint(self) -> str:
        """Where it is, as Azure's resources are named."""
        return f"http://127.0.0.1:{self.port}"

    # What it will do

    def answer(
        self,
        *steps: str | Step,
        finish_reason: str | None = "stop",
        usage: dict[str, int] | None = None,
        done: bool = True,
        to: str | None = None,
        times: int = 1,
    ) -> Answer:
        """Enqueue an answer.

        `to`: only to a prompt that contains this text. `usage`: None counts words, {} sends no figures.
        `finish_reason` None leaves it out, `done` False leaves out the [DONE]. `times`: for so many requests.
        """
        played = [Text(step) if isinstance(step, str) else step for step in steps]
        answer = Answer(played, finish_reason, usage, done, to, times)
        self._script.append(answer)
        return answer

    def summarise(self, *steps: str | Step) -> None:
        """Enqueue a summary; where none is enqueued, the third that is asked for is "Memory 3."."""
        self._summaries.append(Answer([Text(step) if isinstance(step, str) else step for step in steps]))

    def name(self, *steps: str | Step) -> None:
        """Enqueue a title; where none is enqueued, the third that is asked for is "Title 3"."""
        self._titles.append(Answer([Text(step) if isinstance(step, str) else step for step in steps]))

    def refuse_name(self, status: int) -> None:
        """Enqueue an HTTP error in the place of a title."""
        self._titles.append(Refusal(status, {"error": {"message": "The request was refused."}}))

    def refuse(
        self,
        status: int,
        *,
        code: str | None = None,
        message: str = "The request was refused.",
        retry_after: float | str | None = None,
        to: str | None = None,
        times: int = 1,
    ) -> None:
        """Enqueue an HTTP error; a client that retries needs `times`."""
        headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        body = {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}}
        self._script.append(Refusal(status, body, headers, to, times))

    def refuse_length(self, *, to: str | None = None, times: int = 1) -> None:
        """Enqueue the error for a context that is too long."""
        message = "This model's maximum context length is 8192 tokens."
        self.refuse(400, code="context_length_exceeded", message=message, to=to, times=times)

    def hang(self, *, to: str | None = None, times: int = 1) -> None:
        """Enqueue no answer at all: not even a status line."""
        self.answer(SILENCE, to=to, times=times)

    async def close_door(self) -> None:
        """Refuse connections, and break those there are, until `open_door`."""
        if self._site:
            await self._site.stop()
            self._site = None
        self._hang_up()

    async def open_door(self) -> None:
        """Listen (again), always on the same port."""
        assert self._runner
        self._site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await self._site.start()
        self.port = self._runner.addresses[0][1]

    def forget_script(self) -> None:
        """Forget what it would do."""
        self._script.clear()

    async def reset(self) -> None:
        """Forget script and requests, break what is under way, open the door."""
        self._script.clear()
        self.requests.clear()
        self.summaries.clear()
        self._summaries.clear()
        self.titles.clear()
        self._titles.clear()
        self.continues = False
        self.models, self.gate = self.own, None
        self.questions = 0
        self._handed = 0
        self._hang_up()
        if not self._site:
            await self.open_door()

    # What it was asked

    async def asked(self, *, seconds: float = 30) -> Request:
        """Return the next request that this has not returned yet."""
        await self._bell.until(
            lambda: len(self.requests) > self._handed,
            seconds=seconds,
            what=lambda: f"the model is asked once more than {self._handed} times",
        )
        self._handed += 1
        return self.requests[self._handed - 1]

    async def asked_summary(self, number: int, *, seconds: float = 30) -> Request:
        """Return the request for the first, second … summary."""
        await self._bell.until(
            lambda: len(self.summaries) >= number,
            seconds=seconds,
            what=lambda: f"a summary is asked for {number} times; it was {len(self.summaries)} times",
        )
        return self.summaries[number - 1]

    async def asked_title(self, number: int, *, seconds: float = 30) -> Request:
        """Return the request for the first, second … title."""
        await self._bell.until(
            lambda: len(self.titles) >= number,
            seconds=seconds,
            what=lambda: f"a title is asked for {number} times; it was {len(self.titles)} times",
        )
        return self.titles[number - 1]

    # How it runs

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_post("/v1/chat/completions", self._completions)
        app.router.add_post("/openai/deployments/{deployment}/chat/completions", self._completions)  # Azure
        app.router.add_get("/v1/models", self._models)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1, access_log=None)
        await self._runner.setup()
        await self.open_door()
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner
        await self.close_door()
        await self._runner.cleanup()

    def _hang_up(self) -> None:
        if self._runner and self._runner.server:
            for connection in self._runner.server.connections:
                connection.force_close()

    async def _models(self, http: web.Request) -> web.Response:
        if self.gate is not None:
            self.gate.reached.set()
            await self.gate.opened()
        if self.models is None:
            return web.json_response({"error": {"message": "Not found."}}, status=404)
        models = [
            {"id": name, "object": "model", "created": CREATED, "owned_by": "tests"} for name in self.models
        ]
        return web.json_response({"object": "list", "data": models})

    async def _completions(self, http: web.Request) -> web.StreamResponse:
        peer = http.transport and http.transport.get_extra_info("peername")
        request = Request(await http.json(), dict(http.headers), peer, http.path_qs)
        if request.asks_how:
            self.questions += 1
            return self._say_how(request)
        if self.continues and request.body.get("continue_final_message"):
            request.kept = as_text(request.messages[-1]["content"])
        of_its_kind = self.titles if request.asks_title else self.requests
        (self.summaries if request.asks_summary else of_its_kind).append(request)
        self._bell.ring()
        with following(request):
            return await self._respond(http, request)

    async def _respond(self, http: web.Request, request: Request) -> web.StreamResponse:
        next_one: Answer | Refusal
        if request.asks_summary:
            next_one = self._next_summary()
        else:
            next_one = self._next_title() if request.asks_title else self._next(request)
        if isinstance(next_one, Refusal):
            return web.json_response(next_one.body, status=next_one.status, headers=next_one.headers)
        answering = Answering(http, request)
        with suppress(Ended):
            await next_one.play(answering)
        return answering.response()

    def _say_how(self, request: Request) -> web.Response:
        """Refuse the question as servers do that go on from a given beginning; or ignore it, as others do."""
        if self.continues and request.body.get("continue_final_message"):
            words = "Cannot set both add_generation_prompt and continue_final_message to true."
            error = {"error": {"code": 400, "message": words, "type": "invalid_request_error"}}
            return web.json_response(error, status=400)
        return web.json_response({"object": "chat.completion", "choices": []})

    def _next_summary(self) -> Answer:
        if self._summaries:
            return self._summaries.pop(0)
        return Answer([Text(f"Memory {len(self.summaries)}.")])

    def _next_title(self) -> Answer | Refusal:
        return self._titles.pop(0) if self._titles else Answer([Text(f"Title {len(self.titles)}")])

    def _next(self, request: Request) -> Answer | Refusal:
        for index, candidate in enumerate(self._script):
            if candidate.meets(request):
                candidate.times -= 1
                if candidate.times == 0:
                    del self._script[index]
                return candidate
        return Answer([Text(piece) for piece in pieces(echo(request.prompt))])


@contextmanager
def following(request: Request) -> Iterator[None]:
    """Note how a request ends."""
    try:
        yield
        request.end("answered")
    except (asyncio.CancelledError, ConnectionError):
        request.end("closed")
        raise


def echo(prompt: str) -> str:
    """Return the answer to a prompt for which none is enqueued."""
    return f"You said: **{prompt}**"


def pieces(text: str) -> list[str]:
    """Cut a text into words with the space after them, as a model does."""
    return re.findall(r"\S+\s*|\s+", text)


def as_text(content: str | list[dict[str, Any]]) -> str:
    """Return the text of a message's content, which may be a list of parts."""
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content)


def counted(answering: Answering) -> dict[str, int]:
    """Return figures as a provider would: here a token is a word."""
    asked = sum(len(as_text(message["content"] or "").split()) for message in answering.request.messages)
    said = len((answering.reasoning + answering.text).split())
    return {"prompt_tokens": asked, "completion_tokens": said, "total_tokens": asked + said}
