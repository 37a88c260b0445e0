"""Health, metrics, docs and outcomes: what people, machines and clients in doubt ask."""

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import jsonschema
import msgspec
import pytest

import fhe_workers.worker
import streams.app
import streams.approvals.adoptions
import streams.approvals.watching
import streams.fhe.erasing
import streams.platform.announcing
import streams.platform.audit_exports
from api.app import ROUTES
from api.openapi import build_openapi
from api.platform.probes import GROUPS, Probes
from api.problems import SERVICE
from infra.log_view import Group
from infra.objects import Objects
from projections.platform import webhook_deliveries
from schemas.platform.outcome import CommandHandled
from tests.api.harness import OTHER_TENANT, TENANT, Harness

KAFKA: dict[str, dict[int, int]] = {
    "commands": {0: 10, 1: 5},
    "telemetry": {0: 100, 1: 51},
    "deliveries": {0: 9},
}


class World:
    """What the probes ask, in memory; `gone` names what does not answer."""

    def __init__(self, app: Harness) -> None:
        self.app = app
        self.gone: set[str] = set()
        self.asked = 0
        self.ticks = 0.0
        self.reached: dict[tuple[str, int], int] = {("telemetry", 0): 100, ("telemetry", 1): 20}
        self.groups = {"fhe-workers": Group(2, {("telemetry", 0): 90})}
        app.reads.when("lease_members", [{"loop": "decider", "alive": 2}])
        checkpoints = [
            {"partition": 0, "commands_next": 8},
            {"partition": 1, "commands_next": 5},
        ]
        app.reads.when("decider_checkpoints", checkpoints)
        app.reads.when("FROM timers", [{"n": 3}])
        counted = [{"topic": "telemetry", "partition": 0, "next_offset": 95}]
        app.reads.when("usage_offsets", counted)
        app.reads.when("webhook_offsets", [{"partition": 0, "next_offset": 6}])
        depths = [{"waiting": 4, "dead": 2, "oldest": 7_000_000}]
        app.reads.when(webhook_deliveries.DEPTHS, depths)
        app.reads.when(webhook_deliveries.RECENT, [{"outcome": "failed", "n": 3}])
        app.reads.when(webhook_deliveries.DURATIONS, [{"p50": 120.0, "p99": 4000.0}])
        app.services.probes = self.probes = Probes(
            log=self,
            reads=app.reads,
            analytics=self,
            objects=Objects("memory:///"),
            clock=app.clock,
            now=lambda: self.ticks,
        )

    async def ends(self, topic: str) -> Mapping[int, int]:
        self.asked += 1
        if "kafka" in self.gone:
            raise OSError("postgresql://user:password@host is what errors may say")
        return KAFKA[topic]

    async def group(self, name: str) -> Group:
        return self.groups.get(name, Group(0, {}))

    async def query(self, sql: str) -> list[dict[str, Any]]:
        if "clickhouse" in self.gone:
            raise OSError("gone")
        return [{"one": 1}]

    fills = True  # the loop runs in this process

    async def positions(self) -> dict[tuple[str, int], int]:
        return self.reached


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with Harness() as app:
        yield World(app)


async def test_alive_needs_nothing_behind_it(world: World) -> None:
    world.gone = {"kafka", "clickhouse"}
    for path in ("/health", "/health/", "/api/v1/health"):
        answer = await world.app.client.get(path)
        assert (answer.status_code, answer.json()["status"]) == (200, "ok")
    assert world.asked == 0
    assert (await world.app.client.get("/")).json()["docs"] == "/docs"


async def test_ready_tells_of_each_dependency_and_each_loop(world: World) -> None:
    answer = await world.app.client.get("/health/ready")
    assert answer.status_code == 200
    told = answer.json()
    assert told["status"] == "ready"
    assert {name for name, it in told["dependencies"].items() if it["ok"]} == {
        "kafka",
        "postgres",
        "clickhouse",
        "objects",
    }
    assert told["loops"] == {
        "adoptions": {"alive": 0, "lag": 0},
        "analytics": {"alive": 1, "lag": 30},
        "announcements": {"alive": 0, "lag": 0},
        "audit-exports": {"alive": 0, "lag": 0},
        "decider": {"alive": 2, "lag": 2},
        "fhe-worker": {"alive": 2, "lag": 9},
        "key-erasing": {"alive": 0, "lag": 0},
        "scheduler": {"alive": 0, "lag": 3},
        "streams": {"alive": 0, "lag": 4},
        "watchers": {"alive": 0, "lag": 0},
        "webhooks": {"alive": 0, "lag": 2},
    }
    metrics = (await world.app.client.get("/metrics")).text
    assert 'weir_loop_lag_records{loop="decider"} 2.0' in metrics
    assert 'weir_dependency_up{dependency="kafka"} 1.0' in metrics
    for line in (
        'weir_webhooks{status="dead"} 2.0',
        "weir_webhook_oldest_waiting_seconds 7.0",
        'weir_webhook_attempts_recent{outcome="failed"} 3.0',
        'weir_webhook_attempts_recent{outcome="delivered"} 0.0',
        'weir_webhook_attempt_recent_seconds{quantile="0.99"} 4.0',
    ):
        assert line in metrics


async def test_without_the_log_it_is_not_ready_and_says_why_without_saying_too_much(
    world: World,
) -> None:
    world.gone = {"kafka"}
    answer = await world.app.client.get("/health/ready")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    told = answer.json()
    assert (told["status"], told["detail"]) == ("unready", "not reached: kafka")
    assert told["dependencies"]["kafka"]["error"] == "OSError"
    assert "password" not in answer.text
    jsonschema.validate(told, SERVICE.schema)


async def test_without_postgres_it_is_not_ready(world: World) -> None:
    world.app.reads.fail_with = OSError("gone")
    assert (await world.app.client.get("/health/ready")).status_code == 503


async def test_without_analytics_it_is_degraded_and_serves(world: World) -> None:
    world.gone = {"clickhouse"}
    answer = await world.app.client.get("/health/ready")
    assert (answer.status_code, answer.json()["status"]) == (200, "degraded")


async def test_lag_that_cannot_be_told_is_not_made_up(world: World) -> None:
    world.reached, world.fills = {}, False
    loops = (await world.probes.readiness()).loops
    assert (loops["analytics"].alive, loops["analytics"].lag) == (0, None)
    KAFKA["commands"] = {0: 10, 1: 5}
    world.ticks += 2

    def fails(*params: Any) -> list[dict[str, Any]]:
        raise RuntimeError("no such table")

    world.app.reads.when("decider_checkpoints", fails)
    assert (await world.probes.readiness()).loops == {}


def test_the_groups_are_those_of_the_loops() -> None:
    assert set(GROUPS.values()) == {
        fhe_workers.worker.GROUP,
        streams.app.GROUP,
        streams.approvals.watching.GROUP,
        streams.fhe.erasing.GROUP,
        streams.platform.announcing.GROUP,
        streams.platform.audit_exports.GROUP,
        streams.approvals.adoptions.GROUP,
    }


async def test_many_askers_cost_one_round_of_questions_a_second(world: World) -> None:
    for _ in range(5):
        await world.app.client.get("/health/ready")
    once = world.asked
    world.ticks += 1.5
    await world.app.client.get("/health/ready")
    assert world.asked == 2 * once


async def test_storage_is_tried_by_writing_and_reading(world: World) -> None:
    answer = await world.app.client.get("/health/storage")
    assert (answer.status_code, answer.json()["status"]) == (200, "ok")


async def test_the_document_is_served_and_the_page_needs_nothing_else(world: World) -> None:
    served = await world.app.client.get("/openapi.json")
    assert served.json() == json.loads(json.dumps(build_openapi(ROUTES)))
    page = await world.app.client.get("/docs")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "http://" not in page.text and "https://" not in page.text
    assert "<script src" not in page.text and "<link" not in page.text


async def test_the_keys_of_our_tokens_are_public(world: World) -> None:
    answer = await world.app.client.get("/.well-known/jwks.json")
    assert answer.json() == world.app.tokens.jwks()


def outcome(**changes: Any) -> bytes:
    """A kept outcome, as the decider writes it."""
    values: dict[str, Any] = {
        "command_id": "cmd_1",
        "command_offset": 7,
        "at": 1,
        "status": "accepted",
        "fingerprint": "f" * 64,
        "answer": '{"total":4}',
        "stream": "tests.counter/1",
        "version": 3,
    }
    return msgspec.msgpack.encode(CommandHandled(**{**values, **changes}))


async def test_an_outcome_settles_what_was_unknown(world: World) -> None:
    def rows(tenant: str, command_id: str) -> list[dict[str, Any]]:
        mine = (tenant, command_id) == (TENANT, "cmd_1")
        return [{"outcome": outcome()}] if mine else []

    app = world.app
    app.reads.when("decider_outcomes", rows)
    for path in ("/api/v1/commands/cmd_1", "/commands/cmd_1/"):
        for headers in (app.key(), app.agent(), app.human()):
            answer = await app.client.get(path, headers=headers)
            assert answer.status_code == 200
            told = answer.json()
            assert (told["status"], told["answer"], told["version"]) == (
                "accepted",
                {"total": 4},
                3,
            )
            assert "fingerprint" not in told
    for headers, path in (
        (app.key(OTHER_TENANT), "/commands/cmd_1"),
        (app.key(), "/commands/cmd_2"),
    ):
        assert (await app.client.get(path, headers=headers)).status_code == 404


async def test_a_refused_outcome_says_why(world: World) -> None:
    refused = outcome(status="refused", code="too_much", message="over", answer="null")
    world.app.reads.when("decider_outcomes", [{"outcome": refused}])
    told = (await world.app.client.get("/commands/cmd_1", headers=world.app.key())).json()
    assert (told["status"], told["code"], told["answer"]) == ("refused", "too_much", None)
