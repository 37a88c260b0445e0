"""OTLP/HTTP: traces of any OpenTelemetry exporter, as runs. See `docs/opentelemetry.md`.

A request is answered in the encoding that it came in. Spans that can't be taken are told as partial
success, since a client must not repeat what was refused; the rest of the request is recorded.
"""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from msgspec import structs
from starlette.responses import Response

from api.bodies import media_type_of
from api.observability.otlp import wire_json, wire_protobuf
from api.observability.otlp.mapping import Rejected, Run, take
from api.observability.otlp.reported import ReportedSpan
from api.observability.pricing import pricing_of
from api.observability.reporting import MAX_BODY
from api.problems import OTLP, PROTOBUF, Problem
from api.roles import BUILDERS
from api.routing import Call, Route, Who
from streams.person_keys import PersonKey
from streams.sealing import Seal
from streams.telemetry import Origin, Telemetry

_SPANS_AT_ONCE = 200


class Encoding(NamedTuple):
    """How requests are read and answers written under one Content-Type."""

    media_type: str
    read: Callable[[bytes], Iterator[ReportedSpan]]
    answer: Callable[[int, str], bytes]


_ENCODINGS = {
    PROTOBUF: Encoding(PROTOBUF, wire_protobuf.read, wire_protobuf.answer),
    "application/json": Encoding("application/json", wire_json.read, wire_json.answer),
}


async def export_traces(call: Call[bytes, None]) -> Response:
    """Record the spans; when the answer comes, Kafka has all that were taken."""
    encoding = _encoding_of(call)
    runs: dict[str, Run] = {}
    rejected, first_reason, now = 0, "", call.services.clock.now()
    try:
        spans = encoding.read(call.body)
    except wire_protobuf.NotOtlp as error:
        raise Problem(400, "validation_error", str(error)) from None
    for index, span in enumerate(spans, 1):
        try:
            take(span, runs, now)
        except Rejected as reason:
            rejected += 1
            first_reason = first_reason or str(reason)
        if index % _SPANS_AT_ONCE == 0:
            await asyncio.sleep(0)  # thousands of spans take long: other requests go on meanwhile
    if runs:
        await _append(call, runs)
    return Response(encoding.answer(rejected, first_reason), media_type=encoding.media_type)


def _encoding_of(call: Call[Any, None]) -> Encoding:
    headers: dict[bytes, bytes] = dict(call.scope["headers"])
    found = _ENCODINGS.get(media_type_of(headers))
    if found is None:
        raise Problem(415, "unsupported_media_type", f"Send the spans as {' or '.join(_ENCODINGS)}")
    return found


async def _append(call: Call[Any, None], runs: dict[str, Run]) -> None:
    origin = Origin(call.tenant, call.actor, call.command_id, call.request_id)
    services = call.services
    signer = services.signer
    pricing = await pricing_of(call, [item for run in runs.values() for item in run.calls])
    for run in runs.values():
        run.calls = [structs.replace(item, **pricing(item)) for item in run.calls]
    events, seals = {}, {}
    keys = await _keys_of(call, {run.user_id for run in runs.values() if run.user_id})
    for run in runs.values():
        run_id = signer.run_id_for(call.tenant, f"otlp:{run.trace_id}")
        events[run_id] = run.events()
        if run.user_id:
            seals[run_id] = Seal(keys[run.user_id])
    positions = await Telemetry(services.log, services.clock).record_runs(origin, events, seals)
    if len({(position.topic, position.partition) for position in positions}) == 1:
        # One position can't stand for several partitions.
        call.position(positions[-1])


async def _keys_of(call: Call[Any, None], users: set[str]) -> dict[str, PersonKey]:
    """The keys under which what is told of these users is sealed."""
    services = call.services

    async def key_of(user_id: str) -> PersonKey:
        person = services.signer.person(call.tenant, user_id)
        return await services.person_keys.current_or_new(call.tenant, person)

    return dict(zip(users, await asyncio.gather(*map(key_of, users)), strict=True))


ROUTES = [
    Route(
        "POST",
        "/v1/traces",
        export_traces,
        dialect=OTLP,
        who=Who.API_KEY,
        roles=BUILDERS,
        body=wire_json.ExportTraceServiceRequest,
        raw_body=True,
        protobuf=True,
        response=wire_json.ExportTraceServiceResponse,
        tags=("runs",),
        summary="Export traces by OTLP/HTTP",
        description=(
            "OpenTelemetry's protocol in protobuf or JSON, gzip allowed; the answer comes in the "
            "request's encoding. A trace is a run, calls of models become LLM calls. The same "
            "batch again counts once."
        ),
        max_body=MAX_BODY,
        quiet=True,
    )
]
