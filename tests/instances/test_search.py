"""What is found, by real instances: over websockets, and at the address for where no script runs."""

from __future__ import annotations

import secrets
from urllib.parse import quote

from tests.conftest import Connect, StartInstance
from tests.instances import Client, Instance, Store
from tests.instances.talk import begin

Instances = tuple[Instance, Instance]
HOSTILE = '"><script>alert(1)</script>'


async def test_chat_begun_on_one_instance_is_found_on_the_other_until_it_is_deleted(
    instances: Instances, connect: Connect
) -> None:
    one = await connect(instances[0])
    two = await connect(instances[1], one)
    stranger = await connect(instances[1])
    conversation = await begin(one, "Ein Fußball")
    found = await two.command("conversation.search", query="FUSSBALL")
    assert [each["conversation"]["id"] for each in found["results"]] == [conversation]
    page = await two.page("/search?q=fussball")
    assert f'href="/c/{conversation}?at=' in page.text
    assert "<mark>Fußball</mark>" in page.text
    assert (page.headers["Cache-Control"], 'content="noindex"' in page.text) == ("no-store", True)
    assert (await stranger.command("conversation.search", query="fussball"))["results"] == []
    assert "Nothing found" in (await stranger.page("/search?q=fussball")).text
    await one.command("conversation.delete", conversation=conversation)
    assert (await two.command("conversation.search", query="fussball"))["results"] == []
    assert "Nothing found" in (await two.page("/search?q=fussball")).text


async def test_words_of_any_kind_are_answered_with_a_page(instances: Instances, connect: Connect) -> None:
    client = await connect(instances[0])
    await begin(client, f"{HOSTILE}\0 and {'x' * 500}")
    for words, status, told in (
        ("", 200, "Search chats"),
        (HOSTILE, 200, "1 chat found"),
        ("\0\u202e", 422, "Type a word to search for."),
        ("\u200b", 422, "Type a word to search for."),
        ('""', 422, "Type a word to search for."),
        ("lorem", 200, "Nothing found</p>"),
        ("lorem ipsum", 200, "All words have to be in one title or one message."),
        ("x" * 201, 422, "At most 200 characters"),
    ):
        page = await client.page(f"/search?q={quote(words)}")
        assert (page.status, told in page.text) == (status, True)
        assert "<script>alert" not in page.text
    assert (await client.page("/search?q=%ff%fe")).status == 200


async def test_page_of_what_was_found_asks_for_the_password_and_counts_as_a_frame(
    store: Store, start_instance: StartInstance
) -> None:
    asking = await start_instance(
        store,
        ACCESS_PASSWORD="a long secret",
        FRAMES_PER_MINUTE="2",
        REDIS_PREFIX=f"search-{secrets.token_hex(4)}",
    )
    client = Client()
    client.instance = asking
    try:
        page = await client.page("/search?q=tree")
        assert (page.status, page.headers["Location"]) == (303, "/sign-in?to=/search?q%3Dtree")
        await client.page("/sign-in", method="POST", data={"password": "a long secret", "to": "/"})
        pages = [await client.page("/search?q=tree") for _ in range(4)]
        assert [page.status for page in pages] == [200, 200, 429, 429]
        assert int(pages[-1].headers["Retry-After"]) > 0
    finally:
        await client.close()
