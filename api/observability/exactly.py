"""Queries that are asked of rows as they lie first: see `projections/observability/unmerged.py`."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from api.services import Services
from projections.observability.ordering import Query

Rows = Sequence[Mapping[str, Any]]


class Unmerged(Protocol):
    """A query that can be asked of rows as they lie."""

    def __call__(self, *, unmerged: bool = False) -> Query: ...


async def exactly(services: Services, query: Unmerged) -> Rows:
    """The rows that the query has with duplicates replaced. Raises AnalyticsUnavailable."""
    rows = await services.analytics.query(*query(unmerged=True))
    if not rows or rows[0]["settled"]:
        return rows
    return await services.analytics.query(*query())
