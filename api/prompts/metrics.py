"""How much each version of a prompt was used: the LLM calls that reported its content's hash."""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from api.observability.latest_costs import costs_now
from api.observability.llm_calls import dollars
from api.problems import not_found
from api.prompts.bodies import prompt_id_of
from api.prompts.declaring import PROMPT, read_route
from api.routing import Call
from projections.prompts import prompt_versions, prompts
from projections.prompts.prompt_calls import per_hash

_HASHES_AT_ONCE = 1_000


class Usage(Struct, kw_only=True):
    call_count: int
    total_tokens: int
    total_cost: float


class VersionUsage(Usage, kw_only=True):
    """The calls made with the content: versions with the same content share them."""

    version: int
    content_hash: str


class PromptMetrics(Struct):
    """`totals` counts every call once, also one that versions share."""

    prompt_id: str
    prompt_name: str
    totals: Usage
    versions: list[VersionUsage]


async def prompt_metrics(call: Call[None, None]) -> PromptMetrics:
    prompt_id, reads = prompt_id_of(call), call.services.reads
    head = await reads.one(prompts.HEAD_OF, call.tenant, prompt_id)
    if head is None:
        not_found("There is no such prompt")
    versions = await reads.all(prompt_versions.HASHES, call.tenant, prompt_id)
    latest = await costs_now(call)
    found: dict[str, Mapping[str, Any]] = {}
    hashes = sorted({row["content_hash"] for row in versions})
    for start in range(0, len(hashes), _HASHES_AT_ONCE):
        some = hashes[start : start + _HASHES_AT_ONCE]
        rows = await call.services.analytics.query(*per_hash(call.tenant, some, latest))
        found |= {row["prompt_hash"]: row for row in rows}
    return PromptMetrics(
        prompt_id,
        head["name"],
        Usage(**_usage(*found.values())),
        [
            VersionUsage(
                version=row["version"],
                content_hash=row["content_hash"],
                **_usage(*filter(None, [found.get(row["content_hash"])])),
            )
            for row in versions
        ],
    )


def _usage(*rows: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "call_count": sum(row["calls"] for row in rows),
        "total_tokens": sum(int(row["tokens"]) for row in rows),
        "total_cost": dollars(sum(int(row["total_pico"]) for row in rows)),
    }


ROUTES = [
    read_route(
        "GET",
        f"{PROMPT}metrics/",
        prompt_metrics,
        summary="Get how much each version was used",
        response=PromptMetrics,
        analytics=True,
    ),
]
