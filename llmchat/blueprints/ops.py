"""For those who run it: is it alive."""

from __future__ import annotations

from quart import Blueprint
from quart.typing import ResponseReturnValue

blueprint = Blueprint("ops", __name__)


@blueprint.get("/healthz")
async def healthz() -> ResponseReturnValue:
    """Say that this process answers."""
    return {"alive": True}, 200, {"Cache-Control": "no-store"}
