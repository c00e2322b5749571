"""An instance starts when its store is there and fit, says so, and says no more than that."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from quart.testing import WebsocketResponseError

from llmchat import __version__, health
from llmchat.app import create_app
from llmchat.errors import StartError
from llmchat.health import Health
from llmchat.keys import Keys
from llmchat.redis_client import connect as connect_to_store
from llmchat.settings import Settings
from tests.conftest import Connect, StartInstance
from tests.fakes import Model
from tests.instances import Instance, Store
from tests.waiting import eventually

pytestmark = pytest.mark.long

KEYS = Keys("readiness")
LOCAL = {"Host": "localhost"}
READY = {"ready": True, "draining": False, "redis": "reached", "history": "kept", "protocol": 1}


async def asked(instance: Instance, path: str = "/readyz", **headers: str) -> tuple[int, dict[str, Any]]:
    """Ask an instance how it is, as a stranger."""
    async with aiohttp.ClientSession() as http, http.get(instance.url + path, headers=headers) as response:
        assert "Set-Cookie" not in response.headers
        assert response.headers["Cache-Control"] == "no-store"
        return response.status, json.loads(await response.text())


@asynccontextmanager
async def launched(store_url: str, model: Model, **environment: str) -> AsyncIterator[Instance]:
    """Start a process that may not get to serve."""
    instance = Instance(store_url, model.url, **environment)
    await instance.launch()
    try:
        yield instance
    finally:
        assert instance._child
        await instance._child.close()


# /readyz and /healthz


async def test_instance_is_ready_when_it_serves(instances: tuple[Instance, Instance]) -> None:
    for instance in instances:
        assert await asked(instance) == (200, {**READY, "version": __version__})
        assert await asked(instance, "/healthz") == (200, {"alive": True})


@pytest.mark.parametrize("path", ["/readyz", "/healthz"])
async def test_health_is_told_to_any_host(instances: tuple[Instance, Instance], path: str) -> None:
    status, _ = await asked(instances[0], path, Host="healthcheck.railway.app")
    assert status == 200


async def test_instance_is_alive_and_not_ready_while_its_store_is_away_or_frozen(
    fresh_store: Store, start_instance: StartInstance
) -> None:
    instance = await start_instance(fresh_store)

    def is_ready(ready: bool) -> Callable[[], Any]:
        async def look() -> bool:
            status, told = await asked(instance)
            assert told["redis"] == ("reached" if status == 200 else "away")
            assert told["history"] == ("kept" if status == 200 else "unknown")
            return told["ready"] is ready

        return look

    for leave, back in ((fresh_store.freeze, fresh_store.thaw), (fresh_store.stop, fresh_store.start)):
        for act, ready in ((leave, False), (back, True)):
            done = act()
            if done is not None:
                await done
            await eventually(is_ready(ready), seconds=40, what=f"/readyz tells {ready}")
            assert (await asked(instance, "/healthz"))[0] == 200


async def test_instance_that_drains_is_not_ready_and_takes_no_more(store: Store, settings: Settings) -> None:
    app = create_app(replace(settings, redis_url=store.url))
    client = app.test_client()
    async with app.test_app():
        assert (await client.get("/readyz", headers=LOCAL)).status_code == 200
        app.extensions["llmchat"].draining = True
        told = await client.get("/readyz", headers=LOCAL)
        assert told.status_code == 503
        assert (await told.get_json())["draining"] is True
        assert (await client.get("/healthz", headers=LOCAL)).status_code == 200
        assert (await client.get("/session", headers=LOCAL)).status_code == 503
        with pytest.raises(WebsocketResponseError) as refused:
            async with client.websocket("/ws/chat/", headers=LOCAL) as websocket:
                await websocket.receive()
        assert refused.value.response.status_code == 503
        assert refused.value.response.headers["Retry-After"] == "1"


# Durability


@pytest.mark.parametrize(
    ("options", "risk"),
    [
        ({"appendonly": "no"}, "set appendonly yes"),
        ({"maxmemory_policy": "allkeys-lru"}, "set maxmemory-policy noeviction (it is allkeys-lru)"),
    ],
)
async def test_store_that_may_lose_history_is_told_and_where_required_refused(
    tmp_path: Path, start_instance: StartInstance, model: Model, options: dict[str, str], risk: str
) -> None:
    async with Store(tmp_path, **options) as store:
        instance = await start_instance(store)
        line = await instance.logged("History may be lost")
        assert risk in line
        assert await asked(instance) == (200, {**READY, "version": __version__, "history": "may be lost"})
        async with launched(store.url, model, REQUIRE_DURABLE_REDIS="true") as refused:
            assert await refused.ended(seconds=30) == 2
            assert refused.log[-1].startswith("llmchat: REQUIRE_DURABLE_REDIS is set, and ")
            assert risk in refused.text
            assert "Traceback" not in refused.text


async def test_store_that_keeps_history_is_named_first_and_enough_where_required(
    store: Store, start_instance: StartInstance
) -> None:
    instance = await start_instance(store, REQUIRE_DURABLE_REDIS="true")
    assert f"Redis at 127.0.0.1:{store.port}: Valkey" in instance.log[0]
    assert "an append-only file, noeviction" in instance.log[0]
    assert "may be lost" not in instance.text


async def test_store_that_does_not_tell_is_a_risk(store: Store) -> None:
    async with store.client() as admin:
        await admin.execute_command("ACL", "SETUSER", "mute", "on", ">word", "~*", "&*", "+@all", "-info")
    async with connect_to_store(f"redis://mute:word@127.0.0.1:{store.port}") as redis:
        found = await Health(redis, KEYS, "here", require_durable=False).latest()
        assert found
        assert "does not permit INFO" in found.risks[0]
        with pytest.raises(StartError, match="REQUIRE_DURABLE_REDIS"):
            await Health(redis, KEYS, "here", require_durable=True).check(0)


async def test_looks_at_the_store_are_shared(fresh_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "LOOK_SECONDS", 3600)
    async with fresh_store.client() as redis:
        watched = Health(redis, KEYS, "here", require_durable=False)
        await redis.info()  # so that it has been counted
        before = (await redis.info("commandstats"))["cmdstat_info"]["calls"]
        assert len({id(await watched.latest()) for _ in range(20)}) == 1
        after = (await redis.info("commandstats"))["cmdstat_info"]["calls"]
    assert after - before == 2  # one look, and the second count


# A store that is late


async def test_instance_waits_for_a_store_that_starts_later(tmp_path: Path, model: Model) -> None:
    store = Store(tmp_path)
    async with launched(store.url, model) as instance:
        await instance.logged("waiting up to 60 s")
        assert not await instance.serves()
        async with store:
            await eventually(instance.serves, seconds=40, what="the instance serves")
            assert await instance.stop() == 0


async def test_instance_that_waits_ends_at_once_when_it_is_told_to(tmp_path: Path, model: Model) -> None:
    async with launched(Store(tmp_path).url, model) as instance:
        await instance.logged("does not answer yet")
        assert await instance.stop() == 0
        assert "Traceback" not in instance.text


async def test_instance_gives_up_with_one_line_that_says_what_to_do(tmp_path: Path, model: Model) -> None:
    url = Store(tmp_path).url.replace("redis://", "redis://user:s3cr3t-word@")
    async with launched(url, model, REDIS_WAIT_SECONDS="1") as instance:
        assert await instance.ended(seconds=30) == 2
        assert "check REDIS_URL or REDISHOST" in instance.log[-1]
        assert "s3cr3t" not in instance.text
        assert "Traceback" not in instance.text


async def test_wrong_password_is_refused_at_once(tmp_path: Path, model: Model) -> None:
    async with Store(tmp_path, requirepass="right-word") as store:
        for login in ("", ":wr0ng-word@"):
            url = store.url.replace("redis://", f"redis://{login}")
            async with launched(url, model, REDIS_WAIT_SECONDS="3600") as instance:
                assert await instance.ended(seconds=30) == 2
                assert "refuses the login: check REDIS_URL, or REDISUSER and REDISPASSWORD" in instance.text
                assert "wr0ng" not in instance.text
                assert "Traceback" not in instance.text


# Addresses


async def test_store_may_be_on_ipv6_alone(
    tmp_path: Path, start_instance: StartInstance, connect: Connect, model: Model
) -> None:
    async with Store(tmp_path, bind="::1") as store:
        for environment in ({}, {"REDIS_URL": "", "REDISHOST": "::1", "REDISPORT": str(store.port)}):
            client = await connect(await start_instance(store, **environment))
            model.answer("Over six")
            ended = await client.prompt("Which way?")
            assert client.text(ended["message"]) == "Over six"


async def test_instance_listens_on_ipv4_and_ipv6(store: Store, start_instance: StartInstance) -> None:
    instance = await start_instance(store, HOST="::")
    async with aiohttp.ClientSession() as http:
        for address in ("127.0.0.1", "[::1]"):
            async with http.get(f"http://{address}:{instance.port}/readyz") as response:
                assert response.status == 200


async def test_start_says_why_a_store_refuses_or_is_none(tmp_path: Path, model: Model) -> None:
    async with Store(tmp_path) as store:
        async with store.client() as admin:
            await admin.execute_command("ACL", "SETUSER", "mute", "on", ">word", "~*", "&*", "+@all", "-ping", "-info")  # fmt: skip
        url = store.url.replace("redis://", "redis://mute:word@")
        async with launched(url, model, REQUIRE_DURABLE_REDIS="true") as instance:
            assert await instance.ended(seconds=30) == 2
            assert "does not permit INFO" in instance.log[-1]
    async with launched(store.url, model, REDIS_WAIT_SECONDS="0") as instance:
        assert await instance.ended(seconds=30) == 2
        (line,) = instance.log
        assert "Connect call failed" in line


@pytest.mark.parametrize(
    ("rights", "said"),
    [
        (["~*", "+@all", "-@scripting"], "No permissions"),
        (["~other:*", "+@all"], "No permissions"),
        (["~*", "+@all", "-set"], "No permissions"),
        (["resetchannels", "~*", "+@all"], "No permissions"),
        (["~*", "+@all", "-subscribe"], "No permissions"),
        (["~*", "+@all", "-publish"], "No permissions"),
        (["~*", "+@all", "-evalsha"], "No permissions"),
    ],
    ids=["no scripts", "other keys", "no writing", "no channels", "no subscribe", "no publish", "no evalsha"],
)
async def test_store_that_forbids_what_is_needed_is_refused_in_a_line(
    tmp_path: Path, model: Model, rights: list[str], said: str
) -> None:
    async with Store(tmp_path) as store:
        async with store.client() as admin:
            await admin.execute_command("ACL", "SETUSER", "few", "on", ">word", "&*", *rights)
        url = store.url.replace("redis://", "redis://few:word@")
        async with launched(url, model) as instance:
            assert await instance.ended(seconds=30) == 2
            (line,) = instance.log
            assert said in line or "refuses us" in line
            assert "REDIS_PREFIX" in line


async def test_replica_is_no_store_and_whoever_has_become_one_is_not_ready(
    tmp_path: Path, fresh_store: Store, start_instance: StartInstance, model: Model
) -> None:
    (tmp_path / "replica").mkdir()
    async with Store(tmp_path / "replica", replicaof=f"127.0.0.1 {fresh_store.port}") as replica:
        async with launched(replica.url, model, REDIS_WAIT_SECONDS="1") as instance:
            assert await instance.ended(seconds=30) == 2
            assert "read only replica" in instance.log[-1]
        instance = await start_instance(fresh_store)
        async with fresh_store.client() as admin:
            await admin.execute_command("REPLICAOF", "127.0.0.1", replica.port)

            async def is_not_ready() -> bool:
                return (await asked(instance))[0] == 503

            await eventually(is_not_ready, seconds=40, what="/readyz tells 503")
            await admin.execute_command("REPLICAOF", "NO", "ONE")


async def test_database_that_is_not_there_is_refused_in_a_line(store: Store, model: Model) -> None:
    async with launched(store.url.replace("/0", "/99"), model) as instance:
        assert await instance.ended(seconds=30) == 2
        assert "out of range" in instance.log[-1]
        assert "Traceback" not in instance.text
