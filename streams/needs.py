"""What must be at hand before a batch is decided: named by the deciders, gathered here. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from msgspec import Struct

from commands.decider import Decider, Lookup, Ref
from streams.deciding import Registry
from streams.effects import Incoming, LookupKey, Recorded, StateKey, split_stream


class Needs(NamedTuple):
    """What a batch needs from the store before it can be decided."""

    states: set[StateKey]
    lookups: set[LookupKey]
    outcomes: set[tuple[str, str]]
    heads: set[str]


def _loads(decider: Decider[Any, Any, Any], command: Struct, id: str) -> Sequence[Ref | Lookup]:
    """What a command needs; one that raises here is spoiled alone, when it is handled."""
    try:
        return decider.loads(command, id)
    except Exception:
        return ()


def needs_of(registry: Registry, batch: Iterable[Incoming]) -> Needs:
    """What the batch's commands name; the states behind look-ups come after their resolution."""
    needs = Needs(set(), set(), set(), set())
    for incoming in batch:
        tenant = incoming.envelope.tenant
        needs.heads.add(tenant)
        if incoming.fingerprint:
            needs.outcomes.add((tenant, incoming.envelope.id))
        if incoming.command is None:
            continue
        decider = registry.by_command[type(incoming.command)]
        id = incoming.envelope.stream_id
        needs.states.add((tenant, decider.stream, id))
        for need in _loads(decider, incoming.command, id):
            if isinstance(need, Ref):
                needs.states.add((tenant, need.stream, need.id))
            else:
                needs.lookups.add((tenant, need.index, need.key))
    return needs


def looked_up(
    registry: Registry, batch: Iterable[Incoming], lookups: Mapping[LookupKey, str | None]
) -> set[StateKey]:
    """The states behind the look-ups that were found."""
    states: set[StateKey] = set()
    for incoming in batch:
        if incoming.command is None:
            continue
        decider = registry.by_command[type(incoming.command)]
        tenant = incoming.envelope.tenant
        for need in _loads(decider, incoming.command, incoming.envelope.stream_id):
            if isinstance(need, Lookup) and need.stream:
                holder = lookups.get((tenant, need.index, need.key))
                if holder is not None:
                    states.add((tenant, need.stream, holder))
    return states


def needs_of_fold(registry: Registry, events: Iterable[Recorded]) -> set[StateKey]:
    """The states that events on the log fold into."""
    return {
        (item.envelope.tenant, *split_stream(item.envelope.stream))
        for item in events
        if split_stream(item.envelope.stream)[0] in registry.by_stream
    }
