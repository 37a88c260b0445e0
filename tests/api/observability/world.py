"""The Observe API from report to answer without Kafka: what the API appends to the log (in memory)
is reduced by the product's own router and inserted into a real ClickHouse engine."""

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from api.observability import ROUTES
from infra.clickhouse import ClickHouse
from infra.clock import ManualClock
from infra.kafka import Record
from projections.clickhouse import tables_by_topic
from projections.observability import CLICKHOUSE_VIEWS
from streams.batching import Pending, Router
from streams.sealing import Keyring
from streams.telemetry import codec
from tests.api.harness import Harness

NOON = 1_736_942_400_000_000  # 2025-01-15T12:00:00Z


class Stored(NamedTuple):
    """A record of the log in memory, at its place."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


class World:
    """`app` is the harness. `report` posts as an agent's SDK would, `read` asks as the web UI."""

    def __init__(self, app: Harness, clickhouse: ClickHouse, clock: ManualClock) -> None:
        self.app, self.clickhouse, self.clock = app, clickhouse, clock
        self.key, self.human = app.key(), app.human(cookie=True)
        self._offset = 0

    @property
    def records(self) -> list[Record]:
        """Every telemetry record so far."""
        return self.app.log.records.get("telemetry", [])

    async def report(
        self, path: str, body: Any, headers: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """Post a report and return its answer; it has to be accepted."""
        answer = await self.post(path, body, headers)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def post(
        self, path: str, body: Any, headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        """Post a report."""
        return await self.app.client.post(
            f"/api/v1/observe/runs/{path}", json=body, headers={**self.key, **(headers or {})}
        )

    async def start(
        self, agent: str = "support-bot", workflow: str = "default", **fields: Any
    ) -> str:
        """Start a run and return its id."""
        body = {"agent_name": agent, "workflow_name": workflow, **fields}
        return str((await self.report("start/", body))["run_id"])

    async def calls(self, run_id: str, *items: Mapping[str, Any]) -> None:
        """Record LLM calls; what an item doesn't say is 100 tokens in, 20 out, of gpt-4o."""
        given = {"model": "gpt-4o", "tokens_in": 100, "tokens_out": 20}
        await self.report(f"{run_id}/llm-calls/", {"calls": [{**given, **item} for item in items]})

    async def create_score(
        self, body: Any, headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        """Create a score as the web UI does."""
        return await self.app.client.post(
            "/api/v1/evaluations/scores/create/",
            json=body,
            headers={"X-Requested-With": "fetch", **(headers or self.human)},
        )

    async def events(self, *events: Mapping[str, Any], **headers: str) -> None:
        """Record governance events."""
        answer = await self.app.client.post(
            "/api/v1/observe/events/",
            json={"events": events},
            headers={**self.key, **headers},
        )
        assert answer.status_code == 200, answer.text
        assert answer.json() == {"status": "ok", "count": len(events)}

    async def fold(self, records: Sequence[Record] | None = None) -> None:
        """Bring the tables up to date, with all records unless given, as if newly delivered."""
        pending = Pending(CLICKHOUSE_VIEWS)
        keyring = Keyring(self.app.services.person_keys, codec())
        router = Router(CLICKHOUSE_VIEWS, codec(), {}, frozenset(), keyring)
        for record in self.records if records is None else records:
            stored = Stored("telemetry", 0, self._offset, 0, *record[:3])
            await keyring.fetch([stored])
            router.take(pending, [stored])
            self._offset += 1
        router.settle(pending)
        for batch in pending.batches.values():
            if len(batch):
                view = batch.view
                await self.clickhouse.insert(
                    view.table, view.stored, view.types, batch.columns(), token=batch.token
                )

    async def read(self, path: str, headers: Mapping[str, str] | None = None) -> Any:
        """The answer of a session-authenticated GET; it has to be 200."""
        answer = await self.ask(path, headers)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def ask(self, path: str, headers: Mapping[str, str] | None = None) -> httpx.Response:
        """A session-authenticated GET; a path that begins with a slash is the whole of it."""
        return await self.app.client.get(
            path if path.startswith("/") else f"/api/v1/observability/{path}",
            headers=headers or self.human,
        )


@contextlib.asynccontextmanager
async def world(folder: Path) -> AsyncIterator[World]:
    """The Observe API at noon of 2025-01-15, on an engine of its own."""
    clickhouse = ClickHouse(f"chdb://{folder}", tables=tables_by_topic(CLICKHOUSE_VIEWS))
    try:
        await clickhouse.start()
        for view in CLICKHOUSE_VIEWS:
            await clickhouse.command(view.ddl())
        clock = ManualClock(NOON)
        async with Harness(ROUTES, clock=clock) as app:
            app.services.analytics = clickhouse
            yield World(app, clickhouse, clock)
    finally:
        await clickhouse.stop()
