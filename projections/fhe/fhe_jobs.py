"""`fhe_jobs`: one row for each job, from its submission to its end and after."""

from collections.abc import Sequence
from typing import Any

from projections.statements import Put, Set, Statement, View, json_text
from schemas.envelope import Envelope
from schemas.fhe.job import JobCancelled, JobFailed, JobSubmitted, JobSucceeded


def reduce(event: Any, envelope: Envelope) -> Sequence[Statement]:
    key = {"tenant": envelope.tenant, "job_id": envelope.stream_id}
    match event:
        case JobSubmitted():
            values = {
                "status": "queued",
                "key_id": event.key_id,
                "params_id": event.params_id,
                "operation": event.operation,
                "created_at": event.submitted_at,
                "created_by": envelope.actor.id,
                "deadline": event.deadline,
                "finished_at": None,
                "result": None,
                "error_bound": None,
                "cpu_us": None,
                "reason": "",
                "message": "",
                "price_nanodollars": event.price_nanodollars,
                "price_version": event.price_version,
            }
            return [Put(key, values)]
        case JobSucceeded():
            result = {
                "status": "succeeded",
                "finished_at": event.succeeded_at,
                "result": json_text(event.result),
                "error_bound": event.error_bound,
                "cpu_us": event.cpu_us,
            }
            return [Set(key, result)]
        case JobFailed():
            failure = {
                "status": "failed",
                "finished_at": event.failed_at,
                "reason": event.reason,
                "message": event.message,
            }
            return [Set(key, failure)]
        case JobCancelled():
            return [Set(key, {"status": "cancelled", "finished_at": event.cancelled_at})]
    return []


FHE_JOBS = View(
    name="fhe_jobs",
    version=2,
    events=(JobSubmitted, JobSucceeded, JobFailed, JobCancelled),
    columns={
        "tenant": "text",
        "job_id": "text",
        "status": "text",
        "key_id": "text",
        "params_id": "text",
        "operation": "text",
        "created_at": "bigint",
        "created_by": "text",
        "deadline": "bigint",
        "finished_at": "bigint",
        "result": "jsonb",
        "error_bound": "float8",
        "cpu_us": "bigint",
        "reason": "text",
        "message": "text",
        "price_nanodollars": "bigint",
        "price_version": "text",
    },
    key=("tenant", "job_id"),
    indexes=("(tenant, created_at, job_id)", "(tenant, key_id, created_at, job_id)"),
    reduce=reduce,
)

_SELECT = f"""
SELECT job_id, status, key_id, params_id, operation, created_at, deadline, finished_at, result,
       error_bound, cpu_us, reason, message, price_nanodollars, price_version
FROM {FHE_JOBS.table}
"""
# Parameters: tenant, job id.
BY_ID = f"{_SELECT} WHERE tenant = %s AND job_id = %s"
# Parameters: tenant, status or null, key id or null (each twice), then (created_at, job_id) of the
# last row seen, then the limit.
PAGE = f"""{_SELECT} WHERE tenant = %s
AND (%s::text IS NULL OR status = %s) AND (%s::text IS NULL OR key_id = %s)
AND (created_at, job_id) < (%s, %s)
ORDER BY created_at DESC, job_id DESC LIMIT %s"""
# Whether a job that needs a key has not ended. Parameters: tenant, key id.
QUEUED_OF_KEY = f"""
SELECT job_id FROM {FHE_JOBS.table} WHERE tenant = %s AND key_id = %s AND status = 'queued' LIMIT 1
"""
