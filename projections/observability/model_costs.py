"""`model_costs`: every price that a tenant has set for a model, with the time for which it held."""

from collections.abc import Sequence
from typing import Any

from projections.statements import Put, Set, Statement, View
from schemas.envelope import Envelope
from schemas.observability.model_cost import ModelCostRemoved, ModelCostSet


def reduce(event: Any, envelope: Envelope) -> Sequence[Statement]:
    match event:
        case ModelCostSet():
            values = {
                "input_price_pico": event.input_price_pico,
                "output_price_pico": event.output_price_pico,
                "since": event.since,
                "ended_at": None,
                "set_by": envelope.actor.id,
            }
            held = Put(_key(event.model, event.revision, envelope), values)
            if not event.replaces:
                return [held]
            ended = Set(_key(event.model, event.replaces, envelope), {"ended_at": event.since})
            return [ended, held]
        case ModelCostRemoved():
            key = _key(event.model, event.revision, envelope)
            return [Set(key, {"ended_at": event.until})]
    return []


def _key(model: str, revision: int, envelope: Envelope) -> dict[str, Any]:
    return {"tenant": envelope.tenant, "model": model, "revision": revision}


MODEL_COSTS = View(
    name="model_costs",
    version=1,
    events=(ModelCostSet, ModelCostRemoved),
    columns={
        "tenant": "text",
        "model": "text",
        "revision": "bigint",
        "input_price_pico": "bigint",
        "output_price_pico": "bigint",
        "since": "bigint",
        "ended_at": "bigint",
        "set_by": "text",
    },
    key=("tenant", "model", "revision"),
    reduce=reduce,
)

# Parameters: tenant, an instant (microseconds). What held at the instant or later.
HELD_SINCE = f"""
SELECT model, revision, input_price_pico, output_price_pico, since, ended_at
FROM {MODEL_COSTS.table}
WHERE tenant = %s AND (ended_at IS NULL OR ended_at > %s)
ORDER BY model, revision
"""
