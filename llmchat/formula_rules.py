"""Where a formula begins and ends in Markdown, and in what it is shown: rules for markdown-it's parser.

Pure. Knows what models write between dollars and behind backslashes, not what is a formula of TeX.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.common.utils import escapeHtml
from markdown_it.renderer import RendererHTML
from markdown_it.rules_block import StateBlock
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token

from llmchat.formula import MAX_FORMULA, mathml

WIDE = 24  # characters that an inline formula shows; one of more may not fit beside a phone's edges
LOOKED_BACK = 30  # lines of a paragraph, for a formula that began in it

CLOSING = {"$$": "$$", "\\[": "\\]", "\\(": "\\)"}
AFTER_FORMULA = ".,;:!?。，； \t"  # what may follow one on its line
AFTER_DISPLAY = re.compile(r"[.,;:]+(?=\s|$)")
DOLLARS = re.compile(r"(\${1,2})(?![\s$])((?:\\.|[^\\$`])++)(?<!\s)\1(?![$\d])", re.DOTALL)
SPACED_DOLLARS = re.compile(r"(\$\$)(?!\$)((?:\\.|[^\\$`])++)\1(?!\$)", re.DOTALL)


def formulas(parser: MarkdownIt, as_source: Callable[[str], str]) -> None:
    """Have a parser read formulas: a plugin.

    `as_source` returns the HTML for one with lines of its own that cannot be shown. One of those that does not end is
    a paragraph whose text has `meta["source"]`: the parser's own rules leave that as it was typed.
    """
    parser.block.ruler.before(
        "table", "formula_block", _block, {"alt": ["paragraph", "reference", "blockquote", "list"]}
    )
    parser.inline.ruler.before("escape", "formula", _inline)

    def shown(_: RendererHTML, tokens: Sequence[Token], index: int, *__: Any) -> str:
        return _shown(tokens[index], as_source)

    for kind in ("formula", "formula_block"):
        parser.add_render_rule(kind, shown)


def _block(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    """Read a formula with lines of its own, up to the line that holds its end, or to a blank one.

    What begins so is never anything else, so that each line decides what it is. Only a line that says more
    behind the end of its formula is a paragraph's like any other.
    """
    if state.is_code_block(start):
        return False
    first = state.src[state.bMarks[start] + state.tShift[start] : state.eMarks[start]]
    opening = first[:2]
    if opening not in ("$$", "\\["):
        return False
    closing = CLOSING[opening]
    at = first.find(closing, 2)
    if at >= 0 and first[at + 2 :].strip(AFTER_FORMULA):
        return False
    if silent and opening == "$$" and _began_before(state, start):
        return False
    if silent:
        return True
    line = start + 1
    while at < 0 and line < end and not state.isEmpty(line) and state.sCount[line] >= state.blkIndent:
        at = state.src.find(closing, state.bMarks[line] + state.tShift[line], state.eMarks[line])
        line += 1
    state.line = line
    source = state.getLines(start, line, state.blkIndent, False).strip()
    formula, rest = source.removeprefix(opening), ""
    if at >= 0:
        formula, _, rest = formula.partition(closing)
    if at >= 0 and not rest.strip(AFTER_FORMULA):
        token = state.push("formula_block", "", 0)
        token.content, token.markup, token.info = formula, source, rest.strip()
        token.map = [start, line]
        return True
    state.push("paragraph_open", "p", 1).map = [start, line]
    token = state.push("inline", "", 0)
    token.content, token.map, token.children = source, [start, line], []
    token.meta["source"] = at < 0
    state.push("paragraph_close", "p", -1)
    return True


def _began_before(state: StateBlock, start: int) -> bool:
    """Tell whether a formula began within a line of the paragraph so far: then these dollars are its end."""
    if state.parentType != "paragraph":
        return False
    for line in range(start - 1, max(state.line, start - LOOKED_BACK) - 1, -1):
        dollars = state.src.count("$$", state.bMarks[line] + state.tShift[line], state.eMarks[line])
        if dollars:
            return dollars % 2 == 1
    return False


def _inline(state: StateInline, silent: bool) -> bool:
    """Read a formula within a paragraph. What cannot be shown as one stays as it was typed."""
    found = _at(state.src, state.pos, state.posMax)
    if not found:
        return False
    opening, formula, size = found
    display = opening in ("$$", "\\[")
    after = AFTER_DISPLAY.match(state.src, state.pos + size, state.posMax) if display else None
    if not silent:
        html = mathml(formula, display=display)
        token = state.push("formula" if html else "text", "", 0)
        token.content = html or state.src[state.pos : state.pos + size]
        if html and after:
            token.content = _with_mark(html, after[0])
        elif after:
            token.content += after[0]
        token.info = "display" if display else ""
    state.pos = after.end() if after else state.pos + size
    return True


def _with_mark(html: str, mark: str) -> str:
    """Have what ends the sentence stand beside a formula, not below it."""
    return f"{html.removesuffix('</math>')}<mtext>{escapeHtml(mark)}</mtext></math>" if mark else html


def _at(text: str, start: int, end: int) -> tuple[str, str, int] | None:
    """Return delimiter, formula and size of the formula that begins at a place."""
    if text.startswith("$", start):
        if start and text[start - 1].isascii() and text[start - 1].isalnum():  # as in US$
            return None
        match = SPACED_DOLLARS.match(text, start, end) or DOLLARS.match(text, start, end)
        return (match[1], match[2], len(match[0])) if match else None
    opening = text[start : start + 2]
    if opening not in ("\\(", "\\["):
        return None
    at = text.find(CLOSING[opening], start + 2, min(end, start + MAX_FORMULA + 4))
    formula = text[start + 2 : at]
    if at < 0 or not formula.strip() or "`" in formula:
        return None
    if opening == "\\[" and (formula.isdigit() or text.startswith("(", at + 2)):  # brackets, no formula
        return None
    return opening, formula, at + 2 - start


def _shown(token: Token, as_source: Callable[[str], str]) -> str:
    if token.type == "formula_block":
        html = mathml(token.content, display=True)
        return formula_box("div", _with_mark(html, token.info)) if html else as_source(token.markup)
    if token.info:
        return formula_box("span", token.content)
    shown = len(re.sub("<[^>]*>", "", token.content))
    return formula_box("span", token.content, "wide") if shown > WIDE else token.content


def formula_box(tag: str, html: str, name: str = "math") -> str:
    """Return a formula's HTML in a box of its own, which scrolls where it is too wide."""
    return f'<{tag} class="{name}" dir="ltr" role="group" aria-label="Formula" tabindex="0">{html}</{tag}>'
