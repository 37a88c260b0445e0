"""What became of an endpoint's webhooks, and having one sent again, whatever domain it is of."""

from typing import Any, Literal

from msgspec import Raw, Struct

from api.problems import Problem, not_found
from api.routing import Call
from commands.platform.webhook_endpoint import RedriveWebhook
from projections.platform import webhook_deliveries
from schemas.instants import iso, iso_or_none
from schemas.platform.webhook import WebhookOutcome

ATTEMPTS_SHOWN = 20

Status = Literal["waiting", "delivered", "dead", "dropped"]


class AttemptItem(Struct, frozen=True):
    """One POST. `status_code` is null without an answer; `response` is what the answer began
    with."""

    number: int
    outcome: WebhookOutcome
    attempted_at: str
    duration_ms: int
    status_code: int | None
    error: str
    response: str


class DeliveryItem(Struct, frozen=True):
    """An event on its way to an endpoint.

    `waiting` until it is `delivered`, `dead` after the last attempt, or `dropped` with the
    endpoint. attempts: the last twenty, oldest first. body: what is posted.
    """

    event_id: str
    event_type: str
    status: Status
    reason: str
    attempt_count: int
    requested_at: str
    updated_at: str
    next_attempt_at: str | None
    attempts: list[AttemptItem]
    body: dict[str, Any]


async def delivery_page(
    call: Call[Any, Any],
    endpoint_id: str,
    status: Status | None,
    after: tuple[int, str],
    limit: int,
) -> tuple[list[dict[str, Any]], tuple[int, str] | None]:
    """The deliveries of an endpoint, newest first, each with its attempts; and the (requested_at,
    event_id) that the next page comes after, if there is one."""
    wanted = status or ""
    found = await call.services.reads.all(
        webhook_deliveries.PAGE, call.tenant, endpoint_id, wanted, wanted, *after, limit + 1
    )
    more, found = len(found) > limit, found[:limit]
    last = (found[-1]["requested_at"], found[-1]["event_id"]) if more else None
    return await _items(call, endpoint_id, found), last


async def send_again(call: Call[Any, Any], endpoint_id: str, event_id: str) -> dict[str, Any]:
    """Have a settled delivery sent again, behind what waits; the delivery as it was.

    Raises Problem (404, 409).
    """
    row = await call.services.reads.one(
        webhook_deliveries.BY_ID, call.tenant, endpoint_id, event_id
    )
    if row is None:
        not_found("No such delivery")
    if row["status"] == "waiting":
        raise Problem(409, "conflict", "The delivery waits already")
    await call.send(endpoint_id, RedriveWebhook(event_id))
    (item,) = await _items(call, endpoint_id, [row])
    return item


async def _items(call: Call[Any, Any], endpoint_id: str, rows: list[Any]) -> list[dict[str, Any]]:
    attempts: dict[str, list[AttemptItem]] = {row["event_id"]: [] for row in rows}
    for row in await call.services.reads.all(
        webhook_deliveries.ATTEMPTS_OF, call.tenant, endpoint_id, list(attempts), ATTEMPTS_SHOWN
    ):
        attempts[row["event_id"]].append(
            AttemptItem(
                number=row["number"],
                outcome=row["outcome"],
                attempted_at=iso(row["attempted_at"]),
                duration_ms=row["duration_ms"],
                status_code=row["status_code"],
                error=row["error"],
                response=row["response"],
            )
        )
    return [_item(row, attempts[row["event_id"]]) for row in rows]


def _item(row: Any, attempts: list[AttemptItem]) -> dict[str, Any]:
    retry_at = row["retry_at"]
    return {
        "event_id": row["event_id"],
        "event_type": row["event_type"],
        "status": row["status"],
        "reason": row["reason"],
        "attempt_count": row["attempts"],
        "requested_at": iso(row["requested_at"]),
        "updated_at": iso(row["updated_at"]),
        "next_attempt_at": iso_or_none(retry_at),
        "attempts": attempts,
        "body": Raw(row["body"].encode()),
    }
