"""What an exception that is no Problem means to the client."""

import logging

from api.live import TooManyListeners
from api.problems import Problem
from infra.clickhouse import AnalyticsUnavailable
from infra.ids import new_id
from infra.kafka import LogUnavailable
from infra.objects import ObjectsUnavailable
from infra.postgres import DatabaseUnavailable
from streams.bus import OutcomeUnknown

logger = logging.getLogger(__name__)

_RETRY_STREAM_SECONDS = 10


def problem_of(error: Exception, request_id: str, route: str) -> Problem:
    """The problem to tell.

    An unknown outcome, or a server behind us that does not answer, is a 503 that says when to try
    again. Anything else is a bug: a 500 with an incident id, under which the log has the traceback.
    """
    match error:
        case Problem():
            return error
        case OutcomeUnknown():
            return Problem(
                503,
                "outcome_unknown",
                "The outcome is not known yet: ask /commands/{id}, or send the request again with "
                "the same Idempotency-Key",
                details={"command_id": error.command_id},
                headers={"retry-after": str(error.retry_after)},
            )
        case LogUnavailable():
            return unavailable("log_unavailable", "The log", error.retry_after)
        case AnalyticsUnavailable():
            return unavailable("analytics_unavailable", "The analytics database", error.retry_after)
        case DatabaseUnavailable():
            return unavailable("database_unavailable", "The database", error.retry_after)
        case ObjectsUnavailable():
            return unavailable("storage_unavailable", "The object store", error.retry_after)
        case TooManyListeners():
            return unavailable("too_many_streams", "Another event stream", _RETRY_STREAM_SECONDS)
    incident = new_id("inc")
    fields = {"incident": incident, "request_id": request_id, "route": route}
    logger.error("request failed", exc_info=error, extra=fields)
    return Problem(
        500,
        "internal_error",
        "Something went wrong on our side; the incident is recorded",
        details={"incident_id": incident},
    )


def unavailable(code: str, what: str, retry_after: int) -> Problem:
    """The 503 of a server behind us."""
    return Problem(
        503,
        code,
        f"{what} cannot be reached; try again in {retry_after} s",
        headers={"retry-after": str(retry_after)},
    )
