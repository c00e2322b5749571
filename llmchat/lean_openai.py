"""The OpenAI SDK without the types of what is not called here: 370 of its 540 modules, and 9 MB of a process.

By itself it imports all of them, and has no setting for that. In their place stands `Any`, of which no check of the
SDK's makes anything else than it makes of a type: `openai.types` itself has no other names, its modules have theirs.
What the SDK has for other ends than chats and models cannot be used. Where another version cannot do without, all is
imported.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

TYPES = "openai.types"
"""A package that imports all of its modules; those that are needed are found in it all the same."""
NOT_CALLED = "openai.types.responses"

log = logging.getLogger(__name__)


class _NotCalled(MetaPathFinder, Loader):
    """Finds modules of which every name is Any."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != TYPES and fullname != NOT_CALLED and not fullname.startswith(f"{NOT_CALLED}."):
            return None
        spec = ModuleSpec(fullname, self, is_package=fullname in {TYPES, NOT_CALLED})
        if spec.submodule_search_locations is not None:  # what is imported of them later is what it is
            spec.submodule_search_locations += [
                str(Path(each, fullname.rpartition(".")[2])) for each in path or ()
            ]
        return spec

    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        def named(name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)
            return Any

        module.__getattr__ = named  # type: ignore[method-assign]


def _import() -> None:
    """Import it so, and what of it is imported when it is first used."""
    finder = _NotCalled()
    sys.meta_path.insert(0, finder)
    try:
        for name in ("openai", "openai.resources.chat.completions", "openai.resources.models"):
            import_module(name)
    except Exception as error:
        log.warning("The SDK is imported whole: %s", error)
        for name in [each for each in sys.modules if each.partition(".")[0] == "openai"]:
            del sys.modules[name]
    finally:
        sys.meta_path.remove(finder)


if "openai" not in sys.modules:
    _import()

import openai  # noqa: E402
from openai import AsyncAzureOpenAI, AsyncOpenAI, AsyncStream, DefaultAioHttpClient  # noqa: E402

__all__ = ["AsyncAzureOpenAI", "AsyncOpenAI", "AsyncStream", "DefaultAioHttpClient", "openai"]
