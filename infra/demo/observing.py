"""An agent reports a run; its calls are listed, summed and charted."""

from typing import Any

from infra.demo.scene import Scene
from infra.demo.stage import DemoFailed, expect

CALLS: list[dict[str, Any]] = [
    {
        "model": "claude-sonnet-4-5",
        "tokens_in": 1840,
        "tokens_out": 212,
        "cost": 0.0087,
        "task": "read the invoice",
        "prompt_preview": "Extract the lines of this invoice",
    },
    {
        "model": "claude-haiku-4-5",
        "tokens_in": 620,
        "tokens_out": 48,
        "cost": 0.00086,
        "task": "classify",
    },
    {
        "model": "claude-sonnet-4-5",
        "tokens_in": 2210,
        "tokens_out": 344,
        "cost": 0.01179,
        "task": "draft the answer",
    },
]
STEPS = [
    {"step_name": "read", "output": {"lines": 3, "total": 129.0}},
    {"step_name": "decide", "output": {"refund": True}},
]
_RUNS = "/api/v1/observe/runs"


async def report(scene: Scene) -> list[str]:
    """A run with its LLM calls and steps, then the question what it cost."""
    agent = f"invoice-agent-{scene.mark}"
    body = {"agent_name": agent, "workflow_name": "refunds", "inputs": {"invoice": "2026-1142"}}
    key = {"Idempotency-Key": f"demo-run-{scene.mark}"}
    started = (await scene.call("key", "POST", f"{_RUNS}/start/", body, headers=key)).json()
    again = (await scene.call("key", "POST", f"{_RUNS}/start/", body, headers=key)).json()
    run = started["run_id"]
    expect(again["run_id"], run, "the run of a repeated start with the same Idempotency-Key")
    recorded = await scene.call("key", "POST", f"{_RUNS}/{run}/llm-calls/", {"calls": CALLS})
    expect(recorded.json()["count"], len(CALLS), "the number of LLM calls recorded")
    position = recorded.headers["x-log-position"]
    await scene.call("key", "POST", f"{_RUNS}/{run}/steps/", {"steps": STEPS})
    done = {"result": {"refund": 129.0}, "status": "success"}
    await scene.call("key", "POST", f"{_RUNS}/{run}/complete/", done)
    return [
        f"{run}: {len(CALLS)} LLM calls and {len(STEPS)} steps on the log",
        *await _ask(scene, agent, position),
    ]


async def _ask(scene: Scene, agent: str, position: str) -> list[str]:
    path = "/api/v1/observability"
    asked = {"agent": agent, "min_position": position}
    page = (await scene.call("key", "GET", f"{path}/llm-calls/", params=asked)).json()
    sums, cost = page["aggregates"], sum(call["cost"] for call in CALLS)
    tokens = sum(call["tokens_in"] + call["tokens_out"] for call in CALLS)
    expect(page["count"], len(CALLS), f"the LLM calls listed at {position}")
    expect(sums["total_tokens"], tokens, "their tokens")
    expect(round(sums["total_cost"], 9), round(cost, 9), "their cost")
    asked["period"] = "1d"
    models = (await scene.call("key", "GET", f"{path}/analytics/models/", params=asked)).json()
    shares = {found["model"]: found["percentage"] for found in models["model_totals"]}
    if set(shares) != {call["model"] for call in CALLS}:
        raise DemoFailed(f"the analytics know other models: {sorted(shares)}")
    share = ", ".join(f"{model} {percent:g} %" for model, percent in shares.items())
    return [
        f"read back at {position}: {tokens:,} tokens, ${cost:.5f}",
        f"cost by model: {share}",
    ]
