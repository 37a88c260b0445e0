"""The topics of `topics.yaml`, as values."""

from fnmatch import fnmatchcase
from functools import cache
from importlib import resources
from typing import Any, Literal

import msgspec
from msgspec import Struct


class Topic(Struct, frozen=True, forbid_unknown_fields=True):
    """One topic.

    types: patterns of the event types that are written to it and not to `events`. copies: patterns
    of those that are written to it as well as to `events`.
    """

    name: str
    key: str
    partitions: int | Literal["partitions"]
    retention_days: int | Literal["forever"]
    public: bool
    producers: list[str]
    consumers: list[str]
    about: str
    types: list[str] = []
    copies: list[str] = []
    copy_key: str | None = None

    def partition_count(self, configured: int) -> int:
        """Partitions to create, `configured` being WEIR_PARTITIONS."""
        return configured if self.partitions == "partitions" else self.partitions

    def config(self) -> dict[str, str]:
        """The topic's configuration as the broker names it."""
        days = self.retention_days
        retention_ms = -1 if days == "forever" else days * 86_400_000
        return {"retention.ms": str(retention_ms), "cleanup.policy": "delete"}


@cache
def topics() -> dict[str, Topic]:
    """Every topic by name, read once from the committed file."""
    import yaml  # only here: nothing on a hot path needs it

    text = (resources.files("schemas") / "topics.yaml").read_text()
    rows: list[dict[str, Any]] = yaml.safe_load(text)
    return {row["name"]: msgspec.convert(row, Topic) for row in rows}


@cache
def copy_targets(event_type: str) -> tuple[Topic, ...]:
    """The topics that an event of this type is copied to, besides `events`."""
    return tuple(
        topic
        for topic in topics().values()
        if any(fnmatchcase(event_type, pattern) for pattern in topic.copies)
    )


@cache
def topics_of(event_type: str) -> tuple[str, ...]:
    """The topics that an event of this type is on."""
    own = tuple(
        topic.name
        for topic in topics().values()
        if any(fnmatchcase(event_type, pattern) for pattern in topic.types)
    )
    return own or ("events", *(topic.name for topic in copy_targets(event_type)))


def holds(topic: str, event_type: str) -> bool:
    """Whether a topic may hold records of this type. True for all where nothing is declared."""
    declared = topics().get(topic)
    if declared is None or not (declared.types or declared.copies or topic == "events"):
        return True
    return topic in topics_of(event_type)
