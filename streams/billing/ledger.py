"""The usage processor's tables: a batch and the offset it consumed change in one transaction.

That makes it exact: after a `kill -9` either both are there or neither, a redelivered record is
below the offset and is passed over, and of two processes that read the same partition the second
waits for the first one's row lock and then finds its records counted.

Deadlocks are excluded by one order of locks: the partition's offset, then the tenants' locks and
the windows, each in sorted order (`streams/billing/states.py`).
"""

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from typing import Any, NamedTuple

import psycopg
from aiokafka import TopicPartition

from infra.kafka import header
from infra.postgres import execute_ddl
from projections.billing.usage_windows import ALERTS, CALLS, DDL, DDL_LOCK, OFFSETS
from schemas.codec import Codec, Undecodable
from schemas.envelope import Envelope, from_headers
from schemas.observability.run import LlmCallsRecorded, RunStarted
from streams.billing import agent_rows
from streams.billing.attribution import Report, RunKey, began, made
from streams.billing.metering import METERED, Alert, State, Step, mark, read, step
from streams.billing.states import load, save_amounts, save_budgets, write

logger = logging.getLogger(__name__)

Connection = psycopg.AsyncConnection[Any]


class Gap(Exception):
    """The records don't begin where the table stands: read again from `next_offset`."""

    def __init__(self, next_offset: int) -> None:
        super().__init__(f"the table stands at {next_offset}")
        self.next_offset = next_offset


class Unsent(NamedTuple):
    """An alert that is committed and whose command was not acknowledged yet."""

    tenant: str
    alert: Alert
    total: int


async def create_tables(connection: Connection) -> None:
    """Make the tables; safe from many processes at once."""
    async with connection.transaction():
        await execute_ddl(connection, DDL_LOCK, DDL)


def read_record(record: Any, codec: Codec) -> tuple[Envelope, Any] | None:
    """The envelope and the event of a record that counts, None for one that does not.

    Raises Undecodable for a record of `billing` that can't be read.
    """
    if header(record.headers, "ce_type") not in METERED:
        return None
    try:
        return from_headers(record.headers), codec.decode(record.value)
    except (Undecodable, KeyError, ValueError) as error:
        place = f"{record.topic}:{record.partition}:{record.offset}"
        if record.topic == "billing":
            raise Undecodable(f"{place}: {error}") from error
        logger.error("telemetry at %s can't be read and is not counted: %r", place, error)
        return None


class Ledger:
    """The tables over one connection. Methods raise psycopg.Error when Postgres is away."""

    def __init__(self, connection: Connection, codec: Codec) -> None:
        self._connection, self._codec = connection, codec

    async def next_offset(self, partition: TopicPartition) -> int:
        """The first offset of a partition that is not counted."""
        rows = await self._rows(
            f"SELECT next_offset FROM {OFFSETS} WHERE topic = %s AND partition = %s",
            *partition,
        )
        return int(rows[0]["next_offset"]) if rows else 0

    async def apply(
        self, partition: TopicPartition, start: int, records: Sequence[Any], end: int
    ) -> bool:
        """Count the records of [start, end) that are not counted yet; whether alerts were set off.

        `records` are all there are in that range. Raises Gap when the table stands before `start`,
        Undecodable when a record of `billing` that counts can't be read: nothing may be left out
        there, and a newer release can read it. Telemetry that can't be read is passed over; the
        analytics loop puts it aside.
        """
        async with self._connection.transaction():
            stands = await self._lock(partition)
            if stands < start:
                raise Gap(stands)
            if end <= stands:
                return False
            fresh = [record for record in records if record.offset >= stands]
            steps, reports = await self._steps(fresh)
            before = await load(self._connection, steps)
            after = {
                tenant: reduce(step, events, before[tenant]) for tenant, events in steps.items()
            }
            await save_amounts(self._connection, before, after)
            await save_budgets(self._connection, steps)
            await agent_rows.count(self._connection, reports)
            alerted = await self._set_off(partition, before, after)
            await self._rows(
                f"UPDATE {OFFSETS} SET next_offset = %s WHERE topic = %s AND partition = %s "
                "RETURNING 1",
                end,
                *partition,
            )
            return alerted

    async def unsent(self, partition: TopicPartition) -> list[Unsent]:
        """The alerts that this partition set off and that were not sent yet."""
        rows = await self._rows(
            f"SELECT tenant, budget_id, revision, window_start, percent, total FROM {ALERTS} "
            "WHERE topic = %s AND partition = %s AND NOT sent "
            "ORDER BY window_start, percent LIMIT 1000",
            *partition,
        )
        return [
            Unsent(
                row["tenant"],
                Alert(row["budget_id"], row["revision"], row["window_start"], row["percent"]),
                int(row["total"]),
            )
            for row in rows
        ]

    async def sent(self, unsent: Unsent) -> None:
        """Remember that an alert's command is on the log."""
        await self._connection.execute(
            f"UPDATE {ALERTS} SET sent = true WHERE tenant = %s AND budget_id = %s "
            "AND revision = %s AND window_start = %s AND percent = %s".encode(),
            (unsent.tenant, *unsent.alert),
        )

    async def _lock(self, partition: TopicPartition) -> int:
        await self._connection.execute(
            f"INSERT INTO {OFFSETS} VALUES (%s, %s, 0) ON CONFLICT DO NOTHING".encode(),
            partition,
        )
        rows = await self._rows(
            f"SELECT next_offset FROM {OFFSETS} WHERE topic = %s AND partition = %s FOR UPDATE",
            *partition,
        )
        return int(rows[0]["next_offset"])

    async def _steps(self, records: Sequence[Any]) -> tuple[dict[str, list[Step]], list[Report]]:
        """Each tenant's steps and all reports of runs, in the log's order.

        Remembers the LLM calls among them.
        """
        events = [
            (record.offset, *found)
            for record in records
            if (found := read_record(record, self._codec)) is not None
        ]
        runs = {
            (envelope.tenant, envelope.stream_id)
            for _, envelope, event in events
            if isinstance(event, LlmCallsRecorded)
        }
        counted = await self._counted_calls(runs)
        steps: dict[str, list[Step]] = defaultdict(list)
        remembered = []
        reports: list[Report] = []
        for offset, envelope, event in events:
            run = RunKey(envelope.tenant, envelope.stream_id)
            if isinstance(event, RunStarted):
                reports.append(began(run, event, envelope.time))
            elif isinstance(event, LlmCallsRecorded):
                used = read(event, envelope, counted[run])
                steps[envelope.tenant] += used
                if (report := made(run, offset, used)) is not None:
                    reports.append(report)
                marks = {mark(call.id) for call in event.calls} - counted[run]
                counted[run] |= marks
                if marks:
                    remembered.append((*run, offset, b"".join(sorted(marks))))
            else:
                steps[envelope.tenant] += read(event, envelope)
        await write(self._connection, f"INSERT INTO {CALLS} VALUES (%s, %s, %s, %s)", remembered)
        return steps, reports

    async def _set_off(
        self, partition: TopicPartition, before: Mapping[str, State], after: Mapping[str, State]
    ) -> bool:
        """Write the alerts that are new; they are sent once this is committed."""
        alerts = [
            (tenant, *alert, total, *partition)
            for tenant, state in after.items()
            for alert, total in state.alerts.items()
            if alert not in before[tenant].alerts
        ]
        await write(
            self._connection,
            f"INSERT INTO {ALERTS} VALUES (%s, %s, %s, %s, %s, %s, %s, %s, false)",
            alerts,
        )
        return bool(alerts)

    async def _counted_calls(
        self, runs: Iterable[tuple[str, str]]
    ) -> dict[tuple[str, str], set[bytes]]:
        counted: dict[tuple[str, str], set[bytes]] = {run: set() for run in runs}
        if counted:
            tenants, ids = zip(*counted, strict=True)
            rows = await self._rows(
                f"SELECT tenant, run_id, calls FROM {CALLS} WHERE (tenant, run_id) IN "
                "(SELECT * FROM unnest(%s::text[], %s::text[]))",
                list(tenants),
                list(ids),
            )
            for row in rows:
                marks = row["calls"]
                counted[row["tenant"], row["run_id"]].update(
                    marks[at : at + 8] for at in range(0, len(marks), 8)
                )
        return counted

    async def _rows(self, sql: str, *params: Any) -> list[dict[str, Any]]:
        cursor = await self._connection.execute(sql.encode(), params)
        return await cursor.fetchall()
