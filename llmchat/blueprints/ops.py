"""For those who run it: is it alive, is it ready. Tells nothing of the inside."""

from __future__ import annotations

from quart import Blueprint
from quart.typing import ResponseReturnValue

from llmchat import __version__
from llmchat.blueprints.rooms import rooms
from llmchat.blueprints.visitors import headers_of
from llmchat.events import PROTOCOL

blueprint = Blueprint("ops", __name__)


@blueprint.get("/healthz")
async def healthz() -> ResponseReturnValue:
    """Say that this process answers."""
    return {"alive": True}, 200, headers_of()


@blueprint.get("/readyz")
async def readyz() -> ResponseReturnValue:
    """Say whether this process takes work: Redis answers, and it is not about to end."""
    here = rooms()
    found = await here.health.latest()
    ready = found is not None and not here.draining
    state = {
        "ready": ready,
        "draining": here.draining,
        "redis": "away" if found is None else "reached",
        "history": "unknown" if found is None else "may be lost" if found.risks else "kept",
        "version": __version__,
        "protocol": PROTOCOL,
    }
    return state, 200 if ready else 503, headers_of()
