"""Pages beside the chat and their forms, on an app in this process and a fake Redis; real ones are in tests/instances/."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any, BinaryIO

import pytest
from fakeredis import FakeAsyncRedis
from quart import Quart, Response
from quart.testing import QuartClient

from llmchat import app as composition
from llmchat.app import create_app
from llmchat.blueprints import takeout
from llmchat.blueprints.rooms import Rooms
from llmchat.errors import Unavailable
from llmchat.settings import Settings
from tests.trunk import as_json, ours
from tests.waiting import eventually, within

LOCAL = {"Host": "localhost", "Origin": "http://localhost"}
LINES = {**LOCAL, "Accept": takeout.NDJSON}
FILE = as_json(ours())


@pytest.fixture(scope="module")
async def app() -> AsyncIterator[Quart]:
    settings = Settings.read(
        {
            "SECRET_KEY": "0123456789" * 4,
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


async def test_two_archives_that_are_asked_for_at_once_are_one_archive_and_a_refusal(
    client: QuartClient, slow_archive: asyncio.Event
) -> None:
    slow_archive.set()
    async with within(10, "both are answered"):
        both = await asyncio.gather(*(client.get("/export", headers=LOCAL) for _ in range(2)))
    told = {each.status_code: await each.get_data() for each in both}
    assert set(told) == {200, 429}
    assert told[200] == b"firstlast"


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


async def test_import_without_room_for_a_file_is_refused_in_words(
    client: QuartClient, rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_file() -> BinaryIO:
        raise OSError

    for made in (no_file, lambda: open("/dev/full", "r+b")):  # noqa: PTH123, SIM115 - closed by whoever asked
        monkeypatch.setattr(takeout.tempfile, "TemporaryFile", made)
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

    monkeypatch.setattr(takeout.tempfile, "TemporaryFile", made)
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

    monkeypatch.setattr(rooms.intake, "read", read)
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

    monkeypatch.setattr(rooms.intake, "read", read)
    async with within(10, "it ends"):
        async with client.request(
            "/import", method="POST", headers={**LINES, "Content-Length": "2"}
        ) as asked:
            await asked.send(b"{}")
            await asked.send_complete()
            await eventually(lambda: _true(rooms.uploads["imports"] == 1), seconds=10, what="it is counted")
            await asked.disconnect()
        assert not rooms.uploads


async def _true(told: bool) -> bool:
    return told
