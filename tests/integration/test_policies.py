"""Policies over real HTTP, Kafka and Postgres: what agents report changes what they are told."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from api.provision import connected
from commands.observability.policy import DeletePolicy
from infra.ids import new_id
from schemas.envelope import SYSTEM
from streams.bus import CommandRequest
from tests.integration.served import Served, headers_of

PATIENCE_SECONDS = 90
POLICIES = "/api/v1/observe/policies/"
RUNS = "/api/v1/observe/runs/"


@pytest.fixture(scope="module")
def counting(served: Served) -> Iterator[Served]:
    """The Faust role beside the others."""
    roles = subprocess.Popen(
        [sys.executable, "-m", "infra.cli", "run", "streams"],
        env={**os.environ, **served.settings.to_env()},
        stderr=subprocess.DEVNULL,
    )
    try:
        yield served
        assert roles.poll() is None
    finally:
        roles.send_signal(signal.SIGTERM)
        try:
            roles.wait(30)
        except subprocess.TimeoutExpired:
            roles.kill()
            roles.wait()


class Client:
    """The tenant's key, over HTTP."""

    def __init__(self, served: Served) -> None:
        headers = headers_of(served.made)["api_key"]
        self.http = httpx.Client(base_url=served.url, headers=headers, timeout=60)

    def post(self, path: str, body: Any) -> Any:
        answer = self.http.post(path, json=body)
        assert answer.status_code < 300, answer.text
        return answer.json()

    def check(self, agent: str, **more: str) -> Any:
        return self.post("/api/v1/observe/policy-check/", {"agent_name": agent, **more})

    def report(self, agent: str, cost: float) -> None:
        """A run of the agent with one call."""
        run = self.post(f"{RUNS}start/", {"agent_name": agent})["run_id"]
        call = {"model": "m", "tokens_in": 10, "tokens_out": 5, "cost": cost}
        self.post(f"{RUNS}{run}/llm-calls/", {"calls": [call]})

    def until(self, agent: str, holds: Callable[[Any], bool]) -> Any:
        """What is answered once it is so: other processes count, there is nothing to await."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not holds(told := self.check(agent)):
            assert time.monotonic() < deadline, told
            time.sleep(0.1)
        return told


def budget_of(told: Any) -> dict[str, Any]:
    """What the one budget said; the tenant may have other policies, which others left."""
    (said,) = [said for said in told["evaluations"] if "budget" in said["metadata"]]
    return dict(said)


def used_of(told: Any) -> float:
    """What the budget has counted."""
    used: float = budget_of(told)["metadata"]["budget"]["used"]
    return used


def test_a_budget_goes_from_allow_to_warn_to_block_as_calls_are_reported(
    counting: Served,
) -> None:
    client, agent = Client(counting), new_id("spender")
    rule = {"kind": "budget", "unit": "usd", "limit": 1, "window": "month", "warn_percent": 50}
    policy = client.post(
        POLICIES, {"name": "a dollar", "rule": rule, "scope": {"agent_names": ["spender_*"]}}
    )
    told = client.check(agent)
    assert (told["action"], told["reason"], told["metadata"]) == ("allow", "", {})
    client.report("somebody-else", 5.0)
    client.report(agent, 0.25)
    told = client.until(agent, lambda told: used_of(told) > 0)
    assert (told["action"], used_of(told)) == ("allow", 0.25)
    client.report(agent, 0.25)
    told = client.until(agent, lambda told: used_of(told) > 0.25)
    assert (told["action"], used_of(told)) == ("warn", 0.5)
    client.report(agent, 0.5)
    told = client.until(agent, lambda told: used_of(told) > 0.5)
    assert (told["action"], used_of(told)) == ("block", 1)
    assert told["metadata"]["policy_id"] == policy["policy_id"]
    assert budget_of(told)["revision"] == 1
    history = client.http.get(f"{POLICIES}{policy['policy_id']}/history/").json()
    assert [entry["change"] for entry in history["results"]] == ["created"]


def test_a_process_learns_from_the_log_what_others_changed(served: Served) -> None:
    client, agent = Client(served), new_id("denied")
    rule = {"kind": "agents", "deny": [agent]}
    policy = client.post(POLICIES, {"name": "not this one", "rule": rule})
    assert client.check(agent)["action"] == "block"

    async def delete() -> None:
        async with connected(served.settings) as installation:
            reply = await installation.bus.send(
                CommandRequest(
                    tenant=served.made.tenant_id,
                    stream_id=policy["policy_id"],
                    command=DeletePolicy(),
                    actor=SYSTEM,
                    command_id=new_id("cmd"),
                    fingerprint="",
                ),
                30,
            )
            assert reply.status == "accepted"

    asyncio.run(delete())
    assert client.until(agent, lambda told: told["action"] == "allow")["reason"] == ""
    path = f"{POLICIES}{policy['policy_id']}/"
    assert client.http.get(path).status_code == 404
    history = client.http.get(f"{path}history/").json()
    assert [entry["by"]["kind"] for entry in history["results"]] == ["system", "api_key"]
    assert history["results"][1]["policy"]["rule"]["deny"] == [agent]
