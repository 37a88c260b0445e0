"""The versions of a prompt: `/api/v1/prompts/{prompt_id}/versions`."""

import re
from collections.abc import Mapping
from typing import Any

from msgspec import Raw, Struct

from api.observability.bodies import JsonObject
from api.observability.pages import MAX_LIMIT, links
from api.problems import not_found
from api.prompts.bodies import (
    MAX_BODY,
    AddVersionBody,
    AnyJson,
    PageQuery,
    author_of,
    config_of,
    content_of,
    prompt_id_of,
)
from api.prompts.declaring import PROMPT, read_route, write_route
from api.routing import Call, answer_of
from commands.prompts.prompt import AddPromptVersion, VersionAnswered
from infra.clock import iso
from projections.prompts import prompt_versions, prompts


class VersionItem(Struct, kw_only=True):
    """A version in a list, with the start of its content."""

    version: int
    content_preview: str
    config: JsonObject
    content_hash: str
    commit_message: str
    created_by: str
    labels: list[str]
    created_at: str


class VersionPage(Struct):
    results: list[VersionItem]
    count: int
    next: str | None
    previous: str | None


class AddedVersion(Struct):
    version: int
    content_hash: str
    commit_message: str
    created_by: str
    created_at: str


class VersionDetail(Struct, kw_only=True):
    """A version with its content."""

    prompt_id: str
    prompt_name: str
    prompt_type: str
    version: int
    content: AnyJson
    config: JsonObject
    content_hash: str
    commit_message: str
    created_by: str
    labels: list[str]
    created_at: str


async def add_version(call: Call[AddVersionBody, None]) -> AddedVersion:
    """Make the next version."""
    body, content = call.body, content_of(call.body.content)
    command = AddPromptVersion(
        content=content.text,
        content_hash=content.hash,
        created_by=author_of(call),
        config=config_of(body.config),
        commit_message=body.commit_message or "",
    )
    reply = await call.send(prompt_id_of(call), command)
    made = answer_of(reply, VersionAnswered)
    return AddedVersion(
        made.version,
        made.content_hash,
        made.commit_message,
        made.created_by,
        iso(made.created_at),
    )


async def list_versions(call: Call[None, PageQuery]) -> VersionPage:
    """The versions of a prompt, newest first."""
    prompt_id, reads = prompt_id_of(call), call.services.reads
    limit, offset = min(call.query.limit, MAX_LIMIT), call.query.offset
    head = await reads.one(prompts.HEAD_OF, call.tenant, prompt_id)
    if head is None:
        not_found("There is no such prompt")
    rows = await reads.all(prompt_versions.PAGE, call.tenant, prompt_id, limit, offset)
    count = head["latest_version"]
    following, before = links(call, limit, offset, count)
    return VersionPage([version_item(row) for row in rows], count, following, before)


async def get_version(call: Call[None, None]) -> VersionDetail:
    """One version, with its content."""
    prompt_id, number = prompt_id_of(call), call.path["version_num"]
    if not re.fullmatch(r"[0-9]{1,9}", number):
        not_found("The prompt has no such version")
    row = await call.services.reads.one(prompt_versions.ONE, call.tenant, prompt_id, int(number))
    if row is None:
        not_found("The prompt has no such version")
    return VersionDetail(
        prompt_id=prompt_id,
        prompt_name=row["name"],
        prompt_type=row["prompt_type"],
        content=Raw(row["content"].encode()),
        **_fields(row),
    )


def version_item(row: Mapping[str, Any]) -> VersionItem:
    """A row of the list."""
    return VersionItem(content_preview=row["content_preview"], **_fields(row))


def _fields(row: Mapping[str, Any]) -> dict[str, Any]:
    kept = ("version", "content_hash", "commit_message", "created_by", "labels")
    return {
        **{name: row[name] for name in kept},
        "config": Raw(row["config"].encode()),
        "created_at": iso(row["created_at"]),
    }


ROUTES = [
    read_route(
        "GET",
        f"{PROMPT}versions/",
        list_versions,
        summary="List a prompt's versions",
        query=PageQuery,
        response=VersionPage,
    ),
    write_route(
        "POST",
        f"{PROMPT}versions/",
        add_version,
        summary="Add a version",
        body=AddVersionBody,
        response=AddedVersion,
        status=201,
        max_body=MAX_BODY,
    ),
    read_route(
        "GET",
        f"{PROMPT}versions/{{version_num}}/",
        get_version,
        summary="Get a version",
        response=VersionDetail,
    ),
]
