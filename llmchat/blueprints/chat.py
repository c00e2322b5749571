"""The websocket: who may come in, and which protocol is spoken."""

from __future__ import annotations

from quart import Blueprint, websocket
from quart.typing import ResponseReturnValue
from werkzeug.datastructures import Headers

from llmchat.blueprints.rooms import rooms
from llmchat.blueprints.visitors import headers_of
from llmchat.blueprints.websockets import current_websocket
from llmchat.connection import Connection
from llmchat.doors import DIRECT
from llmchat.events import SUBPROTOCOL
from llmchat.seed import SeedConnection

blueprint = Blueprint("chat", __name__)


@blueprint.websocket("/ws/chat/")
async def chat() -> ResponseReturnValue | None:
    """Let a websocket in, to be served until either side ends it."""
    here = rooms()
    who = await here.visitor(websocket)
    offered = websocket.requested_subprotocols
    if offered and SUBPROTOCOL not in offered:
        return f"None of these subprotocols is spoken here; {SUBPROTOCOL} is.", 400
    ready = await here.ready()
    cookies = await here.cookies(who) if who.granted else []
    refusal = await here.refusal(who)
    if refusal is not None:
        here.refused.note(refusal.reason)
        return refusal.detail, refusal.status, headers_of(refusal.retry_after)
    socket = current_websocket.get()
    connection: Connection | SeedConnection
    if offered:
        connection = Connection(
            socket,
            who.allowance,
            here.chat,
            here.broadcaster,
            ready,
            here.traffic,
            direct=websocket.scope.get("state", {}).get(DIRECT),
            welcome=who.welcome,
        )
    else:
        connection = SeedConnection(socket, who.allowance, here.chat, here.broadcaster, welcome=who.welcome)
    socket.serve_later(connection.serve, here.open(connection, who.allowance))
    await websocket.accept(
        headers=Headers([("Set-Cookie", each) for each in cookies]),
        subprotocol=SUBPROTOCOL if offered else None,
    )
    return None
