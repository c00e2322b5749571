"""The models on offer: those that are named, and where `*` stands among a provider's its own list.

Knows neither conversations nor who asks. What is read of a provider is kept when it cannot be read again.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import chain
from types import TracebackType
from typing import Any, Self

from llmchat.completion import Completions
from llmchat.errors import ProviderError
from llmchat.provider import OWN_LIST, Provider
from llmchat.settings import Settings

MOST = 100
"""Models on offer."""
NAME_CHARACTERS = 200
REFRESH_SECONDS = 3600.0
REPEAT_SECONDS = 60.0
"""Between two looks at least, whatever fails and whoever asks for what is not there."""
PATIENCE_SECONDS = 1.0
"""After a start, for the first list: so long whoever comes waits for it."""
NOT_FOR_CHAT = re.compile(
    r"embed|whisper|\btts\b|-tts|dall-?e|moderation|audio|image|realtime|transcri|rerank|\bocr\b|\bsora|\bveo|\bclip\b|"
    r"diffusion|\bflux|imagen|deep-research|computer-use|codex|\b(o[13]|gpt-5[.\d]*)-pro|turbo-instruct|davinci|babbage|"
    r"\b(bge|gte|e5|all-minilm|aqa)\b|(llama|prompt|shield)-?guard|shieldgemma",
    re.IGNORECASE,
)
"""Names of models that do something else, or that are asked in another way."""
DATE = re.compile(r"\d{4}-\d\d-\d\d|[-@](20\d{6}|\d{4})$")
"""In a name that stands for one state of a model for ever: those come last."""

log = logging.getLogger(__name__)


class Models:
    """The models on offer, kept up to date for as long as the context is entered."""

    def __init__(self, settings: Settings, completions: Completions) -> None:
        self._settings = settings
        self._completions = completions
        self._named = [name for name in settings.openai_models if name != OWN_LIST]
        self._listing = [provider for provider in settings.asked if provider.has_own_list]
        self._found: dict[str, Sequence[str]] = {provider.name: () for provider in self._listing}
        self._told: set[str] = set()  # providers, in the log, since their list was read last
        self._wanted = asyncio.Event()  # somebody asked for a model that is not there
        self._first = asyncio.Event()  # the first look is over, or nobody waits for it any more
        self._watching: asyncio.Task[None] | None = None
        self.offered: Sequence[str] = self._all()
        """The default first."""

    async def __aenter__(self) -> Self:
        if self._listing:
            self._watching = asyncio.create_task(self._watch(), name="models")
            asyncio.get_running_loop().call_later(PATIENCE_SECONDS, self._first.set)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)

    @property
    def shaped(self) -> list[dict[str, Any]]:
        """Give what is on offer as the protocol has it."""
        label_of, sees = self._settings.label_of, self._settings.sees
        return [{"id": name, "label": label_of(name), "images": sees(name)} for name in self.offered]

    def offers(self, model: str) -> bool:
        """Tell whether a model is on offer; where it is not, the provider may have it by the next time."""
        found = model in self.offered
        if not found:
            self._wanted.set()
        return found

    async def settled(self) -> None:
        """Wait for the first list, until a moment after the start."""
        if self._watching is not None:
            await self._first.wait()

    async def refresh(self) -> None:
        """Read the providers' lists; what was read before stays where that fails, and the log says so once."""
        await asyncio.gather(*map(self._read, self._listing))

    async def _read(self, provider: Provider) -> None:
        try:
            found = chatting(await self._completions.models(provider.name))
        except ProviderError as error:
            self._tell(provider, error.detail)
            return
        if not found:
            self._tell(provider, "It names no model to chat with.")
            return
        self._told.discard(provider.name)
        self._found[provider.name] = found
        self.offered = self._all()

    def _tell(self, provider: Provider, reason: str) -> None:
        if provider.name not in self._told:
            log.warning(
                "The list of models of %s cannot be used. %s What was on offer stays.", provider.shown, reason
            )
        self._told.add(provider.name)

    def _all(self) -> Sequence[str]:
        named, found = self._named, list(chain.from_iterable(self._found.values()))
        if not named and (not found or self._settings.openai_model in found):
            named = [self._settings.openai_model]
        return tuple(dict.fromkeys([*named, *found]))[: max(MOST, len(named))]

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            looked = loop.time()
            try:
                await self.refresh()
            except Exception:
                log.exception("Looking for models failed.")
            self._first.set()
            self._wanted.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(REPEAT_SECONDS if self._told else REFRESH_SECONDS):
                    await self._wanted.wait()
            await asyncio.sleep(looked + REPEAT_SECONDS - loop.time())


def chatting(names: Iterable[str]) -> list[str]:
    """Choose the models to chat with, by their names: in order, those of one day for ever last."""
    good = {name for name in names if _is_name(name) and not NOT_FOR_CHAT.search(name)}
    return sorted(good, key=_rank)


def _is_name(name: str) -> bool:
    return 0 < len(name) <= NAME_CHARACTERS and name.isprintable() and " " not in name


def _rank(name: str) -> tuple[bool, list[tuple[int, str]], str]:
    """Order names as people do: numbers in them by what they count."""
    parts = re.findall(r"\d+|\D+", name.casefold())
    natural = [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]
    return DATE.search(name) is not None, natural, name
