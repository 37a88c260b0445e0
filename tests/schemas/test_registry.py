"""Subjects, versions and ids of the registered schemas."""

import pytest

from schemas.avro_derivation import derive
from schemas.codec import SchemaVersion
from schemas.platform.audit import AuditRecorded
from schemas.registry import SchemaRegistry
from tests.streams.records import Sample

AUDIT = "weir.platform.audit_recorded_v1"
SAMPLE = "weir.billing.sample_taken_v1"


@pytest.fixture
def registry() -> SchemaRegistry:
    newer = derive(Sample)
    newer["fields"].append({"name": "later", "type": "string", "default": ""})
    command = {"type": "record", "name": "spend_v1", "namespace": "weir.billing_x", "fields": []}
    return SchemaRegistry(
        [
            SchemaVersion(9, "billing.sample_taken.v1", 2, newer),
            SchemaVersion(1, "platform.audit_recorded.v1", 1, derive(AuditRecorded)),
            SchemaVersion(4, "billing.sample_taken.v1", 1, derive(Sample)),
            SchemaVersion(5, "billing.other_taken.v1", 1, {**derive(Sample), "name": "other_v1"}),
            SchemaVersion(6, "billing_x.spend.v1", 1, command),
        ]
    )


def test_a_schema_is_registered_under_the_names_that_clients_look_for(
    registry: SchemaRegistry,
) -> None:
    assert registry.subjects("audit") == ["audit-value", f"audit-{AUDIT}"]
    assert registry.subjects("billing") == ["billing-weir.billing.other_v1", f"billing-{SAMPLE}"]
    assert registry.subjects("weir.") == [
        "weir.billing.other_v1",
        SAMPLE,
        "weir.billing_x.spend_v1",
        AUDIT,
    ]


def test_versions_count_within_a_subject_and_ids_do_not(registry: SchemaRegistry) -> None:
    assert registry.versions(SAMPLE) == [1, 2]
    assert [item.schema.id for item in registry.all(SAMPLE)] == [9, 4]
    assert registry.version(SAMPLE).schema.id == 9
    assert registry.version(SAMPLE, 1).schema.id == 4
    assert registry.by_id(9).version == 2


def test_an_id_is_shown_under_the_subject_that_was_asked_for(registry: SchemaRegistry) -> None:
    assert registry.by_id(1).subject == AUDIT
    assert registry.by_id(1, "audit-value").subject == "audit-value"
    assert registry.by_id(1, "billing-value").subject == AUDIT
    assert [place.subject for place in registry.places(1)] == [
        AUDIT,
        f"audit-{AUDIT}",
        "audit-value",
    ]


def test_what_is_unknown_is_a_key_error(registry: SchemaRegistry) -> None:
    for look in (
        lambda: registry.versions("nothing"),
        lambda: registry.version("nothing"),
        lambda: registry.version(SAMPLE, 3),
        lambda: registry.by_id(2),
        lambda: registry.places(2),
    ):
        with pytest.raises(KeyError):
            look()
