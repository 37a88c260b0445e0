"""Sessions, users, scores and governance events over HTTP, from the log in Kafka to ClickHouse."""

from typing import Any

import httpx
import pytest

from tests.integration.served import Served, headers_of

RUNS = "/api/v1/observe/runs"
READ = "/api/v1/observability"
SCORES = "/api/v1/evaluations/scores"


class Caller:
    """One kind of caller; `position` is where its last write lies."""

    def __init__(self, served: Served, kind: str) -> None:
        headers = headers_of(served.made)[kind]
        self.client = httpx.Client(base_url=served.url, headers=headers, timeout=60)
        self.position = ""

    def write(self, path: str, body: Any, **headers: str) -> Any:
        answer = self.client.post(path, json=body, headers=headers)
        assert answer.status_code in (200, 201), answer.text
        self.position = answer.headers["x-log-position"]
        return answer.json()

    def read(self, path: str, position: str, **params: Any) -> Any:
        asked = {**params, "min_position": position}
        answer = self.client.get(path, params=asked)
        assert answer.status_code == 200, answer.text
        return answer.json()


@pytest.fixture(scope="module")
def agent(served: Served) -> Caller:
    return Caller(served, "api_key")


@pytest.fixture(scope="module")
def person(served: Served) -> Caller:
    return Caller(served, "user")


def test_a_session_and_its_user_are_what_their_runs_reported(agent: Caller, person: Caller) -> None:
    session = "a/session of 100% ünusual characters?"
    start = {"agent_name": "lists", "session_id": session, "user_id": "user/1"}
    for number in range(2):
        # All reports of a run lie in one partition, so the last one's position stands for all.
        run_id = agent.write(f"{RUNS}/start/", start, **{"Idempotency-Key": f"lists-{number}"})[
            "run_id"
        ]
        calls = [{"id": "c", "model": "m", "tokens_in": 1, "tokens_out": 2, "cost": 0.1}] * 2
        agent.write(f"{RUNS}/{run_id}/llm-calls/", {"calls": calls})
        agent.write(f"{RUNS}/{run_id}/complete/", {})
        for path in ("sessions", "users"):
            found = person.read(f"{READ}/{path}/", agent.position, agent="lists")
            (row,) = found["results"]
            assert row["run_count"] == number + 1
            assert row["total_cost"] == [0.1, 0.2][number]
            assert row["total_tokens"] == 3 * (number + 1)
    escaped = session.replace("%", "%25").replace("/", "%2F").replace("?", "%3F")
    detail = person.read(f"{READ}/sessions/{escaped}/", agent.position)
    assert detail["session_id"] == session
    assert [run["status"] for run in detail["runs"]] == ["success", "success"]
    user = person.read(f"{READ}/users/user%2F1/", agent.position)
    assert user["cost_by_model"] == [
        {"model": "m", "total_cost": 0.2, "total_tokens": 6, "call_count": 2}
    ]


def test_a_score_is_in_the_list_once_its_position_is_reached(agent: Caller, person: Caller) -> None:
    run_id = agent.write(f"{RUNS}/start/", {"agent_name": "scored"})["run_id"]
    calls = [{"id": "the call", "model": "m", "tokens_in": 1, "tokens_out": 1}]
    agent.write(f"{RUNS}/{run_id}/llm-calls/", {"calls": calls})
    body = {"llm_call_id": "the call", "name": "good", "data_type": "boolean", "value": True}
    created = person.write(f"{SCORES}/create/?min_position={agent.position}", body)
    assert created["run_id"] == run_id
    (listed,) = person.read(f"{SCORES}/", person.position, run_id=run_id)["results"]
    assert {name: listed[name] for name in created} == created
    assert (listed["llm_call_model"], listed["run_agent_name"]) == ("m", "scored")
    me = person.client.get("/api/v1/auth/me").json()
    assert listed["author_user_id"] == me["user_id"]
    analytics = person.read(f"{SCORES}/analytics/", person.position, agent="scored")
    (good,) = analytics["distributions"]
    assert good["value_counts"] == [{"value": "true", "count": 1}]


def test_governance_events_are_read_page_by_page_as_they_came(
    agent: Caller, person: Caller
) -> None:
    events = [{"event_type": "page by page", "number": number} for number in range(5)]
    for _ in range(2):
        agent.write("/api/v1/observe/events/", {"events": events}, **{"Idempotency-Key": "gov"})
    found: list[Any] = []
    cursor = ""
    while cursor is not None:
        params = {"event_type": "page by page", "limit": 2, "cursor": cursor}
        page = person.read(f"{READ}/events/", agent.position, **params)
        found += page["results"]
        cursor = page["next_cursor"]
    assert [row["event"] for row in found] == events[::-1]
