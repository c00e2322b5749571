"""Who is let in, row by row: Host, Origin, the scheme behind proxies; and what every response carries."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from llmchat.doors import HEADERS, HEALTH_PATHS, SECURE_HEADERS, Doors
from llmchat.subject import subject

Headers = list[tuple[str, str]]
XFF = "x-forwarded-for"
HOST: Headers = [("Host", "chat.example")]


class App:
    """An ASGI app that answers 200, and keeps the scopes that reached it."""

    def __init__(self) -> None:
        self.scopes: list[dict[str, Any]] = []

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Serve one scope."""
        self.scopes.append(scope)
        if scope["type"] == "http":
            await send(
                {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/html")]}
            )
            await send({"type": "http.response.body", "body": b"Hi"})
        elif scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
        else:
            await send({"type": "lifespan.startup.complete"})


class Visit:
    """One scope that came to the doors, and what became of it."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.sent: list[dict[str, Any]] = []

    async def send(self, message: dict[str, Any]) -> None:
        """Keep what is sent to the client."""
        self.sent.append(message)

    @property
    def status(self) -> int:
        """The status of the response; 101 for an accepted websocket."""
        return 101 if self.sent[0]["type"] == "websocket.accept" else int(self.sent[0]["status"])

    @property
    def scheme(self) -> str:
        """The scheme as the app was told it."""
        return str(self.app.scopes[-1]["scheme"])


async def receive() -> dict[str, Any]:
    """Be a peer that is gone: what reads a websocket to its end hears that."""
    return {"type": "websocket.disconnect", "code": 1006}


async def visit(
    headers: Headers,
    *,
    kind: str = "http",
    method: str = "GET",
    path: str = "/",
    scheme: str | None = None,
    hosts: tuple[str, ...] = ("chat.example",),
    origins: tuple[str, ...] = (),
    hops: int = 0,
    address_header: str = XFF,
) -> Visit:
    """Come to the doors."""
    scope: dict[str, Any] = {
        "type": kind,
        "path": path,
        "client": ("10.0.0.9", 4711),
        "scheme": scheme or {"http": "http", "websocket": "ws"}[kind],
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in headers],
    }
    if kind == "http":
        scope["method"] = method
    app = App()
    made = Visit(app)
    doors = Doors(
        app,
        allowed_hosts=hosts,
        trusted_origins=origins,
        proxy_hops=hops,
        address_header=address_header,
    )
    await doors(scope, receive, made.send)
    assert bool(app.scopes) == (made.status in (101, 200))
    return made


# Host

ALLOWED = ("localhost", "127.0.0.1", "[::1]", "Chat.Example", ".wild.example")


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:8000",
        "LOCALHOST:8000",
        "127.0.0.1:80",
        "[::1]",
        "[::1]:8000",
        "chat.example",
        "CHAT.example:443",
        "wild.example",
        "a.wild.example",
        "A.B.Wild.Example:8443",
    ],
)
async def test_host_is_let_in_when_it_is_allowed(kind: str, host: str) -> None:
    assert (await visit([("Host", host)], kind=kind, hosts=ALLOWED)).status in (101, 200)


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize(
    "host",
    [
        "",
        " ",
        ":8000",
        "evil.example",
        "localhost.evil.example",
        "evil.localhost",
        "evilwild.example",
        "wild.example.evil.example",
        "a.chat.example",
        "127.0.0.2",
        "127.0.0.1.evil.example",
        "::1",
        "[::2]",
        "[::1",
        "[::1]evil",
        "[::1].evil.example",
        "localhost:port",
        "localhost:80:80",
        "localhost:999999",
        "localhost:-1",
        "localhost@evil.example",
        "evil@localhost",
        "evil:x@localhost",
        "localhost/evil.example",
        "localhost?evil.example",
        "localhost#evil.example",
        "localhost\\evil.example",
        "http://localhost",
        "localhost, evil.example",
        "local\thost",
        "localhost\x00",
        "localh\xf6st",
        "*",
        ".wild.example",
    ],
)
async def test_host_is_refused_when_it_is_foreign_or_garbage(kind: str, host: str) -> None:
    assert (await visit([("Host", host)], kind=kind, hosts=ALLOWED)).status == 400


@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_host_is_refused_when_it_is_missing(kind: str) -> None:
    assert (await visit([], kind=kind)).status == 400


@pytest.mark.parametrize("hosts", [["chat.example", "evil.example"], ["evil.example", "chat.example"]])
async def test_host_is_refused_when_there_are_two(hosts: list[str]) -> None:
    assert (await visit([("Host", host) for host in hosts])).status == 400


@pytest.mark.parametrize("host", ["anything.example", "10.0.0.7:8000", "[2001:db8::1]"])
async def test_every_host_is_let_in_when_all_are_allowed(host: str) -> None:
    assert (await visit([("Host", host)], hosts=("*",))).status == 200


@pytest.mark.parametrize("path", sorted(HEALTH_PATHS))
async def test_health_check_is_let_in_whatever_its_host(path: str) -> None:
    assert (await visit([("Host", "10.0.0.7:8000")], path=path)).status == 200
    assert (await visit([], path=path)).status == 200


@pytest.mark.parametrize("path", ["/", "/healthz/", "/healthz/x", "/HEALTHZ", "/ws/chat/"])
async def test_foreign_host_is_refused_on_paths_that_are_no_health_check(path: str) -> None:
    assert (await visit([("Host", "10.0.0.7:8000")], path=path)).status == 400


# Origin

ORIGINS = [
    ("https://chat.example", 403),  # the scheme is http here
    ("http://chat.example", 200),
    ("HTTP://Chat.Example", 200),
    ("http://chat.example:8000", 403),
    ("http://evil.example", 403),
    ("http://a.chat.example", 403),
    ("http://chat.example.evil.example", 403),
    ("http://evil@chat.example", 403),
    ("http://chat.example/", 403),
    ("chat.example", 403),
    ("null", 403),
    ("", 403),
    ("http://", 403),
    ("https://friend.example", 200),
    ("https://FRIEND.example", 200),
    ("http://friend.example", 403),
    ("https://friend.example:8443", 403),
]
FRIENDS = ("https://Friend.example/",)


@pytest.mark.parametrize(("origin", "status"), ORIGINS)
async def test_post_is_let_in_from_our_own_page_and_from_friends(origin: str, status: int) -> None:
    made = await visit([*HOST, ("Origin", origin)], method="POST", origins=FRIENDS)
    assert made.status == status


@pytest.mark.parametrize(("origin", "status"), ORIGINS)
async def test_websocket_is_let_in_from_our_own_page_and_from_friends(origin: str, status: int) -> None:
    made = await visit([*HOST, ("Origin", origin)], kind="websocket", origins=FRIENDS)
    assert made.status == {200: 101}.get(status, status)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_page_elsewhere_changes_nothing_whatever_the_method(method: str) -> None:
    assert (await visit([*HOST, ("Origin", "http://evil.example")], method=method)).status == 403


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
async def test_page_elsewhere_may_link_here(method: str) -> None:
    assert (await visit([*HOST, ("Origin", "http://evil.example")], method=method)).status == 200


async def test_origin_is_refused_when_there_are_two() -> None:
    origins = [("Origin", "http://evil.example"), ("Origin", "http://chat.example")]
    assert (await visit([*HOST, *origins], kind="websocket")).status == 403


@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_program_is_let_in_without_an_origin(kind: str) -> None:
    assert (await visit(HOST, kind=kind, method="POST")).status in (101, 200)


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("localhost:8000", "http://localhost:8000", 101),
        ("localhost:8000", "http://localhost:3000", 403),
        ("localhost:8000", "http://localhost", 403),
        ("localhost:8000", "http://127.0.0.1:8000", 403),
        ("[::1]:8000", "http://[::1]:8000", 101),
        ("LocalHost:8000", "http://localhost:8000", 101),
    ],
)
async def test_origin_must_have_the_port_of_the_host(host: str, origin: str, status: int) -> None:
    made = await visit(
        [("Host", host), ("Origin", origin)], kind="websocket", hosts=("localhost", "[::1]", "127.0.0.1")
    )
    assert made.status == status


@pytest.mark.parametrize(("kind", "scheme"), [("http", "https"), ("websocket", "wss")])
async def test_origin_must_have_the_scheme_of_the_connection(kind: str, scheme: str) -> None:
    secure = [*HOST, ("Origin", "https://chat.example")]
    assert (await visit(secure, kind=kind, method="POST", scheme=scheme)).status in (101, 200)
    plain = [*HOST, ("Origin", "http://chat.example")]
    assert (await visit(plain, kind=kind, method="POST", scheme=scheme)).status == 403


# The scheme behind proxies


@pytest.mark.parametrize(
    ("hops", "forwarded", "scheme"),
    [
        (0, "https", "http"),
        (1, None, "http"),
        (1, "", "http"),
        (1, "https", "https"),
        (1, "HTTPS", "https"),
        (1, "wss", "https"),
        (1, "http", "http"),
        (1, "gopher", "http"),
        (1, "https, http", "http"),  # the first was written by the client
        (1, "http, https", "https"),
        (1, "http,https", "https"),
        (2, "https", "https"),  # a proxy that replaces what the other wrote
        (2, "https, http", "https"),
        (2, "http, https", "http"),
        (2, "https, http, http", "http"),
        (2, "http, https, http", "https"),
    ],
)
@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_scheme_is_what_the_outermost_trusted_proxy_saw(
    kind: str, hops: int, forwarded: str | None, scheme: str
) -> None:
    headers = HOST if forwarded is None else [*HOST, ("X-Forwarded-Proto", forwarded)]
    made = await visit(headers, kind=kind, hops=hops)
    assert made.scheme == (scheme if kind == "http" else scheme.replace("http", "ws"))


async def test_scheme_is_read_from_several_lines_as_from_one() -> None:
    lines = [*HOST, ("X-Forwarded-Proto", "https"), ("X-Forwarded-Proto", "http")]
    assert (await visit(lines, hops=2)).scheme == "https"
    assert (await visit(lines, hops=1)).scheme == "http"


async def test_secure_connection_stays_secure_when_no_proxy_is_trusted() -> None:
    assert (await visit([*HOST, ("X-Forwarded-Proto", "http")], scheme="https")).scheme == "https"


@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_page_behind_a_trusted_proxy_is_our_own(kind: str) -> None:
    headers = [*HOST, ("Origin", "https://chat.example"), ("X-Forwarded-Proto", "https")]
    assert (await visit(headers, kind=kind, method="POST", hops=1)).status in (101, 200)
    assert (await visit(headers, kind=kind, method="POST", hops=0)).status == 403


# Who asks

PEER = "10.0.0.9"


@pytest.mark.parametrize(
    ("hops", "forwarded", "address"),
    [
        (0, "1.2.3.4", PEER),
        (1, None, PEER),
        (1, "", PEER),
        (1, "1.2.3.4", "1.2.3.4"),
        (1, "6.6.6.6, 1.2.3.4", "1.2.3.4"),  # the first was written by the client
        (1, "6.6.6.6,1.2.3.4:55", "1.2.3.4"),
        (1, "2001:DB8::1", "2001:db8::1"),
        (1, "[2001:db8::1]:55", "2001:db8::1"),
        (1, "[2001:db8::1]", "2001:db8::1"),
        (1, "unknown", PEER),
        (1, "1.2.3.4, <script>", PEER),
        (2, "6.6.6.6, 1.2.3.4, 10.0.0.1", "1.2.3.4"),
        (2, "1.2.3.4", "1.2.3.4"),
    ],
)
@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_address_is_what_the_outermost_trusted_proxy_saw(
    kind: str, hops: int, forwarded: str | None, address: str
) -> None:
    headers = HOST if forwarded is None else [*HOST, ("X-Forwarded-For", forwarded)]
    made = await visit(headers, kind=kind, hops=hops)
    assert made.app.scopes[0]["client"][0] == address


@pytest.mark.parametrize(("hops", "address"), [(0, PEER), (1, "1.2.3.4")])
async def test_address_is_read_from_the_header_that_is_trusted_and_no_other(hops: int, address: str) -> None:
    headers = [*HOST, ("X-Forwarded-For", "6.6.6.6"), ("X-Real-IP", "1.2.3.4")]
    made = await visit(headers, hops=hops, address_header="x-real-ip")
    assert made.app.scopes[0]["client"][0] == address
    made = await visit([*HOST, ("X-Forwarded-For", "6.6.6.6")], hops=hops, address_header="x-real-ip")
    assert made.app.scopes[0]["client"][0] == PEER


async def test_operator_is_told_once_of_a_proxy_that_is_not_trusted(caplog: pytest.LogCaptureFixture) -> None:
    app = App()
    doors = Doors(app, allowed_hosts=["*"], trusted_origins=[], proxy_hops=0, address_header=XFF)
    for _ in range(3):
        headers = [(b"host", b"localhost"), (b"x-forwarded-for", b"6.6.6.6")]
        scope = {"type": "http", "method": "GET", "path": "/", "scheme": "http", "headers": headers}
        await doors(scope, receive, Visit(app).send)
    assert caplog.text.count("TRUSTED_PROXY_HOPS") == 1
    assert "6.6.6.6" not in caplog.text


# What goes out


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize("host", ["chat.example", "evil.example"])
async def test_every_response_has_a_number_to_quote(kind: str, host: str) -> None:
    made = await visit([("Host", host)], kind=kind)
    numbers = [value.decode() for name, value in made.sent[0]["headers"] if name == b"x-request-id"]
    assert numbers == [subject.get().request]
    again = await visit([("Host", host)], kind=kind)
    assert (b"x-request-id", numbers[0].encode()) not in again.sent[0]["headers"]


@pytest.mark.parametrize(
    ("hops", "given", "taken"),
    [
        (1, "0123-abcd.EF", True),
        (0, "0123-abcd.EF", False),
        (1, "short", False),
        (1, "a" * 65, False),
        (1, "x\r\nEvil: 1", False),
    ],
)
async def test_number_of_a_trusted_proxy_is_kept_when_it_is_one(hops: int, given: str, taken: bool) -> None:
    made = await visit([*HOST, ("X-Request-ID", given)], hops=hops)
    assert ((b"x-request-id", given.encode()) in made.sent[0]["headers"]) == taken


@pytest.mark.parametrize(("scheme", "secure"), [("http", False), ("https", True)])
async def test_browsers_are_told_to_keep_to_https_over_https_only(scheme: str, secure: bool) -> None:
    made = await visit(HOST, scheme=scheme)
    assert (SECURE_HEADERS[0] in made.sent[0]["headers"]) == secure


async def test_response_has_the_headers_that_browsers_obey() -> None:
    made = await visit(HOST)
    headers = dict(made.sent[0]["headers"])
    assert headers[b"content-type"] == b"text/html"
    assert headers.items() >= dict(HEADERS).items()
    policy = headers[b"content-security-policy"].decode()
    for part in ("default-src 'none'", "frame-ancestors 'none'", "require-trusted-types-for 'script'"):
        assert part in policy
    assert "unsafe" not in policy
    assert re.search(r"script-src 'nonce-[\w-]{22}'; ", policy)
    again = dict((await visit(HOST)).sent[0]["headers"])
    assert again[b"content-security-policy"] != headers[b"content-security-policy"]
    assert made.sent[1] == {"type": "http.response.body", "body": b"Hi"}


@pytest.mark.parametrize(
    ("headers", "status", "variable"),
    [
        ([("Host", "evil.example")], 400, "ALLOWED_HOSTS"),
        ([*HOST, ("Origin", "http://evil.example")], 403, "CSRF_TRUSTED_ORIGINS"),
    ],
)
@pytest.mark.parametrize(("kind", "prefix"), [("http", "http"), ("websocket", "websocket.http")])
async def test_refusal_is_a_sentence_that_names_the_variable(
    kind: str, prefix: str, headers: Headers, status: int, variable: str
) -> None:
    made = await visit(headers, kind=kind, method="POST")
    start, body = made.sent
    assert start["type"] == f"{prefix}.response.start"
    assert start["status"] == status
    assert body["type"] == f"{prefix}.response.body"
    assert body["more_body"] is False
    assert variable in body["body"].decode()
    assert "evil" not in body["body"].decode()
    told = dict(start["headers"])
    assert told[b"content-length"] == str(len(body["body"])).encode()
    assert told.items() >= dict(HEADERS).items()


async def test_scope_of_the_server_stays_as_it_was() -> None:
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/",
        "scheme": "http",
        "headers": [(b"host", b"chat.example"), (b"x-forwarded-proto", b"https")],
    }
    app = App()
    made = Visit(app)
    await Doors(app, allowed_hosts=["chat.example"], trusted_origins=[], proxy_hops=1, address_header=XFF)(
        scope, receive, made.send
    )
    assert made.scheme == "https"
    assert scope["scheme"] == "http"


async def test_lifespan_passes_untouched() -> None:
    app = App()
    made = Visit(app)
    scope = {"type": "lifespan", "asgi": {"version": "3.0"}}
    await Doors(app, allowed_hosts=[], trusted_origins=[], proxy_hops=0, address_header=XFF)(
        scope, receive, made.send
    )
    assert app.scopes == [scope]
    assert made.sent == [{"type": "lifespan.startup.complete"}]


async def test_websocket_is_read_on_after_the_app_has_ended_until_the_peer_is_gone() -> None:
    left = [*({"type": "websocket.receive", "text": str(number)} for number in range(50)), await receive()]

    async def flood() -> dict[str, Any]:
        return left.pop(0)

    async def ends_at_once(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})

    async def send(message: Any) -> None:
        assert message["type"] == "websocket.accept"

    doors = Doors(
        ends_at_once, allowed_hosts=["localhost"], trusted_origins=[], proxy_hops=0, address_header=XFF
    )
    scope = {"type": "websocket", "path": "/", "scheme": "ws", "headers": [(b"host", b"localhost")]}
    await doors(scope, flood, send)
    assert left == []


# As much to do as can be


PRESSED: Headers = [*HOST, ("Accept", "text/html,*/*")]


def visit_of(kind: str, path: str, headers: Headers, method: str = "GET") -> dict[str, Any]:
    """Make a scope."""
    raw = [(name.lower().encode(), value.encode()) for name, value in headers]
    scheme = "ws" if kind == "websocket" else "http"
    return {
        "type": kind,
        "path": path,
        "headers": raw,
        "scheme": scheme,
        "client": ("::1", 1),
        "method": method,
    }


async def put_off(
    kind: str, path: str, headers: Headers, method: str = "GET"
) -> tuple[Visit, dict[bytes, bytes]]:
    """Visit where there is as much to do as can be; give the response's headers, too."""
    visit = Visit(App())
    doors = Doors(
        visit.app,
        allowed_hosts=["chat.example"],
        trusted_origins=[],
        proxy_hops=0,
        address_header=XFF,
        pressed=lambda: True,
    )
    await doors(visit_of(kind, path, headers, method), receive, visit.send)
    return visit, dict(visit.sent[0].get("headers", ()))


@pytest.mark.parametrize(("method", "again"), [("GET", True), ("POST", False)], ids=["is opened", "is sent"])
async def test_page_for_which_there_is_no_time_comes_again_by_itself_when_it(
    method: str, again: bool
) -> None:
    visit, headers = await put_off("http", "/c/one", PRESSED, method)
    assert (visit.status, visit.app.scopes) == (503, [])
    assert 2 <= int(headers[b"retry-after"]) <= 5
    assert (headers.get(b"refresh") == headers[b"retry-after"]) is again
    assert headers[b"cache-control"] == b"no-store"
    assert visit.sent[1]["body"].startswith(b"The server has very much to do just now.")
    assert b"content-security-policy" in headers


async def test_program_for_which_there_is_no_time_is_told_when_to_come_again() -> None:
    visit, headers = await put_off("http", "/session", HOST)
    assert (visit.status, visit.app.scopes) == (503, [])
    assert 2 <= int(headers[b"retry-after"]) <= 5
    assert json.loads(visit.sent[1]["body"])["detail"]


async def test_websocket_for_which_there_is_no_time_is_refused() -> None:
    visit, headers = await put_off("websocket", "/ws", HOST)
    assert (visit.status, visit.app.scopes) == (503, [])
    assert b"retry-after" in headers


@pytest.mark.parametrize("path", [*sorted(HEALTH_PATHS), "/static/v/js/main.js"])
async def test_health_and_files_are_served_whatever_there_is_to_do(path: str) -> None:
    visit, _ = await put_off("http", path, HOST)
    assert visit.status == 200


async def test_foreign_page_is_refused_for_that_whatever_there_is_to_do() -> None:
    visit, _ = await put_off("http", "/", [*HOST, ("Origin", "https://evil.example")], "POST")
    assert visit.status == 403
