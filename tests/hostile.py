"""Texts that were written to do harm where a page shows them: those of brs-kb, and where Markdown may put one."""

from __future__ import annotations

from brs_kb.payloads import FULL_PAYLOAD_DATABASE

LONGEST = 1_000  # characters; the few longer ones say nothing new
PAYLOADS = sorted(
    {entry.payload for entry in FULL_PAYLOAD_DATABASE.values() if 0 < len(entry.payload) <= LONGEST}
)
FOR_MARKDOWN = sorted(
    {
        entry.payload
        for entry in FULL_PAYLOAD_DATABASE.values()
        if {"markdown", "mathml"} & set(entry.contexts) and len(entry.payload) <= LONGEST
    }
)
PLACES = (
    "{}", "`{}`", "```\n{}\n```", "```{}\ncode\n```", "    {}", "[{}](https://e.example)", "[a]({})", "[a](<{}>)", "<{}>",
    '[a](https://e.example "{}")', "![{}](https://e.example/p.png)", "![a]({})", "[a]\n\n[a]: {}", "|{}|{}|\n|-|-|\n|{}|b|",
    "- {}", "1. [ ] {}", "> {}", "# {}", "**{}**", "~~{}~~", "a\n\n{}\n===", "${}$", "$$\n{}\n$$", "$$\\text{{{}}}$$",
    "\\({}\\)", "\\[{}\\]", "```math\n{}\n```", "```html\n{}\n```", "https://e.example/{}", "[![a]({})]({})",
)  # fmt: skip


def placed(payload: str, place: str) -> str:
    """Put it where the place says."""
    return place.format(*[payload] * place.count("{}"))
