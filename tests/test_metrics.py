"""`/metrics` of an app without traffic: who may read it, in what form, and that docs/metrics.md and the alerts fit it."""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
import yaml
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from quart import Quart, Response

from llmchat.app import create_app
from llmchat.blueprints import visitors
from llmchat.blueprints.rooms import Rooms
from llmchat.blueprints.visitors import Refusals
from llmchat.errors import Unavailable
from llmchat.limits import WRONG_TOKENS_PER_MINUTE
from llmchat.settings import Settings
from tests.instances import Store
from tests.scrape import TOKEN, Scrape
from tests.test_docs import ROOT, rows, section
from tests.waiting import eventually

RIGHT = {"Host": "10.0.0.11:8000", "Authorization": f"Bearer {TOKEN}"}
DOCUMENT = (ROOT / "docs" / "metrics.md").read_text()
RULES = yaml.safe_load((ROOT / "docs" / "alerts.yml").read_text())["groups"][0]["rules"]
PROMETHEUS_OWN = {"up"}
NONCE = re.compile(r'nonce="[^"]+"')


@pytest.fixture
async def app(store: Store, settings: Settings) -> AsyncIterator[Quart]:
    app = create_app(
        replace(
            settings,
            redis_url=store.url,
            redis_prefix=f"metrics-{secrets.token_hex(4)}",
            metrics_token=TOKEN,
            tokens_per_day_in_all=10_000,
        )
    )
    async with app.test_app():
        yield app


@pytest.fixture
def rooms(app: Quart) -> Rooms:
    found: Rooms = app.extensions["llmchat"]
    return found


async def ask(app: Quart, method: str = "GET", path: str = "/metrics", **headers: str) -> Response:
    response: Response = await app.test_client().open(
        path,
        method=method,
        headers=RIGHT | {name.replace("_", "-"): value for name, value in headers.items()},
    )
    return response


async def scrape(app: Quart) -> Scrape:
    response = await ask(app)
    assert response.status_code == 200
    return Scrape.of(await response.get_data(as_text=True))


# Who may read it


async def test_whoever_has_the_token_may_read_it_by_any_name(app: Quart) -> None:
    response = await ask(app)
    assert (response.status_code, response.headers["Cache-Control"]) == (200, "no-store")
    assert response.content_type.startswith("text/plain; version=")
    assert (await ask(app, "HEAD")).status_code == 200
    assert (await ask(app, "POST")).status_code == 405
    assert (await ask(app, Authorization=f"bearer  {TOKEN}")).status_code == 200
    assert (await ask(app, path="/metrics/")).status_code == 400  # the Host is not allowed there


async def test_nobody_else_may(app: Quart) -> None:
    wrong = [
        "",
        "Bearer",
        "Bearer ",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        f"Basic {TOKEN}",
        TOKEN,
        "Bearer é",
    ]
    for header in wrong:
        response = await ask(app, Authorization=header)
        assert (response.status_code, response.headers["WWW-Authenticate"]) == (401, "Bearer"), header
        assert "llmchat_" not in await response.get_data(as_text=True)


async def test_there_is_no_such_address_without_a_token(store: Store, settings: Settings) -> None:
    app = create_app(replace(settings, redis_url=store.url))
    async with app.test_app():
        for method in ("GET", "POST"):
            said, nothing = [
                await ask(app, method, path, Host="localhost") for path in ("/metrics", "/nothing")
            ]
            assert said.status_code == nothing.status_code == 404
            same, other = [NONCE.sub("", await each.get_data(as_text=True)) for each in (said, nothing)]
            assert same == other
        assert (await ask(app)).status_code == 400  # the Host is not allowed


async def test_address_that_guesses_too_often_has_to_wait_but_for_who_knows_the_token(
    app: Quart, rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(WRONG_TOKENS_PER_MINUTE):
        assert (await ask(app, Authorization="Bearer guess")).status_code == 401
    response = await ask(app, Authorization="Bearer guess")
    assert response.status_code == 429
    assert int(response.headers["Retry-After"]) >= 1
    assert (await ask(app)).status_code == 200
    assert rooms.limits.refused["wrong_tokens"] == 1

    async def away(*_: Any, **__: Any) -> None:
        raise Unavailable

    monkeypatch.setattr(rooms.limits, "wrong_token", away)
    assert (await ask(app, Authorization="Bearer guess")).status_code == 401
    assert (await ask(app)).status_code == 200


# What it tells


async def test_both_formats_are_read_by_their_parsers(app: Quart, rooms: Rooms) -> None:
    rooms.turns.tally.begin("gpt-4o-mini")
    rooms.turns.tally.speak("gpt-4o-mini", 0.2)
    plain = await scrape(app)
    response = await ask(app, Accept="application/openmetrics-text;version=1.0.0")
    assert response.content_type.startswith("application/openmetrics-text")
    read = {family.name: family for family in read_openmetrics(await response.get_data(as_text=True))}
    assert {name.removesuffix("_info") for name in plain.families} == set(read)
    assert plain.value("llmchat_first_token_seconds_bucket", le="0.25") == 1
    assert plain.value("llmchat_first_token_seconds_bucket", le="0.1") == 0
    assert plain.value("llmchat_first_token_seconds_sum") == 0.2


async def test_document_has_a_row_for_every_metric_and_no_other(app: Quart, rooms: Rooms) -> None:
    rooms.turns.tally.begin("m")
    rooms.turns.tally.end("m", "stop", 1)
    rooms.turns.tally.speak("m", 1)
    rooms.turns.tally.use("m", {}, prompt=1, completion=1)
    await scrape(app)  # for the first response
    exported = {
        family.name + "_total" * (family.type == "counter"): (
            family.type,
            set().union(*(sample.labels.keys() - {"le"} for sample in family.samples)),
        )
        for family in (await scrape(app)).families.values()
    }
    told = {
        cells[0].strip("`"): (cells[1], set(re.findall(r"`(\w+)`", cells[2])))
        for cells in rows(section(DOCUMENT, "What is told"))
        if cells[0] != "metric"
    }
    assert told == exported


async def test_counts_only_grow_and_series_stay(app: Quart, rooms: Rooms) -> None:
    def counts(found: Scrape) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in found.families.values()
            if family.type in ("counter", "histogram")
            for sample in family.samples
        }

    await scrape(app)
    before = counts(await scrape(app))
    rooms.turns.tally.begin("m")
    rooms.refused.note("full")
    await rooms.limits.of("alice", "10.0.0.1").frames(3)
    await ask(app, Authorization="")
    after = counts(await scrape(app))
    assert before.keys() <= after.keys()
    assert all(after[name] >= count for name, count in before.items())
    grown = {name[0] for name, count in before.items() if after[name] > count}
    assert {
        "llmchat_websockets_refused_total",
        "llmchat_received_total",
        "llmchat_http_responses_total",
    } <= grown


async def test_lines_of_the_log_are_counted_by_level_while_the_app_serves(app: Quart) -> None:
    log = logging.getLogger("llmchat.somewhere")
    log.info("No count")
    log.warning("One")
    log.error("Two")
    found = await scrape(app)
    assert [found.value("llmchat_log_lines_total", level=level) for level in ("warning", "error")] == [1, 1]


async def test_lag_of_the_event_loop_is_looked_at(app: Quart) -> None:
    async def looked() -> bool:
        return (await scrape(app)).value("llmchat_loop_lag_seconds_count") > 0

    await eventually(looked, seconds=30, what="it is looked at")


async def test_rest_is_told_while_redis_is_away(
    app: Quart, rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await scrape(app)).value("llmchat_redis_up") == 1
    assert (await scrape(app)).value("llmchat_turns_open") == 0

    async def away() -> None:
        return None

    monkeypatch.setattr(rooms.health, "latest", away)
    found = await scrape(app)
    assert found.value("llmchat_redis_up") == 0
    assert "llmchat_turns_open" not in found.families
    assert "llmchat_websockets_open" in found.families


async def test_refused_websockets_are_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(visitors, "TELL_SECONDS", 0.01)
    refusals = Refusals(visitors.WEBSOCKETS_REFUSED)

    async def told() -> bool:
        return bool(caplog.messages)

    for reasons, line in ((["full", "crowded", "full"], "full 2, crowded 1"), (["full"], "full 1")):
        caplog.clear()
        for reason in reasons:
            refusals.note(reason)
        await eventually(told, seconds=10, what="it is told")
        assert caplog.messages == [f"Websockets were refused in the last minute: {line}."]


# Alerts


def test_document_names_every_alert_as_its_rule_does() -> None:
    told = [cells for cells in rows(section(DOCUMENT, "Alerts")) if cells[0] != "alert"]
    assert told == [
        [f"`{rule['alert']}`", rule["annotations"]["summary"], rule["labels"]["severity"]] for rule in RULES
    ]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_alert_asks_for_what_is_told(rule: dict[str, Any]) -> None:
    told = {
        cells[0].strip("`"): set(re.findall(r"`(\w+)`", cells[2]))
        for cells in rows(section(DOCUMENT, "What is told"))
    }
    asked = re.findall(r"\b((?:llmchat|process)_\w+|up)\b(?:\{([^}]*)\})?", rule["expr"])
    assert asked
    for name, selector in asked:
        metric = name.removesuffix("_bucket")
        labels = set(re.findall(r"(\w+)\s*[=!]", selector)) - {"job", "instance"}
        assert metric in told.keys() | PROMETHEUS_OWN
        assert labels <= told.get(metric, set())
    assert rule["annotations"].keys() == {"summary", "description"}
