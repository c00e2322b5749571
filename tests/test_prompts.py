"""Starting prompts of a session."""

from __future__ import annotations

import pytest
from fakeredis import FakeAsyncRedis

from llmchat.errors import BadField, NotFound, TooLong
from llmchat.keys import Keys
from llmchat.prompts import MOST_PROMPTS, NAME_CHARACTERS, Prompts

KEYS = Keys("prompts")
DAY_MS = 86_400_000


@pytest.fixture
def prompts(fake_redis: FakeAsyncRedis) -> Prompts:
    return Prompts(fake_redis, KEYS, history_days=1, most_characters=100)


async def titles(prompts: Prompts, session: str = "alice") -> list[str]:
    return [each.title for each in await prompts.listed(session)]


async def test_prompts_are_listed_in_the_order_in_which_they_were_made(prompts: Prompts) -> None:
    for name in ("zebra", "ape", "mole"):
        await prompts.add("alice", name, name, f"About a {name}:  \n\n")
    await prompts.add("bob", "zebra", "other", "other")
    assert await titles(prompts) == ["zebra", "ape", "mole"]
    found = await prompts.listed("alice")
    assert found[0].text == "About a zebra:"
    changed = await prompts.change("alice", found[0].id, "  zoo \n 2 ", "Zoo")
    assert (changed.title, changed.text, changed.created) == ("zoo 2", "Zoo", found[0].created)
    assert await titles(prompts) == ["zoo 2", "ape", "mole"]
    assert await prompts.find("alice", changed.id) == changed


async def test_prompt_that_is_sent_twice_is_kept_once_and_as_it_was_first(prompts: Prompts) -> None:
    first = await prompts.add("alice", "form", "Name", "Text")
    assert await prompts.add("alice", "form", "Other", "Words") == first
    assert await titles(prompts) == ["Name"]


async def test_name_is_kept_without_what_turns_or_hides_it(prompts: Prompts) -> None:
    await prompts.add("alice", "form", "\u202eeman\u200b of\x00mine", "Text")
    assert await titles(prompts) == ["eman of mine"]


async def test_prompt_without_words_or_with_too_many_is_refused_in_words(prompts: Prompts) -> None:
    for title, text, error in (
        (" \n", "Text", BadField),
        ("\u200b \u3164", "Text", BadField),
        ("Name", " \n ", BadField),
        ("N" * (NAME_CHARACTERS + 1), "Text", TooLong),
        ("Name", "T" * 101, TooLong),
    ):
        with pytest.raises(error) as caught:
            await prompts.add("alice", "form", title, text)
        assert caught.value.detail.endswith(".")
    assert await titles(prompts) == []


async def test_session_has_so_many_prompts_and_no_more(prompts: Prompts) -> None:
    made = [await prompts.add("alice", str(n), str(n), "Text") for n in range(MOST_PROMPTS)]
    with pytest.raises(BadField, match="Delete one first"):
        await prompts.add("alice", "more", "more", "Text")
    assert await prompts.add("alice", "0", "0", "Text") == made[0]  # a repeat is none more
    await prompts.change("alice", made[0].id, "changed", "Text")
    await prompts.delete("alice", made[1].id)
    await prompts.add("alice", "more", "more", "Text")


async def test_prompt_that_was_deleted_is_neither_found_nor_changed(prompts: Prompts) -> None:
    made = await prompts.add("alice", "form", "Name", "Text")
    with pytest.raises(NotFound):
        await prompts.find("bob", made.id)
    await prompts.delete("bob", made.id)
    await prompts.delete("alice", made.id)
    await prompts.delete("alice", made.id)
    with pytest.raises(NotFound):
        await prompts.change("alice", made.id, "Name", "Text")
    assert await titles(prompts) == []


async def test_prompts_are_kept_for_as_long_as_they_are_looked_at(
    prompts: Prompts, fake_redis: FakeAsyncRedis
) -> None:
    key = KEYS.prompts("alice")
    await prompts.add("alice", "form", "Name", "Text")
    assert DAY_MS - 5000 < await fake_redis.pttl(key) <= DAY_MS
    await fake_redis.pexpire(key, 1000)
    await prompts.listed("alice")
    assert await fake_redis.pttl(key) > DAY_MS - 5000
    for_ever = Prompts(fake_redis, KEYS, history_days=0, most_characters=100)
    await for_ever.add("alice", "other", "Other", "Text")
    assert await fake_redis.pttl(key) == -1
    await for_ever.listed("alice")
    assert await fake_redis.pttl(key) == -1
