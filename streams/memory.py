"""What the owner of a partition remembers between batches, so that a hot tenant costs no query."""

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any, Generic, TypeVar

from schemas.platform.audit_chain import Link
from schemas.platform.outcome import CommandHandled
from streams.effects import Effects, LookupKey, StateKey

K = TypeVar("K")
V = TypeVar("V")


class Recent(Generic[K, V]):
    """The most recently used entries, at most `size`. A miss says nothing: ask the store."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._entries: OrderedDict[K, V] = OrderedDict()

    def pick(self, keys: Iterable[K]) -> tuple[dict[K, V], set[K]]:
        """What is known of the keys, and which are not."""
        known: dict[K, V] = {}
        missing: set[K] = set()
        for key in keys:
            if key in self._entries:
                known[key] = self._entries[key]
                self._entries.move_to_end(key)
            else:
                missing.add(key)
        return known, missing

    def update(self, entries: Mapping[K, V]) -> None:
        """Remember entries as the newest, and forget the oldest beyond the size."""
        for key, value in entries.items():
            self._entries[key] = value
            self._entries.move_to_end(key)
        while len(self._entries) > self._size:
            self._entries.popitem(last=False)

    def drop(self, key: K) -> None:
        """Forget an entry."""
        self._entries.pop(key, None)

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()


class Memory:
    """What an owner remembers between batches, so that a hot tenant costs no query."""

    def __init__(self) -> None:
        self.states: Recent[StateKey, tuple[int, Any]] = Recent(50_000)
        self.lookups: Recent[LookupKey, str | None] = Recent(50_000)
        self.outcomes: Recent[tuple[str, str], CommandHandled | None] = Recent(20_000)
        self.heads: Recent[str, Link | None] = Recent(20_000)

    def merge(self, effects: Effects) -> None:
        """Remember what a batch changed, once it is durable."""
        self.states.update(effects.states)
        self.lookups.update(effects.lookups)
        self.heads.update(dict(effects.heads))
        self.outcomes.update(
            {(t, o.command_id): o for t, o in effects.outcomes if o.fingerprint and not o.replay}
        )
