"""The command line as real processes: what it prints, what it refuses, how it ends."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest

from llmchat import __version__
from llmchat.__main__ import COMMAND_NAMES, _limits
from llmchat.access import Access
from llmchat.settings import Settings
from llmchat.variables import VARIABLES
from tests.fakes import Model
from tests.instances import Instance, handshake
from tests.instances.child import Child, free_port
from tests.instances.instance import ROOT, SECRET_KEY
from tests.waiting import eventually, within

DEPLOYED = {
    "SECRET_KEY": SECRET_KEY,
    "REDIS_URL": "redis://127.0.0.1:1/0",
    "OPENAI_API_KEY": "sk-of-the-tests",
    "PORT": "0",
}

Start = Callable[..., Awaitable[Child]]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Start `python -m llmchat` in an empty folder, with nothing in the environment but what is given."""
    async with AsyncExitStack() as leaving:

        async def start(*arguments: str, package: Path = ROOT, **environment: str) -> Child:
            env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(package), "PYTHONUNBUFFERED": "1"}
            command = (sys.executable, "-m", "llmchat", *arguments)
            child = Child(*command, env={**env, **environment}, folder=tmp_path)
            leaving.push_async_callback(child.close)
            await child.start()
            return child

        yield start


async def refused(child: Child) -> str:
    """Return the one line that a start which was refused says."""
    assert await child.ended(seconds=30) == 2, child.lines
    (line,) = child.lines
    return line.removeprefix("llmchat: ")


async def test_the_help_documents_every_command_and_setting(start: Start) -> None:
    child = await start("--help")
    assert await child.ended() == 0
    text = " ".join(" ".join(child.lines).split())
    for command in COMMAND_NAMES:
        assert f" {command} " in text
    for variable in VARIABLES:
        assert f" {variable.name} {variable.meaning} (default: {variable.default_shown})" in text


async def test_the_version_is_told(start: Start) -> None:
    child = await start("--version")
    assert await child.ended() == 0
    assert child.lines == [f"llmchat {__version__}"]


async def test_an_unknown_command_is_refused(start: Start) -> None:
    child = await start("dance")
    assert await child.ended() == 2
    assert "dance" in child.lines[-1]


@pytest.mark.long
async def test_no_parts_are_named_where_all_is_installed_or_configured(start: Start) -> None:
    for environment in ({}, DEPLOYED):
        child = await start("parts", **environment)
        assert await child.ended() == 0
        assert child.lines == []


def test_deployment_tells_what_people_may_use() -> None:
    lines = _limits(Settings(tokens_per_day=100_000, tokens_per_day_in_all=2_000_000))
    assert lines == [
        "A session may send 30 prompts a minute, and have 10 chats answered at once",
        "Tokens a day: 100,000 of a session, 2,000,000 of all sessions together",
    ]
    assert _limits(Settings(prompts_per_minute=0, answers_at_once=0)) == [
        "A session may send any number of prompts a minute, and have any number of chats answered at once",
        "Tokens a day: no budget is set",
    ]


@pytest.mark.long
@pytest.mark.parametrize("command", ["run", "serve", "parts"])
async def test_a_malformed_variable_is_one_line(start: Start, command: str) -> None:
    line = await refused(await start(command, PORT="eighty"))
    assert line == "PORT is 'eighty': it must be a port from 0 to 65535."


@pytest.mark.long
@pytest.mark.parametrize("command", ["run", "serve"])
async def test_a_system_prompt_that_leaves_no_room_is_one_line(start: Start, command: str) -> None:
    given = {**DEPLOYED, "PORT": "0", "CONTEXT_TOKENS": "256", "SYSTEM_PROMPT": "You must obey. " * 40}
    line = await refused(await start(command, **given))
    assert line.startswith("SYSTEM_PROMPT takes more than half of the context, which is 256 tokens")


@pytest.mark.long
@pytest.mark.parametrize("command", ["run", "serve"])
async def test_room_for_less_than_one_file_is_one_line(start: Start, command: str) -> None:
    line = await refused(await start(command, **{**DEPLOYED, "ATTACHMENTS_MEGABYTES": "8"}))
    assert line.startswith("ATTACHMENT_BYTES is 5000000, and one session may have 2000000")


@pytest.mark.long
async def test_a_folder_that_cannot_be_written_is_one_line(start: Start, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    line = await refused(await start(DATA_DIR="file/data", PORT="0"))
    assert line == f"DATA_DIR {tmp_path}/file/data cannot be used: it is no folder."


@pytest.mark.long
@pytest.mark.parametrize("command", ["run", "serve"])
async def test_a_taken_port_is_one_line_and_nothing_is_started(
    start: Start, tmp_path: Path, command: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        given = DEPLOYED if command == "serve" else {}
        line = await refused(await start(command, **{**given, "PORT": port, "HOST": "127.0.0.1"}))
    assert line == f"PORT {port} is taken: end what listens there, or set PORT to another."
    assert not (tmp_path / ".llmchat" / "valkey").exists()


@pytest.mark.long
async def test_an_address_of_another_machine_is_one_line(start: Start) -> None:
    line = await refused(await start("serve", **DEPLOYED, HOST="192.0.2.1"))
    assert line == "HOST '192.0.2.1' is no address of this machine."


@pytest.mark.long
async def test_a_local_model_that_is_missing_is_one_line(start: Start, tmp_path: Path) -> None:
    line = await refused(await start(LOCAL_MODEL="no.gguf", REDIS_URL="redis://127.0.0.1:1", PORT="0"))
    assert line == f"LOCAL_MODEL {tmp_path}/no.gguf cannot be read: No such file or directory."


@pytest.mark.long
async def test_a_hash_is_printed_that_is_taken_as_password(tmp_path: Path) -> None:
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    ended = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "llmchat", "hash", env=env, cwd=tmp_path,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with within(30, "the hash is printed"):
        out, _ = await ended.communicate(b"correct horse\n")
    password_hash = Settings.read({"ACCESS_PASSWORD": out.decode()}, local=False).access_password
    assert password_hash
    assert await Access(password_hash, "k" * 32).matches("correct horse")


@pytest.mark.long
async def test_a_short_password_is_not_hashed(start: Start) -> None:
    assert "8 characters" in await refused(await start("hash"))


@pytest.mark.long
@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"SECRET_KEY": ""}, "SECRET_KEY"),
        ({"SECRET_KEY": "changeme"}, "SECRET_KEY"),
        ({"REDIS_URL": ""}, "REDIS_URL"),
        ({"OPENAI_API_KEY": ""}, "OPENAI_API_KEY"),
        ({"SECRET_KEY": "x" * 40}, "SECRET_KEY"),
        ({"SECRET_KEY": "change-me-change-me-change-me-1234567890"}, "SECRET_KEY"),
        ({"REDIS_URL": "redis://127.0.0.1:1", "REDIS_WAIT_SECONDS": "0"}, "REDIS_URL"),
        ({"REDIS_URL": "", "REDISHOST": "nowhere.invalid", "REDIS_WAIT_SECONDS": "0"}, "REDISHOST"),
        ({"REDIS_URL": "redis://127.0.0.1:1/0?nonsense=1"}, "REDIS_URL"),
        ({"REDIS_URL": "rediss://127.0.0.1:1/0?ssl_cert_reqs=bogus"}, "REDIS_URL"),
        ({"SECRET_KEY_FALLBACKS": "short"}, "SECRET_KEY_FALLBACKS"),
        ({"ACCESS_PASSWORD": "short"}, "ACCESS_PASSWORD"),
        ({"DEBUG": "1"}, "DEBUG"),
    ],
)
async def test_an_unfit_deployment_is_refused_in_one_line(
    start: Start, change: dict[str, str], named: str
) -> None:
    line = await refused(await start("serve", **{**DEPLOYED, **change}))
    assert named in line


async def test_a_run_with_nothing_set_says_where_it_is_and_ends_with_its_parts(
    start: Start, tmp_path: Path
) -> None:
    port = free_port()
    child = await start(PORT=str(port))
    await child.line("The data lies in", seconds=60)
    first = next(index for index, line in enumerate(child.lines) if line.startswith("llmchat"))
    assert child.lines[first : first + 3] == [
        f"llmchat is at http://localhost:{port} (Ctrl-C ends it)",
        "The model that answers: SmolLM2 135M (on this machine)",
        f"The data lies in {tmp_path}/.llmchat",
    ]
    async with aiohttp.ClientSession() as http, http.get(f"http://localhost:{port}/") as page:
        assert page.status == 200
        assert "Server" not in page.headers

    second = await start(PORT="0")
    where = f"at http://localhost:{port}, process {child.pid}"
    assert await refused(second) == f"llmchat already runs in {tmp_path}/.llmchat ({where})."

    child.signal(signal.SIGINT)
    assert await child.ended(seconds=20) == 0, child.lines
    assert "bye bye" in (tmp_path / ".llmchat" / "valkey.log").read_text()
    assert not (tmp_path / ".llmchat" / "valkey.sock").exists()


@pytest.mark.long
async def test_the_env_file_is_read_where_it_runs(start: Start, tmp_path: Path, model: Model) -> None:
    (tmp_path / ".env").write_text(f"OPENAI_BASE_URL={model.url}\nOPENAI_MODEL=from-the-file\nPORT=0\n")
    child = await start()
    line = await child.line("The model that answers", seconds=30)
    assert line == "The model that answers: from-the-file at 127.0.0.1"
    child.signal(signal.SIGTERM)
    assert await child.ended(seconds=20) == 0, child.lines


@pytest.mark.long
async def test_a_run_ends_with_code_1_where_a_part_ended(start: Start, tmp_path: Path, model: Model) -> None:
    child = await start(OPENAI_BASE_URL=model.url, PORT="0")
    await child.line("The data lies in", seconds=30)
    with socket.socket(socket.AF_UNIX) as valkey:
        valkey.connect(str(tmp_path / ".llmchat" / "valkey.sock"))
        valkey.sendall(b"SHUTDOWN NOSAVE\r\n")
        await child.line("The embedded Valkey ended by itself")
    assert await child.ended(seconds=20) == 1, child.lines


@pytest.mark.long
async def test_a_change_starts_the_server_anew_while_debugging(
    start: Start, tmp_path: Path, model: Model
) -> None:
    for folder in ("llmchat", "templates", "static"):
        shutil.copytree(ROOT / folder, tmp_path / "copy" / folder)
    port = free_port()
    child = await start(package=tmp_path / "copy", OPENAI_BASE_URL=model.url, DEBUG="true", PORT=str(port))

    async def serves() -> bool:
        async with aiohttp.ClientSession() as http, http.get(f"http://localhost:{port}/") as page:
            return page.status == 200

    await eventually(serves, seconds=30, what="the first server answers")
    with (tmp_path / "copy" / "llmchat" / "app.py").open("a") as app:
        app.write('\nprint("a new server", flush=True)\n')
    await child.line("a new server", seconds=30)
    await eventually(serves, seconds=30, what="the second server answers")
    child.signal(signal.SIGINT)
    assert await child.ended(seconds=20) == 0, child.lines


@pytest.mark.long
@pytest.mark.parametrize("offered", ["permessage-deflate; client_max_window_bits", ""])
async def test_compression_is_negotiated_where_it_is_offered(
    instances: tuple[Instance, Instance], offered: str
) -> None:
    headers = {"sec_websocket_extensions": offered} if offered else {}
    async with handshake(instances[0], **headers) as answer:
        assert answer.status == 101
        agreed = answer.headers.get("sec-websocket-extensions", "")
        assert agreed.partition(";")[0] == offered.partition(";")[0]
        assert "server" not in answer.headers


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_an_instance_in_order_with_sockets_open(
    start_instance: Callable[..., Awaitable[Instance]], store: object, number: signal.Signals
) -> None:
    instance = await start_instance(store)
    async with AsyncExitStack() as sockets:
        answers = [await sockets.enter_async_context(handshake(instance)) for _ in range(50)]
        os.kill(instance.pid, number)
        for answer in answers:
            said = await answer.reader.read()
            assert said.endswith((1012).to_bytes(2, "big")) or (1012).to_bytes(2, "big") in said[-64:]
        assert await instance.ended(seconds=30) == 0, instance.text


@pytest.mark.long
async def test_connection_that_asks_for_nothing_more_is_ended(
    start_instance: Callable[..., Awaitable[Instance]], store: object
) -> None:
    instance = await start_instance(store)

    async def wait_after(requests: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", instance.port)
        for _ in range(requests):
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            async with within(10, "a request is answered"):
                head = await reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 200")
                length = re.search(rb"content-length: (\d+)", head.lower())
                assert length
                await reader.readexactly(int(length[1]))
        async with within(30, f"a connection with {requests} requests is ended"):
            assert await reader.read() == b""
        writer.close()

    await asyncio.gather(*map(wait_after, range(3)))


@pytest.mark.long
async def test_a_second_signal_ends_an_instance_at_once(
    start_instance: Callable[..., Awaitable[Instance]], store: object
) -> None:
    instance = await start_instance(store)
    async with handshake(instance):  # a peer that never answers the close keeps an orderly stop waiting
        os.kill(instance.pid, signal.SIGTERM)
        os.kill(instance.pid, signal.SIGINT)
        assert await instance.ended() in {128 + signal.SIGTERM, 128 + signal.SIGINT}, instance.text


@pytest.mark.long
async def test_what_an_operator_asks_wrongly_is_told_in_a_line(start: Start) -> None:
    child = await start("export")
    assert await child.ended() == 2
    assert child.lines[-1].endswith("export takes 1 or 2 words behind it")
    assert await refused(await start("forget", "a b", **DEPLOYED)) == (
        "A session's id is of 32 digits and letters a to f; it stands on its page of settings."
    )
    assert "does not run here" in await refused(await start("export", "a" * 32, "--local"))
