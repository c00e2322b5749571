"""The websocket: who may come in, and which protocol is spoken."""

from __future__ import annotations

from quart import Blueprint, Websocket, websocket
from quart.typing import ResponseReturnValue

from llmchat.blueprints.rooms import rooms
from llmchat.blueprints.visitors import headers_of
from llmchat.connection import Connection, Socket
from llmchat.doors import DIRECT
from llmchat.events import SUBPROTOCOL
from llmchat.seed import SeedConnection

blueprint = Blueprint("chat", __name__)


@blueprint.websocket("/ws/chat/")
async def chat() -> ResponseReturnValue | None:
    """Serve one websocket until either side ends it."""
    here = rooms()
    who = await here.visitor(websocket)
    offered = websocket.requested_subprotocols
    if offered and SUBPROTOCOL not in offered:
        return f"None of these subprotocols is spoken here; {SUBPROTOCOL} is.", 400
    ready = await here.ready()
    refusal = await here.refusal(who)
    if refusal is not None:
        return refusal.detail, refusal.status, headers_of(refusal.retry_after)
    socket = _socket(websocket)
    connection: Connection | SeedConnection
    if offered:
        connection = Connection(
            socket,
            who.allowance,
            here.chat,
            here.broadcaster,
            ready,
            here.backlog,
            direct=websocket.scope.get("state", {}).get(DIRECT),
            welcome=who.welcome,
        )
    else:
        connection = SeedConnection(socket, who.allowance, here.chat, here.broadcaster, welcome=who.welcome)
    with here.open(connection, who.allowance):
        await websocket.accept(
            headers={"Set-Cookie": here.sessions.cookie(who.session, secure=who.secure)},
            subprotocol=SUBPROTOCOL if offered else None,
        )
        websocket.headers.clear()  # whoever asks has been seen; thousands of them would be kept
        await connection.serve()
    return None


def _socket(given: Websocket) -> Socket:
    # The context's proxy is looked up anew at each use; its object is not.
    found: Socket = given._get_current_object()  # type: ignore[attr-defined]
    return found
