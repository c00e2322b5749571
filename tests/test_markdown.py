"""Markdown, whole and growing: what it looks like, what it costs, and that nothing harmful comes out."""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from llmchat import highlight
from llmchat.formula import mathml
from llmchat.highlight import SPAN_CLASSES
from llmchat.markdown import (
    GROWTH,
    MAX_BLOCK,
    SENT_AT_ONCE,
    SENT_IN_ADVANCE,
    SENT_PER_BYTE,
    STRUCTURE_PER_BYTE,
    LiveMarkdown,
    render,
)
from tests.harmless import assert_clean

PROSE = (
    "A hash map stores pairs of **keys and values**. To find a value it computes a *hash* of the key, "
    "which names the bucket where the pair lies; see `dict` in Python or the "
    "[documentation](https://docs.python.org/3/) for one that keeps its order.\n\n"
    "Two keys may share a bucket. That is a *collision*, and there are two ways to deal with it: a list in "
    "every bucket, or a search for the next free one. Both are quick as long as the map is not too full, "
    "so it grows when about two thirds of its places are taken. Growing costs time in proportion to its "
    "size, but it happens so seldom that an insertion costs the same on average.\n\n"
)
GERMAN = (
    "## Überblick\n\nDie Größe eines **Schlüssels** spielt keine Rolle, wohl aber seine *Häufigkeit*. "
    "Für längere Texte empfiehlt sich, zunächst die `Übersicht` zu lesen und dann die Einzelheiten zu "
    "prüfen: Häufig genügt schon ein flüchtiger Blick, um Fehler zu erkennen.\n\n"
    "1. **Öffnen** Sie die Datei.\n2. Ändern Sie die Zeile mit `größe = 10`.\n3. Schließen Sie sie wieder.\n\n"
    "Danach prüft das Programm, ob alles übereinstimmt, und meldet sich nur, wenn etwas fehlt.\n\n"
)
CHINESE = (
    "哈希表是一种**数据结构**,它把键映射到值。查找时先计算键的哈希值,再到相应的位置去取。\n\n"
    "- 插入:平均时间为常数。\n- 删除:与插入相同。\n- 查找:使用 `get` 方法,找不到时返回空值。\n\n"
    "当两个不同的键得到相同的位置时,就发生了*冲突*。常见的解决办法有两种:链表法和开放寻址法,各有优点。\n\n"
)
CODE = (
    'def fibonacci(count: int) -> list[int]:\n    """Return the first numbers of the sequence."""\n'
    "    numbers = [0, 1]\n    while len(numbers) < count:  # each is the sum of the two before it\n"
    "        numbers.append(numbers[-1] + numbers[-2])\n    return numbers[:count]\n\n\n"
    'class Shape:\n    name = "square"\n\n    def area(self) -> float:\n        return self.side**2\n\n'
    '    def __str__(self) -> str:\n        return f"{self.name}: {self.area()!r}\\n"\n\n\n'
)
SCRIPT = (
    'import { readFile } from "node:fs/promises";\n\nexport async function load(path) {\n'
    '  const text = await readFile(path, "utf8"); // the whole file\n'
    "  return text.split(`\\n`).map((line) => Number(line)).filter((n) => n !== 0 && !isNaN(n));\n}\n\n"
)
LIST = "".join(
    f"- Item {n}: a sentence of ordinary length about the matter, with `code {n}` in it.\n" for n in range(40)
)
STEPS = "".join(
    f"{n}. **Step {n}.** Do the thing that comes next, and look whether it worked.\n   - If not, try again.\n\n"
    for n in range(1, 20)
)
TABLE = "| Name | Meaning | Default |\n| --- | :-: | ---: |\n" + "".join(
    f"| option_{n} | what this option does to the result | {n * 10} |\n" for n in range(30)
)
SHORT = "".join(f"This is paragraph {n}, and it is short.\n\n" for n in range(60))
MIXED = (
    "# Answer\n\nSure! Here is how:\n- first\n- second\n\n```python\n" + CODE + "```\n\nThen run it:\n\n"
    "```sh\npip install example && example --help\n```\n\n> Note: it needs *Python 3.11*.\n> Or newer.\n\n"
    "Result\n------\n\n"
    + TABLE
    + "\n***\n\nSee [the docs][1] and ![a picture](https://example.com/p.png).\n\n"
    "[1]: https://example.com/docs 'Title'\n\nBye ~~now~~ then.\n"
)
DOCUMENTS = {
    "prose": PROSE * 5,
    "german": GERMAN * 6,
    "chinese": CHINESE * 8,
    "code": f"Here:\n\n```python\n{CODE * 8}```\n\nThat is all of it.\n",
    "script": f"Here:\n\n```js\n{SCRIPT * 10}```\n\nThat is all of it.\n",
    "list": f"These are they:\n\n{LIST}\nThat is all.\n",
    "steps": f"Do this:\n\n{STEPS}That is all.\n",
    "table": f"Look:\n\n{TABLE}\nThat is all.\n",
    "short": SHORT,
    "mixed": MIXED,
}

HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)> text",
    "<svg/onload=alert(1)><svg><script>1</script></svg>",
    "<math><mtext><table><mglyph><style><img src onerror=alert(1)></style></math>",
    "<!-- --><script>1</script> <!--><img onerror=1>-->",
    "[a](javascript:alert(1)) [b](JaVaScRiPt:alert(1)) [c](javascript&colon;alert(1)) [d](java\nscript:1)",
    "[a](&#106;avascript:alert(1)) [b](&#x6A;&#97;vascript:1) [c](\\javascript:1) [d](<java\tscript:1>)",
    "[a]( javascript:1) [b](<javascript:1>) [c](%6Aavascript:1) [d](\x01javascript:1) [e](java\x00script:1)",
    "[a](vbscript:1) [b](data:text/html,<script>1</script>) [c](data:image/png;base64,AAAA) [d](file:///etc)",
    "[a](//evil.example) [b](/logout) [c](\\\\evil) [d](https:evil) [e](http:///x) [f]() [g](#x) [h](?q)",
    '![a](javascript:1) ![x](https://e.example/p.png) ![" onerror=alert(1)](https://e.example/"onerror=1)',
    '<javascript:alert(1)> <data:text/html,1> <https://a.example/"onmouseover=1> <mailto:a@b.example>',
    '[x]: javascript:alert(1)\n[x]\n\n[y]: <data:text/html,1>\n\n[y][] [z]\n\n[z]: https://ok.example "\' onclick=1"',
    "https://a.example/<script> javascript:alert(1) http://a.example/'onclick='1 www.a.example ftp://a.example",
    "[![a](javascript:1)](javascript:2) [![b](https://i.example)](https://l.example) ![c [d](https://e.example)](https://f.example)",
    "&lt;script&gt; &#60;script&#62;alert(1)&#60;/script&#62; &amp;lt;",
    "`<script>` ``<img onerror=1>`` \\<script\\>",
    '```"><script>alert(1)</script>\n</code></pre></figure><script>alert(1)</script>\n```',
    '```html onload=x\n<script>alert(1)</script><style>*{}</style>\n```\n~~~a"b\n</pre>',
    "| <script> | [a](javascript:1) |\n|:-|-:|\n| <img onerror=1> | `|` <b onclick=1> |",
    "# <h1 onclick=1> {#id .class onclick=1}\n\n> <blockquote cite=javascript:1>",
    "[\u202ejavascript:1](https://a.example/\u202e) [a](\u2028javascript:1) [b](ｊavascript:1) \ufeff<script>",
    "<iframe src=https://e.example></iframe><form action=//e><input autofocus onfocus=1><base href=//e>",
    "<style>@import '//e';</style><link rel=stylesheet href=//e><meta http-equiv=refresh content=0>",
    "</p></div></main><script>1</script>\n\n- </li></ul><script>1</script>\n\n1. <a href=javascript:1 id=x style=x>",
    '[a](https://a.example "title\\" onclick=1") [b](https://a.example \'x\' onclick=1) [c](https://a@b:c)',
    '<noscript><p title="</noscript><img src=x onerror=alert(1)>"> <template><script>1</script></template>',
]


class Reader:
    """What a client does with an answer: it keeps the blocks and appends text in between."""

    def __init__(self, text: str = "") -> None:
        self.live = LiveMarkdown(text)
        self.blocks: dict[int, str] = {}
        self.events = 0
        self.bytes = 0

    def read(self, text: str) -> bool:
        """Whether there were blocks, which then cover all of the text."""
        self.live.append(text)
        self.bytes += len(json.dumps(text, ensure_ascii=False).encode()) - 2
        changed = self.live.changed()
        self.place(changed)
        return bool(changed)

    def place(self, changed: list[tuple[int, str]]) -> None:
        self.events += bool(changed)
        self.blocks.update(changed)
        self.bytes += len(json.dumps(changed, ensure_ascii=False, separators=(",", ":")).encode()) - 2
        self.blocks = {index: html for index, html in self.blocks.items() if index < self.live.count}

    def finish(self) -> list[str]:
        self.place(self.live.finish())
        assert sorted(self.blocks) == list(range(self.live.count))
        return [self.blocks[index] for index in range(self.live.count)]


def cut(text: str, seed: int, low: int, high: int) -> Iterator[str]:
    source, start = random.Random(seed), 0
    while start < len(text):
        end = start + source.randint(low, high)
        yield text[start:end]
        start = end


def read_all(text: str, seed: int = 0, low: int = 1, high: int = 60) -> Reader:
    reader = Reader()
    for piece in cut(text, seed, low, high):
        reader.read(piece)
    assert reader.finish() == render(text)
    assert reader.live.text == text
    return reader


@pytest.mark.parametrize("name", DOCUMENTS)
@pytest.mark.parametrize(("low", "high"), [(3, 4), (1, 12), (20, 60), (60, 60)])
def test_answer_costs_at_most_four_times_its_text_on_the_wire(name: str, low: int, high: int) -> None:
    text = DOCUMENTS[name]
    reader = read_all(text, low * high, low, high)
    assert reader.bytes <= 4 * len(text.encode())


def test_paragraph_begins_and_grows_before_it_is_finished() -> None:
    reader = Reader()
    for piece in cut(PROSE.split("\n\n")[1], 1, 3, 6):
        reader.read(piece)
    assert reader.events > 3
    assert reader.live.count == 1


def test_list_grows_before_it_is_finished() -> None:
    assert read_all(DOCUMENTS["list"], 1, 3, 6).events > 8


def test_markup_is_rendered_soon_after_it_closed() -> None:
    reader = Reader()
    for piece in cut("This word is **bold", 1, 4, 4):
        reader.read(piece)
    reader.read("** and")
    assert reader.blocks == {0: "<p>This word is <strong>bold</strong> and</p>"}


def test_code_block_is_sent_when_it_opens_and_when_it_closes() -> None:
    reader = Reader()
    for piece in cut(f"Here:\n\n```python\n{CODE * 3}", 1, 1, 9):
        reader.read(piece)
    opened, block = reader.events, reader.blocks[1]
    assert block.startswith('<figure class="code" data-language="python" data-open="">')
    assert opened <= 4
    reader.read("```\n")
    assert reader.events == opened + 1
    assert "data-open" not in reader.blocks[1]
    assert '<span class="k">def</span> <span class="nf">fibonacci</span>' in reader.blocks[1]


def test_opening_fence_is_plain_text_until_its_line_is_complete() -> None:
    assert render("```pyt", running=True) == ["<p>```pyt</p>"]
    assert "data-open" in render("```python\n", running=True)[0]
    assert "data-open" in render("```python\nx = 1\n``", running=True)[0]
    assert "data-open" not in render("```python\nx = 1\n```", running=True)[0]
    assert "data-open" not in render("```python\nx = 1\n")[0]


def test_kept_text_is_sent_with_the_first_change() -> None:
    reader = Reader("First.\n\nSecond")
    reader.read(" one.")
    assert [reader.blocks[0], reader.blocks[1]] == ["<p>First.</p>", "<p>Second one.</p>"]


def test_definition_mends_links_before_it_at_the_end() -> None:
    text = "See [one] and [two][2].\n\nMore.\n\n[one]: https://one.example\n\n[2]: https://two.example\n"
    reader = read_all(text, 3, 1, 5)
    assert 'href="https://two.example"' in reader.blocks[0]
    assert reader.live.count == 2


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("# a\n\n###### b", ["<h3>a</h3>", "<h6>b</h6>"]),
        ("~~a~~", ["<p><s>a</s></p>"]),
        ("main.py README.md a@b.example", ["<p>main.py README.md a@b.example</p>"]),
        ("[a](/b)", ["<p>[a](/b)</p>"]),
        ("[a]()", ["<p>a</p>"]),
        ("3. a", ['<ol start="3"><li>a</li></ol>']),
        ("", []),
        (" \n\n", []),
    ],
)
def test_render_gives_one_element_for_each_block(text: str, html: list[str]) -> None:
    assert render(text) == html


LINK = '<a href="{}" target="_blank" rel="noopener noreferrer nofollow">{}</a>'


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("![alt](https://e.example/p.png)", LINK.format("https://e.example/p.png", "alt")),
        ("![](https://e.example/p)", LINK.format("https://e.example/p", "https://e.example/p")),
        ("[![alt](https://i.example)](https://l.example)", LINK.format("https://l.example", "alt")),
        ("https://e.example/a.", LINK.format("https://e.example/a", "https://e.example/a") + "."),
        ("[m](mailto:a@b.example)", LINK.format("mailto:a@b.example", "m")),
        ('[t](https://e.example "title")', LINK.format("https://e.example", "t")),
    ],
)
def test_images_become_links_and_links_open_elsewhere(text: str, html: str) -> None:
    assert render(text) == [f"<p>{html}</p>"]


@pytest.mark.parametrize("language", ["", "nosuchlanguage", 'a"b', "{.python}"])
def test_code_of_an_unknown_language_is_plain(language: str) -> None:
    (html,) = render(f"```{language}\na < 1\n```")
    assert html.endswith("<code>a &lt; 1\n</code></pre></figure>")


@pytest.mark.parametrize("code", ["x = 1\n" * 10_000, "x = 1;" * 1_000 + "\n"])
def test_huge_code_is_plain(code: str) -> None:
    (html,) = render(f"```python\n{code}```")
    assert "<span" not in html
    assert code in html


def test_code_is_plain_when_its_lexer_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    code = "```python\ndef add(one, other):  # a comment\n    return one + other\n```"
    assert "<span" in render(code)[0]
    monkeypatch.setattr(highlight, "LEXING_SECONDS", -1)
    assert "<span" not in render(code.replace("add", "sum"))[0]  # not the one that is remembered


def test_code_whose_lexer_is_quadratic_is_rendered_all_the_same() -> None:
    code = "a " * 900 + "\n" * 40_000
    (html,) = render(f"```java\n{code}```")
    assert code in html


def test_dense_code_gets_fewer_colours_rather_than_more_bytes() -> None:
    code = '{"a": 1, "b": [1, 2, 3], "c": true}\n' * 20
    (html,) = render(f"```json\n{code}```")
    assert len(html) < 3 * len(code)


HEAVY = {
    "references": "[a]: http://e.example/" + "x" * 1700 + "\n\n" + "[a] \n\n" * 2000,
    "references in one paragraph": "[a]: http://e.example/" + "x" * 1700 + "\n\n" + "[a] " * 400,
    "references in cells": "[a]: http://e.example/" + "x" * 1700 + "\n\n|a|\n|-|\n" + "|[a]|\n" * 500,
    "images": "[a]: http://e.example/" + "x" * 1700 + "\n\n" + "![][a] \n\n" * 500,
    "empty headings": "#\n" * 5000,
    "small tables": "|a|\n|-|\n|b|\n\n" * 600,
    "wide table": "|" + "a|" * 300 + "\n|" + "-|" * 300 + "\n" + "|\n" * 200,
    "deep quotes": (">" * 39 + " a\n\n") * 50,
}


@pytest.mark.parametrize("text", HEAVY.values(), ids=HEAVY)
def test_html_is_never_out_of_proportion_to_its_text(text: str) -> None:
    growing = LiveMarkdown()
    live, rendered = 0, {}
    for start in range(0, len(text), 12):
        growing.append(text[start : start + 12])
        changed = growing.changed()
        if changed:
            most = (SENT_PER_BYTE + STRUCTURE_PER_BYTE) * (start + 12)
            assert live <= most + SENT_AT_ONCE + SENT_IN_ADVANCE
        live += sum(len(html) for _, html in changed)
        rendered.update(changed)
    last = growing.finish()
    rendered.update(last)
    whole = render(text)
    assert [rendered[index] for index in range(growing.count)] == whole
    assert sum(map(len, whole)) <= GROWTH * len(text) + 4_096
    assert live <= GROWTH * len(text) + 4_096
    assert sum(len(html) for _, html in last) <= sum(map(len, whole))


HEAVY_FORMULAS = {
    "small blocks": "$$x$$\n\n" * 600,
    "small blocks in a paragraph": "a $$x$$ " * 600,
    "letters": "$x$ " * 2_000,
    "matrices": "$$\n\\begin{matrix}" + "&" * 400 + "\\end{matrix}\n$$\n\n" * 9,
    "cells": "|a|b|\n|-|-|\n" + "|$x$|$$y$$|\n" * 400,
    "lists": "- $$\n  x\n  $$\n" * 400,
    "long paragraph": "as $\\frac{a}{b}$ says, " * 400,
}


@pytest.mark.parametrize("text", HEAVY_FORMULAS.values(), ids=HEAVY_FORMULAS)
def test_formulas_are_never_out_of_proportion_to_their_text(text: str) -> None:
    growing = LiveMarkdown()
    live, rendered = 0, {}
    for start in range(0, len(text), 12):
        growing.append(text[start : start + 12])
        changed = growing.changed()
        live += sum(len(html) for _, html in changed)
        rendered.update(changed)
    rendered.update(growing.finish())
    whole = render(text)
    assert [rendered[index] for index in range(growing.count)] == whole
    assert sum(map(len, whole)) <= GROWTH * len(text) + 4_096
    assert live <= 2 * GROWTH * len(text) + 4_096


def test_block_out_of_proportion_shows_its_source() -> None:
    text = "|" + "a|" * 300 + "\n|" + "-|" * 300 + "\n" + "|\n" * 200
    (html,) = render(text)
    assert html.startswith('<figure class="code" data-language="text"><pre')
    assert text.strip() in html


def test_block_too_large_for_a_frame_shows_a_part_and_says_so() -> None:
    (html,) = render("```\n" + "<&" * 60_000 + "\n```")
    assert html.startswith('<figure class="code" data-language="text"><pre')
    assert len(html) <= MAX_BLOCK
    assert "Copy the message for all of it" in html


FRAGMENTS = [
    "word", "two words", " ", "  ", "    ", "\t", "\n", "\n\n", "\r\n", "\r", "- ", "* ", "+ ", "1. ", "2) ", "10. ",
    "> ", ">", "# ", "### ", "---", "===", "=", "-", "***", "```", "```py\n", "````", "~~~", "~~~ x\n", "`", "``",
    "|", "|a|b|\n", "|-|-|\n", "| - | :-: |", "[a]", "[a]: https://a.example", "[b]:\n/url", "[a][b]",
    "[a](https://b.example 'c')", "![i](https://i.example)", "'title", '"t"', "(t\n)", "**", "*", "_", "~~", "\\", "<b>",
    "<!--", "<https://a.example>", "https://a.example/b", "&amp;", "&#0;", "\0", "\ufeff", "\u2028", "\x0b", "\x85",
    "$", "$$", "$$\n", "\n$$", "$$\n\n", "$x$", "$$x$$", "\\[", "\\]", "\\[\n", "\n\\]", "\\(", "\\)", "\\(y\\)", "x^2",
    "\\frac{a}{b}", "\\\\", "&", "```math\n", "- [ ] ", "- [x] ", "[x] ", "1. [X] a", "\\begin{aligned}", "{", "}",
    "é", "漢字", "🙂", "def f(): pass", "1", ".", "!", "[", "]", "(", ")", ":", "  - ", "   1. ", "     ", " \n", "  \n",
]  # fmt: skip
TEXTS = st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=3), max_size=40).map("".join)


@settings(max_examples=700, deadline=None)
@given(TEXTS, st.integers(0, 1_000), st.sampled_from([1, 2, 5, 20]))
@example("1. a\n\n1. b\n\nc\n", 0, 1)
@example("p\n|a|b|\n|-|-x\n\nq", 0, 1)
@example("[a]: https://a.example\n'title\nmore' x\n\n[a]", 0, 1)
@example("- a\r\n\r\n      b\r\rc\r\n", 0, 1)
def test_growing_text_ends_in_the_blocks_of_the_whole(text: str, seed: int, high: int) -> None:
    reader = Reader()
    for piece in cut(text, seed, 1, high):
        if reader.read(piece) and "]:" not in text:
            blocks = [reader.blocks[index] for index in range(reader.live.count)]
            assert blocks == render(reader.live.text, running=True)
    final = reader.finish()
    assert final == render(text)
    assert_clean(final)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(HOSTILE + FRAGMENTS), min_size=1, max_size=12).map("".join))
def test_mixtures_of_hostile_text_are_clean(text: str) -> None:
    assert_clean(render(text))
    assert_clean(render(text, running=True))


@pytest.mark.parametrize("text", HOSTILE)
def test_every_prefix_of_hostile_text_is_clean(text: str) -> None:
    for end in range(len(text) + 1):
        assert_clean(render(text[:end], running=True))
    assert_clean(render(text))
    assert_clean(list(dict(LiveMarkdown(text).changed()).values()))
    read_all(text, 0, 1, 3)


@pytest.mark.parametrize("text", [MIXED, GERMAN])
def test_every_prefix_of_a_realistic_text_is_clean(text: str) -> None:
    reader = Reader()
    for end, character in enumerate(text, 1):
        reader.read(character)
        if end % 7 == 0:
            assert_clean(render(text[:end], running=True))
        if character == "\n":
            assert_clean(list(reader.blocks.values()))
    assert reader.finish() == render(text)


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The length of every text given to the parser."""
    lengths: list[int] = []
    parse = MarkdownIt.parse

    def counting(self: MarkdownIt, src: str, env: dict[str, object] | None = None) -> object:
        lengths.append(len(src))
        return parse(self, src, env)

    monkeypatch.setattr(MarkdownIt, "parse", counting)
    return lengths


@pytest.mark.parametrize(
    "text",
    [
        f"```python\n{CODE * 150}```\n",
        PROSE.replace("\n", " ") * 60,
        LIST * 15,
        STEPS * 20,
        SHORT * 25,
        "> quoted text\n" * 4_000,
        "|a|b|\n|-|-|\n" + "|c|d|\n" * 8_000,
        "a\n\n    " * 6_000,
        "- a\n\nb\n\n" * 6_000,
    ],
    ids=["code", "paragraph", "list", "steps", "short", "quote", "table", "indented", "lists"],
)
def test_growing_text_is_parsed_a_bounded_number_of_times(text: str, parsed: list[int]) -> None:
    live = LiveMarkdown()
    for piece in cut(text, 1, 20, 60):
        live.append(piece)
        live.changed()
    assert sum(parsed) <= 8 * len(text) + 4_096
    assert max(parsed) <= len(text)


def test_tail_is_all_that_is_parsed_again(parsed: list[int]) -> None:
    live = LiveMarkdown()
    for piece in cut(PROSE * 40, 1, 3, 9):
        live.append(piece)
        live.changed()
    live.finish()
    assert max(parsed) <= 2 * len(PROSE)
    assert sum(parsed) <= 8 * len(PROSE * 40)


PATHOLOGICAL = {
    "brackets": "[" * 10_000 + "a" + "]" * 10_000,
    "links": "[" * 5_000 + "a" + "](https://b.example)" * 2_000,
    "images": "![" * 10_000 + "a" + "](https://b.example)" * 2_000,
    "quotes": ">" * 10_000 + " a",
    "lists": "- " * 10_000 + "a",
    "indented lists": "".join(f"{'  ' * depth}- a\n" for depth in range(200)),
    "stars": "*" * 30_000,
    "emphasis": "*a _b " * 5_000,
    "closing": "a**b" + "c* " * 10_000,
    "ticks": "".join("`" * length + "a" for length in range(1, 200)),
    "entities": "&" * 20_000,
    "angles": "<" * 20_000 + "https://",
    "pipes": "|" * 10_000 + "\n" + "|-" * 10_000 + "|\n",
    "references": "".join(f"[a{n}]: https://b.example\n" for n in range(1_000)) + "[a1] " * 1_000,
    "hosts": "https://a." * 3_000,
    "colons": "http:" * 5_000,
    "mails": "mailto:a@" * 3_000,
    "backslashes": "\\" * 30_000,
    "fences": "```\n" * 5_001,
    "newlines": "\n" * 30_000,
    "spaces": " " * 30_000 + "a",
    "blank lines": "a\n\n" + (" " * 30_000 + "\n") * 2,
    "headings": "# a\n" * 3_000,
    "tildes": "~~a" * 5_000,
    "dollars": "$" * 30_000,
    "open dollars": "$a " * 10_000,
    "open formulas": "\\(" * 15_000,
    "open blocks": "a\n\\[" * 10_000,
    "lines of dollars": "a $$\n$$\n" * 4_000,
    "formulas": "$x$ " * 8_000,
    "braces": "$$" + "{" * 30_000 + "$$",
    "long formulas": ("$" + "x" * 3_001 + "$ ") * 10,
    "tasks": "- [ ] a\n" * 4_000,
}


@pytest.mark.parametrize("name", PATHOLOGICAL)
def test_pathological_text_is_rendered(name: str) -> None:
    text = PATHOLOGICAL[name]
    blocks = render(text)
    assert all(html.startswith("<") for html in blocks)
    live = LiveMarkdown(text)
    returned = dict(live.changed())
    returned.update(live.finish())
    assert [returned[index] for index in range(live.count)] == blocks


CSS = (Path(__file__).parents[1] / "static" / "css" / "code.css").read_text()


def luminance(lightness: float, chroma: float, hue: float) -> float:
    """The relative luminance of an oklch colour, its channels clipped to sRGB."""
    a, b = chroma * math.cos(math.radians(hue)), chroma * math.sin(math.radians(hue))
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    middle = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    red = 4.0767416621 * long - 3.3077115913 * middle + 0.2309699292 * short
    green = -1.2684380046 * long + 2.6097574011 * middle - 0.3413193965 * short
    blue = -0.0041960863 * long - 0.7034186147 * middle + 1.7076147010 * short
    red, green, blue = (min(1.0, max(0.0, channel)) for channel in (red, green, blue))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def themes() -> list[dict[str, float]]:
    """The luminance of every variable, in each of the blocks that define them."""
    pattern = re.compile(r"--code-(\w+): oklch\(([\d.]+)% ([\d.]+) ([\d.]+)\)")
    return [
        {name: luminance(float(x) / 100, float(y), float(z)) for name, x, y, z in pattern.findall(block)}
        for block in re.findall(r"\{([^{}]*--code-background:[^{}]*)\}", CSS)
    ]


def test_code_colours_are_legible_in_both_themes() -> None:
    light, system_dark, dark = themes()
    assert system_dark == dark
    assert light.keys() == dark.keys()
    for theme in (light, dark):
        background = theme.pop("background")
        for name, text in theme.items():
            low, high = sorted((background, text))
            assert (high + 0.05) / (low + 0.05) >= 4.5, name


def test_every_class_of_highlighted_code_has_its_colour() -> None:
    assert set(re.findall(r"& \.(\w+)", CSS)) == SPAN_CLASSES


def formula(source: str, *, display: bool = False) -> str:
    """A formula as the sanitiser writes it."""
    return re.sub(r"<(\w+)([^<>]*)/>", r"<\1\2></\1>", mathml(source, display=display))


def box(tag: str, html: str, name: str = "math") -> str:
    return f'<{tag} class="{name}" dir="ltr" role="group" aria-label="Formula" tabindex="0">{html}</{tag}>'


X = formula("x", display=True)


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("a $x^2$ b", [f"<p>a {formula('x^2')} b</p>"]),
        (r"a \(x^2\), b", [f"<p>a {formula('x^2')}, b</p>"]),
        ("的$x$和 **$x$**", [f"<p>的{formula('x')}和 <strong>{formula('x')}</strong></p>"]),
        ("# $x$", [f"<h3>{formula('x')}</h3>"]),
        ("$$x$$", [box("div", X)]),
        ("$$\nx\n$$", [box("div", X)]),
        ("\\[\n  x\n\\]", [box("div", X)]),
        ("```math\nx\n```", [box("div", X)]),
        ("a:\n$$\nx\n$$\nb", ["<p>a:</p>", box("div", X), "<p>b</p>"]),
        ("a $$x$$ b", [f"<p>a {box('span', X)} b</p>"]),
        (r"a \[x\] b", [f"<p>a {box('span', X)} b</p>"]),
        ("a $$\nx\n$$ b", [f"<p>a {box('span', X)} b</p>"]),
        ("$$x$$ with **b**", [f"<p>{box('span', X)} with <strong>b</strong></p>"]),
        ("- a\n  $$\n  x\n  $$\n- b", [f"<ul><li>a{box('div', X)}</li><li>b</li></ul>"]),
        ("1. \\[ x \\]", [f"<ol><li>{box('div', X)}</li></ol>"]),
        ("> a\n> $$\n> x\n> $$", [f"<blockquote><p>a</p>{box('div', X)}</blockquote>"]),
        ("$$\n- a\n= b\n+ c\n$$", [box("div", formula("- a\n= b\n+ c", display=True))]),
        ("$$x$$.", [box("div", X.replace("</math>", "<mtext>.</mtext></math>"))]),
        ("a $$x$$, b", [f"<p>a {box('span', X.replace('</math>', '<mtext>,</mtext></math>'))} b</p>"]),
    ],
)
def test_formula_is_shown_with_every_delimiter_that_models_use(text: str, html: list[str]) -> None:
    assert render(text) == html


@pytest.mark.parametrize(
    "text",
    [
        "$5 and $6", "costs $5-$10, or $6/$7", "US$5 and A$", "$ x $", "a $x", "$$", "$x$5", "$HOME and $PATH", "x$y$",
    ],
)  # fmt: skip
def test_dollars_that_are_no_formula_stay_dollars(text: str) -> None:
    assert render(text) == [f"<p>{text}</p>"]
    assert render(text.replace("$", r"\$")) == [f"<p>{text}</p>"]


@pytest.mark.parametrize(
    "text",
    [
        "`$x$`",
        "`\\(x\\)`",
        "```\n$$x$$\n```",
        "    $$\n    x\n    $$",
        "say $HOME or `$PATH`",
        r"see \[1\] there",
        r"\[a\](b)",
    ],
)
def test_formula_is_none_in_code_and_in_escaped_brackets(text: str) -> None:
    assert not any("<math" in html for html in render(text))


def test_formula_that_cannot_be_shown_stays_as_it_was_typed() -> None:
    assert render(r"a $\foo{*b*}_c$ d") == [r"<p>a $\foo{*b*}_c$ d</p>"]
    (html,) = render("$$\n\\foo *b*\n$$")
    assert html.startswith('<figure class="code" data-language="latex">')
    assert "<code>$$\n\\foo *b*\n$$</code>" in html
    assert render("$$\nx *y* http://a.example\n\nz") == ["<p>$$<br>\nx *y* http://a.example</p>", "<p>z</p>"]
    assert "<math" not in render("```math\n\\foo\n```")[0]


def test_wide_formula_between_words_has_a_box_of_its_own() -> None:
    source = " + ".join("abcdefghijklmnop")
    assert render(f"a ${source}$ b") == [f"<p>a {box('span', formula(source), 'wide')} b</p>"]


def test_formula_is_shown_as_soon_as_its_end_has_come() -> None:
    reader = Reader()
    reader.read("Look:\n\n")
    reader.read("$$\nx = 1\n")
    assert "math" not in "".join(reader.blocks.values())
    assert reader.read("$$\n")
    assert reader.blocks[1] == box("div", formula("x = 1", display=True))


def test_answer_full_of_formulas_stays_live_and_costs_at_most_fourteen_times_its_text() -> None:
    text = "".join(
        f"Step {n}: let $x_{n} = \\frac{{a_{n}}}{{b}}$ and so\n\n$$\n\\begin{{aligned}} x &= \\sum_{{i=1}}^n i \\\\ &= {n} \\end{{aligned}}\n$$\n\n"
        for n in range(40)
    )
    reader, behind = Reader(), 0
    for piece in cut(text, 1, 3, 12):
        reader.read(piece)
        behind = max(behind, len(reader.live._pending) and reader.live._pending_bytes)
    assert behind < 400
    assert reader.finish() == render(text)
    assert reader.bytes <= 14 * len(text)


DONE, OPEN = (f'<span role="img" aria-label="{name}"></span>' for name in ("done", "not done"))


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("- [ ] a\n- [x] **b**\n- c", f'<ul><li class="task">{OPEN}a</li><li class="task">{DONE}<strong>b</strong></li><li>c</li></ul>'),
        ("1. [X] a\n\n   b\n", f'<ol><li class="task"><p>{DONE}a</p><p>b</p></li></ol>'),
        ("* [ ] a\n  + [x] b", f'<ul><li class="task">{OPEN}a<ul><li class="task">{DONE}b</li></ul></li></ul>'),
        ("- [x]\n- [ ]\n- [y] a\n- [x]a\n- a [x] b", "<ul><li>[x]</li><li>[ ]</li><li>[y] a</li><li>[x]a</li><li>a [x] b</li></ul>"),
    ],
)  # fmt: skip
def test_tasks_have_boxes_that_say_whether_they_are_done(text: str, html: str) -> None:
    assert render(text) == [html]


def test_table_has_a_box_that_a_keyboard_can_scroll() -> None:
    (html,) = render("|a|b|c|\n|:-|:-:|-|\n|1|2|3|")
    assert html.startswith('<div class="table" role="group" aria-label="Table" tabindex="0"><table>')
    assert '<td align="left">1</td><td align="center">2</td><td>3</td>' in html


@pytest.mark.parametrize(
    "text",
    [
        "see https://a.example/b",
        "see HTTPS://a.example/b",
        "write to mailto:a@a.example",
        "write to MAILTO:a@a.example",
    ],
)
def test_address_is_a_link_however_it_is_written(text: str) -> None:
    assert "<a href=" in render(text)[0]


SECTION = """## Section {n}

- [x] one item
- two items with `code`
  - nested with **bold**

| name | value |
| --- | --- |
| a{n} | $x^{n}$ |
| b | ~~{n}~~ |

```python
def f_{n}(x: int) -> int:
    return x + {n}
```

> A quote of *section* {n}, in a line.

"""


def test_blocks_begin_soon_however_much_markup_went_before() -> None:
    text = "".join(SECTION.format(n=number) for number in range(60))
    reader, waits, longest = Reader(), 0, 0
    for piece in cut(text, 1, 6, 20):
        waits += len(piece)
        if reader.read(piece):
            longest, waits = max(longest, waits), 0
    assert longest < 300
    assert reader.finish() == render(text)
