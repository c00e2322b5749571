"""The composition root: the only file that constructs. Everything else gets what it needs as arguments."""

from __future__ import annotations

import hashlib
import logging
import secrets
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quart import Quart

from llmchat.access import ACCESS_SECONDS, Access
from llmchat.answering import Answering
from llmchat.arrivals import Arrivals
from llmchat.attachments import Attachments
from llmchat.blueprints import attachments as attachments_blueprint
from llmchat.blueprints import chat as chat_blueprint
from llmchat.blueprints import forms as forms_blueprint
from llmchat.blueprints import metrics as metrics_blueprint
from llmchat.blueprints import openid as openid_blueprint
from llmchat.blueprints import ops as ops_blueprint
from llmchat.blueprints import options as options_blueprint
from llmchat.blueprints import page as page_blueprint
from llmchat.blueprints import preferences as preferences_blueprint
from llmchat.blueprints import search as search_blueprint
from llmchat.blueprints import shares as shares_blueprint
from llmchat.blueprints import sign_in as sign_in_blueprint
from llmchat.blueprints import takeout as takeout_blueprint
from llmchat.blueprints.openid import WAY_SECONDS
from llmchat.blueprints.page import log_bug
from llmchat.blueprints.rooms import EXTENSION, OpenId, Rooms
from llmchat.blueprints.websockets import DirectWebsocket
from llmchat.broadcaster import Broadcaster
from llmchat.chat import Chat
from llmchat.completion import Completions
from llmchat.conversation import leaves_room, takes_system
from llmchat.conversations import Conversations
from llmchat.desk import Desk
from llmchat.doors import Doors, script_nonce
from llmchat.erasure import Erasure
from llmchat.errors import SettingsError, StartError
from llmchat.folds import Folds
from llmchat.health import Health
from llmchat.history import History
from llmchat.intake import Intake
from llmchat.keys import Keys
from llmchat.lease import Leases
from llmchat.limits import KINDS, Limits, Rates
from llmchat.listing import Listing
from llmchat.logins import Logins
from llmchat.model_stream import Deadlines
from llmchat.models import Models
from llmchat.moves import Moves
from llmchat.pressure import Pressure
from llmchat.prompts import Prompts
from llmchat.redis_client import connect, place_of
from llmchat.retention import Retention
from llmchat.searches import Searches
from llmchat.session import Sessions
from llmchat.settings import Settings
from llmchat.shares import Shares
from llmchat.shelf import Shelf
from llmchat.sign_outs import SignOuts
from llmchat.signed_cookie import SignedCookie
from llmchat.spending import Spending
from llmchat.static_files import StaticFiles
from llmchat.summaries import Summaries
from llmchat.takeout import Takeout
from llmchat.templates import Unindented
from llmchat.titles import Titles
from llmchat.transcripts import Transcripts
from llmchat.turns import Turns

if TYPE_CHECKING:
    from llmchat.issuer import Issuer

CHANNEL_CAPACITY = 1000
"""Messages of one connection's inbox: a few seconds of an answer."""
ANSWERING_SECONDS = 60
"""What a turn may take beside its answer, before it is not counted any more."""
BODY_BYTES = 64 * 1024
BODY_SECONDS = 5
STACK_BYTES = 8 * 1024 * 1024
"""Of each thread, as glibc has it: a formula that nests takes a megabyte, and a thread of musl has less."""

log = logging.getLogger(__name__)


def create_app(settings: Settings | None = None, *, instance: str | None = None) -> Quart:
    """Make the app; without settings, those of the environment, as when it is deployed. Raises SettingsError.

    `instance` is its id, where the log has one already.
    """
    if settings is None:
        settings = Settings.read(local=False)
        settings.check_deployed()
    if settings.redis_url is None or settings.secret_key is None:
        raise SettingsError("REDIS_URL and SECRET_KEY must be set: `python -m llmchat` sets them by itself.")
    check(settings)
    threading.stack_size(STACK_BYTES)
    keys = Keys(settings.redis_prefix)
    try:
        redis = connect(settings.redis_url)
        broadcaster = Broadcaster(
            [settings.redis_url], prefix=settings.redis_prefix, capacity=CHANNEL_CAPACITY
        )
    except ValueError as error:
        raise SettingsError(f"REDIS_URL: {error}.") from None
    conversations = Conversations(redis, keys, history_days=settings.history_days)
    history = History(redis, keys, conversations, history_days=settings.history_days)
    completions = Completions(settings.asked, Deadlines.of(settings), continuation=settings.continuation)
    models = Models(settings, completions)
    listing = Listing(conversations, broadcaster, models)
    summaries = Summaries(redis, keys, history_days=settings.history_days)
    attachments = _attachments(settings, redis, keys)
    pressure = Pressure()
    answering = Answering(
        redis,
        keys,
        settings.secret_key,
        most=settings.answers_at_once,
        seconds=settings.model_answer_seconds + ANSWERING_SECONDS,
        for_whom=bool(settings.tokens_per_day),
    )
    spending = Spending(
        redis, keys, tokens=settings.tokens_per_day, all_tokens=settings.tokens_per_day_in_all
    )
    folds = Folds(settings, history, summaries, Leases(redis, keys, of="fold"), completions, models, spending)
    titles = Titles(settings, redis, keys, completions, listing, spending)
    turns = Turns(
        settings,
        history,
        Leases(redis, keys),
        broadcaster,
        completions,
        listing,
        folds,
        attachments,
        models,
        titles,
        answering,
        spending,
        pressure,
    )
    erasure, arrivals = Erasure(redis, keys, KINDS), Arrivals(redis, keys)
    transcripts = Transcripts(redis, keys, history_days=settings.history_days)
    searches = Searches(redis, keys)
    shares = Shares(redis, keys, settings.secret_key, history_days=settings.history_days)
    prompts = Prompts(
        redis, keys, history_days=settings.history_days, most_characters=settings.max_prompt_chars
    )
    chat = Chat(
        settings,
        history,
        conversations,
        turns,
        listing,
        summaries,
        attachments,
        erasure,
        searches,
        models,
        shares,
        answering,
        spending,
    )
    moves = Moves(redis, keys, conversations, attachments, shares, prompts, listing, broadcaster, answering)
    logins = Logins(redis, keys, history_days=settings.history_days)
    sessions = Sessions(settings.secret_key, settings.secret_key_fallbacks)
    rates = Rates(
        prompts=settings.prompts_per_minute,
        connections=settings.connections_per_minute,
        frames=settings.frames_per_minute,
        pages=settings.pages_per_minute,
    )
    root = Path(__file__).resolve().parent.parent
    app = Quart("llmchat", static_folder=None, template_folder=str(root / "templates"), root_path=str(root))
    app.asgi_websocket_class = DirectWebsocket
    shelf = Shelf(redis, keys, settings.secret_key, settings.secret_key_fallbacks)
    static_files = StaticFiles(app.asgi_app, root / "static", shelf)
    rooms = Rooms(
        chat=chat,
        broadcaster=broadcaster,
        sessions=sessions,
        access=Access(settings.access_password, settings.secret_key, settings.secret_key_fallbacks),
        sign_outs=SignOuts(redis, keys, ACCESS_SECONDS),
        limits=Limits(redis, keys, rates),
        health=Health(
            redis, keys, place_of(settings.redis_url), require_durable=settings.require_durable_redis
        ),
        turns=turns,
        models=models,
        static=static_files.path,
        attachments=attachments,
        arrivals=arrivals,
        takeout=Takeout(transcripts, attachments, erasure, listing),
        intake=Intake(transcripts, attachments, erasure, listing, arrivals, _takes_system(settings)),
        import_bytes=settings.import_bytes,
        prompts=prompts,
        instance=instance or secrets.token_hex(4),
        openid=_openid(settings, logins, moves),
    )

    app.config.update(MAX_CONTENT_LENGTH=BODY_BYTES, BODY_TIMEOUT=BODY_SECONDS)
    app.extensions[EXTENSION] = rooms
    app.jinja_env.add_extension(Unindented)
    app.jinja_env.globals["nonce"] = script_nonce.get
    app.request_class = attachments_blueprint.Request
    for blueprint in (
        page_blueprint,
        forms_blueprint,
        search_blueprint,
        sign_in_blueprint,
        openid_blueprint,
        chat_blueprint,
        ops_blueprint,
        attachments_blueprint,
        takeout_blueprint,
        preferences_blueprint,
        options_blueprint,
        shares_blueprint,
    ):
        app.register_blueprint(blueprint.blueprint)
    app.log_exception = log_bug  # type: ignore[method-assign]
    doors = Doors(
        static_files,
        allowed_hosts=settings.allowed_hosts,
        trusted_origins=settings.csrf_trusted_origins,
        proxy_hops=settings.trusted_proxy_hops,
        address_header=settings.trusted_ip_header,
        pressed=lambda: pressure.high,
        any_host=[metrics_blueprint.PATH] if settings.metrics_token else [],
    )
    app.asgi_app = doors  # type: ignore[method-assign]
    metrics: AbstractAsyncContextManager[object] = nullcontext()
    if settings.metrics_token:
        from llmchat.metrics import Metrics  # what it imports is for nobody else

        rooms.metrics = metrics = Metrics(
            settings.metrics_token,
            rooms,
            redis,
            history,
            titles,
            folds,
            searches,
            completions,
            answering,
            spending,
            pressure,
            doors.responses,
        )
        app.register_blueprint(metrics_blueprint.blueprint)

    @app.while_serving
    async def serving() -> AsyncGenerator[None, None]:
        if not rooms.health.checked:  # else `serve` waited for it
            try:
                await rooms.health.check(0)
            except StartError as error:
                if settings.require_durable_redis:
                    raise
                log.warning("%s", error)  # the chat works as soon as it can
        async with AsyncExitStack() as leaving:
            for close in (redis.aclose, broadcaster.close, completions.close):
                leaving.push_async_callback(close)
            leaving.callback(rooms.access.close)
            await leaving.enter_async_context(pressure)
            await leaving.enter_async_context(metrics)
            await leaving.enter_async_context(static_files)
            await leaving.enter_async_context(models)
            await leaving.enter_async_context(folds)
            await leaving.enter_async_context(titles)
            await leaving.enter_async_context(turns)
            yield
            await rooms.stop()

    return app


def check(settings: Settings) -> None:
    """Raise SettingsError where settings do not go together."""
    if not leaves_room(settings.system_prompt, settings.context_tokens):
        raise SettingsError(
            f"SYSTEM_PROMPT takes more than half of the context, which is {settings.context_tokens} tokens: "
            "shorten it, or raise CONTEXT_TOKENS."
        )
    settings.check_attachments()
    settings.check_budgets()
    settings.check_openid()


@asynccontextmanager
async def open_desk(settings: Settings) -> AsyncIterator[Desk]:
    """Make what an operator's commands need of Redis and the model server, and close it. Raises SettingsError."""
    if settings.redis_url is None:
        raise SettingsError("REDIS_URL is not set, nor is REDISHOST: name the Redis to use.")
    keys = Keys(settings.redis_prefix)
    redis = connect(settings.redis_url)
    broadcaster = Broadcaster([settings.redis_url], prefix=settings.redis_prefix, capacity=CHANNEL_CAPACITY)
    conversations = Conversations(redis, keys, history_days=settings.history_days)
    transcripts = Transcripts(redis, keys, history_days=settings.history_days)
    attachments, erasure = _attachments(settings, redis, keys), Erasure(redis, keys, KINDS)
    completions = Completions(settings.asked, Deadlines.of(settings), continuation="never")
    listing = Listing(conversations, broadcaster, Models(settings, completions))
    async with AsyncExitStack() as leaving:
        for close in (redis.aclose, broadcaster.close, completions.close):
            leaving.push_async_callback(close)
        yield Desk(
            Takeout(transcripts, attachments, erasure, listing),
            Intake(
                transcripts, attachments, erasure, listing, Arrivals(redis, keys), _takes_system(settings)
            ),
            Retention(redis, keys, attachments, history_days=settings.history_days),
            Health(redis, keys, place_of(settings.redis_url), require_durable=False),
            completions,
            partial(_issuer, settings),
        )


def _issuer(settings: Settings) -> Issuer | None:
    if settings.oidc_issuer is None:
        return None
    from llmchat.issuer import Issuer  # 12 MB, which nobody else is to carry

    return Issuer(
        settings.oidc_issuer,
        settings.oidc_client_id,
        settings.oidc_client_secret,
        allowed=settings.oidc_allowed,
    )


def _openid(settings: Settings, logins: Logins, moves: Moves) -> OpenId | None:
    issuer = _issuer(settings)
    if issuer is None:
        return None
    # By another provider, nobody is signed in any more.
    told = f"{settings.oidc_issuer}\n{settings.oidc_client_id}"
    salt = hashlib.sha256(told.encode()).hexdigest()[:16]
    keys = settings.secret_key or "", settings.secret_key_fallbacks
    return OpenId(
        issuer,
        settings.oidc_name,
        settings.oidc_required,
        logins,
        moves,
        SignedCookie("person", ACCESS_SECONDS, f"person.{salt}", *keys),
        SignedCookie("sign-in", WAY_SECONDS, f"sign-in.{salt}", *keys),
    )


def _takes_system(settings: Settings) -> Callable[[str], bool]:
    return partial(
        takes_system, most_characters=settings.max_prompt_chars, context_tokens=settings.context_tokens
    )


def _attachments(settings: Settings, redis: Any, keys: Keys) -> Attachments:
    return Attachments(
        redis,
        keys,
        largest=settings.attachment_bytes,
        most_bytes=settings.attachments_bytes,
        days=settings.attachment_lifetime_days,
    )
