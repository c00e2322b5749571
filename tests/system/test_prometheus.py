"""Debian's promtool on what a Prometheus gets of us: the rules, the way to scrape, and `/metrics` itself."""

from __future__ import annotations

import asyncio
import re
import secrets
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from tests.conftest import Connect, StartInstance
from tests.fakes import Model
from tests.instances import Store
from tests.instances.instance import ROOT
from tests.scrape import TOKEN
from tests.waiting import within

DOCUMENT = (ROOT / "docs" / "metrics.md").read_text()


WELL = {
    "up": "1x60",
    "llmchat_build_info": "1x60",
    "llmchat_redis_up": "1x60",
    "llmchat_redis_subscribed": "1x60",
    "llmchat_redis_history_at_risk": "0x60",
    "llmchat_turns_begun_total{model='m'}": "0+60x60",
    "llmchat_turns_ended_total{model='m', ending='stop'}": "0+60x60",
    "llmchat_turns_ended_total{model='m', ending='failed'}": "0+1x60",
    "llmchat_provider_errors_total{model='m', code='context_too_long'}": "0+60x60",
    "llmchat_turns_taken_over_total{kind='handed'}": "0+60x60",
    "llmchat_turns_open": "12x60",
    "llmchat_turns_running": "12x60",
    "llmchat_log_lines_total{level='error'}": "7x60",
    "llmchat_log_lines_total{level='warning'}": "0+60x60",
    "llmchat_rate_limited_total{kind='prompts'}": "0+1x60",
    "llmchat_first_token_seconds_bucket{model='m', le='8.0'}": "0+60x60",
    "llmchat_first_token_seconds_bucket{model='m', le='+Inf'}": "0+60x60",
    "process_open_fds": "100x60",
    "process_max_fds": "1000x60",
    "process_start_time_seconds": "5x60",
}
"""A service of one instance, minute by minute, that nobody has to look after."""
ILL = {
    "LlmchatGone": {"llmchat_build_info": "_x60"},
    "LlmchatInstanceDown": {"up": "0x60"},
    "LlmchatRestarts": {"process_start_time_seconds": "0+60x60"},
    "LlmchatBugs": {"llmchat_log_lines_total{level='error'}": "0+1x60"},
    "LlmchatRedisAway": {"llmchat_redis_up": "0x60", "llmchat_redis_subscribed": "0x60"},
    "LlmchatRedisNotHeard": {"llmchat_redis_subscribed": "0x60"},
    "LlmchatRedisGaps": {"llmchat_redis_gaps_total": "0+1x60"},
    "LlmchatRedisSlow": {
        "llmchat_redis_round_trip_seconds_bucket{le='0.1'}": "0+1x60",
        "llmchat_redis_round_trip_seconds_bucket{le='0.25'}": "0+60x60",
        "llmchat_redis_round_trip_seconds_bucket{le='+Inf'}": "0+60x60",
    },
    "LlmchatHistoryAtRisk": {"llmchat_redis_history_at_risk": "1x60"},
    "LlmchatProviderKey": {"llmchat_provider_errors_total{model='m', code='provider_auth'}": "0+1x60"},
    "LlmchatProviderErrors": {"llmchat_provider_errors_total{model='m', code='provider_timeout'}": "0+10x60"},
    "LlmchatFallbacks": {"llmchat_provider_fallbacks_total{provider='openai'}": "0+5x60"},
    "LlmchatFirstTokenSlow": {
        "llmchat_first_token_seconds_bucket{model='m', le='8.0'}": "0+1x60",
        "llmchat_first_token_seconds_bucket{model='m', le='13.0'}": "0+50x60",
    },
    "LlmchatAnswersFail": {"llmchat_turns_ended_total{model='m', ending='interrupted'}": "0+10x60"},
    "LlmchatTakeovers": {"llmchat_turns_taken_over_total{kind='lost'}": "0+1x60"},
    "LlmchatTurnsWait": {"llmchat_turns_open": "30x60"},
    "LlmchatOverflows": {"llmchat_overflows_total": "0+5x60"},
    "LlmchatSlowReaders": {"llmchat_backlog_bytes": "200000000x60"},
    "LlmchatRefuses": {"llmchat_rate_limited_total{kind='prompts'}": "0+20x60"},
    "LlmchatBudget": {"llmchat_day_tokens_used": "950x60", "llmchat_day_tokens": "1000x60"},
    "LlmchatOverloaded": {"llmchat_turns_overloaded_total": "0+50x60"},
    "LlmchatGuesses": {"llmchat_rate_limited_total{kind='sign_ins'}": "0+5x60"},
    "LlmchatFull": {"llmchat_websockets_refused_total{reason='full'}": "0+1x60"},
    "LlmchatLoopLag": {
        "llmchat_loop_lag_seconds_bucket{le='0.25'}": "0+1x60",
        "llmchat_loop_lag_seconds_bucket{le='0.5'}": "0+60x60",
        "llmchat_loop_lag_seconds_bucket{le='+Inf'}": "0+60x60",
    },
    "LlmchatMemory": {"process_resident_memory_bytes": "2000000000x60"},
    "LlmchatOpenFiles": {"process_open_fds": "900x60"},
}
"""What else is told where an alert, and no other, is to fire."""


async def promtool(*words: str, read: bytes = b"") -> str:
    """Have it check something, and give what it says; fails where that is a complaint."""
    running = await asyncio.create_subprocess_exec(
        *("promtool", *words),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with within(60, "promtool has checked it"):
        said, _ = await running.communicate(read)
    assert running.returncode == 0, said.decode()
    return said.decode()


async def test_rules_are_rules() -> None:
    rules = ROOT / "docs" / "alerts.yml"
    said = await promtool("check", "rules", str(rules))
    assert f"{rules.read_text().count('- alert:')} rules found" in said


async def test_every_alert_fires_when_it_is_to_and_only_then(tmp_path: Path) -> None:
    rules = ROOT / "docs" / "alerts.yml"
    assert set(ILL) == set(re.findall(r"- alert: (\w+)", rules.read_text()))
    file = tmp_path / "tests.yml"
    file.write_text(
        yaml.safe_dump(
            {
                "rule_files": [str(rules)],
                "tests": [told([]), *(told([alert]) for alert in ILL)],
            }
        )
    )
    assert "SUCCESS" in await promtool("test", "rules", str(file))


def told(alerts: list[str]) -> dict[str, Any]:
    """Say to promtool what is told, and which alerts fire then."""
    series = dict(WELL)
    for alert in alerts:
        series |= ILL[alert]
    return {
        "name": "".join(alerts) or "well",
        "interval": "1m",
        "input_series": [
            {"series": with_instance(name), "values": values} for name, values in series.items()
        ],
        "promql_expr_test": [
            {
                "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                "eval_time": "45m",
                "exp_samples": [{"labels": f'{{alertname="{alert}"}}', "value": 1} for alert in alerts],
            }
        ],
    }


def with_instance(series: str) -> str:
    """Add the labels that a scrape adds."""
    name, _, labels = series.rstrip("}").partition("{")
    return f"{name}{{job='llmchat', instance='10.0.0.11:8000'{labels and ', '}{labels}}}"


async def test_way_to_scrape_in_the_document_is_a_configuration(tmp_path: Path) -> None:
    whole, names = re.findall(r"```yaml\n(.*?)```", DOCUMENT, re.DOTALL)
    (tmp_path / "alerts.yml").write_bytes((ROOT / "docs" / "alerts.yml").read_bytes())
    file = tmp_path / "prometheus.yml"
    for text in (whole, whole + names):
        file.write_text(text)
        assert "SUCCESS" in await promtool("check", "config", "--syntax-only", str(file))


async def test_what_is_told_is_as_prometheus_likes_it(
    store: Store, start_instance: StartInstance, connect: Connect, model: Model
) -> None:
    instance = await start_instance(
        store, METRICS_TOKEN=TOKEN, REDIS_PREFIX=f"prometheus-{secrets.token_hex(4)}"
    )
    client = await connect(instance)
    await client.prompt("Hi")
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with (
        aiohttp.ClientSession() as http,
        http.get(f"{instance.url}/metrics", headers=headers) as response,
    ):
        text = await response.read()
    assert await promtool("check", "metrics", read=text) == ""
