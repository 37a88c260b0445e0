"""Calls without a cost, over HTTP, Kafka, Postgres and ClickHouse: priced, listed, summed, metered;
by the system's table, by a price of one's own while it holds, and exactly."""

from typing import Any

import httpx
import pytest

from tests.integration.served import Served, headers_of

COSTS = "/api/v1/observe/model-costs"
CALLS = "/api/v1/observability/llm-calls/"
TOKENS = {"tokens_in": 1_234, "tokens_out": 567}
OWN = {"input_cost_per_million": 0.07, "output_cost_per_million": 0.3}


class Reporter:
    """Reports calls of one run and reads them back."""

    def __init__(self, served: Served, agent: str) -> None:
        self.client = httpx.Client(
            base_url=served.url, timeout=60, headers=headers_of(served.made)["api_key"]
        )
        body = {"agent_name": agent}
        self.run = self.client.post("/api/v1/observe/runs/start/", json=body).json()["run_id"]
        self.agent = agent

    def report(self, *calls: dict[str, Any]) -> str:
        """Report calls; the position of the report."""
        items = [{**TOKENS, **call} for call in calls]
        path = f"/api/v1/observe/runs/{self.run}/llm-calls/"
        answer = self.client.post(path, json={"calls": items})
        assert answer.status_code == 200, answer.text
        return answer.headers["x-log-position"]

    def call(self, id: str, position: str) -> dict[str, Any]:
        """One call in full."""
        answer = self.client.get(f"{CALLS}{id}/", params={"min_position": position})
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found


@pytest.fixture
def reporter(served: Served, request: pytest.FixtureRequest) -> Reporter:
    return Reporter(served, request.node.name)


def test_a_call_costs_what_held_when_it_was_made(reporter: Reporter) -> None:
    model = "openai/gpt-4o"
    reporter.report({"id": "before", "model": model}, {"id": "said", "model": model, "cost": 0.5})
    for _ in range(2):  # a repeat is no second setting
        answer = reporter.client.put(f"{COSTS}/{model}/", json=OWN)
        assert answer.status_code == 200, answer.text
        assert answer.json()["revision"] == 1
    rows = reporter.client.get(f"{COSTS}/").json()["models"]
    assert [row for row in rows if row["model_id"] == model] == [answer.json()]
    reporter.report(
        {"id": "own", "model": model},
        {"id": "other", "model": "gpt-4o"},  # the price is for the very name that was given
        {"id": "unknown", "model": "nobody-knows"},
    )
    assert reporter.client.delete(f"{COSTS}/{model}/").status_code == 204
    position = reporter.report({"id": "after", "model": model})

    found = {
        id: reporter.call(id, position)
        for id in ("before", "said", "own", "other", "unknown", "after")
    }
    default = (1_234 * 2_500_000 + 567 * 10_000_000) / 10**12
    assert {id: call["cost"] for id, call in found.items()} == {
        "before": default,
        "said": 0.5,
        "own": (1_234 * 70_000 + 567 * 300_000) / 10**12,
        "other": default,
        "unknown": 0.0,
        "after": default,
    }
    assert {id: call["pricing"]["source"] for id, call in found.items()} == {
        "before": "default",
        "said": "client",
        "own": "override",
        "other": "default",
        "unknown": "unpriced",
        "after": "default",
    }
    assert found["own"]["pricing"] == {
        **OWN,
        "source": "override",
        "model_id": model,
        "revision": 1,
        "repriced": None,
    }
    listed = reporter.client.get(CALLS, params={"agent": reporter.agent}).json()
    assert {row["id"]: row["cost"] for row in listed["results"]} == {
        id: call["cost"] for id, call in found.items()
    }
    pico = 3 * (1_234 * 2_500_000 + 567 * 10_000_000) + 1_234 * 70_000 + 567 * 300_000
    assert listed["aggregates"]["total_cost"] == (pico + 5 * 10**11) / 10**12


def test_a_price_for_a_row_of_the_table_holds_for_all_its_names(reporter: Reporter) -> None:
    names = ["gpt-4o-mini", "openai/gpt-4o-mini", "gpt-4o-mini-2024-07-18", "azure/gpt-4o-mini"]
    assert reporter.client.put(f"{COSTS}/gpt-4o-mini/", json=OWN).status_code == 200
    position = reporter.report(*({"id": name, "model": name} for name in names))
    sources = set()
    for name in names:
        pricing = reporter.call(name.replace("/", "%2F"), position)["pricing"]
        sources.add((pricing["source"], pricing["model_id"]))
    assert sources == {("override", "gpt-4o-mini")}


def test_calls_are_repriced_and_the_cost_before_is_kept(reporter: Reporter) -> None:
    model = "acme/repriced:v1"
    position = reporter.report(
        {"id": "r-1", "model": model}, {"id": "r-2", "model": model, "cost": 0.5}
    )
    made = reporter.call("r-1", position)
    assert (made["cost"], made["pricing"]["source"]) == (0.0, "unpriced")
    assert reporter.client.put(f"{COSTS}/{model}/", json=OWN).status_code == 200
    # The end is not included: another call gives it a time after the first.
    end = reporter.call("r-3", reporter.report({"id": "r-3", "model": model}))["created_at"]
    asked = {"from": made["created_at"], "to": end, "models": [model, "gpt-4o"]}

    def reprice(**more: bool) -> dict[str, Any]:
        answer = reporter.client.post(f"{COSTS}/reprice/", json={**asked, **more})
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    pico = 1_234 * 70_000 + 567 * 300_000
    cost = pico / 10**12
    looked = reprice()
    assert looked["models"] == [{"model": model, "calls": 1, "old_cost": 0.0, "new_cost": cost}]
    assert reporter.call("r-1", position)["cost"] == 0.0
    done = reprice(dry_run=False)
    assert done == {**looked, "dry_run": False, "version": done["version"]}
    assert reprice(dry_run=False)["version"] == done["version"]  # once more changes nothing
    now = reporter.call("r-1", position)
    assert now["cost"] == cost
    repriced = now["pricing"]["repriced"]
    assert (repriced["version"], repriced["original_cost"]) == (done["version"], 0.0)
    listed = reporter.client.get(CALLS, params={"agent": reporter.agent}).json()
    assert {row["id"]: row["cost"] for row in listed["results"]} == {
        "r-1": cost,
        "r-2": 0.5,
        "r-3": cost,
    }
    assert listed["aggregates"]["total_cost"] == (5 * 10**11 + 2 * pico) / 10**12
