"""The page's files: one version for all of them, found on any instance, and nothing else."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import brotli
import msgpack
import pytest
from fakeredis import FakeAsyncRedis

from llmchat.errors import StartError
from llmchat.keys import Keys
from llmchat.shelf import Shelf
from llmchat.static_files import StaticFiles, read, version_of

FILES = {
    "js/main.js": b'import "./other.js";\n' * 50,
    "js/other.js": b"export {};\n" * 50,
    "css/page.css": b"body { color: red }\n" * 50,
    "small.svg": b"<svg/>",
}
KEYS, SECRET = Keys("static"), "0123456789" * 4
Make = Callable[..., StaticFiles]


@pytest.fixture
def make(tmp_path: Path, fake_redis: FakeAsyncRedis) -> Iterator[Make]:
    """Make the files of an instance: `make({"js/main.js": b"…"})`."""
    with ExitStack() as leaving:
        made: list[Path] = []

        def make(files: dict[str, bytes] = FILES) -> StaticFiles:
            folder = tmp_path / str(len(made))
            made.append(folder)
            for name, content in files.items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(content)
            static = StaticFiles(app, folder, Shelf(fake_redis, KEYS, SECRET))
            leaving.callback(static.close)
            return static

        yield make


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answer 404 in words of its own."""
    await send({"type": "http.response.start", "status": 404, "headers": []})
    await send({"type": "http.response.body", "body": b"nothing here"})


async def get(
    static: StaticFiles, path: str, method: str = "GET", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    """Ask for a path; keywords are headers."""
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    lines = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": method, "path": path, "query_string": b"", "headers": lines}
    await static(scope, None, send)
    told = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], told, b"".join(message.get("body", b"") for message in sent[1:])


# Versions


def test_version_follows_names_and_contents() -> None:
    version = version_of(FILES)
    assert version == version_of(dict(reversed(FILES.items())))
    assert version != version_of({**FILES, "js/main.js": b"other"})
    assert version != version_of({name: content for name, content in FILES.items() if name != "small.svg"})
    assert version != version_of({name.replace("main", "mine"): content for name, content in FILES.items()})
    assert version_of({"a": b"bc"}) != version_of({"ab": b"c"})


async def test_file_is_kept_for_ever_under_its_version_and_not_found_without(make: Make) -> None:
    static = make()
    status, headers, body = await get(static, static.path("js/main.js"))
    assert (status, body) == (200, FILES["js/main.js"])
    assert "immutable" in headers["cache-control"]
    assert "access-control-allow-origin" not in headers
    for path in ("/static/js/main.js", f"/static/{'0' * 32}/js/main.js", static.path("js/no.js")):
        assert await get(static, path) == (404, {}, b"nothing here")


@pytest.mark.parametrize(
    ("name", "kind"),
    [("js/main.js", "text/javascript"), ("css/page.css", "text/css"), ("small.svg", "image/svg+xml")],
)
async def test_type_is_told_whatever_the_machine_thinks(make: Make, name: str, kind: str) -> None:
    static = make()
    _, headers, _ = await get(static, static.path(name))
    assert headers["content-type"].partition(";")[0] == kind


# Compression


@pytest.mark.parametrize(
    ("accepted", "encoding"),
    [
        ("gzip, deflate, br", "br"),
        ("gzip", "gzip"),
        ("br;q=0, gzip", "gzip"),
        ("br;q=0, gzip;q=0", None),
        ("identity", None),
        ("", None),
    ],
)
async def test_smallest_that_is_accepted_is_sent(make: Make, accepted: str, encoding: str | None) -> None:
    static = make()
    _, headers, body = await get(static, static.path("js/main.js"), accept_encoding=accepted)
    assert headers.get("content-encoding") == encoding
    assert headers["vary"].lower() == "accept-encoding"
    assert int(headers["content-length"]) == len(body)
    plain = {"br": brotli.decompress, "gzip": gzip.decompress, None: bytes}[encoding](body)
    assert plain == FILES["js/main.js"]


async def test_compressed_file_has_no_name_of_its_own(make: Make) -> None:
    static = make()
    for ending in (".br", ".gz"):
        assert (await get(static, static.path("js/main.js" + ending)))[0] == 404


# Methods and conditions


async def test_head_gets_the_headers_and_a_post_nothing(make: Make) -> None:
    static = make()
    status, headers, body = await get(static, static.path("js/main.js"), "HEAD")
    assert (status, headers["content-length"], body) == (200, str(len(FILES["js/main.js"])), b"")
    assert (await get(static, static.path("js/main.js"), "POST"))[0] == 405


async def test_file_that_the_browser_has_is_not_sent_again(make: Make) -> None:
    static = make()
    _, headers, _ = await get(static, static.path("js/main.js"))
    status, _, body = await get(static, static.path("js/main.js"), if_none_match=headers["etag"])
    assert (status, body) == (304, b"")


@pytest.mark.parametrize("wanted", ["bytes=0-3", "bytes=5000-", "bytes=-99999999", "bytes=9-1,1-2", "x"])
async def test_part_of_a_file_is_a_part_of_it(make: Make, wanted: str) -> None:
    static = make()
    status, _, body = await get(static, static.path("js/main.js"), range=wanted)
    assert status in (200, 206, 416)
    assert body in FILES["js/main.js"]


# Nothing else


async def test_link_that_leads_outside_is_not_followed(make: Make, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "secret").write_text("secret")
    static = make()
    folder = tmp_path / "0"
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "links").symlink_to(tmp_path / "folder")
    assert set(read(folder)) == set(FILES)
    again = StaticFiles(app, folder, static._shelf)
    try:
        assert again.version == static.version
        for name in ("link", "links/secret", "../secret"):
            assert (await get(again, again.path(name)))[0] == 404
    finally:
        again.close()


async def test_file_that_comes_after_the_start_is_not_served(make: Make, tmp_path: Path) -> None:
    static = make()
    (tmp_path / "0" / "late.js").write_text("late")
    assert (await get(static, static.path("late.js")))[0] == 404


def test_start_says_what_to_do_when_nothing_can_be_written(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: Any) -> None:
        raise FileNotFoundError

    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    with pytest.raises(StartError, match="TMPDIR"):
        make()


# Other versions


async def test_page_of_another_version_gets_its_files_whole_from_any_instance(make: Make) -> None:
    old, new = make(), make({**FILES, "js/main.js": b"new", "js/more.js": b"more"})
    assert (await get(old, new.path("js/main.js")))[0] == 404
    for each in (old, new):
        await each._put()
    assert (await get(old, new.path("js/main.js")))[2] == b"new"
    assert (await get(old, new.path("js/more.js")))[2] == b"more"
    assert (await get(new, old.path("js/main.js")))[2] == FILES["js/main.js"]
    assert (await get(new, old.path("js/more.js")))[0] == 404  # a version never mixes with another
    _, headers, _ = await get(new, old.path("js/main.js"), accept_encoding="br")
    assert (headers["content-encoding"], "immutable" in headers["cache-control"]) == ("br", True)


@pytest.mark.parametrize(
    "bundle",
    [
        msgpack.packb({**FILES, "js/main.js": b"evil"}),
        msgpack.packb({"../../evil.js": b"evil"}),
        msgpack.packb({"a\0b.js": b"evil"}),
        msgpack.packb({"a" * 300: b"evil"}),
        msgpack.packb({"/etc/evil.js": b"evil"}),
        msgpack.packb({"js/main.js": "no bytes"}),
        msgpack.packb([1, 2]),
        msgpack.packb(FILES)[:-1],
        b"\xc1",
        b"",
    ],
)
@pytest.mark.parametrize("signed", [True, False], ids=["signed", "not signed"])
async def test_what_lies_on_the_shelf_is_not_believed(
    make: Make, fake_redis: FakeAsyncRedis, bundle: bytes, signed: bool
) -> None:
    static, version = make({"a.js": b"a"}), version_of(FILES)
    if signed:
        await Shelf(fake_redis, KEYS, SECRET).put(version, bundle)
    else:
        await fake_redis.set(KEYS.shelf(version), bundle)
    assert (await get(static, f"/static/{version}/js/main.js"))[0] == 404
    assert (await get(static, static.path("a.js")))[0] == 200


@pytest.mark.parametrize("key", ["another-key" * 4, None])
async def test_files_of_others_under_their_own_version_are_not_served(
    make: Make, fake_redis: FakeAsyncRedis, key: str | None
) -> None:
    evil = {"x.html": b"<script src=x.js></script>", "x.js": b"evil"}
    version, bundle = version_of(evil), msgpack.packb(evil)
    if key:
        await Shelf(fake_redis, KEYS, key).put(version, bundle)
    else:
        await fake_redis.set(KEYS.shelf(version), bundle)
    assert (await get(make(), f"/static/{version}/x.html"))[0] == 404
    await Shelf(fake_redis, KEYS, SECRET).put(version, bundle)  # it was well made but for the signature
    assert (await get(make(), f"/static/{version}/x.html"))[0] == 200


async def test_page_of_another_version_is_looked_for_once(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = make(), make({"a.js": b"a", "b.js": b"b", "c.js": b"c"})
    await new._put()
    taken: list[str] = []
    take = old._shelf.take

    async def count(version: str) -> bytes | None:
        taken.append(version)
        return await take(version)

    monkeypatch.setattr(old._shelf, "take", count)
    asked = [get(old, new.path(name)) for name in ("a.js", "b.js", "c.js")]
    assert [status for status, _, _ in await asyncio.gather(*asked)] == [200] * 3
    assert taken == [new.version]


async def test_own_files_are_served_while_redis_is_away(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    static = make()

    async def fail(*_: Any) -> None:
        raise ConnectionError

    monkeypatch.setattr(static._shelf._redis, "get", fail)
    assert (await get(static, static.path("js/main.js")))[0] == 200
    assert (await get(static, f"/static/{'0' * 32}/js/main.js"))[0] == 404


async def test_versions_of_others_are_few(make: Make) -> None:
    static = make()
    others = [make({"a.js": f"{number}".encode()}) for number in range(6)]
    for other in others:
        await other._put()
        await get(static, other.path("a.js"))
    assert [(await get(static, other.path("a.js")))[0] for other in others] == [200] * 3 + [404] * 3
