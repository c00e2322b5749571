"""Pure: one provider as an operator configures it: where it is, its key, and its models by our names and its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

OPENAI = "openai"
"""The provider of the settings that begin with OPENAI_."""
OWN_LIST = "*"
"""Among a provider's models: all that it names itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """`models` are ours -> its own name of each. Its repr shows no secret."""

    name: str
    models: Mapping[str, str]
    api_key: str | None = field(default=None, repr=False)
    base_url: str | None = field(default=None, repr=False)
    api_version: str | None = None
    """Set: Azure's earlier API, by deployments."""

    @property
    def has_own_list(self) -> bool:
        """Whether all models are on offer that it names itself."""
        return OWN_LIST in self.models

    @property
    def host(self) -> str:
        """Of its address what is no secret; empty for OpenAI's own."""
        return urlsplit(self.base_url or "").netloc.rpartition("@")[2]

    @property
    def shown(self) -> str:
        """What the log and an operator are told of it."""
        return f"{self.name} ({self.host})" if self.host else self.name

    def own_name(self, model: str) -> str:
        """Give its name of a model of ours."""
        return self.models.get(model, model)
