"""The list of what waits in a room with very many check-ins: each page is read from an index."""

import itertools
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from projections.approvals import check_ins
from projections.runner import create_table
from tests.integration.test_tasks import FIRST, named, plan

COUNT = 20_000
RARE = {"risk_level": "critical", "urgency": "urgent", "agent_id": "agt_7"}
FILTERS = [
    {"status": "pending", **dict(pairs)}
    for size in range(2)
    for pairs in itertools.combinations(RARE.items(), size)
]


@pytest.fixture(scope="module")
def many_check_ins(stack: Any) -> Iterator[Any]:
    """A room of 20,000 that wait: 100 critical, 100 urgent, 100 of one agent."""
    url = stack.settings.database_url
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE many_check_ins")
    with psycopg.connect(f"{url.rpartition('/')[0]}/many_check_ins", autocommit=True) as connection:
        view = check_ins.CHECK_INS
        for sql in create_table(view):
            connection.execute(sql.encode())
        connection.execute(
            f"""INSERT INTO {view.table} (tenant, id, room_id, status, created_at, risk_level,
urgency, agent_id) SELECT 'ten_1', 'ci_' || n, 'room_1', 'pending', n,
CASE WHEN n % 200 = 1 THEN 'critical' ELSE 'low' END,
CASE WHEN n % 200 = 2 THEN 'urgent' ELSE 'normal' END,
CASE WHEN n % 200 = 3 THEN 'agt_7' ELSE 'agt_1' END
FROM generate_series(1, {COUNT}) AS n""".encode()
        )
        connection.execute(b"ANALYZE")
        yield connection


@pytest.mark.parametrize("after", [FIRST, (COUNT // 2, "")], ids=["first", "deep"])
@pytest.mark.parametrize("filters", FILTERS, ids=named)
def test_a_page_of_what_waits_is_read_from_an_index_in_its_order(
    many_check_ins: Any, filters: dict[str, str], after: tuple[int, str]
) -> None:
    sql, parameters = check_ins.page("ten_1", "room_1", filters, after, 50)
    told = plan(many_check_ins, f"(ANALYZE) {sql}", parameters)
    assert "Index Scan" in told, told
    assert "Sort" not in told, told
    assert "Rows Removed by Filter" not in told, told
    assert len(many_check_ins.execute(sql.encode(), parameters).fetchall()) == 50
