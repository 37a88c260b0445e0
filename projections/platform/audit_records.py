"""The audit trail in ClickHouse: listed, filtered and counted, newest first.

A page is asked for by `before`, the number of the last record seen: records are numbered per tenant
without gaps, so the cursor stays true while the trail grows, at any depth.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from msgspec import Struct

from projections.clickhouse import INSTANT, JSON_TEXT, TENANT, ClickHouseView, Row
from schemas.envelope import Envelope
from schemas.platform.audit import AuditRecorded

_WORD = "LowCardinality(String)"
_TEXT = "String CODEC(ZSTD(1))"


def rows(event: AuditRecorded, envelope: Envelope) -> list[Row]:
    """One row, the record as it is."""
    return [tuple(getattr(event, name) for name in AUDIT_RECORDS.columns)]


AUDIT_RECORDS = ClickHouseView(
    name="audit_records",
    version=1,
    topic="audit",
    events=(AuditRecorded,),
    columns={
        "tenant": TENANT,
        "seq": "Int64",
        "at": INSTANT,
        "actor_kind": _WORD,
        "actor_id": _TEXT,
        "actor_name": _TEXT,
        "action": _WORD,
        "resource_type": _WORD,
        "resource_id": _TEXT,
        "outcome": _WORD,
        "code": _WORD,
        "message": _TEXT,
        "command_id": _TEXT,
        "correlation_id": _TEXT,
        "details": JSON_TEXT,
        "events": "Array(LowCardinality(String))",
        "related": "Array(String) CODEC(ZSTD(1))",
        "prev_hash": _TEXT,
        "hash": _TEXT,
    },
    order_by=("tenant", "seq"),
    indexes=(
        "by_time at TYPE minmax GRANULARITY 1",
        "by_resource resource_id TYPE bloom_filter(0.01) GRANULARITY 1",
        "by_actor actor_id TYPE bloom_filter(0.01) GRANULARITY 1",
        "by_related related TYPE bloom_filter(0.01) GRANULARITY 1",
    ),
    rows=rows,
)


class AuditFilter(Struct, frozen=True, kw_only=True):
    """Which records are wanted; an empty field lets everything pass.

    since, until: microseconds, half open. action: the full name (`approvals.approve_check_in`) or
    without its domain. event: the type of an event that the decision recorded. about: streams
    (`approvals.room/room_1`), one of which the decision was sent to, read or wrote. actor_id:
    who asked. about_or_by: as `about`, or asked by the actor whose id the stream has.
    """

    since: int | None = None
    until: int | None = None
    actor_kinds: tuple[str, ...] = ()
    actor_id: str = ""
    action: str = ""
    event: str = ""
    outcome: str = ""
    about: tuple[str, ...] = ()
    about_or_by: str = ""


class Analytics(Protocol):
    """What this module needs of ClickHouse."""

    async def query(
        self, sql: str, params: Mapping[str, Any] | None = None
    ) -> Sequence[Mapping[str, Any]]: ...


def conditions(tenant: str, wanted: AuditFilter) -> tuple[str, dict[str, Any]]:
    """The WHERE clause and its parameters."""
    clauses = ["tenant = {tenant:String}"]
    values: dict[str, Any] = {"tenant": tenant}

    def also(clause: str, **given: Any) -> None:
        clauses.append(clause)
        values.update(given)

    if wanted.since is not None:
        also("at >= fromUnixTimestamp64Micro({since:Int64}, 'UTC')", since=wanted.since)
    if wanted.until is not None:
        also("at < fromUnixTimestamp64Micro({until:Int64}, 'UTC')", until=wanted.until)
    if wanted.actor_kinds:
        also("actor_kind IN {kinds:Array(String)}", kinds=list(wanted.actor_kinds))
    if wanted.actor_id:
        also("actor_id = {actor:String}", actor=wanted.actor_id)
    if wanted.action:
        also(
            "(action = {action:String} OR endsWith(action, concat('.', {action:String})))",
            action=wanted.action,
        )
    if wanted.event:
        also("has(events, {event:String})", event=wanted.event)
    if wanted.outcome:
        also("outcome = {outcome:String}", outcome=wanted.outcome)
    about = [*wanted.about, *([wanted.about_or_by] if wanted.about_or_by else ())]
    if about:
        clause = (
            "resource_id IN {about_ids:Array(String)} AND "
            "concat(resource_type, '/', resource_id) IN {about:Array(String)}"
            " OR hasAny(related, {about:Array(String)})"
        )
        given: dict[str, Any] = {
            "about": about,
            "about_ids": [stream.partition("/")[2] for stream in about],
        }
        if wanted.about_or_by:
            clause += " OR actor_id = {by:String}"
            given["by"] = wanted.about_or_by.partition("/")[2]
        also(f"({clause})", **given)
    return " AND ".join(clauses), values


async def list_audit(
    analytics: Analytics,
    tenant: str,
    wanted: AuditFilter = AuditFilter(),  # noqa: B008  # frozen
    *,
    limit: int,
    offset: int = 0,
    before: int | None = None,
) -> list[AuditRecorded]:
    """A tenant's records, newest first: at most `limit` of those numbered below `before`.

    `offset` skips records and costs as much as reading them: bound it, or use `before`. For a page
    and whether there is another, ask for one more. Raises AnalyticsUnavailable.
    """
    where, params = conditions(tenant, wanted)
    if before is not None:
        where += " AND seq < {before:Int64}"
        params["before"] = before
    columns = ", ".join(
        "toUnixTimestamp64Micro(at) AS at_micros" if name == "at" else name
        for name in AUDIT_RECORDS.columns
    )
    found = await analytics.query(
        f"SELECT {columns} FROM {AUDIT_RECORDS.table} WHERE {where} ORDER BY seq DESC "
        "LIMIT {limit:UInt32} OFFSET {offset:UInt32}",
        {**params, "limit": limit, "offset": offset},
    )
    return [_record(row) for row in found]


async def count_audit(
    analytics: Analytics,
    tenant: str,
    wanted: AuditFilter = AuditFilter(),  # noqa: B008  # frozen
) -> int:
    """How many of a tenant's records are wanted. Raises AnalyticsUnavailable."""
    where, params = conditions(tenant, wanted)
    rows = await analytics.query(
        f"SELECT count() AS n FROM {AUDIT_RECORDS.table} WHERE {where}", params
    )
    return int(rows[0]["n"])


def _record(row: Mapping[str, Any]) -> AuditRecorded:
    fields = dict(row)
    fields["at"] = fields.pop("at_micros")
    return AuditRecorded(**fields)
