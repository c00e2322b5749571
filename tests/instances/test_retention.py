"""How long everything lives that instances write: each key is one that ARCHITECTURE.md tells of, and lasts as it says."""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import pytest

from llmchat.keys import Keys
from tests.conftest import Connect, StartInstance
from tests.fakes import Gate, Model, Reasoning
from tests.instances import Client, Store
from tests.instances.child import Child
from tests.instances.instance import ROOT
from tests.instances.talk import begin, send
from tests.instances.test_attachments import attach
from tests.instances.test_openid import go
from tests.instances.test_sign_in import PASSWORD, sign_in
from tests.instances.test_summaries import Talk
from tests.instances.test_takeout import bring, have_everything
from tests.provider import Provider
from tests.test_docs import ARCHITECTURE, rows
from tests.trunk import as_json, ours
from tests.waiting import eventually

MINUTE, HOUR, DAY = 60, 3600, 86_400
HISTORY_DAYS, ATTACHMENT_DAYS = 300, 200
DAYS = {"HISTORY_DAYS": HISTORY_DAYS, "ATTACHMENT_DAYS": ATTACHMENT_DAYS}
KEPT = {name: str(days) for name, days in DAYS.items()}
SETTINGS = {
    "ACCESS_PASSWORD": PASSWORD,
    "SHARE_LINKS": "true",
    "TITLE_MODEL": "",
    "CONTEXT_TOKENS": "1000",
    "SYSTEM_PROMPT": "Be kind.",
    "PROMPTS_PER_MINUTE": "1000",
    "CONNECTIONS_PER_MINUTE": "1000",
    "FRAMES_PER_MINUTE": "10000",
    "ANSWERS_AT_ONCE": "10",
    "TOKENS_PER_DAY": "1000000",
}
FOR_EVER = 0
HISTORY, FILES, PERSON = "HISTORY_DAYS", "ATTACHMENT_DAYS", "a login longer than HISTORY_DAYS"
LOGIN_DAYS = 30
CHAT = "llmchat:{conversation.<conversation>}"
SESSION = "llmchat:{session.<session>}"
LASTS: dict[str, tuple[int | str, ...]] = {
    **{
        f"{CHAT}:{name}": (HISTORY, HOUR, 30)  # kept, temporary, deleted
        for name in (
            "conversation",
            "messages",
            "tree",
            "turn",
            "queue",
            "text",
            "reasoning",
            "summaries",
            "fold",
        )
    },
    f"{CHAT}:log": (10 * MINUTE, 30),
    f"{CHAT}:fence": (DAY,),
    f"{CHAT}:fold-fence": (DAY,),
    f"{CHAT}:lease": (2,),
    f"{CHAT}:fold-lease": (2,),
    f"{SESSION}:conversations": (HISTORY,),
    f"{SESSION}:pinned": (HISTORY,),
    f"{SESSION}:archived": (HISTORY,),
    f"{SESSION}:format": (HISTORY,),
    f"{SESSION}:prompts": (HISTORY,),
    f"{SESSION}:shares": (HISTORY,),
    f"{SESSION}:revoked": (HISTORY,),
    f"{SESSION}:temporary": (HOUR,),
    f"{SESSION}:loose": (HOUR,),
    f"{SESSION}:coming": (2 * HOUR,),
    "llmchat:{share.<token>}:share": (HISTORY, 30),
    "llmchat:{attachment.<attachment>}:facts": (FILES, DAY, 30),
    "llmchat:{attachment.<attachment>}:bytes": (FILES, DAY, 30),
    f"{SESSION}:attachments": (FILES,),
    "llmchat:{attachments}": (FILES,),
    "llmchat:sign-outs:<session>": (30 * DAY,),
    "llmchat:{probe}": (1,),
    "llmchat:static:<version>": (2 * DAY,),
    "llmchat:limit:<kind>:<who>": (MINUTE,),
    f"{SESSION}:leaving": (HISTORY,),
    f"{SESSION}:moved": (400 * DAY,),
    f"{SESSION}:formers": (400 * DAY,),
    f"{SESSION}:logins": (30 * DAY,),
    "llmchat:person:<digest>": (PERSON,),
    "llmchat:answering:<who>": (6 * MINUTE,),
    "llmchat:spent:<day>:<who>": (2 * DAY,),
    "llmchat:work": (FOR_EVER,),
    "llmchat:folds": (FOR_EVER,),
}
"""Every row of ARCHITECTURE.md's table of keys: in seconds or by a setting, how long such a key may have to live."""
PASSING = {f"{CHAT}:fold-lease", f"{SESSION}:coming", f"{SESSION}:leaving", "llmchat:{probe}"}
"""What is there for moments: it is looked at where it is met."""
LATE = 5 * MINUTE
"""How much of its life the oldest may have had when it is looked at."""


def kinds_told() -> list[str]:
    """Name what ARCHITECTURE.md tells of."""
    below = ARCHITECTURE.split("| key | type | what | until |\n", 1)[1].split("\n\n", 1)[0]
    return [key for cells in rows(below) for key in re.findall(r"`(llmchat:[^`]+)`", cells[0])]


def kind_of(key: str) -> str:
    """Tell which row tells of a key."""
    for kind in LASTS:
        pattern = re.sub(r"<\w+>", r"[\\w.:-]+", re.sub(r"([{}.])", r"\\\1", kind))
        if re.fullmatch(pattern + ("(:bytes)?" if "attachments" in kind else ""), key):
            return kind
    raise AssertionError(f"ARCHITECTURE.md tells nothing of {key}")


@dataclass
class Walk:
    """Looks at every key of a store, at moments, and keeps what each has to live."""

    store: Store
    left: dict[str, dict[str, list[float]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(list))
    )
    """kind → key → seconds, at each look; -1 is for ever"""

    async def look(self) -> None:
        """Look now."""
        async with self.store.client() as redis:
            for key in [key.decode() async for key in redis.scan_iter(count=1000)]:
                if (ms := await redis.pttl(key)) != -2:
                    self.left[kind_of(key)][key].append(ms if ms == -1 else ms / 1000)

    def wrong(self, days: dict[str, int]) -> Iterator[str]:
        """Tell what lives neither as long as one of its row's times, nor up to LATE less."""
        for kind, keys in self.left.items():
            days = {**days, PERSON: days[HISTORY] and days[HISTORY] + LOGIN_DAYS}
            may = [days[each] * DAY if isinstance(each, str) else each for each in LASTS[kind]]
            for key, looks in keys.items():
                for left in looks:
                    if not any(
                        left == -1 if each == FOR_EVER else each - LATE <= left <= each for each in may
                    ):
                        yield f"{key}: {left} s"


async def say_everything(client: Client, model: Model, walk: Walk) -> None:
    """Have a session do all there is to do, and look at the keys while it lasts."""
    talk = Talk(client, model)
    await talk.turn()
    chat = talk.about["conversation"]
    await have_everything(client, chat)
    await client.command("completion.regenerate", conversation=chat, message=talk.answers[0])
    await client.event("completion.finished")
    await client.command("conversation.list")
    deleted = await begin(client, "Dropped")
    await client.command("share.create", conversation=deleted)
    await client.command("conversation.delete", conversation=deleted)
    await bring(client, as_json([ours(id="elsewhere")]))
    link = (await client.command("share.create", conversation=chat))["share"]["id"]
    await client.command("share.revoke", share=link)
    gate = Gate()
    model.answer(Reasoning("Let me think."), "Half ", gate, "and whole", to="Slowly")
    running = await send(client, chat, "Slowly")
    await client.until(lambda: client.text(running) == "Half ")
    await send(client, chat, "And this, later")
    await walk.look()
    gate.open()
    await client.ending(running)
    summary = Gate()
    model.summarise(summary, "They like tea.")
    talk = Talk(client, model)
    await talk.until_folded()
    await walk.look()
    summary.open()
    await talk.stored()
    await client.page("/sign-out", method="POST")
    await walk.look()


def test_every_row_of_the_table_of_keys_is_looked_at() -> None:
    assert sorted(LASTS) == sorted(kinds_told())


@pytest.mark.parametrize(
    "days",
    [
        pytest.param(KEPT, id="days"),
        pytest.param({"HISTORY_DAYS": "0", "ATTACHMENT_DAYS": "0"}, id="for ever", marks=pytest.mark.long),
    ],
)
async def test_every_key_lives_as_long_as_the_table_says(
    fresh_store: Store, start_instance: StartInstance, connect: Connect, model: Model, days: dict[str, str]
) -> None:
    async with Provider() as provider, AsyncExitStack() as leaving:
        instance = await start_instance(fresh_store, **provider.environment(**SETTINGS, **days))
        client, other = Client(), Client()
        walk = Walk(fresh_store)
        for each in (client, other):
            leaving.push_async_callback(each.close)
            each.instance = instance
            assert await sign_in(each) == 303
            await each.connect(instance)
        await say_everything(client, model, walk)
        await begin(other, "Mine, in all browsers")
        assert (await other.page(await go(other))).status == 303
        assert (await other.page("/")).status == 200
        await walk.look()
    assert list(walk.wrong({name: int(each) for name, each in days.items()})) == []
    assert set(LASTS) - set(walk.left) <= PASSING


async def operator(store: Store, *words: str, **environment: str) -> tuple[int, list[str]]:
    """Have an operator say something; gives the exit code, and what is printed."""
    env = {"PATH": "/usr/bin:/bin", "REDIS_URL": store.url, **environment}
    child = Child(sys.executable, "-m", "llmchat", *words, env=env, folder=ROOT)
    await child.start()
    try:
        return await child.ended(), child.lines
    finally:
        await child.close()


@pytest.mark.long
async def test_days_that_changed_count_for_what_is_used_next_and_by_the_command_for_all_that_is_there(
    fresh_store: Store, start_instance: StartInstance, connect: Connect
) -> None:
    forever, few, many = ({"HISTORY_DAYS": days, "ATTACHMENT_DAYS": "0"} for days in ("0", "30", "60"))
    instance = await start_instance(fresh_store, **forever)
    client = await connect(instance)
    await client.page("/")
    used, unused = await begin(client, "Used"), await begin(client, "Not used")
    await have_everything(client, unused)
    await instance.stop()
    instance = await start_instance(fresh_store, **few)
    await client.reconnect(instance)
    await client.ending(await send(client, used, "More"))

    async def days_left() -> list[int]:
        async with fresh_store.client() as redis:
            keys = [Keys("llmchat").of_conversation(each) for each in (used, unused)]
            lefts = [await redis.ttl(key) for each in keys for key in (each.messages, each.tree)]
            return [left if left < 0 else round(left / DAY) for left in lefts]

    assert await days_left() == [30, 30, -1, -1]

    code, told = await operator(fresh_store, "retention", **few)
    assert (code, told) == (2, ["llmchat: Nothing was deleted. Where nobody can be asked, say --yes."])
    code, (told,) = await operator(fresh_store, "retention", "--dry-run", **few)
    assert (code, told.partition(":")[0]) == (
        0,
        "Would be shortened to HISTORY_DAYS=30 and ATTACHMENT_DAYS=0",
    )
    assert await days_left() == [30, 30, -1, -1]
    code, (done,) = await operator(fresh_store, "retention", "--yes", **few)
    assert (code, done) == (0, told.replace("Would be shortened", "Shortened"))
    assert await days_left() == [30, 30, 30, 30]
    walk = Walk(fresh_store)
    await walk.look()
    assert list(walk.wrong({"HISTORY_DAYS": 30, "ATTACHMENT_DAYS": 30})) == []
    code, (again,) = await operator(fresh_store, "retention", "--yes", **few)
    assert "0 chats, 0 shared links, 0 files, 0 lists" in again
    code, (told,) = await operator(fresh_store, "retention", "--yes", **forever)
    assert (code, "kept too long: set the days" in told) == (2, True)

    await instance.stop()
    instance = await start_instance(fresh_store, **many)
    await client.reconnect(instance)
    await client.ending(await send(client, used, "And more"))
    assert await days_left() == [60, 60, 30, 30]


async def test_one_more_turn_renews_all_that_a_chat_has_and_the_lists_that_lead_to_it(
    fresh_store: Store, start_instance: StartInstance, connect: Connect, model: Model
) -> None:
    instance = await start_instance(fresh_store, **{**SETTINGS, **KEPT, "ACCESS_PASSWORD": ""})
    client = await connect(instance)
    await client.page("/")
    talk = Talk(client, model)
    await talk.turn()
    await client.command("conversation.list")
    chat = talk.about["conversation"]
    for change in ({"pinned": True}, {"archived": True}, {"archived": False}):
        await client.command("conversation.update", conversation=chat, **change)
    await talk.until_folded()
    await talk.stored()
    file = await attach(client, b"A short text", name="a.txt")
    await talk.turn(attachments=[file])

    keys = Keys("llmchat")
    async with fresh_store.client() as redis:
        session = (await redis.hget(keys.of_conversation(chat).conversation, "session")).decode()
        of_chat = keys.of_conversation(chat)
        renewed = [
            *(of_chat.conversation, of_chat.messages, of_chat.tree, of_chat.summaries),
            *(
                keys.conversations(session),
                keys.pinned(session),
                keys.archived(session),
                keys.format(session),
            ),
            *(keys.attachment(file), keys.attachment_bytes(file)),
        ]
        for key in renewed:
            assert await redis.expire(key, 2 * HOUR), key
    await talk.turn()
    walk = Walk(fresh_store)

    async def all_renewed() -> bool:
        walk.left.clear()
        await walk.look()
        return not list(walk.wrong(DAYS))

    await eventually(all_renewed, seconds=20, what=lambda: f"all is renewed: {list(walk.wrong(DAYS))}")
