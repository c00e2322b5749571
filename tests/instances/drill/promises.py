"""The drills of promises 1 and 5 to 8; `DRILLS` has one for each promise, by its number."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

from yarl import URL

from tests.fakes import CUT, SILENCE, Failure, Line
from tests.instances import Instance, handshake
from tests.instances.drill.branches import branches
from tests.instances.drill.report import Failed, Report, told
from tests.instances.drill.rest import MAX_ASKED
from tests.instances.drill.run import run
from tests.instances.drill.scene import ENDS, Scene, scene
from tests.instances.drill.service import Service, opened
from tests.instances.drill.tab import Tab
from tests.instances.drill.takeovers import deploy, killed, zombie
from tests.instances.mirror import Event, Message
from tests.steps import Step
from tests.waiting import within

PLAY_SECONDS = 110.0
STOP_SECONDS = 10.0  # 0.5 are promised; machines that run tests may be slow
OUTAGES = ["connections", "restart", "kill", "freeze"]
STOPS = ["other tab", "no token yet", "reload", "takeover", "pubsub cut"]
FAILURES: dict[str, list[Step]] = {
    "cut at once": [CUT],
    "cut": [CUT],
    "failure": [Failure()],
    "babble": [Line("data: {not json")],
    "silence": [SILENCE],
}
REFUSALS = [400, 401, 429, 500]


async def sent_again(seed: int, service: Service, report: Report) -> None:
    """1: a prompt that is sent again and again, everywhere and while instances die, is stored and answered once."""
    async with scene(seed, service, report) as playing:
        text, pieces = playing.text(), playing.pieces()
        playing.teach(text, pieces, pause_seconds=0.02)
        senders = playing.random.sample(playing.tabs, 3)
        async with asyncio.TaskGroup() as tasks:
            saying = [tasks.create_task(playing.say(tab, text, name=f"same-{seed}")) for tab in senders]
            for tab in playing.random.sample(senders, 2):
                await asyncio.sleep(0)
                report.counts["drops"] += tab.lose()
            if playing.random.random() < 0.5:
                victim = playing.owner(senders[0])
                await victim.kill()
                await victim.start()
                report.counts["kills"] += 1
        accepted = [each.result() for each in saying]
        assert accepted[0] == accepted[1] == accepted[2], accepted
        again = await playing.say(playing.random.choice(playing.tabs), text, name=f"same-{seed}")
        assert again["message"] == accepted[0]["message"], (again, accepted)
        ended = await playing.ended(accepted[0]["answer"])
        assert ended.finish_reason == "stop", ended
        assert ended.text == "".join(pieces)
        added = [fact for fact in playing.ledger.facts.values() if fact["type"] == "message.added"]
        assert len(added) == 1, added
        assert len(playing.asked(text)) <= MAX_ASKED, f"asked {len(playing.asked(text))} times"


async def mixed(seed: int, service: Service, report: Report) -> None:
    """2: twelve tabs over four instances see the same, whatever breaks; also of branches and prompts that wait."""
    await service.reset()
    await run(seed, service, report)
    await service.revive()
    await branches(seed, service, report)


async def stopped(seed: int, service: Service, report: Report) -> None:
    """5: a stop stops, whoever asks for it, and whenever."""
    async with scene(seed, service, report) as playing:
        how = STOPS[seed % len(STOPS)]
        report.counts[f"stop: {how}"] += 1
        text = playing.text()
        steps: list[str | Step] = [SILENCE] if how == "no token yet" else [*playing.pieces(400, 500)]
        playing.teach(text, steps, pause_seconds=0.02)
        sender = playing.random.choice(playing.tabs)
        owner = playing.owner(sender)
        answer = (await playing.say(sender, text))["answer"]
        stopper = await _before_stop(how, playing, sender, owner, answer)
        await playing.until(lambda: stopper.settled, "the one who stops is settled")
        conversation = playing.accepted[0]["conversation"]
        seen = stopper.mirror(conversation).messages.get(answer)
        before, at = (seen.text or "" if seen else ""), playing.now
        if how == "pubsub cut":
            await service.cut_off("pubsub")
        asking = asyncio.create_task(stopper.ask("completion.stop", conversation, message=answer))
        if how != "takeover":
            await playing.asked(text)[-1].closed(seconds=STOP_SECONDS)
            report.figures["stop"].append(playing.now - at)
        ended = await playing.ended(answer)
        code = await asking
        assert not code, f"the stop was refused: {code}"
        assert ended.finish_reason == "stopped", ended
        for request in playing.asked(text):
            assert await request.over(seconds=STOP_SECONDS) == "closed"
        if how != "takeover":  # an attempt that begins anew replaces the text
            assert (ended.text or "").startswith(before), (ended, before)
    last = playing.facts(answer, *ENDS, "completion.delta")
    assert max(last, key=lambda fact: int(fact["at"]["offset"]))["type"] == "completion.finished", last[-3:]


async def _before_stop(how: str, playing: Scene, sender: Tab, owner: Instance, answer: str) -> Tab:
    """Bring it to where the stop is wanted, and return the tab that wants it."""
    if how == "no token yet":
        await playing.started(answer, 1)
        await playing.service.model.asked()
    else:
        await playing.begun(answer, playing.random.randint(1, 10))
    if how == "reload":
        before = sender.connections
        sender.reload()
        await playing.until(lambda: sender.connections > before, "the page is there again")
        return sender
    stopper = playing.other(owner)
    if how == "takeover":
        await owner.kill()
    return stopper


async def outage(seed: int, service: Service, report: Report) -> None:
    """6: the store drops connections, restarts, dies or is frozen: all are told, nothing is lost, all catch up."""
    async with scene(seed, service, report) as playing:
        kind = OUTAGES[seed % len(OUTAGES)]
        text, pieces = playing.text(), playing.pieces(40, 80)
        playing.teach(text, pieces, pause_seconds=playing.random.uniform(0.02, 0.06))
        sender = playing.random.choice(playing.tabs)
        accepted = await playing.say(sender, text)
        answer, conversation = accepted["answer"], accepted["conversation"]
        await playing.begun(answer, playing.random.randint(1, 10))
        await _lose_store(kind, playing)
        at = playing.now
        await _caught_up(playing, conversation)
        report.recoveries.append((kind, playing.now - at))
        await playing.ended(answer)
        later = await playing.say(playing.random.choice(playing.tabs), playing.text(), conversation)
        await playing.ended(later["answer"])
        fresh = playing.tabs[0].mirror(conversation)
        await playing.until(lambda: fresh.messages[answer].state == "done", "the answer is done")
        assert fresh.messages[answer].text == "".join(pieces), fresh.messages[answer]


async def _lose_store(kind: str, playing: Scene) -> None:
    store = playing.service.store
    if kind == "connections":
        for which in ("pubsub", "normal"):
            await playing.service.cut_off(which)
        return
    if kind == "freeze":
        store.freeze()
    else:
        await (store.stop() if kind == "restart" else store.kill())
    try:
        await playing.until(
            lambda: not any(tab.told_available for tab in playing.tabs), "all are told that the store is away"
        )
    finally:
        if kind == "freeze":
            store.thaw()
        else:
            await store.start()
    await playing.until(lambda: all(tab.told_available for tab in playing.tabs), "all are told of its return")


async def _caught_up(playing: Scene, conversation: str) -> None:
    """Wait until every tab stands where the store stands now, or further."""
    epochs = {epoch for _, epoch, _ in playing.ledger.facts}
    probe = await opened(playing.service.instances[0], playing.jar, [conversation])
    places = {conversation: dict(probe.mirror(conversation).at or {})}
    await probe.close()
    await playing.until(lambda: all(tab.has_reached(places, epochs) for tab in playing.tabs), "all catch up")


async def never_reads(seed: int, service: Service, report: Report) -> None:
    """7: a client that never reads delays nobody."""
    async with scene(seed, service, report) as playing:
        first = await playing.say(playing.tabs[0], playing.text())
        await playing.ended(first["answer"])
        conversation = first["conversation"]
        instance = playing.owner(playing.tabs[0])
        cookies = playing.jar.filter_cookies(URL(instance.url))
        cookie = "; ".join(f"{morsel.key}={morsel.value}" for morsel in cookies.values())
        async with handshake(instance, origin=instance.url, cookie=cookie) as dead:
            assert dead.status == 101, dead
            dead.writer.transport.pause_reading()  # type: ignore[attr-defined]
            opening = {"type": "conversation.open", "id": "dead", "conversation": conversation}
            for _ in range(20):
                dead.writer.write(_frame(opening))
            text, pieces = playing.text(), [f"{'long ' * 4000}{number} " for number in range(8)]
            playing.teach(text, pieces, pause_seconds=0.01)
            accepted = await playing.say(playing.tabs[0], text, conversation)
            ended = await playing.ended(accepted["answer"], seconds=40)
            assert ended.finish_reason == "stop", ended
            assert ended.text == "".join(pieces)


def _frame(command: Event) -> bytes:
    """Encode a client's frame, masked with zeros."""
    body = json.dumps(command).encode()
    return bytes([0x81, 0x80 | 126]) + len(body).to_bytes(2, "big") + bytes(4) + body


async def provider_fails(seed: int, service: Service, report: Report) -> None:
    """8: the provider fails in one way after the other; the user is told, the text is kept, and a retry works."""
    async with scene(seed, service, report) as playing:
        text, pieces = playing.text(), playing.pieces()
        kinds = playing.random.sample([*FAILURES, *map(str, REFUSALS)], 3)
        sender = playing.random.choice(playing.tabs)
        _fail(playing, text, kinds[0], pieces)
        accepted = await playing.say(sender, text)
        answer, conversation = accepted["answer"], accepted["conversation"]
        for number, kind in enumerate(kinds):
            report.counts[f"provider: {kind}"] += 1
            ended = await playing.ended(answer)
            told = ended.state == "failed" or ended.finish_reason == "interrupted"
            assert told, f"{kind} ended in {ended}"
            playing.service.model.forget_script()
            if number + 1 < len(kinds):
                _fail(playing, text, kinds[number + 1], pieces)
            else:
                playing.teach(text, pieces, pause_seconds=0.01)
            answer = await _retry(playing, sender, conversation, answer, ended)
        ended = await playing.ended(answer)
        assert ended.finish_reason == "stop", ended
        assert ended.text == "".join(pieces)


def _fail(playing: Scene, text: str, kind: str, pieces: list[str]) -> None:
    if kind in FAILURES:
        before = [] if kind == "cut at once" else pieces[:5]
        playing.teach(text, [*before, *FAILURES[kind]], pause_seconds=0.01)
    else:
        playing.service.model.refuse(int(kind), to=text, times=1000)


async def _retry(playing: Scene, sender: Tab, conversation: str, answer: str, ended: Message) -> str:
    """Regenerate, and return the new answer."""
    before = {
        fact["message"] for fact in playing.ledger.facts.values() if fact["type"] == "completion.started"
    }
    code = await sender.ask("completion.regenerate", conversation, message=answer)
    assert not code, f"a retry after {ended} was refused: {code}"
    started = await playing.until(
        lambda: next(
            (
                fact
                for fact in playing.ledger.facts.values()
                if fact["type"] == "completion.started" and fact["message"] not in before
            ),
            None,
        ),
        "the retry starts",
    )
    return str(started["message"])


Drill = Callable[[int, Service, Report], Awaitable[None]]
DRILLS: dict[int, Drill] = {
    1: sent_again,
    2: mixed,
    3: killed,
    4: zombie,
    5: stopped,
    6: outage,
    7: never_reads,
    8: provider_fails,
    9: deploy,
}


async def play(promise: int, service: Service, report: Report) -> None:
    """Play the drill of a promise and write into its report. Raises Failed, with the seed."""
    loop = asyncio.get_running_loop()
    began, lines = loop.time(), [len(instance.log) for instance in service.instances]
    found: list[str] = []
    try:
        async with within(PLAY_SECONDS, "the drill ends"):
            await DRILLS[promise](report.seed, service, report)
    except Exception as error:
        found += told(error)
    finally:
        report.seconds = loop.time() - began
    found += service.bugs(lines)
    if found:
        raise Failed(f"promise {promise}, seed {report.seed}:\n" + "\n".join(dict.fromkeys(found)))
