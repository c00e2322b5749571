"""What of the SDK is imported: counted in processes of their own, for here it may be imported already."""

from __future__ import annotations

import subprocess
import sys

WHOLE = 500
LEAN = 200


def said_by(program: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


COUNT = """
import sys
print(sum(name.partition(".")[0] == "openai" for name in sys.modules))
"""


def test_types_of_what_is_not_called_are_not_imported() -> None:
    assert int(said_by(f"import llmchat.completion{COUNT}")) < LEAN
    assert int(said_by(f"import openai{COUNT}")) > WHOLE  # else there is nothing to leave out


def test_types_of_what_is_called_are_what_they_are() -> None:
    assert (
        said_by("""
from llmchat.lean_openai import openai
from openai.types.chat import ChatCompletionChunk
from openai.resources.chat.completions import AsyncCompletions
from openai.types.model import Model
print(all(issubclass(each, openai.BaseModel) for each in (ChatCompletionChunk, Model)))
""")
        == "True"
    )


def test_what_is_imported_later_is_what_it_is() -> None:
    assert (
        said_by("""
import llmchat.lean_openai
from openai.types.responses.response import Response
from openai import BaseModel
print(issubclass(Response, BaseModel))
""")
        == "True"
    )


def test_all_is_imported_where_nothing_can_be_left_out() -> None:
    counted = said_by(f"""
import importlib.machinery
before = importlib.machinery.ModuleSpec
def broken(name, *given, **options):
    if name == "openai.types.responses":
        raise RuntimeError("another version")
    return before(name, *given, **options)
importlib.machinery.ModuleSpec = broken
import llmchat.lean_openai{COUNT}""")
    assert int(counted) > WHOLE
