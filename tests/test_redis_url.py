"""Which addresses of a Redis are understood, and what is said of the others."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchat.redis_client import connect, place_of
from llmchat.redis_url import RedisUrl

ONE = (("cache", 6379),)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://cache", {"kind": "server", "hosts": ONE}),
        ("redis://cache:6380/2", {"hosts": (("cache", 6380),), "login": {"db": 2}}),
        ("redis://cache/", {"hosts": ONE, "login": {}}),
        ("redis://[::1]:6380", {"hosts": (("::1", 6380),)}),
        ("redis://:p%40ss@cache", {"login": {"password": "p@ss"}}),
        ("redis://me:a:b@cache?db=3", {"login": {"username": "me", "password": "a:b", "db": 3}}),
        ("redis://cache", {"tls": None}),
        ("rediss://cache", {"kind": "server", "tls": {}}),
        (
            "rediss://cache?ssl_ca_certs=/ca.pem&ssl_certfile=/c.pem&ssl_keyfile=/k.pem",
            {"tls": {"ssl_ca_certs": "/ca.pem", "ssl_certfile": "/c.pem", "ssl_keyfile": "/k.pem"}},
        ),
        (
            "rediss://cache?ssl_cert_reqs=none&ssl_check_hostname=False",
            {"tls": {"ssl_cert_reqs": "none", "ssl_check_hostname": False}},
        ),
        ("unix:///run/valkey.sock?db=1", {"kind": "socket", "path": "/run/valkey.sock", "login": {"db": 1}}),
        ("unix://:word@/run/valkey.sock", {"path": "/run/valkey.sock", "login": {"password": "word"}}),
        (
            "redis+sentinel://me:word@one:1,two/chats/4?sentinel_password=other",
            {
                "kind": "sentinel",
                "hosts": (("one", 1), ("two", 26379)),
                "master": "chats",
                "login": {"username": "me", "password": "word", "db": 4},
                "sentinel_login": {"password": "other"},
                "tls": None,
            },
        ),
        ("rediss+sentinel://one/chats", {"kind": "sentinel", "tls": {}}),
        (
            "redis+cluster://one:1,[::1]:2",
            {"kind": "cluster", "hosts": (("one", 1), ("::1", 2)), "login": {}},
        ),
        ("rediss+cluster://:word@one/0", {"kind": "cluster", "tls": {}, "login": {"password": "word"}}),
    ],
)
def test_address_is_understood(url: str, expected: dict[str, Any]) -> None:
    found = RedisUrl.parse(url)
    assert {name: getattr(found, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "this is no address of a Redis"),
        ("cache", "this is no address of a Redis"),
        ("http://cache", "this is no address of a Redis"),
        ("redis://", "this is no address of a Redis"),
        ("redis://cache:0", "this is no address of a Redis"),
        ("redis://cache:65536", "this is no address of a Redis"),
        ("redis://ca che", "this is no address of a Redis"),
        ("redis://cache/one", "database must be a number"),
        ("redis://cache/1/2", "database must be a number"),
        ("redis://cache?db=x", "database must be a number"),
        ("redis://one,two", "redis+sentinel:// or redis+cluster://"),
        ("redis://cache?timeout=3", "behind the ? is not known here; known are db, password, username"),
        ("redis://default:1234?secret@cache", "in a password, ? is written as %3F"),
        ("redis://cache?ssl_ca_certs=/x", "behind the ? is not known here"),
        ("rediss://cache?ssl_cert_reqs=maybe", "ssl_cert_reqs must be one of none, optional, required"),
        ("unix://run/valkey.sock", "a third slash"),
        ("unix:///", "a third slash"),
        ("redis+sentinel://one:1", "name the master"),
        ("redis+cluster://one/1", "one database only"),
        ("redis+cluster://one,,two", "this is no address of a Redis"),
    ],
)
def test_address_of_another_form_is_refused_in_a_sentence(url: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        RedisUrl.parse(url)


@given(st.text(), st.sampled_from(["redis", "rediss", "unix", "redis+sentinel", "redis+cluster", "x"]))
def test_whatever_stands_in_an_address_it_is_read_or_refused_and_no_login_is_told(
    text: str, scheme: str
) -> None:
    url = f"{scheme}://me:hunter2@{text}"
    try:
        found = RedisUrl.parse(url)
        told = str(found) + repr(found)
    except ValueError as error:
        told = str(error)
    assert "hunter2" not in told


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("redis://me:hunter2@cache:1/2", "cache:1"),
        ("rediss://[::1]", "[::1]:6379"),
        ("unix://:hunter2@/run/x.sock", "/run/x.sock"),
        ("redis+sentinel://:hunter2@a,b:1/chats", "chats of the Sentinels at a:26379,b:1"),
        ("redis+cluster://a,b", "the Cluster at a:6379,b:6379"),
    ],
)
def test_place_is_named_without_a_login(url: str, place: str) -> None:
    assert place_of(url) == place


def test_file_of_a_certificate_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match=r"ssl_ca_certs names .*nowhere\.pem, which is no file"):
        connect("rediss://cache?ssl_ca_certs=nowhere.pem")
