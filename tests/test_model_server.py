"""How one provider's server is asked: Azure's by deployments, all others by a base URL, each with its own key alone."""

from __future__ import annotations

import pytest

from tests.asking import KEY, MODEL, ask, asking, provider
from tests.fakes import Model


async def test_model_is_asked_for_by_the_providers_own_name(model: Model) -> None:
    async with asking(provider(model.url, models={MODEL: "their-model"})) as completions:
        assert (await ask(completions)).finish_reason == "stop"
    asked = await model.asked()
    assert (asked.path, asked.body["model"]) == ("/v1/chat/completions", "their-model")


async def test_azure_is_asked_by_deployment_with_a_key_of_its_own_form(model: Model) -> None:
    azure = provider(model.endpoint, "azure", models={MODEL: "my deployment"}, api_version="2024-10-21")
    async with asking(azure) as completions:
        assert (await ask(completions)).finish_reason == "stop"
    asked = await model.asked()
    assert asked.path == "/openai/deployments/my%20deployment/chat/completions?api-version=2024-10-21"
    assert asked.headers["api-key"] == KEY
    assert "Authorization" not in asked.headers


async def test_azure_is_asked_how_a_model_goes_on_by_deployment_too(model: Model) -> None:
    model.continues = True
    azure = provider(model.endpoint, "azure", models={MODEL: "deployed"}, api_version="2024-10-21")
    model.answer("Hello, ", "world")
    async with asking(azure) as completions:
        assert await completions.continues(MODEL)
        assert (await ask(completions, kept="Hello, ")).text == "world"


@pytest.mark.parametrize(("name", "told"), [("openai", True), ("other", False)])
async def test_what_the_environment_has_for_openai_is_sent_to_nobody_else(
    model: Model, monkeypatch: pytest.MonkeyPatch, name: str, told: bool
) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-of-ours")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "project-of-ours")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Gateway-Key: hunter2")
    async with asking(provider(model.url, name)) as completions:
        await ask(completions)
    headers = {header.lower() for header in (await model.asked()).headers}
    assert {"openai-organization", "openai-project", "x-gateway-key"} & headers == (
        {"openai-organization", "openai-project", "x-gateway-key"} if told else set()
    )
