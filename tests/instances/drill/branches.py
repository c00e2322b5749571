"""A drill of all that people do besides sending: edits, branches, prompts that wait, stops, from several tabs at once."""

from __future__ import annotations

import asyncio

from tests.instances.drill.report import Report
from tests.instances.drill.scene import Scene, scene
from tests.instances.drill.service import Service
from tests.instances.drill.tab import Tab
from tests.instances.mirror import Message

ACTS = {
    "message.send": 5,
    "edit": 2,
    "message.select": 3,
    "message.withdraw": 3,
    "completion.stop": 3,
    "completion.continue": 3,
    "completion.regenerate": 2,
    "drop": 2,
    "reload": 1,
    "kill": 0.5,
}
"""What happens, and how likely each is."""
REFUSALS = {"", "busy", "bad_field", "not_found", "conflict"}
"""What may be said to them: who comes too late is told so."""
WAITING = 10  # prompts at most


async def branches(seed: int, service: Service, report: Report) -> None:
    """Have people do as they like in one conversation, one act after the other or at once."""
    async with scene(seed, service, report) as playing:
        first = await _say(playing, playing.tabs[0], None)
        async with asyncio.TaskGroup() as acting:
            for kind in playing.random.choices([*ACTS], [*ACTS.values()], k=playing.random.randint(12, 20)):
                await _pass(playing, first, playing.random.randint(0, 6))
                report.counts[kind] += 1
                acting.create_task(_act(playing, kind, first))


async def _say(playing: Scene, tab: Tab, conversation: str | None, **fields: str | None) -> str:
    text = playing.text()
    playing.teach(text, playing.pieces(5, 30), pause_seconds=playing.random.uniform(0.005, 0.03))
    return str((await playing.say(tab, text, conversation, **fields))["conversation"])


async def _pass(playing: Scene, conversation: str, events: int) -> None:
    """Wait for so many events, or until nothing is made that could bring any."""
    goal = len(playing.ledger.facts) + events

    def passed() -> bool:
        known = [tab.mirror(conversation).messages.values() for tab in playing.tabs]
        makes = any(one.state in {"running", "queued"} for messages in known for one in messages)
        return len(playing.ledger.facts) >= goal or not makes

    await playing.until(passed, f"{events} events pass")


async def _act(playing: Scene, kind: str, conversation: str) -> None:
    tab = playing.random.choice(playing.tabs)
    await playing.until(lambda: tab.settled, f"{tab.name} is settled")
    if kind in {"drop", "reload"}:
        _ = tab.lose() if kind == "drop" else tab.reload()
        return
    if kind == "kill":
        instance = playing.owner(tab)
        await instance.kill()
        await instance.start()
        return
    shown = tab.mirror(conversation).branch()
    if kind == "message.send":
        if sum(one.state == "queued" for one in shown) < WAITING:
            await _say(playing, tab, conversation)
        return
    if not (meant := [one for one in shown if _suits(kind, one)]):
        return
    one = playing.random.choice(meant)
    if kind == "edit":
        await _say(playing, tab, conversation, parent=one.parent)
    else:
        code = await tab.ask(kind, conversation, message=one.id)
        assert code in REFUSALS, f"{kind} of {one} was refused: {code}"


def _suits(kind: str, one: Message) -> bool:
    match kind:
        case "edit":
            return one.role == "user" and one.state == "done"
        case "message.withdraw":
            return one.state == "queued"
        case "completion.stop":
            return one.state == "running"
        case "completion.continue":
            return one.finish_reason in {"stopped", "interrupted", "length"}
        case "completion.regenerate":
            return one.role == "assistant" and one.state == "done"
        case _:
            return one.state == "done"
