"""What SDKs do at the end of a long run: everything at once, 50,000 items in a request."""

import gzip
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from tests.integration.served import Served, headers_of

RUNS = "/api/v1/observe/runs"
READ = "/api/v1/observability"
CALLS, OTHERS = 50_000, 10_000
PATIENCE = 12


def test_a_run_reported_in_parallel_and_completed_last_is_whole(served: Served) -> None:
    made = headers_of(served.made)
    client = httpx.Client(base_url=served.url, headers=made["api_key"], timeout=120)
    start = client.post(f"{RUNS}/start/", json={"agent_name": "large-reports"})
    run = f"{RUNS}/{start.json()['run_id']}"
    call: dict[str, Any] = {"model": "m", "tokens_in": 3, "tokens_out": 2, "cost": 0.25}
    call["prompt_preview"] = "p" * 200

    def post(report: tuple[str, str, list[dict[str, Any]]]) -> httpx.Response:
        path, name, items = report
        body = gzip.compress(json.dumps({name: items}).encode(), 1)
        headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
        return client.post(f"{run}/{path}/", content=body, headers=headers)

    reports = [
        ("llm-calls", "calls", [call] * CALLS),
        ("llm-calls", "calls", [{**call, "task": "single"}]),
        ("steps", "steps", [{"step_name": f"s{n}", "output": {"n": n}} for n in range(OTHERS)]),
        ("spans", "spans", [{"name": "s", "kind": "chain"}] * OTHERS),
        ("scores", "scores", [{"name": "s", "value": n} for n in range(OTHERS)]),
    ]
    with ThreadPoolExecutor(len(reports)) as pool:
        answers = list(pool.map(post, reports))
    for answer, (_, _, items) in zip(answers, reports, strict=True):
        assert answer.status_code == 200, answer.text
        told = answer.json()
        assert told.get("count", told.get("recorded")) == len(items)
    done = client.post(f"{run}/complete/", json={"status": "interrupted"})
    assert done.status_code == 200
    # All reports of a run lie in one partition, so the last one's position stands for all.
    asked = {"agent": "large-reports", "min_position": done.headers["x-log-position"]}
    for _ in range(PATIENCE):
        page = client.get(f"{READ}/llm-calls/", params=asked, headers=made["user"])
        if page.status_code != 409:  # it waits for some seconds by itself
            break
    assert page.status_code == 200, page.text
    found = page.json()
    assert found["count"] == CALLS + 1
    assert found["aggregates"]["total_cost"] == 0.25 * (CALLS + 1)
    scores = client.get(
        "/api/v1/evaluations/scores/", params={"name": "s", "limit": 1}, headers=made["user"]
    )
    assert scores.json()["count"] == OTHERS
