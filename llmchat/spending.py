"""The tokens of a day: how many a session, an address and all together may use, over all instances.

They are taken before they are used, and what was taken in vain is given back. Knows neither messages nor models.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from redis.asyncio import Redis

from llmchat.errors import QuotaSpent, Unavailable
from llmchat.keys import Keys
from llmchat.redis_client import available
from llmchat.script import Script
from llmchat.variables import ADDRESS_SHARE, PIECE

KEPT_SECONDS = 2 * 86_400
"""Of a day's count: an answer that is begun in it may end after it."""
ALL = "all"
KINDS = "session", "address", ALL


@dataclass(frozen=True, slots=True)
class Purse:
    """Who pays: the name of a count, how much there may be of it on a day, and whose that is, for a person."""

    who: str
    most: int
    whose: str
    kind: str
    """For who counts: one of KINDS."""


class Spending:
    """Opens accounts. Where no budget is set, everything is granted, and nothing written."""

    def __init__(
        self,
        redis: Redis,
        keys: Keys,
        *,
        tokens: int,
        all_tokens: int,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """So many `tokens` a day of a session, and ADDRESS_SHARE times as many of a network; 0 is no limit."""
        self._keys = keys
        self._tokens = tokens
        self._all_tokens = all_tokens
        self._now = now
        self._spend = Script(redis, "spend")
        self._redis = redis
        self.refused = Counter(dict.fromkeys(KINDS, 0))
        """How often there was too little left, by the kind of whose."""

    @property
    def limited(self) -> bool:
        """Whether there is any budget."""
        return bool(self._tokens or self._all_tokens)

    async def today(self) -> tuple[int, int] | None:
        """Tell what all have used today, and how much there is; None without a budget of all. Raises Unavailable."""
        if not self._all_tokens:
            return None
        async with available():
            used = await self._redis.get(self._keys.spent(self._now().date().isoformat(), ALL))
        return int(used or 0), self._all_tokens

    def account(self, session: str, network: str) -> Account:
        """Open the account of one request to a model, of today; `network` is "" where it is not known."""
        purses = []
        if self._tokens:
            purses.append(Purse(session, self._tokens, "Your", "session"))
            if network:
                purses.append(Purse(network, self._tokens * ADDRESS_SHARE, "Your network's", "address"))
        if self._all_tokens:
            purses.append(Purse(ALL, self._all_tokens, "This server's", ALL))
        return Account(self, self._now().date().isoformat(), purses)

    @asynccontextmanager
    async def paying(self, session: str, tokens: int, network: str = "") -> AsyncIterator[Account]:
        """Pay for a request of a session's that sends so many tokens, and is nobody's wish. Raises QuotaSpent."""
        account = self.account(session, network)
        await account.open(tokens)
        in_vain = True
        try:
            yield account
            in_vain = False
        finally:
            with suppress(Unavailable):
                await account.close(in_vain=in_vain)

    def spent(self, whose: str) -> QuotaSpent:
        """Make the error that tells whose tokens are used up, and until when."""
        now = self._now()
        tomorrow = datetime.combine(now.date() + timedelta(days=1), datetime.min.time(), UTC)
        return QuotaSpent(whose, max(1, math.ceil((tomorrow - now).total_seconds())))

    async def take(self, day: str, purses: Sequence[Purse], tokens: int) -> None:
        """Take tokens of all purses, or of none. Raises QuotaSpent, and Unavailable."""
        left = await self._spent(day, [(purse, tokens, purse.most) for purse in purses])
        lacking = [purse for purse, had in zip(purses, left, strict=True) if not had]
        if lacking:
            had = [purse for purse in purses if purse not in lacking]
            await self._spent(day, [(purse, -tokens, -1) for purse in had])
            self.refused[lacking[0].kind] += 1
            raise self.spent(lacking[0].whose)

    async def correct(self, day: str, purses: Sequence[Purse], tokens: int) -> None:
        """Take what was used already, whatever is left; give back where it is less than none. Raises Unavailable."""
        await self._spent(day, [(purse, tokens, -1) for purse in purses])

    async def _spent(self, day: str, wanted: Sequence[tuple[Purse, int, int]]) -> list[int]:
        # Each count is its own step, for they may be in several slots: what one refuses is given back to the others.
        calls = [
            ([self._keys.spent(day, purse.who)], [tokens, most, KEPT_SECONDS])
            for purse, tokens, most in wanted
        ]
        return await self._spend.each(calls) if calls else []


class Account:
    """What one request to a model uses, in tokens.

    A repeat of what Redis did, whose answer was lost, counts twice. While Redis is away, all is granted, and told it at
    the end, if it is back then.
    """

    def __init__(self, spending: Spending, day: str, purses: Sequence[Purse]) -> None:
        self._spending = spending
        self._day = day
        self._purses = purses
        self._taken = 0
        self._granted = 0  # what was taken, and what Redis was not there for
        self._sent = 0
        self._said = 0
        self._counted = 0  # by the provider

    @property
    def used(self) -> int:
        """Tokens, as the provider counts, else as estimated."""
        return self._counted or self._sent + self._said

    async def open(self, tokens: int) -> None:
        """Take what is sent, and the first piece of an answer. Raises QuotaSpent."""
        self._sent = tokens
        with suppress(Unavailable):
            await self._take(tokens + PIECE)
        self._granted = tokens + PIECE

    async def check(self, tokens: int) -> None:
        """Take as much and give it back: raises QuotaSpent where it cannot be had now, and Unavailable."""
        await self._take(tokens + PIECE)
        await self.close(in_vain=True)

    async def covers(self, said: int, counted: int | None) -> bool:
        """Add so many tokens that were said; False where there are no more of them.

        `counted` are all of the request, where the provider tells them.
        """
        self._said += said
        self._counted = self._counted if counted is None else counted
        try:
            while max(self._sent + self._said, self._counted) > self._granted:
                with suppress(Unavailable):
                    await self._take(PIECE)
                self._granted += PIECE
        except QuotaSpent:
            return False
        return True

    async def close(self, *, in_vain: bool = False) -> None:
        """Give back what was not used, and take what was used beyond; `in_vain`: all, if nothing was said.

        Raises Unavailable: then nothing more is to be done, for it may have been done.
        """
        used = 0 if in_vain and not (self._said or self._counted) else self.used
        difference, self._taken = used - self._taken, used
        if self._purses and difference:
            await self._spending.correct(self._day, self._purses, difference)

    async def _take(self, tokens: int) -> None:
        if self._purses:
            await self._spending.take(self._day, self._purses, tokens)
        self._taken += tokens
