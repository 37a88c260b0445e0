"""Read models: pure reducers and the queries on their tables. Views are listed here once."""

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
from projections.statements import View
from projections.tenancy import VIEWS as TENANCY

VIEWS: list[View] = [
    *BILLING,
    *APPROVALS,
    *FHE,
    *IDENTITY,
    *OBSERVABILITY,
    *PLATFORM,
    *PROMPTS,
    *TENANCY,
]
CLICKHOUSE_VIEWS: list[ClickHouseView] = [
    *OBSERVABILITY_CLICKHOUSE,
    *PLATFORM_CLICKHOUSE,
]
