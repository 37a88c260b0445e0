"""Answers from runs and calls: of rows as they lie, which is fast, where that is exact, and else
with duplicates replaced. See `projections/observability/unmerged.py`."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from api.observability.settled_parts import settled_parts
from api.services import Services
from projections.observability.ordering import Query
from projections.observability.unmerged import Parts, as_they_lie, tables_of

T = TypeVar("T")
Rows = Sequence[Mapping[str, Any]]
Ask = Callable[[Query], Awaitable[Rows]]
"""Gives the rows of a query. Raises AnalyticsUnavailable."""

# The second is for rows of the tenant that have come since the parts were listed.
_TRIES = 2


async def exactly(services: Services, tenant: str, answer: Callable[[Ask], Awaitable[T]]) -> T:
    """What is made of queries on rows of the tenant, with duplicates replaced.

    answer: asks them, as many at once as it likes. It is called anew when rows of the tenant came
    meanwhile that may be duplicates; what it raises is raised at once, so it may only raise for
    rows that are not there, which duplicates don't change.
    Raises AnalyticsUnavailable.
    """
    for _ in range(_TRIES):
        found, exact = await _of_rows_as_they_lie(services, tenant, answer)
        if exact:
            return found

    async def replaced(query: Query) -> Rows:
        return await services.analytics.query(*query)

    return await answer(replaced)


async def _of_rows_as_they_lie(
    services: Services, tenant: str, answer: Callable[[Ask], Awaitable[T]]
) -> tuple[T, bool]:
    """The answer, and whether it is exact."""
    settled = settled_parts(services)
    among: dict[str, Parts] = {}

    async def ask(query: Query) -> Rows:
        parts = await settled.of(tenant, tables_of(query))
        if parts is None:
            return await services.analytics.query(*query)
        among.update({table: parts[table] for table in parts.keys() - among.keys()})
        return await services.analytics.query(*as_they_lie(query))

    found = await answer(ask)
    return found, await settled.hold_all(tenant, among)
