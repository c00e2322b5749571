"""A conversation as JSON and Markdown, and read again; ChatGPT's read as ours. Plain functions."""

from __future__ import annotations

import json
import time
import tracemalloc
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from llmchat import chatgpt, transcript
from llmchat.conversation import derived_id
from llmchat.errors import Unreadable
from llmchat.message_tree import MAX_MESSAGES, MAX_TEXT_BYTES, NO_PROMPT
from llmchat.transcript import Transcript, closed, disposition, file_name
from tests.trunk import chatgpt as old_chat
from tests.trunk import message, node, ours


def lines(found: Transcript) -> list[tuple[str, str]]:
    """Give roles and texts, in order."""
    return [(each["role"], each["text"]) for each in found.messages]


def markdown(found: Transcript) -> str:
    return transcript.heading(found) + "".join(map(transcript.section, found.messages))


def test_chat_keeps_every_field_it_may_have() -> None:
    told = ours(
        message("m1", attachments=[{"id": "f1", "name": "cat.png", "type": "image/png", "size": 5}]),
        message(
            "m2", "m1", "assistant", "Yes", model="gpt-4o", finish_reason="length", seconds=1.5, reasoning="Hm",
            reasoning_seconds=0.5, usage={"prompt_tokens": 1, "completion_tokens": 2}, state="done",
        ),
        message(
            "m3", "m1", "assistant", "", model="gpt-4o", state="failed",
            error={"code": "provider_auth", "detail": "No.", "retryable": False},
        ),
        system="Be short.", parameters={"temperature": 0.5}, pinned=True, archived=True, model="gpt-4o", current="m2",
    )  # fmt: skip
    found = transcript.read(told)
    text = transcript.opening(found) + "".join(
        transcript.line(each, first=not at) for at, each in enumerate(found.messages)
    )
    again = json.loads(text + transcript.CLOSING)
    assert transcript.read(again) == found
    assert found.lost == ()
    for name, value in told["conversation"].items():
        if name != "messages":
            assert again["conversation"][name] == value
    for before, after in zip(
        told["conversation"]["messages"], again["conversation"]["messages"], strict=True
    ):
        assert before.items() <= after.items()


@pytest.mark.parametrize(
    "told",
    [
        [], 5, "x", None, {}, {"format": "llmchat"}, {"format": "other", "version": 1, "conversation": {}},
        ours(messages=[]), ours(messages="x"), ours(messages=[1, None, {}]), ours(message("a", role="system")),
        ours(message("a", text=5)), ours(message("a", text="")),
        ours() | {"version": 2}, ours() | {"version": "1"}, ours() | {"conversation": []},
    ],
)  # fmt: skip
def test_what_is_no_chat_is_told_in_a_sentence(told: Any) -> None:
    with pytest.raises(Unreadable) as caught:
        transcript.read(told)
    assert caught.value.why.endswith(".")


def test_messages_that_are_broken_are_left_out_and_told() -> None:
    found = transcript.read(
        ours(
            message("a"),
            message("a", text="twice"),
            message("b", "a", "assistant", "Yes"),
            message("x", "y", text="in a circle"),
            message("y", "x", "assistant", "in a circle"),
            message("z", "z", text="its own parent"),
            message("w", "b", "tool"),
            message(7),
            message("lost", "nowhere", text="Begins a branch"),
            current="nowhere",
        )
    )
    texts = [text for _, text in lines(found)]
    assert texts == ["Hi", "Yes", "Begins a branch", ""]
    assert [str(each) for each in found.lost] == ["6 messages cannot be read."]


def test_prompts_and_answers_take_turns_whatever_came() -> None:
    found = transcript.read(
        ours(
            message("a", role="assistant", text="First"),
            message("b", "a", "assistant", "Second"),
            message("c", "a", "assistant", "Other"),
            message("d", "c", text="One"),
            message("e", "d", text="Two"),
            current="e",
        )
    )
    assert lines(found) == [
        ("user", NO_PROMPT), ("assistant", "First"), ("user", NO_PROMPT), ("assistant", "Second"),
        ("assistant", "Other"), ("user", "One"), ("assistant", ""), ("user", "Two"), ("assistant", ""),
    ]  # fmt: skip
    roles = {each["id"]: each["role"] for each in found.messages}
    for each in found.messages:
        assert roles.get(each["parent"], "assistant") != each["role"]
    assert found.current == found.messages[-1]["id"]


def test_no_message_has_the_id_of_what_stands_in_for_one_that_lacks() -> None:
    like_a_filler = derived_id("filler", "", "user")
    told = ours(
        message("a", role="assistant"), message(like_a_filler, "a"), message("b", like_a_filler, "assistant")
    )
    found = transcript.read(told)
    names = [each["id"] for each in found.messages]
    assert len(set(names)) == len(names) == 4
    for at, each in enumerate(found.messages):
        assert each["parent"] in {None, *names[:at]}
    assert found.current == names[-1]


@pytest.mark.parametrize("odd", [[], {}, ["x"], {"x": 1}, 5, True, None])
def test_fields_of_another_type_are_as_good_as_missing(odd: Any) -> None:
    file = {"id": "f", "name": "cat.png", "type": "image/png", "size": 5}
    for name in message("b") | {
        "finish_reason": "",
        "state": "",
        "error": "",
        "attachments": "",
        "usage": "",
    }:
        found = transcript.read(ours(message("a"), message("b", "a", "assistant") | {name: odd}))
        assert lines(found)[0] == ("user", "Hi")
    for name in file:
        found = transcript.read(ours(message("a", attachments=[file | {name: odd}])))
        assert lines(found)[0] == ("user", "Hi")
    for name in ("author", "content", "create_time", "recipient", "metadata"):
        found = chatgpt.read(old_chat(node("p", None, "a", role="user", text="Ask"),
                                      node("a", "p", role="assistant", **{name: odd} if name != "author" else {})))  # fmt: skip
        assert lines(found)[0] == ("user", "Ask")
    for name, whole in (
        ("content_type", {"content": {"content_type": odd}}),
        ("role", {"author": {"role": odd}}),
    ):
        found = chatgpt.read(
            old_chat(node("p", None, "a", role="user", text="Ask"), node("a", "p", role="user", **whole))
        )
        assert lines(found)[0] == ("user", "Ask"), name


@pytest.mark.parametrize(
    "title", ["\u200b", "\u202e\u202d", "\u0301", "\ufffc", "\ufe0f", "", None, 5, ["x"]]
)
def test_title_of_which_nothing_is_seen_is_none(title: Any) -> None:
    assert transcript.read(ours(title=title)).title == chatgpt.read(old_chat(title=title)).title == "New chat"


def test_what_was_running_broke_off_when_it_was_exported() -> None:
    found = transcript.read(ours(message("a"), message("b", "a", "assistant", "Half", state="running")))
    assert found.messages[1]["state"] == "done"
    assert found.messages[1]["finish_reason"] == "interrupted"


def test_long_texts_are_cut_and_too_many_messages_refused() -> None:
    found = transcript.read(ours(message("a", text="ä" * MAX_TEXT_BYTES)))
    assert len(found.messages[0]["text"].encode()) == MAX_TEXT_BYTES
    assert [str(each) for each in found.lost] == ["1 message is too long, and was cut."]
    with pytest.raises(Unreadable):
        transcript.read(ours(*(message(f"m{at}") for at in range(MAX_MESSAGES + 1))))
    chain = [message(str(at), str(at - 1), "assistant" if at % 2 else "user") for at in range(MAX_MESSAGES)]
    assert len(transcript.read(ours(*chain)).messages) == MAX_MESSAGES  # no recursion


@pytest.mark.parametrize(
    "odd", [None, "soon", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", -5, 1e300, True, []]
)
def test_times_that_cannot_be_are_replaced(odd: Any) -> None:
    found = transcript.read(ours(message("a") | {"created": odd}, created=odd, updated=odd))
    for told in (found.created, found.updated, found.messages[0]["created"]):
        assert "2026" <= told[:4] <= "2100"
    assert chatgpt.read(old_chat(create_time=odd, update_time=odd)).created[:4] >= "2023"


def test_chat_without_an_id_is_known_by_what_it_is_and_takes_no_more_memory_for_that() -> None:
    told = ours(*(message(f"m{at}", text="𝕏" * 500_000) for at in range(8)), id=None)
    tracemalloc.start()
    found = transcript.read(told)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.id == derived_id(json.dumps(told["conversation"], sort_keys=True))
    assert found.id != transcript.read(ours(message("m1"), id=None)).id
    assert peak < 30_000_000  # of 16


def test_odd_values_are_left_out() -> None:
    found = transcript.read(
        ours(
            message("a", attachments=[1, {"id": 5}, {"id": "f", "name": "../x\0.png", "type": "image/png", "size": -1}]),
            message("b", "a", "assistant", "x\ud800y", usage={"prompt_tokens": -1}, seconds="1", finish_reason="odd",
                    state="failed"),
            title=" \n ", system=["s"], parameters={"temperature": 9}, model=5,
        )
    )  # fmt: skip
    assert found.title == "New chat"
    assert (found.system, found.parameters, found.model) == (None, {}, "")
    assert found.messages[0]["attachments"] == [{"id": "f", "name": "x .png", "type": "image/png", "size": 0}]
    assert found.messages[1]["text"] == "x?y"
    assert found.messages[1]["finish_reason"] == "stop"
    assert {"usage", "seconds", "error"}.isdisjoint(found.messages[1])


# Markdown


def test_markdown_has_the_words_and_says_what_is_no_whole_answer() -> None:
    found = transcript.read(
        ours(
            message("a", text="# Not a title\n```py\nx = 1"),
            message("b", "a", "assistant", "| a |\n|---|\n| b |", model="gpt-4o", finish_reason="length"),
            title="A *star*", system="Be short.",
        )
    )  # fmt: skip
    text = markdown(found)
    assert text.startswith("# A \\*star\\*\n")
    assert "## System prompt\n\nBe short." in text
    assert "# Not a title\n```py\nx = 1\n```\n" in text
    assert "## Answer (gpt-4o) · 2026-01-02 03:04 UTC\n\n| a |\n|---|\n| b |" in text
    assert "*This answer ends before its end.*" in text


MARKS = [
    "```", "~~~", "````", "``` py", "    ```", "  ```", "\t~~~", "- ```", "> ```", "1. ~~~", "```` `", "- x", "  y", "> q",
    "<!--", "-->", "<!-->", "<pre>", "</PRE>", "<Script x", "</script>", "<style>", "<textarea>", "<![CDATA[", "]]>", "<?",
    "?>", "<!X", ">", " <!-- a", "- <pre>", "<details>", "a", "", "| a |", "|---|", "[a]: b", "===", "# t",
]  # fmt: skip
LINE_ENDS = ["\n", "\n", "\n", "\r", "\r\n", "\n\n", "\u2028", "\x0b", "\x0c", "\x85", " "]
TEXTS = st.lists(st.sampled_from(MARKS) | st.text(max_size=9), max_size=8).flatmap(
    lambda parts: st.lists(st.sampled_from(LINE_ENDS), min_size=len(parts), max_size=len(parts)).map(
        lambda ends: "".join(part + end for part, end in zip(parts, ends, strict=True))
    )
)
NEXT = "<h2>Answer · 2026-01-02 03:04 UTC</h2>\n<p>Words of the next</p>\n"


def check_next(text: str, **fields: Any) -> None:
    """Check that what follows a message is read as what it is, by readers that know HTML and by those that do not."""
    told = transcript.section(message("a", text=text, **fields)) + transcript.section(
        message("b", "a", "assistant", "Words of the next")
    )
    for with_html in (True, False):
        reader = MarkdownIt("commonmark", {"html": with_html})
        if not with_html:
            reader.disable("html_block")
        assert reader.render(told).endswith(NEXT)


@given(TEXTS)
@example("<!--\n~~~\n-->\n```")
@example("```\ncode\u2028```")
@example("- a\n\n  ```\n  code\n  ```")
def test_headings_after_a_text_are_headings(text: str) -> None:
    check_next(text)


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("- a\n\n  ```\n  code\n  ```\nb", ""),
        ("- ```\n  code", ""),
        ("a\n````py\nx = 1", "\n````"),
        ("~~~\r```", "\n~~~"),
        ("a <!-- b", ""),
        ("<!-- Hm", "\n-->"),
        ("<STYLE a>\n\n- b", "\n</style>"),
        ("<![CDATA[", "\n]]>"),
        ("a\n<?php", "\n?>"),
        ("<!X\n\nb", "\n>"),
        ("a\n```\n<!--\n```", ""),
        ("See List<!--T--> and a ```b```", ""),
    ],
)
def test_text_stays_as_it_is_up_to_an_end_that_it_lacks(text: str, end: str) -> None:
    assert closed(text) == text + end


@pytest.mark.parametrize("text", ["<pre>\n```\n</pre>", "<!--\n~~~\n-->\n```", "```\n" + "- a\n" * 10_000])
def test_text_is_quoted_where_it_is_not_clear_what_is_open(text: str) -> None:
    assert closed(text) == "\n".join(f"> {line}" for line in text.rstrip().split("\n"))
    check_next(text)


def test_names_in_a_heading_stay_in_it() -> None:
    told = transcript.section(message("a", None, "assistant", "Hi", model="x\n~~~\n<!--"))
    assert told == "\n## Answer (x \\~\\~\\~ \\<!--) · 2026-01-02 03:04 UTC\n\nHi\n"


@given(st.text(max_size=300))
def test_names_of_files_are_safe(title: str) -> None:
    assert set(file_name(title, "md")) <= set(
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-."
    )
    told = disposition(title, "md")
    assert told.isascii()
    assert told.isprintable()
    assert not set("/\\").intersection(told.split("filename=")[1].split(";")[0])


# ChatGPT


def test_chatgpts_tree_becomes_ours() -> None:
    found = chatgpt.read(
        old_chat(
            node("root", None, "sys"),
            node("sys", "root", "p1", role="system", text="secret"),
            node("p1", "sys", "a1", "a2", role="user", text="Ask"),
            node("a1", "p1", "t", role="assistant", text="Let me look", metadata={"model_slug": "gpt-4"}),
            node("t", "a1", "a1b", role="tool", text="raw"),
            node("a1b", "t", "p2", role="assistant", text="Found it"),
            node("p2", "a1b", "a3", role="user", text="More"),
            node(
                "a3",
                "p2",
                role="assistant",
                content={"content_type": "code", "language": "python", "text": "x = 1"},
            ),
            node("a2", "p1", role="assistant", text="Another", metadata={"model_slug": "gpt-4o"}),
        )
        | {"current_node": "a3"}
    )
    assert lines(found) == [
        ("user", "Ask"), ("assistant", "Let me look\n\nFound it"), ("user", "More"),
        ("assistant", "```python\nx = 1\n```"), ("assistant", "Another"),
    ]  # fmt: skip
    assert found.current == "a3"
    assert found.created == "2023-11-14T22:13:20.500Z"
    assert found.messages[1]["model"] == "gpt-4"
    assert found.lost == ()


def test_what_chatgpt_has_beside_words_is_left_out_and_told() -> None:
    parts = [
        "See",
        {"content_type": "image_asset_pointer"},
        {"content_type": "audio_transcription", "text": "said"},
    ]
    found = chatgpt.read(
        old_chat(
            node("p", None, "h", role="user", content={"content_type": "multimodal_text", "parts": parts}),
            node(
                "h",
                "p",
                "c",
                role="assistant",
                text="hidden",
                metadata={"is_visually_hidden_from_conversation": True},
            ),
            node("c", "h", "n", role="assistant", text="{query}", recipient="web"),
            node("n", "c", "a", role="assistant", content={"content_type": "new_thing"}),
            node("a", "n", role="assistant", text="Nice"),
        )
    )
    assert lines(found) == [("user", "See\n\nsaid"), ("assistant", "Nice")]
    assert [str(each) for each in found.lost] == [
        "1 picture is left out.",
        "1 part of a kind that is not known is left out.",
    ]


def test_chatgpts_long_rows_and_fences_are_read_in_no_time() -> None:
    began = time.process_time()
    row = [
        node(f"n{at}", f"n{at - 1}", f"n{at + 1}", role="assistant", text="x" * 700) for at in range(15_000)
    ]
    found = chatgpt.read(old_chat(*row))
    assert [role for role, _ in lines(found)] == ["user", "assistant"]
    fences = {"content_type": "code", "text": "`" * 3_000_000}
    found = chatgpt.read(old_chat(node("a", None, role="assistant", content=fences)))
    assert found.messages[1]["text"][:9] == "`" * 9
    assert time.process_time() - began < 2  # of 60


@pytest.mark.parametrize(("text", "fence"), [("x", "```"), ("``", "```"), ("a ```` b ```", "`````")])
def test_chatgpts_code_is_fenced_by_more_than_is_in_it(text: str, fence: str) -> None:
    content = {"content_type": "code", "text": text, "language": "py"}
    found = chatgpt.read(old_chat(node("a", None, role="assistant", content=content)))
    assert found.messages[1]["text"] == f"{fence}py\n{text}\n{fence}"


def test_chatgpts_broken_nodes_do_no_harm() -> None:
    told = old_chat(
        node("p", None, "a", role="user", text="Ask"),
        node("a", "p", role="assistant", text="Answer"),
        node("x", "y", "y", role="user", text="circle"),
        node("y", "x", "x", role="assistant", text="circle"),
    )
    told["mapping"] |= {
        "n": None,
        "m": {"message": []},
        "o": {"message": {"author": [], "content": 5}, "children": 3},
    }
    found = chatgpt.read(told)
    assert lines(found) == [("user", "Ask"), ("assistant", "Answer")]
    assert [str(each) for each in found.lost] == ["2 messages cannot be read."]
    with pytest.raises(Unreadable):
        chatgpt.read(old_chat(node("root", None)))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["id", "parent", "role", "text", "message", "author", "content", "parts", "children", "mapping",
                         "content_type", "metadata", "messages", "conversation", "attachments", "created", "title"]),
        inner, max_size=6,
    ),
    max_leaves=20,
)  # fmt: skip


@given(st.dictionaries(st.sampled_from("abc"), JSON, max_size=3), JSON)
def test_nothing_that_is_json_breaks_the_readers(mapping: dict[str, Any], anything: Any) -> None:
    for read, told in (
        (
            chatgpt.read,
            {"mapping": mapping, "title": anything, "current_node": anything, "create_time": anything},
        ),
        (transcript.read, ours(*mapping.values(), title=anything, current=anything, parameters=anything)),
        (transcript.read, anything),
    ):
        try:
            found = read(told)  # type: ignore[operator]
        except Unreadable:
            continue
        json.dumps(found.messages, ensure_ascii=False).encode()
