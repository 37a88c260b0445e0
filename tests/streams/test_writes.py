"""What a batch says to Postgres of timers: one row each, and an event's word over the firing's."""

import json
from typing import Any

from commands.approvals.check_in_state import ExpireCheckIn
from schemas.platform.outcome import CommandHandled
from streams.effects import Effects, TimerChange
from streams.runtime import codec
from streams.writes import writes

STREAM = "approvals.check_in/ci_1"
EXPIRE = ExpireCheckIn("room_1", "agt_1", 70)


def fired(due_at: int) -> tuple[str, CommandHandled]:
    outcome = CommandHandled(
        command_id="cmd_1",
        command_offset=3,
        at=71,
        status="accepted",
        stream=STREAM,
        timer=f"timeout@{due_at}",
        replay=True,
    )
    return "ten_1", outcome


def timers(effects: Effects) -> dict[str, list[dict[str, Any]]]:
    """The timer rows of a batch that changes nothing else, by what is done with them."""
    made = writes(effects, codec())
    parts = [part for part in ("timers_gone", "timers_set") if f"\n{part} AS" in made.sql.decode()]
    return dict(zip(parts, map(json.loads, made.rows), strict=True))


def test_a_timer_that_fired_goes_if_it_is_still_the_one_that_fired() -> None:
    effects = Effects()
    effects.outcomes.append(fired(due_at=70))
    key = {"tenant": "ten_1", "stream": STREAM, "name": "timeout"}
    assert timers(effects) == {"timers_gone": [key | {"due_at": 70}]}


def test_a_timer_that_fired_and_is_set_anew_stays() -> None:
    effects = Effects()
    effects.outcomes.append(fired(due_at=70))
    effects.timers.append(TimerChange("ten_1", STREAM, "timeout", 90, EXPIRE))
    [row] = timers(effects)["timers_set"]
    assert row["due_at"] == 90
    assert bytes.fromhex(row["command"]) == codec().encode(EXPIRE)
    assert "timers_gone" not in timers(effects)


def test_a_timer_that_is_cleared_goes_whenever_it_is_due() -> None:
    effects = Effects()
    effects.outcomes.append(fired(due_at=70))
    effects.timers.append(TimerChange("ten_1", STREAM, "timeout", 90, EXPIRE))
    effects.timers.append(TimerChange("ten_1", STREAM, "timeout"))
    key = {"tenant": "ten_1", "stream": STREAM, "name": "timeout"}
    assert timers(effects) == {"timers_gone": [key | {"due_at": None}]}


def test_an_empty_batch_moves_the_checkpoint_and_nothing_else() -> None:
    made = writes(Effects(), codec())
    assert made.rows == []
    assert made.views == []
    assert "INSERT" not in made.sql.decode()
