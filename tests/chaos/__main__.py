"""`python -m tests.chaos --minutes 30 --seed 7`: the chaos test for as long as one likes."""

import argparse
import os
import sys

import pytest

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--minutes", type=float, default=5.0, help="how long parts are killed")
parser.add_argument("--seed", help="which kills; a fresh one is chosen and printed otherwise")
arguments = parser.parse_args()
os.environ["CHAOS_MINUTES"] = str(arguments.minutes)
if arguments.seed:
    os.environ["CHAOS_SEED"] = arguments.seed
sys.exit(pytest.main(["tests/chaos", "-s", "-x"]))
