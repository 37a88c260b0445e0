"""What a call costs by its latest version, as SQL over `llm_calls`.

The table has the cost at which a call came in. A repricing changes no row: a query asks, newest
first, which version has a price for the call's model and time. So it also covers calls whose rows
come later, and a table that is filled anew needs no second step. Without repricings the SQL is that
of the plain columns. A call that would cost more than one may keeps the cost it had.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from msgspec import Struct

from schemas.observability.model_cost import COST_MAX_PICO
from schemas.observability.repricing import CallsRepriced, NewPrice


class Stretch(NamedTuple):
    """Models and their prices in one version for one stretch of time."""

    version: int
    since: int
    until: int
    prices: list[NewPrice]


class Costs(Struct, frozen=True):
    """SQL of a call's cost. pico: whole picodollars; dollars: for comparing and sorting only;
    version: which one it is of, 0 for the cost at which it came in."""

    pico: str = "cost_pico"
    dollars: str = "cost"
    version: str = "0"
    params: dict[str, Any] = {}


AS_IT_CAME = Costs()


def costs(repricings: Sequence[CallsRepriced], prefix: str = "v") -> Costs:
    """The costs after these, newest first. prefix: of the parameters' names."""
    if not repricings:
        return AS_IT_CAME
    params: dict[str, Any] = {}
    picos, versions = [], []
    for number, stretch in enumerate(_stretches(repricings)):
        name = f"{prefix}{number}"
        params |= {
            f"{name}_version": stretch.version,
            f"{name}_since": stretch.since,
            f"{name}_until": stretch.until,
            f"{name}_models": [price.model for price in stretch.prices],
            f"{name}_in": [price.input_price_pico for price in stretch.prices],
            f"{name}_out": [price.output_price_pico for price in stretch.prices],
        }
        cost = " + ".join(
            f"toInt128({tokens}) * transform(model, {{{name}_models:Array(String)}},"
            f" {{{name}_{side}:Array(Int64)}}, toInt64(0))"
            for tokens, side in (("tokens_in", "in"), ("tokens_out", "out"))
        )
        holds = (
            f"cost_source != 'client' AND has({{{name}_models:Array(String)}}, model)"
            f" AND created_at >= fromUnixTimestamp64Micro({{{name}_since:Int64}}, 'UTC')"
            f" AND created_at < fromUnixTimestamp64Micro({{{name}_until:Int64}}, 'UTC')"
            f" AND {cost} <= {COST_MAX_PICO}"
        )
        picos.append(f"{holds}, {cost}")
        versions.append(f"{holds}, {{{name}_version:Int64}}")
    pico = f"multiIf({', '.join(picos)}, toInt128(cost_pico))"
    version = f"multiIf({', '.join(versions)}, toInt64(0))"
    dollars = f"if({version} = 0, cost, toFloat64({pico}) / 1e12)"
    return Costs(pico, dollars, version, params)


def _stretches(repricings: Iterable[CallsRepriced]) -> list[Stretch]:
    found = []
    for repricing in repricings:
        by_time = defaultdict[tuple[int, int], list[NewPrice]](list)
        for price in repricing.prices:
            by_time[price.since, price.until].append(price)
        found += [Stretch(repricing.version, *time, prices) for time, prices in by_time.items()]
    return found
