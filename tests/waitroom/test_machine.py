"""Waitroom over HTTP against a small model of its document, undisturbed and under kills.

`python -m tests.waitroom --minutes 10 --kill --seed 7` does it for longer. The seed is printed.
"""

import os
import random
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from infra.embedded.stack import Stack
from tests.waitroom.machine import WaitroomMachine
from tests.waitroom.rig import Killer, Rig

EXAMPLES = int(os.environ.get("WAITROOM_EXAMPLES", "4"))
STEPS = int(os.environ.get("WAITROOM_STEPS", "40"))
SEED = int(os.environ.get("WAITROOM_SEED") or random.SystemRandom().randrange(2**31))


@pytest.fixture(scope="module")
def rig(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    running = Rig(stack, tmp_path_factory.mktemp("waitroom"))
    try:
        running.start()
        yield running
    finally:
        running.stop()


def drive(rig: Rig, seed_: int, examples: int) -> None:
    """Run the machine on the rig. Raises what it finds, with the steps that lead there."""
    print(f"waitroom: seed {seed_}, {examples} examples of {STEPS} steps")

    class Machine(WaitroomMachine):
        pass

    Machine.rig = rig
    run_state_machine_as_test(
        seed(seed_)(Machine),
        settings=settings(
            max_examples=examples,
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            # Each example is a history on a log that is not taken back; none is tried to be shrunk.
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
            print_blob=False,
        ),
    )


def test_the_api_is_what_the_model_says(rig: Rig) -> None:
    drive(rig, SEED, EXAMPLES)
    assert rig.repeats == 0, "undisturbed, every request is answered at once"


def test_the_api_is_what_the_model_says_under_kills(rig: Rig) -> None:
    killer = Killer(rig, SEED)
    killer.start()
    try:
        drive(rig, SEED + 1, max(1, EXAMPLES // 2))
    finally:
        killer.finish()
        print(f"waitroom: killed {'; '.join(killer.schedule)}; {rig.repeats} repeats")
    assert killer.schedule
