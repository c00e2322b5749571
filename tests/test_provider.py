"""A provider as it is configured: what may be told of it, and what never."""

from __future__ import annotations

import pytest

from llmchat.provider import Provider

SECRET = "hunter2-hunter2"


@pytest.mark.parametrize(
    ("base_url", "shown"),
    [
        (None, "mine"),
        ("http://localhost:11434/v1", "mine (localhost:11434)"),
        (f"https://user:{SECRET}@llm.example.com/{SECRET}?key={SECRET}", "mine (llm.example.com)"),
    ],
)
def test_provider_is_told_by_name_and_host_without_a_secret(base_url: str | None, shown: str) -> None:
    provider = Provider(name="mine", models={"a": "b"}, api_key=SECRET, base_url=base_url)
    assert provider.shown == shown
    assert SECRET not in repr(provider)


def test_model_has_the_providers_own_name_or_keeps_ours() -> None:
    provider = Provider(name="mine", models={"small": "llama3.2", "*": "*"})
    assert [provider.own_name(model) for model in ("small", "other")] == ["llama3.2", "other"]
    assert provider.has_own_list
