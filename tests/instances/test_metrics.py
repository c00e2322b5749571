"""Numbers on `/metrics` of real instances are what happened: answers, stops, failures, deaths, outages, refusals."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable

import aiohttp
import pytest

from llmchat.tally import ENDINGS
from tests.conftest import Connect, StartInstance
from tests.fakes import Gate, Model
from tests.instances import Instance, Store, handshake
from tests.instances.talk import begin, send
from tests.scrape import TOKEN, Scrape
from tests.waiting import eventually

MODEL = "gpt-4o-mini"
BY_NUMBER = {"Host": "10.0.0.11:8000", "Authorization": f"Bearer {TOKEN}"}


async def scrape(instance: Instance) -> Scrape:
    """Ask as a Prometheus does that knows the instance by its number alone."""
    async with (
        aiohttp.ClientSession() as http,
        http.get(f"{instance.url}/metrics", headers=BY_NUMBER) as response,
    ):
        assert response.status == 200
        return Scrape.of(await response.text())


async def until(instance: Instance, true: Callable[[Scrape], bool]) -> Scrape:
    """Wait until something is told; what is counted may be told a moment after it was seen."""

    async def look() -> Scrape | None:
        found = await scrape(instance)
        return found if true(found) else None

    found = await eventually(look, seconds=40, what="it is told")
    assert found
    return found


async def test_numbers_are_what_happened(
    store: Store, start_instance: StartInstance, connect: Connect, model: Model
) -> None:
    shared = {"METRICS_TOKEN": TOKEN, "REDIS_PREFIX": f"metrics-{secrets.token_hex(4)}"}
    dying, other = await asyncio.gather(start_instance(store, **shared), start_instance(store, **shared))
    client = await connect(dying)
    ended = await client.prompt("Hi there")
    conversation = ended["conversation"]
    model.answer("Half of it", Gate())
    stopped = await send(client, conversation, "Stop here")
    await client.until(lambda: client.text(stopped) == "Half of it")
    assert (await scrape(dying)).value("llmchat_turns_running") == 1
    ended_so = await client.command("completion.stop", conversation=conversation, message=stopped)
    assert ended_so["finish_reason"] == "stopped"
    model.refuse(401)
    failed = await send(client, conversation, "Fail")
    assert (await client.ending(failed))["code"] == "provider_auth"
    assert await client.refused("conversation.open", conversation="nothing") == "not_found"
    await client.raw(b"no text")
    await client.event("error", code="bad_frame")

    told = await until(dying, lambda found: found.value("llmchat_turns_running") == 0)
    endings = {ending: told.value("llmchat_turns_ended_total", ending=ending) for ending in ENDINGS}
    assert endings == dict.fromkeys(ENDINGS, 0) | {"stop": 1, "stopped": 1, "failed": 1}
    assert told.value("llmchat_turns_begun_total", model=MODEL) == 3
    assert told.total("llmchat_provider_errors_total") == 1
    assert told.value("llmchat_provider_errors_total", code="provider_auth", model=MODEL) == 1
    assert told.value("llmchat_first_token_seconds_count", model=MODEL) == 2
    assert told.value("llmchat_answer_seconds_count", model=MODEL) == 3
    for kind in ("prompt", "completion"):
        counted = told.value("llmchat_tokens_total", kind=kind, counted_by="provider")
        assert counted == ended["usage"][f"{kind}_tokens"]
        assert told.value("llmchat_tokens_total", kind=kind, counted_by="estimate") > 0
    assert told.value("llmchat_websockets_open") == told.value("llmchat_websockets_opened_total") == 1
    assert told.value("llmchat_commands_total", type="message.send") == 3
    assert told.value("llmchat_commands_total", type="completion.stop") == 1
    assert told.total("llmchat_command_errors_total") == 2
    assert told.value("llmchat_command_errors_total", code="not_found") == 1
    assert told.value("llmchat_command_errors_total", code="bad_frame") == 1
    assert told.value("llmchat_received_total", kind="prompts") == 3
    assert told.total("llmchat_turns_taken_over_total") == 0
    assert told.value("llmchat_redis_up") == told.value("llmchat_redis_subscribed") == 1
    assert told.value("llmchat_redis_history_at_risk") == 0
    assert told.value("llmchat_redis_round_trip_seconds_count") > 0
    assert told.value("llmchat_build_info", instance_id=client.seen[0]["instance"]) == 1

    model.answer("Half of it", Gate())
    lost = await send(client, conversation, "Die")
    await client.until(lambda: client.text(lost) == "Half of it")
    assert (await scrape(other)).value("llmchat_turns_open") == 1
    await dying.kill()
    await client.closed()
    await client.reconnect(other)
    await client.until(lambda: client.mirror(conversation).messages[lost].state == "done", seconds=40)
    told = await until(other, lambda found: found.value("llmchat_turns_open") == 0)
    assert told.total("llmchat_turns_taken_over_total") == 1
    assert told.value("llmchat_turns_taken_over_total", kind="lost") == 1
    assert told.value("llmchat_turns_ended_total", ending="stop") == 1
    assert told.value("llmchat_received_total", kind="prompts") == 0
    await client.drop()
    await until(other, lambda found: found.value("llmchat_websockets_closed_total", code="1006") == 1)


async def test_turn_that_is_given_away_counts_as_such(
    store: Store, start_instance: StartInstance, connect: Connect, model: Model
) -> None:
    shared = {"METRICS_TOKEN": TOKEN, "REDIS_PREFIX": f"metrics-{secrets.token_hex(4)}"}
    leaving, other = await asyncio.gather(start_instance(store, **shared), start_instance(store, **shared))
    client = await connect(leaving)
    conversation = await begin(client)
    model.answer("Half", Gate())
    answer = await send(client, conversation, "Go on elsewhere")
    await client.until(lambda: client.text(answer) == "Half")
    assert await leaving.stop() == 0
    told = await until(other, lambda found: found.total("llmchat_turns_ended_total", ending="stop") == 1)
    assert told.total("llmchat_turns_taken_over_total") == 1
    assert told.value("llmchat_turns_taken_over_total", kind="handed") == 1


async def test_what_is_refused_counts(store: Store, start_instance: StartInstance, connect: Connect) -> None:
    instance = await start_instance(
        store,
        METRICS_TOKEN=TOKEN,
        REDIS_PREFIX=f"metrics-{secrets.token_hex(4)}",
        PROMPTS_PER_MINUTE="1",
        CONNECTIONS_PER_MINUTE="1",
    )
    client = await connect(instance)
    await begin(client)
    assert await client.refused("message.send", text="And again") == "rate_limited"
    cookie = "; ".join(f"{each.key}={each.value}" for each in client.jar)
    async with handshake(instance, cookie=cookie) as answer:
        assert answer.status == 429
    told = await scrape(instance)
    assert told.value("llmchat_rate_limited_total", kind="prompts") == 1
    assert told.value("llmchat_rate_limited_total", kind="connections") == 1
    assert told.value("llmchat_received_total", kind="prompts") == 2
    assert told.value("llmchat_websockets_refused_total", reason="rate_limited") == 1
    assert told.value("llmchat_http_responses_total", status="429") == 1


async def test_outage_of_redis_is_told_while_it_lasts(
    fresh_store: Store, start_instance: StartInstance, connect: Connect
) -> None:
    instance = await start_instance(fresh_store, METRICS_TOKEN=TOKEN)
    client = await connect(instance)
    before = await scrape(instance)
    assert before.value("llmchat_redis_gaps_total") == before.value("llmchat_lapses_total") == 0
    await fresh_store.kill()
    away = await until(
        instance,
        lambda found: (
            found.value("llmchat_redis_up") == 0
            and found.value("llmchat_redis_subscribed") == 0
            and found.value("llmchat_redis_gaps_total") == 1
        ),
    )
    assert "llmchat_turns_open" not in away.families
    await fresh_store.start()
    await client.event("session.store", available=True)
    back = await until(
        instance,
        lambda found: found.value("llmchat_redis_up") == 1 and found.value("llmchat_redis_subscribed") == 1,
    )
    assert back.value("llmchat_redis_gaps_total") == 1
    assert back.value("llmchat_lapses_total") >= 2  # the client's channel, and that of the turns


@pytest.mark.long
async def test_token_decides_also_over_a_real_server(store: Store, start_instance: StartInstance) -> None:
    instance = await start_instance(
        store, METRICS_TOKEN=TOKEN, REDIS_PREFIX=f"metrics-{secrets.token_hex(4)}"
    )
    asked = [({}, 401), ({"Authorization": "Bearer another-of-the-tests"}, 401), (BY_NUMBER, 200)]
    for headers, status in asked:
        async with (
            aiohttp.ClientSession() as http,
            http.get(f"{instance.url}/metrics", headers=headers) as response,
            http.head(f"{instance.url}/metrics", headers=headers) as head,
        ):
            assert response.status == head.status == status
            assert await head.read() == b""
            assert ("llmchat_build_info" in await response.text()) == (status == 200)
    assert TOKEN not in instance.text


async def test_instance_without_a_token_has_no_such_address(instances: tuple[Instance, Instance]) -> None:
    async with aiohttp.ClientSession() as http:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with http.get(f"{instances[0].url}/metrics", headers=headers) as response:
            assert response.status == 404
