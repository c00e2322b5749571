"""What a raw request can get out of /static/: the page's files, and nothing else of the machine."""

from __future__ import annotations

import asyncio
import re

import pytest

from tests.instances import Instance
from tests.waiting import within

OUTSIDE = [
    "/static/{version}/../../llmchat/settings.py",
    "/static/{version}/../../../../../../../../etc/passwd",
    "/static/{version}/%2e%2e/%2e%2e/llmchat/settings.py",
    "/static/{version}/..%2f..%2fllmchat%2fsettings.py",
    "/static/{version}/..%5c..%5cllmchat%5csettings.py",
    "/static/{version}/..\\..\\llmchat\\settings.py",
    "/static/{version}/%252e%252e/%252e%252e/llmchat/settings.py",
    "/static/{version}/%c0%ae%c0%ae/%c0%ae%c0%ae/llmchat/settings.py",
    "/static/{version}/....//....//llmchat/settings.py",
    "/static/{version}//etc/passwd",
    "/static/{version}/%2fetc%2fpasswd",
    "/static/{version}/js/main.js%00.css",
    "/static/{version}/js/main.js%00",
    "/static/{version}/js/main.js/",
    "/static/{version}/js/main.js.br",
    "/static/{version}/js/main.js.gz",
    "/static/{version}/js/",
    "/static/{version}/js",
    "/static/{version}/",
    "/static/{version}",
    "/static/../llmchat/settings.py",
    "/static/%2e%2e/llmchat/settings.py",
    "//static/{version}/js/main.js",
    "/static//js/main.js",
    "/static/js/main.js",
    "/static",
    "/llmchat/settings.py",
    "/../llmchat/settings.py",
    "/.env",
    "/.git/config",
    "/static/{version}/" + "a/" * 3000,
    "http://127.0.0.1/static/{version}/../../llmchat/settings.py",
]


async def asked(instance: Instance, path: str) -> tuple[int, str, str]:
    """Send a request line as it is; return the status, the head and the body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", instance.port)
    host = f"Host: 127.0.0.1:{instance.port}"
    writer.write(f"GET {path} HTTP/1.1\r\n{host}\r\nConnection: close\r\n\r\n".encode())
    try:
        async with within(10, f"{path} is answered"):
            head, _, body = (await reader.read(-1)).decode(errors="replace").partition("\r\n\r\n")
    finally:
        writer.transport.abort()
    return int(head.split()[1]), head.lower(), body


async def version_told(instance: Instance) -> str:
    _, _, page = await asked(instance, "/")
    found = re.search(r"/static/([0-9a-f]{32})/", page)
    assert found
    return found[1]


@pytest.mark.parametrize("path", OUTSIDE)
async def test_nothing_outside_the_folder_is_served(instances: tuple[Instance, Instance], path: str) -> None:
    version = await version_told(instances[0])
    status, _, body = await asked(instances[0], path.format(version=version))
    assert status in (400, 404)
    assert "import" not in body
    assert "root:" not in body


async def test_every_file_that_a_page_names_is_there_and_guarded(
    instances: tuple[Instance, Instance],
) -> None:
    one, two = instances
    _, _, page = await asked(one, "/")
    named = set(re.findall(r'[="](/static/[^">]+)', page))
    assert len(named) > 20
    for path in named:
        status, head, _ = await asked(two, path)
        assert status == 200
        assert "immutable" in head
        assert "x-content-type-options: nosniff" in head
        assert "cookie" not in head
