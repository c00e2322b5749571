"""`/metrics`, for a Prometheus that has the token. Is there only where one is set; knows not what is told."""

from __future__ import annotations

from contextlib import suppress

from quart import Blueprint, request
from quart.typing import ResponseReturnValue

from llmchat.blueprints.rooms import rooms
from llmchat.blueprints.visitors import headers_of
from llmchat.errors import RateLimited, Unavailable

PATH = "/metrics"

blueprint = Blueprint("metrics", __name__)


@blueprint.get(PATH)
async def metrics() -> ResponseReturnValue:
    """Tell of this instance, unless the token is wrong: who guesses too often is told so, and keeps nobody out."""
    here = rooms()
    told = here.metrics
    if told is None or not told.opens_to(request.headers.get("Authorization", "")):
        try:
            with suppress(Unavailable):  # then nobody counts
                await here.limits.wrong_token(request.remote_addr or "")
        except RateLimited as error:
            return error.detail, 429, headers_of(error.retry_after)
        return "The token is missing or wrong.", 401, headers_of() | {"WWW-Authenticate": "Bearer"}
    text, kind = await told.told(request.headers.get("Accept", ""))
    return text, 200, headers_of() | {"Content-Type": kind}
