"""The page's files under /static/<version>/: compressed once, kept by browsers for ever. Knows no page.

The version is a digest of all of them, so whatever a page names belongs together and never changes. During a
deploy a page may ask an instance of another version for its files: it finds them on the shelf.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import logging
import os
import re
import shutil
import tempfile
import weakref
from collections.abc import Awaitable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self, cast

import msgpack
from servestatic import ServeStaticASGI
from servestatic.compress import Compressor

from llmchat.errors import StartError, Unavailable
from llmchat.shelf import Shelf

VERSIONED = re.compile(r"/static/([0-9a-f]{32})/.+")
COMMENT = re.compile(rb"^[ \t]*(?://.*|/\*\*(?:[^*]|\*(?!/))*\*/)$", re.MULTILINE)
"""Lines of a script that are nothing but a comment. No string of ours goes over lines: a test looks."""
NAME = re.compile(r"[\w-][\w.-]{0,99}(/[\w-][\w.-]{0,99}){0,9}", re.ASCII)
TYPES = {
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".webmanifest": "application/manifest+json",
}
OTHER_VERSIONS = 3
"""Kept of those found on the shelf; a deploy has one other, a deploy in a deploy two."""
PUT_SECONDS = 6 * 3600
REPEAT_SECONDS = 5.0

log = logging.getLogger(__name__)


class StaticFiles:
    """An ASGI middleware before the app. What is served was listed before; no request opens a path it names."""

    def __init__(self, app: Any, folder: Path, shelf: Shelf) -> None:
        files = read(folder)
        self.version = version_of(files)
        self._bundle: bytes = msgpack.packb(files)
        self._shelf = shelf
        self._versions = {self.version}
        self._looking: dict[str, asyncio.Task[None]] = {}
        # Compressed files lie beside the others, and the folder may be read-only.
        try:
            self._kept = Path(tempfile.mkdtemp(prefix="llmchat-static-"))
            held = os.open(self._kept, os.O_RDONLY)
            fcntl.flock(held, fcntl.LOCK_SH)  # systemd's cleaner of old temporary files lets it be
        except OSError as error:
            raise StartError("No folder for temporary files can be written: set TMPDIR to one.") from error
        self.close = weakref.finalize(self, _remove, self._kept, held)
        self._app = app
        self._served = ServeStaticASGI(
            app,
            mimetypes=TYPES,
            allow_all_origins=False,
            immutable_file_test=lambda path, url: True,
            add_headers_function=_with_etag,
        )
        self._add(self.version, files)

    def path(self, name: str) -> str:
        """Give the path of a file, as pages name it."""
        return f"/static/{self.version}/{name}"

    def __call__(self, scope: Any, receive: Any, send: Any) -> Awaitable[None]:
        """Serve one ASGI scope."""
        if scope["type"] == "websocket":  # may be served for days
            return cast(Awaitable[None], self._app(scope, receive, send))
        return self._serve(scope, receive, send)

    async def _serve(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and (asked := VERSIONED.fullmatch(scope["path"])):
            await self._find(asked[1])
        await self._served(scope, receive, send)

    async def __aenter__(self) -> Self:
        """Put our version on the shelf before the first page that names it, and keep it there."""
        wait_seconds = await self._put()
        self._keeping = asyncio.create_task(self._keep(wait_seconds), name="static files")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._keeping.cancel()
        self.close()

    async def _put(self) -> float:
        """Put our version on the shelf, if that can be. Tells how long until it is to be done again."""
        try:
            await self._shelf.put(self.version, self._bundle)
        except Unavailable:
            return REPEAT_SECONDS
        return PUT_SECONDS

    async def _keep(self, wait_seconds: float) -> None:
        while True:
            await asyncio.sleep(wait_seconds)
            wait_seconds = await self._put()

    async def _find(self, version: str) -> None:
        """Serve another version, too, if it is on the shelf. A page asks for all its files at once: one looks."""
        if version in self._versions or len(self._versions) > OTHER_VERSIONS:
            return
        if version not in self._looking:
            self._looking[version] = asyncio.create_task(self._look(version))
            self._looking[version].add_done_callback(lambda _: self._looking.pop(version))
        await asyncio.shield(self._looking[version])

    async def _look(self, version: str) -> None:
        bundle = None
        with suppress(Unavailable):
            bundle = await self._shelf.take(version)
        files = _unpacked(bundle) if bundle else {}
        if not files or version_of(files) != version:
            return
        await asyncio.to_thread(self._add, version, files)
        self._versions.add(version)
        log.info("Serving the files of version %s, too.", version[:12])

    def _add(self, version: str, files: Mapping[str, bytes]) -> None:
        folder = self._kept / version
        compressor = Compressor(use_zstd=False, quiet=True)
        for name, content in files.items():
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
            if compressor.should_compress(name):
                compressor.compress(file)
        self._served.add_files(folder, f"/static/{version}/")


def read(folder: Path) -> dict[str, bytes]:
    """Read the files in a folder, in a fixed order; a link is none of them. Scripts have empty lines for comments."""
    files = sorted(file for file in folder.rglob("*") if file.is_file() and not file.is_symlink())
    return {file.relative_to(folder).as_posix(): _content(file) for file in files}


def _content(file: Path) -> bytes:
    content = file.read_bytes()
    if file.suffix != ".js":
        return content
    return COMMENT.sub(lambda comment: b"\n" * comment[0].count(b"\n"), content)


def version_of(files: Mapping[str, bytes]) -> str:
    """Digest names and contents."""
    digest = hashlib.sha256()
    for name, content in sorted(files.items()):
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:32]


def _remove(folder: Path, held: int) -> None:
    os.close(held)
    shutil.rmtree(folder, ignore_errors=True)


def _with_etag(headers: Any, path: str, url: str) -> None:
    # ServeStatic's own is of this machine's clock, and says of each encoding that it is the same bytes.
    headers["ETag"] = f'W/"{url.split("/")[2]}"'


def _unpacked(bundle: bytes) -> dict[str, bytes]:
    """Read a bundle; nothing where it is none, or names what would lie elsewhere."""
    try:
        files = msgpack.unpackb(bundle)
    except (ValueError, msgpack.UnpackException):
        return {}
    good = isinstance(files, dict) and all(
        isinstance(name, str) and NAME.fullmatch(name) and isinstance(content, bytes)
        for name, content in files.items()
    )
    return files if good else {}
