"""A job as it goes on: `GET /api/v1/jobs/{job_id}/events`, server-sent events."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct
from starlette.responses import Response

from api.fhe.jobs import find_row
from api.live import TooManyListeners
from api.problems import FHE, Problem, not_found
from api.roles import COMPUTE_READERS
from api.routing import Call, Route, Who
from api.sse import EventStream, Frame
from api.subscription import BadPosition, LiveEvent, Subscription
from commands.fhe.job import STREAM
from schemas.fhe.job import JobCancelled, JobFailed, JobProgressed, JobSucceeded
from schemas.types import Text

# So long at most is an end missed that came between the look at the job and the subscription.
_LIFETIME_SECONDS = 60.0


class JobEventsQuery(Struct, frozen=True):
    """Where to go on: the `id` of the last event seen, for clients that can't set the header."""

    last_event_id: Annotated[Text, Meta(max_length=300)] = ""


class JobProgress(Struct, frozen=True):
    """Data of `progress`: so many gates of so many are computed."""

    job_id: str
    done: int
    total: int


class JobEnd(Struct, frozen=True):
    """Data of `end`, after which nothing comes."""

    job_id: str
    status: str


async def stream_job_events(call: Call[None, JobEventsQuery]) -> Any:
    """Follow a job to its end. `Last-Event-ID` resumes from the log, without loss or repeat."""
    job_id = call.path["job_id"]
    stream = f"{STREAM}/{job_id}"
    try:
        # Before the look at the job, so that it does not end unseen in between.
        subscription = await call.services.live.subscribe(
            call.tenant,
            wants=lambda event: event.type.startswith("fhe.job_") and _stream(event) == stream,
            after=call.raw.headers.get("last-event-id", "") or call.query.last_event_id or None,
            credential=call.principal.key_id or call.principal.session_id,
            holder=call.actor.id,
        )
    except BadPosition as error:
        raise Problem(
            400, "validation_error", str(error), field="Last-Event-ID", where="header"
        ) from None
    except TooManyListeners:
        message = "Too many event streams are open"
        raise Problem(429, "rate_limited", message, headers={"retry-after": "10"}) from None
    row = await find_row(call, job_id)
    if row is None or row["status"] != "queued":
        async with subscription:
            if row is None:
                not_found("No such job")
            return _ended(JobEnd(job_id, row["status"]))
    following = _Following(job_id, subscription)
    return EventStream(subscription, following.frame_of, lifetime=_LIFETIME_SECONDS)


def _stream(event: LiveEvent) -> str:
    return event.envelope.stream


def _ended(end: JobEnd) -> Response:
    data = b"event: end\ndata: %b\n\n" % msgspec.json.encode(end)
    headers = {"cache-control": "no-store"}
    return Response(data, media_type="text/event-stream", headers=headers)


class _Following:
    """Renders the events of one job, and ends the subscription with the job."""

    def __init__(self, job_id: str, subscription: Subscription) -> None:
        self._job_id, self._subscription = job_id, subscription

    def frame_of(self, item: LiveEvent) -> Frame | None:
        match item.event:
            case JobProgressed(done=done, total=total):
                return Frame("progress", JobProgress(self._job_id, done, total))
            case JobSucceeded():
                return self._end("succeeded")
            case JobFailed():
                return self._end("failed")
            case JobCancelled():
                return self._end("cancelled")
        return None

    def _end(self, status: str) -> Frame:
        self._subscription.end("the job has ended")
        return Frame("end", JobEnd(self._job_id, status))


ROUTES = [
    Route(
        "GET",
        "/api/v1/jobs/{job_id}/events",
        stream_job_events,
        dialect=FHE,
        who=Who.SESSION_OR_KEY,
        roles=COMPUTE_READERS,
        tags=("jobs",),
        summary="Follow a job",
        description=(
            "Server-sent events: `progress` with `done` and `total` gates, about once a second "
            "while a long job is computed, and `end` with the job's status. A stream lasts a "
            "minute at most; come back with `Last-Event-ID`."
        ),
        query=JobEventsQuery,
        refusals=(400, 404, 429),
        stream=True,
    ),
]
