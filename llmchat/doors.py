"""What every request passes first, http and websocket alike: Host, Origin, what trusted proxies say; headers out.

An ASGI middleware that knows nothing of the app behind it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import secrets
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Sequence
from contextlib import suppress
from contextvars import ContextVar
from ipaddress import ip_address
from typing import Any, cast

from llmchat.pressure import overloaded
from llmchat.subject import Subject, subject

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; "
    "script-src {scripts}; "
    "style-src 'self'; "
    "img-src 'self' data:; "
    "connect-src 'self'; "
    "font-src 'self'; "
    "manifest-src 'self'; "
    "base-uri 'none'; "
    "form-action 'self'; "
    "frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; "
    "trusted-types llmchat"
)
HEADERS = [
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"x-permitted-cross-domain-policies", b"none"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
]
STRICTER = {b"cache-control", b"referrer-policy"}
"""What an app says itself stands: of two, a browser would take the last."""
NONCE_BYTES = 16
SECURE_HEADERS = [(b"strict-transport-security", b"max-age=31536000")]
"""Over https: for this host alone, whoever else may be under its name."""
ABORT = "llmchat.abort"
"""In a scope's state, where the server put it: a callable that cuts the connection."""
DIRECT = "llmchat.direct"
"""Likewise: a callable that writes a frame to a websocket at once, if it can."""
DRAIN_SECONDS = 3.0
"""After a websocket was served; of silence only, where the server gives no way to cut the connection."""
SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}
HEALTH_PATHS = {"/healthz", "/readyz"}
NEVER_PUT_OFF = {"/sign-out", "/sign-in/backchannel"}
"""Whoever is to be out is out at once."""
FILES = "/static/"
"""Which cost little, and without which an open page cannot come back."""
HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[0-9a-z_-][0-9a-z_.-]*)(:[0-9]{1,5})?", re.ASCII)
SECURE = {"http": "https", "ws": "wss"}
REQUEST_ID = re.compile(r"[A-Za-z0-9_.-]{8,64}")
WITH_PORT = re.compile(r"\[([^\]]+)\](?::[0-9]+)?|([0-9.]+):[0-9]+")

script_nonce: ContextVar[str] = ContextVar("script_nonce", default="")
"""Of the page that is being made: its own scripts carry it, so that nobody else's run, and what those import."""

log = logging.getLogger(__name__)


def policy(nonce: str = "") -> tuple[bytes, bytes]:
    """Give the header that says what a page may load; without a nonce it has no scripts."""
    scripts = f"'nonce-{nonce}'" if nonce else "'none'"
    return b"content-security-policy", CONTENT_SECURITY_POLICY.format(scripts=scripts).encode()


class Doors:
    """Lets in what names an allowed Host and comes from our own page, or from no page at all."""

    def __init__(
        self,
        app: Any,
        *,
        allowed_hosts: Sequence[str],
        trusted_origins: Sequence[str],
        proxy_hops: int,
        address_header: str,
        any_host: Collection[str] = (),
        pressed: Callable[[], bool] = lambda: False,
    ) -> None:
        """`any_host` are paths that whoever asks may call us what it likes for, beside those of health.

        `pressed` tells whether there is as much to do as can be: then nobody is let in but to those paths, and to files.
        """
        self._app = app
        self._allowed_hosts = [host.lower() for host in allowed_hosts]
        self._trusted_origins = {origin.lower().rstrip("/") for origin in trusted_origins}
        self._proxy_hops = proxy_hops
        self._address_header = address_header.encode()
        self._pressed = pressed
        self._told_of_proxy = False
        self._any_host = HEALTH_PATHS | set(any_host)
        self.responses: Counter[int] = Counter()
        """By HTTP status."""

    def __call__(self, scope: Any, receive: Any, send: Any) -> Coroutine[Any, Any, None]:
        """Serve one ASGI scope."""
        if scope["type"] not in ("http", "websocket"):
            return cast(Coroutine[Any, Any, None], self._app(scope, receive, send))
        headers: dict[bytes, str] = {}
        for name, value in scope["headers"]:  # several lines of one name are one list
            before = headers.get(name.lower())
            headers[name.lower()] = (f"{before}, " if before is not None else "") + value.decode("latin-1")
        scope = scope | {"scheme": self._scheme(scope, headers), "client": self._client(scope, headers)}
        subject.set(Subject(request=self._request_id(headers)))
        script_nonce.set(secrets.token_urlsafe(NONCE_BYTES) if scope["type"] == "http" else "")
        self._tell_of_proxy(headers)
        send = _with_headers(send, self.responses, secure=scope["scheme"] in SECURE.values())
        refusal = self._refusal(scope, headers)
        if refusal is not None:
            return _refuse(scope, send, *refusal)
        if self._pressed() and not (
            scope["path"] in self._any_host | NEVER_PUT_OFF or scope["path"].startswith(FILES)
        ):
            return _put_off(scope, send, headers)
        if scope["type"] == "websocket":
            return _websocket(self._app, scope, receive, send)
        return cast(Coroutine[Any, Any, None], self._app(scope, receive, send))

    def _refusal(self, scope: Any, headers: dict[bytes, str]) -> tuple[int, str] | None:
        if scope["path"] not in self._any_host and not self._host_allowed(headers.get(b"host", "")):
            return 400, "This Host is not allowed; name it in ALLOWED_HOSTS."
        asks = scope["type"] == "http" and scope["method"] in SAFE_METHODS
        if not asks and not self._origin_allowed(scope, headers):
            return 403, "This Origin is not allowed; name it in CSRF_TRUSTED_ORIGINS."
        return None

    def _host_allowed(self, host: str) -> bool:
        name = _host_name(host)
        return any(
            allowed == "*" or name == allowed or (allowed.startswith(".") and ("." + name).endswith(allowed))
            for allowed in self._allowed_hosts
        )

    def _origin_allowed(self, scope: Any, headers: dict[bytes, str]) -> bool:
        if b"origin" not in headers:
            return True
        origin = headers[b"origin"].lower()
        scheme = {"ws": "http", "wss": "https"}.get(scope["scheme"], scope["scheme"])
        return origin == f"{scheme}://{headers.get(b'host', '').lower()}" or origin in self._trusted_origins

    def _scheme(self, scope: Any, headers: dict[bytes, str]) -> str:
        """Follow X-Forwarded-Proto, as the outermost trusted proxy wrote it."""
        given: str = scope["scheme"]
        outermost = self._told(headers, b"x-forwarded-proto").lower()
        return SECURE.get(given, given) if outermost in SECURE.values() else given

    def _client(self, scope: Any, headers: dict[bytes, str]) -> tuple[str, int] | None:
        """Follow the header in which the outermost trusted proxy wrote who asked it."""
        told = self._told(headers, self._address_header)
        ported = WITH_PORT.fullmatch(told)
        try:
            return str(ip_address(ported[1] or ported[2] if ported else told)), 0
        except ValueError:
            peer: tuple[str, int] | None = scope.get("client")
            return peer

    def _request_id(self, headers: dict[bytes, str]) -> str:
        told = headers.get(b"x-request-id", "") if self._proxy_hops else ""
        return told if REQUEST_ID.fullmatch(told) else secrets.token_hex(8)

    def _tell_of_proxy(self, headers: dict[bytes, str]) -> None:
        if self._proxy_hops or self._told_of_proxy or b"x-forwarded-for" not in headers:
            return
        self._told_of_proxy = True
        log.warning(
            "A request came through a proxy, but TRUSTED_PROXY_HOPS is 0: all its visitors count as one address, "
            "and https as http. Set it to the number of proxies in front; if there is none, it was a forgery."
        )

    def _told(self, headers: dict[bytes, str], name: bytes) -> str:
        """Find what the outermost trusted proxy wrote: each appends to what it got, or writes anew."""
        told = [part.strip() for part in headers.get(name, "").split(",")]
        return told[max(0, len(told) - self._proxy_hops)] if self._proxy_hops else ""


def _host_name(host: str) -> str:
    match = HOST.fullmatch(host.lower())
    return match["name"] if match else ""


async def _websocket(app: Any, scope: Any, receive: Any, send: Any) -> None:
    """Serve a websocket, and read on after the app has ended, until the peer is gone, or for so long; then cut it.

    Hypercorn keeps few messages for an app; full of what nobody reads, it never sees that the peer has gone, and the
    socket stays open for ever. So it does where the peer does not read that it is closed.
    """
    open_, gone = False, False

    async def received() -> Any:
        nonlocal open_, gone
        message = await receive()
        gone = gone or message["type"] == "websocket.disconnect"
        open_ = open_ and not gone
        return message

    async def sent(message: Any) -> None:
        nonlocal open_
        open_ = open_ or (message["type"] == "websocket.accept" and not gone)
        await send(message)

    await app(scope, received, sent)
    abort = scope.get("state", {}).get(ABORT)
    if abort is not None:
        cut = asyncio.get_running_loop().call_later(DRAIN_SECONDS, abort)
        while open_:  # also when it is cut: what is left is in the way of the end
            await received()
        cut.cancel()
        return
    with suppress(TimeoutError):
        while open_:
            async with asyncio.timeout(DRAIN_SECONDS):
                await received()


async def _put_off(scope: Any, send: Any, headers: dict[bytes, str]) -> None:
    """Refuse for a moment: a page that a person opens comes again by itself, a program is told when to."""
    refusal = overloaded()
    retry_after = str(refusal.retry_after).encode()
    told = [(b"retry-after", retry_after), (b"cache-control", b"no-store")]
    if "text/html" in headers.get(b"accept", ""):
        again = [(b"refresh", retry_after)] if scope.get("method") in SAFE_METHODS else []
        await _refuse(scope, send, 503, refusal.detail, *told, *again)
    else:
        await _refuse(
            scope, send, 503, json.dumps({"detail": refusal.detail}), *told, form=b"application/json"
        )


async def _refuse(
    scope: Any,
    send: Any,
    status: int,
    body: str,
    *more: tuple[bytes, bytes],
    form: bytes = b"text/plain; charset=utf-8",
) -> None:
    kind = "websocket.http.response" if scope["type"] == "websocket" else "http.response"
    content = body.encode()
    headers = [(b"content-type", form), (b"content-length", str(len(content)).encode()), *more]
    await send({"type": f"{kind}.start", "status": status, "headers": headers})
    await send({"type": f"{kind}.body", "body": content, "more_body": False})


def _with_headers(send: Any, responses: Counter[int], *, secure: bool) -> Any:
    own = [(b"x-request-id", subject.get().request.encode())]
    ours = [policy(script_nonce.get()), *HEADERS, *(SECURE_HEADERS if secure else ()), *own]

    async def wrapped(message: Any) -> None:
        if message["type"] in ("http.response.start", "websocket.http.response.start"):
            responses[message["status"]] += 1
            told = {name.lower() for name, _ in message["headers"]} & STRICTER
            added = [each for each in ours if each[0] not in told]
            message = message | {"headers": [*message["headers"], *added]}
        elif message["type"] == "websocket.accept":
            message = message | {"headers": [*message.get("headers", ()), *own]}
        await send(message)

    return wrapped
