"""What an operator asks for, on a fake Redis: whole files or none, and what is said of the model server."""

from __future__ import annotations

import asyncio
import struct
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from fakeredis import FakeAsyncRedis

from llmchat.__main__ import _export
from llmchat.desk import AWAY, NO_CHATS, NOT_LISTED, Desk
from llmchat.errors import ProviderError, StartError, Unavailable
from llmchat.health import Health
from llmchat.retention import Retention
from llmchat.settings import Settings
from llmchat.zip_file import BROKEN
from tests.trunk import Trunk, as_json, ours, zipped


class FakeProvider:
    """Lists models, or does not."""

    def __init__(self) -> None:
        self.listed: list[str] | ProviderError = []

    async def models(self, provider: str) -> list[str]:
        """List them."""
        if isinstance(self.listed, ProviderError):
            raise self.listed
        return self.listed


@pytest.fixture
def provider() -> FakeProvider:
    return FakeProvider()


@pytest.fixture
async def trunk(fake_redis: FakeAsyncRedis) -> Trunk:
    trunk = Trunk(fake_redis)
    await trunk.take(as_json([ours(id="a"), ours(id="b")]))
    return trunk


@pytest.fixture
def desk(trunk: Trunk, provider: FakeProvider) -> Desk:
    health = Health(trunk.redis, trunk.keys, "nowhere", require_durable=False)
    retention = Retention(trunk.redis, trunk.keys, trunk.attachments, history_days=1)
    return Desk(trunk.takeout, trunk.intake, retention, health, cast(Any, provider))


# A file


def files(folder: Path) -> list[str]:
    """Name what is there."""
    return [each.name for each in folder.iterdir()]


async def test_archive_is_written_whole_and_alone(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "all.zip.part").write_text("of a try that was killed")
    await _export(desk, "alice", str(tmp_path / "all.zip"))
    with zipfile.ZipFile(tmp_path / "all.zip") as archive:
        assert archive.testzip() is None
    assert files(tmp_path) == ["all.zip"]


def breaks(error: BaseException) -> Callable[[Trunk], None]:
    """Have what is read end so, in the middle."""

    def broken(trunk: Trunk) -> None:
        outline, times = trunk.takeout.outline, []

        async def fails(session: str, conversation: str) -> Any:
            times.append(conversation)
            if len(times) == 2:
                raise error
            return await outline(session, conversation)

        trunk.takeout.outline = fails  # type: ignore[method-assign]

    return broken


@pytest.mark.parametrize(
    ("error", "told"), [(Unavailable(), AWAY), (OSError(28, "No space left on device"), "No space left")]
)
async def test_nothing_is_left_of_an_archive_that_broke_off_and_the_next_try_is_taken(
    desk: Desk, trunk: Trunk, tmp_path: Path, error: Exception, told: str
) -> None:
    breaks(error)(trunk)
    with pytest.raises(StartError, match=told[:20]):
        await _export(desk, "alice", str(tmp_path / "all.zip"))
    assert files(tmp_path) == []
    await _export(desk, "alice", str(tmp_path / "all.zip"))


async def test_nothing_is_left_of_an_archive_when_the_operator_ends_it(
    desk: Desk, trunk: Trunk, tmp_path: Path
) -> None:
    breaks(asyncio.CancelledError())(trunk)
    with pytest.raises(asyncio.CancelledError):
        await _export(desk, "alice", str(tmp_path / "all.zip"))
    assert files(tmp_path) == []


@pytest.mark.parametrize("when", ["before", "meanwhile"])
async def test_archive_is_written_over_no_other_file(
    desk: Desk, trunk: Trunk, tmp_path: Path, when: str
) -> None:
    file = tmp_path / "all.zip"
    if when == "before":
        file.write_text("precious")
    else:
        archive = trunk.takeout.archive

        async def slow(session: str) -> Any:
            file.write_text("precious")
            async for piece in archive(session):
                yield piece

        trunk.takeout.archive = slow  # type: ignore[method-assign, assignment]
    with pytest.raises(StartError, match=r"all\.zip cannot be written: File exists\."):
        await _export(desk, "alice", str(file))
    assert (files(tmp_path), file.read_text()) == (["all.zip"], "precious")


async def test_damaged_archive_is_told_and_is_no_bug(desk: Desk, tmp_path: Path) -> None:
    body = zipped({"chats/1.json": b"{}"})
    end = body.index(b"PK\x05\x06")
    (at,) = struct.unpack_from("<I", body, end + 16)
    (tmp_path / "all.zip").write_bytes(body[: end + 16] + struct.pack("<I", at + 200) + body[end + 20 :])
    with (tmp_path / "all.zip").open("rb") as file:
        report = await desk.import_("alice", file, len(body))
    assert report.lost == [{"title": "", "why": BROKEN}]


async def test_session_without_chats_is_told_and_no_file_is_written(desk: Desk, tmp_path: Path) -> None:
    with pytest.raises(StartError) as told:
        await _export(desk, "mistyped", str(tmp_path / "all.zip"))
    assert str(told.value) == NO_CHATS
    assert files(tmp_path) == []


# The model server


async def models(desk: Desk, settings: Settings) -> str:
    return [line async for line in desk.check(settings)][-1]


@pytest.mark.parametrize("listed", [["other"], ["gpt-4o", "openai/gpt-4o-mini"]])
async def test_default_model_that_is_not_listed_is_an_error(
    desk: Desk, provider: FakeProvider, settings: Settings, listed: list[str]
) -> None:
    provider.listed = listed
    with pytest.raises(StartError, match="does not list gpt-4o-mini: check OPENAI_MODEL"):
        await models(desk, settings)


@pytest.mark.parametrize("listed", [["gpt-4o-mini"], ["models/gpt-4o-mini"], ["gpt-4o-mini:latest"]])
async def test_default_model_that_is_listed_is_had(
    desk: Desk, provider: FakeProvider, settings: Settings, listed: list[str]
) -> None:
    provider.listed = listed
    (asked,) = settings.asked
    assert await models(desk, settings) == f"{asked.shown} takes the key, and has gpt-4o-mini"


@pytest.mark.parametrize("listed", [[], ProviderError("provider_refused", "No.", retryable=False)])
async def test_model_server_that_lists_nothing_is_no_error(
    desk: Desk, provider: FakeProvider, settings: Settings, listed: Any
) -> None:
    provider.listed = listed
    (asked,) = settings.asked
    assert await models(desk, settings) == NOT_LISTED.format(asked.shown)


async def test_further_model_that_is_not_listed_is_told_and_no_error(
    desk: Desk, provider: FakeProvider, settings: Settings
) -> None:
    provider.listed = ["gpt-4o-mini"]
    settings = replace(settings, openai_models=("gpt-4o-mini", "gone"))
    assert "does not list gone" in await models(desk, settings)


async def test_any_default_of_the_providers_own_list_is_no_error(
    desk: Desk, provider: FakeProvider, settings: Settings
) -> None:
    provider.listed = ["other"]
    settings = replace(settings, openai_models=("*",))
    assert "lists 1 models" in await models(desk, settings)


@pytest.fixture
def several() -> Settings:
    return Settings.read(
        {
            "PROVIDERS": "openai,azure,local",
            "OPENAI_API_KEY": "sk-of-the-tests",
            "AZURE_BASE_URL": "https://chat.openai.azure.com",
            "AZURE_API_VERSION": "2024-10-21",
            "AZURE_MODELS": "gpt-4o-mini=deployed",
            "LOCAL_BASE_URL": "http://localhost:11434/v1",
            "LOCAL_MODELS": "small=llama3.2",
        },
        local=False,
    )


async def test_each_provider_is_looked_at_and_of_azure_nothing_more_is_known(
    desk: Desk, provider: FakeProvider, several: Settings
) -> None:
    provider.listed = ["gpt-4o-mini", "llama3.2:latest"]
    assert [line async for line in desk.check(several)][-3:] == [
        "openai takes the key, and has gpt-4o-mini",
        NOT_LISTED.format("azure (chat.openai.azure.com)"),
        "local (localhost:11434) takes the key, and has small",
    ]


async def test_model_of_another_provider_that_is_not_listed_is_told_with_its_variable(
    desk: Desk, provider: FakeProvider, several: Settings
) -> None:
    provider.listed = ["gpt-4o-mini"]
    assert await models(desk, several) == (
        "local (localhost:11434) takes the key, and does not list small: check LOCAL_MODELS."
    )


async def test_provider_that_refuses_is_named_with_its_variables(
    desk: Desk, provider: FakeProvider, several: Settings
) -> None:
    provider.listed = ProviderError("provider_auth", "It did not accept the key.", retryable=False)
    several = replace(several, providers=several.providers[1:])
    told = (
        r"azure \(chat.openai.azure.com\): It did not accept the key. Check AZURE_API_KEY and AZURE_BASE_URL."
    )
    with pytest.raises(StartError, match=told):
        await models(desk, several)
