"""The page is small, and its head names each of its files, once."""

from __future__ import annotations

import re
from pathlib import Path

import brotli

from llmchat.static_files import read
from tests.instances.instance import ROOT

STATIC, TEMPLATES = ROOT / "static", ROOT / "templates"
JS_BYTES, CSS_BYTES = 60 * 1024, 25 * 1024  # as brotli leaves them, of all files that a page opens with
IMPORT = re.compile(r'^(?:import|export) (?:[^;"]* from )?"(\.[^"]+)";', re.MULTILINE)
LATER = {
    "attention",
    "elements/chat-search",
    "elements/notify-switch",
    "elements/shortcut-sheet",
    "pictures",
    "warm-up",
}  # that the page loads once it works
ELSEWHERE = {
    "elements/sign-in",
    "elements/your-data",
    "elements/chat-share",
    "elements/chat-instructions",
    "plain",
    "settings",
    "shared",
}  # of pages of their own
ELSEWHERE_TOO = {
    "elements/import-form",
    "elements/made",
    "elements/chat-share",
    "elements/chat-instructions",
    "found",
    "sharing",
    "settings",
}  # modules, likewise, and of what is seldom wanted


def listed(name: str) -> list[str]:
    """Read one of the lists in the head of the page."""
    found = re.search(rf"for {name} in \[(.*?)\]", (TEMPLATES / "page.html").read_text())
    assert found
    return re.findall(r'"([^"]+)"', found[1])


def imported(file: Path) -> set[Path]:
    """Find all modules that one leads to, itself among them."""
    seen, ahead = set(), [file.resolve()]
    while ahead:
        module = ahead.pop()
        if module in seen:
            continue
        seen.add(module)
        ahead += [(module.parent / path).resolve() for path in IMPORT.findall(module.read_text())]
    return seen


def compressed(suffix: str, *elsewhere: str) -> int:
    """Add up the sizes of the page's files of a kind, as they travel."""
    return sum(
        len(brotli.compress(content))
        for name, content in read(STATIC).items()
        if name.endswith(suffix) and name.removesuffix(suffix).split("/", 1)[-1] not in elsewhere
    )


def test_scripts_and_sheets_keep_to_their_budgets() -> None:
    assert compressed(".js", *LATER, *ELSEWHERE_TOO) <= JS_BYTES
    assert compressed(".css", *ELSEWHERE) <= CSS_BYTES


def test_scripts_travel_without_their_comments_and_on_the_same_lines() -> None:
    for name, content in read(STATIC).items():
        if name.endswith(".js"):
            source, travels = (STATIC / name).read_text(), content.decode()
            assert all(line.count("`") % 2 == 0 for line in source.splitlines()), (
                f"{name}: a string over lines"
            )
            assert source.count("\n") == travels.count("\n")
            code = [
                line for line in source.splitlines() if not re.match(r"\s*(//|/?\*)", line) and line.strip()
            ]
            assert code == [line for line in travels.splitlines() if line.strip()]


def test_head_names_every_module_that_is_loaded_and_no_other() -> None:
    modules = {
        file.relative_to(STATIC.resolve() / "js").with_suffix("").as_posix()
        for file in imported(STATIC / "js" / "main.js")
    }
    named = listed("module")
    assert len(named) == len(set(named))
    assert {*named, "main"} == modules
    classic = set(re.findall(r"js/([\w-]+)\.js", (TEMPLATES / "page.html").read_text())) - {"main"}
    everything = {
        file.relative_to(STATIC / "js").with_suffix("").as_posix() for file in (STATIC / "js").rglob("*.js")
    }
    assert everything == modules | classic | LATER | ELSEWHERE_TOO
    imported_later = re.findall(r'import\("\./([\w/-]+)\.js"\)', (STATIC / "js" / "main.js").read_text())
    assert set(imported_later) == LATER


def test_head_names_every_sheet_there_is() -> None:
    sheets = {
        file.relative_to(STATIC / "css").with_suffix("").as_posix()
        for file in (STATIC / "css").rglob("*.css")
    }
    named = listed("sheet")
    assert len(named) == len(set(named))
    assert set(named) == sheets - ELSEWHERE
