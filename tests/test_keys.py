"""Where everything lies in Redis: one slot for each conversation, and no two prefixes meet."""

from __future__ import annotations

import re
from dataclasses import astuple

from llmchat.keys import Keys, group_of_conversation, group_of_session, redis_channel

ALL = astuple(Keys("one").of_conversation("c1"))


def hash_tag(key: str) -> str:
    """What a Cluster hashes of a key."""
    found = re.search(r"\{([^}]+)\}", key)
    assert found, key
    return found[1]


def test_all_of_a_conversation_carries_one_hash_tag() -> None:
    assert {hash_tag(key) for key in ALL} == {"conversation.c1"}


def test_no_two_keys_are_the_same() -> None:
    assert len(set(ALL)) == len(ALL)


def test_two_conversations_share_no_key() -> None:
    assert not set(ALL) & set(astuple(Keys("one").of_conversation("c2")))


def test_two_prefixes_share_no_key() -> None:
    one, two = Keys("one"), Keys("two")
    assert not set(ALL) & set(astuple(two.of_conversation("c1")))
    assert one.conversations("s") != two.conversations("s")
    assert one.work != two.work


def test_every_key_begins_with_its_prefix() -> None:
    keys = Keys("mine")
    every = (*astuple(keys.of_conversation("c1")), keys.conversations("s1"), keys.work)
    assert all(key.startswith("mine:") for key in every)


def test_conversations_channel_is_the_one_of_its_group() -> None:
    channel = Keys("one").of_conversation("c1").channel
    assert channel == redis_channel("one", "group", group_of_conversation("c1"))


def test_groups_of_a_session_and_of_a_conversation_never_meet() -> None:
    assert group_of_conversation("same") != group_of_session("same")
