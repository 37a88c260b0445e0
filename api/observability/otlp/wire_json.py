"""OTLP in JSON: protobuf's mapping with ids in hex, numbers of 64 bits as numbers or as text.

Unknown fields are ignored, and null is the same as nothing.
"""

from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import Struct

from api.decoding import check_depth, invalid, malformed
from api.observability.otlp.reported import (
    Attributes,
    Happening,
    Origin,
    ReportedSpan,
    clean,
    id_of,
    parent_of,
)

Integer = int | str
_INT64 = range(-(2**63), 2**63)


class ArrayValue(Struct, rename="camel"):
    values: list["AnyValue"] | None = None


class KeyValueList(Struct, rename="camel"):
    values: list["KeyValue"] | None = None


class AnyValue(Struct, rename="camel"):
    """At most one of these."""

    string_value: str | None = None
    bool_value: bool | None = None
    int_value: Integer | None = None
    double_value: float | str | None = None
    array_value: ArrayValue | None = None
    kvlist_value: KeyValueList | None = None
    bytes_value: str | None = None


class KeyValue(Struct, rename="camel"):
    key: str | None = None
    value: AnyValue | None = None


class SpanEvent(Struct, rename="camel"):
    time_unix_nano: Integer | None = None
    name: str | None = None
    attributes: list[KeyValue] | None = None


class SpanStatus(Struct, rename="camel"):
    message: str | None = None
    code: int | None = None


class OtlpSpan(Struct, rename="camel"):
    """A span: ids in hex (16 and 8 bytes), times in nanoseconds since 1970."""

    trace_id: str | None = None
    span_id: str | None = None
    parent_span_id: str | None = None
    name: str | None = None
    kind: int | None = None
    start_time_unix_nano: Integer | None = None
    end_time_unix_nano: Integer | None = None
    attributes: list[KeyValue] | None = None
    events: list[SpanEvent] | None = None
    status: SpanStatus | None = None


class InstrumentationScope(Struct, rename="camel"):
    name: str | None = None
    version: str | None = None


class ScopeSpans(Struct, rename="camel"):
    scope: InstrumentationScope | None = None
    spans: list[OtlpSpan] | None = None


class Resource(Struct, rename="camel"):
    attributes: list[KeyValue] | None = None


class ResourceSpans(Struct, rename="camel"):
    resource: Resource | None = None
    scope_spans: list[ScopeSpans] | None = None


class ExportTraceServiceRequest(Struct, rename="camel"):
    """OTLP's request, in JSON. In protobuf it is the message of the same name."""

    resource_spans: list[ResourceSpans] | None = None


class ExportTracePartialSuccess(Struct, rename="camel"):
    """How many spans were not taken, and why."""

    rejected_spans: str
    error_message: str


class ExportTraceServiceResponse(Struct, rename="camel", omit_defaults=True):
    """OTLP's answer: empty when every span was taken."""

    partial_success: ExportTracePartialSuccess | None = None


_decode = msgspec.json.Decoder(ExportTraceServiceRequest).decode


def read(body: bytes) -> Iterator[ReportedSpan]:
    """The spans of a request, one by one. Raises Problem (400), before the first one."""
    check_depth(body, 400)
    try:
        request = _decode(body)
    except msgspec.ValidationError as error:
        raise invalid(error, 400, "body") from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise malformed(f"The body is not JSON: {error}", 400) from None
    return _spans(request)


def _spans(request: ExportTraceServiceRequest) -> Iterator[ReportedSpan]:
    for of_resource in request.resource_spans or ():
        resource = _attributes(of_resource.resource.attributes if of_resource.resource else None)
        for of_scope in of_resource.scope_spans or ():
            name = of_scope.scope.name if of_scope.scope else ""
            origin = Origin(resource, clean(name or ""))
            for span in of_scope.spans or ():
                yield _span(span, origin)


def _span(span: OtlpSpan, origin: Origin) -> ReportedSpan:
    status = span.status or SpanStatus()
    parent = _hex(span.parent_span_id)
    return ReportedSpan(
        trace_id=id_of(_hex(span.trace_id) or b"", 16),
        span_id=id_of(_hex(span.span_id) or b"", 8),
        parent_id=None if parent is None else parent_of(parent),
        name=clean(span.name or ""),
        kind=span.kind or 0,
        started_at=_nanoseconds(span.start_time_unix_nano),
        ended_at=_nanoseconds(span.end_time_unix_nano),
        attributes=_attributes(span.attributes),
        events=[
            Happening(
                clean(event.name or ""),
                _nanoseconds(event.time_unix_nano),
                _attributes(event.attributes),
            )
            for event in span.events or ()
        ],
        status=status.code or 0,
        message=clean(status.message or ""),
        origin=origin,
    )


def _hex(text: str | None) -> bytes | None:
    """The bytes of an id, None when it is not hex."""
    try:
        return bytes.fromhex(text or "")
    except ValueError:
        return None


def _nanoseconds(given: Integer | None) -> int:
    """A time; what is no unsigned number of 64 bits is an unknown one."""
    found = _integer(given)
    return found if isinstance(found, int) and 0 <= found < 2**64 else 0


def _integer(given: Integer | None) -> int | str | None:
    """A number that came as one or as text; as text where 64 bits don't hold it."""
    if isinstance(given, str):
        # Far longer than any number of 64 bits; longer still would cost time to read.
        if not given.removeprefix("-").isdecimal() or len(given) > 40:
            return clean(given)
        given = int(given)
    return given


def _attributes(pairs: list[KeyValue] | None) -> Attributes:
    return {clean(pair.key or ""): _value(pair.value) for pair in pairs or ()}


def _value(value: AnyValue | None) -> Any:
    if value is None:
        return None
    if value.string_value is not None:
        return clean(value.string_value)
    if value.int_value is not None:
        number = _integer(value.int_value)
        return number if isinstance(number, str) or number in _INT64 else str(number)
    if value.array_value is not None:
        return [_value(item) for item in value.array_value.values or ()]
    if value.kvlist_value is not None:
        return _attributes(value.kvlist_value.values)
    return _plain(value)


def _plain(value: AnyValue) -> Any:
    if value.bool_value is not None:
        return value.bool_value
    if isinstance(value.double_value, str):
        try:
            return float(value.double_value)
        except ValueError:
            return clean(value.double_value)
    if value.double_value is not None:
        return value.double_value
    return None if value.bytes_value is None else clean(value.bytes_value)


def answer(rejected: int, message: str) -> bytes:
    """The answer to a request; one that was taken whole says nothing of partial success."""
    partial = ExportTracePartialSuccess(str(rejected), message) if rejected else None
    return msgspec.json.encode(ExportTraceServiceResponse(partial))
