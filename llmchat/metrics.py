"""What an instance tells of itself to a Prometheus: the rooms' own counts, read when it asks. Counts nothing of the chat.

Labels are of small closed sets (a model on offer, a code, a kind): never a session, a conversation or an address.
docs/metrics.md has a row for each.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import platform
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from math import inf
from typing import Any, Self

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from llmchat import __version__
from llmchat.answering import Answering
from llmchat.blueprints.rooms import Rooms
from llmchat.completion import Completions
from llmchat.durations import Durations
from llmchat.errors import Unavailable
from llmchat.folds import Folds
from llmchat.health import Look
from llmchat.history import History
from llmchat.pressure import Pressure
from llmchat.searches import Searches
from llmchat.spending import Spending
from llmchat.titles import Titles

LOOK_SECONDS = 0.5
"""For what Redis is asked beside its health: the rest is told without it."""
LEVELS = "warning", "error", "critical"

Counts = Mapping[Any, int]
"""By label, or by a tuple of labels."""


class Metrics(Collector):
    """For as long as its context is entered it also counts what is logged, and how late the event loop is."""

    def __init__(
        self,
        token: str,
        rooms: Rooms,
        redis: Any,
        history: History,
        titles: Titles,
        folds: Folds,
        searches: Searches,
        completions: Completions,
        answering: Answering,
        spending: Spending,
        pressure: Pressure,
        responses: Counter[int],
    ) -> None:
        """`responses` are counted by HTTP status."""
        self._token = token
        self._rooms = rooms
        self._redis = redis
        self._history = history
        self._titles = titles
        self._folds = folds
        self._searches = searches
        self._completions = completions
        self._answering = answering
        self._spending = spending
        self._pressure = pressure
        self._responses = responses
        self._lines = _Lines(logging.WARNING)
        self._look: Look | None = None
        self._open_turns: int | None = None
        self._spent: tuple[int, int] | None = None
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)
        self._leaving = ExitStack()

    async def __aenter__(self) -> Self:
        root = logging.getLogger()
        root.addHandler(self._lines)
        self._leaving.callback(root.removeHandler, self._lines)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._leaving.close()

    def opens_to(self, authorization: str) -> bool:
        """Tell whether an Authorization header has the token."""
        scheme, _, given = authorization.partition(" ")
        same = hmac.compare_digest(given.strip().encode(errors="replace"), self._token.encode())
        return scheme.lower() == "bearer" and same

    async def told(self, accept: str) -> tuple[bytes, str]:
        """Give all there is in a form that an Accept header takes, and the form's Content-Type."""
        self._look = await self._rooms.health.latest()
        self._open_turns = self._spent = None
        if self._look is not None:
            with suppress(Unavailable, TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    self._open_turns = await self._history.open_turns()
                    self._spent = await self._spending.today()
        encode, kind = choose_encoder(accept)
        return encode(self._registry), kind

    def collect(self) -> Iterator[Metric]:
        """Give every metric as it is now."""
        yield from self._of_instance()
        yield from self._of_connections()
        yield from self._of_turns()
        yield from self._of_channels()
        yield from self._of_redis()

    def _of_instance(self) -> Iterator[Metric]:
        told = {
            "version": __version__,
            "python": platform.python_version(),
            "instance_id": self._rooms.instance,
        }
        yield InfoMetricFamily("llmchat_build", "What runs, and its id in the log.", told)
        yield _gauge("llmchat_draining", "1 while the instance stops.", self._rooms.draining)
        yield _durations("llmchat_loop_lag_seconds", "How late the event loop is.", {(): self._pressure.late})
        yield _gauge(
            "llmchat_busy_ratio", "Share of the time that the event loop is at work.", self._pressure.busy
        )
        yield _gauge("llmchat_pressed", "1 while new work is put off.", self._pressure.high)
        yield _counter(
            "llmchat_log_lines_total", "Lines of the log, of warnings and worse.", self._lines.counts, "level"
        )
        waiting = {
            "redis": self._redis.waiting,
            "searches": self._searches.waiting,
            "titles": self._titles.running,
            "folds": self._folds.running,
        }
        yield _gauges(
            "llmchat_queue_depth", "What waits, or is worked off in the background.", waiting, "queue"
        )

    def _of_connections(self) -> Iterator[Metric]:
        rooms, traffic, limits = self._rooms, self._rooms.traffic, self._rooms.limits
        yield _gauge("llmchat_websockets_open", "Websockets that are open.", rooms.connections)
        yield _counter("llmchat_websockets_opened_total", "Websockets let in.", {(): rooms.opened})
        yield _counter(
            "llmchat_websockets_refused_total", "Websockets not let in.", rooms.refused.counts, "reason"
        )
        yield _counter("llmchat_websockets_closed_total", "Websockets that ended.", rooms.closed, "code")
        yield _counter("llmchat_commands_total", "Commands of clients.", traffic.commands, "type")
        yield _counter("llmchat_command_errors_total", "Errors told to clients.", traffic.errors, "code")
        yield _gauge("llmchat_backlog_bytes", "Memory of frames that wait for slow readers.", traffic.backlog)
        yield _counter("llmchat_http_responses_total", "Responses over HTTP.", self._responses, "status")
        yield _counter(
            "llmchat_received_total", "What limits count: asked for, also in vain.", limits.taken, "kind"
        )
        yield _counter("llmchat_rate_limited_total", "Refused by a limit a minute.", limits.refused, "kind")

    def _of_turns(self) -> Iterator[Metric]:
        tally = self._rooms.turns.tally
        yield _gauge("llmchat_turns_running", "Answers that are made here.", self._rooms.turns.running)
        if self._open_turns is not None:
            yield _gauge("llmchat_turns_open", "Answers due, of all instances.", self._open_turns)
        yield _counter("llmchat_turns_begun_total", "Attempts at answers.", tally.begun, "model")
        yield _counter("llmchat_turns_ended_total", "Answers that ended.", tally.ended, "model", "ending")
        yield _counter(
            "llmchat_turns_taken_over_total", "Turns of other instances taken over.", tally.taken_over, "kind"
        )
        yield _counter(
            "llmchat_turns_fenced_total", "Turns that another instance took from here.", {(): tally.fenced}
        )
        yield _durations(
            "llmchat_first_token_seconds",
            "From an attempt's beginning to its first word.",
            tally.first,
            "model",
        )
        yield _durations(
            "llmchat_answer_seconds", "From an attempt's beginning to its end.", tally.answers, "model"
        )
        yield _counter(
            "llmchat_tokens_total", "Tokens of answers.", tally.tokens, "model", "kind", "counted_by"
        )
        yield _counter(
            "llmchat_provider_errors_total", "Errors of the model server.", tally.errors, "model", "code"
        )
        yield _counter(
            "llmchat_turns_overloaded_total",
            "Prompts put off, for there was too much to do.",
            {(): self._rooms.turns.overloaded},
        )
        yield from self._of_providers()
        yield from self._of_budgets()

    def _of_providers(self) -> Iterator[Metric]:
        asked = self._completions
        yield _counter("llmchat_provider_requests_total", "Requests.", asked.requests, "provider")
        yield _counter(
            "llmchat_provider_failures_total", "Requests that failed.", asked.errors, "provider", "code"
        )
        yield _counter(
            "llmchat_provider_fallbacks_total", "Providers left for the next.", asked.fallbacks, "provider"
        )

    def _of_budgets(self) -> Iterator[Metric]:
        yield _counter(
            "llmchat_at_once_refused_total",
            "Prompts refused, for too many chats are answered.",
            {(): self._answering.refused},
        )
        yield _counter(
            "llmchat_quota_refused_total", "Refused for the day's tokens.", self._spending.refused, "whose"
        )
        if self._spent is not None:
            used, there_are = self._spent
            yield _gauge("llmchat_day_tokens_used", "Of all, today.", used)
            yield _gauge("llmchat_day_tokens", "That all may use a day.", there_are)

    def _of_channels(self) -> Iterator[Metric]:
        broadcaster = self._rooms.broadcaster
        depths = broadcaster.depths
        yield _gauge("llmchat_channels", "Channels of the channel layer.", len(depths))
        yield _gauge("llmchat_inbox_messages", "Messages that wait in all channels.", sum(depths))
        yield _gauge("llmchat_inbox_messages_max", "Messages in the fullest.", max(depths, default=0))
        yield _counter(
            "llmchat_lapses_total", "Channels that may have missed messages.", {(): broadcaster.lapses}
        )
        yield _counter(
            "llmchat_overflows_total", "Lapses because an inbox was full.", {(): broadcaster.overflows}
        )

    def _of_redis(self) -> Iterator[Metric]:
        broadcaster = self._rooms.broadcaster
        yield _gauge("llmchat_redis_up", "1 where Redis can be written.", self._look is not None)
        if self._look is not None:
            yield _gauge(
                "llmchat_redis_history_at_risk", "1 where it may lose history.", bool(self._look.risks)
            )
        yield _gauge(
            "llmchat_redis_subscribed", "1 while all subscriptions are carried.", broadcaster.ready.is_set()
        )
        yield _counter(
            "llmchat_redis_gaps_total", "Losses of the subscriber connection.", {(): broadcaster.gaps}
        )
        yield _durations(
            "llmchat_redis_round_trip_seconds", "Pipelines, there and back.", {(): self._redis.trips}
        )


class _Lines(logging.Handler):
    """Counts what is logged."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.counts = Counter(dict.fromkeys(LEVELS, 0))

    def emit(self, record: logging.LogRecord) -> None:
        """Count one."""
        self.counts[record.levelname.lower()] += 1


def _gauge(name: str, told: str, value: float) -> Metric:
    return GaugeMetricFamily(name, told, float(value))


def _gauges(name: str, told: str, values: Counts, label: str) -> Metric:
    family = GaugeMetricFamily(name, told, labels=[label])
    for key, value in values.items():
        family.add_metric(_labels(key), value)
    return family


def _counter(name: str, told: str, counts: Counts, *labels: str) -> Metric:
    family = CounterMetricFamily(name, told, labels=labels)
    for key, count in counts.items():
        family.add_metric(_labels(key), count)
    return family


def _durations(name: str, told: str, found: Mapping[Any, Durations], *labels: str) -> Metric:
    family = HistogramMetricFamily(name, told, labels=labels)
    for key, durations in found.items():
        buckets = [(str(bound) if bound < inf else "+Inf", count) for bound, count in durations.up_to]
        family.add_metric(_labels(key), buckets, durations.seconds)
    return family


def _labels(key: Any) -> Sequence[str]:
    return [str(each) for each in (key if isinstance(key, tuple) else (key,))]
