"""What is on the log, told to people (`docs/events.md`) and to programs (AsyncAPI 3.0).

Both follow from the topics' file and the structs alone, so neither can say what isn't so. Pure:
`infra.gen` writes the files, the API serves the second one.
"""

import inspect
from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import Struct

from schemas.avro_derivation import derive, tag_of
from schemas.envelope import ATTEMPT, SEALED_FOR
from schemas.topics import Topic, holds, topics

Json = dict[str, Any]

ASYNCAPI_VERSION = "3.0.0"
BINDING_VERSION = "0.5.0"
AVRO_FORMAT = "application/vnd.apache.avro;version=1.9.0"

# Header -> what it holds. `schemas.envelope` writes them.
HEADERS = {
    "ce_specversion": "CloudEvents version, 1.0",
    "ce_id": "unique for each event",
    "ce_type": "the event's type, domain.name.vN",
    "ce_source": "who wrote it",
    "ce_time": "when it happened, RFC 3339 in UTC with up to six decimals",
    "ce_subject": "the stream, domain.stream/id",
    "ce_tenant": "whose it is",
    "ce_streamversion": "1..n within the stream; 0 where streams are not numbered",
    "ce_actorkind": "user, agent, api_key, system or anonymous",
    "ce_actorid": "the public id of whoever caused it",
    "ce_actorname": "their name, if they have one",
    "ce_correlationid": "the HTTP request that led to it, if one did",
    "ce_causationid": "the command or event that caused it, if one did",
    "content-type": "application/avro",
    ATTEMPT: "of a report without an Idempotency-Key: which API process took it, and a keyed hash "
    "of the request",
    SEALED_FOR: "the name of the key that the personal fields are sealed under, if they are",
}
_OPTIONAL = frozenset({"ce_actorname", "ce_correlationid", "ce_causationid", ATTEMPT, SEALED_FOR})
_NUMBERS = frozenset({"ce_streamversion"})


def types_on(
    topic: Topic, events: Iterable[type[Struct]], commands: Iterable[type[Struct]]
) -> list[type[Struct]]:
    """The structs that a topic may hold, by their tags; none where it holds no Avro of its own."""
    if topic.name == "commands":
        found = list(commands)
    elif topic.name == "events" or topic.types or topic.copies:
        found = [event for event in events if holds(topic.name, tag_of(event))]
    else:
        found = []
    return sorted(found, key=tag_of)


def build_asyncapi(events: Sequence[type[Struct]], commands: Sequence[type[Struct]]) -> Json:
    """The AsyncAPI document of every topic."""
    messages: Json = {}
    channels: Json = {}
    operations: Json = {}
    for topic in topics().values():
        on_it = types_on(topic, events, commands)
        for struct in on_it:
            messages[tag_of(struct)] = _message(struct)
        channels[topic.name] = _channel(topic, on_it)
        operations |= _operations(topic)
    return {
        "asyncapi": ASYNCAPI_VERSION,
        "info": {
            "title": "Weir's log",
            "version": "1",
            "description": (
                "Every write is an event on Kafka. Values are Avro in Confluent's framing (magic "
                "byte 0, schema id, body); the schemas are served by a Schema Registry under "
                "/schema-registry of the API. Headers are CloudEvents. Read with "
                "isolation.level=read_committed: the writers use transactions."
            ),
        },
        "defaultContentType": "application/avro",
        "channels": channels,
        "operations": operations,
        "components": {
            "messages": dict(sorted(messages.items())),
            "schemas": {"headers": _headers()},
        },
    }


def _channel(topic: Topic, types: Sequence[type[Struct]]) -> Json:
    config = topic.config()
    partitions = {} if topic.partitions == "partitions" else {"partitions": topic.partitions}
    return {
        "address": topic.name,
        "description": topic.about,
        "messages": {
            tag_of(struct): {"$ref": f"#/components/messages/{tag_of(struct)}"} for struct in types
        },
        "tags": [{"name": "public" if topic.public else "internal"}],
        "bindings": {
            "kafka": {
                "topic": topic.name,
                **partitions,
                "topicConfiguration": {
                    "cleanup.policy": [config["cleanup.policy"]],
                    "retention.ms": int(config["retention.ms"]),
                },
                "bindingVersion": BINDING_VERSION,
            }
        },
        "x-weir-key": topic.key,
    }


def _operations(topic: Topic) -> Json:
    channel = {"$ref": f"#/channels/{topic.name}"}
    roles = {"send": topic.producers, "receive": topic.consumers}
    return {
        f"{action}.{topic.name}": {
            "action": action,
            "channel": channel,
            "summary": f"{', '.join(names)} {'write' if action == 'send' else 'read'} it",
        }
        for action, names in roles.items()
        if names
    }


def _message(struct: type[Struct]) -> Json:
    return {
        "name": tag_of(struct),
        "title": struct.__name__,
        "summary": _summary(struct),
        "description": _doc(struct),
        "contentType": "application/avro",
        "headers": {"$ref": "#/components/schemas/headers"},
        "payload": {"schemaFormat": AVRO_FORMAT, "schema": derive(struct)},
        "bindings": {
            "kafka": {
                "key": {"type": "string"},
                "schemaIdLocation": "payload",
                "schemaIdPayloadEncoding": "confluent",
                "schemaLookupStrategy": "RecordNameStrategy",
                "bindingVersion": BINDING_VERSION,
            }
        },
    }


def _headers() -> Json:
    return {
        "type": "object",
        "required": [name for name in HEADERS if name not in _OPTIONAL],
        "properties": {
            name: {
                "type": "string",
                "description": text,
                **({"pattern": "^[0-9]+$"} if name in _NUMBERS else {}),
            }
            for name, text in HEADERS.items()
        },
    }


def _doc(struct: type[Struct]) -> str:
    # A struct without a docstring has one that repeats its fields.
    text = inspect.cleandoc(struct.__doc__ or "")
    return "" if text.startswith(struct.__name__ + "(") else text


def _summary(struct: type[Struct]) -> str:
    return _doc(struct).partition("\n")[0]


def events_markdown(events: Sequence[type[Struct]], commands: Sequence[type[Struct]]) -> str:
    """`docs/events.md`."""
    lines = [
        "# What is on the log",
        "",
        "Generated by `make gen` from `schemas/topics.yaml` and the structs under `schemas/`. "
        "The same for programs: [asyncapi.json](asyncapi.json).",
        "",
        "Values are Avro in Confluent's framing; their schemas are under `schemas/avro/` and "
        "served under `/schema-registry`. Read with `isolation.level=read_committed`.",
        "",
        "## Topics",
        "",
        "| topic | key | partitions | kept | public | written by | read by | what |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [_topic_row(topic) for topic in topics().values()]
    lines += ["", "## Headers", "", "| header | what |", "|---|---|"]
    lines += [f"| `{name}` | {text} |" for name, text in HEADERS.items()]
    domain = ""
    for struct in sorted(events, key=tag_of):
        tag = tag_of(struct)
        if tag.partition(".")[0] != domain:
            domain = tag.partition(".")[0]
            lines += ["", f"## {domain}"]
        on = [topic.name for topic in topics().values() if struct in types_on(topic, events, ())]
        lines += ["", *_event(struct, tag, on)]
    lines += ["", "## Commands", "", "On `commands`, internal.", "", "| type | what |", "|---|---|"]
    named = sorted(commands, key=tag_of)
    lines += [f"| `{tag_of(item)}` | {_cell(_summary(item))} |" for item in named]
    return "\n".join(lines) + "\n"


def _topic_row(topic: Topic) -> str:
    kept = topic.retention_days
    cells = [
        f"`{topic.name}`",
        topic.key,
        str(topic.partitions if topic.partitions != "partitions" else "WEIR_PARTITIONS"),
        kept if isinstance(kept, str) else f"{kept} day{'s' * (kept > 1)}",
        "yes" if topic.public else "no",
        ", ".join(topic.producers) or "-",
        ", ".join(topic.consumers) or "-",
        topic.about,
    ]
    return "| " + " | ".join(map(_cell, cells)) + " |"


def _event(struct: type[Struct], tag: str, on: Sequence[str]) -> list[str]:
    lines = [f"### {tag}", "", f"On {', '.join(f'`{name}`' for name in on)}."]
    if _doc(struct):
        lines += ["", _doc(struct)]
    lines += ["", "| field | type | default |", "|---|---|---|"]
    for field in derive(struct)["fields"]:
        default = _cell(repr(field["default"])) if "default" in field else ""
        lines.append(f"| `{field['name']}` | {_cell(_kind(field['type']))} | {default} |")
    return lines


def _kind(kind: Any) -> str:
    """An Avro type in a few words."""
    if isinstance(kind, str):
        return kind
    if isinstance(kind, list):
        return " or ".join(_kind(member) for member in kind)
    match kind["type"]:
        case "array":
            return f"array of {_kind(kind['items'])}"
        case "map":
            return f"map of {_kind(kind['values'])}"
        case _:
            fields = ", ".join(
                f"{field['name']} {_kind(field['type'])}" for field in kind["fields"]
            )
            return f"{kind['name']} ({fields})"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
