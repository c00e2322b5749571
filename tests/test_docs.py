"""The documents against the code: what the code has is told, what is told is there, and every link leads somewhere."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from llmchat import (
    __version__,
    connection,
    conversation,
    conversations,
    errors,
    events,
    history,
    markdown,
    turn,
)
from llmchat.keys import TURNS, Keys, group_of_conversation, group_of_session, redis_channel
from llmchat.limits import KINDS
from llmchat.provider import OPENAI
from llmchat.settings import Settings
from llmchat.variables import PROVIDER_VARIABLES, VARIABLES
from tests.channel_layer import test_construction, test_on_fakeredis, test_on_valkey

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "llmchat"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
README = (ROOT / "README.md").read_text()
PROTOCOL = (ROOT / "docs" / "protocol.md").read_text()
CHANNEL_LAYER = (ROOT / "docs" / "channel-layer.md").read_text()
METRICS = (ROOT / "docs" / "metrics.md").read_text()
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text()
EXAMPLE = (ROOT / ".env.example").read_text()

CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")
MACHINE_PATH = re.compile(r"(?<![\w.~$}/-])/(?:root|home|Users|work|tmp|mnt|opt)/")
COMMANDS = list(events.COMMANDS.values())
EVENTS = [
    each
    for each in vars(events).values()
    if isinstance(each, type) and issubclass(each, events.Event) and each is not events.Event
]
KEYS = Keys("llmchat")


def rows(text: str) -> Iterator[list[str]]:
    """Give the cells of every table's rows, headings apart."""
    for line in text.splitlines():
        if line.startswith("| ") and not line.startswith("| ---"):
            yield [cell.strip() for cell in line.strip().strip("|").split(" | ")]


def section(text: str, heading: str) -> str:
    """Give what stands below a heading, up to the next of its level."""
    below = text.split(f"\n## {heading}\n", 1)[1]
    return below.split("\n## ", 1)[0]


def row_of(kind: str, text: str) -> str:
    """Give the row that explains a type, as one text."""
    found = [cells for cells in rows(text) if f"`{kind}`" in cells[0]]
    assert len(found) == 1, f"docs/protocol.md has {len(found)} rows for {kind}"
    return " | ".join(found[0])


def slug(heading: str) -> str:
    """Name a heading's anchor as the usual renderers do."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def names_field(row: str, name: str) -> bool:
    return re.search(rf"`{name}\??`", row) is not None


# Settings


def test_readme_tells_every_setting_with_its_default_and_meaning() -> None:
    told = [cells for cells in rows(section(README, "Settings")) if cells[0] != "name"]
    expected = [
        [
            f"`{each.name}`",
            each.shown or (f"`{each.default}`" if each.default else each.default_shown),
            each.meaning,
        ]
        for each in VARIABLES
    ]
    assert told == expected


def test_readme_tells_what_each_provider_has() -> None:
    told = [cells for cells in rows(section(README, "Providers")) if cells[0] != "of each"]
    assert told == [[f"`<NAME>_{each.name}`", each.meaning] for each in PROVIDER_VARIABLES]


def test_providers_of_the_readme_are_read_without_complaint() -> None:
    told = dict(re.findall(r"^([A-Z_]+)=(\S+)", section(README, "Providers"), re.MULTILINE))
    told = {name: value.replace("…", "0") for name, value in told.items()}
    providers = Settings.read(told, local=False).providers
    assert [each.name for each in providers] == ["openai", "azure", "ollama"]
    assert [each.name for each in providers if "gpt-4o" in each.models] == ["openai", "azure"]


def test_example_names_every_setting_with_its_default() -> None:
    told = dict(re.findall(r"^#?([A-Z_]+)=(.*)$", EXAMPLE, re.MULTILINE))
    of_providers = {
        f"{name.upper()}_{each.name}"
        for name in told["PROVIDERS"].split(",")
        for each in PROVIDER_VARIABLES
        if name != OPENAI
    }
    assert set(told) - of_providers == {each.name for each in VARIABLES}
    assert {each.name: told[each.name] for each in VARIABLES if each.default} == {
        each.name: each.default for each in VARIABLES if each.default
    }


def test_example_is_read_without_complaint_when_every_line_is_used() -> None:
    told = dict(re.findall(r"^#?([A-Z_]+)=(.*)$", EXAMPLE, re.MULTILINE))
    Settings.read(told, local=False)


def test_kinds_of_limits_are_named_where_they_are_told_of_and_where_they_lie() -> None:
    metric = next(cells for cells in rows(METRICS) if cells[0] == "`llmchat_received_total`")
    assert re.findall(r"`(\w+)`", metric[3]) == list(KINDS)
    key = next(cells for cells in rows(ARCHITECTURE) if cells[0] == "`llmchat:limit:<kind>:<who>`")
    assert re.findall(r"`(\w+)`", key[2]) == list(KINDS)


# The version


def test_version_is_the_same_wherever_it_stands() -> None:
    assert f'version = "{__version__}"' in (ROOT / "pyproject.toml").read_text()
    assert f"llmchat {__version__} serves at" in README


# The wire


@pytest.mark.parametrize("command", COMMANDS, ids=list(events.COMMANDS))
def test_protocol_tells_every_field_of_a_command(command: type[events.Command]) -> None:
    kind = next(kind for kind, each in events.COMMANDS.items() if each is command)
    row = row_of(kind, section(PROTOCOL, "Client → server (commands)"))
    own = set(command.model_fields) - {"type", "id"}
    assert [name for name in own if not names_field(row, name)] == []


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.type)
def test_protocol_tells_every_field_of_an_event(event: type[events.Event]) -> None:
    row = row_of(event.type, section(PROTOCOL, "Server → client (facts)"))
    names = {field.name for field in fields(event)} | ({"at"} if event in events.PLACED else set())
    assert [name for name in names if not names_field(row, name)] == []


def test_protocol_names_exactly_the_placed_events() -> None:
    line = next(line for line in PROTOCOL.splitlines() if line.startswith("Placed ("))
    placed = line.split(": ", 1)[1].split(". ", 1)[0]
    assert set(re.findall(r"`([^`]+)`", placed)) == {event.type for event in events.PLACED}


def test_protocol_tells_no_type_that_the_code_has_not() -> None:
    known = {*events.COMMANDS, *(event.type for event in EVENTS)}
    built = PROTOCOL.replace(section(PROTOCOL, "Not yet"), "")
    told = set(re.findall(r"`((?:session|conversation|message|completion)\.[a-z]+)`", built))
    assert told <= known


def test_protocol_calls_nothing_not_yet_that_is_there() -> None:
    waiting = {cells[0].split(" (", 1)[0].strip("`") for cells in rows(section(PROTOCOL, "Not yet"))}
    assert waiting.isdisjoint({*events.COMMANDS, *(event.type for event in EVENTS)})


def test_protocol_tells_every_field_of_the_parameters() -> None:
    assert [name for name in events.Parameters.model_fields if f'"{name}"' not in PROTOCOL] == []


def test_protocol_tells_every_code() -> None:
    codes = {"internal", *(each.code for each in errors.CommandError.__subclasses__())}
    source = "".join(
        (PACKAGE / f"{room}.py").read_text()
        for room in ("completion", "model_server", "provider_errors", "turn")
    )
    codes |= set(re.findall(r'"(provider_[a-z_]+|context_too_long)"', source))
    assert [code for code in sorted(codes) if f"`{code}`" not in section(PROTOCOL, "Codes")] == []


def test_protocol_tells_every_close_code() -> None:
    told = {cells[0] for cells in rows(section(PROTOCOL, "Connecting")) if cells[0].isdigit()}
    codes = (
        connection.RESTARTING,
        connection.TOO_SLOW,
        connection.FLOOD,
        connection.TOO_LARGE,
        connection.BUG,
        connection.SIGNED_OUT,
    )
    assert told == {str(code) for code in codes}


# Redis and rooms


def test_architecture_names_every_key_of_a_conversation() -> None:
    keys = KEYS.of_conversation("<conversation>")
    named = {field.name: getattr(keys, field.name) for field in fields(keys)}
    assert [name for name, key in named.items() if f"`{key}`" not in ARCHITECTURE] == []


def test_architecture_names_every_other_key() -> None:
    missing = []
    for name, member in inspect.getmembers(Keys):
        if name.startswith("_") or name in ("prefix", "of_conversation"):
            continue
        key = getattr(KEYS, name)
        if inspect.isfunction(member):
            key = key(*(f"<{parameter}>" for parameter in inspect.signature(key).parameters))
        if f"`{key}`" not in ARCHITECTURE:
            missing.append(name)
    assert missing == []


def test_architecture_names_every_group() -> None:
    groups = (TURNS, group_of_session("<session>"), group_of_conversation("<conversation>"))
    channels = [redis_channel("llmchat", "group", group) for group in groups]
    assert [channel for channel in channels if f"`{channel}`" not in ARCHITECTURE] == []


def test_architecture_names_every_script() -> None:
    told = {cells[0] for cells in rows(section(ARCHITECTURE, "Redis"))}
    scripts = {f"`{path.name}`" for path in (PACKAGE / "lua").glob("*.lua")}
    assert scripts <= told
    assert {name for name in told if name.endswith(".lua`")} == scripts


def test_architecture_has_a_row_for_every_room() -> None:
    told = {cells[0] for cells in rows(section(ARCHITECTURE, "Rooms"))} - {"room"}
    files = (path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))
    assert told == {f"`{name}`" for name in files if not name.endswith("__init__.py")}


def test_architecture_names_the_envelope_as_the_script_writes_it() -> None:
    script = (PACKAGE / "lua" / "place.lua").read_text()
    packed = re.findall(r"\\1[67]\d([a-z]+)", script)  # behind each text's length
    kind, value, *names = packed
    assert f'{{{kind}: "{value}", {", ".join(names)}}}' in ARCHITECTURE


# The channel layer


def rules_told() -> list[int]:
    """Give the numbers of the rules, as they stand there."""
    return [int(number) for number in re.findall(r"^(\d+)\. ", CHANNEL_LAYER, re.MULTILINE)]


def rules_shown() -> dict[str, set[int]]:
    """Give each test of the channel layer's suite, and the rules that it names."""
    return {
        name: {
            number for mark in getattr(test, "pytestmark", []) if mark.name == "rule" for number in mark.args
        }
        for module in (test_on_fakeredis, test_on_valkey, test_construction)
        for name, test in vars(module).items()
        if name.startswith("test_")
    }


def test_channel_layer_numbers_its_rules_one_by_one() -> None:
    assert rules_told() == list(range(1, len(rules_told()) + 1))


def test_channel_layer_has_a_test_for_every_rule_and_a_rule_for_every_test() -> None:
    shown = rules_shown()
    assert [name for name, rules in shown.items() if not rules] == []
    assert set.union(*shown.values()) == set(rules_told())


def test_channel_layer_refers_to_no_rule_that_is_not_there() -> None:
    referred = {int(number) for number in re.findall(r"\brule (\d+)\b", CHANNEL_LAYER)}
    assert referred <= set(rules_told())


# All documents


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    lost = []
    for target in LINK.findall(CODE.sub("", document.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (document.parent / path).resolve() if path else document
        headings = HEADING.findall(there.read_text()) if anchor and there.is_file() else []
        if not there.exists() or (anchor and anchor not in map(slug, headings)):
            lost.append(target)
    assert lost == []


@pytest.mark.parametrize("document", [*DOCUMENTS, ROOT / ".env.example"], ids=lambda path: path.name)
def test_documents_name_no_path_of_a_machine(document: Path) -> None:
    assert MACHINE_PATH.findall(document.read_text()) == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_documents_name_only_targets_that_make_has(document: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    told = set(re.findall(r"(?:`|^|; )(?:[A-Z_]+=\S+ )*make ([a-z]+)", document.read_text(), re.MULTILINE))
    assert told <= targets


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_documents_name_only_files_that_are_there(document: Path) -> None:
    told = re.findall(
        r"`((?:llmchat|tests|static|templates|docs|lua|elements|blueprints)/[\w./-]+)`", document.read_text()
    )
    roots = (ROOT, PACKAGE, ROOT / "static" / "js")
    assert [name for name in told if not any((root / name).exists() for root in roots)] == []


def test_protocol_names_the_limits_that_the_code_has() -> None:
    for words in (
        f"at most {events.MAX_FRAME_BYTES // 1024} KiB of UTF-8",
        f"over {connection.FRAMES_PER_SECOND} frames a second, after {connection.FRAMES_AT_ONCE} at once",
        f"or {connection.COMMANDS_WAITING} commands waiting",
        f"at most {connection.OPEN_CONVERSATIONS} conversations open",
        f"more than {turn.MAX_ANSWER_BYTES // 1024} KiB of UTF-8 is cut",
        f"some {markdown.GROWTH} times its text, or {markdown.MAX_BLOCK // 1024} Ki characters",
        f"({history.RESUME_ENTRIES}, or {history.RESUME_BYTES // 1024} KiB)",
        f"of the newest {conversations.SEARCHED})",
        f"for {conversation.RESTORE_SECONDS} s after the delete",
    ):
        assert words in PROTOCOL, words
