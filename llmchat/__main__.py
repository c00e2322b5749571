"""The command line: `run` (default), `serve`, and what an operator asks for. Knows which parts a start needs, in which order."""

from __future__ import annotations

import argparse
import asyncio
import errno
import getpass
import os
import platform
import signal
import sys
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from llmchat import __version__
from llmchat.access import hash_of
from llmchat.app import check, open_desk
from llmchat.desk import Desk
from llmchat.embedded import Embedded, beside_a_run, lacking
from llmchat.errors import SettingsError, StartError
from llmchat.provider import OWN_LIST
from llmchat.redis_client import place_of
from llmchat.serve import address_of, bind, serve, serve_and_reload
from llmchat.session import SESSION
from llmchat.settings import Settings
from llmchat.variables import PASSWORD_LENGTH, PROVIDER_VARIABLES, VARIABLES

COMMAND_NAMES = ("run", "serve", "parts", "hash", "check-config", "export", "import", "forget", "retention")
NOT_ASKED = "not asked: who has the address may chat"
COMMANDS = """\
commands:
  run    serve on this machine (default); Redis and the model are embedded where they are not configured
  serve  serve the public, as one instance of any number: everything has to be configured
  parts  print the file of the embedded parts that `run` still needs installed here, if any
  hash   ask for a password and print its hash, for ACCESS_PASSWORD

  check-config           tell whether the settings, Redis, the OpenID provider and the model server are in order
  export SESSION [FILE]  write all chats of a session into a zip archive (default: to stdout)
  import SESSION FILE    import chats into a session: such an archive, a chat's JSON, or ChatGPT's export
  forget SESSION         delete everything of a session; asks first, unless with --yes
  retention              have what is there live no longer than HISTORY_DAYS and ATTACHMENT_DAYS say now; asks first,
                         unless with --yes; with --dry-run it only counts

These five read the settings as `serve` does, with --local as `run`. A session's id stands on its page of settings.
"""
WORDS_BEHIND = {"export": (1, 2), "import": (2, 2), "forget": (1, 1)}
"""How many may follow a command, at least and at most."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out one command; what the operator has to mend is one line on stderr and exit code 2."""
    signal.signal(signal.SIGTERM, _end)  # as process 1 of a container nobody else would
    parser = _parser()
    given = parser.parse_args(arguments)
    least, most = WORDS_BEHIND.get(given.command, (0, 0))
    if not least <= len(given.words) <= most:
        parser.error(
            f"{given.command} takes {least if least == most else f'{least} or {most}'} words behind it"
        )
    starts = {"run": run, "serve": serve_public, "parts": parts, "hash": hash_password}
    try:
        return starts[given.command]() if given.command in starts else asyncio.run(_at_desk(given))
    except (SettingsError, StartError) as error:
        print(f"llmchat: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def run() -> int:
    """Serve on this machine, with the parts that are not configured as children."""
    settings = Settings.read(local=True)
    with Embedded(settings) as embedded:
        sockets = bind(settings.host, settings.port)
        address = address_of(settings.host, sockets)
        filled = embedded.start(address)

        def announce() -> None:
            print(f"llmchat is at {address} (Ctrl-C ends it)")
            print(f"The model that answers: {_model(filled)}")
            print(f"The data lies in {_store(settings)}", flush=True)

        serve_here = serve_and_reload if settings.debug else serve
        return serve_here(filled, sockets, announce=announce, ends=embedded.watch)


def serve_public() -> int:
    """Serve the public: everything has to be configured."""
    settings = Settings.read(local=False)
    settings.check_deployed()
    sockets = bind(settings.host, settings.port)
    address = address_of(settings.host, sockets)

    def announce() -> None:
        for line in _found(settings):
            print(line)
        print(f"llmchat {__version__} serves at {address}", flush=True)

    return serve(settings, sockets, announce=announce)


def parts() -> int:
    """Print the requirement file of the embedded parts that are still to be installed, or nothing."""
    needed = lacking(Settings.read(local=True))
    if needed:
        print(needed)
    return 0


def hash_password() -> int:
    """Ask for a password and print its hash."""
    try:
        given = getpass.getpass("Password: ") if sys.stdin.isatty() else sys.stdin.readline().rstrip("\n")
    except (EOFError, UnicodeError):
        given = ""
    if len(given) < PASSWORD_LENGTH or not given.isprintable():
        raise StartError(
            f"A password of at least {PASSWORD_LENGTH} characters is needed, each of them printable."
        )
    print(hash_of(given))
    return 0


async def _at_desk(given: argparse.Namespace) -> int:
    """Carry out a command that is about what lies in Redis."""
    settings = Settings.read(local=given.local)
    if given.local:
        settings = beside_a_run(settings)
    session, file = [*given.words, None, None][:2]
    if session is not None and not SESSION.fullmatch(session):
        raise StartError(
            "A session's id is of 32 digits and letters a to f; it stands on its page of settings."
        )
    if given.command == "check-config":
        check(settings)
        if not given.local:
            settings.check_deployed()
        print("The settings are in order")
    async with open_desk(settings) as desk:
        match given.command:
            case "export":
                await _export(desk, session, file)
            case "import":
                await _import(desk, session, file)
            case "forget":
                if given.yes or _confirmed(f"Delete all chats of the session {session}"):
                    print(f"Deleted: {await desk.forget(session)} chats, and all else of this session")
            case "retention":
                await _retain(desk, settings, given)
            case _:
                async for line in desk.check(settings):
                    print(line, flush=True)
    return 0


async def _export(desk: Desk, session: str, file: str | None) -> None:
    try:
        with _whole(Path(file)) if file else nullcontext(sys.stdout.buffer) as out:
            await desk.export(session, out.write)
    except OSError as error:
        raise StartError(f"{file or 'stdout'} cannot be written: {error.strerror}.") from None
    if file:
        print(f"All chats of the session are in {file}")


@contextmanager
def _whole(file: Path) -> Iterator[IO[bytes]]:
    """Write a file that is there once it is whole, and in place of no other. Raises OSError."""
    if file.exists():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
    part = file.with_name(f"{file.name}.part")  # what an earlier try left behind is written over
    try:
        with part.open("wb") as out:
            yield out
        file.touch(exist_ok=False)  # another may have come meanwhile
        part.replace(file)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


async def _import(desk: Desk, session: str, file: str) -> None:
    try:
        with open(file, "rb") as source:  # noqa: ASYNC230, PTH123
            report = await desk.import_(session, source, os.fstat(source.fileno()).st_size)
    except OSError as error:
        raise StartError(f"{file} cannot be read: {error.strerror}.") from None
    print(f"Imported: {report.imported}; here already: {report.already_here}; left out: {report.left_out}")
    for why, count in report.reasons.items():
        print(f"  {count} × {why}")
    for each in report.missing:
        print(f"  In other chats: {each}")


async def _retain(desk: Desk, settings: Settings, given: argparse.Namespace) -> None:
    if not settings.history_days and not settings.attachment_days:
        raise StartError("HISTORY_DAYS and ATTACHMENT_DAYS are 0, so nothing is kept too long: set the days.")
    days = f"HISTORY_DAYS={settings.history_days} and ATTACHMENT_DAYS={settings.attachment_days}"
    change = not given.dry_run
    if change and not given.yes:
        _confirmed(f"Delete what was used longer ago than {days} say, and keep the rest no longer than that")
    done = await desk.lower(change=change)
    print(
        f"{'Shortened' if change else 'Would be shortened'} to {days}: {done.chats} chats, {done.links} shared links, "
        f"{done.files} files, {done.lists} lists of sessions; {done.gone} of them go at once"
    )


def _confirmed(what: str) -> bool:
    told = input(f"{what}, for good? Type yes: ") if sys.stdin.isatty() else ""
    if told.strip() != "yes":
        raise StartError("Nothing was deleted. Where nobody can be asked, say --yes.")
    return True


def _found(settings: Settings) -> list[str]:
    """Say in lines what a deployment will do, for whoever reads its log first."""
    proxies = settings.trusted_proxy_hops
    password = settings.access_password
    asked = (
        f"asked ({'hashed' if password.startswith('$argon2') else 'kept in the clear'})"
        if password
        else "not asked"
        if settings.oidc_required
        else NOT_ASKED
    )
    believed = f"{proxies}, address from {settings.trusted_ip_header}" if proxies else "none"
    return [
        f"Python {platform.python_version()}; the model that answers: {_model(settings)}",
        f"Hosts: {', '.join(settings.allowed_hosts)}; proxies believed: {believed}",
        *_openid(settings),
        f"A password is {asked}",
        *_limits(settings),
        f"/metrics {'tells whoever has METRICS_TOKEN' if settings.metrics_token else 'is off: METRICS_TOKEN is not set'}",
    ]


def _limits(settings: Settings) -> list[str]:
    rate, at_once = settings.prompts_per_minute, settings.answers_at_once
    some = "any number of"
    tokens = {"a session": settings.tokens_per_day, "all sessions together": settings.tokens_per_day_in_all}
    budgets = [f"{most:,} of {whose}" for whose, most in tokens.items() if most]
    return [
        f"A session may send {rate or some} prompts a minute, and have {at_once or some} chats answered at once",
        f"Tokens a day: {', '.join(budgets) or 'no budget is set'}",
    ]


def _openid(settings: Settings) -> list[str]:
    if settings.oidc_issuer is None:
        return []
    either = "is required, or the password" if settings.access_password else "is required"
    required = either if settings.oidc_required else "is possible, and not required"
    whose = ", ".join(settings.oidc_allowed) or "all accounts there"
    return [f"Signing in by {settings.oidc_issuer} ({whose}) {required}"]


def _model(settings: Settings) -> str:
    label, model = settings.label_of(settings.openai_model), settings.openai_model
    if settings.providers:
        asked = [each.shown for each in settings.providers if {model, OWN_LIST} & each.models.keys()]
        return f"{label} by {', then '.join(asked)}"
    if settings.local_label or not settings.openai_base_url:
        return label
    return f"{label} at {urlsplit(settings.openai_base_url).hostname}"


def _store(settings: Settings) -> str:
    if settings.redis_url is None:
        return str(settings.data_dir.absolute())
    return f"Redis at {place_of(settings.redis_url)}"


def _end(number: int, _: object) -> None:
    raise SystemExit(128 + number)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m llmchat",
        description="A chat with a language model: one small server, one page, one websocket, Redis.",
        epilog=f"{COMMANDS}\nsettings, from the environment or (run) from the file .env:\n{_settings()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", nargs="?", choices=COMMAND_NAMES, default="run")
    parser.add_argument("words", nargs="*", help=argparse.SUPPRESS)
    parser.add_argument("--local", action="store_true", help="read the settings as `run` does")
    parser.add_argument("--yes", action="store_true", help="do not ask before deleting")
    parser.add_argument("--dry-run", action="store_true", help="only count what would be shortened")
    parser.add_argument("--version", action="version", version=f"llmchat {__version__}")
    return parser


def _settings() -> str:
    def entry(name: str, meaning: str, default: str) -> str:
        text = f"{meaning} (default: {default})"
        return textwrap.fill(text, 100, initial_indent=f"  {name:<24}", subsequent_indent=" " * 26)

    own = [(f"<NAME>_{each.name}", f"of one of PROVIDERS, {each.meaning}") for each in PROVIDER_VARIABLES]
    return "\n".join(
        [
            *(entry(each.name, each.meaning, each.default_shown) for each in VARIABLES),
            *(entry(name, meaning, "none") for name, meaning in own),
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
