"""The servers of the other tests do what they say: a Cluster, Sentinels, a store that speaks TLS."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis, Sentinel
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import AuthenticationError, MovedError
from redis.exceptions import ConnectionError as NoConnection

from tests.system.cluster import Cluster
from tests.system.sentinel import Sentinels
from tests.system.tls import TlsStore
from tests.waiting import eventually

TAG = "{chat}"
SLOT = key_slot(b"chat")
MANY = 250
"""Keys: more than one MIGRATE takes."""
SECONDS = 30.0
ONCE = Retry(NoBackoff(), 0)


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    """Three primaries."""
    async with Cluster(tmp_path) as cluster:
        yield cluster


@pytest.fixture
async def double(tmp_path: Path) -> AsyncIterator[Cluster]:
    """Three primaries with a replica each."""
    async with Cluster(tmp_path, replicas=1) as cluster:
        yield cluster


@pytest.fixture
async def sentinels(tmp_path: Path) -> AsyncIterator[Sentinels]:
    """Three sentinels, a master and two replicas, without a password."""
    async with Sentinels(tmp_path) as sentinels:
        yield sentinels


async def write(sentinels: Sentinels) -> None:
    """Write a key that both replicas have."""
    async with sentinels.client() as redis:
        await redis.set(TAG, "kept")
        assert await redis.wait(2, 5_000) == 2


async def read(sentinels: Sentinels) -> bytes | str | None:
    """Read the key from the master."""
    async with sentinels.client() as redis:
        return await redis.get(TAG)


async def heard(listening: PubSub, kind: str) -> dict[str, Any]:
    """Wait for the next message, which is of this kind."""

    async def attempt() -> dict[str, Any]:
        return await listening.get_message(timeout=1) or {}

    message = await eventually(attempt, seconds=SECONDS, what=f"a message of kind {kind}")
    assert message["type"] == kind
    return message


async def another_owner(cluster: Cluster, than: int) -> int:
    """Wait until the cluster has another owner of the slot, and return it."""

    async def attempt() -> int:
        owner = await cluster.owner(SLOT)
        return 0 if owner == than else owner

    return await eventually(attempt, seconds=SECONDS, what=f"another than {than} owns slot {SLOT}")


# Cluster


async def test_cluster_serves_every_slot_when_it_is_ready(cluster: Cluster) -> None:
    assert {await cluster.owner(slot) for slot in (0, 8_000, 16_383)} == set(cluster.ports)
    async with cluster.client() as redis:
        for number in range(100):
            assert await redis.set(f"key:{number}", number)
    counts = []
    for port in cluster.ports:
        async with cluster.node(port) as node:
            counts.append(await node.dbsize())
    assert all(counts)
    assert sum(counts) == 100


async def test_cluster_keeps_all_keys_of_a_slot_when_it_moves(cluster: Cluster) -> None:
    source = await cluster.owner(SLOT)
    target = next(port for port in cluster.ports if port != source)
    async with cluster.client() as redis, cluster.node(source) as old, cluster.node(target) as new:
        for number in range(MANY):
            await redis.set(f"{TAG}:{number}", number)
        await cluster.move_slot(SLOT, target)
        assert await cluster.owner(SLOT) == target
        assert await old.dbsize() == 0
        assert await new.dbsize() == MANY
        for number in range(MANY):
            assert await redis.get(f"{TAG}:{number}") == str(number).encode()
        await cluster.move_slot(SLOT, source)
        assert await old.dbsize() == MANY


async def test_sharded_subscriber_is_unsubscribed_when_its_slot_moves(cluster: Cluster) -> None:
    source = await cluster.owner(SLOT)
    target = next(port for port in cluster.ports if port != source)
    async with cluster.node(source) as old, old.pubsub() as listening:
        await listening.ssubscribe(TAG)
        await heard(listening, "ssubscribe")
        await cluster.move_slot(SLOT, target)
        assert (await heard(listening, "sunsubscribe"))["channel"] == TAG.encode()
        await listening.ssubscribe(TAG)
        with pytest.raises(MovedError, match=f"127.0.0.1:{target}"):
            await heard(listening, "ssubscribe")


async def test_sharded_subscribers_of_both_are_unsubscribed_when_a_replica_takes_over(
    double: Cluster,
) -> None:
    before = await double.owner(SLOT)
    replica = double.ports[double.ports.index(before) + 3]
    async with (
        double.node(before) as old,
        double.node(replica) as new,
        old.pubsub() as at_old,
        new.pubsub() as at_new,
    ):
        for listening in (at_old, at_new):
            await listening.ssubscribe(TAG)
            await heard(listening, "ssubscribe")
        assert await double.failover(before) == replica
        for listening in (at_old, at_new):
            assert (await heard(listening, "sunsubscribe"))["channel"] == TAG.encode()


async def test_cluster_keeps_its_keys_when_replicas_take_over_to_and_fro(double: Cluster) -> None:
    before = await double.owner(SLOT)
    async with double.client() as redis:
        await redis.set(TAG, "kept")
        after = await double.failover(before)
        assert await double.owner(SLOT) == after
        assert before not in await double.primaries()
        assert await redis.get(TAG) == b"kept"
        assert await double.failover(after) == before
        assert await redis.get(TAG) == b"kept"


async def test_cluster_makes_a_replica_the_primary_when_one_is_killed(double: Cluster) -> None:
    before = await double.owner(SLOT)
    async with double.client() as redis:
        await redis.set(TAG, "kept")
    async with double.node(before) as node:
        assert await node.wait(1, 5_000) == 1
    await double.kill(before)
    after = await another_owner(double, than=before)
    await double.start(before)
    await double.settled()
    async with double.node(after) as node:
        assert await node.get(TAG) == b"kept"
    assert before not in await double.primaries()


async def test_cluster_makes_a_replica_the_primary_when_one_freezes(double: Cluster) -> None:
    before = await double.owner(SLOT)
    double.freeze(before)
    await another_owner(double, than=before)
    double.thaw(before)
    await double.settled()
    assert before not in await double.primaries()


# Sentinels


async def test_sentinels_keep_what_was_written_when_they_make_another_master(sentinels: Sentinels) -> None:
    before = await sentinels.master_port()
    await write(sentinels)
    after = await sentinels.failover()
    assert after == await sentinels.master_port() != before
    assert await read(sentinels) == b"kept"
    await sentinels.settled()
    async with sentinels.store(before) as redis:
        assert (await redis.role())[:3] == [b"slave", b"127.0.0.1", after]


async def test_sentinels_keep_what_was_written_when_the_master_is_killed(sentinels: Sentinels) -> None:
    await write(sentinels)
    killed = await sentinels.kill_master()
    assert await sentinels.master_port() != killed
    assert await read(sentinels) == b"kept"
    await sentinels.start(killed)
    await sentinels.settled()
    assert await sentinels.master_port() != killed


async def test_sentinels_keep_what_was_written_when_the_master_freezes(sentinels: Sentinels) -> None:
    await write(sentinels)
    frozen = await sentinels.freeze_master()
    assert await sentinels.another(than=frozen) == await sentinels.master_port()
    sentinels.thaw(frozen)
    await sentinels.settled()
    assert await sentinels.master_port() != frozen
    assert await read(sentinels) == b"kept"


async def test_sentinels_make_another_master_when_the_stores_want_a_password(tmp_path: Path) -> None:
    async with Sentinels(tmp_path, password="secret") as sentinels:
        await write(sentinels)
        await sentinels.failover()
        assert await read(sentinels) == b"kept"
        async with Redis(port=await sentinels.master_port()) as redis:
            with pytest.raises(AuthenticationError):
                await redis.get(TAG)


async def test_client_of_sentinels_finds_the_master_when_it_asks_one_of_them(sentinels: Sentinels) -> None:
    addresses = [("127.0.0.1", port) for port in sentinels.sentinel_ports]
    finder = Sentinel(addresses)  # type: ignore[no-untyped-call]
    try:
        assert await finder.discover_master(sentinels.service) == ("127.0.0.1", await sentinels.master_port())
        assert len(await finder.discover_slaves(sentinels.service)) == 2
    finally:
        for client in finder.sentinels:
            await client.aclose()


# TLS


async def test_tls_store_serves_a_client_without_certificate_where_none_is_asked_for(tmp_path: Path) -> None:
    async with TlsStore(tmp_path) as store, store.client() as redis:
        assert "ssl_certfile" not in store.url
        assert await redis.set(TAG, "kept")


async def test_tls_store_refuses_a_client_without_certificate_when_it_asks_for_one(tmp_path: Path) -> None:
    async with TlsStore(tmp_path, clients="yes") as store:
        async with store.client() as redis:
            assert await redis.set(TAG, "kept")
        bare = f"rediss://127.0.0.1:{store.port}?ssl_ca_certs={store.ca}"
        async with Redis.from_url(bare, retry=ONCE) as redis:
            with pytest.raises(NoConnection):
                await redis.get(TAG)


@pytest.mark.parametrize("scheme", ["rediss", "redis"])
async def test_tls_store_gets_no_client_that_does_not_trust_it_or_speaks_no_tls(
    tmp_path: Path, scheme: str
) -> None:
    store = TlsStore(tmp_path)
    async with store, Redis.from_url(f"{scheme}://127.0.0.1:{store.port}", retry=ONCE) as redis:
        with pytest.raises(NoConnection):
            await redis.ping()


async def test_tls_store_keeps_its_data_and_its_url_when_it_restarts(tmp_path: Path) -> None:
    async with TlsStore(tmp_path, clients="yes") as store:
        async with store.client() as redis:
            await redis.set(TAG, "kept")
        await store.restart()
        async with store.client() as redis:
            assert await redis.get(TAG) == b"kept"
        await store.kill()
        await store.start()
        async with store.client() as redis:
            assert await redis.get(TAG) == b"kept"
