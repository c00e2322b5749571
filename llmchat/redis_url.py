"""Pure: the address of a Redis, read from a URL. One server, a master that Sentinels know, or a Cluster."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote

URL = re.compile(
    r"(?P<scheme>[a-z+]+)://(?P<authority>[^/?#]*)(?P<path>/[^?#]*)?(\?(?P<query>[^#]*))?", re.ASCII
)
HOST = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:(?P<port>\d{1,5}))?", re.ASCII)
SCHEMES = {
    "redis": ("server", False),
    "rediss": ("server", True),
    "unix": ("socket", False),
    "redis+sentinel": ("sentinel", False),
    "rediss+sentinel": ("sentinel", True),
    "redis+cluster": ("cluster", False),
    "rediss+cluster": ("cluster", True),
}
PORTS = {"server": 6379, "sentinel": 26379, "cluster": 6379}
LOGIN = {"username", "password"}
TLS_FILES = {"ssl_ca_certs", "ssl_certfile", "ssl_keyfile"}
TLS_CHOICES: dict[str, Mapping[str, Any]] = {
    "ssl_cert_reqs": {"none": "none", "optional": "optional", "required": "required"},
    "ssl_check_hostname": {"true": True, "false": False},
}
SENTINEL_LOGIN = {"sentinel_username", "sentinel_password"}


@dataclass(frozen=True, slots=True)
class RedisUrl:
    """Where a Redis is and how to log in. `str` of it names the place, and holds no login."""

    kind: str
    """server, socket, sentinel or cluster"""
    hosts: tuple[tuple[str, int], ...] = ()
    path: str = ""
    """of a Unix socket"""
    master: str = ""
    """the name by which the Sentinels know it"""
    login: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """username, password and database, as redis-py names them"""
    tls: Mapping[str, Any] | None = None
    """None without TLS; else the options that were given, as redis-py names them"""
    sentinel_login: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def parse(cls, url: str) -> RedisUrl:
        """Read a URL. Raises ValueError, whose text is a reason that holds no login."""
        found = URL.fullmatch(url)
        if found is None or found["scheme"] not in SCHEMES:
            raise ValueError("this is no address of a Redis")
        kind, tls = SCHEMES[found["scheme"]]
        login, hosts = _authority(found["authority"], kind)
        path = unquote(found["path"] or "")
        if kind == "socket":
            place: dict[str, Any] = {"path": path}
            if not path.strip("/"):
                raise ValueError("unix:// needs a third slash, and a path")
        else:
            master, database = _master_and_database(path, kind)
            place = {"hosts": hosts, "master": master}
            login |= database
        options = _query(found["query"] or "", kind, tls)
        return cls(
            kind=kind,
            **place,
            login=login | {name: value for name, value in options.items() if name in LOGIN | {"db"}},
            tls={name: value for name, value in options.items() if name.startswith("ssl_")} if tls else None,
            sentinel_login={
                name.removeprefix("sentinel_"): str(value)
                for name, value in options.items()
                if name in SENTINEL_LOGIN
            },
        )

    def __str__(self) -> str:
        if self.kind == "socket":
            return self.path
        hosts = ",".join(f"{f'[{host}]' if ':' in host else host}:{port}" for host, port in self.hosts)
        return {"server": hosts, "cluster": f"the Cluster at {hosts}"}.get(
            self.kind, f"{self.master} of the Sentinels at {hosts}"
        )


def _authority(text: str, kind: str) -> tuple[dict[str, Any], tuple[tuple[str, int], ...]]:
    credentials, _, places = text.rpartition("@")
    user, _, password = credentials.partition(":")
    login: dict[str, Any] = {"username": unquote(user), "password": unquote(password)}
    if kind == "socket":
        if places:
            raise ValueError("unix:// needs a third slash, and a path")
        return _given(login), ()
    hosts = tuple(_host(place, kind) for place in places.split(","))
    if kind == "server" and len(hosts) > 1:
        raise ValueError("one host is one Redis; for several use redis+sentinel:// or redis+cluster://")
    return _given(login), hosts


def _given(login: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in login.items() if value != ""}


def _host(text: str, kind: str) -> tuple[str, int]:
    found = HOST.fullmatch(text)
    port = int(found["port"] or PORTS[kind]) if found else 0
    if found is None or not 0 < port < 65536:
        raise ValueError("this is no address of a Redis")
    return found["host"].strip("[]"), port


def _master_and_database(path: str, kind: str) -> tuple[str, dict[str, int]]:
    parts = path.strip("/").split("/") if path.strip("/") else []
    master = parts.pop(0) if kind == "sentinel" and parts else ""
    if kind == "sentinel" and not master:
        raise ValueError("the path must name the master: redis+sentinel://host:port,host:port/master")
    if kind == "cluster" and parts not in ([], ["0"]):
        raise ValueError("a Cluster has one database only: leave it out")
    if len(parts) > 1 or not all(re.fullmatch(r"\d{1,9}", part, re.ASCII) for part in parts):
        raise ValueError("the database must be a number")
    return master, {"db": int(parts[0])} if parts and kind != "cluster" else {}


def _query(query: str, kind: str, tls: bool) -> dict[str, Any]:
    known = LOGIN | (TLS_FILES | set(TLS_CHOICES) if tls else set())
    known |= SENTINEL_LOGIN if kind == "sentinel" else set()
    known |= {"db"} if kind != "cluster" else set()
    options: dict[str, Any] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in known:
            raise ValueError(
                f"what stands behind the ? is not known here; known are {', '.join(sorted(known))} "
                "(in a password, ? is written as %3F)"
            )
        if name in TLS_CHOICES and value.lower() not in TLS_CHOICES[name]:
            raise ValueError(f"{name} must be one of {', '.join(TLS_CHOICES[name])}")
        if name == "db" and not re.fullmatch(r"\d{1,9}", value, re.ASCII):
            raise ValueError("the database must be a number")
        choices: Mapping[str, Any] = TLS_CHOICES.get(name, {})
        options[name] = int(value) if name == "db" else choices.get(value.lower(), value)
    return options
