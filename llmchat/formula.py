"""TeX's mathematics, as models write it -> MathML Core with classes in place of styles. Pure.

Knows nothing of Markdown. Never raises, never takes long, and never defines a command: what cannot be shown
as a formula is none. `math_core` recurses without a limit of its own, so length and nesting are limited here:
what is let in takes some 1 MiB of a thread's stack at most.
"""

from __future__ import annotations

import re
from colorsys import rgb_to_hls
from functools import cache

from math_core import LatexError, LatexToMathML

MAX_FORMULA = 3_000  # characters; commands without braces may nest once for every three
MAX_BRACES = 40  # within each other
MAX_LENGTH = 20.0  # of any space or line, in its unit: a formula stays where it stands
GROWTH_OF_FORMULA = 24  # characters of MathML per character …
GROWTH_OF_FORMULA_AT_ONCE = 512

MACROS = {
    "hbox": r"\text{#1}", "mbox": r"\text{#1}", "textnormal": r"\text{#1}", "smash": "{#1}",
    "mathclap": "{#1}", "substack": r"\begin{subarray}{c}#1\end{subarray}", "pmb": r"\boldsymbol{#1}",
    "mathbbm": r"\mathbb{#1}", "mathds": r"\mathbb{#1}", "abs": r"\left|#1\right|", "norm": r"\left\|#1\right\|",
    "dotsc": r"\ldots", "dotso": r"\ldots", "dotsb": r"\cdots", "dotsm": r"\cdots", "dotsi": r"\cdots",
    "hdots": r"\ldots", "allowbreak": "", "hfill": r"\quad", "strut": "", "lcm": r"\operatorname{lcm}",
}  # fmt: skip
DECLARATIONS = {
    "text-align:right": "end", "text-align:left": "start", "padding-left:0": "joined-start",
    "padding-right:0": "joined-end", "padding-left:1em": "apart", "width:50%": "half", "width:100%": "full",
    "margin-left:-0.16666667em": "back", "border-left:0.05em solid currentcolor": "line-start",
    "border-right:0.05em solid currentcolor": "line-end", "border-right:0.05em dashed currentcolor": "line-end",
    "border-top:0.05em solid currentcolor": "line-top", "border-top:0.05em dashed currentcolor": "line-top",
}  # fmt: skip
HUES = (  # where each begins, in degrees
    (345, "red"), (260, "purple"), (190, "blue"), (160, "teal"), (70, "green"), (15, "orange"), (0, "red"),
)  # fmt: skip
STRIKES = {"menclose-updiagonalstrike": "strike-up", "menclose-downdiagonalstrike": "strike-down"}
CLASSES = frozenset(
    {*DECLARATIONS.values(), *STRIKES.values(), *(name for _, name in HUES), "grey", "line"}
)  # what a formula's elements may have

_DEFINES = re.compile(r"\\(?:(?:re)?newcommand|providecommand|g?def|let|global)(?![A-Za-z])")
_LEFT_OUT = re.compile(r"\\(?:label|require)\s*\{[^{}]*\}|\\(?:notag|nonumber)(?![A-Za-z])")
_ENVIRONMENT = re.compile(
    r"\\(begin|end)\s*\{(align|alignat|alignedat|eqnarray|flalign|split|gather|multline|equation|smallmatrix)\*?\}"
)
_COLUMNS = re.compile(r"(\\begin\{aligned\})\{\d+\}")
_SHOWN_AS = {"gather": "gathered", "multline": "gathered", "smallmatrix": "matrix"}
_TEXT = re.compile(r"\\(text|textbf|textit|textrm|texttt|mbox|hbox)\s*\{((?:\\.|[^{}\\])*)\}", re.DOTALL)
_SPECIAL = re.compile(r"\\?([_#&%])")
_COMMENT = re.compile(r"(?<!\\)((?:\\\\)*)%")
_ROOM = re.compile(r"\\\\\s*\[-?[\d.]+ ?[a-z]{2}\]")  # asked for between two lines
_OPERATOR = re.compile(r"\\mathop\s*\{\s*(\\[A-Za-z]+)\s*\}")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_LENGTH = re.compile(r'="-?(\d+(?:\.\d*)?)[a-z]+"')
_STYLE = re.compile(r' style="([^"]*)"')
_CLASS = re.compile(r' class="([^"]*)"')
_LINE = '<mo stretchy="true">\N{COMBINING LOW LINE}</mo>'  # few fonts have one that stretches


def mathml(source: str, *, display: bool) -> str:
    """Return the `math` element of a formula without its delimiters; "" where it cannot be shown as one."""
    if (
        len(source) > MAX_FORMULA
        or not source.strip()
        or _DEFINES.search(source)
        or _depth(source) > MAX_BRACES
    ):
        return ""
    try:
        html = _converter().convert_with_local_state(_understood(source.strip()), displaystyle=display)
    except (LatexError, UnicodeEncodeError):  # the latter of half a character
        return ""
    if len(html) > GROWTH_OF_FORMULA * len(source) + GROWTH_OF_FORMULA_AT_ONCE:
        return ""
    if any(float(length) > MAX_LENGTH for length in _LENGTH.findall(html)):
        return ""
    html = _CLASS.sub(lambda match: f' class="{STRIKES.get(match[1], "")}"', html)
    html = html.replace(_LINE, '<mo class="line">\N{MACRON}</mo>')
    return _STYLE.sub(lambda match: _classes(match[1]), html)


@cache
def _converter() -> LatexToMathML:
    return LatexToMathML(
        macros=MACROS, fancy_error=False, allow_unreliable_rendering=True, max_expansions=100
    )


def _outside_braces(source: str) -> str:
    depth, parts, end = 0, [], 0
    for brace in _BRACE.finditer(source):
        if depth == 0:
            parts.append(source[end : brace.end()])
        depth += (brace[0] == "{") - (brace[0] == "}")
        end = brace.end()
    return "".join([*parts, source[end:]])


def _depth(source: str) -> int:
    depth = deepest = 0
    for brace in _BRACE.findall(source):
        depth += (brace == "{") - (brace == "}")
        deepest = max(deepest, depth)
    return deepest


def _understood(source: str) -> str:
    """Write what models write in the words that the library knows."""
    source = _ROOM.sub(r"\\\\", _COMMENT.sub(r"\1\\%", _LEFT_OUT.sub("", source)))
    source = _OPERATOR.sub(r"\1 ", _TEXT.sub(_text, source))
    if r"\tag" in source:  # only a numbered environment has room for it; no other line is numbered
        source = re.sub(r"(\\(?:begin|end)\s*\{(?:align|gather|equation|multline))\}", r"\1*}", source)
        outermost = re.match(r"\\begin\{(?:align|gather|equation|multline)\*\}", source)
        return source if outermost else rf"\begin{{equation*}}{source}\end{{equation*}}"
    source = _COLUMNS.sub(r"\1", _ENVIRONMENT.sub(_environment, source))
    outside = _outside_braces(source)
    if r"\\" in outside and r"\begin" not in source:
        name = "aligned" if re.search(r"(?<!\\)&", outside) else "gathered"
        return rf"\begin{{{name}}}{source}\end{{{name}}}"
    return source


def _environment(match: re.Match[str]) -> str:
    """Leave out numbers: they would begin anew in each formula."""
    if match[2] == "equation":
        return "{" if match[1] == "begin" else "}"
    return rf"\{match[1]}{{{_SHOWN_AS.get(match[2], 'aligned')}}}"


def _text(match: re.Match[str]) -> str:
    """Escape what is special only outside of text, and take formulas out of it."""
    command, parts = match[1], re.split(r"(?<!\\)\$", match[2])
    if len(parts) % 2 == 0:
        return match[0]
    escaped = (_SPECIAL.sub(r"{\\\1}", part) for part in parts[::2])
    words = (rf"\{command}{{{part}}}" if part else "" for part in escaped)
    return "".join(
        word + formula
        for word, formula in zip(words, [*(f"{{{part}}}" for part in parts[1::2]), ""], strict=True)
    )


def _classes(style: str) -> str:
    names = []
    for declaration in style.replace(": ", ":").rstrip(";").split(";"):
        if declaration.startswith("color:#"):
            names.append(_hue(declaration.removeprefix("color:#")))
        elif declaration in DECLARATIONS:
            names.append(DECLARATIONS[declaration])
    return f' class="{" ".join(names)}"' if any(names) else ""


def _hue(colour: str) -> str:
    """Name the nearest colour of those that are legible in both themes; "" for black and white."""
    red, green, blue = (int(colour[at : at + 2], 16) / 255 for at in (0, 2, 4))
    hue, lightness, saturation = rgb_to_hls(red, green, blue)
    if saturation < 0.15:
        return "grey" if 0.15 < lightness < 0.85 else ""
    return next(name for begin, name in HUES if hue * 360 >= begin)
