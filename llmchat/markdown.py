"""Markdown to clean HTML blocks, whole or while it grows.

Pure: text in, HTML out. This room knows neither events nor sockets, and no clock but the one that stops a
slow lexer. Each block is exactly one top-level element, and the sanitiser has the last word over every one.

Growing text is cut where it cannot change any more: everything before the cut is rendered for good, only
the tail behind it is parsed again. Two allowances, both earned by the text that came in, bound what that
costs for any text: characters parsed, and bytes of HTML for blocks that are not finished yet. A third bounds
the HTML of any text, whole or growing: a block that is out of all proportion shows its source. The one thing
that reaches back over the cut is a link reference definition; `LiveMarkdown.finish` mends that.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, MutableMapping, Sequence
from enum import IntEnum
from functools import cache
from typing import Any, NamedTuple

import nh3
from markdown_it import MarkdownIt
from markdown_it.common.utils import escapeHtml
from markdown_it.renderer import RendererHTML
from markdown_it.rules_core import StateCore, linkify
from markdown_it.rules_inline import StateInline
from markdown_it.rules_inline.link import link
from markdown_it.token import Token

from llmchat.formula import CLASSES, mathml
from llmchat.formula_rules import formula_box, formulas
from llmchat.highlight import SPAN_CLASSES, highlighted

Env = MutableMapping[str, Any]

MAX_NESTING = 40  # levels; markdown-it drops what is nested deeper (a list item takes two)
MAX_LINKS = 500  # beginnings of links in one paragraph, which is plain if it has more: they are quadratic
PARSED_PER_BYTE = 8  # the allowance for parsing the tail again …
PARSED_AT_ONCE = 4_096  # … and its start
SENT_PER_BYTE = 2.85  # HTML bytes per byte of text that an unfinished block may bring us to
SENT_AT_ONCE = 150
SENT_IN_ADVANCE = 1_024  # … also with markup that is heavier than that, as tables of small cells
STRUCTURE_PER_BYTE = 1.5  # … and where a block begins or ends: it is not left to stand in the one before it
GROWTH = 16  # characters of HTML per character of text; what grows more is shown as its source
GROWTH_AT_ONCE = 2_048
GROWTH_OF_ONE = 256  # of a single paragraph's or cell's addresses
MAX_BLOCK = 256 * 1024  # characters of a block's HTML, likewise
FORMULA_SHARE = 4  # of a formula's HTML a byte of so many counts: it is mostly sent once, and heavy by nature
EVENT_BYTES = 8  # what index and brackets of one block cost on the wire
NEAR = 120  # characters before an append that are looked at again for what makes a rendering due

ALLOWED = {
    "p", "br", "hr", "h3", "h4", "h5", "h6", "blockquote", "ul", "ol", "li", "em", "strong", "s", "a",
    "code", "pre", "span", "figure", "div", "table", "thead", "tbody", "tr", "th", "td",
}  # fmt: skip
FORMULA_ALLOWED: dict[str, set[str]] = {
    "math": set(), "mrow": {"scriptlevel"}, "mi": set(), "mn": set(), "mtext": set(), "b": set(), "i": set(),
    "mo": {"lspace", "rspace", "minsize", "maxsize"}, "mspace": {"width"}, "mpadded": {"width"},
    "mfrac": {"linethickness", "scriptlevel"}, "msqrt": set(), "mroot": set(), "mphantom": set(),
    "msub": set(), "msup": set(), "msubsup": set(), "munder": set(), "mover": set(), "munderover": set(),
    "mmultiscripts": set(), "mprescripts": set(), "mtable": {"scriptlevel"}, "mtr": set(), "mtd": set(),
    "menclose": set(),
}  # fmt: skip
TRUTH = {"true", "false"}
SCROLLS = {"tabindex": {"0"}, "role": {"group"}, "aria-label": {"Table", "Formula"}, "dir": {"ltr"}}
FORMULA_VALUES: dict[str, dict[str, set[str]]] = {
    "math": {"display": {"block"}},
    "mrow": {"displaystyle": TRUTH},
    "mfrac": {"displaystyle": TRUTH},
    "mtable": {"displaystyle": TRUTH},
    "mi": {"mathvariant": {"normal"}},
    "mo": {"stretchy": TRUTH, "symmetric": TRUTH, "movablelimits": TRUTH, "form": {"prefix", "infix", "postfix"}},
    "mover": {"accent": TRUTH},
    "munder": {"accentunder": TRUTH},
    "menclose": {
        "notation": {
            "box", "updiagonalstrike", "downdiagonalstrike", "horizontalstrike", "updiagonalstrike downdiagonalstrike",
        }
    },
}  # fmt: skip

LINK = re.compile(r"https?://[^/]|mailto:.", re.IGNORECASE)
LANGUAGE = re.compile(r"[\w+#.-]{1,32}", re.ASCII)
NEWLINE = re.compile(r"\r\n?|\n")
FENCE_END = re.compile(r" {0,3}(`{3,}|~{3,})[ \t]*")
FORMULA = re.compile(r"<math.*?</math>", re.DOTALL)
TASK = re.compile(r"\[([ xX])\][ \t]+(?=\S)")


def render(text: str, *, running: bool = False) -> list[str]:
    """Return the HTML of each top-level block.

    `running` says that the text still grows: the last block keeps its code without colours, and an open
    code block at the end is marked with `data-open`.
    """
    return [html for html, _ in _htmls(_parse(text, {}), GROWTH_AT_ONCE, running)]


class _Block(NamedTuple):
    tokens: list[Token]
    source: str
    first: int  # its first line
    end: int  # the line after its last
    begun: bool  # its first line is complete
    closed: bool  # ended by complete lines of its own or the blank one after it

    @property
    def kind(self) -> str:
        return self.tokens[0].type


class _Urgency(IntEnum):
    NONE = 0
    MARKUP = 1  # an item, a row, or some inline markup is complete: sooner than without
    STRUCTURE = 2  # a block begins or ends: now


class LiveMarkdown:
    """An answer's Markdown as it grows."""

    def __init__(self, text: str = "") -> None:
        self._text: list[str] = []
        self._tail = ""  # what was rendered last, from the cut on
        self._tail_bytes = 0
        self._last_bytes = 0  # of the last block's HTML
        self._pending: list[str] = []  # what came since
        self._pending_bytes = 0
        self._near = "\n\n"  # the last few characters that were watched
        self._unwatched: list[str] = []  # what came since
        self._kind = ""  # token type of the last block; "open" for an open code block
        self._urgency = _Urgency.NONE
        self._settled = 0  # blocks before the cut
        self._sent: list[str] = []  # every block's HTML as it was returned last
        self._references: Env = {"references": {}}  # those before the cut
        self._growth_left = GROWTH_AT_ONCE  # at the cut
        self._parsing_left = PARSED_AT_ONCE
        self._sending_left = float(SENT_AT_ONCE)
        self._structure_left = 0.0
        self.append(text)

    @property
    def text(self) -> str:
        """Everything appended so far."""
        self._text = ["".join(self._text)]
        return self._text[0]

    @property
    def count(self) -> int:
        """How many blocks there are as of the last rendering."""
        return len(self._sent)

    def append(self, text: str) -> None:
        """Take more of the text."""
        self._text.append(text)
        self._pending.append(text)
        size = len(text.encode())
        self._pending_bytes += size
        self._parsing_left += PARSED_PER_BYTE * size
        self._sending_left += SENT_PER_BYTE * size
        self._structure_left += STRUCTURE_PER_BYTE * size
        self._unwatched.append(text)

    def changed(self) -> list[tuple[int, str]]:
        """Return the blocks that are due now, as index and HTML; mostly there are none."""
        self._watch()
        return self._rendered(running=True) if self._is_due() else []

    def _watch(self) -> None:
        """See what came since the last time: whether it makes a rendering due."""
        new = NEWLINE.sub("\n", "".join(self._unwatched))
        self._unwatched = []
        watched = self._near + new
        self._urgency = max(self._urgency, _urgency(watched, len(self._near), self._kind))
        self._near = watched[-NEAR:]

    def finish(self) -> list[tuple[int, str]]:
        """Return every block whose final HTML differs from what was returned before."""
        changed = self._rendered(running=False)
        if not self._references["references"]:
            return changed
        final = render(self.text)
        before = dict(changed)
        mended = [
            (index, html)
            for index, html in enumerate(final)
            if index in before or index >= self.count or html != self._sent[index]
        ]
        self._sent = final
        return mended

    def _is_due(self) -> bool:
        size = self._tail_bytes + self._pending_bytes
        if not self._pending_bytes or size > self._parsing_left:
            return False
        over = -SENT_IN_ADVANCE - self._sending_left
        if self._urgency is _Urgency.STRUCTURE:
            return over <= self._structure_left
        if over > 0 or self._kind == "open":
            return False
        share = 0.3 if self._urgency is _Urgency.MARKUP else 0.6
        if self._pending_bytes < max(8, share * self._last_bytes):
            return False
        weight = min(max(1.2, (self._last_bytes - 24) / max(1, self._tail_bytes)), 2.6)
        now = self._last_bytes + weight * self._pending_bytes
        return 2 * now <= self._sending_left  # as much again for when it is finished

    def _rendered(self, *, running: bool) -> list[tuple[int, str]]:
        """Render the tail and move the cut; the blocks that differ from those sent are counted as sent."""
        tail = self._tail + "".join(self._pending)
        self._parsing_left -= self._tail_bytes + self._pending_bytes
        self._pending, self._pending_bytes, self._urgency = [], 0, _Urgency.NONE
        known = len(self._references["references"])
        blocks = _parse(tail, self._references)
        first = self._settled
        rendered = _htmls(blocks, self._growth_left, running)
        htmls = [html for html, _ in rendered]
        changed = [
            (index, html)
            for index, html in enumerate(htmls, first)
            if index >= len(self._sent) or html != self._sent[index]
        ]
        self._sent[first:] = htmls
        self._sending_left -= sum(EVENT_BYTES + _weight(html) for _, html in changed)
        self._kind = blocks[-1].kind if blocks else ""
        if running:
            if blocks and blocks[-1].begun and _is_open_code(blocks[-1]):
                self._kind = "open"
            self._tail = self._cut(tail, blocks, known)
            if self._settled > first:
                self._growth_left = rendered[self._settled - first - 1][1]
            self._tail_bytes = len(self._tail.encode())
            self._last_bytes = _weight(htmls[-1]) if htmls and self._tail else 0
        return changed

    def _cut(self, tail: str, blocks: Sequence[_Block], known: int) -> str:
        """Settle what cannot change any more; forget the definitions behind it. Returns the new tail."""
        starts = _line_starts(tail)
        settled = _settled(blocks, len(starts) - 1)
        line = blocks[settled - 1].end if settled else 0
        references = self._references["references"]
        while len(references) > known and next(reversed(references.values()))["map"][1] > line:
            references.popitem()
        self._references.pop("duplicate_refs", None)
        self._settled += settled
        return tail[starts[line] :]


def _weight(html: str) -> int:
    formulas = sum(len(formula.encode()) for formula in FORMULA.findall(html))
    return len(html.encode()) - formulas + formulas // FORMULA_SHARE


def _settled(blocks: Sequence[_Block], unfinished_line: int) -> int:
    """Count the blocks that no further text can change, links to later definitions apart.

    Markdown is decided line by line, so a block is settled once a complete line began the next one. (A
    table takes two lines to begin.) Only the line still being written can turn into something else.
    """
    settled = 0
    for index, block in enumerate(blocks):
        lines = 2 if block.kind == "table_open" else 1
        if index and block.first + lines <= unfinished_line:
            settled = index
        if block.closed:
            settled = index + 1
    return settled


# What makes a rendering due. A pattern counts where its match ends in the text just appended.
_NEW_BLOCK = re.compile(r"(?<=\n)[ \t]*\n[-*+#>`~|\d.)=_ \t]*[^-*+#>`~|\d.)=_\s]")
_CODE_OPENS = re.compile(r"(?<=\n) {0,3}(?:```[^`\n]*|~~~[^\n]*)\n")
_CODE_CLOSES = re.compile(r"(?<=\n) {0,3}(?:```|~~~)[`~]*[ \t]*\n")
_INTERRUPTS = re.compile(
    r"(?<=\n) {0,3}(?:(?:#{1,6}|[-*+]|1[.)])[ \t]+\S|>[ \t]*\S|\|?[ \t]*:?-+:?[ \t]*\|[-:| \t]*\n)"
)
_FORMULA_ENDS = re.compile(r"(?:\$\$|\\\])[.,;:]?[ \t]*\n")
_AFTER_LIST = re.compile(r"(?<=\n)[ \t]*\n(?:\*\*[^\s*]|#{1,6}[ \t]+\S|[^\s\d*+#`~_-])")
_MARKUP = re.compile(
    r"\*\*[^*\n]+\*\*|~~[^~\n]+~~|`[^`\n]+`|\]\([^()\s]*\)|(?<=\n)[ \t]*(?:[-*+]|\d{1,9}[.)])[ \t]+\S|\|[ \t]*\n"
    r"|\$[^$\s][^$\n]*\$|\\\([^\n]+?\\\)"
)
_STRUCTURE = {
    "open": (_CODE_CLOSES,),
    "paragraph_open": (_NEW_BLOCK, _CODE_OPENS, _INTERRUPTS, _FORMULA_ENDS),
    "bullet_list_open": (_AFTER_LIST, _CODE_OPENS, _FORMULA_ENDS),
    "ordered_list_open": (_AFTER_LIST, _CODE_OPENS, _FORMULA_ENDS),
}


def _urgency(watched: str, old: int, kind: str) -> _Urgency:
    patterns = _STRUCTURE.get(kind, (_NEW_BLOCK, _CODE_OPENS))
    if any(_ends_in_new(pattern, watched, old) for pattern in patterns):
        return _Urgency.STRUCTURE
    if kind != "open" and _ends_in_new(_MARKUP, watched, old):
        return _Urgency.MARKUP
    return _Urgency.NONE


def _ends_in_new(pattern: re.Pattern[str], watched: str, old: int) -> bool:
    return any(match.end() > old for match in pattern.finditer(watched))


# Blocks: markdown-it's tokens, one group for each top-level element.


def _parse(text: str, env: Env) -> list[_Block]:
    blocks: list[_Block] = []
    lines = NEWLINE.split(text)
    tokens: list[Token] = []
    for token in _parser().parse(text, env):
        tokens.append(token)
        if token.level == 0 and token.nesting <= 0:
            blocks.append(_block(tokens, lines))
            tokens = []
    return blocks


def _block(tokens: list[Token], lines: Sequence[str]) -> _Block:
    token = tokens[0]
    first, end = token.map or (0, 0)  # every block has its lines
    if token.type == "fence":
        token.meta["open"] = not _is_fence_closed(token, lines[first + 1 : end])
        closed = not token.meta["open"] and end < len(lines)
    elif token.type in ("heading_open", "hr", "formula_block"):
        closed = end < len(lines)
    elif token.type in ("paragraph_open", "table_open", "blockquote_open"):
        closed = end + 1 < len(lines) and not lines[end].strip(" \t")
    else:  # lists and indented code go on after a blank line
        closed = False
    return _Block(tokens, "\n".join(lines[first:end]), first, end, first + 1 < len(lines), closed)


def _is_fence_closed(token: Token, lines: Sequence[str]) -> bool:
    match = FENCE_END.fullmatch(lines[-1]) if lines else None
    return match is not None and match[1].startswith(token.markup)


def _is_open_code(block: _Block) -> bool:
    return block.kind == "fence" and bool(block.tokens[0].meta["open"])


def _line_starts(text: str) -> list[int]:
    return [0, *(match.end() for match in NEWLINE.finditer(text))]


def _marked(blocks: Sequence[_Block], running: bool) -> Iterable[tuple[_Block, bool]]:
    """Pair each block with whether it is unfinished, which only the last of a running text can be."""
    last = len(blocks) - 1
    for index, block in enumerate(blocks):
        unfinished = running and index == last and not block.closed
        yield block, unfinished


def _htmls(blocks: Sequence[_Block], left: int, running: bool) -> list[tuple[str, int]]:
    """Render blocks, each with what is left of the allowance for growth behind it.

    One whose HTML is out of all proportion shows its source.
    """
    htmls = []
    for block, unfinished in _marked(blocks, running):
        left += GROWTH * len(block.source)
        html = _html(block, unfinished)
        if len(html) > min(left, MAX_BLOCK):
            html = _cleaner().clean(_figure("text", _escaped(block.source)))
        left -= len(html)
        htmls.append((html, left))
    return htmls


def _escaped(source: str) -> str:
    escaped = escapeHtml(source)
    if len(escaped) <= MAX_BLOCK:
        return escaped
    return escapeHtml(source[: MAX_BLOCK // 6]) + "\n… (Copy the message for all of it.)"


def _html(block: _Block, unfinished: bool) -> str:
    parser, token = _parser(), block.tokens[0]
    if unfinished and token.type == "fence" and not block.begun:  # its language is not known yet
        return _cleaner().clean(f"<p>{escapeHtml(token.markup + token.info)}</p>")
    html = parser.renderer.render(block.tokens, parser.options, {"unfinished": unfinished})
    return _cleaner().clean(html).strip()


# The parser, its additions, and the sanitiser.


@cache
def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False, "linkify": True, "maxNesting": MAX_NESTING})
    parser.enable(["table", "strikethrough", "linkify"])
    parser.disable(["html_block", "html_inline"])
    # Bare host names stay text: half of the file names in an answer (main.py, README.md) look like one.
    if parser.linkify:
        parser.linkify.set({"fuzzy_link": False, "fuzzy_email": False, "fuzzy_ip": False})
    parser.inline.ruler.at("image", _image)
    parser.core.ruler.before("inline", "tasks", _tasks)
    parser.core.ruler.at("inline", _inline)
    parser.core.ruler.at("linkify", _linkify)
    parser.core.ruler.push("page", _for_the_page)
    parser.validateLink = lambda url: LINK.match(url) is not None  # type: ignore[method-assign]
    for kind in ("fence", "code_block"):
        parser.add_render_rule(kind, _code)
    parser.use(formulas, as_source=lambda text: _figure("latex", escapeHtml(text)))
    parser.add_render_rule("task", _task)
    parser.add_render_rule(
        "table_open", lambda *_: '<div class="table" role="group" aria-label="Table" tabindex="0"><table>'
    )
    parser.add_render_rule("table_close", lambda *_: "</table></div>")
    parser.parse("a")  # its rules are put together at the first use, and threads share it
    return parser


@cache
def _cleaner() -> nh3.Cleaner:
    return nh3.Cleaner(
        tags=ALLOWED | FORMULA_ALLOWED.keys(),
        attributes={
            "*": set(),
            "a": {"href"},
            "ol": {"start"},
            "figure": {"data-language", "data-open"},
            **FORMULA_ALLOWED,
        },
        tag_attribute_values={
            "pre": {"tabindex": {"0"}, "translate": {"no"}},
            "div": SCROLLS,
            "span": {**SCROLLS, "role": {"group", "img"}, "aria-label": {"Formula", "done", "not done"}},
            "th": {"align": {"left", "center", "right"}},
            "td": {"align": {"left", "center", "right"}},
            **FORMULA_VALUES,
        },
        set_tag_attribute_values={"a": {"target": "_blank"}},
        link_rel="noopener noreferrer nofollow",
        url_schemes={"http", "https", "mailto"},
        url_relative="deny",
        allowed_classes={
            "figure": {"code"},
            "div": {"table", "math"},
            "li": {"task"},
            "span": {"math", "wide"} | SPAN_CLASSES,
            **{tag: set(CLASSES) for tag in ("mrow", "mtable", "mtd", "mspace", "mo")},
        },
    )


def _inline(state: StateCore) -> None:
    for token in state.tokens:
        if token.type == "inline" and token.meta.get("source"):
            token.children = list(_as_typed(token.content))
        elif token.type == "inline" and _has_too_many_links(token):
            token.children = [Token("text", "", 0, content=token.content)]
        elif token.type == "inline":
            token.children = []
            state.md.inline.parse(token.content, state.md, state.env, token.children)
            if _grows_too_much(token):
                token.children = [Token("text", "", 0, content=token.content)]


def _linkify(state: StateCore) -> None:
    tokens = state.tokens
    state.tokens = [
        token
        for token in tokens
        if _may_have_links(token) and not (_has_too_many_links(token) or token.meta.get("source"))
    ]
    linkify(state)
    state.tokens = tokens


def _may_have_links(token: Token) -> bool:
    # To search for one as the library does takes as long as half of a rendering.
    return "//" in token.content or "mailto:" in token.content.lower()


def _has_too_many_links(token: Token) -> bool:
    return sum(token.content.count(start) for start in ("[", "://", "mailto:")) > MAX_LINKS


def _grows_too_much(token: Token) -> bool:
    """Tell whether references make far more of a text than it is: a short name may stand for a long address."""
    size = sum(len(str(value)) for child in token.children or () for value in child.attrs.values())
    return size > GROWTH * len(token.content) + GROWTH_OF_ONE


def _as_typed(source: str) -> Iterable[Token]:
    for number, line in enumerate(source.split("\n")):
        if number:
            yield Token("hardbreak", "br", 0)
        yield Token("text", "", 0, content=line)


def _tasks(state: StateCore) -> None:
    """Make tasks of the list items that begin with a box."""
    for item, paragraph, words in zip(state.tokens, state.tokens[1:], state.tokens[2:], strict=False):
        if item.type != "list_item_open" or paragraph.type != "paragraph_open" or words.meta.get("source"):
            continue
        if match := TASK.match(words.content):
            item.attrs["class"] = "task"
            words.content = words.content[match.end() :]
            words.meta["task"] = "not done" if match[1] == " " else "done"


def _image(state: StateInline, silent: bool) -> bool:
    """Read an image as a link that shows its alternative text; within a link, as that text alone."""
    if not state.src.startswith("![", state.pos):
        return False
    within_link, before = state.linkLevel > 0, len(state.tokens)
    state.pos += 1
    if not link(state, silent):
        state.pos -= 1
        return False
    if within_link and not silent:
        opening = next(token for token in state.tokens[before:] if token.type == "link_open")
        opening.hidden = state.tokens[-1].hidden = True
    return True


def _for_the_page(state: StateCore) -> None:
    """Headings below the page's own, alignment without style, links that can be seen."""
    for token in state.tokens:
        token.block = False  # no line breaks between elements
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(6, int(token.tag[1]) + 2)}"
        elif token.type in ("th_open", "td_open") and "style" in token.attrs:
            token.attrs = {"align": str(token.attrs["style"]).removeprefix("text-align:")}
        elif token.children:
            token.children = list(_shown_links(token.children))
        if "task" in token.meta and token.children is not None:
            token.children.insert(0, Token("task", "", 0, content=token.meta["task"]))


def _shown_links(tokens: Sequence[Token]) -> Iterable[Token]:
    """Leave out links that lead nowhere, and show the address of those that have no text."""
    leads = True
    for token, following in zip(tokens, [*tokens[1:], None], strict=True):
        if token.type == "link_open" and not token.hidden:
            leads = bool(token.attrs["href"])
        if leads or token.hidden or token.type not in ("link_open", "link_close"):
            yield token
        if token.type == "link_open" and leads and following and following.type == "link_close":
            yield Token("text", "", 0, content=str(token.attrs["href"]))


def _code(renderer: RendererHTML, tokens: Sequence[Token], index: int, options: object, env: Env) -> str:
    token = tokens[index]
    words = token.info.split(maxsplit=1)
    language = words[0].lower() if words and LANGUAGE.fullmatch(words[0]) else "text"
    if language == "math" and not env["unfinished"] and (html := mathml(token.content, display=True)):
        return formula_box("div", html)
    is_open = env["unfinished"] and token.level == 0 and token.meta.get("open")
    code = escapeHtml(token.content) if env["unfinished"] else highlighted(token.content, language)
    return _figure(language, code, " data-open" if is_open else "")


def _task(renderer: RendererHTML, tokens: Sequence[Token], index: int, options: object, env: Env) -> str:
    return f'<span role="img" aria-label="{tokens[index].content}"></span>'


def _figure(language: str, code: str, mark: str = "") -> str:
    return (
        f'<figure class="code" data-language="{language}"{mark}>'
        f'<pre tabindex="0" translate="no"><code>{code}</code></pre></figure>'
    )
