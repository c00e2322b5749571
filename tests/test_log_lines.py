"""Lines of the log: an object each, what they are about, and nothing of what came."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import sys
import threading
import warnings
from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest
from redis.exceptions import ResponseError

from llmchat.errors import NotFound
from llmchat.log_lines import QUIET, Json, Text, configure, pseudonym, told
from llmchat.serve import _log_bug
from llmchat.settings import Settings
from llmchat.subject import Subject, concerns, subject

KEY = "k" * 32
SESSION = "5e55" * 8
CANARY = "canary-of-a-prompt"

log = logging.getLogger("llmchat.tests")


@pytest.fixture(autouse=True)
def _about_nothing() -> Iterator[None]:
    """Leave what a test is about to itself."""
    before = subject.set(Subject())
    yield
    subject.reset(before)


@pytest.fixture
def _restored() -> Iterator[None]:
    """Leave logging as it was."""
    root, raises = logging.getLogger(), logging.raiseExceptions
    handlers, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in QUIET}
    hooks = sys.excepthook, threading.excepthook, sys.unraisablehook
    root.handlers = []  # pytest's own: `configure` would close them
    yield
    logging.captureWarnings(False)
    logging.raiseExceptions = raises
    root.handlers, root.level = handlers, level
    for name, its in levels.items():
        logging.getLogger(name).setLevel(its)
    sys.excepthook, threading.excepthook, sys.unraisablehook = hooks


class Fragile:
    """Fails when it is cleared away."""

    def __del__(self) -> None:
        raise ValueError(CANARY)


def record(message: str, *args: object, error: BaseException | None = None) -> logging.LogRecord:
    found = (type(error), error, error.__traceback__) if error else None
    return logging.LogRecord("llmchat.room", logging.WARNING, "room.py", 1, message, args, found)


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    """Raise an error, as some code would."""
    try:
        raise error from cause
    except type(error) as found:
        return found


async def test_line_is_one_object_with_what_it_is_about_and_nothing_that_is_not_there() -> None:
    made = Json(KEY, "i1")
    plain = json.loads(made.format(record("One\nline: %s", "“two”")))
    assert plain.keys() == {"time", "level", "logger", "message", "instance", "version"}
    assert (plain["level"], plain["logger"], plain["instance"]) == ("warning", "llmchat.room", "i1")
    assert plain["message"] == "One\nline: “two”"
    assert datetime.fromisoformat(plain["time"]).utcoffset() == timedelta(0)

    async def turn() -> str:
        concerns(session=SESSION, conversation="c1", turn="a1")
        return made.format(record("Said"))

    subject.set(Subject(request="r1"))
    line = await asyncio.create_task(turn())
    about = json.loads(line)
    assert "\n" not in line
    assert SESSION not in line
    assert [about[name] for name in ("request", "session", "conversation", "turn")] == [
        "r1", pseudonym(KEY, SESSION), "c1", "a1"
    ]  # fmt: skip
    assert subject.get() == Subject(request="r1")  # of another task


def test_line_has_no_field_that_a_library_adds() -> None:
    odd = record("Said")
    odd.body = CANARY
    assert CANARY not in Json(KEY, "i1").format(odd)


def test_pseudonym_is_of_the_key_and_the_session() -> None:
    assert re.fullmatch(r"[0-9a-f]{12}", pseudonym(KEY, SESSION))
    others = {pseudonym(KEY, SESSION), pseudonym("l" * 32, SESSION), pseudonym(KEY, SESSION[::-1])}
    assert len(others) == 3


@pytest.mark.parametrize(
    "error",
    [
        ValueError(CANARY),
        KeyError(CANARY),
        UnicodeDecodeError("utf-8", CANARY.encode(), 0, 1, CANARY),
        ResponseError(f"unknown command, with args beginning with: {CANARY}"),
        json.JSONDecodeError(CANARY, CANARY, 0),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("formatter", [Json(KEY, "i1"), Text()], ids=["json", "text"])
def test_message_of_an_exception_that_may_quote_what_came_is_left_out(
    formatter: logging.Formatter, error: Exception
) -> None:
    for found in (
        raised(error),
        raised(NotFound("Not here."), error),
        raised(ExceptionGroup("Some failed", [error, raised(NotFound("Not here."), error)])),
    ):
        line = formatter.format(record("It failed.", error=found))
        assert type(error).__name__ in line
        assert "test_log_lines.py" in line
        assert CANARY not in line


def test_message_of_an_exception_is_told_where_it_is_ours_or_pythons_own() -> None:
    assert told(raised(NotFound("There is nothing."))).endswith("NotFound: There is nothing.")
    assert told(raised(AttributeError("'str' object has no attribute 'x'"))).endswith("no attribute 'x'")
    both = told(raised(RuntimeError("second"), raised(TypeError("first"))))
    assert re.search(
        r"TypeError: first\n\nThe above exception was the direct cause .*RuntimeError: second$",
        both,
        re.DOTALL,
    )


def test_exception_that_leads_to_itself_is_told_once() -> None:
    error, other = RuntimeError("one"), RuntimeError("two")
    error.__context__, other.__context__ = other, error
    assert told(error).count("RuntimeError") == 2


def test_text_is_one_line_whatever_a_message_holds() -> None:
    subject.set(Subject(request="r1"))
    line = Text().format(record("It said: %s", "a\nforged INFO line"))
    assert "\n" not in line
    assert line.endswith("WARNING llmchat.room [r1]: It said: a\\nforged INFO line")


@pytest.mark.usefixtures("_restored")
def test_what_is_logged_warned_of_or_not_caught_goes_the_same_way(capsys: pytest.CaptureFixture[str]) -> None:
    configure(Settings(log_format="json", secret_key=KEY), "i1")
    log.debug("Not told.")
    log.info("Told.")
    log.info("%d", CANARY)  # cannot be formatted: no line, and nothing of it anywhere
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("Beware.", UserWarning, stacklevel=1)
    thread = threading.Thread(target=lambda: {}["x"])
    thread.start()
    thread.join()
    Fragile()
    error = raised(RuntimeError("over"))
    sys.excepthook(RuntimeError, error, error.__traceback__)
    out, err = capsys.readouterr()
    lines = [json.loads(line) for line in err.splitlines()]
    assert out == ""
    assert [line["exception"].splitlines()[-1] for line in lines if "exception" in line] == [
        "KeyError", "ValueError", "RuntimeError: over"
    ]  # fmt: skip
    assert [(line["level"], line["logger"]) for line in lines] == [
        ("info", "llmchat.tests"),
        ("warning", "py.warnings"),
        ("error", "llmchat.log_lines"),
        ("error", "llmchat.log_lines"),
        ("critical", "llmchat.log_lines"),
    ]
    assert "Beware." in lines[1]["message"]
    assert CANARY not in err


@pytest.mark.usefixtures("_restored")
def test_text_is_for_a_person(capsys: pytest.CaptureFixture[str]) -> None:
    configure(Settings(log_format="text", secret_key=KEY, debug=True), "i1")
    log.debug("Told.")
    assert capsys.readouterr().err.endswith("DEBUG llmchat.tests [-]: Told.\n")


def test_bug_that_asyncio_finds_is_told_without_what_a_callback_was_given(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail() -> None:
        raise RuntimeError("ours")

    async def run() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(_log_bug)
        task = loop.create_task(fail(), name="turn c1")
        await asyncio.wait([task])
        del task
        loop.call_soon({}.__getitem__, CANARY)
        cut = loop.create_future()
        loop.call_exception_handler({"message": "Cut.", "exception": asyncio.CancelledError(), "future": cut})

    asyncio.run(run())
    assert caplog.messages == ["Task exception was never retrieved (turn c1)", "A callback failed."]
    assert all(found.exc_info for found in caplog.records)
