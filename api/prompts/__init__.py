"""Routes of the prompts domain: for the web UI under `/api/v1/prompts`, for agents' code under
`/api/v1/observe/prompts`."""

from functools import partial

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

_PROMPTS = "/api/v1/prompts/"
_ID = f"{_PROMPTS}{{prompt_id}}/"
_LABEL = f"{_ID}labels/{{label}}/"
_PROVIDER = f"{_PROMPTS}playground/provider/"
_TRIED = (
    "Each `{{name}}` in the content needs a value in `variables`. Every call of a model is a run "
    "of the agent `playground`, priced as any other call. An `Idempotency-Key` keeps nothing: the "
    "same request again asks the model again."
)

_route = partial(Route, dialect=OBSERVE, who=Who.SESSION_OR_KEY, tags=("prompts",))
_read, _write = partial(_route, roles=READERS), partial(_route, roles=BUILDERS)
_administer = partial(_route, roles=ADMINS)

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
    _read(
        "GET",
        _PROMPTS,
        prompts.list_prompts,
        summary="List prompts",
        query=PromptsQuery,
        response=prompts.PromptPage,
    ),
    _write(
        "POST",
        _PROMPTS,
        prompts.create_prompt,
        summary="Create a prompt",
        body=CreatePromptBody,
        response=prompts.PromptDetail,
        status=201,
        refusals=(409,),
        max_body=MAX_BODY,
    ),
    _write(
        "POST",
        f"{_PROMPTS}playground/",
        playground.run_prompt,
        summary="Try a prompt on a model",
        body=playground.PlaygroundBody,
        response=playground.PlaygroundAnswer,
        refusals=(502,),
        max_body=MAX_BODY,
        description=f"{_TRIED} A provider that fails, or gives no answer in two minutes, is a 502 "
        "with what it said.",
    ),
    _write(
        "POST",
        f"{_PROMPTS}playground/compare/",
        playground.compare_prompts,
        summary="Try several prompts side by side",
        body=playground.CompareBody,
        response=playground.Comparison,
        max_body=MAX_BODY,
        description=f"{_TRIED} The variants are tried at the same time. One that fails has an "
        "`error` in its result, and the others have theirs.",
    ),
    _administer(
        "GET",
        _PROVIDER,
        provider.get_provider,
        summary="Get the provider that prompts are tried on",
        response=provider.ProviderRow,
        refusals=(404,),
    ),
    _administer(
        "PUT",
        _PROVIDER,
        provider.set_provider,
        summary="Set the provider that prompts are tried on",
        body=provider.ProviderBody,
        response=provider.ProviderRow,
        max_body=16 * 1024,
        description="The key is kept encrypted and is never shown again.",
    ),
    _administer(
        "DELETE",
        _PROVIDER,
        provider.remove_provider,
        summary="Remove the provider that prompts are tried on",
        status=204,
        refusals=(404,),
    ),
    _read("GET", _ID, prompts.get_prompt, summary="Get a prompt", response=prompts.PromptDetail),
    _write(
        "PUT",
        _ID,
        prompts.revise_prompt,
        summary="Change what a prompt is called and said to be",
        body=RevisePromptBody,
        response=prompts.PromptHead,
        refusals=(409,),
    ),
    _write("DELETE", _ID, prompts.delete_prompt, summary="Delete a prompt", status=204),
    _read(
        "GET",
        f"{_ID}versions/",
        versions.list_versions,
        summary="List a prompt's versions",
        query=PageQuery,
        response=versions.VersionPage,
    ),
    _write(
        "POST",
        f"{_ID}versions/",
        versions.add_version,
        summary="Add a version",
        body=AddVersionBody,
        response=versions.AddedVersion,
        status=201,
        max_body=MAX_BODY,
    ),
    _read(
        "GET",
        f"{_ID}versions/{{version_num}}/",
        versions.get_version,
        summary="Get a version",
        response=versions.VersionDetail,
    ),
    _read(
        "GET",
        _LABEL,
        labels.get_label,
        summary="Get where a label points",
        query=labels.LabelQuery,
        response=labels.LabelStanding,
    ),
    _write(
        "PUT",
        _LABEL,
        labels.move_label,
        summary="Point a label at a version",
        body=MoveLabelBody,
        response=labels.MovedLabel,
    ),
    _write("DELETE", _LABEL, labels.remove_label, summary="Remove a label", status=204),
    _read(
        "GET",
        f"{_LABEL}history/",
        labels.label_history,
        summary="List the moves of a label",
        query=PageQuery,
        response=labels.LabelHistory,
    ),
    _read(
        "GET",
        f"{_ID}metrics/",
        metrics.prompt_metrics,
        summary="Get how much each version was used",
        response=metrics.PromptMetrics,
        analytics=True,
    ),
]
