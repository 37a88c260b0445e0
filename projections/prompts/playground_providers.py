"""`playground_providers`: the server on which a tenant tries its prompts, with the sealed key."""

from collections.abc import Sequence
from typing import Any

from projections.statements import Delete, Put, Statement, View
from schemas.envelope import Envelope
from schemas.prompts.playground import (
    PlaygroundEvent,
    PlaygroundProviderRemoved,
    PlaygroundProviderSet,
)
from schemas.unions import members


def reduce(event: Any, envelope: Envelope) -> Sequence[Statement]:
    key = {"tenant": envelope.tenant}
    match event:
        case PlaygroundProviderSet():
            values = {
                "base_url": event.base_url,
                "sealed_key": event.sealed_key,
                "key_hint": event.key_hint,
                "set_by": event.set_by,
                "set_at": event.set_at,
            }
            return [Put(key, values)]
        case PlaygroundProviderRemoved():
            return [Delete(key)]
    return []


PLAYGROUND_PROVIDERS = View(
    name="playground_providers",
    version=1,
    events=members(PlaygroundEvent),
    columns={
        "tenant": "text",
        "base_url": "text",
        "sealed_key": "text",
        "key_hint": "text",
        "set_by": "text",
        "set_at": "bigint",
    },
    key=("tenant",),
    reduce=reduce,
)

# Parameter: tenant.
OF_TENANT = f"""
SELECT base_url, sealed_key, key_hint, set_by, set_at
FROM {PLAYGROUND_PROVIDERS.table} WHERE tenant = %s
"""
