"""The client of a Cluster: every command finds the server that has its key, however that moves or fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from llmchat.attachments import Attachments
from llmchat.cluster import Cluster as Client
from llmchat.cluster import slot_of
from llmchat.conversation import timestamp
from llmchat.errors import StartError, Unavailable
from llmchat.health import Health
from llmchat.keys import Keys
from llmchat.redis_client import as_cluster, available, connect
from llmchat.retention import Retention
from llmchat.script import Several
from tests import pictures
from tests.instances import Store
from tests.system.cluster import Cluster
from tests.test_history import SESSION
from tests.test_moves import PERSON, Moving
from tests.waiting import eventually, within


@pytest.fixture(scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    async with Cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture
async def client(cluster: Cluster) -> AsyncIterator[Redis]:
    async with connect(cluster.url) as client:
        yield client


async def elsewhere(cluster: Cluster, slot: int) -> int:
    """Name a primary that does not have a slot."""
    owner = await cluster.owner(slot)
    return next(port for port in cluster.ports if port != owner)


async def test_many_commands_at_once_succeed_on_a_client_that_was_never_used(client: Redis) -> None:
    await asyncio.gather(*(client.set(f"key{number}", number) for number in range(500)))
    found = await asyncio.gather(*(client.get(f"key{number}") for number in range(500)))
    assert found == [str(number).encode() for number in range(500)]


async def test_round_trips_to_all_servers_are_counted_together(client: Redis) -> None:
    asked = as_cluster(client)
    assert asked
    for number in range(60):
        await client.set(f"key{number}", number)
    assert set(asked.owners()) == {asked.owner(f"key{number}") for number in range(60)}
    assert asked.trips.up_to[-1][1] >= 60
    assert asked.waiting == 0


async def test_pipeline_asks_all_servers_and_answers_in_order(client: Redis) -> None:
    pipe = client.pipeline(transaction=False)
    for number in range(100):
        pipe.hset(f"hash{number}", "n", str(number))
        pipe.hgetall(f"hash{number}")
    found = await pipe.execute()
    assert found[1::2] == [{b"n": str(number).encode()} for number in range(100)]


async def test_script_reads_several_keys_of_one_slot_in_one_step(client: Redis) -> None:
    await client.set("{tag}a", "1")
    several = Several(client)
    assert await several(["{tag}a", "{tag}b"], ("GET", "{tag}a"), ("INCR", "{tag}b")) == [b"1", 1]


async def test_commands_pipelines_and_scripts_follow_a_slot_that_moved(
    cluster: Cluster, client: Redis
) -> None:
    await client.set("{moving}a", "1")
    for _ in range(2):
        await cluster.move_slot(slot_of("{moving}a"), await elsewhere(cluster, slot_of("{moving}a")))
        assert await client.get("{moving}a") == b"1"
        await cluster.move_slot(slot_of("{moving}a"), await elsewhere(cluster, slot_of("{moving}a")))
        pipe = client.pipeline(transaction=False)
        pipe.get("{moving}a")
        pipe.get("{other}")
        assert await pipe.execute() == [b"1", None]
        await cluster.move_slot(slot_of("{moving}a"), await elsewhere(cluster, slot_of("{moving}a")))
        assert await Several(client)(["{moving}a"], ("GET", "{moving}a")) == [b"1"]


async def test_key_that_has_moved_while_its_slot_is_moving_is_found(cluster: Cluster, client: Redis) -> None:
    for name in ("stays", "goes"):
        await client.set(f"{{asking}}{name}", name)
    slot = slot_of("{asking}")
    source, target = await cluster.owner(slot), await elsewhere(cluster, slot)
    async with cluster.node(source) as giving, cluster.node(target) as taking:
        ids = [await node.execute_command("CLUSTER MYID") for node in (giving, taking)]
        await taking.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", ids[0])
        await giving.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", ids[1])
        await giving.execute_command("MIGRATE", "127.0.0.1", target, "", 0, 5000, "KEYS", "{asking}goes")
        assert await asyncio.gather(*(client.get("{asking}goes") for _ in range(50))) == [b"goes"] * 50
        assert await client.get("{asking}stays") == b"stays"
        pipe = client.pipeline(transaction=False)
        pipe.get("{asking}goes")
        pipe.get("{asking}stays")
        assert await pipe.execute() == [b"goes", b"stays"]
        await giving.execute_command("MIGRATE", "127.0.0.1", target, "", 0, 5000, "KEYS", "{asking}stays")
        for node in (taking, giving):
            await node.execute_command("CLUSTER SETSLOT", slot, "NODE", ids[1])


async def test_cancelled_commands_leave_nobody_waiting_and_no_answer_for_another(client: Redis) -> None:
    await asyncio.gather(*(client.set(f"key{number}", number) for number in range(20)))

    async def ask(number: int, turns: int) -> Any:
        asking = asyncio.create_task(client.get(f"key{number}"))  # type: ignore[arg-type]
        for _ in range(turns):
            await asyncio.sleep(0)
        asking.cancel()
        return (await asyncio.gather(asking, return_exceptions=True))[0]

    async with within(60, "every command that is cancelled ends"):
        for turns in range(12):
            await asyncio.gather(*(ask(number, turns) for number in range(20)))
    found = await asyncio.gather(*(client.get(f"key{number}") for number in range(20)))
    assert found == [str(number).encode() for number in range(20)]


@pytest.mark.parametrize("way", ["killed", "frozen"])
async def test_commands_find_the_replica_that_took_a_primarys_place(tmp_path: Path, way: str) -> None:
    async with Cluster(tmp_path, replicas=1) as cluster, connect(cluster.url) as client:
        await asyncio.gather(*(client.set(f"key{number}", number) for number in range(30)))
        owner = await cluster.owner(slot_of("key1"))
        if way == "killed":
            await cluster.kill(owner)
        else:
            cluster.freeze(owner)

        async def set_again() -> bool:
            try:
                async with available():
                    return bool(await client.set("key1", "again"))
            except Unavailable:
                return False

        await eventually(set_again, seconds=40, what="the key is written")
        if way == "frozen":
            cluster.thaw(owner)
        assert await client.get("key1") == b"again"
        assert len(await as_cluster(client).told()) == 3  # type: ignore[union-attr]


async def test_what_names_no_key_is_refused_in_a_sentence(client: Redis) -> None:
    with pytest.raises(RedisError, match="names no key"):
        await client.ping()
    with pytest.raises(RedisError, match="use a script"):
        client.pipeline(transaction=True)


async def test_start_says_so_where_the_address_is_of_the_other_kind(cluster: Cluster, store: Store) -> None:
    node = f"redis://127.0.0.1:{cluster.ports[0]}"
    for url, said in (
        (node, "redis\\+cluster://"),
        (store.url.replace("redis", "redis+cluster"), "cluster support"),
    ):
        async with connect(url) as client:
            health = Health(client, Keys("kind"), "there", require_durable=False)
            with pytest.raises(StartError, match=said):
                await health.check(0)


async def test_client_without_any_server_fails_and_looks_again() -> None:
    async with connect("redis+cluster://127.0.0.1:1") as client:
        assert isinstance(client, Client)
        with pytest.raises(Unavailable):
            async with available():
                await client.get("key")


async def test_what_is_kept_too_long_is_shortened_on_every_server(client: Redis) -> None:
    keys = Keys("kept")
    files = Attachments(client, keys, largest=1000, most_bytes=10_000, days=0)
    chats = [keys.of_conversation(f"chat{number}") for number in range(30)]
    for number, each in enumerate(chats):
        await client.hset(
            each.conversation, mapping={"session": "alice", "updated": timestamp(), "logged": "1"}
        )
        await client.hset(each.messages, "m", "{}")
        put = await files.put("alice", f"key{number}", "a.txt", b"Text")
        await files.keep("alice", f"chat{number}", [put.id])
    retention = Retention(client, keys, files, history_days=1)
    lowered = await retention.lower(change=True)
    assert (lowered.chats, lowered.files) == (30, 30)
    for each in chats:
        for key in (each.conversation, each.messages):
            assert 0 < await client.ttl(key) <= 86_400
    again = await retention.lower(change=True)
    assert (again.chats, again.files, again.gone) == (0, 0, 0)


async def test_history_moves_to_a_person_over_all_slots(cluster: Cluster, client: Redis) -> None:
    story = Moving(client, cluster.url)
    try:
        names = {f"c{number}" for number in range(30)}
        for name in names:
            await story.has(name)
        for number in range(2):
            await story.prompts.add(SESSION, f"p{number}", f"Prompt {number}", "Say hello")
            await story.attachments.put(SESSION, f"k{number}", "cat.png", pictures.PNG.ljust(100, b"."))
        assert await story.move() == len(names)
        assert await story.listed(PERSON) == names
        assert len(await story.prompts.listed(PERSON)) == 2
        assert int(await client.get(f"{story.keys.attachments_of(PERSON)}:bytes") or 0) == 200
        assert await story.erasure.all(SESSION) == []
    finally:
        await story.broadcaster.close()
