"""Read models: pure reducers and the queries on their tables. Views are listed here once."""

from projections.clickhouse import ClickHouseView
from projections.statements import View

VIEWS: list[View] = []
CLICKHOUSE_VIEWS: list[ClickHouseView] = []
