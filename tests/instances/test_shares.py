"""Shared links over the wire and by HTTP: made on one instance, shown by the other to whoever has them."""

from __future__ import annotations

import io
import re
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from llmchat.limits import SHARED_PAGES_PER_MINUTE
from llmchat.shares import REVOKED
from tests.conftest import Connect, StartInstance
from tests.fakes import Model
from tests.instances import Instance, Store
from tests.instances.client import Client, Page
from tests.instances.talk import begin, send
from tests.trunk import as_json, message, ours

Instances = tuple[Instance, Instance]
PASSWORD = "correct horse battery"
NOWHERE = "/s/" + "A" * 32


@asynccontextmanager
async def tab(instance: Instance, jar: aiohttp.CookieJar | None = None) -> AsyncIterator[Client]:
    """Open a browser that only reads pages."""
    client = Client(jar)
    client.instance = instance
    try:
        yield client
    finally:
        await client.close()


async def look(instance: Instance, path: str) -> Page:
    """Open an address as somebody who was never here."""
    async with tab(instance) as stranger:
        return await stranger.page(path)


NONCE = re.compile(r' nonce="[^"]+"')


def same(page: Page, other: Page) -> bool:
    one, two = (NONCE.sub("", each.text) for each in (page, other))
    return (page.status, one) == (other.status, two)


async def test_link_shows_a_copy_to_a_stranger_on_another_instance_and_never_what_is_said_later(
    instances: Instances, connect: Connect, model: Model
) -> None:
    alice = await connect(instances[0])
    model.answer("Some **cheese** <script>alert(1)</script>")
    conversation = await begin(alice, "What is <b>there</b>?")
    made = (await alice.command("share.create", conversation=conversation))["share"]
    await alice.ending(await send(alice, conversation, "And later?"))
    shown = await look(instances[1], made["path"])
    assert shown.status == 200
    assert "Some <strong>cheese</strong>" in shown.text
    assert "What is &lt;b&gt;there&lt;/b&gt;?" in shown.text
    assert "And later?" not in shown.text
    assert "<script>alert" not in shown.text
    assert "websocket" not in shown.text
    assert conversation not in shown.text
    headers = {name.lower(): value for name, value in shown.headers.items()}
    assert "set-cookie" not in headers
    assert headers["cache-control"] == "no-store"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-robots-tag"] == "noindex, nofollow"
    listed = (await alice.command("share.list", conversation=conversation))["shares"]
    assert listed == [made]


async def test_link_shows_nothing_once_it_is_revoked_or_its_chat_deleted_and_again_when_that_is_restored(
    instances: Instances, connect: Connect
) -> None:
    alice, bob = await connect(instances[0]), await connect(instances[1])
    conversation = await begin(alice)
    never = await look(instances[1], NOWHERE)
    assert never.status == 404
    made = (await alice.command("share.create", conversation=conversation))["share"]
    await bob.command("share.revoke", share=made["id"])
    await alice.command("conversation.delete", conversation=conversation)
    assert same(await look(instances[1], made["path"]), never)
    await alice.command("conversation.restore", conversation=conversation)
    assert (await look(instances[1], made["path"])).status == 200
    assert await bob.refused("share.create", conversation=conversation) == "not_found"
    await alice.command("share.revoke", share=made["id"])
    assert same(await look(instances[1], made["path"]), never)
    assert same(await look(instances[1], "/s/no%20token"), never)
    assert (await alice.command("share.list"))["shares"] == []


async def test_command_that_is_repeated_on_another_instance_makes_one_link(
    instances: Instances, connect: Connect
) -> None:
    alice = await connect(instances[0])
    other = await connect(instances[1], alice)
    conversation = await begin(alice)
    command = secrets.token_hex(8)
    first = await alice.command("share.create", id=command, conversation=conversation)
    again = await other.command("share.create", id=command, conversation=conversation)
    assert first["share"] == again["share"]
    assert len((await other.command("share.list"))["shares"]) == 1
    await alice.command("share.revoke", share=first["share"]["id"])
    assert await other.refused("share.create", id=command, conversation=conversation) == "bad_field"
    page = await alice.page(f"/c/{conversation}/options", method="POST", data={"share": command})
    assert (page.status, REVOKED in page.text) == (422, True)
    assert (await look(instances[0], first["share"]["path"])).status == 404


async def test_answer_out_of_proportion_is_shown_as_it_was_written_and_the_others_drawn(
    instances: Instances, connect: Connect
) -> None:
    alice = await connect(instances[0])
    await alice.page("/")
    long = "*a* <b> " * 10_000
    told = ours(
        message("m1"),
        message("m2", "m1", "assistant", long),
        message("m3", "m2"),
        message("m4", "m3", "assistant", "*b*"),
    )
    headers = {"Origin": instances[0].url}
    brought = await alice.page("/import", method="POST", data=io.BytesIO(as_json(told)), headers=headers)
    assert brought.status == 200
    (listed,) = (await alice.command("conversation.list"))["conversations"]
    made = (await alice.command("share.create", conversation=listed["id"]))["share"]
    for _ in range(2):
        shown = (await look(instances[1], made["path"])).text
        assert '<p class="words" dir="auto">*a* &lt;b&gt; *a*' in shown
        assert "<p><em>b</em></p>" in shown


@pytest.mark.long
async def test_address_has_so_many_shared_pages_a_minute_and_no_more(
    store: Store, start_instance: StartInstance
) -> None:
    instance = await start_instance(store, REDIS_PREFIX=f"shares-{secrets.token_hex(4)}")
    shown, began = 0, time.monotonic()
    for _ in range(10 * SHARED_PAGES_PER_MINUTE):  # each second one more may be shown
        page = await look(instance, NOWHERE)
        if page.status != 404:
            break
        shown += 1
    assert page.status == 429
    assert int(page.headers["Retry-After"]) >= 1
    earned = (time.monotonic() - began) * SHARED_PAGES_PER_MINUTE / 60
    assert SHARED_PAGES_PER_MINUTE <= shown <= SHARED_PAGES_PER_MINUTE + earned + 1


@pytest.mark.long
async def test_link_is_read_without_the_password_only_where_the_operator_says_so(
    store: Store, start_instance: StartInstance, connect: Connect
) -> None:
    prefix = f"shares-{secrets.token_hex(4)}"
    open_to_all = await start_instance(store, REDIS_PREFIX=prefix)
    alice = await connect(open_to_all)
    made = (await alice.command("share.create", conversation=await begin(alice)))["share"]
    for allowed, status in (("", 404), ("true", 200)):
        closed = await start_instance(
            store, REDIS_PREFIX=prefix, ACCESS_PASSWORD=PASSWORD, SHARE_LINKS=allowed
        )
        assert (await look(closed, made["path"])).status == status
        async with tab(closed, alice.jar) as again:
            form = aiohttp.FormData({"password": PASSWORD, "to": "/settings"})
            signed_in = await again.page("/sign-in", method="POST", data=form)
            assert signed_in.headers["Location"] == "/settings"
            assert made["path"] in (await again.page("/settings")).text  # to be revoked in any case
            assert ('data-action="share"' in (await again.page("/")).text) == (status == 200)
        await closed.stop()
