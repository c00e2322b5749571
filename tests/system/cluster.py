"""A real Valkey Cluster of three primaries, with replicas or without, whose slots move and whose nodes fail."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.exceptions import RedisError

from tests.system.node import Node, free_ports, until

PRIMARIES = 3
SLOTS = 16_384
NODE_TIMEOUT_MS = 2_000
MIGRATE_KEYS = 100
MIGRATE_TIMEOUT_MS = 5_000

View = dict[str, dict[str, Any]]
"""What a node says of all nodes, by address: CLUSTER NODES as redis-py reads it."""


class Cluster:
    """`async with Cluster(folder) as cluster:`; with `replicas=1` each primary has one, at `ports[3:]`.

    Options are those of the server, for every node. A port is a node's name here, whatever its part is now.
    """

    def __init__(self, folder: Path, *, replicas: Literal[0, 1] = 0, **options: str) -> None:
        count = PRIMARIES * (1 + replicas)
        ports = free_ports(2 * count)
        self.ports, buses = ports[:count], ports[count:]
        self.url = "redis+cluster://" + ",".join(f"127.0.0.1:{port}" for port in self.ports)
        self._buses = dict(zip(self.ports, buses, strict=True))
        self._nodes = {
            port: Node(
                folder / str(port),
                port,
                cluster_enabled="yes",
                cluster_port=str(bus),
                cluster_node_timeout=str(NODE_TIMEOUT_MS),
                **options,
            )
            for port, bus in self._buses.items()
        }
        self._leaving = AsyncExitStack()

    async def owner(self, slot: int) -> int:
        """Return the port of the primary that most of the nodes that answer take for the slot's owner."""
        said = await asyncio.gather(*map(self._owner, self.ports, [slot] * len(self.ports)))
        found = Counter(port for port in said if port)
        assert found, f"nobody knows an owner of slot {slot}"
        return found.most_common(1)[0][0]

    async def primaries(self) -> list[int]:
        """Return the ports of those that call themselves primaries. The dead and the frozen do not."""
        views = await asyncio.gather(*map(self._view, self.ports))
        return [port for port, view in zip(self.ports, views, strict=True) if view and is_primary(view, port)]

    async def move_slot(self, slot: int, to_port: int) -> None:
        """Move a slot with all its keys to another primary, as `redis-cli --cluster reshard` does it.

        Every node knows the new owner when this returns. All primaries must answer.
        """
        from_port = await self.owner(slot)
        source, target = self._nodes[from_port], self._nodes[to_port]
        assert from_port != to_port, f"slot {slot} is at {to_port}"
        source_id, target_id = await source.ask("CLUSTER MYID"), await target.ask("CLUSTER MYID")
        await target.ask("CLUSTER SETSLOT", slot, "IMPORTING", source_id)
        await source.ask("CLUSTER SETSLOT", slot, "MIGRATING", target_id)
        while keys := await source.ask("CLUSTER GETKEYSINSLOT", slot, MIGRATE_KEYS):
            to = ("127.0.0.1", to_port, "", 0, MIGRATE_TIMEOUT_MS)
            await source.ask("MIGRATE", *to, "KEYS", *keys)
        # The target first: else, were the source to die now, nobody would own the slot.
        others = [port for port in await self.primaries() if port not in (from_port, to_port)]
        for port in (to_port, from_port, *others):
            await self._nodes[port].ask("CLUSTER SETSLOT", slot, "NODE", target_id)
        await self._agreed(slot, to_port)

    async def failover(self, port: int) -> int:
        """Have the replica of a primary take its place in order, and return the replica's port.

        Every node knows it when this returns, and the former primary replicates the new one.
        """
        view = await self._nodes[port].ask("CLUSTER NODES")
        slot = int(mine(view, port)["slots"][0][0])
        to_port = next(
            port_of(address)
            for address, node in view.items()
            if node["master_id"] == mine(view, port)["node_id"]
        )
        await self._nodes[to_port].ask("CLUSTER FAILOVER")
        await self._agreed(slot, to_port)
        await until(partial(self._follows, port, to_port), f"{port} follows {to_port}")
        return to_port

    async def kill(self, port: int) -> None:
        """End a node at once, kill -9. Whether others noticed, `owner` and `settled` tell."""
        await self._nodes[port].kill()

    async def start(self, port: int) -> None:
        """Start a killed node on the data and the part that it had. `settled` waits for the others."""
        await self._nodes[port].start()

    def alive(self, port: int) -> bool:
        """Tell whether a node's process is there."""
        return self._nodes[port].alive

    def freeze(self, port: int) -> None:
        """SIGSTOP: connections stay open, nobody answers; after two seconds the others take it for dead."""
        self._nodes[port].freeze()

    def thaw(self, port: int) -> None:
        """SIGCONT."""
        self._nodes[port].thaw()

    async def settled(self) -> None:
        """Wait until every node says that all is well, knows all the others, and replicates where it should."""
        await asyncio.gather(*(until(partial(self._well, port), f"{port} is well") for port in self.ports))

    def node(self, port: int) -> Redis:
        """Return a plain connection to one node. `async with` closes it."""
        return self._nodes[port].client()

    def client(self) -> RedisCluster:
        """Return a client of the whole cluster. `async with` closes it."""
        return RedisCluster(startup_nodes=[ClusterNode("127.0.0.1", port) for port in self.ports])

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as leaving:
            for node in self._nodes.values():
                await leaving.enter_async_context(node)
            await self._join()
            self._leaving = leaving.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        for port, node in self._nodes.items():
            print("\n".join([f"cluster node {port}:", *node.log]))  # shown where the test fails
        await self._leaving.aclose()

    async def _join(self) -> None:
        """Give out the slots, let all meet, and make replicas of those that have no slots."""
        primaries, replicas = self.ports[:PRIMARIES], self.ports[PRIMARIES:]
        bounds = [SLOTS * number // PRIMARIES for number in range(PRIMARIES + 1)]
        for number, port in enumerate(primaries):
            await self._nodes[port].ask("CLUSTER ADDSLOTSRANGE", bounds[number], bounds[number + 1] - 1)
        for epoch, port in enumerate(self.ports, 1):
            await self._nodes[port].ask("CLUSTER SET-CONFIG-EPOCH", epoch)
        for port in self.ports[1:]:
            await self._nodes[self.ports[0]].ask("CLUSTER MEET", "127.0.0.1", port, self._buses[port])
        await self.settled()
        for port, primary in zip(replicas, primaries, strict=False):
            await self._nodes[port].ask("CLUSTER REPLICATE", await self._nodes[primary].ask("CLUSTER MYID"))
        for port in self.ports if replicas else ():
            await until(partial(self._knows_replicas, port), f"{port} knows the replicas")
        await self.settled()

    async def _agreed(self, slot: int, owner: int) -> None:
        """Wait until every node that answers takes this one for the slot's owner."""

        async def attempt() -> bool:
            said = await asyncio.gather(*map(self._owner, self.ports, [slot] * len(self.ports)))
            return {port for port in said if port} == {owner}

        await until(attempt, f"all say that {owner} owns slot {slot}")

    async def _well(self, port: int) -> bool:
        view = await self._view(port)
        if not view or {port_of(address) for address in view} != set(self.ports):
            return False
        # A node behind a bus that is not up yet, or that did not introduce itself, is no node yet.
        strange = ("handshake", "fail", "fail?", "noaddr")
        for node in view.values():
            if not node["connected"] or any(flag in strange for flag in node["flags"].split(",")):
                return False
        state = await self._nodes[port].ask("CLUSTER INFO")
        if state["cluster_state"] != "ok":
            return False
        return is_primary(view, port) or await self._replicates(port)

    async def _knows_replicas(self, port: int) -> bool:
        view = await self._view(port)
        return bool(view) and sum(node["master_id"] != "-" for node in view.values()) == PRIMARIES

    async def _follows(self, port: int, primary: int) -> bool:
        """Tell whether a node replicates this primary, and every node that answers knows it."""
        for view in await asyncio.gather(*map(self._view, self.ports)):
            if view and mine(view, port)["master_id"] != mine(view, primary)["node_id"]:
                return False
        return await self._replicates(port)

    async def _replicates(self, port: int) -> bool:
        said = await self._nodes[port].ask("INFO", "replication")
        return (said["role"], said.get("master_link_status")) == ("slave", "up")

    async def _owner(self, port: int, slot: int) -> int | None:
        """Return whom one node takes for the owner, None where it knows none or does not answer."""
        for address, node in (await self._view(port)).items():
            if any(int(span[0]) <= slot <= int(span[-1]) for span in node["slots"]):
                return port_of(address)
        return None

    async def _view(self, port: int) -> View:
        """Return what one node says of all, nothing where it does not answer."""
        try:
            view: View = await self._nodes[port].ask("CLUSTER NODES")
        except RedisError:
            return {}
        return view


def port_of(address: str) -> int:
    """Return the port in a node's address."""
    return int(address.rpartition(":")[2])


def mine(view: View, port: int) -> dict[str, Any]:
    """Return what a view says of the node at this port."""
    return next(node for address, node in view.items() if port_of(address) == port)


def is_primary(view: View, port: int) -> bool:
    """Tell whether the node at this port is a primary in a view."""
    return "master" in mine(view, port)["flags"].split(",")
