"""slowhttptest against an instance, and against proxies before it: a person chats on, and nothing is kept."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from tests.conftest import Connect, StartInstance
from tests.instances import Instance, Store
from tests.instances.child import Child
from tests.instances.test_defence import MEMORY_KIB, bystander, memory_kib
from tests.system.front import Front
from tests.system.haproxy import HAProxy
from tests.system.nginx import Nginx
from tests.waiting import eventually

CONNECTIONS = 400
OF_OURS = 40
"""Files that an instance may open for other things meanwhile."""
ATTACKS = {
    "headers": "-H -i 2 -x 24",
    "body": "-B -i 2 -s 8192",
    "ranges": "-R -a 5 -b 3000",
    "reading": "-X -w 1 -y 2 -n 2 -z 1 -k 3",
}


def open_files(pid: int) -> int:
    """Count what a process has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
@pytest.mark.parametrize("proxy", [None, Nginx, HAProxy])
async def test_slow_attack_is_borne_and_leaves_nothing_open(
    store: Store,
    start_instance: StartInstance,
    connect: Connect,
    tmp_path: Path,
    proxy: type[Front] | None,
    attack: str,
) -> None:
    instance = await start_instance(
        store, TRUSTED_PROXY_HOPS="1" if proxy else "0", REDIS_PREFIX=f"slow-{secrets.token_hex(4)}"
    )
    if proxy is None:
        await borne(instance, instance.url, connect, tmp_path, attack)
    else:
        async with proxy(tmp_path, [instance]) as front:
            await borne(instance, front.url, connect, tmp_path, attack)


async def borne(instance: Instance, url: str, connect: Connect, folder: Path, attack: str) -> None:
    """Attack an address, and see that its instance bears it."""
    async with bystander(connect, instance) as person:
        await person.prompt("Hello")
        files, memory = open_files(instance.pid), memory_kib(instance)
        words = [*attack.split(), "-c", str(CONNECTIONS), "-r", "200", "-l", "12", "-u", f"{url}/sign-in"]
        child = Child("slowhttptest", *words, env={"PATH": "/usr/bin"}, folder=folder)
        await child.start()
        try:
            answered = 0
            while child.alive:
                assert (await person.prompt("Are you there?"))["finish_reason"] == "stop"
                assert open_files(instance.pid) - files < CONNECTIONS + OF_OURS
                answered += 1
            await child.ended()
        finally:
            await child.close()
        assert answered
        assert "Exit status" in "\n".join(child.lines)
        assert memory_kib(instance) - memory < MEMORY_KIB

        async def given_back() -> bool:
            return open_files(instance.pid) <= files + OF_OURS

        await eventually(given_back, seconds=90, what=lambda: f"{files} files are open again")
