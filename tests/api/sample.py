"""A small domain and its routes, one per dialect and kind, for tests of what all routes share."""

from typing import Annotated, Any

from msgspec import Meta, Struct

from api.approvals.envelopes import Data, data
from api.problems import ENTERPRISE, FHE, OBSERVE, SERVICE, WAITROOM, Problem, not_found
from api.routing import Answer, Call, Route, Who, answer_of
from commands.decider import Context, Decider
from commands.refusals import Refusal
from schemas.envelope import Position


class Add(Struct, frozen=True, tag="tests.add.v1"):
    n: int


class Added(Struct, frozen=True, tag="tests.added.v1"):
    n: int


class TooMuch(Refusal):
    code = "too_much"
    kind = "unprocessable"


class Sum(Struct, frozen=True):
    total: int = 0


def decide(command: Add, state: Sum, context: Context) -> list[Added]:
    """Adds up to a hundred; 13 is a bug."""
    if command.n == 13:
        raise RuntimeError("thirteen")
    if state.total + command.n > 100:
        raise TooMuch("over a hundred", total=state.total)
    return [Added(command.n)]


def evolve(state: Sum, event: Added) -> Sum:
    """The sum so far."""
    return Sum(state.total + event.n)


COUNTER: Decider[Any, Any, Any] = Decider(
    stream="tests.counter",
    commands=(Add,),
    events=(Added,),
    initial=Sum(),
    decide=decide,
    evolve=evolve,
    answer=lambda command, state, context: state,
)


class AddBody(Struct):
    n: Annotated[int, Meta(ge=0, le=1000)]
    note: str | None = None


class NoteBody(Struct):
    note: str = ""


class ListQuery(Struct):
    tag: list[str] = []
    limit: Annotated[int, Meta(ge=1, le=100)] = 20


class SumAnswer(Struct):
    total: int


async def add(call: Call[AddBody, None]) -> Any:
    """Adds, with the caller's credential."""
    reply = await call.send(call.path.get("id", "c1"), Add(call.body.n))
    return answer_of(reply, SumAnswer)


async def add_enveloped(call: Call[AddBody, None]) -> Any:
    """As `add`, in Waitroom's envelope."""
    return data(await add(call))


async def echo(call: Call[Any, Any]) -> Any:
    """Says what the handler was given."""
    return {
        "path": call.path,
        "query": call.query,
        "body": call.body,
        "actor": call.actor,
        "tenant": call.tenant,
        "address": call.address,
        "command_id": call.command_id,
        "fingerprint": call.fingerprint,
        "request_id": call.request_id,
    }


async def telemetry(call: Call[NoteBody, None]) -> Any:
    """A write without a decider."""
    call.position(Position("telemetry", 2, 41))
    return Answer({"status": "ok"}, status=202, headers={"X-Extra": "1"})


async def nothing(call: Call[None, None]) -> None:
    """Has nothing to say."""


async def bug(call: Call[None, None]) -> None:
    """Fails, with a secret in its message."""
    raise RuntimeError("wax_sk_secretsecretsecret")


async def missing(call: Call[None, None]) -> None:
    """Finds nothing."""
    not_found("No such thing")


async def own_problem(call: Call[None, None]) -> None:
    """Says no by itself."""
    raise Problem(402, "quota_exceeded", "no more", field="n", details={"limit": 3})


async def upload(call: Call[bytes, None]) -> Any:
    """Takes bytes."""
    return {"size": len(call.body)}


async def stream_in(call: Call[None, None]) -> Any:
    """Reads the body itself."""
    size = 0
    async for chunk in call.raw.stream():
        size += len(chunk)
    return {"size": size}


def row(method: str, path: str, handler: Any, dialect: Any, who: Who, **more: Any) -> Route:
    """A row with the parts that these tests don't care about."""
    return Route(
        method,
        path,
        handler,
        dialect=dialect,
        who=who,
        tags=("sample",),
        summary="A sample",
        **more,
    )


ROUTES = [
    row(
        "POST", "/v1/sums/{id}", add_enveloped, WAITROOM, Who.ANY, body=AddBody, status=201,
        response=Data[SumAnswer], refusals=(422,),
    ),
    row(
        "POST", "/api/v1/observe/sums/{id}/", add, OBSERVE, Who.API_KEY, body=AddBody,
        response=SumAnswer, refusals=(422,),
    ),
    row(
        "POST", "/waxell/v1/sums/{id}/", add, ENTERPRISE, Who.API_KEY, body=AddBody,
        response=SumAnswer, refusals=(422,),
    ),
    row(
        "POST", "/api/v1/keys/{id}", add, FHE, Who.SESSION_OR_KEY, body=AddBody,
        response=SumAnswer, refusals=(422,),
    ),
    row(
        "POST", "/api/v1/sums/{id}", add, SERVICE, Who.HUMAN, body=AddBody, response=SumAnswer,
        refusals=(422,),
    ),
    row("GET", "/api/v1/echo/{id}", echo, SERVICE, Who.EVERYONE, query=ListQuery),
    row("POST", "/api/v1/echo/{id}", echo, SERVICE, Who.EVERYONE, body=NoteBody),
    row("POST", "/api/v1/open", echo, SERVICE, Who.PUBLIC, body=NoteBody),
    row("PUT", "/v1/echo/{id}", echo, WAITROOM, Who.HUMAN, body=NoteBody),
    row("POST", "/api/v1/observe/telemetry", telemetry, OBSERVE, Who.API_KEY, body=NoteBody,
        status=202, max_body=1000, lenient=True),
    row("DELETE", "/v1/sums/{id}", nothing, WAITROOM, Who.ANY, status=204),
    row("GET", "/api/v1/quiet", echo, SERVICE, Who.EVERYONE, quiet=True),
    row("GET", "/api/v1/bug", bug, SERVICE, Who.HUMAN),
    row("GET", "/v1/missing/{id}", missing, WAITROOM, Who.ANY),
    row("GET", "/waxell/v1/own", own_problem, ENTERPRISE, Who.API_KEY, refusals=(402,)),
    row("GET", "/api/v1/admin", echo, SERVICE, Who.HUMAN, roles=("owner", "admin")),
    row("GET", "/api/v1/scoped", echo, SERVICE, Who.API_KEY, scopes=("read", "write")),
    row("POST", "/api/v1/keys", upload, FHE, Who.API_KEY, body=bytes, raw_body=True,
        max_body=5000, accepts="application/octet-stream"),
    row("POST", "/api/v1/keys/parts", stream_in, FHE, Who.API_KEY, max_body=5000,
        refusals=(413,)),
    row("GET", "/api/v1/observability/views", echo, OBSERVE, Who.SESSION_OR_KEY,
        query=ListQuery, analytics=True),
]  # fmt: skip
