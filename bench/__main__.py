"""All figures in one run on one machine: `python -m bench [--only NAME] [--seconds N] [--list]`.

Each bench runs in a process of its own, one after the other, and prints as it goes; the table at
the end is Markdown. The exit status is not 0 when a bench broke; a figure that misses its bound is
marked, and leaves the status alone: it says something about the machine too.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.figure import Figure
from bench.machine import machine
from bench.measuring import measure
from infra.clock import SYSTEM_CLOCK

# Each module has `figures(seconds) -> list[Figure]`; seconds are for one side of one round.
BENCHES = {
    "telemetry": ("bench.telemetry", "telemetry over HTTP against a bare handler"),
    "check-in": ("bench.check_in", "a check-in's round trip against a bare loop"),
    "waitroom": ("bench.waitroom", "a check-in, a decision, a long list of what waits, over HTTP"),
    "timeouts": ("bench.timeouts", "how late check-ins time out, thousands at once"),
    "webhooks": ("bench.webhooks", "from a decision to its webhook"),
    "analytics": ("bench.analytics", "the analytics loop against raw inserts; visibility"),
    "policy-check": ("bench.policy_check", "what a policy check takes of our own time"),
    "observe-load": ("bench.observe_load", "runs reported over HTTP and OTLP, until they are seen"),
    "stored": ("bench.stored", "lists, search, costs, sessions over stored calls (--calls)"),
    "rebuild": ("bench.rebuild", "the table of calls made anew, by replay, while it serves"),
    "fhe": ("bench.fhe", "encrypted jobs against raw Pyfhel"),
    "gates": ("bench.gates", "bootstrapped gates in a child against bare tfhe-rs"),
    "fhe-products": ("bench.fhe_products", "matrix products beside TenSEAL's, keys, cached work"),
    "fhe-operations": ("bench.fhe_operations", "encrypted jobs, by operation; one job alone"),
    "fhe-bootstrap": ("bench.fhe_bootstrap", "bootstrapping with its true key, over HTTP too"),
    "fhe-hostile": ("bench.fhe_hostile", "10,000 hostile uploads and operands; memory"),
    "installation": ("bench.installation", "start, memory, a check-in over HTTP"),
}


def table(figures: Sequence[Figure]) -> str:
    """The figures as a Markdown table."""
    lines = ["| figure | bare | ours | ratio | bound |", "|---|---|---|---|---|"]
    for figure in figures:
        ratio = "" if figure.ratio is None else f"{figure.ratio:.2f}"
        bound = f"{figure.bound} {figure.verdict}".strip()
        lines.append(f"| {figure.name} | {figure.bare} | {figure.ours} | {ratio} | {bound} |")
    return "\n".join(lines)


def main() -> int:
    """Run the benches that were asked for and print their table."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--list", action="store_true", help="name the benches and end")
    parser.add_argument("--only", action="append", choices=BENCHES, help="run this one only")
    parser.add_argument("--seconds", type=float, default=4.0, help="for one side of one round")
    parser.add_argument("--calls", type=int, help="how many the bench `stored` stores")
    parser.add_argument("--data", type=Path, help="where `stored` keeps them, or finds them")
    asked = parser.parse_args()
    if asked.list:
        for name, (_, about) in BENCHES.items():
            print(f"{name:14}{about}")
        return 0
    figures: list[Figure] = []
    broken = []
    print(machine(SYSTEM_CLOCK), flush=True)
    for name in asked.only or BENCHES:
        print(f"\n{name}: {BENCHES[name][1]}", flush=True)
        options = {"calls": asked.calls, "data": asked.data} if name == "stored" else {}
        given = {key: value for key, value in options.items() if value is not None}
        found = measure(BENCHES[name][0], asked.seconds, **given)
        if found is None:
            broken.append(name)
        figures += found or []
    print(f"\n{table(figures)}\n\n{machine(SYSTEM_CLOCK)}")
    if broken:
        print(f"broken: {', '.join(broken)}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
