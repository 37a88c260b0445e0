"""`python -m tests.waitroom --minutes 10 --kill --seed 7`: the machine for as long as one likes."""

import argparse
import os
import sys

import pytest

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--minutes", type=float, default=5.0, help="until no new run is begun")
parser.add_argument("--steps", type=int, default=60, help="what happens in one example")
parser.add_argument("--seed", type=int, help="of the first run; a fresh one is printed otherwise")
parser.add_argument("--kill", action="store_true", help="kill the roles meanwhile")
arguments = parser.parse_args()
os.environ |= {
    "WAITROOM_MINUTES": str(arguments.minutes),
    "WAITROOM_STEPS": str(arguments.steps),
    **({} if arguments.seed is None else {"WAITROOM_SEED": str(arguments.seed)}),
}
chosen = "under_kills" if arguments.kill else "says and not under_kills"
sys.exit(pytest.main(["tests/waitroom", "-s", "-x", "-k", chosen]))
