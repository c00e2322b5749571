"""What axe finds on a page as it is now, in both themes: all of it in the light, and in the dark what colours can break."""

from __future__ import annotations

from typing import Any, Literal

from axe_playwright_python.base import AXE_SCRIPT
from playwright.async_api import Page

TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
THEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
COLOUR = {"type": "rule", "values": ["color-contrast", "link-in-text-block"]}  # what a theme can make wrong
RUN = "options => axe.run(document, options)"
# What is folded away stands still for ever.
STILL = "() => Promise.all(document.getAnimations().map(each => isFinite(each.effect.getComputedTiming().endTime) && each.effect.target.checkVisibility() ? each.finished.catch(() => {}) : 0))"


async def findings(page: Page) -> list[str]:
    """Give the rules that are broken, each with the places where, in the light and in the dark."""
    if not await page.evaluate("'axe' in window"):
        await page.evaluate(AXE_SCRIPT)
    found = []
    for theme in THEMES:
        await page.emulate_media(color_scheme=theme)
        await page.evaluate(STILL)  # what is half transparent has no contrast yet
        options = {"runOnly": TAGS if theme == "light" else COLOUR, "resultTypes": ["violations"]}
        results: dict[str, Any] = await page.evaluate(RUN, options)
        found += [line for violation in results["violations"] for line in told(theme, violation)]
    return found


def told(theme: str, violation: dict[str, Any]) -> list[str]:
    return [
        f"{theme}: {violation['id']} at {node['target']}: {node['failureSummary']}"
        for node in violation["nodes"]
    ]
