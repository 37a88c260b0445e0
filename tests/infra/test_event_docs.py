"""What is said about the log: complete, and true."""

import re
from collections.abc import Iterator
from typing import Any

import fastavro
import pytest

from commands import DECIDERS, commands
from infra.event_docs import HEADERS, build_asyncapi, events_markdown
from schemas import EVENTS
from schemas.avro_derivation import tag_of
from schemas.envelope import Actor, Envelope, to_headers
from schemas.topics import holds, topics, topics_of

DOCUMENT = build_asyncapi(EVENTS, commands())


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from _references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _references(value)


def _resolve(reference: str) -> Any:
    found: Any = DOCUMENT
    for part in reference.removeprefix("#/").split("/"):
        found = found[part]
    return found


def test_every_topic_event_and_command_is_in_the_document() -> None:
    assert DOCUMENT["asyncapi"] == "3.0.0"
    assert set(DOCUMENT["channels"]) == set(topics())
    known = {tag_of(struct) for struct in [*EVENTS, *commands()]}
    assert set(DOCUMENT["components"]["messages"]) == known


def test_every_reference_leads_somewhere() -> None:
    references = set(_references(DOCUMENT))
    assert references
    for reference in references:
        assert _resolve(reference)


def test_every_payload_is_a_schema() -> None:
    for name, message in DOCUMENT["components"]["messages"].items():
        parsed = fastavro.parse_schema(message["payload"]["schema"])
        domain, event, version = name.split(".")
        assert parsed["name"] == f"weir.{domain}.{event}_{version}"


def test_names_are_those_that_the_specification_allows() -> None:
    for part in ("messages", "schemas"):
        for name in DOCUMENT["components"][part]:
            assert re.fullmatch(r"[\w.\-]+", name)


@pytest.mark.parametrize("topic", topics().values(), ids=lambda topic: topic.name)
def test_a_channel_says_what_its_topic_is(topic: Any) -> None:
    channel = DOCUMENT["channels"][topic.name]
    kafka = channel["bindings"]["kafka"]
    assert channel["address"] == kafka["topic"] == topic.name
    assert str(kafka["topicConfiguration"]["retention.ms"]) == topic.config()["retention.ms"]
    assert (channel["tags"] == [{"name": "public"}]) is topic.public
    for action, roles in (("send", topic.producers), ("receive", topic.consumers)):
        assert (f"{action}.{topic.name}" in DOCUMENT["operations"]) is bool(roles)
    if topic.public:
        assert channel["messages"]


def test_the_headers_are_those_that_are_written() -> None:
    actor = Actor("user", "usr_1", "Ada")
    envelope = Envelope(
        "evt_1",
        "a.b.v1",
        "ten_1",
        "a.b/1",
        1,
        5,
        actor,
        "req_1",
        "cmd_1",
        attempt="api_1.0",
        sealed_for="person_1/0",
    )
    assert {name for name, _ in to_headers(envelope)} == set(HEADERS)
    required = set(DOCUMENT["components"]["schemas"]["headers"]["required"])
    bare = Envelope("evt_1", "a.b.v1", "ten_1", "a.b/1", 1, 5, Actor("user", "usr_1"))
    assert {name for name, _ in to_headers(bare)} == required


def test_what_deciders_record_is_on_events() -> None:
    for decider in DECIDERS:
        for event in decider.events:
            assert "events" in topics_of(tag_of(event)), tag_of(event)


def test_what_a_topic_declares_is_on_no_other() -> None:
    assert topics_of("platform.audit_recorded.v1") == ("audit",)
    assert topics_of("observability.run_started.v1") == ("telemetry",)
    assert topics_of("billing.usage_recorded.v1") == ("events", "billing")
    assert topics_of("approvals.room_created.v1") == ("events",)
    assert holds("events", "approvals.room_created.v1")
    assert not holds("events", "platform.audit_recorded.v1")
    assert holds("commands.dlq", "anything")


def test_the_page_names_every_topic_event_field_and_command() -> None:
    page = events_markdown(EVENTS, commands())
    for name in [*topics(), *HEADERS, *(tag_of(struct) for struct in commands())]:
        assert f"`{name}`" in page
    for event in EVENTS:
        section = page.split(f"### {tag_of(event)}\n")[1].split("\n### ")[0]
        for field in event.__struct_fields__:
            assert f"| `{field}` |" in section


def test_the_tables_of_the_page_are_whole() -> None:
    width = 0
    for line in events_markdown(EVENTS, commands()).splitlines():
        cells = len(re.findall(r"(?<!\\)\|", line)) if line.startswith("|") else 0
        assert cells == width or not cells or not width, line
        width = cells
