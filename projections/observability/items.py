"""What the tables of reported items share: a row per item, the first report of an id stands."""

from collections.abc import Sequence
from typing import Protocol, TypeVar


class Item(Protocol):
    """Something reported of a run, with an id unique within it."""

    @property
    def id(self) -> str: ...


T = TypeVar("T", bound=Item)

TOPIC = "telemetry"
RUN_ID = "String CODEC(ZSTD(1))"
TEXT = "String CODEC(ZSTD(1))"
WORD = "LowCardinality(String)"


def first_reports(items: Sequence[T]) -> Sequence[T]:
    """Items without those whose id came before in the same record."""
    if len({item.id for item in items}) == len(items):
        return items
    seen: set[str] = set()
    first: list[T] = []
    for item in items:
        if item.id not in seen:
            seen.add(item.id)
            first.append(item)
    return first
