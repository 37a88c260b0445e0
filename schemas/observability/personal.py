"""Which fields of reports are about the person whom a run is for, and what is left without them.

An event's personal fields leave it as one document and come back from it; `streams.sealing`
encrypts the document in between. All else stays in the event, in clear: models, tokens, costs,
times, statuses, names of agents, workflows, steps and spans, the values of scores.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import msgspec
from msgspec import Struct, structs

from schemas.observability.run import (
    ITEMS,
    LlmCall,
    RunCompleted,
    RunEvent,
    RunStarted,
    Score,
    Span,
    Step,
)

PERSONAL: Mapping[type[Struct], tuple[str, ...]] = {
    RunStarted: ("inputs", "metadata", "user_id", "user_group", "session_id"),
    RunCompleted: ("result", "error", "metadata"),
    LlmCall: ("prompt_preview", "response_preview", "metadata"),
    Step: ("output",),
    Span: ("attributes", "input_data", "output_data"),
    Score: ("comment", "metadata"),
}
"""By event or item. A field that is taken off this list stays readable where it was sealed."""

Document = dict[str, list[str]]
"""By field, the values of all items in order; of an event that is none, one value."""


@cache
def blank(kind: type[Struct]) -> Mapping[str, Any]:
    """What the personal fields of an event or item are without their content."""
    defaults = {field.name: field.default for field in structs.fields(kind)}
    return {name: defaults[name] for name in PERSONAL[kind]}


def without_personal(event: RunEvent) -> tuple[RunEvent, bytes]:
    """The event with its personal fields blank, and their document; empty if they were blank."""
    items = _items(event)
    if not items:
        return event, b""
    kind: type[Struct] = type(items[0])
    empty = blank(kind)
    told = {name: [getattr(item, name) for item in items] for name in empty}
    document: Document = {
        name: values
        for name, values in told.items()
        if any(value != empty[name] for value in values)
    }
    if not document:
        return event, b""
    left = [structs.replace(item, **empty) for item in items]
    return _with_items(event, left), msgspec.msgpack.encode(document)


def with_personal(event: RunEvent, document: bytes) -> RunEvent:
    """The event as it was before `without_personal`. Raises ValueError for a document that is no
    such event's."""
    read: Document = msgspec.msgpack.decode(document, type=Document)
    items = _items(event)
    known = {name: read[name] for name in read if name in type(items[0]).__struct_fields__}
    if any(len(values) != len(items) for values in known.values()):
        raise ValueError("what was sealed is of another number of items")
    full = [
        structs.replace(item, **{name: values[index] for name, values in known.items()})
        for index, item in enumerate(items)
    ]
    return _with_items(event, full)


def _items(event: RunEvent) -> Sequence[Any]:
    name = ITEMS.get(type(event))
    return [event] if name is None else getattr(event, name)


def _with_items(event: RunEvent, items: Sequence[Any]) -> RunEvent:
    name = ITEMS.get(type(event))
    changed: RunEvent = items[0] if name is None else structs.replace(event, **{name: items})
    return changed
