"""Pages beside the chat and their forms, on an app in this process and a fake Redis; real ones are in tests/instances/."""

from __future__ import annotations

import asyncio
import gc
import io
import json
import struct
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from html import unescape
from types import SimpleNamespace
from typing import Any, BinaryIO
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from fakeredis import FakeAsyncRedis
from quart import Quart, Response
from quart.testing import QuartClient

from llmchat import app as composition
from llmchat.access import Access
from llmchat.app import create_app
from llmchat.blueprints import forms, options, takeout
from llmchat.blueprints.attachments import until_gone
from llmchat.blueprints.rooms import Rooms
from llmchat.conversation import Conversation
from llmchat.errors import RateLimited, Unavailable
from llmchat.settings import Settings
from llmchat.zip_file import BROKEN
from tests.instances.instance import ROOT
from tests.trunk import as_json, ours, zipped
from tests.waiting import eventually, within

LOCAL = {"Host": "localhost", "Origin": "http://localhost"}
LINES = {**LOCAL, "Accept": takeout.NDJSON}
FILE = as_json(ours())
SECRET = "0123456789" * 4
PASSWORD = "correct horse battery"
PASSWORD_ASKED = Access(PASSWORD, SECRET, ())


@pytest.fixture(scope="module")
async def app() -> AsyncIterator[Quart]:
    settings = Settings.read(
        {
            "SECRET_KEY": SECRET,
            "REDIS_URL": "redis://127.0.0.1:1/0",
            "OPENAI_BASE_URL": "http://127.0.0.1:1/v1",
            "ALLOWED_HOSTS": "localhost",
        },
        local=False,
    )
    async with FakeAsyncRedis() as redis:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(composition, "connect", lambda _: redis)
            app = create_app(settings)
        yield app


@pytest.fixture
def rooms(app: Quart) -> Rooms:
    found: Rooms = app.extensions["llmchat"]
    return found


@pytest.fixture
async def client(app: Quart) -> QuartClient:
    """A browser that has a cookie, and no chat."""
    client: QuartClient = app.test_client()
    await client.get(takeout.PATH, headers=LOCAL)
    return client


# Your data


@pytest.fixture
def slow_archive(rooms: Rooms, monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Archives that end when this is set."""
    gate = asyncio.Event()

    async def archive(session: str) -> AsyncGenerator[bytes, None]:
        yield b"first"
        await gate.wait()
        yield b"last"

    monkeypatch.setattr(rooms.takeout, "archive", archive)
    return gate


async def bring(client: QuartClient, body: bytes = FILE, headers: dict[str, str] = LINES) -> Response:
    """Send a file of chats."""
    response: Response = await client.post(
        "/import", headers={**headers, "Content-Length": str(len(body))}, data=body
    )
    return response


def fail(error: Exception) -> Callable[..., Any]:
    """Make what cannot be done, awaited or not."""

    async def later(*_: Any, **__: Any) -> None:
        raise error

    return later


async def test_second_archive_is_refused_in_words_while_the_first_is_made(
    client: QuartClient, slow_archive: asyncio.Event, rooms: Rooms
) -> None:
    async with within(10, "both are answered"), client.request("/export", headers=LOCAL) as first:
        await first.send_complete()
        assert await first.receive() == b"first"
        second = await client.get("/export", headers=LOCAL)
        assert second.status_code == 429
        assert second.headers["Retry-After"] == "1"
        assert takeout.ONE_ARCHIVE in await second.get_data(as_text=True)
        slow_archive.set()
    assert bytes(first.response_data) == b"last"
    assert not rooms.uploads


def cookies(client: QuartClient) -> dict[str, str]:
    """Give what a browser has, in one header."""
    jar = client.cookie_jar or ()
    return {**LOCAL, "Cookie": "; ".join(f"{each.name}={each.value}" for each in jar)}


async def test_second_archive_is_refused_also_before_the_first_is_on_its_way(
    app: Quart, client: QuartClient, rooms: Rooms, slow_archive: asyncio.Event
) -> None:
    slow_archive.set()
    async with app.test_request_context("/export", headers=cookies(client)):
        first, second = await takeout.every(), await takeout.every()
    assert isinstance(first, Response)
    assert isinstance(second, Response)
    assert second.status_code == 429
    assert takeout.ONE_ARCHIVE in await second.get_data(as_text=True)
    assert await first.get_data() == b"firstlast"
    assert not rooms.uploads


async def test_archive_that_never_gets_on_its_way_counts_no_more(
    app: Quart, client: QuartClient, rooms: Rooms, slow_archive: asyncio.Event
) -> None:
    async with app.test_request_context("/export", headers=cookies(client)):
        first: Any = [await takeout.every()]
        assert rooms.uploads["archives"] == 1
    first.clear()
    gc.collect()
    await eventually(lambda: _true(not rooms.uploads), seconds=30, what="it is let go of")


async def test_file_that_is_not_read_on_is_let_go_of_at_once() -> None:
    ended: list[str] = []
    pieces = slow(ended)
    outer = until_gone(pieces, None)
    assert await anext(outer) == b"first"
    await outer.aclose()
    assert ended == ["ended"]


async def slow(ended: list[str]) -> AsyncGenerator[bytes, None]:
    """Give a piece, and note when nobody wants another."""
    try:
        yield b"first"
        yield b"last"
    finally:
        ended.append("ended")


async def test_archive_counts_no_more_when_whoever_asked_has_left(
    client: QuartClient, slow_archive: asyncio.Event, rooms: Rooms
) -> None:
    async with within(10, "it is let go of"):
        async with client.request("/export", headers=LOCAL) as first:
            await first.send_complete()
            assert await first.receive() == b"first"
            assert rooms.uploads["archives"] == 1
            await first.disconnect()
        assert not rooms.uploads


async def test_archives_may_be_refused_for_their_number_and_count_no_more_then(
    client: QuartClient, rooms: Rooms, slow_archive: asyncio.Event
) -> None:
    slow_archive.set()
    statuses = [(await client.get("/export", headers=LOCAL)).status_code for _ in range(12)]
    assert statuses[:10] == [200] * 10
    assert statuses[-1] == 429
    assert not rooms.uploads


@pytest.fixture
def without_store(rooms: Rooms, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms.limits, "take", fail(Unavailable()))
    monkeypatch.setattr(rooms.takeout, "forget", fail(Unavailable()))


@pytest.mark.usefixtures("without_store")
async def test_import_while_the_store_is_away_is_refused_in_the_words_of_the_protocol(
    client: QuartClient, rooms: Rooms
) -> None:
    answer = await bring(client)
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "1"
    assert await answer.get_json() == {"detail": Unavailable().detail}
    assert not rooms.uploads


@pytest.mark.usefixtures("without_store")
@pytest.mark.parametrize("path", ["/import", "/forget"])
async def test_form_while_the_store_is_away_is_told_in_a_page_that_is_not_fetched_again(
    client: QuartClient, path: str
) -> None:
    answer = await client.post(path, headers=LOCAL, form={"confirmed": "yes"})
    page = await answer.get_data(as_text=True)
    assert answer.status_code == 503
    assert Unavailable().detail in page
    assert 'http-equiv="refresh"' not in page
    assert f'href="{takeout.PATH}"' in page


@pytest.mark.parametrize("size", [1000, 64 * 1024, 256 * 1024, 1024 * 1024])
async def test_file_in_a_form_is_read_in_whatever_pieces_it_comes(
    client: QuartClient, rooms: Rooms, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    came: list[bytes] = []

    async def read(session: str, file: BinaryIO, size: int) -> AsyncIterator[Any]:
        file.seek(0)
        came.append(file.read())
        yield takeout.Report(done=True)

    monkeypatch.setattr(rooms.intake, "take", read)
    file = b"".join(b"%d\r\n--edg\n\r" % at for at in range(250_000))
    head = b'--edge\r\nContent-Disposition: form-data; name="file"; filename="a.json"\r\n\r\n'
    body = head + file + b"\r\n--edge--\r\n"
    headers = {
        **LINES,
        "Content-Type": "multipart/form-data; boundary=edge",
        "Content-Length": str(len(body)),
    }
    async with client.request("/import", method="POST", headers=headers) as asked:
        for start in range(0, len(body), size):
            await asked.send(body[start : start + size])
        await asked.send_complete()
        answer = await asked.as_response()
    assert answer.status_code == 200
    assert came == [file]


async def test_damaged_archive_is_told_in_words(client: QuartClient) -> None:
    body = zipped({"chats/1.json": b"{}"})
    end = body.index(b"PK\x05\x06")
    (at,) = struct.unpack_from("<I", body, end + 16)
    answer = await bring(client, body[: end + 16] + struct.pack("<I", at + 200) + body[end + 20 :])
    assert answer.status_code == 200
    told = json.loads((await answer.get_data(as_text=True)).splitlines()[-1])
    assert told["lost"] == [{"title": "", "why": BROKEN}]


async def test_import_without_room_for_a_file_is_refused_in_words(
    client: QuartClient, rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_file() -> BinaryIO:
        raise OSError

    for made in (no_file, lambda: open("/dev/full", "r+b")):  # noqa: PTH123, SIM115 - closed by whoever asked
        monkeypatch.setattr(takeout, "tempfile", SimpleNamespace(TemporaryFile=made))
        answer = await bring(client)
        assert answer.status_code == 507
        assert await answer.get_json() == {"detail": takeout.NO_ROOM}
    assert not rooms.uploads


async def test_import_that_is_refused_opens_no_file_and_any_other_closes_it(
    app: Quart, client: QuartClient, rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    files: list[BinaryIO] = []

    def made() -> BinaryIO:
        files.append(io.BytesIO())
        return files[-1]

    monkeypatch.setattr(takeout, "tempfile", SimpleNamespace(TemporaryFile=made))
    stranger = app.test_client()
    assert (await bring(stranger)).status_code == 400
    monkeypatch.setattr(rooms, "import_bytes", 1)
    assert (await bring(client)).status_code == 413
    assert files == []
    monkeypatch.setattr(rooms, "import_bytes", 1000)
    assert (await bring(client, b"hello")).status_code == 422
    assert (await bring(client)).status_code == 200
    assert [each.closed for each in files] == [True, True]


async def test_import_counts_from_its_beginning_to_its_end_without_a_gap(
    client: QuartClient, rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[int] = []
    update = rooms.uploads.update
    monkeypatch.setattr(rooms.uploads, "update", lambda names: (counted.append(1), update(names)))
    assert (await bring(client)).status_code == 200
    assert counted == [1]


async def test_import_by_form_that_takes_too_long_ends_and_says_so(
    client: QuartClient, rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = asyncio.Event()

    async def read(*_: Any) -> AsyncIterator[Any]:
        monkeypatch.setattr(takeout, "IMPORT_SECONDS", 0.01)  # the file has come
        try:
            yield takeout.Report(imported=7)
            await asyncio.Event().wait()
        finally:
            ended.set()

    monkeypatch.setattr(rooms.intake, "take", read)
    async with within(10, "it ends"):
        answer = await bring(client, headers=LOCAL)
    page = await answer.get_data(as_text=True)
    assert answer.status_code == 503
    assert takeout.TOO_LONG in page
    assert "Imported: 7." in page
    assert ended.is_set()
    assert not rooms.uploads


async def test_import_that_nobody_waits_for_any_more_counts_no_more(
    client: QuartClient, rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def read(*_: Any) -> AsyncIterator[Any]:
        yield takeout.Report()
        await asyncio.Event().wait()

    monkeypatch.setattr(rooms.intake, "take", read)
    async with within(10, "it ends"):
        async with client.request(
            "/import", method="POST", headers={**LINES, "Content-Length": "2"}
        ) as asked:
            await asked.send(b"{}")
            await asked.send_complete()
            await eventually(lambda: _true(rooms.uploads["imports"] == 1), seconds=30, what="it is counted")
            await asked.disconnect()
        assert not rooms.uploads


async def _true(told: bool) -> bool:
    return told


# Other pages beside the chat


UNSEEN = "\u200b \u3164\u2060"


@pytest.fixture
def known(rooms: Rooms, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A chat that can be looked at; gives the commands that would change it."""
    then = "2026-01-02T03:04:05.000Z"
    about = Conversation("c", "A chat", epoch="e", offset=1, tip="a", created=then, updated=then)
    commands: list[Any] = []

    async def find(session: str, conversation: str) -> Conversation:
        return about

    async def update(session: str, command: Any) -> None:
        commands.append(command)

    monkeypatch.setattr(rooms.chat, "about", find)
    monkeypatch.setattr(rooms.chat, "update", update)
    return commands


async def press(client: QuartClient, path: str, **fields: str) -> tuple[Response, str]:
    """Send a form; gives what is answered, and the page."""
    response = await client.post(path, headers=LOCAL, form=fields)
    return response, unescape(await response.get_data(as_text=True))


@pytest.mark.parametrize("title", ["", " \n", UNSEEN])
async def test_chat_keeps_its_title_where_nothing_can_be_seen_of_another(
    client: QuartClient, known: list[Any], title: str
) -> None:
    answer, page = await press(client, "/c/c/options", rename="yes", title=title)
    assert answer.status_code == 422
    assert options.NAMELESS in page
    assert "The field" not in page
    assert known == []


async def test_title_is_kept_without_what_cannot_be_seen(client: QuartClient, known: list[Any]) -> None:
    answer, _ = await press(client, "/c/c/options", rename="yes", title=f"{UNSEEN}\u202eOne\n two ")
    assert answer.status_code == 303
    assert [each.title for each in known] == ["One two"]


async def test_page_says_of_a_chat_without_a_name_what_the_form_says() -> None:
    assert options.NAMELESS in (ROOT / "static/js/chat.js").read_text()


@pytest.mark.parametrize(
    ("path", "act"), [("/c/c/options", "revoke"), ("/settings", "revoke"), ("/settings", "add")]
)
@pytest.mark.usefixtures("known")
async def test_form_that_is_refused_for_the_number_of_them_says_how_long_to_wait(
    client: QuartClient, rooms: Rooms, monkeypatch: pytest.MonkeyPatch, path: str, act: str
) -> None:
    monkeypatch.setattr(rooms.limits, "take", fail(RateLimited(7)))
    answer, page = await press(client, path, **{act: "x", "title": "T", "text": "T"})
    assert (answer.status_code, answer.headers.get("Retry-After")) == (429, "7")
    assert RateLimited(7).detail in page


@pytest.mark.parametrize("path", ["/c/c/options", "/settings"])
async def test_form_of_a_page_beside_the_chat_is_answered_alike_where_nothing_can_be_done(
    app: Quart, client: QuartClient, rooms: Rooms, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    stranger = app.test_client()
    assert (await press(stranger, path, revoke="x"))[0].status_code == 400
    answer, page = await press(client, path, revoke="x", text="x" * 70_000)
    assert answer.status_code == 413
    assert forms.TOO_MUCH in page
    monkeypatch.setattr(rooms.limits, "take", fail(Unavailable()))
    answer, page = await press(client, path, revoke="x")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert forms.WORDS_KEPT in page
    monkeypatch.setattr(rooms, "access", PASSWORD_ASKED)
    answer, page = await press(client, path, revoke="x")
    assert answer.status_code == 401
    assert f'href="{path}"' in page


@pytest.mark.parametrize("path", ["/c/a.b/deleted", "/c/a.b/options"])
@pytest.mark.parametrize("asked", [False, True])
async def test_address_that_no_chat_can_have_is_none(
    client: QuartClient, rooms: Rooms, monkeypatch: pytest.MonkeyPatch, path: str, asked: bool
) -> None:
    if asked:
        monkeypatch.setattr(rooms, "access", PASSWORD_ASKED)
    assert (await client.get(path, headers=LOCAL)).status_code == 404


@pytest.mark.parametrize(
    ("path", "back"),
    [
        ("/settings", "/settings"),
        ("/settings/data", "/settings/data"),
        ("/export", "/settings/data"),  # where it is asked for: a file is no page to be at
        ("/search", "/search"),
        ("/search?q=%C3%A4+%26+b%2Fc", "/search?q=%C3%A4+%26+b/c"),
        ("/c/c1", "/c/c1"),
        ("/c/c1/options", "/c/c1/options"),
        ("/c/c1/deleted", "/c/c1/deleted"),
    ],
)
async def test_person_comes_back_after_signing_in(
    client: QuartClient, rooms: Rooms, monkeypatch: pytest.MonkeyPatch, path: str, back: str
) -> None:
    monkeypatch.setattr(rooms, "access", PASSWORD_ASKED)
    led = await client.get(path, headers=LOCAL)
    assert led.status_code == 303
    asked = parse_qs(urlsplit(led.headers["Location"]).query)["to"]
    answer, _ = await press(client, "/sign-in", password=PASSWORD, to=asked[0])
    assert (answer.status_code, unquote(answer.headers["Location"])) == (303, unquote(back))


@pytest.mark.parametrize(
    "to",
    ["//elsewhere", "/s/token", "/export", "/search?q=a&b=c", "/search?q=a\nb", "/settings/x", "/searching"],
)
async def test_person_is_led_to_no_other_page_after_signing_in(
    client: QuartClient, rooms: Rooms, monkeypatch: pytest.MonkeyPatch, to: str
) -> None:
    monkeypatch.setattr(rooms, "access", PASSWORD_ASKED)
    answer, _ = await press(client, "/sign-in", password=PASSWORD, to=to)
    assert (answer.status_code, answer.headers["Location"]) == (303, "/")


@pytest.mark.parametrize("path", ["/settings", "/settings/data", "/search", "/search?q=" + "x" * 201])
async def test_page_beside_the_chat_renews_both_cookies(
    app: Quart, client: QuartClient, rooms: Rooms, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(rooms, "access", PASSWORD_ASKED)
    await press(client, "/sign-in", password=PASSWORD)
    page = await app.test_client(use_cookies=False).get(path, headers=cookies(client))
    assert page.headers["Cache-Control"] == "no-store"
    assert len(page.headers.getlist("Set-Cookie")) == 2


async def test_data_are_not_shown_to_whoever_is_signed_out(
    client: QuartClient, rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rooms, "access", PASSWORD_ASKED)
    for path in ("/import", "/forget"):
        answer, page = await press(client, path, confirmed="yes")
        assert answer.status_code == 401
        assert takeout.SIGNED_OUT in page
        assert "Set-Cookie" not in answer.headers


# The log


async def test_bug_is_told_by_the_rule_of_its_address_for_a_path_may_be_a_key(
    app: Quart,
    client: QuartClient,
    rooms: Rooms,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(rooms.chat, "shared", fail(RuntimeError("A bug.")))
    token = "t" * 32
    page = await client.get(f"/s/{token}", headers=LOCAL)
    assert page.status_code == 500
    assert "/s/<token> failed." in caplog.messages
    assert token not in caplog.text
