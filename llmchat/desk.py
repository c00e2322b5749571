"""What an operator asks for at the command line: of one session's chats, and of the whole. Knows no arguments."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection
from contextlib import aclosing
from typing import TYPE_CHECKING, BinaryIO

from llmchat.completion import Completions
from llmchat.errors import ProviderError, StartError, Unavailable, Unreadable
from llmchat.health import Health
from llmchat.intake import Intake, Report
from llmchat.models import chatting
from llmchat.provider import OPENAI, OWN_LIST, Provider
from llmchat.retention import Lowered, Retention
from llmchat.settings import Settings
from llmchat.takeout import Takeout

if TYPE_CHECKING:
    from llmchat.issuer import Issuer  # 12 MB, which only who has one is to carry

OWN_MODEL = (
    "No model server is configured: `run` starts a small model of its own, which is not looked at here"
)
AWAY = "Redis cannot be reached, or is full: look at it with `python -m llmchat check-config`."
NO_CHATS = "This session has no chats, at least none that is not temporary: nothing was written."
NOT_LISTED = "{} answers, and does not list its models: whether it has yours nobody can tell"
ALIASES = ("models/{}", "{}:latest")
"""As which some servers list a model that they have under its bare name, too."""


class Desk:
    """Carries out commands. Every method raises StartError."""

    def __init__(
        self,
        takeout: Takeout,
        intake: Intake,
        retention: Retention,
        health: Health,
        completions: Completions,
        issuer: Callable[[], Issuer | None] = lambda: None,
    ) -> None:
        self._takeout = takeout
        self._intake = intake
        self._retention = retention
        self._health = health
        self._completions = completions
        self._issuer = issuer

    async def export(self, session: str, write: Callable[[bytes], object]) -> None:
        """Write all chats of a session as an archive."""
        try:
            if not await self._takeout.any(session):
                raise StartError(NO_CHATS)
            async with aclosing(self._takeout.archive(session)) as pieces:
                async for piece in pieces:
                    write(piece)
        except Unavailable:
            raise StartError(AWAY) from None

    async def import_(self, session: str, file: BinaryIO, size: int) -> Report:
        """Import a file of chats into a session."""
        report = Report()
        try:
            async with aclosing(self._intake.read(session, file, size)) as reports:
                async for each in reports:
                    report = each
        except Unreadable as error:
            raise StartError(error.why) from None
        except Unavailable:
            raise StartError(AWAY) from None
        return report

    async def forget(self, session: str) -> int:
        """Delete everything of a session; gives how many chats there were."""
        try:
            return await self._takeout.forget(session)
        except Unavailable:
            raise StartError(AWAY) from None

    async def lower(self, *, change: bool) -> Lowered:
        """Have what is there live no longer than is set now; without `change`, only count it."""
        try:
            return await self._retention.lower(change=change)
        except Unavailable:
            raise StartError(AWAY) from None

    async def check(self, settings: Settings) -> AsyncIterator[str]:
        """Say in lines whether Redis, the OpenID provider and the model server can be had."""
        await self._health.check(0)
        look = await self._health.latest()
        if look is None:
            raise StartError(AWAY)
        yield f"Redis answers: {look.server}"
        for risk in look.risks:
            if settings.require_durable_redis:
                raise StartError(f"REQUIRE_DURABLE_REDIS is set, and {risk}")
            yield f"History may be lost: {risk}"
        if (issuer := self._issuer()) is not None:
            yield await issuer.look()
        if not settings.has_model:
            yield OWN_MODEL
            return
        for provider in settings.asked:
            yield await self._models(provider, settings.openai_model)

    async def _models(self, provider: Provider, default: str) -> str:
        variables, shown = provider.name.upper(), provider.shown
        try:
            named = await self._completions.models(provider.name)
        except ProviderError as error:
            if error.code == "provider_refused":
                return NOT_LISTED.format(shown)
            key = f"{variables}_API_KEY and " if error.code == "provider_auth" else ""
            raise StartError(f"{shown}: {error.detail} Check {key}{variables}_BASE_URL.") from None
        if not named or provider.api_version:  # Azure lists what could be deployed
            return NOT_LISTED.format(shown)
        wanted = [model for model in provider.models if model != OWN_LIST]
        lacking = [model for model in wanted if not _lists(named, provider.own_name(model))]
        where = (
            f"{variables}_MODEL and {variables}_MODELS" if provider.name == OPENAI else f"{variables}_MODELS"
        )
        told = f"{shown} takes the key, and does not list {', '.join(lacking)}: check {where}."
        if default in lacking:
            raise StartError(told)
        if lacking:
            return told
        if provider.has_own_list:
            return f"{shown} takes the key, and lists {len(chatting(named))} models to chat with"
        return f"{shown} takes the key, and has {', '.join(wanted)}"


def _lists(named: Collection[str], model: str) -> bool:
    return any(each in named for each in (model, *(alias.format(model) for alias in ALIASES)))
