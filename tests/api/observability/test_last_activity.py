"""The groups that were active last are found wherever the ends of their runs are filed."""

import random

from infra.clock import iso
from projections.batches import Place, batch_of
from projections.observability.items import filed_period
from projections.observability.run_completions import RUN_COMPLETIONS
from projections.observability.run_starts import RUN_STARTS
from schemas.envelope import Actor, Envelope
from schemas.observability.run import RunCompleted, RunStarted
from tests.api.harness import TENANT
from tests.api.observability.world import NOON, World

HOUR = 3_600_000_000
RUNS, GROUPS = 80, 30
DIGITS = "0123456789abcdefghjkmnpqrstvwxyz"


def envelope(run_id: str) -> Envelope:
    stream = f"observability.run/{run_id}"
    return Envelope("", "", TENANT, stream, 0, NOON, Actor("api_key", "key_1"))


def id_of(dice: random.Random, began: int | None) -> str:
    """A run's id that says when it began, or nothing of it."""
    digits = dice.choices(DIGITS, k=42)
    digits[10] = "m"
    if began is not None:
        digits[:11] = [*(DIGITS[began // 1000 >> shift & 31] for shift in range(45, -1, -5)), "e"]
    return f"run_{''.join(digits)}"


async def test_pages_of_the_last_active_are_those_of_what_every_run_says(world: World) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    starts, ends = batch_of(RUN_STARTS), batch_of(RUN_COMPLETIONS)
    active: dict[str, int] = {}
    for place in range(RUNS):
        began = NOON - int(dice.choice([2, 48, 24 * 30]) * HOUR * dice.random())
        lately = NOON - int(dice.choice([1, 20]) * HOUR * dice.random())
        ended = dice.choice([None, began + int(dice.random() * (NOON - began)), max(began, lately)])
        # A run of the API; one with an Idempotency-Key; a trace; one reported before its end was
        # told with its beginning.
        timed, traced, told = dice.choice([(1, 0, 0), (0, 0, 0), (0, 1, 1), (0, 1, 0)])
        run_id, group = id_of(dice, began if timed else None), f"g{dice.randrange(GROUPS):02}"
        assert filed_period(run_id) == (began // (6 * HOUR) if timed else 0)
        trace_id = f"{place:032x}" if traced else ""
        started = RunStarted(
            agent_name="a",
            workflow_name="w",
            workflow_id=f"wf_{trace_id or place}",
            trace_id=trace_id,
            started_at=began,
            session_id=group,
        )
        starts.add([started], [envelope(run_id)], [Place(0, place)])
        if ended is not None:
            completed = RunCompleted(
                status="success", completed_at=ended, began_at=began if told else 0
            )
            ends.add([completed], [envelope(run_id)], [Place(0, place)])
        active[group] = max(active.get(group, 0), ended or began)
    for batch in (starts, ends):
        view = batch.view
        await world.clickhouse.insert(
            view.table, view.stored, view.types, batch.columns(), token=batch.token
        )
    ordered = sorted(active.items(), key=lambda item: (-item[1], item[0]))
    for limit in (4, 100):
        found, cursor = [], ""
        while cursor is not None:
            page = await world.read(f"sessions/?limit={limit}&cursor={cursor}")
            found += [(row["session_id"], row["last_activity"]) for row in page["results"]]
            cursor = page["next_cursor"]
        assert found == [(group, iso(at)) for group, at in ordered], limit
