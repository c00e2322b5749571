"""Messages -> deltas: asks the providers that have a model, in order, until one begins. Knows neither conversations nor the wire."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import product
from typing import Any

from llmchat.errors import PROVIDER_CODES, ModelMissing, ProviderError
from llmchat.model_server import ModelServer
from llmchat.model_stream import Deadlines, ModelStream
from llmchat.provider import Provider
from llmchat.provider_errors import falls_over
from llmchat.rests import Rests
from llmchat.turn import Delta

log = logging.getLogger(__name__)


class Completions:
    """All providers. Where several have a model, the next is asked if one fails before the first delta of an answer.

    `continuation` is how a model server is given the beginning of an answer to go on with: "flag", "last", "prefix" or
    "never"; "auto" asks it.

    Counted since the start, for whoever measures: `requests` by provider, its retries not among them; `errors` by
    provider and code; `fallbacks` by the provider that was left for the next.
    """

    def __init__(
        self, providers: Sequence[Provider], deadlines: Deadlines, *, continuation: str = "auto"
    ) -> None:
        self._deadlines = deadlines
        self._servers = {each.name: ModelServer(each, deadlines, continuation) for each in providers}
        self._rests = Rests(time.monotonic)
        names = list(self._servers)
        self.requests: Counter[str] = Counter(dict.fromkeys(names, 0))
        self.errors: Counter[tuple[str, str]] = Counter(dict.fromkeys(product(names, PROVIDER_CODES), 0))
        self.fallbacks: Counter[str] = Counter(dict.fromkeys(names, 0))

    async def close(self) -> None:
        """Close all connections to the model servers."""
        await asyncio.gather(*(server.close() for server in self._servers.values()))

    async def models(self, provider: str) -> list[str]:
        """List what a provider names. Raises ProviderError."""
        return await self._servers[provider].models()

    async def continues(self, model: str) -> bool:
        """Tell whether a provider goes on from a given beginning of an answer; those that rest only where all do."""
        having = self._having(model)
        awake = [server for server in having if not self._rests.until(server.name, model)]
        return bool(await _going_on(awake or having, model))

    def learn(self, model: str) -> None:
        """Have the provider that is asked first say how a model goes on, where that is not known and it may answer."""
        server = self._having(model)[0]
        if not self._rests.until(server.name, model):
            server.learn(model)

    @asynccontextmanager
    async def stream(
        self,
        model: str,
        messages: Sequence[Mapping[str, Any]],
        parameters: Mapping[str, Any],
        *,
        kept: str = "",
        every: Callable[[], float] = lambda: 0.0,
    ) -> AsyncIterator[AsyncGenerator[Delta]]:
        """Ask for an answer; leaving the context closes the connection to the model server.

        `kept` is its beginning, where there is one and the model goes on from it. What came since the last Delta is one;
        for so many seconds after each nothing is read, unless there is much. The deltas end in a Delta with a
        finish_reason, or raise ProviderError.
        """
        body = {
            "messages": messages,
            "stream": True,
            "stream_options": {"include_usage": True},
            **parameters,
        }
        deltas = self._deltas(model, body, kept, every)
        try:
            yield deltas
        finally:
            await deltas.aclose()

    async def _deltas(
        self, model: str, body: Mapping[str, Any], kept: str, every: Callable[[], float]
    ) -> AsyncGenerator[Delta]:
        server, stream = await self._begun(model, body, kept, every)
        delta = stream.first
        try:
            while delta is not None:
                yield delta
                delta = await stream.next()
        except ProviderError as error:
            self.errors[server.name, error.code] += 1
            log.warning("%s broke off an answer of %s: %s", server.shown, model, error.kind)
            raise
        finally:
            await stream.close()

    async def _begun(
        self, model: str, body: Mapping[str, Any], kept: str, every: Callable[[], float]
    ) -> tuple[ModelServer, ModelStream]:
        """Ask one provider after the other until one begins. Raises ProviderError.

        Together they have the time to the first delta. One that has others behind it has an even share of what is left
        of it, and no retry; those behind that rest are not counted, unless it rests itself.
        """
        now = asyncio.get_running_loop().time
        last = now() + self._deadlines.answer
        first = min(last, now() + self._deadlines.first)
        servers = self._having(model)
        if kept:
            servers = await _going_on(servers, model)
        errors = []
        while servers:
            server, *servers = servers
            rests = self._rests.until(server.name, model)
            behind = sum(1 for each in servers if rests or not self._rests.until(each.name, model))
            share = (first - now()) / (1 + behind)
            self._rests.try_again(server.name, model)
            self.requests[server.name] += 1
            try:
                stream = await server.ask(
                    model,
                    body,
                    kept,
                    first=now() + share,
                    last=last,
                    retry=not behind,
                    every=every,
                )
            except ProviderError as error:
                if now() >= first or not falls_over(error):
                    servers = []
                self._failed(server, model, error, servers)
                errors.append(error)
            else:
                self._rests.end(server.name, model)
                return server, stream
        raise _told(errors)

    def _failed(
        self, server: ModelServer, model: str, error: ProviderError, behind: Sequence[ModelServer]
    ) -> None:
        """Count and log that a provider failed; those `behind` are asked in its place."""
        self.errors[server.name, error.code] += 1
        if falls_over(error):
            self._rests.begin(server.name, model, error)
        else:
            self._rests.end(server.name, model)
        if behind:
            self.fallbacks[server.name] += 1
        instead = f"; {behind[0].shown} is asked" if behind else ""
        log.warning("%s failed with %s: %s%s", server.shown, model, error.kind, instead)

    def _having(self, model: str) -> list[ModelServer]:
        """Order who may have a model, those that rest last; where nobody is known to, first those with lists."""
        servers = self._servers.values()
        having = [server for server in servers if server.has(model)]
        having = having or sorted(servers, key=lambda server: not server.provider.has_own_list)
        return sorted(having, key=lambda server: self._rests.until(server.name, model))


async def _going_on(servers: Sequence[ModelServer], model: str) -> list[ModelServer]:
    """Choose those that go on from a given beginning of an answer."""
    found = await asyncio.gather(*(server.continues(model) for server in servers))
    return [server for server, continues in zip(servers, found, strict=True) if continues]


def _told(errors: Sequence[ProviderError]) -> ProviderError:
    """Choose what a person is told: what is wrong with the request, else the last failure that may pass."""
    if not errors:
        return ProviderError("provider_unavailable", "The model server cannot be reached.", retryable=True)
    if not falls_over(errors[-1]):
        return errors[-1]
    passing = (each for each in reversed(errors) if each.retryable and not isinstance(each, ModelMissing))
    return next(passing, errors[-1])
