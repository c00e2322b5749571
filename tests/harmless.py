"""What the HTML of an answer may hold: read strictly, tag for tag, and as a browser reads it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from html.parser import HTMLParser

from selectolax.lexbor import LexborHTMLParser

from llmchat.formula import CLASSES
from llmchat.highlight import SPAN_CLASSES

TAGS = {
    "p", "br", "hr", "h3", "h4", "h5", "h6", "blockquote", "ul", "ol", "li", "em", "strong", "s", "a", "code",
    "pre", "span", "figure", "div", "table", "thead", "tbody", "tr", "th", "td",
    "math", "mrow", "mi", "mn", "mo", "mtext", "mspace", "mfrac", "msqrt", "mroot", "msub", "msup", "msubsup", "munder",
    "mover", "munderover", "mtable", "mtr", "mtd", "mpadded", "mphantom", "menclose", "mmultiscripts", "mprescripts",
    "b", "i",
}  # fmt: skip
LENGTH = r"-?[\d.]+r?em|0"
FORMULA_ATTRIBUTES = {
    "accent": "true", "accentunder": "true", "display": "block", "displaystyle": "true|false", "form": "prefix|infix|postfix",
    "linethickness": "0|" + LENGTH, "lspace": LENGTH, "rspace": LENGTH, "minsize": LENGTH, "maxsize": LENGTH,
    "mathvariant": "normal", "movablelimits": "true|false", "notation": "(box|updiagonalstrike|downdiagonalstrike| )+",
    "scriptlevel": r"\d", "stretchy": "true|false", "symmetric": "true", "width": LENGTH,
    "class": f"(?:(?:{'|'.join(sorted(CLASSES))}) ?)*",
}  # fmt: skip
FORMULA_TAGS = {tag for tag in TAGS if tag.startswith("m")} | {"b", "i"}
VOID = {"br", "hr"}


class Checker(HTMLParser):
    """Fails for anything but the elements and attributes of an answer; counts top-level elements."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tops = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in TAGS
        assert not (tag == "a" and "a" in self.open)
        assert "math" in [tag, *self.open] or tag not in FORMULA_TAGS
        for name, value in attrs:
            self.check_attribute(tag, name, value or "")
        if tag == "a":
            assert dict(attrs)["rel"] == "noopener noreferrer nofollow"
            assert dict(attrs)["target"] == "_blank"
        self.tops += not self.open
        if tag not in VOID:
            self.open.append(tag)

    def check_attribute(self, tag: str, name: str, value: str) -> None:
        """Fail for an attribute that an answer's element does not have, or a value it may not have."""
        allowed = {
            ("a", "href"): r"(?i:https?://[^/]|mailto:.).*",
            ("a", "rel"): r"noopener noreferrer nofollow",
            ("a", "target"): "_blank",
            ("ol", "start"): r"\d{1,9}",
            ("td", "align"): "left|right|center",
            ("th", "align"): "left|right|center",
            ("figure", "class"): "code",
            ("figure", "data-language"): r"[\w+#.-]{1,32}",
            ("figure", "data-open"): "",
            ("pre", "tabindex"): "0",
            ("pre", "translate"): "no",
            ("div", "class"): "table|math",
            ("li", "class"): "task",
            ("span", "class"): "|".join(SPAN_CLASSES | {"math", "wide"}),
            ("span", "role"): "img|group",
            ("span", "aria-label"): "Formula|done|not done",
            ("div", "role"): "group",
            ("div", "aria-label"): "Formula|Table",
            **{(box, "tabindex"): "0" for box in ("div", "span")},
            **{(box, "dir"): "ltr" for box in ("div", "span")},
        }
        if tag in FORMULA_TAGS:
            allowed = {(tag, attribute): values for attribute, values in FORMULA_ATTRIBUTES.items()}
        assert (tag, name) in allowed, (tag, name, value)
        empty = name == "class" and not value  # where none of a text's classes is allowed
        assert empty or re.fullmatch(allowed[tag, name], value, re.DOTALL), (tag, name, value)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        assert self.open or not data.strip()

    def handle_comment(self, data: str) -> None:
        raise AssertionError(data)

    def handle_decl(self, decl: str) -> None:
        raise AssertionError(decl)

    def handle_pi(self, data: str) -> None:
        raise AssertionError(data)


def assert_clean(blocks: Iterable[str]) -> None:
    """Fail for anything but well-formed blocks of an answer's elements and attributes."""
    for html in blocks:
        checker = Checker()
        checker.feed(html)
        checker.close()
        assert (checker.tops, checker.open) == (1, []), html


def assert_harmless(blocks: Iterable[str]) -> None:
    """Fail for anything else that a browser would make of them, in foreign elements too."""
    checker = Checker()
    for node in LexborHTMLParser("<!doctype html>" + "".join(blocks)).root.traverse():
        assert node.tag in TAGS | {"html", "head", "body"}, node.html
        for name, value in node.attributes.items():
            checker.check_attribute(node.tag, name, value or "")
