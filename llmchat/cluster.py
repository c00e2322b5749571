"""A client of a Cluster: each command goes to the server that has its key's slot. Knows no key of ours.

redis-py has one, which does not bear many commands at once (ARCHITECTURE.md tells what was seen); this one is made of
its plain clients, one for each server, and has their commands.
"""

from __future__ import annotations

import asyncio
import random
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Any, Self

from redis.asyncio import Redis
from redis.commands.core import AsyncCoreCommands
from redis.crc import key_slot
from redis.exceptions import AskError, ClusterDownError, MovedError, RedisError, ResponseError, TryAgainError

from llmchat.durations import Durations
from llmchat.pipelined import TRIP_SECONDS

SLOTS = 16_384
ANSWER_SECONDS = 0.7
"""For an answer of one server: then the slots are looked up anew, and another may have them."""
LOOK_SECONDS = 0.3
"""For what one server says of the slots: then another is asked."""
REDIRECTIONS = 16
PAUSE_SECONDS = 0.02
"""Between two tries while servers do not agree."""
WITH_KEYS_BEHIND = {"EVAL", "EVALSHA"}
GONE = (RedisError, OSError, TimeoutError)
ELSEWHERE = (AskError, TryAgainError, ClusterDownError)

Node = Callable[[str, int], Redis]
Command = tuple[tuple[Any, ...], dict[str, Any]]
"""Its words, and redis-py's options for reading the answer."""


class Cluster(AsyncCoreCommands):
    """The commands of redis-py's client, each of which must name a key first (or, of a script, among its KEYS)."""

    _event_dispatcher: Any = None  # the mixin asks for one

    def __init__(self, hosts: Sequence[tuple[str, int]], node: Node, *, retries: int) -> None:
        self.hosts = hosts
        self.node = node
        """Makes the client for one server, by host and port."""
        self._retries = retries
        self._nodes: dict[str, Redis] = {}  # "host:port" -> its client
        self._starts: list[int] = []  # first slots of the ranges, rising
        self._owners: list[str] = []  # of the range that begins there; "" where nobody has it
        self._looks = 0
        self._looking = asyncio.Lock()
        self.trips = Durations(*TRIP_SECONDS)
        """How long pipelines took, there and back."""

    @property
    def waiting(self) -> int:
        """How many commands wait for the next pipeline."""
        nodes: Any = self._nodes.values()
        return sum(node.waiting for node in nodes)

    async def look(self, seen: int | None = None) -> None:
        """Learn who has which slots, unless somebody did since `seen` looks. Raises RedisError where nobody tells."""
        async with self._looking:
            if seen is not None and self._looks > seen:
                return
            known = [tuple(name.rsplit(":", 1)) for name in dict.fromkeys(self._owners) if name]
            random.shuffle(known)
            for host, port in [*known, *self.hosts]:
                try:
                    async with asyncio.timeout(LOOK_SECONDS):
                        node: Any = self.at(f"{host}:{port}")
                        ranges = await node.execute_command("CLUSTER SLOTS")
                except ResponseError:
                    raise
                except GONE:
                    continue
                self._take(ranges, str(host))
                return
        raise RedisError("no server of the Cluster answers")

    def _take(self, ranges: list[list[Any]], asked: str) -> None:
        starts: list[int] = []
        owners: list[str] = []
        end = -1
        for first, last, (host, port, *_), *_ in sorted(ranges, key=lambda each: int(each[0])):
            if first > end + 1:
                starts.append(end + 1)
                owners.append("")
            starts.append(int(first))
            owners.append(f"{host.decode() or asked}:{port}")
            end = int(last)
        if end < SLOTS - 1:
            starts.append(end + 1)
            owners.append("")
        self._starts, self._owners = starts, owners
        self._looks += 1

    def owners(self) -> list[str]:
        """Name the servers that have slots."""
        return sorted({owner for owner in self._owners if owner})

    def owner(self, key: str | bytes) -> str:
        """Name the server that has a key. Raises RedisError where nobody is known to."""
        slot = slot_of(key)
        owner = self._owners[bisect_right(self._starts, slot) - 1] if self._starts else ""
        if not owner:
            raise ClusterDownError(f"nobody has slot {slot}")
        return owner

    async def execute_command(self, *words: Any, **options: Any) -> Any:
        """Carry out a command where its key is; follow it where that has moved."""
        failures = 0
        for _ in range(REDIRECTIONS):
            looks = self._looks
            try:
                if not looks:
                    await self.look(0)
                async with asyncio.timeout(ANSWER_SECONDS):
                    node: Any = self.at(self.owner(_key(words)))
                    return await node.execute_command(*words, **options)
            except AskError as moved:
                if not isinstance(moved, MovedError):
                    return await self._ask(moved, words, options)
                await self.look(looks)
            except (TryAgainError, ClusterDownError):
                await asyncio.sleep(PAUSE_SECONDS)
                await self.look(looks)
            except ResponseError:
                raise
            except GONE:
                if failures >= self._retries:
                    await self._look_if_possible(looks)
                    raise
                failures += 1
                await self.look(looks)
        raise RedisError("the servers of the Cluster do not agree")

    def pipeline(self, transaction: bool = False) -> _Pipeline:
        """Collect commands on any keys, to be carried out at once. There are no transactions here."""
        if transaction:
            raise RedisError("a Cluster's pipeline is no transaction: use a script")
        return _Pipeline(self)

    async def told(self) -> list[dict[str, Any]]:
        """Ask every server that has slots what it tells of itself."""
        await self.look()
        return [await self.at(owner).info() for owner in self.owners()]

    async def aclose(self) -> None:
        """Close all connections; usable again."""
        nodes, self._nodes = list(self._nodes.values()), {}
        await asyncio.gather(*(node.aclose() for node in nodes), return_exceptions=True)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def at(self, owner: str) -> Redis:
        """Give the client for one server."""
        if owner not in self._nodes:
            host, _, port = owner.rpartition(":")
            made: Any = self.node(host, int(port))
            made.trips = self.trips
            self._nodes[owner] = made
        return self._nodes[owner]

    async def _look_if_possible(self, looks: int) -> None:
        """So that the next command finds who took the place of a server that is gone."""
        try:
            await self.look(looks)
        except GONE:
            return

    async def _ask(self, moving: AskError, words: Sequence[Any], options: dict[str, Any]) -> Any:
        """Carry out a command on a key that has moved already, while its slot is moving."""
        pipe = self.at(f"{moving.host}:{moving.port}").pipeline(transaction=False)
        pipe.execute_command("ASKING")
        pipe.execute_command(*words, **options)
        async with asyncio.timeout(ANSWER_SECONDS):
            return (await pipe.execute())[1]


class _Pipeline(AsyncCoreCommands):
    """Commands for several servers: each gets its own at once, and what it does not have goes where it is."""

    _event_dispatcher: Any = None

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._commands: list[Command] = []

    def execute_command(self, *words: Any, **options: Any) -> _Pipeline:
        """Collect a command."""
        self._commands.append((words, options))
        return self

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Carry out all; raise the first error, or give errors in the place of answers."""
        commands, self._commands = self._commands, []
        if not self._cluster.owners():
            await self._cluster.look(0)
        places: dict[str, list[int]] = {}
        for index, (words, _) in enumerate(commands):
            places.setdefault(self._cluster.owner(_key(words)), []).append(index)
        answers: dict[int, Any] = {}
        for some in await asyncio.gather(
            *(
                self._at(owner, {index: commands[index] for index in indexes})
                for owner, indexes in places.items()
            )
        ):
            answers |= some
        found: list[Any] = []
        for index, command in enumerate(commands):
            try:
                found.append(await self._settled(answers[index], *command))
            except Exception as error:
                if raise_on_error:
                    raise
                found.append(error)
        return found

    async def _at(self, owner: str, commands: dict[int, Command]) -> dict[int, Any]:
        """Carry out what one server has, and give its answers: each may be an error."""
        pipe: Any = self._cluster.at(owner).pipeline(transaction=False)
        for words, options in commands.values():
            pipe.execute_command(*words, **options)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return dict(zip(commands, await pipe.execute(raise_on_error=False), strict=True))
        except GONE as error:
            return dict.fromkeys(commands, error)

    async def _settled(self, answer: Any, words: Sequence[Any], options: dict[str, Any]) -> Any:
        """Ask elsewhere, or once more, where that may help; raise an error that is one."""
        if isinstance(answer, ELSEWHERE) or (
            isinstance(answer, GONE) and not isinstance(answer, ResponseError)
        ):
            return await self._cluster.execute_command(*words, **options)
        if isinstance(answer, Exception):
            raise answer
        return answer


def slot_of(key: str | bytes) -> int:
    """Tell the slot of a key or a channel."""
    return int(key_slot(key.encode() if isinstance(key, str) else key))


def _key(words: Sequence[Any]) -> str | bytes:
    at = 3 if str(words[0]).upper() in WITH_KEYS_BEHIND else 1
    if len(words) <= at:
        raise RedisError(f"{words[0]} names no key, so nobody knows where it belongs")
    key: str | bytes = words[at]
    return key
