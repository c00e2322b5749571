"""The websocket: who may come in, and which protocol is spoken."""

from __future__ import annotations

from quart import Blueprint, Websocket, websocket
from quart.typing import ResponseReturnValue

from llmchat.blueprints.rooms import rooms
from llmchat.connection import Connection, Socket
from llmchat.events import SUBPROTOCOL
from llmchat.seed import SeedConnection

RETRY_AFTER_SECONDS = 1

blueprint = Blueprint("chat", __name__)


@blueprint.websocket("/ws/chat/")
async def chat() -> ResponseReturnValue | None:
    """Serve one websocket until either side ends it."""
    here = rooms()
    if here.draining:
        return "This instance restarts.", 503, {"Retry-After": str(RETRY_AFTER_SECONDS)}
    offered = websocket.requested_subprotocols
    if offered and SUBPROTOCOL not in offered:
        return f"None of these subprotocols is spoken here; {SUBPROTOCOL} is.", 400
    secure = websocket.scheme in ("https", "wss")
    session = here.sessions.read(websocket.headers.get("Cookie"), secure=secure) or here.sessions.new()
    await websocket.accept(
        headers={"Set-Cookie": here.sessions.cookie(session, secure=secure)},
        subprotocol=SUBPROTOCOL if offered else None,
    )
    socket = _socket(websocket)
    connection: Connection | SeedConnection
    if offered:
        connection = Connection(socket, session, here.chat, here.broadcaster, here.ready)
    else:
        connection = SeedConnection(socket, session, here.chat, here.broadcaster)
    with here.open(connection):
        await connection.serve()
    return None


def _socket(given: Websocket) -> Socket:
    # The context's proxy is looked up anew at each use; its object is not.
    found: Socket = given._get_current_object()  # type: ignore[attr-defined]
    return found
