"""The chat on a store that others keep: Sentinels that make another master, a Cluster whose slots move, TLS."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from redis.crc import key_slot

from tests.fakes import Gate, Model
from tests.instances import Client, Instance
from tests.instances.client import Refused
from tests.instances.test_takeout import bring, fetch
from tests.system.cluster import Cluster
from tests.system.sentinel import Sentinels
from tests.system.tls import TlsStore
from tests.waiting import eventually

TEXT = "seen before, said meanwhile, and the rest."


class Service:
    """Two instances over one store, and a client on each; all of one session."""

    def __init__(self, one: Client, two: Client, model: Model) -> None:
        self.clients = (one, two)
        self.model = model
        self.meanwhile, self.rest = Gate(), Gate()
        self.conversation = ""
        self.answer = ""

    async def begin(self) -> None:
        """Begin an answer, and wait until both have seen some of it."""
        one, two = self.clients
        self.model.answer("seen before, ", self.meanwhile, "said meanwhile, ", self.rest, "and the rest.")
        accepted = await one.command("message.send", text="Hi")
        self.conversation, self.answer = accepted["conversation"], accepted["answer"]
        await two.command("conversation.open", conversation=self.conversation)
        for client in self.clients:
            await client.until(lambda client=client: client.text(self.answer) == "seen before, ")

    async def end(self) -> None:
        """Let the answer end, and see that all have it whole, those too who come only now."""
        self.meanwhile.open()
        self.rest.open()
        for client in self.clients:
            await client.until(
                lambda client=client: client.mirrors[self.conversation].messages[self.answer].state == "done",
                seconds=40,
            )
            assert client.text(self.answer) == TEXT
        one, two = self.clients
        assert one.hash(self.conversation) == two.hash(self.conversation)
        late = Client(one.jar)
        assert two.instance
        await late.connect(two.instance)
        await late.command("conversation.open", conversation=self.conversation)
        assert late.hash(self.conversation) == one.hash(self.conversation)
        await late.close()

    async def goes_on(self) -> None:
        """See that both hear of what is said next."""
        one, two = self.clients
        self.model.answer("Next")

        async def accepted() -> str:
            try:
                sent = await one.command(
                    "message.send", conversation=self.conversation, text="And now?", id="and-now"
                )
            except Refused as refused:
                if refused.code == "unavailable":
                    return ""
                raise
            return str(sent["answer"])

        answer = await eventually(accepted, seconds=30, what="a prompt is accepted")
        for client in (one, two):
            await client.until(
                lambda client=client: (
                    answer in client.mirrors[self.conversation].messages
                    and client.mirrors[self.conversation].messages[answer].state == "done"
                ),
                seconds=30,
            )
        assert one.hash(self.conversation) == two.hash(self.conversation)


@pytest.fixture
async def leaving() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


async def serve(url: str, model: Model, leaving: AsyncExitStack) -> Service:
    """Start two instances and connect a client to each."""
    clients: list[Client] = []
    for _ in range(2):
        instance = await leaving.enter_async_context(Instance(url, model.url))
        leaving.callback(lambda instance=instance: print(f"instance {instance.port}:\n{instance.text}"))
        client = Client(clients[0].jar if clients else None)
        leaving.push_async_callback(client.close)
        await client.connect(instance)
        clients.append(client)
    return Service(*clients, model)


@pytest.mark.parametrize("way", ["killed", "frozen", "in order"])
async def test_answer_outlives_the_master_that_the_sentinels_replace(
    tmp_path: Path, model: Model, leaving: AsyncExitStack, way: str
) -> None:
    async with Sentinels(tmp_path, password="of-the-tests") as sentinels:
        service = await serve(sentinels.url, model, leaving)
        await service.begin()
        if way == "killed":
            await sentinels.kill_master()
            service.meanwhile.open()
        elif way == "frozen":
            frozen = await sentinels.freeze_master()
            service.meanwhile.open()
            await sentinels.another(frozen)
        else:
            await sentinels.failover()
            service.meanwhile.open()
            await sentinels.settled()
        await service.end()
        await service.goes_on()
        if way == "frozen":
            sentinels.thaw(frozen)
        await leaving.aclose()


async def test_answer_goes_on_while_the_slot_of_its_conversation_moves(
    tmp_path: Path, model: Model, leaving: AsyncExitStack
) -> None:
    async with Cluster(tmp_path) as cluster:
        service = await serve(cluster.url, model, leaving)
        await service.begin()
        slot = key_slot(f"conversation.{service.conversation}".encode())
        owner = await cluster.owner(slot)
        away, back = (port for port in cluster.ports if port != owner)
        await cluster.move_slot(slot, away)
        service.meanwhile.open()
        for client in service.clients:
            await client.until(
                lambda client=client: client.text(service.answer) == "seen before, said meanwhile, ",
                seconds=30,
            )
        await cluster.move_slot(slot, back)
        await service.end()
        await service.goes_on()
        await leaving.aclose()


async def test_answer_outlives_the_primary_of_its_slot(
    tmp_path: Path, model: Model, leaving: AsyncExitStack
) -> None:
    async with Cluster(tmp_path, replicas=1) as cluster:
        service = await serve(cluster.url, model, leaving)
        await service.begin()
        slot = key_slot(f"conversation.{service.conversation}".encode())
        owner = await cluster.owner(slot)
        await cluster.kill(owner)
        service.meanwhile.open()

        async def replaced() -> bool:
            return await cluster.owner(slot) != owner

        await eventually(replaced, seconds=40, what="a replica takes its place")
        await service.end()
        await service.goes_on()
        await leaving.aclose()


async def test_lists_search_links_export_import_and_deletion_work_where_the_keys_lie_on_several_servers(
    tmp_path: Path, model: Model, leaving: AsyncExitStack
) -> None:
    async with Cluster(tmp_path) as cluster:
        one, two = (await serve(cluster.url, model, leaving)).clients
        await one.page("/")
        chats = [(await one.prompt(f"Whale {at}"))["conversation"] for at in range(4)]
        await one.command("conversation.update", conversation=chats[0], pinned=True)
        await one.command("conversation.update", conversation=chats[1], archived=True)
        for flag, chat in (("pinned", chats[0]), ("archived", chats[1])):
            (row,) = (await two.command("conversation.list", **{flag: True}))["conversations"]
            assert row["id"] == chat
        assert len((await two.command("conversation.list", archived=False))["conversations"]) == 3
        found = await two.command("conversation.search", query="whale")
        assert {each["conversation"]["id"] for each in found["results"]} == set(chats)
        path = (await one.command("share.create", conversation=chats[2]))["share"]["path"]
        assert "Whale 2" in (await two.page(path)).text
        status, _, archive = await fetch(one, "/export")
        assert status == 200
        assert (await two.page("/forget", method="POST", data={"confirmed": "yes"})).status == 200
        assert (await one.command("conversation.list"))["conversations"] == []
        assert (await one.page(path)).status == 404
        _, lines = await bring(two, archive)
        assert lines[-1]["imported"] == 4
        assert len((await one.command("conversation.list"))["conversations"]) == 4
        await leaving.aclose()


async def test_start_says_at_once_that_no_sentinel_knows_the_master_by_that_name(
    tmp_path: Path, model: Model
) -> None:
    async with Sentinels(tmp_path) as sentinels:
        wrong = Instance(sentinels.url.replace(sentinels.service, "mistyped"), model.url)
        await wrong.launch()
        assert await wrong.ended(seconds=30) == 2
        assert "know no master of the name mistyped: check REDIS_URL." in wrong.log[-1]
        assert "waiting" not in wrong.text


@pytest.mark.parametrize("clients", ["no", "yes"])
async def test_chat_speaks_tls_to_its_store(
    tmp_path: Path, model: Model, leaving: AsyncExitStack, clients: str
) -> None:
    async with TlsStore(tmp_path, clients=clients) as store:  # type: ignore[arg-type]
        service = await serve(store.url, model, leaving)
        await service.begin()
        await store.restart()
        await service.end()
        await service.goes_on()
        await leaving.aclose()


@pytest.mark.parametrize("option", ["ssl_ca_certs", "ssl_certfile"])
async def test_start_says_what_it_lacks_where_the_store_wants_certificates(
    tmp_path: Path, model: Model, option: str
) -> None:
    async with TlsStore(tmp_path, clients="yes") as store:
        url = store.url.split("?")[0] + ("" if option == "ssl_ca_certs" else f"?ssl_ca_certs={store.ca}")
        instance = Instance(url, model.url, REDIS_WAIT_SECONDS="1")
        await instance.launch()
        assert await instance.ended(seconds=20) == 2
        assert f"127.0.0.1:{store.port} does not answer" in instance.log[-1]
        # Over TLS 1.3 the server refuses a client without a certificate when it believes to be connected already.
        assert re.search("certificate|reset|closed", instance.log[-1], re.IGNORECASE)
