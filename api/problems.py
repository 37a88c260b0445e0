"""Problems and the dialects they are told in.

A handler raises `Problem`; the dialect of its route turns it into the body that its surface's
document promises. The same dialects answer for paths that no route has.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NoReturn

import msgspec
from msgspec import Struct

from commands.refusals import Kind

Where = Literal["body", "query", "path", "header"]


class Problem(Exception):
    """A request that is answered with an error.

    status: the HTTP status. code: stable, snake_case (a dialect may write it in upper case).
    field: the path of the field at fault, such as `calls[0].tokens_in`. where: what that field is
    part of. details: plain JSON values for the caller, no secrets. headers: extra response headers.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        field: str = "",
        where: Where = "body",
        details: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message
        self.field, self.where = field, where
        self.details = dict(details or {})
        self.headers = dict(headers or {})

    @property
    def text(self) -> str:
        """The message, led by the field at fault."""
        return f"{self.field}: {self.message}" if self.field else self.message


Render = Callable[[Problem, str], dict[str, Any]]
Encode = Callable[[dict[str, Any]], bytes]

PROTOBUF = "application/x-protobuf"


class Dialect(Struct, frozen=True):
    """How one surface tells errors.

    render(problem, request_id) -> the body. malformed / invalid: status of a body that is not JSON
    / has a wrong shape. refused: status of a refusal of kind `invalid`. reused: status of an
    idempotency key that came with another request. schema: JSON Schema of the error body.
    protobuf: the body as protobuf, for a surface whose clients may send that.
    """

    name: str
    render: Render
    schema: dict[str, Any]
    malformed: int = 400
    invalid: int = 400
    refused: int = 400
    reused: int = 409
    protobuf: Encode | None = None

    def status_of(self, kind: str) -> int:
        """The HTTP status of a refusal's kind (`commands.refusals.Kind`)."""
        return self.refused if kind == "invalid" else _STATUS_OF_KIND.get(kind, 409)


_STATUS_OF_KIND: dict[str | Kind, int] = {
    "forbidden": 403,
    "not_found": 404,
    "conflict": 409,
    "payment_required": 402,
    "unprocessable": 422,
}


def _observe(problem: Problem, request_id: str) -> dict[str, Any]:
    return {"error": problem.text, **_outcome(problem)}


def _enterprise(problem: Problem, request_id: str) -> dict[str, Any]:
    details = dict(problem.details)
    if problem.field:
        details["field"] = problem.field
    return {"error": {"code": problem.code, "message": problem.text, "details": details}}


def _waitroom(problem: Problem, request_id: str) -> dict[str, Any]:
    error: dict[str, Any] = {
        "code": problem.code.upper(),
        "message": problem.text,
        "statusCode": problem.status,
    }
    if problem.details:
        error["details"] = problem.details
    body: dict[str, Any] = {"error": error}
    if problem.status == 429:
        # The document says only that the body has it; clients look in either place.
        body["retryAfter"] = error["retryAfter"] = int(problem.headers.get("retry-after", "1"))
    return body


def _fhe(problem: Problem, request_id: str) -> dict[str, Any]:
    error = {"code": problem.code, "message": problem.text, "request_id": request_id}
    if problem.details:
        error["details"] = problem.details  # type: ignore[assignment]
    return {"error": error}


def _service(problem: Problem, request_id: str) -> dict[str, Any]:
    if problem.status != 422:
        return {"detail": problem.message, **_outcome(problem)}
    place: list[str | int] = [problem.where, *location(problem.field)]
    return {"detail": [{"loc": place, "msg": problem.message, "type": problem.code}]}


# A Schema Registry's error codes by our own; of others it is the status.
_REGISTRY_CODES = {
    "subject_not_found": 40401,
    "version_not_found": 40402,
    "schema_not_found": 40403,
    "invalid_schema": 42201,
    "invalid_version": 42202,
    "read_only": 42205,
}


def _registry(problem: Problem, request_id: str) -> dict[str, Any]:
    code = _REGISTRY_CODES.get(problem.code, problem.status)
    return {"error_code": code, "message": problem.text}


# google.rpc.Code by HTTP status: for people, since clients of OTLP go by the latter.
_RPC_CODES = {
    400: 3,
    401: 16,
    403: 7,
    404: 5,
    405: 12,
    409: 10,
    413: 3,
    415: 3,
    429: 8,
    500: 13,
    503: 14,
}
_RPC_UNKNOWN = 2
_ERROR_INFO = "type.googleapis.com/google.rpc.ErrorInfo"


def _otlp(problem: Problem, request_id: str) -> dict[str, Any]:
    facts = {"request_id": request_id, **_outcome(problem)}
    info = {"@type": _ERROR_INFO, "reason": problem.code, "domain": "weir", "metadata": facts}
    code = _RPC_CODES.get(problem.status, _RPC_UNKNOWN)
    return {"code": code, "message": problem.text, "details": [info]}


def _rpc_status(body: dict[str, Any]) -> bytes:
    # Late, since nobody else needs protobuf; error_details makes the details' type known to it.
    from google.protobuf.json_format import ParseDict
    from google.rpc import error_details_pb2, status_pb2  # noqa: F401

    found: bytes = ParseDict(body, status_pb2.Status()).SerializeToString()
    return found


def _outcome(problem: Problem) -> dict[str, Any]:
    # The dialects without room for details still have to tell what a client acts on.
    kept = ("command_id", "incident_id")
    return {name: problem.details[name] for name in kept if name in problem.details}


def location(field: str) -> list[str | int]:
    """`calls[0].model` as `["calls", 0, "model"]`."""
    parts: list[str | int] = []
    for part in field.replace("[", ".").replace("]", "").split("."):
        if part:
            parts.append(int(part) if part.isdigit() else part)
    return parts


def _object(required: tuple[str, ...], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": list(required), "properties": properties}


_STRING = {"type": "string"}
_INTEGER = {"type": "integer"}

OBSERVE = Dialect(
    "observe",
    _observe,
    _object(("error",), error=_STRING, command_id=_STRING, incident_id=_STRING),
)
ENTERPRISE = Dialect(
    "enterprise",
    _enterprise,
    _object(
        ("error",),
        error=_object(
            ("code", "message", "details"),
            code=_STRING,
            message=_STRING,
            details={"type": "object"},
        ),
    ),
)
WAITROOM = Dialect(
    "waitroom",
    _waitroom,
    _object(
        ("error",),
        error=_object(
            ("code", "message", "statusCode"),
            code=_STRING,
            message=_STRING,
            statusCode=_INTEGER,
            retryAfter=_INTEGER,
            details={"type": "object"},
        ),
        retryAfter=_INTEGER,
    ),
)
FHE = Dialect(
    "fhe",
    _fhe,
    _object(
        ("error",),
        error=_object(
            ("code", "message", "request_id"),
            code=_STRING,
            message=_STRING,
            request_id=_STRING,
            details={"type": "object"},
        ),
    ),
    invalid=422,
    reused=422,
)
SERVICE = Dialect(
    "service",
    _service,
    _object(
        ("detail",),
        detail={
            "anyOf": [
                _STRING,
                {
                    "type": "array",
                    "items": _object(
                        ("loc", "msg", "type"),
                        loc={"type": "array", "items": {"anyOf": [_STRING, _INTEGER]}},
                        msg=_STRING,
                        type=_STRING,
                    ),
                },
            ]
        },
        command_id=_STRING,
        incident_id=_STRING,
    ),
    malformed=422,
    invalid=422,
    refused=422,
    reused=422,
)
REGISTRY = Dialect(
    "registry",
    _registry,
    _object(("error_code", "message"), error_code=_INTEGER, message=_STRING),
    malformed=400,
    invalid=422,
)
OTLP = Dialect(
    "otlp",
    _otlp,
    _object(
        ("code", "message"),
        code=_INTEGER,
        message=_STRING,
        details={"type": "array", "items": {"type": "object"}},
    ),
    protobuf=_rpc_status,
)
DIALECTS = (OBSERVE, ENTERPRISE, WAITROOM, FHE, SERVICE, REGISTRY, OTLP)

_OBSERVE_GROUPS = frozenset({"observe", "observability", "evaluations", "prompts"})
_FHE_GROUPS = frozenset(
    {"keys", "compute", "tfhe", "jobs", "models", "api-keys", "webhooks", "onboarding", "health"}
)
_FHE_BILLING = frozenset({"subscriptions", "invoices", "budget-caps", "stripe_webhook"})


def dialect_of(path: str) -> Dialect:
    """The dialect of a path, also of one that no route has."""
    parts = path.split("/", 5)[1:]
    first, second = parts[0], parts[1] if len(parts) > 1 else ""
    if first == "v1":
        return OTLP if second == "traces" else WAITROOM
    if first == "waxell":
        return ENTERPRISE
    if first == "schema-registry":
        return REGISTRY
    if first == "api" and second == "v1" and len(parts) > 2:
        group = parts[2]
        if group in _OBSERVE_GROUPS:
            return OBSERVE
        if group in _FHE_GROUPS:
            return FHE
        if group == "billing" and len(parts) > 3 and parts[3] in _FHE_BILLING:
            return FHE
    return SERVICE


def not_found(what: str = "Not found") -> NoReturn:
    """Raise the 404 that also hides what belongs to another tenant."""
    raise Problem(404, "not_found", what)


def from_refusal(
    dialect: Dialect, *, kind: str, code: str, message: str, details: str = "{}"
) -> Problem:
    """The problem of a refused command; `details` is JSON text as the reply carries it."""
    status = dialect.reused if code == "idempotency_key_reused" else dialect.status_of(kind)
    facts = msgspec.json.decode(details) if details else {}
    return Problem(status, code, message, details=facts if isinstance(facts, dict) else {})
