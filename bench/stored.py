"""Lists, search, costs and sessions over stored calls: `python -m bench --only stored --calls N`.

The rows are made by the product's own reducers and asked for over HTTP, as the large tenant. There
is nothing to compare with; each question is asked `ROUNDS` times, in turns with the others, after
one time that doesn't count. What ClickHouse read for it stands beside its times.
"""

import contextlib
import http.client
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import psutil

from bench.figure import Figure
from bench.stored_calls import DAYS, RARE
from bench.telemetry_servers import KEY
from infra.clock import SYSTEM_CLOCK, iso
from infra.embedded.ports import free_port

CALLS = 1_000_000
ROUNDS = 15
SEED = 1
SECONDS_MAX = 60.0
_READ = "/api/v1/observability"
_DAY = 86_400_000_000


class Answer(NamedTuple):
    """What a request gave: milliseconds, those of processors in the API's process, the document,
    and what ClickHouse read for it."""

    spent: float
    processor: float
    document: Any
    queries: int
    rows: int
    bytes: int


def questions(session: str, most: str, user: str, call: str) -> dict[str, str]:
    """The paths asked for, by what they ask.

    session, user, call: ids of things that are there. most: of the user with most runs.
    """
    week = iso(SYSTEM_CLOCK.now() - 7 * _DAY)[:19] + "Z"
    calls, models = f"{_READ}/llm-calls/", f"{_READ}/analytics/models/"
    return {
        "calls, newest first": calls,
        "calls of a model in 7 days, dearest first": (
            f"{calls}?model=gpt-4o&start={week}&sort=-cost"
        ),
        "calls, dearest first": f"{calls}?sort=-cost",
        "calls of an agent, newest first": f"{calls}?agent=agent-3",
        "search of a rare word's part": f"{calls}?search={RARE[2:9]}",
        "search of a frequent word's part": f"{calls}?search=est",
        "cost per model and day, 7 days": f"{models}?period=7d",
        "cost per model and day, 30 days": f"{models}?period=30d",
        "sessions, last active first": f"{_READ}/sessions/",
        "users, last seen first": f"{_READ}/users/",
        "users, most runs first": f"{_READ}/users/?sort=-run_count",
        "one session with its runs": f"{_READ}/sessions/{quote(session, safe='')}/",
        "the user with most runs": f"{_READ}/users/{quote(most, safe='')}/",
        "a user of the middle": f"{_READ}/users/{quote(user, safe='')}/",
        "one call in full": f"{calls}{quote(call, safe='')}/",
    }


@contextlib.contextmanager
def server(folder: Path) -> Iterator[tuple[http.client.HTTPConnection, psutil.Process]]:
    """The API on a folder; yields a connection and the process."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.stored_server", str(port), str(folder)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        if process.stdout.readline() != "serving\n":
            raise RuntimeError("the server did not start")
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS_MAX)
        yield connection, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


def ask(connection: http.client.HTTPConnection, api: psutil.Process, path: str) -> Answer:
    """Ask once. Raises RuntimeError on a status that is not 200."""
    before, began = api.cpu_times(), time.perf_counter()
    connection.request("GET", path, headers={"X-Wax-Key": KEY})
    answer = connection.getresponse()
    body = answer.read()
    spent = (time.perf_counter() - began) * 1e3
    after = api.cpu_times()
    processor = (after.user + after.system - before.user - before.system) * 1e3
    if answer.status != 200:
        raise RuntimeError(f"{path}: {answer.status} {body[:300]!r}")
    read = [int(answer.headers[name]) for name in ("x-queries", "x-rows-read", "x-bytes-read")]
    return Answer(spent, processor, json.loads(body), *read)


def measure(folder: Path) -> list[Figure]:
    """The figures of a folder that has calls."""
    found: dict[str, list[Answer]] = {}
    with server(folder) as (connection, api):

        def first(path: str) -> Any:
            document = ask(connection, api, f"{_READ}/{path}").document
            return {**document["results"][0], "count": document["count"]}

        most = first("users/?sort=-run_count")
        middle = first(f"users/?sort=-run_count&limit=1&offset={most['count'] // 2}")
        asked = questions(
            first("sessions/")["session_id"],
            most["user_id"],
            middle["user_id"],
            first("llm-calls/")["id"],
        )
        for turn in range(ROUNDS + 1):
            for name, path in asked.items():
                answer = ask(connection, api, path)
                if turn:
                    found.setdefault(name, []).append(answer)
        memory = api.memory_info().rss
    return [
        *(_figure(name, answers) for name, answers in found.items()),
        Figure("memory of the API with the engine, after it", "", f"{memory / 2**20:,.0f} MiB"),
    ]


def _figure(name: str, answers: list[Answer]) -> Figure:
    spent = sorted(answer.spent for answer in answers)
    last = answers[-1]
    return Figure(
        name=name,
        bare="",
        ours=f"p50 {statistics.median(spent):.0f} ms,"
        f" p95 {spent[int(0.95 * (len(spent) - 1))]:.0f} ms,"
        f" {statistics.mean(answer.processor for answer in answers):.0f} ms of processors,"
        f" {last.rows:,} rows and {last.bytes / 2**20:,.0f} MiB read in {last.queries} queries",
    )


def fill(folder: Path, calls: int) -> float:
    """Store calls in a new folder, in a process of its own, since an engine has its folder alone.

    Returns the seconds it took.
    """
    began = time.perf_counter()
    command = [sys.executable, "-m", "bench.stored_calls", str(folder), str(calls), str(SEED)]
    subprocess.run(command, check=True)
    return time.perf_counter() - began


def figures(seconds: float, calls: int = CALLS, data: Path | None = None) -> list[Figure]:
    """What this module measures. data: a folder to keep the calls in, or to find them in."""
    with tempfile.TemporaryDirectory(prefix="weir-bench-") as temporary:
        folder = data or Path(temporary, "clickhouse")
        filled = None if folder.exists() else fill(folder, calls)
        found = measure(folder)
    if filled is not None:
        name = f"{calls:,} calls of {DAYS} days stored"
        found.insert(0, Figure(name, "", f"{filled:.0f} s, {calls / filled:,.0f} rows/s"))
    for figure in found:
        print(figure.line(), flush=True)
    return found
