"""GET /waxell/v1/audit/: filters, pages, shapes."""

from typing import Any

import msgspec
import pytest

from infra.clock import parse_iso
from tests.api.harness import TENANT, Harness
from tests.streams.records import audit_chain

PATH = "/waxell/v1/audit/"


def _told(app: Harness, count: int, total: int) -> None:
    """Let the store hold records `count`..1, newest first."""
    rows = []
    for record in reversed(audit_chain(count, TENANT)):
        row = msgspec.to_builtins(record)
        row["at_micros"] = row.pop("at")
        del row["type"]
        rows.append(row)
    app.analytics.when("LIMIT", rows)
    app.analytics.when("count()", [{"n": total}])


def _params(app: Harness) -> dict[str, Any]:
    return dict(app.analytics.asked[0][1])


async def test_records_are_listed_with_all_that_they_say() -> None:
    async with Harness() as app:
        _told(app, 2, 2)
        answer = await app.client.get(PATH, headers=app.key())
        assert answer.status_code == 200
        body = answer.json()
        assert {name: body[name] for name in ("count", "limit", "offset", "next_cursor")} == {
            "count": 2,
            "limit": 100,
            "offset": 0,
            "next_cursor": None,
        }
        assert [item["seq"] for item in body["audit_logs"]] == [2, 1]
        record = audit_chain(1, TENANT)[0]
        assert body["audit_logs"][1] == {
            "id": "cmd_1",
            "seq": 1,
            "timestamp": "2023-11-14T22:13:21Z",
            "actor_type": "user",
            "actor_id": "usr_1",
            "actor_name": record.actor_name,
            "action": "approvals.create_room",
            "resource_type": "approvals.room",
            "resource_id": "room_1",
            "outcome": "accepted",
            "code": "",
            "message": "",
            "details": {"name": "Zürich"},
            "events": ["approvals.room_created.v1"],
            "related": ["approvals.agent/agt_1"],
            "request_id": "req_1",
            "prev_hash": "0" * 64,
            "hash": record.hash,
        }
        assert _params(app)["tenant"] == TENANT


async def test_the_filters_reach_the_query() -> None:
    async with Harness() as app:
        _told(app, 0, 0)
        query = {
            "start_date": "2024-01-01",
            "end_date": "2024-01-31",
            "actor_type": "agent",
            "action": "approve_check_in",
            "outcome": "refused",
            "limit": "7",
            "offset": "9",
        }
        assert (await app.client.get(PATH, params=query, headers=app.key())).status_code == 200
        assert _params(app) == {
            "tenant": TENANT,
            "since": parse_iso("2024-01-01"),
            "until": parse_iso("2024-02-01"),
            "kinds": ["agent"],
            "action": "approve_check_in",
            "outcome": "refused",
            "limit": 8,
            "offset": 9,
        }


async def test_a_page_names_the_next_and_a_cursor_leads_to_it() -> None:
    async with Harness() as app:
        _told(app, 3, 3)
        first = await app.client.get(PATH, params={"limit": "2"}, headers=app.key())
        assert [item["seq"] for item in first.json()["audit_logs"]] == [3, 2]
        cursor = first.json()["next_cursor"]
        await app.client.get(PATH, params={"limit": "2", "cursor": cursor}, headers=app.key())
        assert app.analytics.asked[2][1]["before"] == 2


@pytest.mark.parametrize(
    "query",
    [
        {"limit": "0"},
        {"limit": "1001"},
        {"offset": "-1"},
        {"offset": "10001"},
        {"offset": str(2**40)},
        {"actor_type": "robot"},
        {"start_date": "yesterday"},
        {"end_date": "2024-13-01"},
        {"cursor": "before:x"},
        {"cursor": "7"},
        {"action": "a\x00"},
    ],
)
async def test_what_is_wrong_is_told_with_its_field(query: dict[str, str]) -> None:
    async with Harness() as app:
        answer = await app.client.get(PATH, params=query, headers=app.key())
        assert answer.status_code == 400
        error = answer.json()["error"]
        assert error["code"] == "validation_error"
        assert error["details"]["field"] == next(iter(query))


async def test_who_may_read_it() -> None:
    async with Harness() as app:
        _told(app, 0, 0)
        for role, status in (
            ("admin", 200),
            ("developer", 200),
            ("viewer", 200),
            ("compute", 403),
            ("billing", 403),
        ):
            assert (await app.client.get(PATH, headers=app.key(roles=[role]))).status_code == status
        assert (await app.client.get(PATH, headers=app.human())).status_code == 200
        assert (await app.client.get(PATH, headers=app.agent())).status_code == 403
        assert (await app.client.get(PATH)).status_code == 401
