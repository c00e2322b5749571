"""Chats packed and unpacked, and let go of, on a fake Redis; that of real servers is in tests/instances/."""

from __future__ import annotations

import asyncio
import io
import json
import threading
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from fakeredis import FakeAsyncRedis
from hypothesis import given, settings
from hypothesis import strategies as st

from llmchat import import_file, intake, takeout, transcripts
from llmchat.conversation import derived_id
from llmchat.errors import Unavailable
from llmchat.import_file import BROKEN, LeftOut
from llmchat.intake import AWAY, DELETED, FORGOTTEN, LONG_SYSTEM, NEWER, SAME, TOLD
from llmchat.title import has_word, one_line
from tests.pictures import PNG
from tests.trunk import Trunk, as_json, chatgpt, message, ours, zipped

HISTORY: dict[str, Any] = {
    "session": "alice",
    "new": True,
    "title": "t",
    "answer": "a1",
    "model": "m",
    "parent": "",
}


@pytest.fixture
def trunk(fake_redis: FakeAsyncRedis) -> Trunk:
    return Trunk(fake_redis)


# There and back


@st.composite
def chats(draw: st.DrawFn) -> dict[str, Any]:
    """Make a chat as one may be here: a tree in which prompts and answers take turns."""
    text = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
    messages: list[dict[str, Any]] = []
    for at in range(draw(st.integers(1, 6))):
        answers = [None, *(each["id"] for each in messages if each["role"] == "assistant")]
        prompt = message(f"p{at}", draw(st.sampled_from(answers)), text=draw(text), state="done")
        messages.append(prompt)
        for number in range(draw(st.integers(1, 3))):
            answer = message(
                f"a{at}.{number}", f"p{at}", "assistant", draw(text), state="done", model=draw(text)
            )
            answer |= draw(
                st.sampled_from(
                    [
                        {"finish_reason": "stop", "seconds": 1.5},
                        {"finish_reason": "length", "reasoning": "Hm", "reasoning_seconds": 0.1},
                        {"finish_reason": "stop", "usage": {"prompt_tokens": 3, "completion_tokens": 4}},
                        {
                            "state": "failed",
                            "error": {"code": "internal", "detail": "No.", "retryable": True},
                        },
                    ]
                )
            )
            messages.append(answer)
    leaves = {each["id"] for each in messages} - {each["parent"] for each in messages}
    return ours(
        *messages,
        id=draw(st.text(st.characters(codec="utf-8"), min_size=1, max_size=10)),
        title=draw(text.map(one_line).filter(has_word)),
        model=draw(text),
        system=draw(st.none() | text),
        parameters=draw(st.sampled_from([{}, {"temperature": 0.5, "max_tokens": 9}])),
        pinned=draw(st.booleans()),
        archived=draw(st.booleans()),
        current=draw(st.sampled_from(sorted(leaves))),
    )


def nameless(chat: dict[str, Any]) -> dict[str, Any]:
    """Put numbers in the place of ids."""
    order = {each["id"]: at for at, each in enumerate(in_order(chat["messages"]))}
    shown = [
        each | {"id": order[each["id"]], "parent": order.get(each["parent"])} for each in chat["messages"]
    ]
    shown.sort(key=lambda each: each["id"])
    return chat | {"id": None, "current": order[chat["current"]], "messages": shown}


def in_order(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give each message behind its parent, siblings as they come."""
    placed: list[dict[str, Any]] = []

    def place(parent: str | None) -> None:
        for each in messages:
            if each["parent"] == parent:
                placed.append(each)
                place(each["id"])

    place(None)
    return placed


@given(st.lists(chats(), min_size=1, max_size=3, unique_by=lambda chat: chat["conversation"]["id"]))
@settings(max_examples=25, deadline=None)
def test_what_is_exported_imported_and_exported_again_is_the_same(told: list[dict[str, Any]]) -> None:
    async def there_and_back() -> None:
        async with FakeAsyncRedis() as redis:
            trunk = Trunk(redis)
            report = await trunk.take(as_json(told))
            assert (report.imported, report.lost) == (len(told), [])
            first = await trunk.give("alice")
            packed = b"".join([piece async for piece in trunk.takeout.archive("alice")])
            assert (await trunk.take(packed, "bob")).imported == len(told)
            second = await trunk.give("bob")
            given = sorted(json.dumps(nameless(each["conversation"]), sort_keys=True) for each in told)
            for found in (first, second):
                chats = [
                    json.loads(body)["conversation"] for name, body in found.items() if name.endswith("json")
                ]
                assert sorted(json.dumps(nameless(each), sort_keys=True) for each in chats) == given
            again = await trunk.take(packed, "bob")
            assert (again.imported, again.already_here) == (0, len(told))
            assert (await trunk.take(packed, "alice")).already_here == len(told)  # its own

    asyncio.run(there_and_back())


async def test_imported_chat_is_read_as_any_other(trunk: Trunk) -> None:
    await trunk.take(as_json([chatgpt(is_archived=True, is_starred=True)]))
    conversation = derived_id("import", "alice", "g1")
    branch = await trunk.history.read("alice", conversation, limit=10, max_bytes=10_000)
    assert [each["text"] for each in branch.messages] == ["Ask", "Answer"]
    assert branch.conversation.pinned
    assert branch.conversation.archived
    assert branch.conversation.updated == "2023-11-14T22:15:00.000Z"
    assert (
        await trunk.redis.hget(trunk.keys.of_conversation(conversation).conversation, "titled") == b"person"
    )
    for index in (trunk.keys.conversations, trunk.keys.pinned, trunk.keys.archived):
        assert await trunk.redis.zscore(index("alice"), conversation) == 1_700_000_100_000
    assert not await trunk.redis.exists(trunk.keys.loose("alice"))
    for key in await trunk.redis.keys():
        assert await trunk.redis.pttl(key) > 3_700_000, key
    sent = await trunk.history.send(**HISTORY | {"conversation": conversation, "new": False, "parent": "\0tip"},
                                    message="m9", text="And then?")  # fmt: skip
    assert not sent.repeated
    assert trunk.listing.updates == [conversation]


async def test_long_chats_are_stored_and_read_in_parts(trunk: Trunk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transcripts, "PART_FIELDS", 10)
    chain = [message("0")]
    chain += [
        message(str(at), str(at - 1), "assistant" if at % 2 else "user", f"T{at}") for at in range(1, 200)
    ]
    assert (await trunk.take(as_json(ours(*chain)))).imported == 1
    (chat,) = await trunk.chats()
    assert [each["text"] for each in chat["messages"]] == [each["text"] for each in chain]


async def test_running_and_waiting_messages_are_exported_as_far_as_they_are(trunk: Trunk) -> None:
    await trunk.history.send(**HISTORY, conversation="c", message="m1", text="One")
    await trunk.history.send(**HISTORY | {"new": False, "parent": "\0tip", "answer": "a2"}, conversation="c",
                             message="m2", text="Two")  # fmt: skip
    keys = trunk.keys.of_conversation("c")
    await trunk.redis.hset(
        keys.messages, "a1", as_json(message("a1", "m1", "assistant", "") | {"state": "running"})
    )
    await trunk.redis.hset(keys.tree, "children:m1", "a1")
    await trunk.redis.set(keys.text, "Half of")
    (chat,) = await trunk.chats()
    told = [(each["text"], each["state"]) for each in chat["messages"]]
    assert told == [("One", "done"), ("Half of", "running"), ("Two", "queued")]
    assert [each["parent"] for each in chat["messages"]] == [None, "m1", "a1"]
    markdown = next(body for name, body in (await trunk.give()).items() if name.endswith(".md")).decode()
    assert "*This answer was still being written.*" in markdown
    assert "*This message waited for its turn.*" in markdown


async def test_files_of_messages_travel_in_the_archive(trunk: Trunk) -> None:
    file = await trunk.attachments.put("alice", "k1", "Ä cat.png", PNG)
    await trunk.history.send(
        **HISTORY, conversation="c", message="m1", text="See", attachments=[file.shaped()]
    )
    await trunk.attachments.keep("alice", "c", [file.id])
    found = await trunk.give()
    assert found[f"attachments/{file.id}/A-cat.png"] == PNG
    packed = zipped(found)
    report = await trunk.take(packed, "bob")
    assert (report.imported, report.lost) == (1, [])
    (chat,) = await trunk.chats("bob")
    (told,) = chat["messages"][0]["attachments"]
    (kept,) = await trunk.attachments.find("bob", [told["id"]])
    assert kept is not None
    assert kept.conversation == chat["id"]
    assert await trunk.attachments.read(kept) == PNG

    lone = next(body for name, body in found.items() if name.endswith(".json"))
    report = await trunk.take(lone, "carol")
    assert report.lost == [{"title": "t", "why": "1 file could not be kept."}]
    assert (await trunk.chats("carol"))[0]["messages"][0]["attachments"][0]["name"] == "Ä cat.png"


async def test_temporary_chats_are_in_no_archive_and_can_be_had_alone(trunk: Trunk) -> None:
    await trunk.history.send(**HISTORY, conversation="c", message="m1", text="One")
    await trunk.redis.rename(trunk.keys.conversations("alice"), trunk.keys.temporary("alice"))
    assert await trunk.chats() == []
    outline = await trunk.takeout.outline("alice", "c")
    alone = b"".join([piece async for piece in trunk.takeout.as_json(outline)])
    assert json.loads(alone)["conversation"]["messages"][0]["text"] == "One"


# What does not go well


async def test_what_is_left_out_is_told_by_title_and_reason(trunk: Trunk) -> None:
    report = await trunk.take(
        as_json([ours(), {"title": "Odd"}, ours(id="c2", messages=[]), 7])[:-3] + b", {"
    )
    assert (report.imported, report.left_out) == (1, 3)
    assert [each["title"] for each in report.lost] == ["Odd", "A chat", ""]
    assert report.lost[-1]["why"] == BROKEN
    assert report.reasons == {"This is no conversation.": 1, "It has no messages.": 1, BROKEN: 1}


async def test_chats_that_are_left_out_and_what_is_missing_in_others_are_counted_apart(trunk: Trunk) -> None:
    kept = message("m1"), message("m2", "m1", "assistant")
    torn = [ours(*kept, *[message("x", role="nobody")] * at, id=f"t{at}") for at in (1, 2)]
    report = await trunk.take(as_json([*torn, {"title": " "}, {"title": "Odd"}]))
    assert (report.imported, report.left_out) == (2, 2)
    assert report.reasons == {"This is no conversation.": 2}
    assert report.missing == ["3 messages cannot be read."]
    assert [(each["title"], each["why"]) for each in report.lost] == [
        ("A chat", "1 message cannot be read."), ("A chat", "2 messages cannot be read."),
        ("A chat without a title", "This is no conversation."), ("Odd", "This is no conversation."),
    ]  # fmt: skip


async def test_import_that_broke_off_goes_on(trunk: Trunk) -> None:
    body = as_json([ours(id=f"c{at}", title=f"T{at}") for at in range(5)])
    store, stored = trunk.transcripts._import, 0

    async def fail(*args: Any) -> Any:
        nonlocal stored
        stored += 1
        if stored == 6:  # in the middle of the third
            raise Unavailable
        return await store(*args)

    trunk.transcripts._import = fail  # type: ignore[assignment]
    report = await trunk.take(body)
    assert (report.imported, report.lost) == (2, [{"title": "", "why": AWAY}])
    assert len(await trunk.chats()) == 2
    trunk.transcripts._import = store
    report = await trunk.take(body)
    assert (report.imported, report.already_here, report.lost) == (3, 2, [])
    assert len(await trunk.chats()) == 5
    assert len(await trunk.redis.keys("*:conversation")) == 5


async def test_chat_that_was_stored_and_not_listed_is_listed(trunk: Trunk) -> None:
    list_them = trunk.transcripts.list

    async def fail(*_: Any) -> None:
        raise Unavailable

    trunk.transcripts.list = fail  # type: ignore[method-assign]
    assert (await trunk.take(as_json(ours()))).imported == 0
    trunk.transcripts.list = list_them  # type: ignore[method-assign]
    assert (await trunk.take(as_json(ours()))).imported == 1
    assert len(await trunk.chats()) == 1


async def test_chat_that_was_just_deleted_is_not_brought_back(trunk: Trunk) -> None:
    await trunk.take(as_json(ours()))
    (chat,) = await trunk.chats()
    await trunk.conversations.delete("alice", chat["id"])
    report = await trunk.take(as_json(ours()))
    assert report.lost == [{"title": "A chat", "why": DELETED}]


async def test_chat_whose_deletion_may_be_undone_is_not_imported_beside_it(trunk: Trunk) -> None:
    await trunk.history.send(**HISTORY, conversation="c", message="m1", text="One")
    packed = zipped(await trunk.give())
    await trunk.conversations.delete("alice", "c")
    report = await trunk.take(packed)
    assert (report.imported, report.lost) == (0, [{"title": "t", "why": DELETED}])
    await trunk.conversations.restore("alice", "c")
    again = await trunk.take(packed)
    assert (again.imported, again.already_here, again.lost) == (0, 1, [])
    assert len(await trunk.chats()) == 1


async def test_second_chat_of_a_file_with_the_same_id_is_told_as_left_out(trunk: Trunk) -> None:
    report = await trunk.take(as_json([ours(), ours(message("m1", text="Other words"), title="Twin")]))
    assert (report.imported, report.already_here, report.left_out) == (1, 0, 1)
    assert report.lost == [{"title": "Twin", "why": SAME}]


async def test_newer_version_of_a_chat_that_is_here_is_told_and_an_older_one_is_not(trunk: Trunk) -> None:
    await trunk.take(as_json(ours()))
    report = await trunk.take(as_json(ours(title="Grown", updated="2026-01-04T03:04:05.000Z")))
    assert (report.already_here, report.lost) == (1, [{"title": "Grown", "why": NEWER[0]}])
    for told in ({}, {"updated": "2026-01-02T03:04:05.000Z"}, {"updated": None, "created": None}):
        report = await trunk.take(as_json(ours(**told)))
        assert (report.already_here, report.lost) == (1, [])


async def test_system_prompt_that_may_not_be_typed_is_not_imported(trunk: Trunk) -> None:
    report = await trunk.take(as_json([ours(system="s" * 1001), ours(id="c2", system="s" * 1000)]))
    assert report.imported == 2
    assert report.lost == [{"title": "A chat", "why": LONG_SYSTEM[0]}]
    assert sorted(len(chat["system"] or "") for chat in await trunk.chats()) == [0, 1000]


async def test_repeats_of_an_import_bring_everything_of_a_file_with_too_many_chats(
    trunk: Trunk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_file, "MAX_CONVERSATIONS", 2)
    body = as_json([ours(id=f"c{at}") for at in range(5)])
    reports = [await trunk.take(body) for _ in range(4)]
    assert [(each.imported, each.already_here) for each in reports] == [(2, 0), (2, 2), (1, 4), (0, 5)]
    assert [each.reasons[import_file.TOO_MANY] for each in reports] == [1, 1, 0, 0]


async def test_what_one_answer_after_the_other_repeats_is_exported_and_imported_again(trunk: Trunk) -> None:
    loop = ("the same words again and again, " * 6200)[:190_000]
    turns = [message(f"p{at}") for at in range(8)] + [
        message(f"a{at}", f"p{at}", "assistant", loop) for at in range(8)
    ]
    assert (await trunk.take(as_json(ours(*turns)))).lost == []
    packed = b"".join([piece async for piece in trunk.takeout.archive("alice")])
    assert len(packed) < 16 * 190_000 / 200  # JSON and Markdown
    report = await trunk.take(packed, "bob")
    assert (report.imported, report.lost) == (1, [])
    (chat,) = await trunk.chats("bob")
    assert sum(each["text"] == loop for each in chat["messages"]) == 8


async def test_chat_that_leads_to_itself_is_imported_in_no_circle(trunk: Trunk) -> None:
    like_a_filler = derived_id("filler", "", "user")
    chain = (
        message("a", role="assistant"),
        message(like_a_filler, "a"),
        message("b", like_a_filler, "assistant"),
    )
    async with asyncio.timeout(20):
        assert (await trunk.take(as_json(ours(*chain)))).imported == 1
    (chat,) = await trunk.chats()
    assert [each["role"] for each in chat["messages"]] == ["user", "assistant"] * 2


async def test_large_chat_is_made_ready_for_the_store_in_a_thread(
    trunk: Trunk, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = set()

    def noted(called: Any) -> Any:
        def call(*given: Any) -> Any:
            threads.add(threading.current_thread())
            return called(*given)

        return call

    for room, name in ((intake, "with_ids_of"), (transcripts, "_fields"), (transcripts, "_parts")):
        monkeypatch.setattr(room, name, noted(getattr(room, name)))
    assert (await trunk.take(as_json(ours()))).imported == 1
    assert threads
    assert threading.current_thread() not in threads


async def test_another_sessions_chat_is_neither_read_nor_written(trunk: Trunk) -> None:
    await trunk.history.send(**HISTORY, conversation="c", message="m1", text="Secret")
    assert (await trunk.take(as_json(ours(id="c")), "bob")).imported == 1
    assert [each["messages"][0]["text"] for each in await trunk.chats("bob")] == ["Hi"]
    await trunk.redis.zadd(trunk.keys.conversations("bob"), {"c": 1})
    assert len(await trunk.chats("bob")) == 1
    await trunk.takeout.forget("bob")
    assert [each["messages"][0]["text"] for each in await trunk.chats("alice")] == ["Secret"]


async def test_import_tells_how_far_it_is(trunk: Trunk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "PROGRESS_SECONDS", -1.0)
    body = as_json([ours(id=f"c{at}", system="x" * 50_000) for at in range(5)])
    reports = trunk.intake.read("alice", io.BytesIO(body), len(body))
    told = [(each.imported, each.read, each.done) async for each in reports]
    assert [imported for imported, _, _ in told] == [0, 1, 2, 3, 4, 5, 5]
    read = [read for _, read, _ in told]
    assert read == sorted(read)
    assert (read[0], read[-1]) == (0, len(body))
    assert len(set(read)) > 3
    assert [done for _, _, done in told] == [False] * 6 + [True]


async def test_tabs_are_told_of_the_newest_imports_alone(trunk: Trunk) -> None:
    body = as_json([ours(id=f"c{at}", updated=f"2026-01-{at % 28 + 1:02}T00:00:00.000Z") for at in range(50)])
    await trunk.take(body)
    assert len(trunk.listing.updates) == TOLD
    newest = await trunk.redis.zrevrange(trunk.keys.conversations("alice"), 0, 5)
    assert {each.decode() for each in newest} <= set(trunk.listing.updates)


async def test_import_that_is_given_up_lets_go_of_its_file(trunk: Trunk) -> None:
    body = as_json([ours(id=f"c{at}") for at in range(300)])
    file = io.BytesIO(body)
    reports: AsyncGenerator[Any, None] = trunk.intake.read("alice", file, len(body))
    await anext(reports)
    going = asyncio.ensure_future(anext(reports))
    await asyncio.sleep(0)
    going.cancel()
    await asyncio.wait([going])
    await reports.aclose()
    file.close()  # nobody reads it any more
    assert len(await trunk.redis.keys("*:conversation")) < 300


@pytest.mark.parametrize("part", ["_chat", "_files"])
async def test_archive_that_is_given_up_lets_go_of_its_parts_at_once(
    trunk: Trunk, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    await trunk.take(as_json(ours()))
    ended: list[bool] = []
    monkeypatch.setattr(trunk.takeout, part, lambda *_: noted(b"piece", ended))
    pieces = trunk.takeout.archive("alice")
    while await anext(pieces) != b"piece":
        pass
    await pieces.aclose()
    assert ended == [True]


async def test_import_that_is_given_up_lets_go_of_its_parts_at_once(
    trunk: Trunk, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[bool] = []
    monkeypatch.setattr(intake, "PROGRESS_SECONDS", -1.0)
    monkeypatch.setattr(intake, "_in_thread", lambda _: noted(LeftOut("Odd", "No."), ended))
    reports = trunk.intake.read("alice", io.BytesIO(b"{}"), 2)
    while not (await anext(reports)).left_out:
        pass
    await reports.aclose()
    assert ended == [True]


async def noted(one: Any, ended: list[bool]) -> AsyncGenerator[Any, None]:
    """Give one thing, and note the end."""
    try:
        yield one
    finally:
        ended.append(True)


# Letting go


async def test_forgetting_leaves_no_key_of_the_session(trunk: Trunk) -> None:
    keys, redis = trunk.keys, trunk.redis
    picture = await trunk.attachments.put("alice", "k1", "cat.png", PNG)
    others = await trunk.attachments.put("bob", "k1", "cat.png", PNG)
    await trunk.history.send(
        **HISTORY, conversation="c", message="m1", text="One", attachments=[picture.shaped()]
    )
    await trunk.history.send(**HISTORY | {"session": "bob"}, conversation="b", message="m1", text="One")
    await trunk.take(as_json([ours(id="x", pinned=True, archived=True)]))
    await trunk.history.send(**HISTORY, conversation="d", message="m1", text="Deleted")
    await trunk.conversations.delete("alice", "d")
    await trunk.erasure.note("alice", "d")
    await redis.zadd(keys.temporary("alice"), {"t": 1})
    for conversation in ("c", "t"):
        for key in vars_of(trunk, conversation):
            if not await redis.exists(key):
                await redis.set(key, "1")
    await redis.delete(keys.of_conversation("t").conversation)
    await redis.zadd(keys.folds, {"c": 1, "b": 1})
    await redis.hset(keys.shares("alice"), "token", "{}")
    await redis.hset(keys.share("token"), "title", "t")
    await redis.hset(keys.share("other"), "title", "t")
    for key in (
        keys.prompts("alice"),
        keys.format("alice"),
        keys.limit("prompts", "alice"),
        keys.sign_outs("alice"),
    ):
        await redis.set(key, "1")

    assert await trunk.takeout.forget("alice") == 4
    left = {key.decode() for key in await redis.keys()}
    told = {
        *(key for key in vars_of(trunk, "b") if key.rpartition(":")[2] in ("conversation", "messages", "tree", "log", "turn")),
        keys.conversations("bob"), keys.attachment(others.id), keys.attachment_bytes(others.id),
        keys.attachments_of("bob"), f"{keys.attachments_of('bob')}:bytes", keys.attachments, f"{keys.attachments}:bytes",
        keys.share("other"), keys.sign_outs("alice"), keys.work, keys.folds,
    }  # fmt: skip
    assert left == told
    assert await redis.zrange(keys.work, 0, -1) == await redis.zrange(keys.folds, 0, -1) == [b"b"]
    assert int(await redis.get(f"{keys.attachments}:bytes")) == len(PNG)
    assert set(trunk.listing.deletions) >= {"c", "d", "t"}
    assert await trunk.takeout.forget("alice") == 0


async def test_what_comes_for_longer_than_its_note_is_kept_is_wanted_all_the_same(trunk: Trunk) -> None:
    async with trunk.arrivals.expect("alice") as arrival:
        await trunk.redis.zadd(trunk.keys.coming("alice"), {arrival.id: 1})  # long ago
        assert await trunk.arrivals.wanted(arrival)
        async with trunk.arrivals.expect("alice"):
            assert await trunk.arrivals.wanted(arrival)


@pytest.mark.parametrize("call", range(1, 8))
@pytest.mark.parametrize("way", ["_import", "_keep", "list", "put"])
async def test_import_that_began_before_everything_was_deleted_stores_nothing_after_it(
    trunk: Trunk, monkeypatch: pytest.MonkeyPatch, way: str, call: int
) -> None:
    monkeypatch.setattr(takeout, "SECOND_LOOK_SECONDS", 0)
    monkeypatch.setattr(transcripts, "PART_FIELDS", 3)
    file = {"id": "f1", "name": "cat.png", "type": "image/png", "size": len(PNG)}
    chats = [ours(message("m1", attachments=[file]), id=f"c{at}", pinned=True) for at in range(4)]
    packed = zipped({"chats/1.json": as_json(chats), "attachments/f1/cat.png": PNG})
    of = trunk.transcripts if way in ("_import", "list") else trunk.attachments
    wrapped, calls = getattr(of, way), 0

    async def meanwhile(*args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            await trunk.takeout.forget("alice")
        return await wrapped(*args, **options)

    monkeypatch.setattr(of, way, meanwhile)
    report = await trunk.take(packed)
    if calls < call:
        assert report.imported == 4
        return
    assert report.lost == [{"title": "", "why": FORGOTTEN}]
    assert report.imported == 0
    assert trunk.listing.updates == []
    assert await trunk.redis.keys() == []
    monkeypatch.undo()
    assert (await trunk.take(packed)).imported == 4


async def test_what_comes_leaves_no_note_and_knows_whether_everything_was_deleted(trunk: Trunk) -> None:
    expect, wanted = trunk.arrivals.expect, trunk.arrivals.wanted
    async with expect("alice") as first, expect("bob") as bobs:
        assert 0 < await trunk.redis.pttl(trunk.keys.coming("alice")) <= 2 * 3_600_000
        assert await wanted(first)
        await trunk.takeout.forget("alice")
        async with expect("alice") as later:
            assert [await wanted(each) for each in (first, bobs, later)] == [False, True, True]
        assert not await wanted(first)
    assert await trunk.redis.keys() == []


async def test_some_files_of_a_session_are_let_go_of_and_no_others(trunk: Trunk) -> None:
    one, other = [await trunk.attachments.put("alice", key, "cat.png", PNG) for key in ("k1", "k2")]
    await trunk.attachments.erase("alice", [one.id])
    assert [each is None for each in await trunk.attachments.find("alice", [one.id, other.id])] == [
        True,
        False,
    ]


def vars_of(trunk: Trunk, conversation: str) -> list[str]:
    """Name all keys of a conversation."""
    keys = trunk.keys.of_conversation(conversation)
    return [getattr(keys, name) for name in keys.__slots__ if name != "channel"]


async def test_what_another_import_left_behind_is_no_part_of_a_chat(trunk: Trunk) -> None:
    keys = trunk.keys.of_conversation(derived_id("import", "alice", "c1"))
    await trunk.redis.hset(keys.tree, "stale", "user ")
    await trunk.redis.hset(keys.messages, "stale", "{}")
    assert (await trunk.take(as_json(ours()))).imported == 1
    assert not await trunk.redis.hexists(keys.tree, "stale")
    assert not await trunk.redis.hexists(keys.messages, "stale")
