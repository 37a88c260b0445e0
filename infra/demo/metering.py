"""Usage is counted once, summed in windows, and measured against a budget."""

from typing import Any

from infra.demo.scene import Scene, until
from infra.demo.stage import DemoFailed, expect

QUANTITIES = (40, 25, 20)
LIMIT = 100


async def use_and_reach_a_budget(scene: Scene) -> list[str]:
    """Usage of a meter of its own, one of it sent twice, until 80 % of a budget are reached."""
    meter = f"demo.pages_{scene.mark}"
    path = f"/api/v1/billing/tenants/{scene.known.tenant_id}"
    budget = {"limit": LIMIT, "alert_percents": [80, 100]}
    await scene.call("person", "PUT", f"{path}/budgets/{meter}/day", budget)
    for number, quantity in enumerate(QUANTITIES):
        body = {
            "feature_key": meter,
            "quantity": quantity,
            "idempotency_key": f"{meter}-{number}",
        }
        await scene.call("key", "POST", f"{path}/usage", body, status=201)
    # The last one again, as after a lost answer.
    await scene.call("key", "POST", f"{path}/usage", body, status=201)
    total = sum(QUANTITIES)

    async def counted() -> int | None:
        asked = {"window": "day", "meter": meter}
        found = (await scene.call("key", "GET", f"{path}/usage", params=asked)).json()["totals"]
        quantity = sum(item["quantity"] for item in found)
        if quantity > total:
            raise DemoFailed(f"{quantity} are counted of {total} used")
        return sum(item["records"] for item in found) if quantity == total else None

    records = await until(counted, f"the sum of {total} in the usage window")
    expect(records, len(QUANTITIES), "the number of usages counted")

    async def reached() -> Any:
        events = (await scene.call("key", "GET", f"{path}/events")).json()["items"]
        for event in events:
            about = event["budget"] or {}
            if event["event_type"] == "budget_reached" and about["feature_key"] == meter:
                return event
        return None

    event = await until(reached, "the event budget_reached")
    expect(event["budget"]["percent"], 80, "the share reached")
    return [
        f"{len(QUANTITIES) + 1} reports, one of them a repeat: {records} counted, "
        f"{total} of {meter}",
        f"billing event: {event['summary']}",
    ]
