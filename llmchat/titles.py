"""Titles of conversations, found by a model in the background. Knows no turn, and no answer waits for it.

What is lost with its instance is a title: the next answer asks for another, TRIES of them at most.
"""

from __future__ import annotations

import asyncio
import logging
from types import TracebackType
from typing import Any, Self

from redis.asyncio import Redis

from llmchat.completion import Completions
from llmchat.conversation import estimated_tokens
from llmchat.errors import ProviderError, QuotaSpent, RequestRefused, Unavailable
from llmchat.keys import Keys
from llmchat.listing import Listing
from llmchat.script import Script
from llmchat.settings import Settings
from llmchat.spending import Account, Spending
from llmchat.title import question, title_of

BY_PERSON = "person"
"""As `titled` of a conversation: this title stays. A model's is "auto"; where neither is, it is the first words."""
AT_ONCE = 4
"""Titles that an instance looks for; a further one is left to the chat's next answer."""
TRIES = 2
"""Of one conversation, each after another answer."""
TITLE_SECONDS = 20.0
"""For one title."""
PARAMETERS = {"max_tokens": 400, "temperature": 0.2}
"""A title takes ten tokens; what a model thinks before it counts, too."""
SAID_CHARACTERS = 2000
"""Of what a model says; then it is no title that is coming."""

log = logging.getLogger(__name__)


class Titles:
    """All titles that this instance looks for, for as long as its context is entered."""

    def __init__(
        self,
        settings: Settings,
        redis: Redis,
        keys: Keys,
        completions: Completions,
        listing: Listing,
        spending: Spending,
    ) -> None:
        self._settings = settings
        self._keys = keys
        self._completions = completions
        self._listing = listing
        self._spending = spending
        self._try = Script(redis, "try_title")
        self._set = Script(redis, "title")
        self._running: dict[str, asyncio.Task[None]] = {}  # conversation -> the look for its title
        self._plain: set[str] = set()  # models that refuse PARAMETERS

    @property
    def running(self) -> int:
        """How many titles are looked for."""
        return len(self._running)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Look for no title any more."""
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def want(
        self, session: str, conversation: str, model: str, prompt: str, answer: str, *, network: str = ""
    ) -> None:
        """Have a conversation named that begins so, where it has no name yet and not too many are looked for.

        The session pays, and the network, where there is one.
        """
        by = self._settings.titled_by(model)
        if by is None or conversation in self._running or len(self._running) >= AT_ONCE:
            return
        task = asyncio.create_task(
            self._find(session, network, conversation, by, question(prompt, answer)),
            name=f"title {conversation}",
        )
        self._running[conversation] = task
        task.add_done_callback(lambda _: self._running.pop(conversation))

    async def _find(
        self, session: str, network: str, conversation: str, model: str, asked: list[dict[str, str]]
    ) -> None:
        key = self._keys.of_conversation(conversation).conversation
        try:
            if not await self._try([key], session, TRIES):
                return
            tokens = sum(estimated_tokens(message["content"]) for message in asked)
            async with (
                asyncio.timeout(TITLE_SECONDS),
                self._spending.paying(session, tokens, network) as account,
            ):
                title = title_of(await self._ask(model, asked, account))
            if title and await self._set([key], session, title):
                await self._listing.updated(session, conversation)
        except ProviderError as error:
            log.warning("A title could not be found: %s", error.code)
        except TimeoutError:
            log.warning("A title could not be found: the model server took too long.")
        except QuotaSpent:
            log.debug("There are no tokens for a title today.")
        except Unavailable:
            log.debug("Redis is away; the next answer asks for a title.")
        except Exception:
            log.exception("A title could not be found.")

    async def _ask(self, model: str, asked: list[dict[str, str]], account: Account) -> str:
        """Have a model say a title; one that takes no limits is asked without. Raises ProviderError."""
        if model not in self._plain:
            try:
                return await self._said(model, asked, PARAMETERS, account)
            except RequestRefused:
                self._plain.add(model)
        return await self._said(model, asked, {}, account)

    async def _said(
        self, model: str, asked: list[dict[str, str]], parameters: dict[str, Any], account: Account
    ) -> str:
        text, reasoned = "", 0
        async with self._completions.stream(model, asked, parameters) as deltas:
            async for delta in deltas:
                await account.covers(delta.tokens, delta.counted)
                text += delta.text
                reasoned += len(delta.reasoning)
                if len(text) + reasoned > SAID_CHARACTERS:
                    break
        return text
