"""Read models: pure reducers and the queries on their tables. Views are listed here once."""

from collections.abc import Iterable
from typing import Any

from projections.approvals import VIEWS as APPROVALS
from projections.billing import VIEWS as BILLING
from projections.clickhouse import ClickHouseView
from projections.fhe import VIEWS as FHE
from projections.identity import VIEWS as IDENTITY
from projections.observability import CLICKHOUSE_VIEWS as OBSERVABILITY_CLICKHOUSE
from projections.observability import VIEWS as OBSERVABILITY
from projections.platform import CLICKHOUSE_VIEWS as PLATFORM_CLICKHOUSE
from projections.platform import VIEWS as PLATFORM
from projections.prompts import VIEWS as PROMPTS
from projections.runner import reduce_all
from projections.statements import Statement, View
from projections.tenancy import VIEWS as TENANCY
from schemas.envelope import Envelope

_OF_DOMAIN: dict[str, list[View]] = {
    "billing": BILLING,
    "approvals": APPROVALS,
    "fhe": FHE,
    "identity": IDENTITY,
    "observability": OBSERVABILITY,
    "platform": PLATFORM,
    "prompts": PROMPTS,
    "tenancy": TENANCY,
}
VIEWS: list[View] = [view for views in _OF_DOMAIN.values() for view in views]
CLICKHOUSE_VIEWS: list[ClickHouseView] = [
    *OBSERVABILITY_CLICKHOUSE,
    *PLATFORM_CLICKHOUSE,
]


def reduced(events: Iterable[tuple[Envelope, Any]]) -> list[tuple[View, Statement]]:
    """The statements of all views for events, in order. Pure.

    A view folds the events of its own domain, so no other's are shown to it: most of what the
    deciders would do for the read models is asking views about events that they don't know.
    """
    return [
        made
        for envelope, event in events
        for made in reduce_all(
            _OF_DOMAIN.get(envelope.type.partition(".")[0], ()), [(envelope, event)]
        )
    ]
