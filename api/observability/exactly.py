"""Queries on runs and calls: of rows as they lie, which is fast, where that is exact, and else with
duplicates replaced. See `projections/observability/unmerged.py`."""

from collections.abc import Mapping, Sequence
from typing import Any

from api.observability.settled_parts import settled_parts
from api.services import Services
from projections.observability.ordering import Query
from projections.observability.unmerged import as_they_lie, tables_of

Rows = Sequence[Mapping[str, Any]]

# The second is for rows of the tenant that have come since the parts were listed.
_TRIES = (False, True)


async def exactly(services: Services, query: Query) -> Rows:
    """The rows of a query with duplicates replaced; its parameter `tenant` says whose it reads.

    Raises AnalyticsUnavailable.
    """
    tables = tables_of(query)
    for anew in _TRIES:
        among = await settled_parts(services).of(query.params["tenant"], tables, anew=anew)
        if among is None:
            break
        rows = await services.analytics.query(*as_they_lie(query, among))
        if not rows or rows[0]["settled"]:
            return rows
    return await services.analytics.query(*query)
