"""The rules of docs/channel-layer.md that need no server."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import fakeredis
import pytest

from llmchat.broadcaster import Broadcaster, ChannelFull, ChannelLapsed
from tests.channel_layer.rules import rule
from tests.instances.instance import ROOT


@rule(50)
@pytest.mark.parametrize(
    "hosts",
    [
        None,
        "redis://user:word@host:6380/2",
        "unix:///run/redis.sock",
        ["rediss://host"],
        ["redis+sentinel://one:26379,two:26379/master"],
        [{"sentinels": [("one", 26379), ("two", 26379)], "master_name": "master"}],
        [
            {
                "sentinels": [["one", 26379]],
                "master_name": "master",
                "password": "word",
                "sentinel_kwargs": {"password": "other"},
            }
        ],
        "redis+cluster://one,two:7001",
    ],
    ids=["none", "login", "socket", "tls", "sentinel", "sentinel dict", "sentinel logins", "cluster"],
)
def test_host_of_every_kind_is_taken(hosts: Any) -> None:
    Broadcaster(hosts)


@rule(50)
@pytest.mark.parametrize(
    "hosts",
    [
        "localhost",
        "http://host",
        ["redis://one,two"],
        [],
        [{"address": "redis://host", "colour": "red"}],
        [{"sentinels": [("one", 26379)], "master_name": "master", "sentinel_kwargs": {"colour": "red"}}],
    ],
)
def test_host_that_cannot_be_read_is_a_value_error(hosts: Any) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - each tells another form
        Broadcaster(hosts)


@rule(51)
@pytest.mark.parametrize(
    "hosts", [["redis://one", "redis://two"], [("one", 6379), ("two", 6379)], ("localhost", 6379)]
)
def test_several_hosts_are_an_error_that_names_the_cluster(hosts: Any) -> None:
    with pytest.raises(ValueError, match=r"redis\+cluster://"):
        Broadcaster(hosts)


@rule(53)
@pytest.mark.parametrize("capacity", [-1, 1.5, "100", None])
def test_bad_capacity_is_a_value_error(capacity: Any) -> None:
    for options in ({"capacity": capacity}, {"channel_capacity": {"*": capacity}}):
        with pytest.raises(ValueError, match="capacity"):
            Broadcaster(**options)  # type: ignore[arg-type]


@rule(53)
@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"symmetric_encryption_keys": ["secret"]}, ValueError),
        ({"symmetric_encryption_keys": "secret"}, ValueError),
        ({"serializer_format": "json"}, ValueError),
        ({"hosts": ["redis://one"], "client": fakeredis.FakeAsyncRedis()}, ValueError),
        ({"client": fakeredis.FakeRedis()}, TypeError),
        ({"client": "redis://one"}, TypeError),
        ({"colour": "red"}, TypeError),
    ],
    ids=["keys", "key", "serializer", "both", "synchronous client", "no client", "unknown"],
)
def test_what_would_have_no_effect_is_refused(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        Broadcaster(**options)


@rule(22, 53)
def test_what_channels_writes_by_default_is_taken() -> None:
    Broadcaster(
        hosts=[("localhost", 6379)],
        prefix="asgi",
        capacity=100,
        channel_capacity=None,
        expiry=60,
        group_expiry=86400,
        symmetric_encryption_keys=None,
        serializer_format="msgpack",
        on_disconnect=None,
        on_reconnect=None,
    )


@rule(54)
def test_class_tells_its_extensions_and_has_its_errors() -> None:
    assert Broadcaster.extensions == ["groups", "flush"]
    assert Broadcaster.ChannelFull is ChannelFull
    assert Broadcaster.ChannelLapsed is ChannelLapsed


@rule(55)
def test_class_is_imported_without_the_rest_of_the_application() -> None:
    code = "import sys, llmchat.broadcaster; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    modules = set(run.stdout.split())
    assert not modules & {"quart", "openai", "hypercorn", "pydantic", "environs"}
    assert {name for name in modules if name.startswith("llmchat.")} == {
        f"llmchat.{room}"
        for room in (
            "broadcaster",
            "cluster",
            "durations",
            "errors",
            "hosts",
            "keys",
            "pipelined",
            "redis_client",
            "redis_url",
            "shards",
            "subscriber",
        )
    }


@rule(53)
@pytest.mark.parametrize("prefix", ["{app}", "a{b}c", "{", 7, None])
def test_prefix_that_would_name_a_slot_is_refused(prefix: Any) -> None:
    with pytest.raises(ValueError, match="without braces"):
        Broadcaster(prefix=prefix)


@rule(53)
@pytest.mark.parametrize("expiry", [-1, "60", None, True, float("nan")])
def test_expiry_that_is_no_number_of_seconds_is_refused(expiry: Any) -> None:
    with pytest.raises(ValueError, match="number of seconds"):
        Broadcaster(expiry=expiry)


@rule(53)
@pytest.mark.parametrize(
    "host", [7, None, ("one",), {"sentinels": [("one", 1)]}, {"sentinels": 1, "master_name": "m"}]
)
def test_host_of_no_form_is_refused_in_a_sentence(host: Any) -> None:
    with pytest.raises(ValueError, match="hosts is a URL, or a list of one"):
        Broadcaster([host])


@rule(50)
def test_options_of_channels_that_have_no_effect_are_taken() -> None:
    Broadcaster(
        [
            {
                "address": "redis://one",
                "health_check_interval": 3,
                "socket_timeout": 1,
                "retry_on_timeout": True,
            }
        ]
    )
    Broadcaster([{"address": "rediss://one", "ssl_cert_reqs": "none"}])


@rule(53)
@pytest.mark.parametrize("option", ["nonsense", "ssl_cert_reqs"])
def test_option_that_would_have_no_effect_is_refused(option: str) -> None:
    with pytest.raises(ValueError, match=f"{option}|rediss"):
        Broadcaster([{"address": "redis://one", option: "none"}])
