"""The schemas of the log, for any client of a Confluent Schema Registry. Read only, open to all.

What may be read here is in the repository as well, so it needs no credential; one that a client
sends is not looked at. Registering a schema that is registered already answers with its id, as a
registry does, so that serializers with `auto.register.schemas` work; anything new is refused.
"""

import json
from functools import cache, partial
from typing import Annotated, Any

import fastavro
import msgspec
from msgspec import Meta, Struct

from api.problems import REGISTRY, Problem
from api.routing import Answer, Call, Route, Who
from schemas.codec import load_schemas
from schemas.registry import Registered, SchemaRegistry
from schemas.types import Int64

MEDIA_TYPE = "application/vnd.schemaregistry.v1+json"
COMPATIBILITY = "BACKWARD"


class SchemaBody(Struct, rename="camel"):
    """A schema as clients send it; only Avro is known here."""

    schema: Annotated[str, Meta(max_length=1024 * 1024)]
    schema_type: str = "AVRO"


class ListQuery(Struct, rename="camel"):
    """Which part of a list is wanted; a negative limit is none."""

    subject_prefix: str = ""
    subject: str = ""
    offset: Annotated[int, Meta(ge=0, le=2**31)] = 0
    limit: Int64 = -1


class SchemaAnswer(Struct, rename="camel", omit_defaults=True):
    """A schema, and under which subject and version it is registered."""

    schema: str
    subject: str = ""
    version: int = 0
    id: int = 0


class SubjectVersion(Struct):
    subject: str
    version: int


class IdAnswer(Struct):
    id: int


class Compatibility(Struct, rename="camel"):
    compatibility_level: str = COMPATIBILITY


class Mode(Struct):
    mode: str = "READONLY"


@cache
def registry() -> SchemaRegistry:
    """The registered schemas of this release."""
    return SchemaRegistry(load_schemas())


def _answer(data: Any) -> Answer:
    return Answer(msgspec.json.encode(data), media_type=MEDIA_TYPE)


def _text(found: Registered) -> str:
    return json.dumps(found.schema.schema, separators=(",", ":"))


def _schema(found: Registered) -> SchemaAnswer:
    return SchemaAnswer(_text(found), found.subject, found.version, found.schema.id)


def _page(items: list[Any], query: ListQuery) -> list[Any]:
    end = None if query.limit < 0 else query.offset + query.limit
    return items[query.offset : end]


def _unknown_subject(subject: str) -> Problem:
    return Problem(404, "subject_not_found", f"Subject '{subject}' not found.")


def _by_id(call: Call[Any, Any], subject: str = "") -> Registered:
    id = call.path["id"]
    try:
        return registry().by_id(int(id) if id.isascii() and id.isdigit() else -1, subject)
    except KeyError:
        raise Problem(404, "schema_not_found", f"Schema {id} not found") from None


def _by_version(call: Call[Any, Any]) -> Registered:
    subject, text = call.path["subject"], call.path["version"]
    if text in ("latest", "-1"):
        version = None
    elif text.isascii() and text.isdigit() and 0 < int(text) < 2**31:
        version = int(text)
    else:
        raise Problem(
            422,
            "invalid_version",
            f"The specified version '{text}' is not a valid version id. Allowed values are "
            'between [1, 2^31-1] and the string "latest"',
        )
    _versions(subject)
    try:
        return registry().version(subject, version)
    except KeyError:
        raise Problem(404, "version_not_found", f"Version {text} not found.") from None


def _versions(subject: str) -> list[int]:
    try:
        return registry().versions(subject)
    except KeyError:
        raise _unknown_subject(subject) from None


async def root(call: Call[None, None]) -> Answer:
    """Some clients ask for it to see whether the registry is there."""
    return _answer({})


async def subjects(call: Call[None, ListQuery]) -> Answer:
    prefix = call.query.subject_prefix.removeprefix(":*:")
    return _answer(_page(registry().subjects(prefix), call.query))


async def versions(call: Call[None, ListQuery]) -> Answer:
    return _answer(_page(_versions(call.path["subject"]), call.query))


async def version(call: Call[None, None]) -> Answer:
    return _answer(_schema(_by_version(call)))


async def version_schema(call: Call[None, None]) -> Answer:
    return Answer(_text(_by_version(call)), media_type=MEDIA_TYPE)


async def referenced_by(call: Call[None, None]) -> Answer:
    """Our schemas are whole: none refers to another."""
    _by_version(call)
    return _answer([])


async def schema(call: Call[None, ListQuery]) -> Answer:
    return _answer(_schema(_by_id(call, call.query.subject)))


async def schema_text(call: Call[None, None]) -> Answer:
    return Answer(_text(_by_id(call)), media_type=MEDIA_TYPE)


async def schema_subjects(call: Call[None, ListQuery]) -> Answer:
    return _answer([place.subject for place in _places(call)])


async def schema_versions(call: Call[None, ListQuery]) -> Answer:
    return _answer([SubjectVersion(place.subject, place.version) for place in _places(call)])


def _places(call: Call[None, ListQuery]) -> list[Registered]:
    wanted = call.query.subject
    places = registry().places(_by_id(call).schema.id)
    return _page([item for item in places if wanted in ("", item.subject)], call.query)


async def types(call: Call[None, None]) -> Answer:
    return _answer(["AVRO"])


async def contexts(call: Call[None, None]) -> Answer:
    return _answer(["."])


async def config(call: Call[None, None]) -> Answer:
    if "subject" in call.path:
        _versions(call.path["subject"])
    return _answer(Compatibility())


async def mode(call: Call[None, None]) -> Answer:
    if "subject" in call.path:
        _versions(call.path["subject"])
    return _answer(Mode())


async def lookup(call: Call[SchemaBody, None]) -> Answer:
    """Under which version a schema is registered in a subject."""
    return _answer(_schema(_find(call)))


async def register(call: Call[SchemaBody, None]) -> Answer:
    """The id of a schema that is registered already; the registry takes no new ones."""
    try:
        return _answer(IdAnswer(_find(call).schema.id))
    except Problem as problem:
        if problem.status != 404:
            raise
        raise Problem(
            422,
            "read_only",
            f"Subject {call.path['subject']} is in read-only mode: schemas come with a release",
        ) from None


def _find(call: Call[SchemaBody, None]) -> Registered:
    subject, body = call.path["subject"], call.body
    _versions(subject)
    if body.schema_type != "AVRO":
        raise Problem(422, "invalid_schema", f"Invalid schema type {body.schema_type}")
    wanted = _canonical(body.schema)
    for found in registry().all(subject):
        if _canonical(_text(found)) == wanted:
            return found
    raise Problem(404, "schema_not_found", "Schema not found")


def _canonical(text: str) -> str:
    """The parsing canonical form of a schema. Raises Problem for what is no Avro schema."""
    try:
        return str(fastavro.schema.to_parsing_canonical_form(json.loads(text)))
    except Exception as error:  # what a parser makes of a stranger's text is not to be foreseen
        raise Problem(422, "invalid_schema", f"Invalid schema: {error}"[:500]) from None


_ROOT = "/schema-registry"
_SUBJECT = f"{_ROOT}/subjects/{{subject}}"
_VERSION = f"{_SUBJECT}/versions/{{version}}"
_SCHEMA = f"{_ROOT}/schemas/ids/{{id}}"
_route = partial(
    Route,
    dialect=REGISTRY,
    who=Who.PUBLIC,
    tags=("schema-registry",),
    media_type=MEDIA_TYPE,
    quiet=True,
)

ROUTES = [
    _route(
        "GET", f"{_ROOT}/", root, summary="Whether the registry is there", response=dict[str, str]
    ),
    _route(
        "GET",
        f"{_ROOT}/subjects",
        subjects,
        summary="Subjects",
        response=list[str],
        query=ListQuery,
    ),
    _route(
        "GET",
        f"{_SUBJECT}/versions",
        versions,
        summary="Versions of a subject",
        response=list[int],
        query=ListQuery,
        refusals=(404,),
    ),
    _route(
        "GET",
        _VERSION,
        version,
        summary="A version of a subject, or `latest`",
        response=SchemaAnswer,
        refusals=(404, 422),
    ),
    _route(
        "GET",
        f"{_VERSION}/schema",
        version_schema,
        summary="The bare schema of a version",
        response=dict[str, Any],
        refusals=(404, 422),
    ),
    _route(
        "GET",
        f"{_VERSION}/referencedby",
        referenced_by,
        summary="Schemas that refer to a version",
        response=list[int],
        refusals=(404, 422),
    ),
    _route(
        "POST",
        _SUBJECT,
        lookup,
        summary="Look a schema up in a subject",
        response=SchemaAnswer,
        body=SchemaBody,
        refusals=(404, 422),
        accepts=MEDIA_TYPE,
    ),
    _route(
        "POST",
        f"{_SUBJECT}/versions",
        register,
        summary="The id of a registered schema; new ones are refused",
        response=IdAnswer,
        body=SchemaBody,
        refusals=(404, 422),
        accepts=MEDIA_TYPE,
    ),
    _route("GET", f"{_ROOT}/schemas/types", types, summary="Kinds of schemas", response=list[str]),
    _route(
        "GET",
        _SCHEMA,
        schema,
        summary="A schema by its id",
        response=SchemaAnswer,
        query=ListQuery,
        refusals=(404,),
    ),
    _route(
        "GET",
        f"{_SCHEMA}/schema",
        schema_text,
        summary="The bare schema of an id",
        response=dict[str, Any],
        refusals=(404,),
    ),
    _route(
        "GET",
        f"{_SCHEMA}/subjects",
        schema_subjects,
        summary="Subjects of a schema",
        response=list[str],
        query=ListQuery,
        refusals=(404,),
    ),
    _route(
        "GET",
        f"{_SCHEMA}/versions",
        schema_versions,
        summary="Subjects and versions of a schema",
        response=list[SubjectVersion],
        query=ListQuery,
        refusals=(404,),
    ),
    _route("GET", f"{_ROOT}/contexts", contexts, summary="Contexts", response=list[str]),
    _route(
        "GET",
        f"{_ROOT}/config",
        config,
        summary="Compatibility of new versions",
        response=Compatibility,
    ),
    _route(
        "GET",
        f"{_ROOT}/config/{{subject}}",
        config,
        summary="Compatibility in a subject",
        response=Compatibility,
        refusals=(404,),
    ),
    _route("GET", f"{_ROOT}/mode", mode, summary="Mode of the registry", response=Mode),
    _route(
        "GET",
        f"{_ROOT}/mode/{{subject}}",
        mode,
        summary="Mode of a subject",
        response=Mode,
        refusals=(404,),
    ),
]
