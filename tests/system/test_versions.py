"""The version before beside this one, on one store: what a deploy, and the way back from it, asks of both."""

from __future__ import annotations

import json
import re
import secrets
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import expect

from llmchat import __version__
from llmchat.conversation import TEMPORARY_SECONDS
from llmchat.keys import Keys
from tests.browser.conftest import OpenPage
from tests.browser.person import answers, messages, say
from tests.conftest import Connect
from tests.fakes import Gate, Model, echo
from tests.instances import Client, Instance, Store
from tests.instances.instance import ROOT
from tests.instances.talk import begin, send
from tests.instances.test_attachments import ask, attach, get
from tests.instances.test_shares import look, tab
from tests.instances.test_sign_in import PASSWORD, sign_in
from tests.instances.test_takeout import fetch
from tests.pictures import PNG
from tests.system.nginx import Nginx
from tests.system.version_before import NONE_BEFORE, SHALLOW, revision_before, unpack

pytest_plugins = ["tests.browser.conftest"]

BOTH_WAYS = pytest.mark.parametrize("way", [1, -1], ids=["forwards", "back"])
STATIC = re.compile(r'"(/static/[^/"]+/)')
OF_THE_PAGE = ("js/main.js", "css/base.css")

Start = Callable[..., Awaitable[Instance]]
Pair = tuple[Instance, Instance]


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the version before, with which the page's files differ whatever else does.

    It runs with the packages of this one: a package that is taken away goes with the version after.
    """
    folder = tmp_path_factory.mktemp("before")
    unpack(ROOT, revision_before(ROOT), folder)
    sheet = folder / "static" / "css" / "base.css"
    sheet.write_text(f"{sheet.read_text()}\n/* of the version before */\n")
    return folder


@pytest.fixture
async def start(before: Path, store: Store, model: Model) -> AsyncIterator[Start]:
    """Start an instance, of the version before where `old`; all of a test are one service."""
    prefix = f"versions-{secrets.token_hex(4)}"
    async with AsyncExitStack() as started:

        async def start(*, old: bool = False, **environment: str) -> Instance:
            root = before if old else ROOT
            instance = Instance(store.url, model.url, root=root, REDIS_PREFIX=prefix, **environment)
            started.callback(lambda: print(f"instance {instance.port}, old: {old}:\n{instance.text}"))
            return await started.enter_async_context(instance)

        yield start


@pytest.fixture
async def pair(start: Start) -> Pair:
    """One instance of the version before, and one of this."""
    return await start(old=True), await start()


async def opened(
    connect: Connect, instances: tuple[Instance, ...], conversation: str, like: Client
) -> list[Client]:
    """Open a conversation as further tabs of a browser, one at each of some instances."""
    tabs = [await connect(instance, like) for instance in instances]
    for each in tabs:
        await each.command("conversation.open", conversation=conversation)
    return tabs


async def known(connect: Connect, instance: Instance) -> Client:
    """Connect as a browser that has a cookie."""
    client = await connect(instance)
    await client.page("/")
    return client


def shown(client: Client, conversation: str) -> list[str | None]:
    """Give the texts of the branch that a client shows."""
    return [each.text for each in client.mirror(conversation).branch()]


# Which is the version before


def repository(folder: Path, *steps: str) -> Path:
    """Make a clone: a step is a version that is written, or the tag `v…` of the last one."""
    run = ["git", "-c", "user.name=t", "-c", "user.email=t@localhost", "-c", "commit.gpgsign=false"]
    subprocess.run([*run, "init", "-q", str(folder)], check=True)
    (folder / "llmchat").mkdir()
    for step in steps:
        if step.startswith("v"):
            subprocess.run([*run, "tag", step], cwd=folder, check=True)
            continue
        (folder / "llmchat" / "__init__.py").write_text(f'__version__ = "{step}"\n')
        subprocess.run([*run, "add", "."], cwd=folder, check=True)
        subprocess.run([*run, "commit", "-q", "--allow-empty", "-m", step], cwd=folder, check=True)
    return folder


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (("1.0", "v1.0", "1.1", "1.1"), "1.0"),
        (("1.0", "v1.0", "1.1", "v1.1"), "1.0"),
        (("1.0", "v1.0", "1.1", "v1.1", "1.1"), "1.1"),
        (("1.0", "1.0", "1.1", "1.1"), "1.0"),
    ],
    ids=["after a release", "the release itself", "what follows it under its name", "without a tag"],
)
def test_version_before_is_the_last_release_or_the_last_other_number(
    tmp_path: Path, steps: tuple[str, ...], expected: str
) -> None:
    clone = repository(tmp_path / "clone", *steps)
    unpack(clone, revision_before(clone), tmp_path / "before")
    assert f'"{expected}"' in (tmp_path / "before" / "llmchat" / "__init__.py").read_text()


def test_clone_that_has_no_version_before_fetches_it_or_fails_and_says_what_to_do(tmp_path: Path) -> None:
    clone = repository(tmp_path / "clone", "1.0", "1.0", "1.1")
    for name in ("joined", "cut"):
        words = ["git", "clone", "-q", "--depth", "1", clone.as_uri(), str(tmp_path / name)]
        subprocess.run(words, check=True)
    unpack(tmp_path / "joined", revision_before(tmp_path / "joined"), tmp_path / "before")
    assert '"1.0"' in (tmp_path / "before" / "llmchat" / "__init__.py").read_text()
    clone.rename(tmp_path / "gone")
    with pytest.raises(AssertionError) as told:
        revision_before(tmp_path / "cut")
    assert SHALLOW in str(told.value)
    with pytest.raises(AssertionError) as told:
        revision_before(repository(tmp_path / "first", "1.0", "1.0"))
    assert NONE_BEFORE in str(told.value)


# Side by side


async def test_versions_are_two_and_of_one_service(pair: Pair, connect: Connect) -> None:
    old, new = [await connect(instance) for instance in pair]
    versions = [client.seen[0]["version"] for client in (old, new)]
    assert versions[0] != versions[1] == __version__


@BOTH_WAYS
async def test_what_one_writes_the_other_reads_live_and_goes_on_with(
    pair: Pair, connect: Connect, model: Model, way: int
) -> None:
    here, there = pair[::way]
    one = await known(connect, here)
    conversation = await begin(one, "Hi")
    (two,) = await opened(connect, (there,), conversation, one)
    gate = Gate()
    model.answer("A `b` ", gate, "and **c**.")
    answer = await send(one, conversation, "More")
    await two.until(lambda: two.text(answer) == "A `b` ")
    gate.open()
    for client in (one, two):
        await client.ending(answer)
    assert one.hash(conversation) == two.hash(conversation)
    assert one.html(answer) == two.html(answer)
    back = await send(two, conversation, "And back")
    for client in (one, two):
        await client.ending(back)
    assert shown(one, conversation)[-2:] == ["And back", echo("And back")]
    assert one.hash(conversation) == two.hash(conversation)
    await one.command("message.select", conversation=conversation, message=answer)
    await two.event("conversation.selected")
    again = (await two.command("completion.regenerate", conversation=conversation, message=answer))["message"]
    for client in (one, two):
        await client.ending(again)
    assert one.hash(conversation) == two.hash(conversation)


@BOTH_WAYS
async def test_running_answer_and_what_waits_behind_it_are_taken_over_when_its_instance_is_killed(
    pair: Pair, connect: Connect, model: Model, way: int
) -> None:
    here, there = pair[::way]
    one = await known(connect, here)
    conversation = await begin(one, "Hi")
    (two,) = await opened(connect, (there,), conversation, one)
    model.answer("Half ", Gate(), "never comes")
    model.answer("The whole answer.")
    answer = await send(one, conversation, "Go")
    waiting = await send(one, conversation, "And then?")
    await two.until(lambda: two.text(answer) == "Half ")
    await here.kill()
    assert (await two.ending(answer, seconds=40))["finish_reason"] == "stop"
    await two.ending(waiting, seconds=40)
    assert shown(two, conversation)[-4:] == ["Go", "The whole answer.", "And then?", echo("And then?")]


@BOTH_WAYS
async def test_running_answer_is_handed_over_when_its_instance_stops(
    pair: Pair, connect: Connect, model: Model, way: int
) -> None:
    here, there = pair[::way]
    one = await known(connect, here)
    model.answer("Half ", Gate(), "never comes")
    model.answer("The whole answer.")
    accepted = await one.command("message.send", text="Go")
    await one.until(lambda: one.text(accepted["answer"]) == "Half ")
    before = len(one.seen)
    assert await here.stop() == 0
    assert await one.closed() == 1012
    await one.reconnect(there)
    assert (await one.ending(accepted["answer"], seconds=40))["finish_reason"] == "stop"
    assert one.text(accepted["answer"]) == "The whole answer."
    assert "conversation.snapshot" not in [event["type"] for event in one.seen[before:]]


@BOTH_WAYS
async def test_list_is_one_and_every_change_of_it_is_told_across(
    pair: Pair, connect: Connect, way: int
) -> None:
    here, there = pair[::way]
    one = await known(connect, here)
    two = await connect(there, one)
    kept, dropped = await begin(one, "Kept"), await begin(one, "Dropped")
    for change in ({"title": "Named by hand"}, {"pinned": True}, {"archived": True}, {"archived": False}):
        await one.command("conversation.update", conversation=kept, **change)
        told = await two.until(
            lambda change=change: next(  # type: ignore[misc]
                (
                    event["conversation"]
                    for event in two.seen
                    if event["type"] == "conversation.updated"
                    and change.items() <= event["conversation"].items()
                ),
                None,
            )
        )
        assert told["id"] == kept
    await one.command("conversation.delete", conversation=dropped)
    await two.event("conversation.deleted", conversation=dropped)
    lists = [(await each.command("conversation.list"))["conversations"] for each in (one, two)]
    assert lists[0] == lists[1]
    assert [(each["id"], each["title"], each["pinned"]) for each in lists[0]] == [
        (kept, "Named by hand", True)
    ]
    await two.command("conversation.restore", conversation=dropped)
    assert len((await one.command("conversation.list"))["conversations"]) == 2


@BOTH_WAYS
async def test_name_of_ones_own_stays_and_temporary_chat_stays_temporary_where_the_other_answers(
    pair: Pair, connect: Connect, store: Store, way: int
) -> None:
    here, there = pair[::way]
    one = await known(connect, here)
    named = await begin(one, "Hi")
    await one.command("conversation.update", conversation=named, title="Mine")
    accepted = await one.command("message.send", text="Psst", temporary=True)
    await one.ending(accepted["answer"])
    (two,) = await opened(connect, (there,), named, one)
    await two.command("conversation.open", conversation=accepted["conversation"])
    for conversation in (named, accepted["conversation"]):
        await two.ending(await send(two, conversation, "More"))
    assert [
        (each["id"], each["title"]) for each in (await two.command("conversation.list"))["conversations"]
    ] == [(named, "Mine")]
    keys = Keys(here.environment["REDIS_PREFIX"]).of_conversation(accepted["conversation"])
    async with store.client() as redis:
        for key in (keys.conversation, keys.messages, keys.tree):
            assert 0 < await redis.ttl(key) <= TEMPORARY_SECONDS


@BOTH_WAYS
async def test_files_links_prompts_and_whole_chats_of_one_are_the_others(
    pair: Pair, connect: Connect, way: int
) -> None:
    here, there = pair[::way]
    one = await known(connect, here)
    two = await connect(there, one)
    file = await attach(one, PNG)
    accepted = await ask(one, "What is this?", attachments=[file])
    conversation = accepted["conversation"]
    await one.ending(accepted["answer"])
    assert (await get(two, f"/attachments/{file}"))[:2] == (200, PNG)
    path = (await one.command("share.create", conversation=conversation))["share"]["path"]
    assert (await look(there, path)).status == 200
    form = {"add": "yes", "id": secrets.token_hex(8), "title": "Mine", "text": "Write about [this]"}
    assert (await one.page("/settings", method="POST", data=form)).status == 303
    assert "Write about [this]" in (await two.page("/settings")).text
    exported = [json.loads((await fetch(each, f"/c/{conversation}/export.json"))[2]) for each in (one, two)]
    assert [said(each) for each in exported] == [["What is this?", echo("What is this?")]] * 2
    await two.command("share.revoke", share=path.removeprefix("/s/"))
    assert (await look(here, path)).status == 404


def session_of(client: Client) -> str:
    """Name the session in a browser's cookie."""
    return next(each.value for each in client.jar if each.key == "llmchat").partition(".")[0]


def said(exported: dict[str, Any]) -> list[str]:
    """Give the texts of an exported chat."""
    return [each["text"] for each in exported["conversation"]["messages"]]


@BOTH_WAYS
async def test_page_of_one_gets_its_files_from_the_other(pair: Pair, connect: Connect, way: int) -> None:
    here, there = pair[::way]
    one, two = await known(connect, here), await known(connect, there)
    static = STATIC.findall((await one.page("/")).text)[0]
    assert static != STATIC.findall((await two.page("/")).text)[0]
    for name in OF_THE_PAGE:
        mine, others = await fetch(one, static + name), await fetch(two, static + name)
        assert (mine[0], mine[2]) == (others[0], others[2]) != (404, b"")


@BOTH_WAYS
async def test_who_signed_in_at_one_is_signed_in_at_the_other_and_out_at_both(start: Start, way: int) -> None:
    here, there = [await start(old=old, ACCESS_PASSWORD=PASSWORD) for old in (True, False)][::way]
    async with tab(here) as visitor:
        assert await sign_in(visitor) == 303
        session = session_of(visitor)
        visitor.instance = there
        assert (await visitor.page("/")).status == 200
        assert session_of(visitor) == session
        copied = {"Cookie": "; ".join(f"{each.key}={each.value}" for each in visitor.jar)}
        await visitor.page("/sign-out", method="POST", headers={"Origin": there.url})
    for instance in (here, there):
        async with tab(instance) as thief:
            assert (await thief.page("/", headers=copied)).status == 303


# A deploy, and the way back


@BOTH_WAYS
async def test_nothing_is_lost_when_all_instances_of_one_version_give_way_to_the_other(
    start: Start, connect: Connect, model: Model, way: int
) -> None:
    leaving = [await start(old=way == 1) for _ in range(2)]
    tabs = [await known(connect, instance) for instance in leaving]
    gate = Gate()
    model.answer("Begun, ", gate, "and ended.", times=8)
    running = [await each.command("message.send", text=f"Chat {number}") for number, each in enumerate(tabs)]
    for client, accepted in zip(tabs, running, strict=True):
        await client.until(lambda: client.text(accepted["answer"]) == "Begun, ")  # noqa: B023
    coming = [await start(old=way == -1) for _ in range(2)]
    assert await leaving[0].stop() == 0
    await leaving[1].kill()
    gate.open()
    for client, accepted, instance in zip(tabs, running, coming, strict=True):
        await client.closed()
        await client.reconnect(instance)
        await client.ending(accepted["answer"], seconds=40)
        assert client.text(accepted["answer"]) == "Begun, and ended."
        listed = (await client.command("conversation.list"))["conversations"]
        assert [each["id"] for each in listed] == [accepted["conversation"]]
        files = [await attach(client, PNG)]
        answer = await send(client, accepted["conversation"], "And on", attachments=files)
        await client.ending(answer)
        assert client.text(answer) == "Begun, and ended."
    for instance in coming:
        instance.check_log()


async def test_page_of_the_version_before_lives_on_when_that_goes(
    start: Start, tmp_path: Path, open_page: OpenPage, model: Model
) -> None:
    proxied = {"TRUSTED_PROXY_HOPS": "1"}
    old, new = await start(old=True, **proxied), await start(**proxied)
    async with Nginx(tmp_path, [old, new]) as front:
        page = await open_page(front, ignore_https_errors=True)  # type: ignore[arg-type]
        await expect(page.locator("html[data-live]")).to_have_count(1)
        await say(page, "Hello")
        await expect(answers(page)).to_contain_text("You said: Hello")
        gate = Gate()
        model.answer("Half ", gate, "and whole", to="Go on", times=2)
        await say(page, "Go on")
        await expect(answers(page).last).to_contain_text("Half")
        assert await old.stop() == 0
        gate.open()
        await expect(answers(page).last).to_contain_text("Half and whole")
        await say(page, "After all")
        await expect(answers(page).last).to_contain_text("You said: After all")
        await page.reload()
        await expect(messages(page)).to_have_count(6)
        await page.close()  # before its server goes: it may be loading still
