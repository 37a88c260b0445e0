"""The registered schemas as a Confluent Schema Registry shows them: subjects, versions, ids.

A schema is registered under its record's full name (RecordNameStrategy); under `<topic>-<name>` for
every public topic that may hold it (TopicRecordNameStrategy); and under `<topic>-value` where that
topic holds nothing else (TopicNameStrategy, the default of most clients).
"""

from collections.abc import Sequence

from msgspec import Struct

from schemas.codec import SchemaVersion
from schemas.topics import holds, topics


class Registered(Struct, frozen=True):
    """A schema under one of its subjects."""

    subject: str
    version: int
    schema: SchemaVersion


def full_name(version: SchemaVersion) -> str:
    """The Avro name of a schema's record, `weir.billing.usage_recorded_v1`."""
    return f"{version.schema['namespace']}.{version.schema['name']}"


class SchemaRegistry:
    """Look-ups over a fixed list of schemas. Everything raises KeyError for what is unknown."""

    def __init__(self, schemas: Sequence[SchemaVersion]) -> None:
        self._by_id = {version.id: version for version in schemas}
        self._subjects: dict[str, dict[int, SchemaVersion]] = {}
        self._names: dict[int, list[str]] = {}
        types = {version.subject for version in schemas}
        for version in sorted(schemas, key=lambda item: item.version):
            name = full_name(version)
            names = [name]
            for topic in topics().values():
                if topic.public and holds(topic.name, version.subject):
                    names.append(f"{topic.name}-{name}")
                    if sum(holds(topic.name, each) for each in types) == 1:
                        names.append(f"{topic.name}-value")
            self._names[version.id] = names
            for subject in names:
                self._subjects.setdefault(subject, {})[version.version] = version

    def subjects(self, prefix: str = "") -> list[str]:
        """Every subject, sorted."""
        return sorted(name for name in self._subjects if name.startswith(prefix))

    def versions(self, subject: str) -> list[int]:
        """The versions of a subject, ascending."""
        return sorted(self._subjects[subject])

    def version(self, subject: str, version: int | None = None) -> Registered:
        """One version of a subject, the newest when none is named."""
        found = self._subjects[subject]
        number = max(found) if version is None else version
        return Registered(subject, number, found[number])

    def by_id(self, id: int, subject: str = "") -> Registered:
        """The schema with an id. Under `subject` if it is registered there, else its own name."""
        version = self._by_id[id]
        names = self._names[id]
        return Registered(subject if subject in names else names[0], version.version, version)

    def places(self, id: int) -> list[Registered]:
        """Every subject of a schema."""
        version = self._by_id[id]
        return [Registered(name, version.version, version) for name in self._names[id]]

    def all(self, subject: str) -> list[Registered]:
        """Every version of a subject, newest first."""
        return [self.version(subject, number) for number in reversed(self.versions(subject))]
