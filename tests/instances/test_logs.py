"""The log of real instances under faults: an object a line, which says whose and which turn, and gives nobody away."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

from llmchat.log_lines import pseudonym
from llmchat.session import Sessions
from tests.conftest import Connect, StartInstance
from tests.fakes import Gate, Model
from tests.instances import Client, Instance, Store
from tests.instances.instance import SECRET_KEY
from tests.instances.talk import begin, send
from tests.waiting import eventually

TO_A_PERSON = ("Python ", "Hosts: ", "A password ", "A session ", "Tokens a day", "/metrics ", "llmchat ")
"""How the lines begin that a start prints to stdout."""
CANARY = "canary-of-the-log"
FIELDS = {
    "time", "level", "logger", "message", "request", "session", "conversation", "turn", "exception", "instance", "version",
}  # fmt: skip


def lines(instance: Instance) -> list[dict[str, Any]]:
    """Read its log, in which there is nothing else."""
    return [json.loads(line) for line in instance.log if not line.startswith(TO_A_PERSON)]


async def line(instance: Instance, message: str) -> dict[str, Any]:
    """Wait for a line of the log."""
    await instance.logged(message)
    return next(each for each in lines(instance) if message in each["message"])


def session_of(client: Client) -> str:
    """Read who a client is."""
    cookies = "; ".join(f"{each.key}={each.value}" for each in client.jar)
    session = Sessions(SECRET_KEY).read(cookies, secure=False)
    assert session
    return session


async def test_log_tells_whose_turn_failed_was_lost_and_taken_over_and_holds_no_word_of_anybody(
    fresh_store: Store, start_instance: StartInstance, connect: Connect, model: Model
) -> None:
    dying, other = await asyncio.gather(start_instance(fresh_store), start_instance(fresh_store))
    client = await connect(dying)
    conversation = await begin(client, f"{CANARY}-prompt")
    session = session_of(client)
    whose = {"session": pseudonym(SECRET_KEY, session), "conversation": conversation}

    model.refuse(401, message=f"{CANARY}-refusal")
    failed = await send(client, conversation, f"{CANARY}-prompt")
    await client.ending(failed)
    told = await line(dying, "failed with gpt-4o-mini: HTTP 401")
    assert (told["level"], told["logger"]) == ("warning", "llmchat.completion")
    assert {name: told[name] for name in (*whose, "turn")} == whose | {"turn": failed}
    assert re.fullmatch(r"[0-9a-f]{16}", told["request"])
    assert told["instance"] == client.seen[0]["instance"]

    await begin(client, f"{CANARY}-other")
    back = await line(dying, "The model server answers again.")
    assert (back["level"], back["session"], back["turn"] != failed) == ("info", whose["session"], True)

    for bad in (f"{CANARY}-frame", f'{{"type": "{CANARY}-type"}}', f"{CANARY}-bytes".encode()):
        await client.raw(bad)
    await fresh_store.kill()
    lost = await line(dying, "Lost the subscriber connection to Redis")
    await client.send("message.send", text=f"{CANARY}-away")
    await fresh_store.start()
    assert lost.keys() <= FIELDS - {"request", "session", "conversation", "turn"}
    await line(dying, "The subscriber connection to Redis is back.")

    model.answer(f"{CANARY}-answer", Gate(), to=f"{CANARY}-last")
    taken = await send(client, conversation, f"{CANARY}-last")
    await client.until(lambda: client.text(taken) == f"{CANARY}-answer")
    await dying.kill()

    async def taken_over() -> dict[str, Any] | None:
        """Find the line of this turn: that of the prompt that the store was away from may be taken over, too."""
        message = "A turn is taken over: its instance is gone."
        told = (each for each in lines(other) if each["message"] == message)
        return next((each for each in told if each["turn"] == taken), None)

    told = await eventually(taken_over, seconds=30, what="the turn is taken over")
    assert told
    assert {name: told[name] for name in (*whose, "turn")} == whose | {"turn": taken}
    assert "request" not in told  # nobody asked this one
    await client.closed()
    await client.reconnect(other)

    async def done() -> bool:
        return client.mirror(conversation).messages[taken].state == "done"

    await eventually(done, seconds=40, what="the answer ends")
    await client.close()
    assert await other.stop() == 0
    first, *_, last = [each["message"] for each in lines(other) if each["logger"] == "llmchat.serve"]
    assert re.fullmatch(r"Instance [0-9a-f]{8} of llmchat \S+ serves\.", first)
    assert last.startswith("Stopping")
    for instance in (dying, other):
        assert len({each["instance"] for each in lines(instance)}) == 1
        assert all(
            {"time", "level", "logger", "message", "version"} <= each.keys() <= FIELDS
            for each in lines(instance)
        )
        for word in (CANARY, session, *(cookie.value for cookie in client.jar)):
            assert word not in instance.text


async def test_text_is_written_where_it_is_wanted(store: Store, start_instance: StartInstance) -> None:
    instance = await start_instance(store, LOG_FORMAT="text")
    told = await instance.logged("serves.")
    assert re.fullmatch(
        r"\S+ \S+ INFO llmchat\.serve \[-\]: Instance [0-9a-f]{8} of llmchat \S+ serves\.", told
    )
