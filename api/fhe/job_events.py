"""A job as it goes on: `GET /api/v1/jobs/{job_id}/events`, server-sent events."""

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct
from starlette.responses import Response

from api.fhe.declaring import fhe_route
from api.fhe.jobs import find_row, row_at_end
from api.listening import listen
from api.problems import not_found
from api.roles import COMPUTE_READERS
from api.routing import Call
from api.sse import EventStream, Frame
from api.subscription import LiveEvent, Resync, Subscription
from api.views import position_of_views
from commands.fhe.job_state import STREAM
from schemas.avro_derivation import tag_of
from schemas.fhe.job import JobCancelled, JobFailed, JobProgressed, JobSucceeded
from schemas.types import Text

_ENDS = frozenset(tag_of(event) for event in (JobSucceeded, JobFailed, JobCancelled))
_TOLD = _ENDS | {tag_of(JobProgressed)}


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
    shown = await position_of_views(call)
    row = await find_row(call, job_id)
    if row is None:
        not_found("No such job")
    if row["status"] != "queued":
        return _ended(JobEnd(job_id, row["status"]))
    stream = f"{STREAM}/{job_id}"
    subscription = await listen(
        call,
        lambda event: event.type in _TOLD and event.envelope.stream == stream,
        after=shown,
    )

    async def settle(items: Sequence[LiveEvent | Resync]) -> None:
        # Whoever is told of the end asks for the result.
        if any(isinstance(item, LiveEvent) and item.type in _ENDS for item in items):
            await row_at_end(call, job_id)

    following = _Following(job_id, subscription)
    return EventStream(subscription, following.frame_of, settle=settle)


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
    fhe_route(
        "GET",
        "/api/v1/jobs/{job_id}/events",
        stream_job_events,
        roles=COMPUTE_READERS,
        tags=("jobs",),
        summary="Follow a job",
        description=(
            "Server-sent events: `progress` with `done` and `total` gates, about once a second "
            "while a long job is computed, and `end` with the job's status, when its result can be "
            "asked for."
        ),
        query=JobEventsQuery,
        refusals=(400, 404, 429),
        stream=True,
    ),
]
