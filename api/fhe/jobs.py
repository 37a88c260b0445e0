"""Jobs: `/api/v1/jobs`, what became of a computation and where its result is."""

import asyncio
import base64
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from api.cursors import newest_page
from api.fhe.declaring import fhe_route
from api.fhe.storage import answered
from api.problems import Problem, not_found
from api.roles import COMPUTE_READERS, COMPUTERS
from api.routing import Call
from commands.fhe.job_state import CancelJob
from commands.fhe.precision import precision_bits
from infra.objects import ObjectMissing
from projections.fhe import fhe_jobs
from schemas.fhe.parameters import CIPHERTEXT_BYTES_MAX
from schemas.instants import iso, iso_or_none
from schemas.types import Text

JOB_PREFIX, HANDLE_PREFIX = "job_", "ct_"

Status = Literal["queued", "succeeded", "failed", "cancelled"]

# An event is on the log some milliseconds before its row is in the read model.
_ROW_PAUSE_SECONDS, _ROW_TRIES = 0.005, 200

# Statuses of failures that are our fault, or that the decider also refuses with; else it is 400.
_STATUS_OF_REASON = {
    "engine_failure": 500,
    "internal_error": 500,
    "input_missing": 500,
    "input_corrupt": 500,
    "deadline_exceeded": 503,
    "engine_unavailable": 503,
    "level_exhausted": 422,
    "value_overflow": 422,
}


class JobsQuery(Struct):
    """Which jobs, and which page of them."""

    limit: Annotated[int, Meta(ge=1, le=100)] = 20
    cursor: Annotated[Text, Meta(max_length=200)] = ""
    status: Status | None = None
    key_id: Annotated[Text, Meta(max_length=64)] | None = None


class ResultItem(Struct, frozen=True):
    """The resulting ciphertext. `ciphertext` is base64, given for one job, not in lists.

    handle: names it in later computations; the same work always has the same. count: ciphertexts in
    it, one after another, each of size_bytes / count. magnitude: no value is larger, and
    error_bound: none is further from the exact one, provided that no value in the ciphertexts it
    began with was larger than stated. precision_bits: so many bits behind the binary point can be
    relied on; null when the result is exact.
    """

    handle: str
    level: int
    scale: float
    count: int
    size_bytes: int
    sha256: str
    error_bound: float
    magnitude: float
    precision_bits: int | None
    ciphertext: str | None = None


class FailureItem(Struct, frozen=True):
    """Why a job has no result."""

    code: str
    message: str


class JobPrice(Struct, frozen=True):
    """What a job costs if it succeeds, in nanodollars, and by which price list."""

    nanodollars: int
    version: str


class JobItem(Struct, frozen=True):
    """A job. `result` when it has succeeded, `error` when it has failed.

    cached: the answer to a request for work whose result was there already.
    """

    job_id: str
    status: Status
    operation: str
    key_id: str
    params_id: str
    created_at: str
    finished_at: str | None
    cpu_ms: float | None
    price: JobPrice
    result: ResultItem | None
    error: FailureItem | None
    cached: bool = False


class JobPage(Struct, frozen=True):
    """A page of jobs, newest first, and where the next one begins."""

    data: list[JobItem]
    next_cursor: str | None
    has_more: bool


async def list_jobs(call: Call[None, JobsQuery]) -> JobPage:
    """The tenant's jobs, newest first."""
    status, key_id = call.query.status, call.query.key_id
    filters = status, status, key_id, key_id
    rows, cursor = await newest_page(call, fhe_jobs.PAGE, "job_id", *filters)
    return JobPage([item_of(row) for row in rows], cursor, cursor is not None)


async def get_job(call: Call[None, None]) -> JobItem:
    """One job, with its ciphertext when it has succeeded."""
    return await whole_item(call, await _row(call))


async def cancel_job(call: Call[None, None]) -> JobItem:
    """Stop a job that has not ended; a cancelled one stays so."""
    job_id = (await _row(call))["job_id"]
    await call.send(job_id, CancelJob())
    return item_of(await _row(call))


async def find_row(call: Call[Any, Any], job_id: str) -> dict[str, Any] | None:
    """The row of one of the tenant's jobs."""
    return await call.services.reads.one(fhe_jobs.BY_ID, call.tenant, job_id)


async def row_at_end(call: Call[Any, Any], job_id: str) -> dict[str, Any]:
    """The row of a job of which an end is on the log, as soon as it shows it."""
    row: dict[str, Any] | None = None
    for _ in range(_ROW_TRIES):
        row = await find_row(call, job_id)
        if row is not None and row["status"] != "queued":
            break
        await asyncio.sleep(_ROW_PAUSE_SECONDS)
    # The decider answers a submission when the row is there: a missing one is a bug, not a 404.
    assert row is not None, f"no row of {job_id}"
    return row


def item_of(row: dict[str, Any], ciphertext: str | None = None) -> JobItem:
    """A job as lists show it, or with the bytes of its result."""
    stored = row["result"]
    result = error = None
    if stored is not None:
        result = ResultItem(
            handle=HANDLE_PREFIX + row["job_id"].removeprefix(JOB_PREFIX),
            level=stored["level"],
            scale=stored["scale"],
            count=stored.get("count", 1),
            size_bytes=stored["size_bytes"],
            sha256=stored["sha256"],
            error_bound=row["error_bound"],
            magnitude=stored.get("magnitude", 1.0),
            precision_bits=precision_bits(row["error_bound"]),
            ciphertext=ciphertext,
        )
    if row["status"] == "failed":
        error = FailureItem(row["reason"], row["message"])
    return JobItem(
        job_id=row["job_id"],
        status=row["status"],
        operation=row["operation"],
        key_id=row["key_id"],
        params_id=row["params_id"],
        created_at=iso(row["created_at"]),
        finished_at=iso_or_none(row["finished_at"]),
        cpu_ms=None if row["cpu_us"] is None else row["cpu_us"] / 1000,
        price=JobPrice(row["price_nanodollars"], row["price_version"]),
        result=result,
        error=error,
    )


async def whole_item(call: Call[Any, Any], row: dict[str, Any]) -> JobItem:
    """A job with the bytes of its result, as far as the store still has them."""
    stored = row["result"]
    if stored is None or stored["size_bytes"] > CIPHERTEXT_BYTES_MAX:
        return item_of(row)
    reading = call.services.objects.get(
        stored["object"], size=stored["size_bytes"], digest=stored["sha256"]
    )
    try:
        data = await answered(reading)
    except ObjectMissing:
        return item_of(row)
    return item_of(row, base64.b64encode(data).decode())


def problem_of_failure(row: dict[str, Any]) -> Problem:
    """What a failed job means to the client that waited for it."""
    reason = row["reason"]
    status = _STATUS_OF_REASON.get(reason, 400)
    # An engine that is not built will not be there in a moment.
    headers = {"retry-after": "5"} if reason == "deadline_exceeded" else None
    details = {"job_id": row["job_id"]}
    return Problem(status, reason, row["message"], details=details, headers=headers)


async def _row(call: Call[Any, Any]) -> dict[str, Any]:
    row = await find_row(call, call.path["job_id"])
    if row is None:
        not_found("No such job")
    return row


ROUTES = [
    fhe_route(
        "GET",
        "/api/v1/jobs",
        list_jobs,
        roles=COMPUTE_READERS,
        tags=("jobs",),
        summary="List jobs",
        query=JobsQuery,
        response=JobPage,
        refusals=(400,),
    ),
    fhe_route(
        "GET",
        "/api/v1/jobs/{job_id}",
        get_job,
        roles=COMPUTE_READERS,
        tags=("jobs",),
        summary="Show a job and its result",
        response=JobItem,
    ),
    fhe_route(
        "DELETE",
        "/api/v1/jobs/{job_id}",
        cancel_job,
        roles=COMPUTERS,
        tags=("jobs",),
        summary="Cancel a job",
        response=JobItem,
        refusals=(409,),
    ),
]
