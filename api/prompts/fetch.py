"""A prompt as an agent's code fetches it, by name: one query, so that name, label and content are
of one moment."""

from typing import Annotated

from msgspec import Meta, Raw, Struct

from api.observability.bodies import JsonObject
from api.observability.pages import instant
from api.problems import OBSERVE, not_found
from api.prompts.bodies import AnyJson, Instant, VersionNumber
from api.roles import READERS
from api.routing import Call, Route, Who
from projections.prompts import prompt_versions as versions
from projections.prompts import prompts


class FetchQuery(Struct):
    """Which version: the one numbered so, else the one that the label points at, else the latest;
    `as_of` tells label and latest as they were at that instant."""

    label: Annotated[str, Meta(max_length=200)] = ""
    version: VersionNumber | None = None
    as_of: Instant = ""


class FetchedPrompt(Struct, kw_only=True):
    """`content_hash` is what a call made with this content reports as its `prompt_hash`."""

    name: str
    version: int
    prompt_type: str
    content: AnyJson
    config: JsonObject
    labels: list[str]
    content_hash: str


async def fetch_prompt(call: Call[None, FetchQuery]) -> FetchedPrompt:
    name = call.path["name"]
    sql, parameters, missing = _which(call.query)
    reads = call.services.reads
    row = await reads.one(sql, *parameters, call.tenant, name)
    if row is None:
        known = await reads.one(prompts.ID_OF, call.tenant, name)
        not_found(missing if known else "There is no such prompt")
    return FetchedPrompt(
        name=row["name"],
        version=row["version"],
        prompt_type=row["prompt_type"],
        content=Raw(row["content"].encode()),
        config=Raw(row["config"].encode()),
        labels=row["labels"],
        content_hash=row["content_hash"],
    )


def _which(query: FetchQuery) -> tuple[str, list[str | int], str]:
    """The SQL, its first parameters, and what to say when there is no such version."""
    until = instant(query.as_of, "as_of")
    if query.version is not None:
        return versions.FETCH_VERSION, [query.version], "The prompt has no such version"
    if query.label:
        missing = "The prompt has no such label"
        if until is None:
            return versions.FETCH_LABEL, [query.label], missing
        return versions.FETCH_LABEL_UNTIL, [until, query.label, until], missing
    if until is None:
        return versions.FETCH_LATEST, [], "The prompt has no version"
    return versions.FETCH_LATEST_UNTIL, [until, until], "The prompt had no version then"


ROUTES = [
    Route(
        "GET",
        "/api/v1/observe/prompts/{name}/",
        fetch_prompt,
        dialect=OBSERVE,
        who=Who.API_KEY,
        roles=READERS,
        query=FetchQuery,
        response=FetchedPrompt,
        tags=("prompts",),
        summary="Fetch a prompt",
    ),
]
