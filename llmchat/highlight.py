"""Code -> HTML with classes for its colours: as few spans as a quiet palette needs, since each goes over the wire. Pure.

Knows nothing of Markdown. Never raises, and never takes long: what cannot be coloured in time is plain.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache, lru_cache
from itertools import accumulate
from time import thread_time

from markdown_it.common.utils import escapeHtml
from pygments.lexer import Lexer
from pygments.lexers import get_lexer_by_name
from pygments.token import _TokenType
from pygments.util import ClassNotFound

MAX_HIGHLIGHTED = 50_000  # characters of code; more is shown plain
MAX_HIGHLIGHTED_LINE = 2_000
LEXING_SECONDS = 0.1  # of processor time; some lexers are quadratic, as Java's in words
# Pygments' short names for the token types that get a colour; a subtype takes its nearest ancestor's.
TOKEN_CLASSES = {
    "Comment": "c", "Comment.Preproc": "cp",
    "Keyword": "k", "Keyword.Constant": "kc", "Keyword.Type": "kt",
    "Literal.Number": "m", "Literal.String": "s", "Name.Attribute": "na", "Name.Builtin": "nb",
    "Name.Builtin.Pseudo": "", "Name.Class": "nc", "Name.Decorator": "nd", "Name.Function": "nf",
    "Name.Tag": "nt", "Operator.Word": "k",
    "Generic.Deleted": "gd", "Generic.Heading": "gh", "Generic.Inserted": "gi", "Generic.Prompt": "gp",
    "Generic.Subheading": "gu",
}  # fmt: skip
SPAN_CLASSES = frozenset(TOKEN_CLASSES.values()) - {""}
PALETTES = (  # the first that keeps the HTML within bounds; dense code gets fewer colours
    SPAN_CLASSES,
    frozenset({"c", "cp", "k", "kc", "nt", "s", "gd", "gh", "gi", "gp", "gu"}),
    frozenset({"c", "cp", "k", "nt", "gd", "gh", "gi"}),
    frozenset({"k", "nt", "gd", "gi"}),
    frozenset({"c", "cp", "gh"}),
)
COLOURED_PER_CHARACTER = 2.7  # characters of HTML …
COLOURED_AT_ONCE = 40  # … and so many more: a line with one word in colour, however short


@lru_cache(maxsize=32)  # an answer's code is rendered again whenever its conversation is opened
def highlighted(code: str, language: str) -> str:
    """Escape code, and mark what has a colour in `language`, a name that Pygments may know."""
    if tokens := _lexed(code, language):
        for palette in PALETTES:
            html = _coloured(tokens, palette)
            if len(html) <= COLOURED_PER_CHARACTER * len(code) + COLOURED_AT_ONCE:
                return html
    return escapeHtml(code)


def _coloured(tokens: Iterable[tuple[_TokenType, str]], palette: frozenset[str]) -> str:
    parts: list[str] = []
    current, run = "", ""
    for kind, value in tokens:
        name = _token_class(kind)
        name = name if name in palette else ""
        if name != current and not value.isspace():
            parts.append(_span(current, run))
            current, run = name, ""
        run += value
    return "".join([*parts, _span(current, run)])


def _span(name: str, text: str) -> str:
    body = text.rstrip()
    escaped = escapeHtml(body)
    return (f'<span class="{name}">{escaped}</span>' if name and body else escaped) + text[len(body) :]


@cache
def _token_class(kind: _TokenType) -> str:
    names = list(accumulate(kind, "{}.{}".format))
    return next((TOKEN_CLASSES[name] for name in reversed(names) if name in TOKEN_CLASSES), "")


@lru_cache(maxsize=128)
def _lexer(language: str) -> Lexer | None:
    if language == "text":
        return None
    try:
        return get_lexer_by_name(language, stripnl=False, ensurenl=False)
    except ClassNotFound:
        return None


def _lexed(code: str, language: str) -> list[tuple[_TokenType, str]]:
    """Split code into tokens; into none where its lexer is slow, fails, or loses a character."""
    lexer = _lexer(language) if len(code) <= MAX_HIGHLIGHTED else None
    if lexer is None or max(map(len, code.split("\n"))) > MAX_HIGHLIGHTED_LINE:
        return []
    tokens = []
    stop = thread_time() + LEXING_SECONDS
    try:
        for token in lexer.get_tokens(code):
            tokens.append(token)
            if thread_time() > stop:
                return []
    except Exception:  # any of Pygments' hundreds of lexers may have its bug
        return []
    return tokens if "".join(value for _, value in tokens) == code else []
