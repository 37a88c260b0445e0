"""What a tenant's repricings are, with Postgres there and away."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from api.observability.latest_costs import TenantRepricings
from infra.postgres import DatabaseUnavailable
from schemas.avro_derivation import tag_of
from schemas.observability.repricing import CallsRepriced
from tests.api.harness import OTHER_TENANT, TENANT, Harness

ROW = {"version": 2, "repriced_at": 7, "prices": []}
REPRICED = CallsRepriced(version=2, repriced_at=7, prices=[])


def told(tenant: str) -> Any:
    """The log's word that the tenant's calls were repriced."""
    return cast(Any, SimpleNamespace(type=tag_of(CallsRepriced), tenant=tenant))


async def test_what_was_read_last_holds_while_the_database_is_away() -> None:
    async with Harness([]) as app:
        app.reads.when("repricings", [ROW])
        repricings = TenantRepricings(app.services.reads)
        assert await repricings.of(TENANT) == [REPRICED]
        app.reads.fail_with = DatabaseUnavailable("away")
        assert await repricings.of(TENANT) == [REPRICED]
        # Another tenant's were never read: nothing is guessed.
        with pytest.raises(DatabaseUnavailable):
            await repricings.of(OTHER_TENANT)
        # It was away a moment ago, and is not waited for at once again.
        app.reads.fail_with = AssertionError("it is not asked")
        assert await repricings.of(TENANT) == [REPRICED]


@pytest.mark.parametrize("told_of", ["a repricing", "a gap"])
async def test_what_the_log_has_overtaken_is_not_believed(told_of: str) -> None:
    async with Harness([]) as app:
        app.reads.when("repricings", [ROW])
        repricings = TenantRepricings(app.services.reads)
        await repricings.of(TENANT)
        repricings.follow(told(OTHER_TENANT))
        app.reads.fail_with = DatabaseUnavailable("away")
        assert await repricings.of(TENANT) == [REPRICED]
        if told_of == "a gap":
            repricings.clear()
        else:
            repricings.follow(told(TENANT))
        with pytest.raises(DatabaseUnavailable):
            await repricings.of(TENANT)
