"""The approvals views in memory: the real reducers, and the meaning of each query in Python."""

from collections.abc import Callable, Sequence
from typing import Any

from projections.approvals import (
    VIEWS,
    agents,
    check_ins,
    messages,
    registrations,
    rooms,
    tasks,
    trust_scores,
    watchers,
)
from projections.platform import webhook_deliveries
from projections.platform.webhook_endpoints import WEBHOOK_ENDPOINTS
from tests.api.memory import MemoryReads
from tests.api.view_rows import Row, ViewRows


class Tables(ViewRows):
    """The rows of the approvals views, asked by the views' own SQL."""

    def __init__(self) -> None:
        super().__init__([*VIEWS, WEBHOOK_ENDPOINTS])
        self.deliveries: list[Row] = []
        self.attempts: list[Row] = []

    def answer(self, reads: MemoryReads) -> None:
        """Make `reads` answer the queries of the approvals views from here."""
        reads.when(rooms.BY_SLUG, self.where("rooms", "tenant", "slug"))
        reads.when(rooms.BY_ID, self.where("rooms", "tenant", "id"))
        reads.when(rooms.PAGE, lambda tenant, *page: self._page("rooms", tenant, page))
        reads.when(
            rooms.PAGE_OF_SCOPES,
            lambda tenant, ids, *page: self._page("rooms", tenant, page, lambda r: r["id"] in ids),
        )
        reads.when(agents.BY_ID, self.where("agents", "tenant", "id"))
        reads.when(
            agents.PAGE,
            lambda tenant, *page: self._page("agents", tenant, page, at="registered_at"),
        )
        reads.when(check_ins.BY_ID, self.where("check_ins", "tenant", "id"))
        reads.when(check_ins.OWNERS, self.where("check_ins", "tenant", "id"))
        reads.when(trust_scores.OF_AGENT, self.where("trust_scores", "tenant", "agent_id"))
        reads.when(tasks.BY_ID, self.where("tasks", "tenant", "id"))
        reads.when(messages.PAGE, self._messages)
        reads.when(registrations.BY_ID, self.where("registrations", "id"))
        self._answer_pending(reads)
        self._answer_tasks(reads)
        self._answer_watchers(reads)

    def _messages(self, tenant: str, check_in_id: str, seen: int, limit: int) -> list[Row]:
        thread = self.where("messages", "tenant", "check_in_id")(tenant, check_in_id)
        later = [row for row in thread if row["number"] > seen]
        return sorted(later, key=lambda row: int(row["number"]))[:limit]

    def _answer_tasks(self, reads: MemoryReads) -> None:
        columns = ("room_id", "agent_id", "status", "claimed")
        for bits in range(16):
            names = [name for index, name in enumerate(columns) if bits >> index & 1]
            sql, _ = tasks.page("", dict.fromkeys(names, ""), (0, ""), 0)

            def rows(tenant: str, *rest: Any, names: Any = tuple(names)) -> list[Row]:
                wanted = dict(zip(names, rest, strict=False))
                return self._page(
                    "tasks",
                    tenant,
                    rest[len(names) :],
                    lambda row: all(row[name] == value for name, value in wanted.items()),
                    at="posted_at",
                )

            reads.when(sql, rows)

    def _answer_pending(self, reads: MemoryReads) -> None:
        columns = ("status", "risk_level", "urgency", "agent_id")
        for bits in range(16):
            names = [name for index, name in enumerate(columns) if bits >> index & 1]
            sql, _ = check_ins.page("", "", dict.fromkeys(names, ""), (0, ""), 0)

            def rows(tenant: str, room_id: str, *rest: Any, names: Any = tuple(names)) -> list[Row]:
                wanted = {"room_id": room_id, **dict(zip(names, rest, strict=False))}
                return self._page(
                    "check_ins",
                    tenant,
                    rest[len(names) :],
                    lambda row: all(row[name] == value for name, value in wanted.items()),
                )

            reads.when(sql, rows)

    def _answer_watchers(self, reads: MemoryReads) -> None:
        def watching(tenant: str, **wanted: str) -> list[Row]:
            found = []
            for row in self.rows["watchers"].values():
                about = {name: row[name] for name in wanted}
                if row["tenant"] == tenant and row["removed_at"] is None and about == wanted:
                    endpoint = self.rows["webhook_endpoints"].get((tenant, row["id"]), {})
                    names = {"endpoint_status": "status", "endpoint_reason": "reason"}
                    found.append(row | {to: endpoint.get(of) for to, of in names.items()})
            return sorted(found, key=lambda row: (row["created_at"], row["id"]), reverse=True)

        def page(tenant: str, room: str, agent: str, *rest: Any) -> list[Row]:
            _, at, id, limit = rest
            wanted = {"room_id": room} | ({"agent_id": agent} if agent else {})
            rows = watching(tenant, **wanted)
            return [row for row in rows if (row["created_at"], row["id"]) < (at, id)][:limit]

        def delivered(tenant: str, endpoint: str, **wanted: str) -> list[Row]:
            wanted |= {"tenant": tenant, "endpoint_id": endpoint}
            return [row for row in self.deliveries if wanted.items() <= row.items()]

        def deliveries(tenant: str, endpoint: str, status: str, *rest: Any) -> list[Row]:
            _, at, id, limit = rest
            rows = delivered(tenant, endpoint, **({"status": status} if status else {}))
            rows.sort(key=lambda row: (row["requested_at"], row["event_id"]), reverse=True)
            return [row for row in rows if (row["requested_at"], row["event_id"]) < (at, id)][
                :limit
            ]

        reads.when(watchers.BY_ID, lambda tenant, id: watching(tenant, id=id))
        reads.when(watchers.PAGE, page)
        reads.when(webhook_deliveries.PAGE, deliveries)
        reads.when(
            webhook_deliveries.BY_ID,
            lambda tenant, endpoint, id: delivered(tenant, endpoint, event_id=id),
        )
        reads.when(
            webhook_deliveries.ATTEMPTS_OF,
            lambda tenant, endpoint, ids, n: [a for a in self.attempts if a["event_id"] in ids],
        )

    def _page(
        self,
        view: str,
        tenant: str,
        page: Sequence[Any],
        keep: Callable[[Row], bool] = lambda row: True,
        at: str = "created_at",
    ) -> list[Row]:
        after_at, after_id, limit = page
        found = [
            row
            for row in self.rows[view].values()
            if row["tenant"] == tenant and (row[at], row["id"]) < (after_at, after_id) and keep(row)
        ]
        return sorted(found, key=lambda row: (row[at], row["id"]), reverse=True)[:limit]
