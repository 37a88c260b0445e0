"""What clients send of prompts, and its bounds: a command has to fit one record of the log."""

import re
from typing import Annotated, Any

from msgspec import Meta, Raw, Struct, field

from api.observability.bodies import JsonObject, object_text
from api.observability.pages import MAX_LIMIT, Limit, Offset
from api.problems import Problem, not_found
from api.routing import Call
from commands.prompts.content import Content, read_content
from schemas.prompts.prompt import PromptType
from schemas.types import Text

CONTENT_BYTES_MAX = 768 * 1024
METADATA_BYTES_MAX = 32 * 1024
CONFIG_BYTES_MAX = 16 * 1024
# Three times the content: escaped text is up to thrice as long as the same in UTF-8.
MAX_BODY = 3 * 1024 * 1024

NAME_PATTERN = r"^[^\x00-\x20\x7f]([^\x00-\x1f\x7f]*[^\x00-\x20\x7f])?$(?!\n)"
LABEL_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"

Name = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=200,
        pattern=NAME_PATTERN,
        description="No control characters, no space at either end",
    ),
]
Description = Annotated[Text, Meta(max_length=10_000)]
Tag = Annotated[Text, Meta(min_length=1, max_length=100)]
Tags = Annotated[list[Tag], Meta(max_length=50)]
CommitMessage = Annotated[Text, Meta(max_length=2_000)]
AnyJson = Annotated[Raw, Meta(description="Any JSON value but null")]
VersionNumber = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Instant = Annotated[Text, Meta(max_length=40, description="ISO 8601, UTC unless it says another")]


class CreatePromptBody(Struct):
    """A new prompt and its first version."""

    name: Name
    content: AnyJson
    description: Description | None = ""
    prompt_type: PromptType | None = "text"
    config: JsonObject = field(default_factory=Raw)
    tags: Tags | None = []
    metadata: JsonObject = field(default_factory=Raw)
    commit_message: CommitMessage | None = "Initial version"


class RevisePromptBody(Struct):
    """What to change; a field that is left out, or null, stays as it is."""

    name: Name | None = None
    description: Description | None = None
    tags: Tags | None = None
    metadata: JsonObject = field(default_factory=Raw)


class AddVersionBody(Struct):
    """A new version. `config` overrides members of the prompt's own."""

    content: AnyJson
    config: JsonObject = field(default_factory=Raw)
    commit_message: CommitMessage | None = ""


class MoveLabelBody(Struct):
    """The version to point at."""

    version: VersionNumber


class PromptsQuery(Struct):
    """`search` looks into names and descriptions; a prompt must have every `tag` given."""

    search: Annotated[str, Meta(max_length=200)] = ""
    tag: Annotated[list[Tag], Meta(max_length=50)] = []
    limit: Limit = MAX_LIMIT
    offset: Offset = 0


class PageQuery(Struct):
    """Which page of a list."""

    limit: Limit = MAX_LIMIT
    offset: Offset = 0


def content_of(raw: Raw, place: str = "content") -> Content:
    """A version's content. Raises Problem naming `place`."""
    data = bytes(raw)
    if data == b"null":
        raise Problem(400, "validation_error", "Field required", field=place)
    try:
        content = read_content(data)
    except ValueError:
        message = "A number in it is too large"
        raise Problem(400, "validation_error", message, field=place) from None
    _limit(content.text, CONTENT_BYTES_MAX, place)
    return content


def config_of(raw: Raw) -> str:
    """The text of a config. Raises Problem naming it."""
    return _limit(object_text(raw, "config"), CONFIG_BYTES_MAX, "config")


def metadata_of(raw: Raw) -> str:
    """The text of metadata. Raises Problem naming it."""
    return _limit(object_text(raw, "metadata"), METADATA_BYTES_MAX, "metadata")


def _limit(text: str, limit: int, place: str) -> str:
    if len(text.encode()) > limit:
        raise Problem(413, "payload_too_large", f"At most {limit} bytes fit", field=place)
    return text


def prompt_id_of(call: Call[Any, Any]) -> str:
    """The id in the path. Raises Problem (404) for what can be none."""
    prompt_id = call.path["prompt_id"]
    if not re.fullmatch(r"prm_[0-9a-z]{26}", prompt_id):
        not_found("There is no such prompt")
    return prompt_id


def author_of(call: Call[Any, Any]) -> str:
    """Who does it, as people know them."""
    return call.principal.email or call.actor.name or call.actor.id
