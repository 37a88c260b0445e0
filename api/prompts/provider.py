"""The server on which a tenant tries its prompts: `/api/v1/prompts/playground/provider`.

Its key is sealed here before it goes anywhere, for the tenant and for the address: put beside
another address, it does not open.
"""

from collections.abc import Mapping
from typing import Annotated, Any

import httpx
import msgspec
from msgspec import Meta, Struct

from api.problems import Problem, not_found
from api.prompts.bodies import author_of
from api.prompts.declaring import PROMPTS, admin_route
from api.routing import Call, answer_of
from commands.prompts.playground import (
    ProviderAnswered,
    RemovePlaygroundProvider,
    SetPlaygroundProvider,
)
from infra.clock import iso
from infra.completions import Provider
from infra.ids import SealBroken
from projections.prompts.playground_providers import OF_TENANT
from schemas.prompts.playground import STREAM_ID

_PURPOSE = "prompts.playground"
_HINT_CHARACTERS = 4
_HINTED_KEY_CHARACTERS = 16  # of a shorter key, four characters would tell too much

BaseUrl = Annotated[
    str,
    Meta(
        max_length=1_000,
        pattern=r"^https?://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?(/[!-~]*)?$(?!\n)",
        description="What comes before `/chat/completions`, such as https://api.openai.com/v1",
    ),
]
ApiKey = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=1_000,
        pattern=r"^[!-~]+$(?!\n)",
        description="Never shown again. A server that wants none takes any.",
    ),
]


class ProviderBody(Struct):
    """A server that speaks OpenAI's protocol, and its key. Both are given each time."""

    base_url: BaseUrl
    api_key: ApiKey


class ProviderRow(Struct):
    """`key_hint`: the last characters of the key, nothing where it is a short one."""

    base_url: str
    key_hint: str
    set_by: str
    set_at: str


async def set_provider(call: Call[ProviderBody, None]) -> ProviderRow:
    base_url, key = _checked(call.body.base_url), call.body.api_key
    command = SetPlaygroundProvider(
        base_url=base_url,
        sealed_key=call.services.signer.seal(key, *_context(call, base_url)),
        key_hint=key[-_HINT_CHARACTERS:] if len(key) >= _HINTED_KEY_CHARACTERS else "",
        set_by=author_of(call),
    )
    answer = answer_of(await call.send(STREAM_ID, command), ProviderAnswered)
    return _row(msgspec.structs.asdict(answer))


async def get_provider(call: Call[None, None]) -> ProviderRow:
    found = await call.services.reads.one(OF_TENANT, call.tenant)
    if found is None:
        not_found("No provider is set")
    return _row(found)


async def remove_provider(call: Call[None, None]) -> None:
    await call.send(STREAM_ID, RemovePlaygroundProvider(author_of(call)))


async def provider_of(call: Call[Any, Any]) -> Provider:
    """The caller's provider with its key. Raises Problem (400) when there is none to be used."""
    found = await call.services.reads.one(OF_TENANT, call.tenant)
    if found is None:
        raise Problem(
            400,
            "provider_missing",
            "No provider is set: an admin sets one by PUT /api/v1/prompts/playground/provider/",
        )
    context = _context(call, found["base_url"])
    try:
        return Provider(
            found["base_url"], call.services.signer.unseal(found["sealed_key"], *context)
        )
    except SealBroken:
        raise Problem(
            400,
            "provider_unreadable",
            "The provider's key was sealed under another WEIR_SECRET_KEY: set the provider again",
        ) from None


def _context(call: Call[Any, Any], base_url: str) -> tuple[str, str, str]:
    return _PURPOSE, call.tenant, base_url


def _checked(base_url: str) -> str:
    """A base URL that a client can use. Raises Problem."""
    try:
        port = httpx.URL(base_url).port
    except httpx.InvalidURL as error:
        raise Problem(400, "validation_error", str(error), field="base_url") from None
    if port is not None and not 0 < port < 65536:
        raise Problem(400, "validation_error", "No such port", field="base_url")
    if "?" in base_url or "#" in base_url:
        message = "It has neither a query nor a fragment"
        raise Problem(400, "validation_error", message, field="base_url")
    return base_url


def _row(found: Mapping[str, Any]) -> ProviderRow:
    return ProviderRow(found["base_url"], found["key_hint"], found["set_by"], iso(found["set_at"]))


_PROVIDER = f"{PROMPTS}playground/provider/"

ROUTES = [
    admin_route(
        "GET",
        _PROVIDER,
        get_provider,
        summary="Get the provider that prompts are tried on",
        response=ProviderRow,
        refusals=(404,),
    ),
    admin_route(
        "PUT",
        _PROVIDER,
        set_provider,
        summary="Set the provider that prompts are tried on",
        body=ProviderBody,
        response=ProviderRow,
        max_body=16 * 1024,
        description="The key is kept encrypted and is never shown again.",
    ),
    admin_route(
        "DELETE",
        _PROVIDER,
        remove_provider,
        summary="Remove the provider that prompts are tried on",
        status=204,
        refusals=(404,),
    ),
]
