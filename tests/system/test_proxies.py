"""Two instances behind a proxy with TLS, which spreads what comes: what a person and a client get, and who they are."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest
from playwright.async_api import expect

from llmchat.variables import ADDRESS_SHARE
from tests.browser.conftest import OpenPage
from tests.browser.person import answers, messages, say
from tests.conftest import Connect, StartInstance
from tests.fakes import Gate, Model
from tests.instances import Client, Instance, Page, Store
from tests.instances.test_requests import ANSWER, HIDDEN, REFUSED
from tests.system.front import Front
from tests.system.haproxy import HAProxy
from tests.system.nginx import Nginx
from tests.waiting import within

pytest_plugins = ["tests.browser.conftest"]

Service = tuple[Front, tuple[Instance, Instance]]
StartService = Callable[..., Awaitable[Service]]
Come = Callable[..., Client]

MANY = 3 * ADDRESS_SHARE
"""Websockets opened by one address, where a session may open one a minute: some are refused, however slow we are."""
FORGED = {"X-Forwarded-For": "10.0.0.{}", "X-Real-IP": "10.0.0.{}", "Forwarded": "for=10.0.0.{}"}


@pytest.fixture(scope="module", params=[Nginx, HAProxy])
def proxy(request: pytest.FixtureRequest) -> type[Front]:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
async def start_service(
    store: Store, start_instance: StartInstance, tmp_path: Path, proxy: type[Front]
) -> AsyncIterator[StartService]:
    """Start two instances and a proxy before them."""
    async with AsyncExitStack() as leaving:

        async def start(**environment: str) -> Service:
            shared = {"TRUSTED_PROXY_HOPS": "1", "REDIS_PREFIX": prefix(), **environment}
            both = (await start_instance(store, **shared), await start_instance(store, **shared))
            return await leaving.enter_async_context(proxy(tmp_path, both)), both

        yield start


@pytest.fixture(scope="module")
async def front(
    store: Store, model_server: Model, tmp_path_factory: pytest.TempPathFactory, proxy: type[Front]
) -> AsyncIterator[Front]:
    """A proxy before one instance, for tests that change nothing."""
    folder = tmp_path_factory.mktemp("proxy")
    async with (
        Instance(store.url, model_server.url, TRUSTED_PROXY_HOPS="1", REDIS_PREFIX=prefix()) as instance,
        proxy(folder, [instance]) as front,
    ):
        yield front


@pytest.fixture
async def come() -> AsyncIterator[Come]:
    """Make a browser's tab that has been nowhere yet; `like`: a further tab of another's browser."""
    async with AsyncExitStack() as leaving:

        def come(to: Front | Instance, like: Client | None = None) -> Client:
            tls = to.tls if isinstance(to, Front) else None
            client = Client(like.jar if like else None, tls)
            client.instance = to
            leaving.push_async_callback(client.close)
            return client

        yield come


def prefix() -> str:
    """Name what no other test counts or keeps."""
    return f"proxy-{secrets.token_hex(4)}"


def set_cookie(page: Page) -> str:
    """Give the value of the session's cookie, as it was set over https."""
    name, _, rest = page.headers["Set-Cookie"].partition("=")
    assert name == "__Host-llmchat"
    return rest.partition(";")[0]


def serving(client: Client) -> str:
    """Name the instance that the client's newest connection is served by."""
    return str([event for event in client.seen if event["type"] == "session.ready"][-1]["instance"])


async def named(both: tuple[Instance, Instance], connect: Connect) -> dict[str, Instance]:
    """Find out the names that instances give themselves."""
    return {serving(await connect(instance)): instance for instance in both}


# What the proxy says is followed


async def test_page_cookies_and_websocket_are_secure_behind_tls_and_only_there(
    start_service: StartService, come: Come
) -> None:
    front, (one, _) = await start_service()
    for forged in ({}, {"X-Forwarded-Proto": "http"}):
        page = await come(front).page("/", headers=forged)
        assert f'data-socket="wss://127.0.0.1:{front.port}/ws/chat/"' in page.text
        assert page.headers["Set-Cookie"].startswith("__Host-llmchat=")
        assert "; Secure" in page.headers["Set-Cookie"]
        assert page.headers["Strict-Transport-Security"].startswith("max-age=")
    page = await come(one).page("/")
    assert f'data-socket="ws://127.0.0.1:{one.port}/ws/chat/"' in page.text
    assert page.headers["Set-Cookie"].startswith("llmchat=")
    assert "Secure" not in page.headers["Set-Cookie"]
    assert "Strict-Transport-Security" not in page.headers


async def test_nothing_a_proxy_says_is_followed_when_none_is_trusted(
    start_service: StartService, come: Come
) -> None:
    front, (one, _) = await start_service(TRUSTED_PROXY_HOPS="0")
    for served, headers in (
        (front, {}),
        (one, {"X-Forwarded-Proto": "https", "X-Forwarded-For": "10.0.0.1"}),
    ):
        page = await come(served).page("/", headers=headers)
        assert f'data-socket="ws://127.0.0.1:{served.port}/ws/chat/"' in page.text
        assert page.headers["Set-Cookie"].startswith("llmchat=")
        assert "Secure" not in page.headers["Set-Cookie"]
        assert "Strict-Transport-Security" not in page.headers
    assert await handshake(front, {"Origin": front.url}) == 403
    assert await handshake(front, {"Origin": front.url.replace("https", "http")}) == 101


# One service


async def test_cookie_made_by_one_instance_is_known_by_the_other(
    start_service: StartService, come: Come
) -> None:
    front, both = await start_service()
    client = come(front)
    pages = [await client.page(path) for path in ("/", "/", "/session", "/session")]
    assert {page.status for page in pages} == {200}
    for two in (pages[:2], pages[2:]):
        assert {page.headers["x-served-by"] for page in two} == {f"127.0.0.1:{each.port}" for each in both}
    first, second = (set_cookie(page).split(".")[0] for page in pages[:2])
    assert first == second


async def test_session_and_history_are_the_same_on_both(
    start_service: StartService, come: Come, connect: Connect
) -> None:
    front, both = await start_service()
    client = come(front)
    await client.connect(front)
    ended = await client.prompt("Remember me")
    connected, asked = set(), set()
    for _ in range(6):  # three requests each: pages and websockets change their instance every time
        await client.reconnect()
        connected.add(serving(client))
        page = await client.page(f"/c/{ended['conversation']}")
        asked.add(page.headers["x-served-by"])
        assert "Remember me" in page.text
        assert (await client.page("/session")).status == 200
    assert connected == set(await named(both, connect))
    assert asked == {f"127.0.0.1:{each.port}" for each in both}


async def test_reader_that_drops_in_mid_answer_resumes_without_holes_on_whichever_it_gets(
    start_service: StartService, come: Come, model: Model, connect: Connect
) -> None:
    front, both = await start_service()
    writer = come(front)
    await writer.connect(front)
    begun = await writer.prompt("Hi")
    conversation = begun["conversation"]
    reader = come(front, like=writer)
    await reader.connect(front)
    await reader.command("conversation.open", conversation=conversation)
    before = len(reader.seen)
    gates = [Gate() for _ in range(4)]
    model.answer("0 ", *(step for number, gate in enumerate(gates, 1) for step in (gate, f"{number} ")))
    answer = (await writer.command("message.send", conversation=conversation, text="Count"))["answer"]
    told, connected = "0 ", set()
    for number, gate in enumerate(gates, 1):
        await reader.until(lambda: reader.text(answer) == told)  # noqa: B023
        await reader.drop()
        gate.open()
        told += f"{number} "
        await writer.until(lambda: writer.text(answer) == told)  # noqa: B023
        await reader.reconnect()
        connected.add(serving(reader))
    for client in (writer, reader):
        await client.ending(answer)
    assert connected == set(await named(both, connect))
    assert reader.hash(conversation) == writer.hash(conversation)
    assert reader.of(conversation) == writer.of(conversation)[-len(reader.of(conversation)) :]
    assert "conversation.snapshot" not in [event["type"] for event in reader.seen[before:]]


@pytest.mark.parametrize("killed", [True, False], ids=["SIGKILL", "SIGTERM"])
async def test_answer_ends_whole_on_the_other_instance_when_its_own_goes(
    start_service: StartService, come: Come, model: Model, connect: Connect, killed: bool
) -> None:
    front, both = await start_service()
    names = await named(both, connect)
    client = come(front)
    await client.connect(front)
    going = serving(client)
    model.answer("The first ", Gate(), "never comes")
    model.answer("The whole answer.")
    accepted = await client.command("message.send", text="Go")
    await client.until(lambda: client.text(accepted["answer"]) == "The first ")
    before = len(client.seen)
    await (names[going].kill() if killed else names[going].stop())
    assert await client.closed() == (1006 if killed else 1012)
    for _ in range(2):  # also where it is the turn of the one that is gone
        await client.reconnect()
        assert {serving(client)} == set(names) - {going}
    ended = await client.ending(accepted["answer"], seconds=40)
    assert ended["finish_reason"] == "stop"
    assert client.text(accepted["answer"]) == "The whole answer."
    assert "conversation.snapshot" not in [event["type"] for event in client.seen[before:]]


@pytest.mark.parametrize("killed", [True, False], ids=["SIGKILL", "SIGTERM"])
async def test_answer_ends_whole_when_both_instances_go_one_after_the_other(
    start_service: StartService, come: Come, model: Model, killed: bool
) -> None:
    front, both = await start_service()
    client = come(front)
    await client.connect(front)
    model.answer("The first ", Gate(), "never comes")
    model.answer("The whole answer.", times=3)  # its maker may go as well
    accepted = await client.command("message.send", text="Go")
    await client.until(lambda: client.text(accepted["answer"]) == "The first ")
    for instance in both:  # as in a deploy; one of them makes the answer
        await (instance.kill() if killed else instance.stop())
        await instance.start()
    await client.reconnect()
    ended = await client.ending(accepted["answer"], seconds=40)
    assert ended["finish_reason"] == "stop"
    assert client.text(accepted["answer"]) == "The whole answer."


async def test_health_is_told_through_the_proxy_while_one_instance_is_up(
    start_service: StartService, come: Come
) -> None:
    front, both = await start_service()

    async def told(path: str) -> dict[str, object]:
        page = await come(front).page(path, headers={"Host": "healthcheck.railway.app"})
        assert page.status == 200
        found: dict[str, object] = page.json()
        return found

    for _ in range(2):  # of each instance, and then twice of the one that is left
        for _ in both:
            assert await told("/healthz") == {"alive": True}
            ready = await told("/readyz")
            assert (ready["ready"], ready["draining"], ready["redis"]) == (True, False, "reached")
        await both[0].kill()
        both = both[1:] * 2


# Who asks


async def handshake(front: Front, headers: dict[str, str], *, source: str = "127.0.0.1") -> int:
    """Open a websocket as a new browser with headers of its own making, and return the status."""
    connector = aiohttp.TCPConnector(ssl=front.tls, local_addr=(source, 0))
    async with (
        within(30, "the handshake is answered"),
        aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as http,
    ):
        try:
            async with http.ws_connect(
                f"{front.url}/ws/chat/", protocols=["llmchat.v1"], headers=headers
            ) as websocket:
                assert (await websocket.receive_json())["type"] == "session.ready"
                return 101
        except aiohttp.WSServerHandshakeError as refused:
            return refused.status


async def let_in(front: Front, most: int, *, source: str = "127.0.0.1") -> int:
    """Open websockets until one is one too many, each with another forged address; count those before it."""
    for number in range(most):
        forged = {name: value.format(number) for name, value in FORGED.items()}
        status = await handshake(front, forged, source=source)
        if status == 429:
            return number
        assert status == 101
    return most


@pytest.mark.parametrize("header", ["", "X-Forwarded-For", "X-Real-IP"])
async def test_visitor_is_known_by_the_address_that_the_proxy_saw(
    start_service: StartService, header: str
) -> None:
    front, _ = await start_service(CONNECTIONS_PER_MINUTE="1", TRUSTED_IP_HEADER=header)
    assert ADDRESS_SHARE <= await let_in(front, MANY) < MANY
    assert await let_in(front, ADDRESS_SHARE, source="127.0.0.2") == ADDRESS_SHARE


@pytest.mark.parametrize("header", ["", "X-Real-IP"])
async def test_all_visitors_are_one_address_when_no_proxy_is_trusted(
    start_service: StartService, header: str
) -> None:
    front, both = await start_service(
        CONNECTIONS_PER_MINUTE="1", TRUSTED_PROXY_HOPS="0", TRUSTED_IP_HEADER=header
    )
    assert ADDRESS_SHARE <= await let_in(front, MANY) < MANY
    assert await let_in(front, ADDRESS_SHARE, source="127.0.0.2") < ADDRESS_SHARE
    assert any("TRUSTED_PROXY_HOPS is 0" in instance.text for instance in both)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 101),
        ({"Origin": "https://127.0.0.1:{port}"}, 101),
        ({"Origin": "http://127.0.0.1:{port}"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Host": "evil.example"}, 400),
        ({"Host": "evil.example", "Origin": "https://evil.example"}, 400),
        ({"Host": "localhost", "Origin": "https://localhost"}, 101),
        ({"X-Forwarded-Proto": "http", "Origin": "https://127.0.0.1:{port}"}, 101),
        ({"X-Forwarded-Proto": "http", "Origin": "http://127.0.0.1:{port}"}, 403),
        ({"X-Forwarded-Host": "evil.example"}, 101),
        ({"X-Forwarded-Host": "evil.example", "Origin": "https://evil.example"}, 403),
        ({"Cookie": "__Host-llmchat=forged.by.hand"}, 101),
    ],
    ids=str,
)
async def test_handshake_is_answered_by_its_headers_as_without_a_proxy(
    front: Front, headers: dict[str, str], status: int
) -> None:
    filled = {name: value.replace("{port}", str(front.port)) for name, value in headers.items()}
    assert await handshake(front, filled) == status


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/", {"Origin": "https://evil.example"}, 200),
        ("GET", "/", {"Host": "evil.example"}, 400),
        ("GET", "/", {"Host": "evil.example", "X-Forwarded-Host": "localhost"}, 400),
        ("POST", "/sign-out", {}, 303),
        ("POST", "/sign-out", {"Origin": "https://127.0.0.1:{port}"}, 303),
        ("POST", "/sign-out", {"Origin": "http://127.0.0.1:{port}"}, 403),
        ("POST", "/sign-out", {"Origin": "https://evil.example"}, 403),
        ("POST", "/sign-out", {"Host": "evil.example"}, 400),
    ],
    ids=str,
)
async def test_request_is_answered_by_its_headers_as_without_a_proxy(
    front: Front, come: Come, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    filled = {name: value.replace("{port}", str(front.port)) for name, value in headers.items()}
    assert (await come(front).page(path, method=method, headers=filled)).status == status


async def test_forged_cookie_gives_a_new_session(front: Front, come: Come) -> None:
    owner = come(front)
    cookie = set_cookie(await owner.page("/"))
    await owner.connect(front)
    path = f"/c/{(await owner.prompt('Mine'))['conversation']}"
    session, signed, signature = cookie.split(".")
    other = ("a" if signature[0] != "a" else "b") + signature[1:]  # of the last letter, not every bit counts
    assert (await come(front).page(path, headers={"Cookie": f"__Host-llmchat={cookie}"})).status == 200
    for forged in (
        "__Host-llmchat=forged.by.hand",
        f"__Host-llmchat={session}",
        f"__Host-llmchat={session}.{signed}.{other}",
        f"__Host-llmchat={secrets.token_hex(16)}.{signed}.{signature}",
        f"llmchat={cookie}",  # any site of the same host may have set that
    ):
        stranger = await come(front).page(path, headers={"Cookie": forged})
        assert stranger.status == 404, forged
        assert set_cookie(stranger).split(".")[0] not in (forged.partition("=")[2].split(".")[0], session)


# What is doubtful


async def first_answer(front: Front, said: bytes) -> bytes:
    """Say something, and read up to the status of an answer, or to the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", front.port, ssl=front.tls)
    try:
        writer.write(said)
        heard = b""
        async with within(40, lambda: f"{said!r} is answered, or ended"):
            while not ANSWER.search(heard) and (piece := await reader.read(1000)):
                heard += piece
        return heard
    finally:
        writer.transport.abort()


async def test_doubtful_request_spoils_no_answer_of_others(front: Front, come: Come) -> None:
    doubtful = [said + HIDDEN.encode() for _, said in REFUSED.values() if b"websocket" not in said]
    others = come(front)
    for said in doubtful:
        heard = await first_answer(front, said)
        for path, status in (("/nothing", 404), ("/healthz", 200), ("/nothing", 404)):
            assert (await others.page(path)).status == status, (said, heard)


async def test_websocket_that_is_refused_opens_no_way_past_the_proxy(front: Front) -> None:
    refused = [
        (*each, name) for name, each in REFUSED.items() if re.match("handshake .*(key|version|Origin)", name)
    ]
    assert len(refused) == 9
    for status, said, name in refused:
        assert ANSWER.findall(await first_answer(front, said)) == [str(status).encode()], name


# A person


async def test_person_chats_through_the_proxy(start_service: StartService, open_page: OpenPage) -> None:
    front, _ = await start_service()
    page = await open_page(front, ignore_https_errors=True)
    await say(page, "Hello")
    await expect(answers(page)).to_contain_text("You said: Hello")
    for _ in range(3):
        async with within(30, "the page is there again"):
            await page.reload()
        await expect(messages(page)).to_have_count(2)
        await expect(answers(page)).to_contain_text("You said: Hello")
    await say(page, "And again")
    await expect(answers(page).last).to_contain_text("You said: And again")


async def test_person_chats_on_while_one_instance_after_the_other_restarts(
    start_service: StartService, open_page: OpenPage, model: Model
) -> None:
    front, both = await start_service()
    page = await open_page(front, ignore_https_errors=True)
    for number, instance in enumerate(both, 1):
        prompt, gate = f"Prompt {number}", Gate()
        model.answer("Half ", gate, "and whole", to=prompt)
        model.answer("Half and whole", to=prompt)  # to whoever takes it over, if it was of the one that goes
        await say(page, prompt)
        await expect(answers(page).last).to_contain_text("Half")
        await instance.restart()
        gate.open()
        await expect(answers(page).last).to_contain_text("Half and whole", timeout=30_000)
        await expect(messages(page)).to_have_count(2 * number)
    await say(page, "After all")
    await expect(answers(page).last).to_contain_text("You said: After all")
