"""Telemetry over HTTP against a bare handler: `python -m bench.telemetry [SECONDS]`.

Four LLM calls with 200-character previews a request, 32 connections with a run each, every answer
after the acknowledgement of Kafka. The two servers take turns, so that what else the machine does
hits both.
"""

import contextlib
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import uvloop
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from bench.figure import Figure
from bench.load import Figures, load, post
from bench.servers import servers
from bench.telemetry_servers import BARE_TOPIC, KEY, TENANT
from infra.config import Settings
from infra.embedded.ports import free_port
from infra.ids import Signer
from infra.kafka import create_topics
from tests.api.harness import SECRET

CONNECTIONS = 32
ROUNDS = 3
CALLS = [
    {
        "model": "gpt-4o",
        "tokens_in": 150 + n,
        "tokens_out": 80,
        "cost": 0.001175,
        "task": "answer_question",
        "prompt_preview": "How do I reset my password? " * 7,
        "response_preview": "Click Forgot Password on the page. " * 6,
    }
    for n in range(4)
]


@contextlib.contextmanager
def server(side: str, port: int, settings: Settings) -> Iterator[int]:
    """One side in a process of its own; yields its process id once it serves."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.telemetry_servers", side, str(port)],
        env={**os.environ, **settings.to_env()},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        if process.stdout.readline() != "serving\n":
            raise RuntimeError(f"{side} did not start")
        yield process.pid
    finally:
        process.terminate()
        process.wait()


def cpu_seconds(pid: int) -> float:
    """User and system time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def create_bare_topic(settings: Settings) -> None:
    """The bare side's topic, with as many partitions as ours."""
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap_servers)
    await admin.start()
    await admin.create_topics([NewTopic(BARE_TOPIC, settings.partitions, 1)])
    await admin.close()


async def run(settings: Settings, seconds: float) -> Figure:
    """Measure both sides in turn, `seconds` for each side and round."""
    await create_topics(settings.kafka_bootstrap_servers, settings.partitions)
    await create_bare_topic(settings)
    body = json.dumps({"calls": CALLS}).encode()
    signer = Signer(SECRET)
    requests = [
        post(f"/api/v1/observe/runs/{signer.run_id(TENANT)}/llm-calls/", body, X_Wax_Key=KEY)
        for _ in range(CONNECTIONS)
    ]
    first = free_port()
    second = free_port({first})
    found: dict[str, list[tuple[Figures, float]]] = {"bare": [], "ours": []}
    with server("bare", first, settings) as bare, server("ours", second, settings) as ours:
        for port in (first, second):
            await load(port, requests, 2)
        for _ in range(ROUNDS):
            for side, port, pid in (("bare", first, bare), ("ours", second, ours)):
                before = cpu_seconds(pid)
                figures = await load(port, requests, seconds)
                cpu = (cpu_seconds(pid) - before) / figures.requests * 1e6
                found[side].append((figures, cpu))
    rates, said = {}, {}
    for side, runs in found.items():
        rates[side] = statistics.median(figures.requests_per_second for figures, _ in runs)
        p50 = statistics.median(figures.p50 for figures, _ in runs)
        p99 = statistics.median(figures.p99 for figures, _ in runs)
        cpu = statistics.median(cpu for _, cpu in runs)
        said[side] = (
            f"{rates[side]:,.0f} requests/s = {4 * rates[side]:,.0f} calls/s,"
            f" p50 {p50:.1f} ms, p99 {p99:.1f} ms, {cpu:.0f} us CPU a request"
        )
    return Figure(
        name="telemetry over HTTP",
        bare=said["bare"],
        ours=said["ours"],
        ratio=rates["ours"] / rates["bare"],
        at_least=0.7,
    )


def figures(seconds: float) -> list[Figure]:
    """What this module measures, on servers of its own."""
    with servers() as settings:
        figure = uvloop.run(run(settings, seconds))
    print(figure.line(), flush=True)
    return [figure]


if __name__ == "__main__":
    figures(float(sys.argv[1]) if len(sys.argv) > 1 else 6.0)
