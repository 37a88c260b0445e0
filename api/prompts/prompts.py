"""Prompts: `/api/v1/prompts`."""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw, Struct

from api.observability.bodies import JsonObject
from api.observability.pages import MAX_LIMIT, links
from api.problems import not_found
from api.prompts.bodies import (
    MAX_BODY,
    CreatePromptBody,
    PromptsQuery,
    RevisePromptBody,
    author_of,
    config_of,
    content_of,
    metadata_of,
    prompt_id_of,
)
from api.prompts.declaring import PROMPT, PROMPTS, read_route, write_route
from api.prompts.versions import VersionItem, version_item
from api.routing import Call, answer_of
from commands.prompts.prompt import CreatePrompt, DeletePrompt, RevisePrompt
from commands.prompts.prompt_state import PromptAnswered
from infra.clock import iso
from projections.prompts import prompt_versions, prompts
from projections.prompts.prompt_versions import preview_of

VERSIONS_SHOWN = 1_000


class PromptItem(Struct, kw_only=True):
    """A prompt in a list."""

    id: str
    name: str
    description: str
    prompt_type: str
    tags: list[str]
    latest_version: int
    version_count: int
    labels: list[str]
    created_at: str
    updated_at: str


class PromptHead(PromptItem, kw_only=True):
    """A prompt without its versions. `config` is the default of theirs."""

    metadata: JsonObject
    config: JsonObject
    created_by: str


class PromptDetail(PromptHead, kw_only=True):
    """A prompt with its versions, the newest first: all of them, but for those beyond a thousand,
    which `versions/` lists."""

    versions: list[VersionItem]


class PromptPage(Struct):
    results: list[PromptItem]
    count: int
    next: str | None
    previous: str | None


async def create_prompt(call: Call[CreatePromptBody, None]) -> PromptDetail:
    """Make a prompt with its first version."""
    body, content = call.body, content_of(call.body.content)
    config, author = config_of(body.config), author_of(call)
    message = body.commit_message or "Initial version"
    command = CreatePrompt(
        name=body.name,
        content=content.text,
        content_hash=content.hash,
        created_by=author,
        prompt_type=body.prompt_type or "text",
        description=body.description or "",
        tags=body.tags or [],
        metadata=metadata_of(body.metadata),
        config=config,
        commit_message=message,
    )
    # The id follows from the command's, so that a repeat of the request meets the prompt it made.
    reply = await call.send("prm_" + call.command_id.removeprefix("cmd_"), command)
    made = answer_of(reply, PromptAnswered)
    first = VersionItem(
        version=1,
        content_preview=preview_of(content.text),
        config=Raw(config.encode()),
        content_hash=content.hash,
        commit_message=message,
        created_by=author,
        labels=[],
        created_at=iso(made.created_at),
    )
    return PromptDetail(**_head(msgspec.to_builtins(made)), versions=[first])


async def list_prompts(call: Call[None, PromptsQuery]) -> PromptPage:
    """The prompts, newest first."""
    query, reads = call.query, call.services.reads
    limit = min(query.limit, MAX_LIMIT)
    selection = (call.tenant, msgspec.json.encode(query.tag).decode(), query.search)
    counted = await reads.one(prompts.COUNT, *selection)
    count = counted["count"] if counted else 0
    rows = await reads.all(prompts.PAGE, *selection, limit, query.offset)
    following, before = links(call, limit, query.offset, count)
    return PromptPage([PromptItem(**_item(row)) for row in rows], count, following, before)


async def get_prompt(call: Call[None, None]) -> PromptDetail:
    """One prompt with its versions."""
    prompt_id, reads = prompt_id_of(call), call.services.reads
    row = await reads.one(prompts.BY_ID, call.tenant, prompt_id)
    if row is None:
        not_found("There is no such prompt")
    versions = await reads.all(prompt_versions.PAGE, call.tenant, prompt_id, VERSIONS_SHOWN, 0)
    return PromptDetail(**_head(row), versions=[version_item(item) for item in versions])


async def revise_prompt(call: Call[RevisePromptBody, None]) -> PromptHead:
    """Change a prompt's name, description, tags or metadata; content is changed by a version."""
    body = call.body
    given = bytes(body.metadata) not in (b"", b"null")
    command = RevisePrompt(
        name=body.name,
        description=body.description,
        tags=body.tags,
        metadata=metadata_of(body.metadata) if given else None,
    )
    reply = await call.send(prompt_id_of(call), command)
    return PromptHead(**_head(msgspec.to_builtins(answer_of(reply, PromptAnswered))))


async def delete_prompt(call: Call[None, None]) -> None:
    """Delete a prompt with its versions, labels and their history."""
    await call.send(prompt_id_of(call), DeletePrompt())


def _item(row: Mapping[str, Any]) -> dict[str, Any]:
    kept = ("id", "name", "description", "prompt_type", "tags", "latest_version", "labels")
    return {
        **{name: row[name] for name in kept},
        "version_count": row["latest_version"],
        "created_at": iso(row["created_at"]),
        "updated_at": iso(row["updated_at"]),
    }


def _head(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **_item(row),
        "metadata": Raw(row["metadata"].encode()),
        "config": Raw(row["config"].encode()),
        "created_by": row["created_by"],
    }


ROUTES = [
    read_route(
        "GET",
        PROMPTS,
        list_prompts,
        summary="List prompts",
        query=PromptsQuery,
        response=PromptPage,
    ),
    write_route(
        "POST",
        PROMPTS,
        create_prompt,
        summary="Create a prompt",
        body=CreatePromptBody,
        response=PromptDetail,
        status=201,
        refusals=(409,),
        max_body=MAX_BODY,
    ),
    read_route("GET", PROMPT, get_prompt, summary="Get a prompt", response=PromptDetail),
    write_route(
        "PUT",
        PROMPT,
        revise_prompt,
        summary="Change what a prompt is called and said to be",
        body=RevisePromptBody,
        response=PromptHead,
        refusals=(409,),
    ),
    write_route("DELETE", PROMPT, delete_prompt, summary="Delete a prompt", status=204),
]
