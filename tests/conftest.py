"""Fixtures that all tests share.

Everything asynchronous lives on one event loop for the whole session, so that a store, a model server, two
instances and a browser are started once. What a test breaks, it starts for itself: `fresh_store`,
`start_instance`.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import hypothesis
import pytest
from fakeredis import FakeAsyncRedis

from llmchat.settings import Settings
from tests.fakes import Model
from tests.instances import Client, Instance, SeedClient, Store
from tests.instances.instance import ROOT

hypothesis.settings.load_profile("ci")  # the same examples every time, and no deadline of theirs

StartInstance = Callable[..., Awaitable[Instance]]
Connect = Callable[..., Awaitable[Client]]
ConnectSeed = Callable[..., Awaitable[SeedClient]]


def pytest_collection_finish() -> None:
    """Leave what was imported and collected out of later garbage collections.

    Each took up to 2.5 s on a busy machine, while model servers and proxies of this process stood still.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture
def settings(model: Model) -> Settings:
    """Complete settings, as a deployment would have them; `dataclasses.replace` makes others."""
    return Settings.read(
        {
            "SECRET_KEY": "0123456789" * 4,
            "REDIS_URL": "redis://127.0.0.1:6379/0",
            "OPENAI_BASE_URL": model.url,
            "OPENAI_API_KEY": "sk-of-the-tests",
            "ALLOWED_HOSTS": "localhost,127.0.0.1",
            "TITLE_MODEL": "off",  # tests of them turn them on
        },
        local=False,
    )


@pytest.fixture
async def fake_redis() -> AsyncIterator[FakeAsyncRedis]:
    """An empty Redis within this process, which runs scripts; for what it does not do see ARCHITECTURE.md."""
    async with FakeAsyncRedis() as redis:
        yield redis


# The model server


@pytest.fixture(scope="session")
async def model_server() -> AsyncIterator[Model]:
    async with Model() as model:
        yield model


@pytest.fixture
async def model(model_server: Model) -> AsyncIterator[Model]:
    """A model server with an empty script; see tests/fakes.py."""
    yield model_server
    await model_server.reset()


# Real processes


@pytest.fixture(scope="session")
async def store(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Store]:
    """A real Valkey for all tests: never stop it, never count its keys."""
    async with Store(tmp_path_factory.mktemp("store")) as store:
        yield store


@pytest.fixture
async def fresh_store(tmp_path: Path) -> AsyncIterator[Store]:
    """A real Valkey of the test's own, to be stopped, killed, frozen and restarted."""
    async with Store(tmp_path) as store:
        yield store


@asynccontextmanager
async def pair_of(store: Store, model: Model, **environment: str) -> AsyncIterator[tuple[Instance, Instance]]:
    """Two instances of one service, started side by side."""
    one, two = (Instance(store.url, model.url, **environment) for _ in range(2))
    async with AsyncExitStack() as started:
        await asyncio.gather(*(started.enter_async_context(each) for each in (one, two)))
        yield one, two


@pytest.fixture(scope="session")
async def running_instances(store: Store, model_server: Model) -> AsyncIterator[tuple[Instance, Instance]]:
    async with pair_of(store, model_server) as pair:
        yield pair


@pytest.fixture
def instances(
    running_instances: tuple[Instance, Instance], model: Model
) -> Iterator[tuple[Instance, Instance]]:
    """Two instances of one service, for all tests: never stop them."""
    before = [len(instance.log) for instance in running_instances]
    yield running_instances
    for instance, lines in zip(running_instances, before, strict=True):
        print("\n".join([f"instance {instance.port}:", *instance.log[lines:]]))  # shown where the test fails


@pytest.fixture
async def start_instance(model: Model) -> AsyncIterator[StartInstance]:
    """Start an instance of the test's own: `await start_instance(fresh_store, DEBUG="…")`."""
    async with AsyncExitStack() as started:

        async def start(store: Store, root: Path = ROOT, **environment: str) -> Instance:
            instance = Instance(store.url, model.url, root=root, **environment)
            started.callback(lambda: print(f"instance {instance.port}:\n{instance.text}"))
            return await started.enter_async_context(instance)

        yield start


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """Connect a protocol client: `await connect(instance)`, or another tab: `await connect(instance, client)`."""
    async with AsyncExitStack() as leaving:

        async def open_client(instance: Instance, like: Client | None = None) -> Client:
            client = Client(like.jar if like else None)
            leaving.push_async_callback(client.close)
            await client.connect(instance)
            return client

        yield open_client


@pytest.fixture
async def connect_seed() -> AsyncIterator[ConnectSeed]:
    """Connect a client of the seed's protocol, with a session of its own or a client's."""
    async with AsyncExitStack() as leaving:

        async def open_client(instance: Instance, like: Client | None = None) -> SeedClient:
            return await leaving.enter_async_context(SeedClient(instance, like.jar if like else None))

        yield open_client
