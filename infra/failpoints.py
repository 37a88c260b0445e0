"""Failpoints: places where a process can be made to die, for the tests that show it may.

`WEIR_FAILPOINT=decider.committed:3` ends the process with SIGKILL at the third pass of that place;
`decider.committed:3:SIGSTOP` freezes it there, until somebody lets it go on.
Every place is registered here with what a death there leaves behind; an unset variable costs one
comparison a pass.
"""

import os
import signal

POINTS: dict[str, str] = {
    "decider.read": "commands read, nothing written: they are read again",
    "decider.sent": "records sent, the transaction open: the fence aborts it",
    "decider.committed": "on the log, not in Postgres, nobody answered: the next owner folds it",
    "decider.applied": "on the log and in Postgres, nobody answered: the repeat is answered",
    "recovery.folded": "a chunk folded and its checkpoint moved: the next owner goes on there",
    "analytics.inserted": "rows of some tables inserted: each table is asked for what it holds",
    "analytics.positioned": "all tables and the position written: nothing is read again",
    "telemetry.appended": "on the log, the client unanswered: its repeat has the same item ids",
    "claim.decided": "an agent is claimed and no tenant has it yet: the adoptions carry it over",
    "erasure.key_destroyed": "the key is gone, nobody was told: it is destroyed and told again",
    "erasure.announced": "the log says so, the views are as they were: it says so again",
    "erasure.view_blanked": "a view is blank, which nobody recorded: it is seen and recorded",
    "scheduler.posted": "a timer's command sent, the row still there: sent again, it counts once",
    "fan_out.posted": "triggers sent, the offset not kept: sent again, each triggers once",
    "webhooks.posted": "a webhook posted, its attempt not on the log: posted again, the same id",
    "webhooks.folded": "attempts and their offset in Postgres: the next sender goes on there",
}

_name, _count, _signal, *_ = (*os.environ.get("WEIR_FAILPOINT", "").split(":"), "", "")
_left = int(_count or 1)
_number = signal.Signals[_signal or "SIGKILL"]


def failpoint(name: str) -> None:
    """Die here, if the environment says so."""
    if name == _name:
        _die(name)


def _die(name: str) -> None:
    global _left  # noqa: PLW0603  # counts passes of the one armed point of this process
    assert name in POINTS, f"{name} is not registered"
    _left -= 1
    if _left == 0:
        os.kill(os.getpid(), _number)
