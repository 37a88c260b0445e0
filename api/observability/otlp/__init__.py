"""OpenTelemetry's spans as runs, LLM calls and spans. Pure: bytes and attributes in, events out.

`wire_protobuf` and `wire_json` read the two encodings of a request into `ReportedSpan`s;
`conventions` says which attribute means what, `contents` finds what went in and out, `mapping`
makes the events of it.
"""
