"""Drills of answers that outlive their instance: it is killed, frozen, or replaced in a deploy."""

from __future__ import annotations

import asyncio

from tests.instances import Instance
from tests.instances.drill.report import Report
from tests.instances.drill.rest import MAX_ASKED
from tests.instances.drill.scene import Scene, scene
from tests.instances.drill.service import Service
from tests.instances.mirror import Event

TAKEOVER_SECONDS = 10.0  # 3 are promised; machines that run tests may be slow
EXIT_SECONDS = 5.0  # likewise, of 2


async def killed(seed: int, service: Service, report: Report) -> None:
    """3: an answer outlives its instance, also before it began, and also where no other is left."""
    async with scene(seed, service, report) as playing:
        text, pieces = playing.text(), playing.pieces()
        playing.teach(text, pieces, pause_seconds=playing.random.uniform(0.01, 0.04))
        sender = playing.random.choice(playing.tabs)
        owner = playing.owner(sender)
        how = playing.random.choices(["delta", "accepted", "all"], [6, 2, 1])[0]
        report.counts[f"killed: {how}"] += 1
        accepted = await playing.say(sender, text)
        answer = accepted["answer"]
        if how != "accepted":
            await playing.begun(answer, playing.random.randint(1, 8))
        before = len(playing.facts(answer, "completion.started"))
        at = playing.now
        if how == "all":
            await asyncio.gather(*(each.kill() for each in service.instances))
            await service.revive()
        else:
            await owner.kill()
        await _whole(playing, answer, pieces)
        later = playing.facts(answer, "completion.started")[before:]
        if later and how != "all":
            report.figures["takeover"].append(playing.ledger.time(later[0]) - at)
            assert report.figures["takeover"][-1] < TAKEOVER_SECONDS, f"taken over after {report.figures}"
        assert len(playing.asked(text)) <= MAX_ASKED, f"asked {len(playing.asked(text))} times"
        report.counts["text kept"] += sum(bool(started["text"]) for started in later)


async def _whole(playing: Scene, answer: str, pieces: list[str]) -> None:
    """Wait for an answer's end: it must be all that the model says, with nothing twice."""
    ended = await playing.ended(answer)
    told = f"{ended} after {playing.facts(answer, 'completion.started')}"
    assert (ended.finish_reason, ended.text) == ("stop", "".join(pieces)), told


async def zombie(seed: int, service: Service, report: Report) -> None:
    """4: an instance that was frozen past its lease places nothing more."""
    async with scene(seed, service, report) as playing:
        text = playing.text()
        old = [f"old{number} " for number in range(60)]
        new = [f"new{number} " for number in range(playing.random.randint(20, 40))]
        pause_seconds = playing.random.uniform(0.01, 0.04)
        playing.teach(text, old, pause_seconds=pause_seconds, times=1)
        playing.teach(text, new, pause_seconds=pause_seconds)
        sender = playing.random.choice(playing.tabs)
        owner = playing.owner(sender)
        answer = (await playing.say(sender, text))["answer"]
        await playing.begun(answer, playing.random.randint(1, 5))
        owner.freeze()
        try:
            started = await playing.started(answer, 2)
            await playing.begun(answer, playing.deltas(answer) + playing.random.randint(1, 3))
        finally:
            owner.thaw()
        ended = await playing.ended(answer)
        assert ended.finish_reason == "stop", ended
        after = [fact for fact in playing.facts(answer, "completion.delta") if _behind(fact, started)]
        written = "".join(fact["text"] for fact in after)
        assert written == "".join(new), f"{written!r} was placed after {started}"
        for request in playing.asked(text):
            await request.over(seconds=10)
        assert len(playing.asked(text)) <= MAX_ASKED, f"asked {len(playing.asked(text))} times"
        report.counts["zombies"] += 1


def _behind(fact: Event, other: Event) -> bool:
    return bool(fact["at"]["offset"] > other["at"]["offset"])


async def deploy(seed: int, service: Service, report: Report) -> None:
    """9: instances are replaced one by one, while answers run, and nobody notices."""
    async with scene(seed, service, report, tabs=8) as playing:
        kills, answers = seed % 2 == 0, service.deployed_answers
        report.counts["deploys by SIGKILL" if kills else "deploys by SIGTERM"] += 1
        async with asyncio.TaskGroup() as running:
            talks = [running.create_task(_deployed(playing, number)) for number in range(answers)]
            await playing.until(lambda: len(playing.accepted) >= answers // 3, "answers run")
            for instance in playing.random.sample(list(service.instances), len(service.instances)):
                await _replace(instance, playing, kills=kills)
            report.counts["answers running after a deploy"] += sum(not talk.done() for talk in talks)
        report.counts["deployed answers"] += answers
        failed = [fact for fact in playing.ledger.facts.values() if fact["type"] == "completion.failed"]
        assert not failed, failed
        errors = [event for tab in playing.tabs for event in tab.seen if event["type"] == "error"]
        assert not errors, errors


async def _deployed(playing: Scene, number: int) -> None:
    """Talk in a conversation of its own while the deploy goes on."""
    text, pieces = playing.text(), playing.pieces(30, 80)
    playing.teach(text, pieces, pause_seconds=playing.random.uniform(0.02, 0.05))
    sender = playing.tabs[number % len(playing.tabs)]
    accepted = await playing.say(sender, text)
    await _whole(playing, accepted["answer"], pieces)


async def _replace(instance: Instance, playing: Scene, *, kills: bool) -> None:
    """End an instance and have a new one in its place."""
    at = playing.now
    if kills:
        await instance.kill()
    else:
        instance.terminate()
        code = await instance.ended(seconds=EXIT_SECONDS)
        assert code == 0, f"instance {instance.port} ended with {code}:\n{instance.text[-2000:]}"
        playing.report.figures["exit after SIGTERM"].append(playing.now - at)
    await instance.start()
