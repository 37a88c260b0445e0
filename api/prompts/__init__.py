"""Routes of the prompts domain: for the web UI under `/api/v1/prompts`, for agents' code under
`/api/v1/observe/prompts`."""

from typing import Any

from api.problems import OBSERVE
from api.prompts import fetch, labels, metrics, prompts, versions
from api.prompts.bodies import (
    MAX_BODY,
    AddVersionBody,
    CreatePromptBody,
    MoveLabelBody,
    PageQuery,
    PromptsQuery,
    RevisePromptBody,
)
from api.roles import BUILDERS, READERS
from api.routing import Route, Who

_ID = "{prompt_id}/"
_LABEL = f"{_ID}labels/{{label}}/"


def _row(method: str, path: str, handler: Any, summary: str, **more: Any) -> Route:
    return Route(
        method,
        f"/api/v1/prompts/{path}",
        handler,
        dialect=OBSERVE,
        who=Who.SESSION_OR_KEY,
        roles=READERS if method == "GET" else BUILDERS,
        tags=("prompts",),
        summary=summary,
        **more,
    )


ROUTES = [
    Route(
        "GET",
        "/api/v1/observe/prompts/{name}/",
        fetch.fetch_prompt,
        dialect=OBSERVE,
        who=Who.API_KEY,
        roles=READERS,
        query=fetch.FetchQuery,
        response=fetch.FetchedPrompt,
        tags=("prompts",),
        summary="Fetch a prompt",
    ),
    _row(
        "GET",
        "",
        prompts.list_prompts,
        "List prompts",
        query=PromptsQuery,
        response=prompts.PromptPage,
    ),
    _row(
        "POST",
        "",
        prompts.create_prompt,
        "Create a prompt",
        body=CreatePromptBody,
        response=prompts.PromptDetail,
        status=201,
        refusals=(409,),
        max_body=MAX_BODY,
    ),
    _row("GET", _ID, prompts.get_prompt, "Get a prompt", response=prompts.PromptDetail),
    _row(
        "PUT",
        _ID,
        prompts.revise_prompt,
        "Change what a prompt is called and said to be",
        body=RevisePromptBody,
        response=prompts.PromptHead,
        refusals=(409,),
    ),
    _row("DELETE", _ID, prompts.delete_prompt, "Delete a prompt", status=204),
    _row(
        "GET",
        f"{_ID}versions/",
        versions.list_versions,
        "List a prompt's versions",
        query=PageQuery,
        response=versions.VersionPage,
    ),
    _row(
        "POST",
        f"{_ID}versions/",
        versions.add_version,
        "Add a version",
        body=AddVersionBody,
        response=versions.AddedVersion,
        status=201,
        max_body=MAX_BODY,
    ),
    _row(
        "GET",
        f"{_ID}versions/{{version_num}}/",
        versions.get_version,
        "Get a version",
        response=versions.VersionDetail,
    ),
    _row(
        "GET",
        _LABEL,
        labels.get_label,
        "Get where a label points",
        query=labels.LabelQuery,
        response=labels.LabelStanding,
    ),
    _row(
        "PUT",
        _LABEL,
        labels.move_label,
        "Point a label at a version",
        body=MoveLabelBody,
        response=labels.MovedLabel,
    ),
    _row("DELETE", _LABEL, labels.remove_label, "Remove a label", status=204),
    _row(
        "GET",
        f"{_LABEL}history/",
        labels.label_history,
        "List the moves of a label",
        query=PageQuery,
        response=labels.LabelHistory,
    ),
    _row(
        "GET",
        f"{_ID}metrics/",
        metrics.prompt_metrics,
        "Get how much each version was used",
        response=metrics.PromptMetrics,
        analytics=True,
    ),
]
