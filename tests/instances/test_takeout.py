"""Export, import and delete everything over HTTP and at the command line, with real processes and a real store."""

from __future__ import annotations

import asyncio
import io
import json
import re
import secrets
import sys
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from llmchat import import_file, intake
from llmchat.blueprints import attachments, takeout
from llmchat.conversation import derived_id
from llmchat.keys import Keys
from llmchat.redis_client import connect as redis_client
from tests.conftest import Connect, StartInstance
from tests.fakes import Gate, Model
from tests.instances import Client, Instance, Store
from tests.instances.child import Child
from tests.instances.instance import ROOT
from tests.instances.talk import begin
from tests.provider import Provider
from tests.trunk import as_json, chatgpt, message, ours, zipped
from tests.waiting import eventually, within

Instances = tuple[Instance, Instance]
LINES = {"Accept": takeout.NDJSON}


async def fetch(client: Client, path: str) -> tuple[int, dict[str, str], bytes]:
    """Fetch a file."""
    assert client.instance
    async with within(20, "a file comes"), client._http.get(client.instance.url + path) as response:
        return response.status, dict(response.headers), await response.read()


async def bring(client: Client, body: Any, **headers: str) -> tuple[int, list[dict[str, Any]]]:
    """Send a file of chats as the page does; gives what it is told."""
    assert client.instance
    url = f"{client.instance.url}/import"
    headers = {"Origin": client.instance.url, **LINES, **headers}
    body = io.BytesIO(body) if isinstance(body, bytes) else body
    async with (
        within(60, "an import is told of"),
        client._http.post(url, data=body, headers=headers) as response,
    ):
        return response.status, [json.loads(line) for line in (await response.text()).splitlines()]


async def known(connect: Connect, instance: Instance) -> Client:
    """Connect a client that has a cookie."""
    client = await connect(instance)
    await client.page("/")
    return client


async def test_chat_is_exported_by_one_instance_and_imported_by_another_session(
    instances: Instances, connect: Connect, model: Model
) -> None:
    alice, bob = await known(connect, instances[0]), await known(connect, instances[1])
    model.answer("```py\nx = 1")
    conversation = await begin(alice, "Über <b>alles</b>")
    status, headers, body = await fetch(alice, f"/c/{conversation}/export.json")
    assert status == 200
    assert headers["Cache-Control"] == "no-store"
    assert headers["Content-Type"] == "application/json"
    assert headers["Content-Disposition"] == (
        "attachment; filename=\"Uber-b-alles-b.json\"; filename*=UTF-8''%C3%9Cber%20b%20alles%20b.json"
    )
    _, headers, text = await fetch(alice, f"/c/{conversation}/export.md")
    assert headers["Content-Type"].startswith("text/markdown")
    assert "Über <b>alles</b>" in text.decode()
    assert text.decode().rstrip().endswith("x = 1\n```")
    for path in (
        f"/c/{conversation}/export.json",
        f"/c/{conversation}/export.md",
        f"/c/{conversation}/export.pdf",
    ):
        assert (await fetch(bob, path))[0] == 404

    status, lines = await bring(bob, body)
    assert status == 200
    assert lines[-1] == {
        "read": len(body), "of": len(body), "imported": 1, "already_here": 0, "left_out": 0, "lost": [], "reasons": {},
        "parts": [], "done": True,
    }  # fmt: skip
    event = await bob.event("conversation.updated")
    assert event["conversation"]["title"] == "Über <b>alles</b>"
    opened = await bob.command("conversation.open", conversation=event["conversation"]["id"])
    assert [each["text"] for each in opened["messages"]] == ["Über <b>alles</b>", "```py\nx = 1"]
    model.answer("On we go")
    ended = await bob.prompt("And?", conversation=event["conversation"]["id"])
    assert ended["finish_reason"] == "stop"
    assert [each["content"] for each in model.requests[-1].messages][-3:] == [
        "Über <b>alles</b>", "```py\nx = 1", "And?"
    ]  # fmt: skip


@pytest.mark.long
async def test_all_chats_come_as_one_archive(instances: Instances, connect: Connect) -> None:
    client = await known(connect, instances[0])
    for at in range(3):
        await begin(client, f"Chat {at}")
    status, headers, body = await fetch(client, "/export")
    assert status == 200
    assert headers["Content-Type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
    assert [name for name in names if name.endswith(".json")] == [
        "chats/00001-Chat-2.json", "chats/00002-Chat-1.json", "chats/00003-Chat-0.json"
    ]  # fmt: skip
    assert names[-1] == "README.txt"
    _, lines = await bring(client, body)
    assert (lines[-1]["imported"], lines[-1]["already_here"]) == (0, 3)


async def test_form_has_a_file_of_any_size_or_is_told_what_it_lacks(
    instances: Instances, connect: Connect
) -> None:
    client = await known(connect, instances[0])
    for name, body, status, told in (
        ("a.json", b"[" + b" " * 500_000 + b"]", 200, None),
        ("a.json", b"", 422, takeout_words("The file is empty.")),
        ("", b"", 422, "Choose a file first."),
    ):
        form = aiohttp.FormData()
        form.add_field("file", body, filename=name, content_type="application/octet-stream")
        answered, lines = await bring(client, form)
        assert (answered, lines[-1].get("detail")) == (status, told)


@pytest.mark.long
async def test_files_that_are_not_taken_are_told_in_words(
    instances: Instances, connect: Connect, start_instance: StartInstance, store: Store
) -> None:
    client = await known(connect, instances[0])
    assert await bring(client, b"hello") == (422, [{"detail": takeout_words("This is no file of chats")}])
    status, (told,) = await bring(client, zipped({"a": b"b"}))
    assert (status, told["detail"][:9]) == (422, "There are")

    async def pieces() -> AsyncIterator[bytes]:
        yield b"{}"

    assert (await bring(client, pieces()))[0] == 411
    stranger = Client()
    stranger.instance = instances[0]
    assert await bring(stranger, as_json(ours())) == (400, [{"detail": takeout.NOT_YOURS}])
    await stranger.close()
    small = await start_instance(store, IMPORT_BYTES="100")
    client = await known(connect, small)
    status, told_of = await bring(client, b"x" * 101)
    assert (status, told_of) == (413, [{"detail": "This file is too large: at most 0.0001 MB are imported."}])


def takeout_words(beginning: str) -> str:
    """Give the whole of a sentence."""
    return next(
        words
        for words in vars(import_file).values()
        if isinstance(words, str) and words.startswith(beginning)
    )


@pytest.mark.long
async def test_session_imports_one_file_at_a_time(instances: Instances, connect: Connect) -> None:
    client = await known(connect, instances[0])
    come, begun = asyncio.Event(), asyncio.Event()
    body = as_json(ours())

    async def slowly() -> AsyncIterator[bytes]:
        yield body[:5]
        begun.set()
        await come.wait()
        yield body[5:]

    first = asyncio.create_task(bring(client, slowly(), **{"Content-Length": str(len(body))}))
    async with within(10, "the first begins"):
        await begun.wait()

    async def refused() -> bool:
        return await bring(client, body) == (429, [{"detail": takeout.ONE_IMPORT}])

    await eventually(refused, seconds=10, what="the second is refused")
    come.set()
    status, lines = await first
    assert status == 200
    assert lines[-1]["done"]


@pytest.mark.long
async def test_export_by_someone_signed_out_leads_to_the_password(
    store: Store, start_instance: StartInstance, connect: Connect
) -> None:
    asked = await start_instance(store, ACCESS_PASSWORD="correct horse battery")
    stranger = Client()
    stranger.instance = asked
    for path in ("/export", "/settings/data"):
        assert (await stranger.page(path)).status == 303
    assert (await stranger.page("/c/x/export.json")).status == 404
    for path in ("/import", "/forget"):
        assert (await stranger.page(path, method="POST", data={"a": "b"})).status in (400, 401)
    await stranger.close()


async def upload(client: Client, body: bytes) -> str:
    """Send a file; gives its id."""
    headers = {"Idempotency-Key": secrets.token_hex(8), "Content-Disposition": 'attachment; filename="a.txt"'}
    page = await client.page("/attachments", method="POST", data=io.BytesIO(body), headers=headers)
    assert page.status == 201
    return str(page.json()["id"])


async def test_what_is_coming_while_everything_is_deleted_on_another_instance_is_not_kept(
    instances: Instances, connect: Connect, store: Store
) -> None:
    one = await known(connect, instances[0])
    two = await connect(instances[1], one)
    conversation = await begin(one, "Mine")
    go = asyncio.Event()

    async def slowly(body: bytes) -> AsyncIterator[bytes]:
        yield body[:10]
        await go.wait()
        yield body[10:]

    file, chats = b"A text that comes slowly", as_json(ours())
    named = {"Idempotency-Key": "k1", "Content-Disposition": 'attachment; filename="a.txt"'}
    upload = one.page(
        "/attachments", method="POST", data=slowly(file), headers=named | {"Content-Length": str(len(file))}
    )
    coming = asyncio.gather(upload, bring(one, slowly(chats), **{"Content-Length": str(len(chats))}))
    async with redis_client(store.url) as redis:
        keys = Keys("llmchat")
        owner = await redis.hget(keys.of_conversation(conversation).conversation, "session")
        session = owner.decode()

        async def both() -> bool:
            return int(await redis.zcard(keys.coming(session))) == 2

        await eventually(both, seconds=10, what="both are expected")
        assert (await two.page("/forget", method="POST", data={"confirmed": "yes"})).status == 200
        go.set()
        kept, (status, told) = await coming
        assert (kept.status, kept.json()["detail"]) == (409, attachments.FORGOTTEN)
        assert (status, told[-1]["lost"]) == (200, [{"title": "", "why": intake.FORGOTTEN}])
        derived = {derived_id("attachment", session, "k1"), derived_id("import", session, "c1")}

        async def nothing_left() -> bool:
            return await keyspace(redis, {session, conversation, *derived}) == set()

        await eventually(nothing_left, seconds=10, what="nothing of it is left")


async def have_everything(client: Client, conversation: str) -> tuple[set[str], set[str]]:
    """Make one of each that a session can have, beside a chat; gives the ids, and the keys that they lie under."""
    sent, unsent = await upload(client, b"Sent"), await upload(client, b"Not sent")
    await client.prompt("Read", conversation=conversation, attachments=[sent])
    await client.command("conversation.update", conversation=conversation, pinned=True)
    link = (await client.command("share.create", conversation=conversation))["share"]["id"]
    archived = await begin(client, "Archived")
    await client.command("conversation.update", conversation=archived, archived=True)
    temporary = (await client.command("message.send", text="Not for long", temporary=True))["conversation"]
    form = {"add": "yes", "id": secrets.token_hex(8), "title": "Name", "text": "Text"}
    assert (await client.page("/settings", method="POST", data=form)).status == 303
    keys = Keys("llmchat")
    lie = {keys.share(link), keys.attachment(sent), keys.attachment_bytes(unsent)}
    return {sent, unsent, link, archived, temporary}, lie


async def test_everything_is_deleted_while_an_answer_is_made_on_another_instance(
    instances: Instances, connect: Connect, model: Model, store: Store
) -> None:
    one = await known(connect, instances[0])
    two = await connect(instances[1], one)
    other = await known(connect, instances[1])
    await begin(other, "Not mine")
    old = await begin(one, "Old")
    others, lie = await have_everything(one, old)
    deleted = await begin(one, "Deleted a moment ago")
    await one.command("conversation.delete", conversation=deleted)
    gate = Gate()
    model.answer("Some ", gate, "more", to="Go on")
    accepted = await two.command("message.send", text="Go on")
    running = accepted["conversation"]
    await two.event("completion.delta", conversation=running)
    await two.command("message.send", text="And this", conversation=running)

    async with redis_client(store.url) as redis:
        keys = Keys("llmchat")
        session = (await redis.hget(keys.of_conversation(old).conversation, "session")).decode()
        mine = {session, old, deleted, running, *others}
        before = await keyspace(redis, mine)
        of_session = (keys.pinned, keys.archived, keys.temporary, keys.loose, keys.prompts, keys.shares)
        assert before >= lie | {each(session) for each in of_session}
        page = await one.page("/forget", method="POST", data={"confirmed": "no"})
        assert page.status == 422
        assert takeout.NOT_CONFIRMED in page.text
        assert await keyspace(redis, mine) >= lie
        page = await one.page("/forget", method="POST", data={"confirmed": "yes"})
        assert (page.status, "Everything was deleted." in page.text) == (200, True)
        asked = await model.asked()
        while asked.prompt != "Go on":
            asked = await model.asked()
        await asked.closed()
        for client in (one, two):
            for conversation in (old, running):
                await client.event("conversation.deleted", conversation=conversation)
        gate.open()

        async def nothing_left() -> bool:
            return await keyspace(redis, mine) == set()

        await eventually(nothing_left, seconds=10, what="nothing of it is left")
    listed = await one.command("conversation.list")
    assert listed["conversations"] == []
    assert len((await other.command("conversation.list"))["conversations"]) == 1
    assert (await one.page(f"/c/{old}")).status == 404
    await begin(one, "A new beginning")


async def keyspace(redis: Any, wanted: set[str]) -> set[str]:
    """Name all keys that have one of these ids in their names, and entries with one in an index that is everybody's."""
    names = {key.decode() async for key in redis.scan_iter(match="llmchat:*", count=1000)}
    found = {name for name in names if any(each in name for each in wanted) and "sign-outs" not in name}
    found = {name for name in found if ":limit:" not in name}  # of a websocket that is open: gone in a minute
    for index in ("llmchat:work", "llmchat:folds", Keys("llmchat").attachments):
        entries = [entry.decode() for entry in await redis.zrange(index, 0, -1)]
        found |= {f"{index} {entry}" for entry in entries if any(each in entry for each in wanted)}
    return found


# Much


def resident(pid: int) -> int:
    """Tell the most memory that a process ever had, in bytes."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) * 1024


def forget_peak(pid: int) -> None:
    """Have the most be counted from here on."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


@pytest.mark.long
async def test_fifty_megabytes_are_imported_in_bounded_memory(
    fresh_store: Store, start_instance: StartInstance, connect: Connect
) -> None:
    instance = await start_instance(fresh_store)
    client = await known(connect, instance)
    await bring(client, as_json([chatgpt()]))  # what is loaded once
    nodes = chatgpt()["mapping"]
    nodes["a"]["message"]["content"]["parts"] = ["word " * 20_000]

    async def file() -> AsyncIterator[bytes]:
        yield b"["
        for at in range(500):
            yield (b"," if at else b"") + as_json(chatgpt(conversation_id=f"big{at}") | {"mapping": nodes})
        yield b"]"

    size = sum([len(piece) async for piece in file()])
    assert size > 50_000_000
    forget_peak(instance.pid)
    before = resident(instance.pid)
    status, lines = await bring(client, file(), **{"Content-Length": str(size)})
    assert (status, lines[-1]["imported"], lines[-1]["left_out"]) == (200, 500, 0)
    assert [each["done"] for each in lines] == [False] * (len(lines) - 1) + [True]
    assert lines[-1]["read"] == lines[-1]["of"] == size
    assert resident(instance.pid) - before < 60_000_000
    assert (await client.page("/healthz")).status == 200


@pytest.mark.long
async def test_import_that_the_instance_dies_under_goes_on_at_another(
    store: Store, start_instance: StartInstance, connect: Connect
) -> None:
    instance = await start_instance(store)
    client = await known(connect, instance)
    body = as_json([ours(id=f"d{at}", title=f"T{at}") for at in range(3000)])
    url, headers = f"{instance.url}/import", {"Origin": instance.url, **LINES}
    async with (
        within(20, "some is imported"),
        client._http.post(url, data=io.BytesIO(body), headers=headers) as response,
    ):
        async for line in response.content:
            if json.loads(line)["imported"] > 10:
                break
        await instance.kill()
    await client.drop()
    await instance.start()
    await client.connect(instance)
    _, lines = await bring(client, body)
    told = lines[-1]
    assert told["already_here"] >= 10
    assert told["imported"] + told["already_here"] == 3000
    _, lines = await bring(client, body)
    assert (lines[-1]["imported"], lines[-1]["already_here"]) == (0, 3000)


@pytest.mark.long
async def test_store_that_is_full_ends_the_import_and_says_so(
    fresh_store: Store, start_instance: StartInstance, connect: Connect
) -> None:
    instance = await start_instance(fresh_store)
    client = await known(connect, instance)
    async with redis_client(fresh_store.url) as redis:
        used = (await redis.info("memory"))["used_memory"]
        await redis.config_set("maxmemory", used + 3_000_000)
        body = as_json([ours(message("m", text="x" * 50_000), id=f"f{at}") for at in range(300)])
        status, lines = await bring(client, body)
        assert status == 200
        assert 0 < lines[-1]["imported"] < 300
        assert lines[-1]["lost"][-1]["why"].startswith("The store is full")
        await redis.config_set("maxmemory", 0)
    _, lines = await bring(client, body)
    assert lines[-1]["imported"] + lines[-1]["already_here"] == 300


# The command line


@pytest.mark.long
async def test_operator_exports_imports_and_deletes_a_session(
    instances: Instances, connect: Connect, store: Store, tmp_path: Path
) -> None:
    client = await known(connect, instances[0])
    conversation = await begin(client, "By hand")
    async with redis_client(store.url) as redis:
        owner = await redis.hget(Keys("llmchat").of_conversation(conversation).conversation, "session")
    session = owner.decode()

    async def operate(*words: str) -> tuple[int, str]:
        child = Child(sys.executable, "-m", "llmchat", *words, env=instances[0].environment, folder=ROOT)
        await child.start()
        code = await child.ended(seconds=40)
        return code, "\n".join(child.lines)

    archive = tmp_path / "all.zip"
    assert await operate("export", session, str(archive)) == (0, f"All chats of the session are in {archive}")
    assert zipfile.is_zipfile(archive)
    assert (await operate("export", session, str(archive)))[0] == 2  # it is there already
    code, told = await operate("import", "b" * 32, str(archive))
    assert (code, told) == (0, "Imported: 1; here already: 0; left out: 0")
    code, told = await operate("forget", session)
    assert (code, told) == (2, "llmchat: Nothing was deleted. Where nobody can be asked, say --yes.")
    assert await operate("forget", session, "--yes") == (0, "Deleted: 1 chats, and all else of this session")
    await client.event("conversation.deleted", conversation=conversation)


@pytest.mark.long
async def test_operator_checks_the_settings(instances: Instances, model: Model) -> None:
    async def check(*words: str, **changes: str) -> tuple[int, str]:
        environment = {**instances[0].environment, **changes}
        child = Child(sys.executable, "-m", "llmchat", "check-config", *words, env=environment, folder=ROOT)
        await child.start()
        code = await child.ended(seconds=40)
        return code, "\n".join(child.lines)

    code, told = await check()
    assert code == 0, told
    assert "The settings are in order" in told
    assert "Redis answers: Valkey" in told
    assert "takes the key, and has gpt-4o-mini" in told
    code, told = await check(OPENAI_MODEL="another")
    assert (code, "does not list another" in told) == (2, True)
    code, told = await check(OPENAI_BASE_URL="http://127.0.0.1:1/v1")
    assert (code, "Check OPENAI_BASE_URL." in told) == (2, True)
    async with Provider() as provider:
        code, told = await check(**provider.environment())
        assert (code, f"The OpenID provider {provider.issuer} answers" in told) == (0, True), told
    code, told = await check(**provider.environment())
    assert (code, "cannot be reached (ConnectError). Check OIDC_ISSUER." in told) == (2, True), told
    code, told = await check("--local", OPENAI_API_KEY="", OPENAI_BASE_URL="")
    assert (code, "`run` starts a small model of its own" in told) == (0, True), told
    for secret in ("SECRET_KEY", "OPENAI_API_KEY"):
        assert instances[0].environment[secret] not in told
