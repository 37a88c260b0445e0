"""What went into a span and what came out of it, wherever its convention puts that."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from api.decoding import check_depth
from api.observability.otlp import conventions
from api.observability.otlp.conventions import first
from api.observability.otlp.reported import Attributes, ReportedSpan, cleaned
from api.problems import Problem

PREVIEW_CHARACTERS = 10_000
_DEPTH_MAX = 16  # how deep text is looked for
_INDEXED = re.compile(r"^(\d{1,6})(?:\.|$)(.*)$")
Document = dict[str, Any]


def input_of(span: ReportedSpan) -> Document:
    """What went in, as an object: `{"messages": […]}` of a model, else the arguments or a value."""
    own = span.attributes
    for attributes in _holders(span):
        found = first(attributes, conventions.INPUT_MESSAGES)
        if found is not None:
            instructions = first(attributes, conventions.INSTRUCTIONS)
            extra = {} if instructions is None else {"instructions": _document(instructions)}
            return {"messages": _document(found), **extra}
    return (
        _indexed(own, conventions.INPUT_PREFIXES)
        or _from_events(span, conventions.INPUT_EVENTS)
        or _whole(span, conventions.WHOLE_INPUT_EVENT)
        or _object(first(own, conventions.INPUT))
    )


def output_of(span: ReportedSpan) -> Document:
    """What came out, in the same form."""
    own = span.attributes
    for attributes in _holders(span):
        found = first(attributes, conventions.OUTPUT_MESSAGES)
        if found is not None:
            return {"messages": _document(found)}
    return (
        _indexed(own, conventions.OUTPUT_PREFIXES)
        or _from_events(span, {conventions.OUTPUT_EVENT: "assistant"})
        or _whole(span, conventions.WHOLE_OUTPUT_EVENT)
        or _object(first(own, conventions.OUTPUT))
    )


def prompt_preview(document: Document) -> str:
    """The text of what was asked last: the last message of a user's, else the last one."""
    messages = document.get("messages")
    if isinstance(messages, list) and messages:
        asked = [
            item for item in messages if isinstance(item, Mapping) and item.get("role") == "user"
        ]
        return preview(asked[-1] if asked else messages[-1])
    return preview(document)


def preview(found: Any) -> str:
    """The text of a document, as much as a preview shows."""
    return "\n".join(_texts(found, 0))[:PREVIEW_CHARACTERS]


def _holders(span: ReportedSpan) -> Iterable[Attributes]:
    """Where messages may be: the span, and the event that some instrumentations add for them."""
    yield span.attributes
    for event in span.events:
        if event.name == conventions.DETAILS_EVENT:
            yield event.attributes


def _document(found: Any) -> Any:
    """A value that may be JSON as text, as what the text means."""
    if isinstance(found, str) and found[:1] in ("{", "["):
        try:
            check_depth(found.encode(), 400)
            document = msgspec.json.decode(found)
        except (Problem, msgspec.DecodeError):
            return found
        # An escaped NUL is none before it is read.
        return cleaned(document) if "\\u0000" in found else document
    return found


def _object(value: Any) -> Document:
    if value is None:
        return {}
    found = _document(value)
    return found if isinstance(found, dict) else {"value": found}


def _indexed(attributes: Attributes, prefixes: Mapping[str, str]) -> Document:
    """`llm.input_messages.0.message.role` and its like as a list of objects, under its name."""
    for prefix, called in prefixes.items():
        start = f"{prefix}."
        items: dict[int, Document] = {}
        for name, value in attributes.items():
            found = _INDEXED.match(name[len(start) :]) if name.startswith(start) else None
            if found is not None:
                items.setdefault(int(found[1]), {})[_field(found[2])] = value
        if items:
            return {called: [_nested(items[index]) for index in sorted(items)]}
    return {}


# What OpenInference calls the item itself, in the name of each of its fields.
_ITEMS = (
    "message.",
    "document.",
    "embedding.",
    "prompt.",
    "completion.",
    "tool_call.",
    "message_content.",
)


def _field(name: str) -> str:
    for item in _ITEMS:
        if name.startswith(item):
            return name[len(item) :]
    return name or "value"


def _nested(fields: Document) -> Document:
    """Numbered fields (`tool_calls.0.name`) gathered under their name."""
    nested: Document = {}
    groups: dict[str, dict[int, Document]] = {}
    for name, value in fields.items():
        group, _, rest = name.partition(".")
        found = _INDEXED.match(rest)
        if found is None:
            nested[name] = value
        else:
            groups.setdefault(group, {}).setdefault(int(found[1]), {})[_field(found[2])] = value
    for group, items in groups.items():
        nested[group] = [items[index] for index in sorted(items)]
    return nested


def _from_events(span: ReportedSpan, roles: Mapping[str, str]) -> Document:
    """Messages that are an event each."""
    messages = [
        {"role": roles[event.name], **{k: _document(v) for k, v in event.attributes.items()}}
        for event in span.events
        if event.name in roles
    ]
    return {"messages": messages} if messages else {}


def _whole(span: ReportedSpan, where: tuple[str, str]) -> Document:
    """The messages that are an attribute of one event."""
    name, attribute = where
    found = [event.attributes.get(attribute) for event in span.events if event.name == name]
    return {"messages": _document(found[0])} if found and found[0] else {}


# In a message, its text; of a tool call, what is called and with what.
_TEXT_FIELDS = (
    "content",
    "contents",
    "parts",
    "text",
    "message",
    "messages",
    "documents",
    "embeddings",
    "tool_calls",
    "value",
    "function",
    "function.name",
    "arguments",
    "function.arguments",
    "response",
)
_DOCUMENT_FIELDS = ("arguments", "function.arguments", "response")


def _texts(found: Any, depth: int) -> Iterable[str]:
    if depth > _DEPTH_MAX:
        return
    if isinstance(found, str):
        if found:
            yield found
    elif isinstance(found, list):
        for item in found:
            yield from _texts(item, depth + 1)
    elif isinstance(found, Mapping):
        fields = [name for name in _TEXT_FIELDS if name in found]
        if "arguments" in found and "name" in found:
            fields.insert(0, "name")  # of what is called; other names are of who speaks
        if fields:
            for name in fields:
                value = found[name]
                if name in _DOCUMENT_FIELDS and isinstance(value, Mapping):
                    yield msgspec.json.encode(value).decode()
                else:
                    yield from _texts(value, depth + 1)
        elif depth == 0 and found:
            yield msgspec.json.encode(found).decode()
