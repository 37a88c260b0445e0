"""OTLP in protobuf: requests read, answers and errors written."""

import base64
from collections.abc import Iterator
from typing import Any

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as service

from api.observability.otlp.reported import (
    Attributes,
    Happening,
    Origin,
    ReportedSpan,
    clean,
    id_of,
    parent_of,
)


class NotOtlp(ValueError):
    """The bytes are no export request."""


def read(body: bytes) -> Iterator[ReportedSpan]:
    """The spans of a request, one by one. Raises NotOtlp, before the first one."""
    try:
        request = service.ExportTraceServiceRequest.FromString(body)
    except DecodeError as error:
        raise NotOtlp(f"The body is no ExportTraceServiceRequest: {error}") from None
    return _spans(request)


def _spans(request: Any) -> Iterator[ReportedSpan]:
    for of_resource in request.resource_spans:
        resource = _attributes(of_resource.resource.attributes)
        for of_scope in of_resource.scope_spans:
            origin = Origin(resource, clean(of_scope.scope.name))
            for span in of_scope.spans:
                yield _span(span, origin)


def _span(span: Any, origin: Origin) -> ReportedSpan:
    return ReportedSpan(
        trace_id=id_of(span.trace_id, 16),
        span_id=id_of(span.span_id, 8),
        parent_id=parent_of(span.parent_span_id),
        name=clean(span.name),
        kind=span.kind,
        started_at=span.start_time_unix_nano,
        ended_at=span.end_time_unix_nano,
        attributes=_attributes(span.attributes),
        events=[
            Happening(clean(event.name), event.time_unix_nano, _attributes(event.attributes))
            for event in span.events
        ],
        status=span.status.code,
        message=clean(span.status.message),
        origin=origin,
    )


def _attributes(pairs: Any) -> Attributes:
    return {clean(pair.key): _value(pair.value) for pair in pairs}


def _value(value: Any) -> Any:
    # How deep values nest is bounded by protobuf itself.
    kind = value.WhichOneof("value")
    if kind == "string_value":
        return clean(value.string_value)
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    if kind == "kvlist_value":
        return _attributes(value.kvlist_value.values)
    if kind == "bytes_value":
        return base64.b64encode(value.bytes_value).decode()
    return getattr(value, kind) if kind in ("bool_value", "int_value", "double_value") else None


def answer(rejected: int, message: str) -> bytes:
    """The answer to a request; one that was taken whole says nothing of partial success."""
    response = service.ExportTraceServiceResponse()
    if rejected:
        response.partial_success.rejected_spans = rejected
        response.partial_success.error_message = message
    found: bytes = response.SerializeToString()
    return found
