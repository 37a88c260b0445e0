"""How every report gets to the log: its run is the tenant's own, and what doesn't fit is named."""

from typing import Any

from api.problems import Problem, not_found
from api.routing import Call
from infra.ids import person_of
from schemas.observability.run import STREAM
from streams.sealing import Seal
from streams.telemetry import ItemTooLarge, Origin, Telemetry, TelemetryEvent

MAX_BODY = 32 * 1024 * 1024


def own_run(call: Call[Any, Any], run_id: str) -> str:
    """The id of a run of this tenant. Raises Problem (404) when it isn't one."""
    if not call.services.signer.owns_run(call.tenant, run_id):
        not_found("There is no such run")
    return run_id


async def person_named(call: Call[Any, Any], user_id: str) -> str:
    """The person whom a new run is for, who has a key from now on; empty for nobody.

    Raises ObjectsUnavailable.
    """
    if not user_id:
        return ""
    person = call.services.signer.person(call.tenant, user_id)
    await call.services.person_keys.current_or_new(call.tenant, person)
    return person


async def seal_of(call: Call[Any, Any], run_id: str) -> Seal | None:
    """How reports of a run are sealed; None if it is for nobody. Raises ObjectsUnavailable."""
    person = person_of(run_id)
    if not person:
        return None
    return Seal(await call.services.person_keys.current(call.tenant, person))


async def append(
    call: Call[Any, Any],
    key: str,
    *events: TelemetryEvent,
    stream: str = STREAM,
    at: int | None = None,
) -> None:
    """Append events of a run (or of what else `stream` is of), and tell the client where they lie.

    at: when they arrived, now unless given. Raises Problem (413) for what no record can hold.
    """
    origin = Origin(call.tenant, call.actor, call.command_id, call.request_id, call.attempt)
    telemetry = Telemetry(call.services.log, call.services.clock)
    seal = await seal_of(call, key) if stream == STREAM else None
    try:
        position = await telemetry.record(origin, key, events, stream=stream, at=at, seal=seal)
    except ItemTooLarge as error:
        raise Problem(413, "payload_too_large", str(error), field=error.field) from None
    call.position(position)
