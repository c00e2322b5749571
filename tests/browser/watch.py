"""What a page must not do while a test looks at it: log an error, throw, break the CSP, call another host."""

from __future__ import annotations

from urllib.parse import urlsplit

from playwright.async_api import BrowserContext, ConsoleMessage, Page, Request, WebError

HOSTS = {"127.0.0.1", "localhost"}
TELL_VIOLATIONS = """
addEventListener("securitypolicyviolation", event =>
  console.error("CSP", event.effectiveDirective, event.blockedURI, event.sourceFile, event.sample));
"""


class Watch:
    """Collects the faults of all pages of a context; `check` fails the test for those it did not allow."""

    def __init__(self) -> None:
        self.faults: list[str] = []
        self._allowed: list[str] = []

    async def follow(self, context: BrowserContext) -> None:
        """Watch every page of a context from its first line on."""
        await context.add_init_script(TELL_VIOLATIONS)
        context.on("console", self._console)
        context.on("weberror", self._thrown)
        context.on("request", self._request)
        context.on("page", self._page)

    def allow(self, text: str) -> None:
        """Take faults with this text for what the test itself brings about, such as a refused connection."""
        self._allowed.append(text)

    def check(self) -> None:
        """Fail where anything else was wrong."""
        faults = [fault for fault in self.faults if not any(text in fault for text in self._allowed)]
        assert not faults, "the page:\n" + "\n".join(faults)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.faults.append(f"console.{message.type}: {message.text} ({message.location.get('url', '')})")

    def _thrown(self, error: WebError) -> None:
        self.faults.append(f"uncaught: {error.error}")

    def _request(self, request: Request) -> None:
        address = urlsplit(request.url)
        if address.scheme not in {"data", "blob", "about"} and address.hostname not in HOSTS:
            self.faults.append(f"request to another host: {request.url}")

    def _page(self, page: Page) -> None:
        page.on(
            "filechooser", lambda _: None
        )  # from the first on: else a test's may come as the browser's own dialog
        page.on("crash", lambda _: self.faults.append(f"crashed: {page.url}"))
