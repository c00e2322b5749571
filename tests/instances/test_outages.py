"""The store drops connections, is away, is full, forgets: clients are told, and all catch up when it is back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from tests.conftest import Connect
from tests.fakes import Gate, Model
from tests.instances import Client, Instance, Store
from tests.waiting import eventually

pytestmark = pytest.mark.long

SAID = "seen, missed, and the rest."


async def done(client: Client, conversation: str, answer: str) -> None:
    """Wait until a client knows that an answer is whole: by its last event, or by a snapshot."""

    def ended() -> bool:
        message = client.mirrors[conversation].messages.get(answer)
        return message is not None and message.state == "done"

    await client.until(ended, seconds=30)


Instances = tuple[Instance, Instance]


class Following:
    """Two clients of a session, each on its instance, who follow one answer."""

    def __init__(self, one: Client, two: Client, model: Model) -> None:
        self.one, self.two = one, two
        self.missed, self.rest = Gate(), Gate()
        self._model = model
        self.conversation = ""
        self.answer = ""

    async def begin(self) -> None:
        """Begin an answer, and wait until both have seen some of it."""
        self._model.answer("seen, ", self.missed, "missed, ", self.rest, "and the rest.")
        accepted = await self.one.command("message.send", text="Hi")
        self.conversation, self.answer = accepted["conversation"], accepted["answer"]
        await self.two.command("conversation.open", conversation=self.conversation)
        await self.said("seen, ")

    async def said(self, text: str) -> None:
        """Wait until both have seen so much."""
        for client in (self.one, self.two):
            await client.until(lambda client=client: client.text(self.answer) == text, seconds=40)

    async def end(self) -> None:
        """Let the answer end, and see that both have it whole and the same."""
        self.missed.open()
        self.rest.open()
        for client in (self.one, self.two):
            await done(client, self.conversation, self.answer)
        assert self.one.text(self.answer) == self.two.text(self.answer) == SAID
        assert self.one.hash(self.conversation) == self.two.hash(self.conversation)


@pytest.fixture(scope="module")
async def own_store(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Store]:
    """A store for these tests alone: each leaves it running."""
    async with Store(tmp_path_factory.mktemp("store")) as store:
        yield store


@pytest.fixture(scope="module")
async def own_instances(own_store: Store, model_server: Model) -> AsyncIterator[Instances]:
    url = model_server.url
    async with Instance(own_store.url, url) as one, Instance(own_store.url, url) as two:
        yield one, two


@pytest.fixture
def service(own_instances: Instances, own_store: Store, model: Model) -> Iterator[Instances]:
    """Two instances on that store, whose logs are shown where a test fails."""
    before = [len(instance.log) for instance in own_instances]
    yield own_instances
    own_store.thaw()
    for instance, lines in zip(own_instances, before, strict=True):
        print("\n".join([f"instance {instance.port}:", *instance.log[lines:]]))


@pytest.fixture
async def following(service: Instances, connect: Connect, model: Model) -> Following:
    one = await connect(service[0])
    return Following(one, await connect(service[1], one), model)


async def restarted(store: Store) -> None:
    await store.restart()


async def killed(store: Store) -> None:
    await store.kill()
    await store.start()


async def cut(store: Store) -> None:
    async with store.client() as redis:
        await redis.client_kill_filter(_type="pubsub")
        await redis.client_kill_filter(_type="normal", skipme=True)


@pytest.mark.parametrize("outage", [restarted, killed, cut])
async def test_all_catch_up_after_an_outage_in_mid_answer(
    following: Following, own_store: Store, outage: Callable[[Store], object]
) -> None:
    await following.begin()
    await outage(own_store)  # type: ignore[misc]
    following.missed.open()
    await following.said("seen, missed, ")
    await following.end()


async def test_all_catch_up_when_the_store_was_frozen_for_longer_than_a_heartbeat_waits(
    following: Following, own_store: Store
) -> None:
    await following.begin()
    own_store.freeze()
    following.missed.open()
    for client in (following.one, following.two):
        await client.event("session.store", available=False, seconds=40)
    own_store.thaw()
    for client in (following.one, following.two):
        await client.event("session.store", available=True, seconds=40)
    await following.said("seen, missed, ")
    await following.end()


async def test_answer_is_whole_everywhere_though_the_store_lost_its_last_second(
    following: Following, own_store: Store
) -> None:
    await following.begin()
    mark = await own_store.mark()
    following.missed.open()
    await following.said("seen, missed, ")
    before = following.one.mirrors[following.conversation].at
    await own_store.lose_since(mark)
    await following.end()
    after = following.one.mirrors[following.conversation].at
    assert before
    assert after
    assert before["epoch"] != after["epoch"]


async def test_client_that_comes_back_with_a_place_the_store_has_lost_gets_what_there_is(
    following: Following, own_store: Store, connect: Connect
) -> None:
    await following.begin()
    mark = await own_store.mark()
    await following.end()
    await following.two.drop()
    lost = following.one.mirrors[following.conversation].at
    await own_store.lose_since(mark)
    await following.two.reconnect(following.one.instance)
    late = await connect(following.one.instance, following.one)
    await late.command("conversation.open", conversation=following.conversation)
    await eventually_same(following.conversation, following.one, following.two, late)
    assert following.two.mirrors[following.conversation].at != lost


async def eventually_same(conversation: str, *clients: Client) -> None:
    """Wait until all stand at the same place and see the same."""

    async def same() -> bool:
        mirrors = [client.mirrors[conversation] for client in clients]
        told = [mirror.at for mirror in mirrors] == [mirrors[0].at] * len(mirrors)
        return told and len({mirror.hash() for mirror in mirrors}) == 1

    await eventually(same, seconds=30, what="all see the same")


@pytest.mark.parametrize("away", ["down", "frozen"])
async def test_command_is_told_that_the_store_is_away_and_carried_out_when_it_is_back(
    own_store: Store, service: Instances, connect: Connect, away: str
) -> None:
    client = await connect(service[0])
    accepted = await client.command("message.send", text="Hi")
    await client.ending(accepted["answer"])
    conversation = accepted["conversation"]
    if away == "down":
        await own_store.stop()
    else:
        own_store.freeze()
    began = time.monotonic()
    commands: list[tuple[str, dict[str, object]]] = [
        ("message.send", {"conversation": conversation, "text": "And?", "id": "and"}),
        ("conversation.open", {"conversation": conversation}),
        ("conversation.list", {}),
    ]
    for kind, fields in commands:
        await client.send(kind, **fields)
    for _ in commands:
        error = await client.event("error", seconds=40)
        assert error["code"] == "unavailable"
    print(f"the three were told after {time.monotonic() - began:.2f} s")
    assert await client.command("ping")
    if away == "down":
        await own_store.start()
    else:
        own_store.thaw()
    accepted = await sent(client, conversation)
    await done(client, conversation, accepted)
    texts = [message.text for message in client.mirror(conversation).branch() if message.role == "user"]
    assert texts == ["Hi", "And?"]


async def sent(client: Client, conversation: str) -> str:
    """Send the prompt again, with its id, until it is accepted; returns the answer's id."""

    async def accepted() -> str:
        await client.send("message.send", conversation=conversation, text="And?", id="and")
        event = await client.until(
            lambda: next((each for each in reversed(client.seen) if each.get("id") == "and"), None)
        )
        return str(event.get("answer", ""))

    return await eventually(accepted, seconds=40, what="the prompt is accepted")


@pytest.mark.parametrize("state", ["full", "a replica"])
async def test_store_that_takes_no_writes_is_unavailable_and_nothing_is_lost(
    own_store: Store, service: Instances, connect: Connect, state: str
) -> None:
    client = await connect(service[0])
    accepted = await client.command("message.send", text="Hi")
    await client.ending(accepted["answer"])
    conversation = accepted["conversation"]
    async with own_store.client() as redis:
        if state == "full":
            await redis.config_set("maxmemory", "1")
        else:
            await redis.execute_command("REPLICAOF", "127.0.0.1", "1")
        code = await client.refused("message.send", conversation=conversation, text="And?", id="and")
        assert code == "unavailable"
        assert await client.command("conversation.list")  # reading goes on
        if state == "full":
            await redis.config_set("maxmemory", "0")
        else:
            await redis.execute_command("REPLICAOF", "NO", "ONE")
        await done(client, conversation, await sent(client, conversation))


async def test_many_commands_at_once_wait_for_a_connection_to_the_store(
    service: Instances, connect: Connect
) -> None:
    one = await connect(service[0])
    clients = [one, *[await connect(service[0], one) for _ in range(20)]]

    async def ask(client: Client) -> None:
        for _ in range(10):
            await client.command("conversation.list", seconds=30)

    await asyncio.gather(*(ask(client) for client in clients for _ in range(6)))
