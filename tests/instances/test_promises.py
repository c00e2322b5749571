"""A short cut of the drills (`make drill`): a few seeds of each promise, over four instances."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.instances.drill.promises import play
from tests.instances.drill.report import Report
from tests.instances.drill.rest import index_is_empty
from tests.instances.drill.service import Service, serving


@pytest.fixture(scope="module")
async def service(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    """All that the drills need; each leaves all of it running."""
    async with serving(tmp_path_factory.mktemp("drill"), deployed_answers=20) as service:
        yield service
        await index_is_empty(service)


async def test_accepted_prompt_is_answered_once_however_often_it_is_sent(service: Service) -> None:
    await play(1, service, Report(1, "1"))


async def test_clients_see_the_same_though_instances_and_connections_break(service: Service) -> None:
    await play(2, service, Report(3, "2"))


@pytest.mark.parametrize("seed", [2, pytest.param(3, marks=pytest.mark.long)])
async def test_answer_outlives_its_instance(service: Service, seed: int) -> None:
    await play(3, service, Report(seed, "3"))


async def test_zombie_places_nothing(service: Service) -> None:
    await play(4, service, Report(1, "4"))


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.long) for seed in (2, 3, 4))])
async def test_stop_stops_whenever_and_from_wherever_it_is_asked_for(service: Service, seed: int) -> None:
    await play(5, service, Report(seed, "5"))


@pytest.mark.parametrize("seed", [1, 3])
async def test_clients_are_told_that_the_store_is_away_and_catch_up(service: Service, seed: int) -> None:
    await play(6, service, Report(seed, "6"))


async def test_client_that_never_reads_delays_nobody(service: Service) -> None:
    await play(7, service, Report(1, "7"))


async def test_person_is_told_of_a_provider_that_fails_and_a_retry_works(service: Service) -> None:
    await play(8, service, Report(1, "8"))


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.long)])
async def test_deploy_is_not_noticed(service: Service, seed: int) -> None:
    await play(9, service, Report(seed, "9"))
