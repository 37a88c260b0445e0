"""What agents report, as they do it: `python -m bench --only observe-load`.

Against a whole installation. 32 connections report runs, each of a start, four LLM calls with
200-character previews in a request each, two spans, a score and the completion: nine events in
eight requests, one after the other. Then the same runs as OpenTelemetry traces, in protobuf, 20 of
them in a request. An event is accepted when its request is answered, and visible when a query sees
it; processor time is that of all processes of the installation, Kafka and Postgres among them.
"""

import asyncio
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import uvloop
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from bench.connection import Answer, KeptConnection
from bench.figure import Figure, timed_of
from bench.installation import installation
from infra.ids import new_id

CONNECTIONS = 32
RUN_EVENTS = 9
TRACES_PER_REQUEST = 20
VISIBLE_SECONDS_MAX = 60.0
_PROMPT = ("How do I reset my password? " * 8)[:200]
_RESPONSE = ("Click Forgot Password on the page. " * 6)[:200]
_RUNS = "/api/v1/observe/runs"


class Connection(KeptConnection):
    """One kept connection. ends: the last position that it was told, by partition."""

    def __init__(self, port: int, key: str) -> None:
        super().__init__(port, {"X-Wax-Key": key})
        self.ends: dict[str, str] = {}

    async def send(
        self, method: str, path: str, body: bytes = b"", kind: str = "application/json"
    ) -> Answer:
        """Ask, and time the answer. Raises RuntimeError when it is not 2xx."""
        answer = await super().send(method, path, body, kind)
        if answer.position:
            self.ends[answer.position.rpartition(":")[0]] = answer.position
        return answer

    async def report(self, path: str, body: Any) -> Answer:
        """POST a report of runs."""
        return await self.send("POST", f"{_RUNS}/{path}", json.dumps(body).encode())


async def report_run(connection: Connection, number: int) -> int:
    """Report a run as an agent does. Returns its events."""
    start = {"agent_name": f"agent-{number % 12}", "session_id": f"session-{number // 2}"}
    begun = await connection.report("start/", {**start, "user_id": f"user-{number % 500}"})
    run = json.loads(begun.body)["run_id"]
    for index in range(4):
        call = {
            "id": f"call-{index}",
            "model": "gpt-4o",
            "tokens_in": 150 + index,
            "tokens_out": 80,
            "task": "answer_question",
            "prompt_preview": _PROMPT,
            "response_preview": _RESPONSE,
        }
        await connection.report(f"{run}/llm-calls/", {"calls": [call]})
    spans = [{"name": name, "kind": "tool", "duration_ms": 12} for name in ("search", "read")]
    await connection.report(f"{run}/spans/", {"spans": spans})
    score = {"name": "helpful", "data_type": "numeric", "numeric_value": 0.9}
    await connection.report(f"{run}/scores/", {"scores": [score]})
    await connection.report(f"{run}/complete/", {"status": "success"})
    return RUN_EVENTS


def _attribute(name: str, value: str | int) -> KeyValue:
    kind = {"string_value": value} if isinstance(value, str) else {"int_value": value}
    return KeyValue(key=name, value=AnyValue(**kind))


def traces(count: int) -> bytes:
    """An export request of so many runs: a root span, four calls and two tools each."""
    request = ExportTraceServiceRequest()
    resource = request.resource_spans.add()
    resource.resource.attributes.append(_attribute("service.name", "agent-1"))
    spans = resource.scope_spans.add().spans
    for _ in range(count):
        trace, now = new_id("t").encode()[-16:], time.time_ns()
        for index in range(7):
            span = Span(
                trace_id=trace,
                span_id=index.to_bytes(7, "big") + b"\1",
                parent_span_id=b"" if index == 0 else bytes(7) + b"\1",
                name="run" if index == 0 else f"step-{index}",
                start_time_unix_nano=now,
                end_time_unix_nano=now + 12_000_000,
            )
            if 1 <= index <= 4:
                span.attributes.extend(
                    [
                        _attribute("gen_ai.operation.name", "chat"),
                        _attribute("gen_ai.request.model", "gpt-4o"),
                        _attribute("gen_ai.usage.input_tokens", 150 + index),
                        _attribute("gen_ai.usage.output_tokens", 80),
                        _attribute("gen_ai.prompt.0.role", "user"),
                        _attribute("gen_ai.prompt.0.content", _PROMPT),
                        _attribute("gen_ai.completion.0.content", _RESPONSE),
                    ]
                )
            spans.append(span)
    return bytes(request.SerializeToString())


async def report_traces(connection: Connection, number: int) -> int:
    """Export runs as an OpenTelemetry collector does. Returns their events: a start, an end, four
    calls and two spans each."""
    body = traces(TRACES_PER_REQUEST)
    await connection.send("POST", "/v1/traces", body, "application/x-protobuf")
    return 8 * TRACES_PER_REQUEST


Report = Callable[[Connection, int], Any]


async def load(port: int, key: str, seconds: float, report: Report, probe: bool) -> dict[str, Any]:
    """Report on every connection for so long, then wait until all of it is seen."""
    connections = [Connection(port, key) for _ in range(CONNECTIONS)]
    for connection in connections:
        await connection.open()
    began = time.perf_counter()
    events, number = 0, 0

    async def work(connection: Connection) -> None:
        nonlocal events, number
        while time.perf_counter() - began < seconds:
            number += 1
            reported = await report(connection, number)
            events += reported

    await asyncio.gather(*(work(connection) for connection in connections))
    accepted = time.perf_counter() - began
    requests = timed_of([spent for each in connections for spent in each.spent], accepted)
    ends: dict[str, str] = {}
    for connection in connections:
        for place, position in connection.ends.items():
            ends[place] = max(ends.get(place, ""), position, key=_offset)
    if probe:
        # A request of several runs lies in several partitions and tells no position: a run of each
        # partition, reported behind them, does.
        for turn in range(8 * CONNECTIONS):
            probing = connections[turn % CONNECTIONS]
            begun = await probing.report("start/", {"agent_name": "probe"})
            ends[begun.position.rpartition(":")[0]] = begun.position
    for position in ends.values():
        await _seen(connections[0], position)
    visible = time.perf_counter() - began
    for connection in connections:
        connection.close()
    return {"events": events, "accepted": accepted, "visible": visible, "requests": requests}


def _offset(position: str) -> int:
    return int(position.rpartition(":")[2] or -1)


async def _seen(connection: Connection, position: str) -> None:
    """Return once a query sees the position. Raises RuntimeError when it takes too long."""
    path = f"/api/v1/observability/llm-calls/models/?min_position={position}"
    ends = time.perf_counter() + VISIBLE_SECONDS_MAX
    while True:
        try:
            await connection.send("GET", path)
            return
        except RuntimeError:
            if time.perf_counter() > ends:
                raise


def _processor(root: psutil.Process) -> float:
    spent = 0.0
    for process in (root, *root.children(recursive=True)):
        times = process.cpu_times()
        spent += times.user + times.system
    return spent


def figures(seconds: float) -> list[Figure]:
    """What this module measures, on an installation of its own."""
    found = []
    with tempfile.TemporaryDirectory(prefix="weir-bench-") as folder:
        data = Path(folder, "data")
        with installation(data) as (root, _):
            known = json.loads((data / "credentials.json").read_text())
            port, key = int(known["url"].rpartition(":")[2]), known["api_key"]
            ways: list[tuple[str, Report]] = [
                ("runs over HTTP, 32 connections", report_run),
                (f"runs over OTLP, {TRACES_PER_REQUEST} traces a request", report_traces),
            ]
            for name, report in ways:
                probe = report is report_traces
                uvloop.run(load(port, key, 2, report, probe))
                before = _processor(root)
                got = uvloop.run(load(port, key, seconds, report, probe))
                spent = (_processor(root) - before) / got["events"] * 1_000
                found.append(
                    Figure(
                        name=name,
                        bare="",
                        ours=f"{got['events'] / got['accepted']:,.0f} events/s accepted,"
                        f" {got['events'] / got['visible']:,.0f} visible,"
                        f" a request {got['requests']},"
                        f" {spent:.2f} s of processor time for 1,000 events",
                    )
                )
    for figure in found:
        print(figure.line(), flush=True)
    return found
