"""What a tenant's repricings are: read once, then what the log tells is added."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from api.observability.latest_costs import TenantRepricings
from infra.postgres import DatabaseUnavailable
from schemas.avro_derivation import tag_of
from schemas.observability.repricing import CallsRepriced
from tests.api.harness import OTHER_TENANT, TENANT, Harness

ROW = {"version": 2, "repriced_at": 7, "prices": []}


def repriced(version: int) -> CallsRepriced:
    return CallsRepriced(version=version, repriced_at=7, prices=[])


def told(tenant: str, version: int) -> Any:
    """The log's word that the tenant's calls were repriced."""
    event = SimpleNamespace(type=tag_of(CallsRepriced), tenant=tenant, event=repriced(version))
    return cast(Any, event)


async def test_they_are_read_once_and_hold_while_the_database_is_away() -> None:
    async with Harness([]) as app:
        app.reads.when("repricings", [ROW])
        repricings = TenantRepricings(app.services.reads)
        assert await repricings.of(TENANT) == [repriced(2)]
        app.reads.fail_with = AssertionError("it is not asked")
        assert await repricings.of(TENANT) == [repriced(2)]
        app.reads.fail_with = DatabaseUnavailable("away")
        # Another tenant's were never read: nothing is guessed.
        with pytest.raises(DatabaseUnavailable):
            await repricings.of(OTHER_TENANT)


async def test_what_the_log_tells_is_added_the_newest_first() -> None:
    async with Harness([]) as app:
        app.reads.when("repricings", [ROW])
        repricings = TenantRepricings(app.services.reads)
        await repricings.of(TENANT)
        repricings.follow(told(OTHER_TENANT, 9))
        repricings.follow(told(TENANT, 2))
        repricings.follow(told(TENANT, 3))
        assert await repricings.of(TENANT) == [repriced(3), repriced(2)]


async def test_the_log_may_be_ahead_of_the_database() -> None:
    async with Harness([]) as app:
        app.reads.when("repricings", [ROW])
        repricings = TenantRepricings(app.services.reads)
        repricings.follow(told(TENANT, 3))
        assert await repricings.of(TENANT) == [repriced(3), repriced(2)]


async def test_what_comes_while_they_are_read_is_not_lost() -> None:
    async with Harness([]) as app:
        repricings = TenantRepricings(app.services.reads)

        def rows(*_: Any) -> list[dict[str, Any]]:
            repricings.follow(told(TENANT, 3))
            return [ROW]

        app.reads.when("repricings", rows)
        assert await repricings.of(TENANT) == [repriced(3), repriced(2)]
        assert await repricings.of(TENANT) == [repriced(3), repriced(2)]


@pytest.mark.parametrize("why", ["it was decided here", "a gap"])
async def test_they_are_read_anew(why: str) -> None:
    async with Harness([]) as app:
        app.reads.when("repricings", [ROW])
        repricings = TenantRepricings(app.services.reads)
        await repricings.of(TENANT)
        if why == "a gap":
            repricings.clear()
        else:
            repricings.forget(TENANT)
        app.reads.when("repricings", [{**ROW, "version": 3}, ROW])
        assert await repricings.of(TENANT) == [repriced(3), repriced(2)]
