"""OpenAPI 3.1 from the declared routes: every parameter, body, credential, status and error shape.

Nothing here is written twice: what the dispatcher can answer follows from the row, so the document
lists exactly that (`statuses_of`), and the tests hold every answer against it.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from api.problems import DIALECTS, PROTOBUF, Dialect
from api.routing import Route, Who
from schemas.identity.roles import ROLES

Json = dict[str, Any]

_COMPONENT = "#/components/schemas/{name}"

_SECURITY: Json = {
    "apiKey": {
        "type": "apiKey",
        "in": "header",
        "name": "X-Wax-Key",
        "description": "An API key, `wax_sk_…`.",
    },
    "apiKeyBearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key, `wax_sk_…`, as bearer token.",
    },
    "agentKey": {
        "type": "http",
        "scheme": "bearer",
        "description": "An agent's key, `wr_…`, as bearer token.",
    },
    "humanToken": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "A person's access token: ours, or one of a configured issuer.",
    },
    "sessionCookie": {
        "type": "apiKey",
        "in": "cookie",
        "name": "sessionid",
        "description": "A person's session. Writes also need `X-Requested-With` or our Origin.",
    },
}
_SCHEMES = (
    (Who.API_KEY, ("apiKey", "apiKeyBearer")),
    (Who.AGENT, ("agentKey",)),
    (Who.HUMAN, ("humanToken", "sessionCookie")),
)

_HEADERS: Json = {
    "X-Request-Id": ("string", "The request's id: the client's own, or one of ours."),
    "RateLimit-Limit": ("integer", "Requests that may come at once."),
    "RateLimit-Remaining": ("integer", "How many of them are left."),
    "RateLimit-Reset": ("integer", "Seconds until all of them are back."),
    "Retry-After": ("integer", "Seconds to wait before trying again."),
    "X-Log-Position": ("string", "Where the write lies in the log, `topic:partition:offset`."),
    "Idempotency-Replayed": ("string", "`true` when the answer is that of an earlier request."),
}
_ALWAYS = ("X-Request-Id", "RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset")

_IDEMPOTENCY_KEY: Json = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "The same key, the same effect and the same answer, for 24 hours.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]{1,255}$"},
}
_ANONYMOUS_KEY: Json = {
    **_IDEMPOTENCY_KEY,
    "schema": {**_IDEMPOTENCY_KEY["schema"], "minLength": 32, "pattern": "^[ -~]{32,255}$"},
}
# Our own words: those of the standard library change between versions of Python.
_PHRASES = {
    200: "OK",
    201: "Created",
    202: "Accepted",
    204: "Done, nothing to say",
    206: "Part of the content",
    302: "Elsewhere",
    304: "Not changed",
    400: "The request is not valid",
    401: "No credential, or one that is wrong, revoked or expired",
    402: "Payment is required: a quota or a budget is used up",
    403: "Not for this credential",
    404: "Not found, or another tenant's",
    406: "No representation that the client accepts",
    409: "In conflict with what happened before",
    410: "Gone for good",
    413: "The body is too large",
    415: "The body's encoding or type is not supported",
    416: "No such range",
    422: "Well-formed, but not acceptable",
    429: "Too many requests",
    500: "Our mistake, recorded under an incident id",
    502: "A service behind us failed",
    503: "Not now: try again after Retry-After seconds",
}
# A message that its .proto describes, and JSON Schema can't.
_PROTOBUF: Json = {PROTOBUF: {"schema": {"type": "string", "format": "binary"}}}
_POSITION = r"^[a-z.]+:\d{1,9}:\d{1,18}$"
_MIN_POSITION: list[Json] = [
    {
        "name": name,
        "in": where,
        "required": False,
        "description": "Wait until the answer holds the write at this position (X-Log-Position).",
        "schema": {"type": "string", "pattern": _POSITION},
    }
    for name, where in (("min_position", "query"), ("X-Min-Log-Position", "header"))
]


def statuses_of(route: Route) -> list[int]:
    """Every status that the route can answer with, the success first, then in order."""
    dialect = route.dialect
    errors = {429, 500, 503, *route.refusals}
    if route.who.kinds:
        errors |= {401, 403}
    if "{" in route.path:
        errors.add(404)
    if route.query is not None or route.analytics:
        errors.add(dialect.invalid)
    if route.analytics:
        errors.add(409)  # the position asked for is not reached
    if route.body is not None:
        errors |= {dialect.malformed, dialect.invalid, 413, 415}
    if route.unsafe:
        errors |= {dialect.malformed, dialect.reused}
    if unknown := errors - set(_PHRASES):
        raise ValueError(f"{route!r} declares statuses that we don't use: {sorted(unknown)}")
    successes = {route.status, *(status for status in route.refusals if status < 400)}
    return [*sorted(successes), *sorted(errors - successes)]


def operation_id(route: Route) -> str:
    """A name that only the method and the path decide: `post_v1_rooms_by_room_check_in`."""
    words = [route.method.lower()]
    for part in route.path.strip("/").split("/"):
        word = f"by_{part[1:-1]}" if part.startswith("{") else part
        words.append(word.replace("-", "_").replace(".", "_"))
    return "_".join(word for word in words if word)


def build_openapi(routes: Sequence[Route], version: str = "1.0.0") -> Json:
    """The document. Raises ValueError when two routes share an operation."""
    types = [kind for route in routes for kind in _types(route)]
    schemas, components = msgspec.json.schema_components(types, ref_template=_COMPONENT)
    schema_of = dict(zip(map(_identity, types), schemas, strict=True))
    queries = {
        schema_of[_identity(route.query)]["$ref"] for route in routes if route.query is not None
    }
    paths: Json = {}
    for route in routes:
        operations = paths.setdefault(route.path, {})
        if route.method.lower() in operations:
            raise ValueError(f"{route!r} is declared twice")
        operations[route.method.lower()] = _operation(route, schema_of, components)
    document: Json = {
        "openapi": "3.1.0",
        "info": {
            "title": "Weir",
            "version": version,
            "summary": "The control plane for AI agents, on a log.",
            "description": _ABOUT,
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": tag} for tag in _tags(routes)],
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": {**dict(sorted(components.items())), **_error_schemas()},
            "responses": _error_responses(routes),
            "headers": {
                name: {"description": about, "schema": {"type": kind}}
                for name, (kind, about) in _HEADERS.items()
            },
            "securitySchemes": _SECURITY,
        },
    }
    return _without_unused(document, queries)


_ABOUT = (
    "Every path is served with and without its trailing slash. A 2xx to a write means that it is "
    "in the log and will be in every read model. A 503 `outcome_unknown` names a command: ask "
    "`/commands/{command_id}`, or send the request again with the same Idempotency-Key; both are "
    "safe. Unknown fields and query parameters are ignored. `x-roles` lists the roles of which a "
    "person or an API key needs one."
)


def _types(route: Route) -> Iterable[Any]:
    found = (route.query, route.body, route.response)
    return [kind for kind in found if kind is not None and kind is not bytes]


def _identity(kind: Any) -> str:
    # Types such as list[Room] are made anew each time; their text is what tells them apart.
    return f"{getattr(kind, '__module__', '')}:{kind!r}"


def _tags(routes: Sequence[Route]) -> list[str]:
    return sorted({tag for route in routes for tag in route.tags})


def _operation(route: Route, schema_of: dict[str, Json], components: Json) -> Json:
    operation: Json = {
        "operationId": operation_id(route),
        "tags": list(route.tags),
        "summary": route.summary,
    }
    about = [route.description] if route.description else []
    if route.rest:
        about.append("The last parameter may hold slashes, encoded or not.")
    if route.roles:
        about.append(f"Needs the role {' or '.join(sorted(route.roles))}.")
    if route.scopes:
        about.append(f"Needs the scopes {', '.join(sorted(route.scopes))}.")
    if about:
        operation["description"] = "\n\n".join(about)
    parameters = _parameters(route, schema_of, components)
    if route.roles:
        operation["x-roles"] = [role for role in ROLES if role in route.roles]
    if parameters:
        operation["parameters"] = parameters
    if route.body is not None or route.streamed:
        operation["requestBody"] = _request_body(route, schema_of, components)
    operation["responses"] = _responses(route, schema_of)
    operation["security"] = [
        {scheme: []} for who, schemes in _SCHEMES if who in route.who for scheme in schemes
    ]
    return operation


def _parameters(route: Route, schema_of: dict[str, Json], components: Json) -> list[Json]:
    found: list[Json] = [
        {
            "name": part[1:-1],
            "in": "path",
            "required": True,
            "schema": {"type": "string", "minLength": 1, "maxLength": 1024},
        }
        for part in route.path.split("/")
        if part.startswith("{")
    ]
    if route.query is not None:
        struct = _resolved(schema_of[_identity(route.query)], components)
        for name, schema in struct["properties"].items():
            parameter: Json = {
                "name": name,
                "in": "query",
                "required": name in struct["required"],
                "schema": schema,
            }
            if "description" in schema:
                parameter["description"] = schema["description"]
            found.append(parameter)
    if route.analytics:
        found += _MIN_POSITION
    if route.unsafe:
        found.append(_IDEMPOTENCY_KEY if route.who.kinds else _ANONYMOUS_KEY)
    return found


def _request_body(route: Route, schema_of: dict[str, Json], components: Json) -> Json:
    if route.body is bytes or route.streamed:
        return {"required": True, "content": {route.accepts: {"schema": {}}}}
    schema = schema_of[_identity(route.body)]
    resolved = _resolved(schema, components)
    optional = resolved.get("type") == "object" and not resolved.get("required")
    content = {route.accepts: {"schema": schema}, **(_PROTOBUF if route.protobuf else {})}
    return {"required": not optional, "content": content}


def _responses(route: Route, schema_of: dict[str, Json]) -> Json:
    found: Json = {}
    for status in statuses_of(route):
        if status >= 400:
            reference = f"#/components/responses/{route.dialect.name}_{status}"
            found[str(status)] = {"$ref": reference}
            continue
        names = [*_ALWAYS]
        if route.unsafe:
            names += ["X-Log-Position", "Idempotency-Replayed"]
        response: Json = {
            "description": _PHRASES[status],
            "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in names},
        }
        if status != 204:
            schema = {} if route.response is None else schema_of[_identity(route.response)]
            response["content"] = {route.media_type: {"schema": schema}}
            if route.protobuf:
                response["content"] |= _PROTOBUF
        found[str(status)] = response
    return found


def _resolved(schema: Json, components: Json) -> Json:
    while "$ref" in schema:
        schema = components[schema["$ref"].rsplit("/", 1)[1]]
    return schema


def _error_name(dialect: Dialect) -> str:
    return f"{dialect.name.capitalize()}Error"


def _error_schemas() -> Json:
    return {_error_name(dialect): dialect.schema for dialect in DIALECTS}


def _error_responses(routes: Sequence[Route]) -> Json:
    wanted = {
        (route.dialect.name, status): route.dialect
        for route in routes
        for status in statuses_of(route)
        if status >= 400
    }
    found: Json = {}
    for (name, status), dialect in sorted(wanted.items(), key=lambda item: item[0]):
        headers = [*_ALWAYS, *(["Retry-After"] if status in (429, 503) else [])]
        reference = _COMPONENT.format(name=_error_name(dialect))
        found[f"{name}_{status}"] = {
            "description": _PHRASES[status],
            "headers": {item: {"$ref": f"#/components/headers/{item}"} for item in headers},
            "content": {"application/json": {"schema": {"$ref": reference}}},
        }
        if dialect.protobuf is not None:
            found[f"{name}_{status}"]["content"] |= _PROTOBUF
    return found


def _without_unused(document: Json, candidates: set[str]) -> Json:
    """Drop the query structs' schemas: their fields are parameters now."""
    text = msgspec.json.encode(document).decode()
    schemas = document["components"]["schemas"]
    for reference in candidates:
        if f'"{reference}"' not in text:
            schemas.pop(reference.rsplit("/", 1)[1], None)
    return document
