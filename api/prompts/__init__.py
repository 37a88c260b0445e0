"""Routes of the prompts domain: for the web UI under `/api/v1/prompts`, for agents' code under
`/api/v1/observe/prompts`."""

from typing import Any

from api.problems import OBSERVE
from api.prompts import fetch, labels, metrics, playground, prompts, provider, versions
from api.prompts.bodies import (
    MAX_BODY,
    AddVersionBody,
    CreatePromptBody,
    MoveLabelBody,
    PageQuery,
    PromptsQuery,
    RevisePromptBody,
)
from api.roles import ADMINS, BUILDERS, READERS
from api.routing import Route, Who

_ID = "{prompt_id}/"
_LABEL = f"{_ID}labels/{{label}}/"


_PROVIDER = "playground/provider/"
_TRIED = (
    "Each `{{name}}` in the content needs a value in `variables`. Every call of a model is a run "
    "of the agent `playground`, priced as any other call. An `Idempotency-Key` keeps nothing: the "
    "same request again asks the model again."
)


def _row(method: str, path: str, handler: Any, summary: str, **more: Any) -> Route:
    return Route(
        method,
        f"/api/v1/prompts/{path}",
        handler,
        dialect=OBSERVE,
        who=Who.SESSION_OR_KEY,
        tags=("prompts",),
        summary=summary,
        **{"roles": READERS if method == "GET" else BUILDERS, **more},
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
    _row(
        "POST",
        "playground/",
        playground.run_prompt,
        "Try a prompt on a model",
        body=playground.PlaygroundBody,
        response=playground.PlaygroundAnswer,
        refusals=(502,),
        max_body=MAX_BODY,
        description=f"{_TRIED} A provider that fails, or gives no answer in two minutes, is a 502 "
        "with what it said.",
    ),
    _row(
        "POST",
        "playground/compare/",
        playground.compare_prompts,
        "Try several prompts side by side",
        body=playground.CompareBody,
        response=playground.Comparison,
        max_body=MAX_BODY,
        description=f"{_TRIED} The variants are tried at the same time. One that fails has an "
        "`error` in its result, and the others have theirs.",
    ),
    _row(
        "GET",
        _PROVIDER,
        provider.get_provider,
        "Get the provider that prompts are tried on",
        response=provider.ProviderRow,
        roles=ADMINS,
        refusals=(404,),
    ),
    _row(
        "PUT",
        _PROVIDER,
        provider.set_provider,
        "Set the provider that prompts are tried on",
        body=provider.ProviderBody,
        response=provider.ProviderRow,
        roles=ADMINS,
        max_body=16 * 1024,
        description="The key is kept encrypted and is never shown again.",
    ),
    _row(
        "DELETE",
        _PROVIDER,
        provider.remove_provider,
        "Remove the provider that prompts are tried on",
        status=204,
        roles=ADMINS,
        refusals=(404,),
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
