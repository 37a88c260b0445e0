"""Read models of the platform: the audit trail and its exports, webhooks."""

from projections.clickhouse import ClickHouseView
from projections.platform.audit_exports import AUDIT_EXPORTS
from projections.platform.audit_records import AUDIT_RECORDS
from projections.platform.webhook_endpoints import WEBHOOK_ENDPOINTS
from projections.platform.webhook_subscriptions import WEBHOOK_SUBSCRIPTIONS
from projections.statements import View

VIEWS: list[View] = [AUDIT_EXPORTS, WEBHOOK_ENDPOINTS, WEBHOOK_SUBSCRIPTIONS]
CLICKHOUSE_VIEWS: list[ClickHouseView] = [AUDIT_RECORDS]
