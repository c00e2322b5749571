"""The model server, asked for answers, in every mood it may have: the table of docs/protocol.md row by row."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import re
import traceback
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from llmchat import model_server, model_stream
from llmchat.completion import Completions
from llmchat.model_server import NO_KEY, RETRIES
from llmchat.model_stream import ModelStream, read_from
from llmchat.turn import Delta
from tests.asking import KEY, PROMPT, SOON, ask, ask_until_error, asking, opened, provider, text_of, whole
from tests.fakes import CUT, SILENCE, Drip, Failure, Gate, Line, Model, Reasoning
from tests.steps import Babble, Pause, Repeated, Step
from tests.waiting import within


@pytest.fixture
async def completions(model: Model) -> AsyncIterator[Completions]:
    async with opened(model) as completions:
        yield completions


def piece(**delta: Any) -> Line:
    return Line("data: " + json.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}))


# What is asked


async def test_model_is_asked_with_key_context_and_parameters(model: Model, completions: Completions) -> None:
    await ask(completions, temperature=0.2, max_tokens=100)
    request = await model.asked()
    assert request.headers["Authorization"] == f"Bearer {KEY}"
    assert request.body == {
        "model": "gpt-4o-mini",
        "messages": PROMPT,
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.2,
        "max_tokens": 100,
    }


async def test_model_is_asked_without_a_key_when_it_needs_none(model: Model) -> None:
    async with opened(model, None) as keyless:
        await ask(keyless)
    assert (await model.asked()).headers["Authorization"] == f"Bearer {NO_KEY}"


async def test_model_is_not_asked_when_nobody_reads(model: Model, completions: Completions) -> None:
    async with completions.stream("gpt-4o-mini", PROMPT, {}):
        pass
    assert model.requests == []


# What comes


async def test_answer_comes_in_deltas_with_its_reason_and_its_figures(
    model: Model, completions: Completions
) -> None:
    model.answer("Hello, ", "world", usage={"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11})
    usage = {"prompt_tokens": 9, "completion_tokens": 2}
    assert await ask(completions) == Delta("Hello, world", finish_reason="stop", usage=usage)


@pytest.mark.parametrize("reason", ["stop", "length", "content_filter"])
async def test_answer_ends_with_the_models_reason(
    model: Model, completions: Completions, reason: str
) -> None:
    model.answer("Hello", finish_reason=reason, usage={})
    assert (await ask(completions)).finish_reason == reason


@pytest.mark.parametrize(
    ("usage", "figures"),
    [
        ({"prompt_tokens": 9}, {"prompt_tokens": 9}),
        ({"prompt_tokens": "9", "completion_tokens": 2}, {"completion_tokens": 2}),
        ({"prompt_tokens": None}, None),
        ({"prompt_tokens": 10**400, "completion_tokens": -1}, None),
        ([9, 2], None),
    ],
)
async def test_figures_are_only_those_that_are_numbers(
    model: Model, completions: Completions, usage: Any, figures: dict[str, int] | None
) -> None:
    model.answer("Hello", Line("data: " + json.dumps({"choices": [], "usage": usage})), usage={})
    assert (await ask(completions)).usage == figures


async def test_figures_may_come_with_every_piece(model: Model, completions: Completions) -> None:
    frame = {"choices": [{"delta": {"content": "Hi"}}], "usage": {"prompt_tokens": 9, "completion_tokens": 1}}
    model.answer(Line("data: " + json.dumps(frame)), usage={})
    assert (await ask(completions)).usage == {"prompt_tokens": 9, "completion_tokens": 1}


async def test_reasoning_comes_apart_from_the_text(model: Model, completions: Completions) -> None:
    model.answer(Reasoning("Hm. "), piece(reasoning="So."), "Yes", usage={})
    assert await ask(completions) == Delta("Yes", reasoning="Hm. So.", finish_reason="stop")


async def test_what_says_nothing_is_passed_over(model: Model, completions: Completions) -> None:
    said_nothing = [
        Line(": keepalive"),
        Line("data: {}"),
        Line("data: null"),
        Line('data: {"choices": []}'),
        Line('data: {"choices": null}'),
        Line('data: {"choices": [{}]}'),
        Line('data: {"choices": [{"delta": null}]}'),
        piece(role="assistant", content=""),
        piece(role="assistant", content=None),
        piece(later={"unknown": 1}),
    ]
    model.answer(*said_nothing, "Hello", usage={})
    assert await ask(completions) == Delta("Hello", finish_reason="stop")


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (r"a\ud800b", "a\ufffdb"),
        (r"\udc00", "\ufffd"),
        (r"end\ud83d", "end\ufffd"),
        (r"\ud83d\ude00", "😀"),
        (r"\ufeff\ud800", "\ufeff\ufffd"),
    ],
)
async def test_lone_surrogates_are_replaced(
    model: Model, completions: Completions, written: str, read: str
) -> None:
    model.answer(
        Line(f'data: {{"choices": [{{"delta": {{"content": "{written}", "reasoning": "{written}"}}}}]}}')
    )
    said = await ask(completions)
    assert (said.text, said.reasoning) == (read, read)


async def test_control_characters_are_dropped(model: Model, completions: Completions) -> None:
    written = "".join(map(chr, range(0x20))) + "a\x7fb"
    model.answer(piece(content=written, reasoning_content=written))
    said = await ask(completions)
    assert (said.text, said.reasoning) == ("\t\n\rab", "\t\n\rab")


async def test_answer_without_any_text_ends_with_its_reason_only(
    model: Model, completions: Completions
) -> None:
    model.answer(usage={})
    assert await ask(completions) == Delta(finish_reason="stop")


@pytest.mark.parametrize("done", [True, False])
async def test_answer_ends_without_a_reason_when_the_model_gives_none(
    model: Model, completions: Completions, done: bool
) -> None:
    model.answer("Hel", finish_reason=None, usage={}, done=done)
    assert await ask(completions) == Delta("Hel")


async def test_nothing_comes_when_the_stream_is_empty(model: Model, completions: Completions) -> None:
    model.answer(Line(": hello"), finish_reason=None, usage={}, done=False)
    assert await ask(completions) == Delta()


# What is refused


@pytest.mark.parametrize(
    ("status", "code", "retryable", "requests"),
    [
        (401, "provider_auth", False, 1),
        (403, "provider_auth", False, 1),
        (429, "provider_rate_limited", True, RETRIES + 1),
        (500, "provider_unavailable", True, RETRIES + 1),
        (502, "provider_unavailable", True, RETRIES + 1),
        (503, "provider_unavailable", True, RETRIES + 1),
        (400, "provider_refused", True, 1),
        (404, "provider_refused", True, 1),
        (422, "provider_refused", True, 1),
    ],
)
async def test_refusal_becomes_an_error_after_the_retries_it_is_worth(
    model: Model, completions: Completions, status: int, code: str, retryable: bool, requests: int
) -> None:
    model.refuse(status, retry_after=SOON, times=RETRIES + 1)
    deltas, error = await ask_until_error(completions)
    assert deltas == []
    assert (error.code, error.retryable) == (code, retryable)
    assert error.detail
    assert len(model.requests) == requests


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_answer_comes_when_a_retry_succeeds(
    model: Model, completions: Completions, status: int
) -> None:
    model.refuse(status, retry_after=SOON, times=RETRIES)
    model.answer("Hello")
    assert (await ask(completions)).text == "Hello"
    assert len(model.requests) == RETRIES + 1


async def test_retry_comes_when_the_model_server_asked_for_it(
    model: Model, completions: Completions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_server, "RETRY_SECONDS", 3600)
    model.refuse(503, retry_after=SOON, times=RETRIES)
    model.answer("Hello")
    async with within(10, "the retries are made"):
        assert (await ask(completions)).text == "Hello"


async def test_retry_comes_at_once_where_the_model_server_has_no_wait(
    model: Model, completions: Completions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_server, "RETRY_SECONDS", 3600)
    model.refuse(503, retry_after=0)
    model.answer("Hello")
    async with within(10, "the retry is made"):
        assert (await ask(completions)).text == "Hello"


async def test_rate_limit_tells_how_long_to_wait_until_a_date(model: Model) -> None:
    later = datetime.now(UTC) + timedelta(seconds=3600)
    model.refuse(429, retry_after=format_datetime(later, usegmt=True))
    async with opened(model) as completions:
        _, error = await ask_until_error(completions)
    assert error.retry_after == pytest.approx(3600, abs=60)


async def test_rate_limit_tells_how_long_to_wait(model: Model, completions: Completions) -> None:
    model.refuse(429, retry_after=SOON, times=RETRIES + 1)
    _, error = await ask_until_error(completions)
    assert error.retry_after == SOON


async def test_rate_limit_is_told_as_such_when_its_wait_is_longer_than_our_patience(model: Model) -> None:
    async with opened(model, first=1.0) as completions:
        model.refuse(429, retry_after=30, times=RETRIES + 1)
        _, error = await ask_until_error(completions)
        assert (error.code, error.retry_after) == ("provider_rate_limited", 30)


@pytest.mark.parametrize(
    "wait",
    [
        float("inf"),
        float("nan"),
        -1.0,
        "soon",
        "",
        "Thu, 01 Jan 1970 00:00:00 GMT",
        "Thu, 41 Jan 1970 00:00:00 GMT",
    ],
)
async def test_rate_limit_tells_only_a_wait_that_json_has(
    model: Model, monkeypatch: pytest.MonkeyPatch, wait: float | str
) -> None:
    monkeypatch.setattr(model_server, "RETRIES", 0)
    model.refuse(429, retry_after=wait)
    async with opened(model) as completions:
        _, error = await ask_until_error(completions)
    assert error.code == "provider_rate_limited"
    assert error.retry_after in (None, 0)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("context_length_exceeded", "Shorten."),
        ("exceed_context_size_error", "Shorten."),
        (None, "This model's maximum context length is 8192 tokens."),
        (None, "The input token count (9000) exceeds the maximum number of tokens allowed (8192)."),
        (None, "prompt is too long: 9000 tokens > 8192 maximum"),
    ],
)
async def test_context_that_is_too_long_is_told_apart(
    model: Model, completions: Completions, code: str | None, message: str
) -> None:
    model.refuse(400, code=code, message=message)
    _, error = await ask_until_error(completions)
    assert (error.code, error.retryable) == ("context_too_long", False)
    assert len(model.requests) == 1


async def test_model_server_that_is_down_is_unavailable(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_server, "RETRIES", 1)
    async with opened(model) as completions:
        await model.close_door()
        _, error = await ask_until_error(completions)
        assert (error.code, error.retryable) == ("provider_unavailable", True)
        await model.open_door()
        assert (await ask(completions)).text == "You said: **Hi**"


# What breaks off

BROKEN: list[tuple[Step, str]] = [
    (CUT, "provider_unavailable"),
    (Failure(), "provider_refused"),
    (Line("data: {broken"), "provider_refused"),
    (Line('data: {"choices": {"delta": 7}}'), "provider_refused"),
    (Line('data: {"choices": ["Hello"]}'), "provider_refused"),
    (piece(content=["Hello"]), "provider_refused"),
    (piece(content=7), "provider_refused"),
]


@pytest.mark.parametrize(("step", "code"), BROKEN)
async def test_answer_breaks_off_in_an_error_after_some_text(
    model: Model, completions: Completions, step: Step, code: str
) -> None:
    model.answer("Hel", step, "lo")
    deltas, error = await ask_until_error(completions)
    assert deltas == [Delta("Hel")]
    assert (error.code, error.retryable) == (code, True)
    assert len(model.requests) == 1


@pytest.mark.parametrize(("step", "code"), BROKEN)
async def test_answer_breaks_off_in_an_error_before_any_text(
    model: Model, completions: Completions, step: Step, code: str
) -> None:
    model.answer(piece(role="assistant", content=""), step, "lo")
    deltas, error = await ask_until_error(completions)
    assert deltas == []
    assert (error.code, error.retryable) == (code, True)
    assert len(model.requests) == 1


async def test_reason_that_is_no_text_is_no_reason(model: Model, completions: Completions) -> None:
    odd = {"choices": [{"delta": {"content": "Hi"}, "finish_reason": {"type": "stop"}}]}
    model.answer(Line("data: " + json.dumps(odd)), Failure())
    deltas, _ = await ask_until_error(completions)
    assert all(delta.finish_reason is None for delta in deltas)


@pytest.mark.parametrize("step", [SILENCE, Drip(0.02)])
@pytest.mark.parametrize("before", [[], [piece(role="assistant", content="")]])
async def test_answer_times_out_before_its_first_delta(model: Model, before: list[Step], step: Step) -> None:
    async with opened(model, first=0.2) as completions:
        model.answer(*before, step)
        deltas, error = await ask_until_error(completions)
        assert deltas == []
        assert (error.code, error.retryable) == ("provider_timeout", True)
        await (await model.asked()).closed()
        assert len(model.requests) == 1


@pytest.mark.parametrize("step", [SILENCE, Drip(0.02)])
@pytest.mark.parametrize("constant", ["between", "answer"])
async def test_answer_times_out_after_some_text(model: Model, constant: str, step: Step) -> None:
    async with opened(model, **{constant: 0.4}) as completions:
        model.answer("Hel", step, "lo")
        deltas, error = await ask_until_error(completions)
        assert deltas == [Delta("Hel")]
        assert error.code == "provider_timeout"
        await (await model.asked()).closed()


@pytest.mark.parametrize("every", [0.0, 0.05, 0.2])
async def test_answer_times_out_when_it_never_ends(model: Model, every: float) -> None:
    async with opened(model, answer=0.5) as completions, asyncio.timeout(20):
        model.answer(Babble("on and ", pause_seconds=0.02))
        deltas, error = await ask_until_error(completions, every)
        assert text_of(deltas).startswith("on and on and ")
        assert error.code == "provider_timeout"
        await (await model.asked()).closed()


@pytest.mark.parametrize(
    "after", [Drip(0.02), Repeated('data: {"choices": [], "usage": {"prompt_tokens": 9}}', 0.02)]
)
async def test_figures_are_not_waited_for_long(
    model: Model, monkeypatch: pytest.MonkeyPatch, after: Step
) -> None:
    monkeypatch.setattr(model_stream, "USAGE_SECONDS", 0.1)
    async with opened(model, between=300) as completions:
        end = Line('data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}')
        model.answer("Hello", end, after)
        async with within(10, "the stream is given up"):
            said = await ask(completions)
        assert (said.text, said.finish_reason) == ("Hello", "stop")
        await (await model.asked()).closed()


async def test_slow_reader_is_not_struck_by_the_models_deadlines(model: Model) -> None:
    async with opened(model, between=0.3) as completions:
        model.answer("Hello, ", "world")
        got: list[Delta] = []
        passed = asyncio.Event()
        async with completions.stream("gpt-4o-mini", PROMPT, {}) as deltas:
            async for delta in deltas:
                if not got:
                    asyncio.get_running_loop().call_later(0.4, passed.set)
                    await passed.wait()
                got.append(delta)
        assert text_of(got) == "Hello, world"


async def test_silence_between_two_tokens_may_be_longer_than_that_before_the_first(model: Model) -> None:
    async with opened(model, first=1.0, between=30.0) as completions:
        model.answer("Hello, ", Pause(1.5), "world")
        assert (await ask(completions)).text == "Hello, world"


# What comes while nobody looks


async def test_pieces_that_come_meanwhile_are_one(model: Model, completions: Completions) -> None:
    said = [f"{number} " for number in range(60)]
    model.answer(*(step for word in said for step in (word, Pause(0.005))))
    async with completions.stream("m", PROMPT, {}, every=lambda: 0.1) as deltas:
        got = [delta async for delta in deltas]
    assert whole(got) == Delta("".join(said), finish_reason="stop", usage=got[-1].usage)
    assert len(got) < len(said) / 2


async def test_nothing_is_read_meanwhile(model: Model, completions: Completions) -> None:
    model.answer("Hello", SILENCE)
    (server,) = completions._servers.values()
    stream = await server._post({"model": "m", "messages": PROMPT, "stream": True})
    protocol, transport, body = read_from(stream.response)
    assert body is not None
    assert protocol is not None  # else another version of the libraries has it elsewhere
    collecting = asyncio.create_task(ModelStream(stream, 30, 300, lambda: 0.0)._collect(0.05))
    await asyncio.sleep(0)
    assert not transport.is_reading()
    await collecting
    assert transport.is_reading()
    await stream.close()


async def test_answer_that_comes_fast_is_not_held_up(model: Model, completions: Completions) -> None:
    said = "word " * 100_000
    model.answer(said)
    asked = 0

    def every() -> float:
        nonlocal asked
        asked += 1
        return 0.01

    async with completions.stream("m", PROMPT, {}, every=every) as deltas:
        assert text_of([delta async for delta in deltas]) == said
    assert asked <= 3


@pytest.mark.parametrize(("step", "code"), [(CUT, "provider_unavailable"), (Failure(), "provider_refused")])
async def test_what_breaks_off_meanwhile_comes_with_its_text(
    model: Model, completions: Completions, step: Step, code: str
) -> None:
    model.answer("Hel", "lo", Pause(0.02), ", world", step)
    got, error = await ask_until_error(completions, every=0.1)
    assert (text_of(got), error.code) == ("Hello, world", code)


async def test_connection_serves_the_next_answer(model: Model, completions: Completions) -> None:
    for _ in range(3):
        await ask(completions)
    assert len({request.peer for request in model.requests}) == 1


# Leaving


async def test_model_is_left_when_its_reader_leaves(model: Model, completions: Completions) -> None:
    model.answer("Hel", SILENCE)
    async with completions.stream("gpt-4o-mini", PROMPT, {}) as deltas:
        assert await anext(deltas) == Delta("Hel")
    await (await model.asked()).closed()


@pytest.mark.parametrize("before", [[], ["Hel"]])
async def test_model_is_left_when_its_reader_is_cancelled(
    model: Model, completions: Completions, before: list[str]
) -> None:
    gate = Gate()
    model.answer(*before, gate, "lo")
    reading = asyncio.create_task(ask(completions))
    await gate.wait()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    await (await model.asked()).closed()


async def test_model_is_left_when_its_reader_fails(model: Model, completions: Completions) -> None:
    async def read() -> None:
        async with completions.stream("gpt-4o-mini", PROMPT, {}) as deltas:
            async for _ in deltas:
                raise ZeroDivisionError

    model.answer("Hel", SILENCE)
    with pytest.raises(ZeroDivisionError):
        await read()
    await (await model.asked()).closed()


async def test_model_is_asked_again_after_many_left(model: Model, completions: Completions) -> None:
    model.answer("Hel", SILENCE, times=20)
    for _ in range(20):
        async with completions.stream("gpt-4o-mini", PROMPT, {}) as deltas:
            await anext(deltas)
    assert (await ask(completions)).text == "You said: **Hi**"


async def test_reading_leaves_no_tasks_behind(model: Model, completions: Completions) -> None:
    model.answer(*["word "] * 50)
    async with completions.stream("gpt-4o-mini", PROMPT, {}) as deltas:
        await anext(deltas)
        before = len(asyncio.all_tasks())
        most = before
        async for _ in deltas:
            most = max(most, len(asyncio.all_tasks()))
    assert most <= before


# Secrets


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500])
async def test_error_has_no_word_of_the_providers_and_no_key(
    model: Model, completions: Completions, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    caplog.set_level(logging.INFO)
    model.refuse(status, message=f"Incorrect API key provided: {KEY}.", retry_after=SOON, times=RETRIES + 1)
    _, error = await ask_until_error(completions)
    told = f"{error!r} {error.detail} {caplog.text} {traceback.format_exception(error)}"
    assert KEY not in told
    assert "Incorrect" not in told


@pytest.mark.parametrize("step", [Failure(message=f"The key {KEY} did it."), Line(f"data: {{{KEY}")])
async def test_error_in_the_stream_has_no_word_of_the_providers(
    model: Model, completions: Completions, caplog: pytest.LogCaptureFixture, step: Step
) -> None:
    caplog.set_level(logging.INFO)
    model.answer("Hel", step)
    _, error = await ask_until_error(completions)
    assert KEY not in f"{error!r} {error.detail} {caplog.text} {traceback.format_exception(error)}"


@pytest.mark.parametrize("seed", range(5))
async def test_events_that_are_cut_anywhere_are_whole_and_their_connection_is_used_again(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_stream, "DRAIN_SECONDS", 30)  # a busy machine takes longer than a model server
    chance, connections = random.Random(seed), 0
    words = [f"word{number} " for number in range(60)]
    events = [{"choices": [{"delta": {"content": word}, "finish_reason": None}]} for word in words]
    events.append({"choices": [{"delta": {}, "finish_reason": "stop"}]})
    body = "".join(f"data: {json.dumps(event)}\n\n" for event in events).encode() + b"data: [DONE]\n\n"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"content-length: (\d+)", head.lower())
                assert length
                await reader.readexactly(int(length[1]))
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
                )
                at = 0
                while at < len(body):
                    # The last events come together, and the end of the body behind them.
                    piece = body[at:] if len(body) - at < 400 else body[at : at + chance.randrange(1, 300)]
                    at += len(piece)
                    writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                    await asyncio.sleep(chance.choice((0, 0, 0.002, 0.02)))
                await asyncio.sleep(0.05)  # the end comes behind what was read while reading was paused
                writer.write(b"0\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with asking(provider(f"http://127.0.0.1:{port}/v1"), first=10.0, between=5.0) as completions:
            for _ in range(3):
                async with completions.stream("m", PROMPT, {}, every=lambda: 0.05) as deltas:
                    got = [delta async for delta in deltas]
                assert text_of(got) == "".join(words)
                assert got[-1].finish_reason == "stop"
    assert connections == 1
