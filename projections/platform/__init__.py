"""Read models of the platform: the audit trail and its exports."""

from projections.clickhouse import ClickHouseView
from projections.platform.audit_records import AUDIT_RECORDS

CLICKHOUSE_VIEWS: list[ClickHouseView] = [AUDIT_RECORDS]
