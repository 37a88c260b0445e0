"""How a route that streams begins to listen to the log."""

from typing import Any

from api.live import TooManyListeners
from api.problems import Problem
from api.routing import Call
from api.subscription import BadPosition, Subscription, Wants


async def listen(
    call: Call[Any, Any], wants: Wants, *, topic: str = "events", after: str | None = None
) -> Subscription:
    """Listen for the caller from behind the `Last-Event-ID` that it sent, as a header or in the
    query's `last_event_id`; without one from behind `after`, and from now on without that.

    Raises Problem: 400 for a position that is not the log's, 429 for too many open streams.
    """
    seen = call.raw.headers.get("last-event-id", "") or call.query.last_event_id
    live, principal = call.services.live, call.principal
    try:
        subscription: Subscription = await live.subscribe(
            call.tenant,
            topic=topic,
            wants=wants,
            after=seen or after,
            credential=principal.key_id or principal.session_id,
            holder=call.actor.id,
        )
    except BadPosition as error:
        raise Problem(
            400, "validation_error", str(error), field="Last-Event-ID", where="header"
        ) from None
    except TooManyListeners:
        message = "Too many event streams are open"
        raise Problem(429, "rate_limited", message, headers={"retry-after": "10"}) from None
    return subscription
