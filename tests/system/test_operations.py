"""docs/operations.md as an operator follows it: its commands, taken from the page, against real processes."""

from __future__ import annotations

import os
import re
import shutil
import sys
import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from playwright.async_api import expect
from redis.exceptions import AuthenticationError

from llmchat.keys import Keys
from tests.browser.conftest import OpenPage
from tests.browser.person import answers, box, messages, say
from tests.conftest import Connect
from tests.fakes import Gate, Model, echo
from tests.instances import Client, Instance, Store
from tests.instances.child import Child, free_port
from tests.instances.instance import ROOT
from tests.instances.talk import begin, send
from tests.instances.test_attachments import attach, get
from tests.instances.test_shares import look, tab
from tests.instances.test_sign_in import sign_in
from tests.instances.test_takeout import keyspace, known
from tests.pictures import PNG
from tests.provider import Provider
from tests.system.debian import DebianStore
from tests.waiting import eventually

pytest_plugins = ["tests.browser.conftest"]

PAGE = (ROOT / "docs" / "operations.md").read_text()
BLOCK = re.compile(r"^( *)```sh\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
PASSWORD = "of-the-tests"
MINUTE_MS = 60_000
TRIED = {
    "Look first": 1,
    "Nobody can connect": 1,
    "Answers do not come, or slowly": 1,
    "Signing in fails": 1,
    "Redis is away, full, read-only, or lost its data": 2,
    "It says that history may be lost": 1,
    "Too many are refused (429)": 1,
    "The bill": 1,
    "Another password for Redis": 2,
    "A person asks for deletion": 2,
    "Keep less, for less long": 1,
    "Backup": 1,
    "Restore, with access to Redis' files": 2,
    "Restore, or move, without access to its files": 1,
    "A file that Redis does not read": 1,
}
"""How many blocks of commands below each heading are run by a test."""

Follow = Callable[..., Awaitable[list[str]]]
Start = Callable[..., Awaitable[Instance]]


def without_login(url: str) -> str:
    """Give the address of a Redis as its own tools are told it."""
    return re.sub(r"//.*@", "//", url)


def blocks() -> dict[str, list[str]]:
    """Give the page's commands by the heading that they stand under."""
    found: dict[str, list[str]] = {}
    for part in re.split(r"^##+ ", PAGE, flags=re.MULTILINE)[1:]:
        heading, _, text = part.partition("\n")
        if told := [textwrap.dedent(match[2]) for match in BLOCK.finditer(text)]:
            found[heading] = told
    return found


def test_every_command_of_the_page_is_tried() -> None:
    assert {heading: len(told) for heading, told in blocks().items()} == TRIED


@pytest.fixture
async def follow(tmp_path: Path) -> AsyncIterator[Follow]:
    """Do what the page says: `await follow("Backup", instance)`; gives the lines that are printed."""
    async with AsyncExitStack() as leaving:

        async def follow(heading: str, instance: Instance, number: int = 0, **environment: str) -> list[str]:
            port = str(free_port())  # in place of the page's, which others of this machine may have
            env = {
                **instance.environment,
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/bin",
                "PYTHONPATH": str(ROOT),
                "REDIS": without_login(instance.environment["REDIS_URL"]),
                "REDISCLI_AUTH": PASSWORD,
                "INSTANCE": instance.url,
                "ADDRESS": instance.url,
                **environment,
            }
            assert number < TRIED[heading]
            commands = blocks()[heading][number].replace("6390", port)
            child = Child("sh", "-eu", "-c", commands, env=env, folder=tmp_path)
            leaving.push_async_callback(child.close)
            await child.start()
            assert await child.ended(seconds=60) == 0, "\n".join(child.lines)
            return child.lines

        yield follow


@pytest.fixture
async def redis(tmp_path: Path) -> AsyncIterator[DebianStore]:
    """Redis as the page has it."""
    async with DebianStore(tmp_path / "redis", requirepass=PASSWORD) as redis:
        yield redis


@pytest.fixture
async def start(model: Model) -> AsyncIterator[Start]:
    """Start an instance at a store, or at an address of one."""
    async with AsyncExitStack() as started:

        async def start(store: Store | str, **environment: str) -> Instance:
            url = store if isinstance(store, str) else store.url
            instance = Instance(url, model.url, **environment)
            started.callback(lambda: print(f"instance {instance.port}:\n{instance.text}"))
            return await started.enter_async_context(instance)

        yield start


# Looking


async def test_looks_tell_how_it_stands(
    redis: DebianStore, start: Start, follow: Follow, connect: Connect, model: Model
) -> None:
    assert model.models
    instance = await start(redis, OPENAI_MODEL=model.models[0], PROMPTS_PER_MINUTE="1")
    first = "\n".join(await follow("Look first", instance))
    for told in ('"ready":true', '"history":"kept"', "Redis answers: Redis 7", "redis_version:7"):
        assert told in first
    assert await follow("Nobody can connect", instance) == ["200", "200", "101"]
    client = await connect(instance)
    gate = Gate()
    model.answer(gate, "At last")
    accepted = await client.command("message.send", text="Hi")
    assert (await follow("Answers do not come, or slowly", instance))[0] == "1"
    gate.open()
    await client.ending(accepted["answer"])
    of_redis = "\n".join(await follow("Redis is away, full, read-only, or lost its data", instance))
    for told in (
        "PONG",
        "maxmemory_policy:noeviction",
        "aof_enabled:1",
        "aof_last_write_status:ok",
        "role:master",
    ):
        assert told in of_redis
    refused = await follow("Too many are refused (429)", instance)
    assert any(line.startswith("llmchat:limit:prompts:") for line in refused)


async def test_full_redis_is_read_and_takes_what_waited_once_it_may_have_more(
    redis: DebianStore, start: Start, follow: Follow, connect: Connect
) -> None:
    instance = await start(redis)
    client = await connect(instance)
    conversation = await begin(client, "Before")
    async with redis.client() as asking:
        await asking.config_set("maxmemory", "1mb")

    async def ready() -> bool:
        return (await client.page("/readyz")).status == 200

    async def full() -> bool:
        return not await ready()

    await eventually(full, seconds=10, what="it is told that nothing can be written")
    waiting = {"conversation": conversation, "text": "Waits", "id": "waits"}
    assert await client.refused("message.send", **waiting) == "unavailable"
    assert (await client.command("conversation.open", conversation=conversation))["messages"]
    looks = "\n".join(await follow("Redis is away, full, read-only, or lost its data", instance))
    assert "maxmemory_human:1.00M" in looks
    assert await follow("Redis is away, full, read-only, or lost its data", instance, 1) == ["OK"]
    await eventually(ready, seconds=10, what="it takes work again")
    await client.ending((await client.command("message.send", **waiting))["answer"])


async def test_history_that_may_be_lost_is_kept_from_then_on(
    tmp_path: Path, start: Start, follow: Follow, connect: Connect
) -> None:
    async with DebianStore(tmp_path / "bare", appendonly="no", maxmemory_policy="allkeys-lru") as bare:
        instance = await start(bare)
        client = await connect(instance)
        conversation = await begin(client, "Said before")

        async def told(history: str) -> bool:
            return bool((await client.page("/readyz")).json()["history"] == history)

        await eventually(lambda: told("may be lost"), seconds=10, what="it is told that history may be lost")
        await follow("It says that history may be lost", instance)
        await eventually(lambda: told("kept"), seconds=10, what="it is told that history is kept")

        async def written() -> bool:
            async with bare.client() as asking:
                state = await asking.info("persistence")
            return not state["aof_rewrite_in_progress"] and not state["aof_rewrite_scheduled"]

        await eventually(written, seconds=20, what="the append-only file has all")
        await bare.kill()
        bare._options["appendonly"] = "yes"  # as the page has it written down
        await bare.start()
        await client.reconnect(instance)
        assert client.mirror(conversation).branch()[0].text == "Said before"


async def test_user_of_its_own_needs_the_rights_that_the_page_names(
    redis: DebianStore, start: Start, connect: Connect
) -> None:
    rights = ["~llmchat:*", "&llmchat:*", "+@all", "-@admin", "-@dangerous", "+info"]
    async with redis.client() as asking:
        await asking.execute_command("ACL", "SETUSER", "chat", "on", ">secret", *rights)
    instance = await start(f"redis://chat:secret@127.0.0.1:{redis.port}/0")
    client = await connect(instance)
    await begin(client, "Hi")
    await client.command("conversation.list")
    assert "History may be lost" not in instance.text


# Secrets


async def test_password_of_redis_is_changed_while_everything_runs(
    redis: DebianStore, start: Start, follow: Follow, connect: Connect
) -> None:
    new_url = redis.url.replace(PASSWORD, "another")
    names = {"NEW_PASSWORD": "another", "OLD_PASSWORD": PASSWORD}
    old = await start(redis)
    client = await known(connect, old)
    conversation = await begin(client, "Hi")
    assert await follow("Another password for Redis", old, 0, **names) == ["OK"]
    new = await start(new_url)
    await client.ending(await send(client, conversation, "Still here"))
    assert await old.stop() == 0
    assert await follow("Another password for Redis", new, 1, **names) == ["OK"]
    await client.reconnect(new)
    await client.ending(await send(client, conversation, "And here"))
    with pytest.raises(AuthenticationError):
        async with redis.client() as asking:
            await asking.ping()


OLD_KEY, NEW_KEY = ("the-key-that-was-" + "01" * 12), ("the-key-that-comes-" + "23" * 12)


async def test_who_is_signed_in_and_all_chats_and_links_outlive_a_change_of_the_key_in_three_deploys(
    redis: DebianStore, start: Start
) -> None:
    asking = {"ACCESS_PASSWORD": "correct horse battery", "SHARE_LINKS": "true"}
    first = await start(redis, SECRET_KEY=OLD_KEY, **asking)
    chats, link = [], ""
    async with tab(first) as client, tab(first) as late:
        for each in (client, late):
            assert await sign_in(each) == 303
            await each.connect(first)
            chats.append(await begin(each, "Hi"))
        link = (await client.command("share.create", conversation=chats[0]))["share"]["path"]
        before = first
        for key, fallback in ((OLD_KEY, NEW_KEY), (NEW_KEY, OLD_KEY), (NEW_KEY, "")):
            instance = await start(redis, SECRET_KEY=key, SECRET_KEY_FALLBACKS=fallback, **asking)
            for client.instance in (instance, before, instance):  # both serve, and either may be asked
                assert (await client.page(f"/c/{chats[0]}")).status == 200
            before = instance
        assert (await look(before, link)).status == 200
        late.instance = before  # did not come by meanwhile: signs in, and is somebody else, as the page says
        assert (await late.page(f"/c/{chats[1]}")).status == 303
        assert await sign_in(late) == 303
        assert (await late.page(f"/c/{chats[1]}")).status == 404


# One person, and less of all


async def test_provider_that_is_well_is_told_so(redis: DebianStore, start: Start, follow: Follow) -> None:
    async with Provider() as provider:
        instance = await start(redis, **provider.environment())
        assert await follow("Signing in fails", instance) == ["200"]


async def test_person_is_found_by_a_link_and_deleted(
    redis: DebianStore, start: Start, follow: Follow, connect: Connect, tmp_path: Path
) -> None:
    instance = await start(redis)
    client, other = await known(connect, instance), await known(connect, instance)
    chat, theirs = await begin(client, "Mine"), await begin(other, "Not mine")
    link = (await client.command("share.create", conversation=chat))["share"]["id"]
    found = await follow("A person asks for deletion", instance, CHAT=chat, LINK=link)
    session = next(each.value for each in client.jar if each.key == "llmchat").partition(".")[0]
    assert found == [session, session]
    await follow("A person asks for deletion", instance, 1, SESSION=session)
    assert (tmp_path / "chats.zip").stat().st_size > 0
    async with redis.client() as asking:
        assert await keyspace(asking, {session, chat, link}) == set()
    assert (await other.page(f"/c/{theirs}")).status == 200


async def test_who_used_most_tokens_today_is_told_first(
    redis: DebianStore, start: Start, follow: Follow, connect: Connect, model: Model
) -> None:
    instance = await start(redis, TOKENS_PER_DAY="100000", TOKENS_PER_DAY_IN_ALL="1000000")
    sessions = []
    for used in (10, 300):
        client = await connect(instance)
        model.answer("Hi", usage={"prompt_tokens": used, "completion_tokens": 2})
        await client.prompt("Hi")
        sessions.append(next(each.value for each in client.jar if each.key == "llmchat").partition(".")[0])
    told = [line.split() for line in await follow("The bill", instance)]
    assert [int(used) for used, _ in told] == [314, 314, 302, 12]  # all, and the address
    assert {key.rpartition(":")[2] for _, key in told[2:]} == set(sessions)


async def test_less_is_kept_where_the_page_says_so(
    redis: DebianStore, start: Start, follow: Follow, connect: Connect
) -> None:
    conversation = await begin(await connect(await start(redis, HISTORY_DAYS="0")), "Hi")
    fewer = await start(redis, HISTORY_DAYS="30")
    counted, done = await follow("Keep less, for less long", fewer)
    assert "1 chats" in counted
    assert done == counted.replace("Would be shortened", "Shortened")
    async with redis.client() as asking:
        assert 0 < await asking.ttl(Keys("llmchat").of_conversation(conversation).messages) <= 30 * 86_400


# Backup and restore


class Restored:
    """A session before and after: what it said before a backup, and what after it."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def say_before(self) -> None:
        """Say what is to be there again."""
        client = self.client
        self.chat = await begin(client, "Before")
        self.file = await attach(client, PNG)
        await client.ending(await send(client, self.chat, "With a file", attachments=[self.file]))
        share = (await client.command("share.create", conversation=self.chat))["share"]
        self.link = share["path"]
        self.deleted = await begin(client, "Deleted later")
        self.hash = client.hash(self.chat)

    async def say_after(self) -> None:
        """Say and undo what the backup does not know."""
        client = self.client
        await client.ending(await send(client, self.chat, "After", id="after"))
        self.new = await begin(client, "A new chat")
        await client.command("conversation.delete", conversation=self.deleted)
        await client.command("share.revoke", share=self.link.removeprefix("/s/"))

    async def is_there(self, instance: Instance) -> None:
        """See that all of before is there, and nothing of after; and go on."""
        client = self.client
        assert client.hash(self.chat) == self.hash
        assert (await get(client, f"/attachments/{self.file}"))[:2] == (200, PNG)
        assert (await look(instance, self.link)).status == 200
        listed = {each["id"] for each in (await client.command("conversation.list"))["conversations"]}
        assert listed == {self.chat, self.deleted}
        # A prompt whose page has it still, by the id that it had: as a page sends it again that heard nothing of it
        answer = await send(client, self.chat, "After", id="after")
        await client.ending(answer)
        texts = [each.text for each in client.mirror(self.chat).branch()]
        assert texts[-2:] == ["After", echo("After")]
        assert texts.count("After") == 1
        assert answer == await send(client, self.chat, "After", id="after")


async def lifetimes(store: Store) -> dict[str, int]:
    """Tell when everything that lasts for days ends, in ms since 1970."""
    async with store.client() as asking:
        keys = [key async for key in asking.scan_iter(count=1000)]
        ends = [await asking.execute_command("PEXPIRETIME", key) for key in keys]
        now = (await asking.time())[0] * 1000
    return {key.decode(): end for key, end in zip(keys, ends, strict=True) if end - now > 86_400_000 * 20}


async def identity(store: Store) -> str:
    """Name the history that a store's data belongs to."""
    async with store.client() as asking:
        return str((await asking.info("replication"))["master_replid"])


async def test_backup_is_restored_under_instances_that_run_and_pages_that_are_open(
    redis: DebianStore, start: Start, follow: Follow, connect: Connect, tmp_path: Path
) -> None:
    instance = await start(redis)
    story = Restored(await known(connect, instance))
    await story.say_before()
    before, lasting = await identity(redis), await lifetimes(redis)
    checked = await follow("Backup", instance)
    assert any("RDB looks OK" in line for line in checked)
    await story.say_after()
    seen = len(story.client.seen)

    await redis.stop()
    await follow("Restore, with access to Redis' files", instance, DATA=str(tmp_path / "redis"))
    await redis.start()
    assert await identity(redis) != before
    assert lasting.items() <= (await lifetimes(redis)).items()

    client = story.client
    await client.event("session.store", available=True)
    await client.until(
        lambda: client.hash(story.chat) == story.hash, what="the open page shows what is there"
    )
    await client.event("conversation.deleted", conversation=story.new)
    told = [event for event in client.seen[seen:] if event.get("conversation") == story.chat]
    assert [event["type"] for event in told] == ["conversation.snapshot"]
    count, ready = await follow("Restore, with access to Redis' files", instance, 1)
    assert int(count) > 10
    assert '"ready":true' in ready
    await story.is_there(instance)


async def test_page_that_is_open_through_a_restore_shows_what_is_there_and_goes_on(
    redis: DebianStore, start: Start, follow: Follow, open_page: OpenPage, tmp_path: Path
) -> None:
    instance = await start(redis)
    page = await open_page(instance)
    await say(page, "Before")
    await expect(answers(page)).to_contain_text("You said: Before")
    await follow("Backup", instance)
    await say(page, "After")
    await expect(messages(page)).to_have_count(4)
    await expect(answers(page).last).to_contain_text("You said: After")
    await redis.stop()
    await box(page).fill("Typed meanwhile")
    await box(page).press("Enter")
    await follow("Restore, with access to Redis' files", instance, DATA=str(tmp_path / "redis"))
    await redis.start()
    await expect(answers(page).last).to_contain_text("You said: Typed meanwhile")
    await expect(messages(page)).to_have_count(4)
    assert ["Before" in text or "Typed" in text for text in await messages(page).all_inner_texts()] == [
        True
    ] * 4


async def test_backup_is_moved_to_a_redis_whose_files_nobody_reaches(
    redis: DebianStore, start: Start, follow: Follow, connect: Connect, tmp_path: Path
) -> None:
    instance = await start(redis)
    story = Restored(await known(connect, instance))
    await story.say_before()
    lasting = await lifetimes(redis)
    await follow("Backup", instance)
    await instance.stop()
    async with DebianStore(tmp_path / "managed", requirepass="theirs") as managed:
        names = {"NEW_HOST": "127.0.0.1", "NEW_PORT": str(managed.port), "NEW_PASSWORD": "theirs"}
        sent = await follow("Restore, or move, without access to its files", instance, **names)
        assert set(filter(None, sent)) <= {"PONG", "OK", "NOKEY"}
        ends = await lifetimes(managed)
        assert ends.keys() == lasting.keys()
        assert all(abs(ends[key] - lasting[key]) < MINUTE_MS for key in lasting), "each ends when it did"
        moved = await start(managed)
        await story.client.closed()
        await story.client.reconnect(moved)
        await story.is_there(moved)


async def test_copy_of_the_folder_of_a_running_redis_is_a_backup_too(
    redis: DebianStore, start: Start, connect: Connect, tmp_path: Path
) -> None:
    instance = await start(redis)
    story = Restored(await known(connect, instance))
    await story.say_before()
    await redis.mark()
    shutil.copytree(tmp_path / "redis", tmp_path / "copy")
    newest = max((tmp_path / "copy" / "appendonlydir").glob("*.incr.aof"))
    with newest.open("ab") as journal:
        journal.write(b"*3\r\n$3\r\nSET\r\n$4\r\nhalf")  # what was being written then
    async with DebianStore(tmp_path / "copy", requirepass=PASSWORD) as copied:
        other = await start(copied)
        assert await instance.stop() == 0
        await story.client.closed()
        await story.client.reconnect(other)
        await story.is_there(other)


async def test_damaged_file_is_cut_off_where_the_damage_begins(
    redis: DebianStore, start: Start, follow: Follow, connect: Connect, tmp_path: Path
) -> None:
    instance = await start(redis)
    client = await known(connect, instance)
    conversation = await begin(client, "Before")
    mark = await redis.mark()
    lost = await begin(client, "After")
    await redis.stop()
    newest = max((tmp_path / "redis" / "appendonlydir").glob("*.incr.aof"))
    with newest.open("r+b") as journal:
        journal.seek(mark)
        journal.write(b"\0" * 8)
    await redis.launch()
    assert await redis.ended() != 0
    assert any("Bad file format reading the append only file" in line for line in redis.log)
    await follow("A file that Redis does not read", instance, DATA=str(tmp_path / "redis"))
    await redis.start()
    del client.mirrors[lost]
    await client.reconnect(instance)
    assert [each.text for each in client.mirror(conversation).branch()] == ["Before", echo("Before")]
    assert (await client.page(f"/c/{lost}")).status == 404


async def test_data_of_redis_is_read_by_a_newer_valkey(
    redis: DebianStore, start: Start, connect: Connect, tmp_path: Path
) -> None:
    instance = await start(redis)
    story = Restored(await known(connect, instance))
    await story.say_before()
    assert await instance.stop() == 0
    await redis.stop()
    async with Store(tmp_path / "redis") as valkey:
        newer = await start(valkey)
        await story.client.closed()
        await story.client.reconnect(newer)
        await story.is_there(newer)
