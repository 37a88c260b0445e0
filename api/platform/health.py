"""Health for load balancers and people, and metrics for Prometheus. No credential is needed."""

from typing import Any

from msgspec import Struct

from api.platform.probes import Dependency, Loop
from api.routing import Answer, Call
from infra.telemetry import CONTENT_TYPE, exposition


class Health(Struct, frozen=True):
    """The process is alive."""

    status: str
    service: str
    version: str


class Ready(Struct, frozen=True):
    """status: `ready`, `degraded` or `unready` (then the answer is a 503)."""

    status: str
    dependencies: dict[str, Dependency]
    loops: dict[str, Loop]
    detail: str = ""


class Storage(Struct, frozen=True):
    """Whether the object store takes and gives back an object."""

    status: str
    ms: float
    detail: str = ""


class Welcome(Struct, frozen=True):
    """Where to go from here."""

    name: str
    version: str
    docs: str
    openapi: str
    health: str


VERSION = "0.1.0"


async def health(call: Call[None, None]) -> Health:
    """Alive: nothing behind us is asked."""
    return Health("ok", "weir", VERSION)


async def ready(call: Call[None, None]) -> Any:
    """Whether requests can be served, by asking what is behind us."""
    found = await call.services.probes.readiness()
    if found.status != "unready":
        return Ready(found.status, found.dependencies, found.loops)
    away = [name for name, dependency in found.dependencies.items() if not dependency.ok]
    body = Ready(
        found.status, found.dependencies, found.loops, f"not reached: {', '.join(sorted(away))}"
    )
    return Answer(body, status=503, headers={"retry-after": "2"})


async def storage(call: Call[None, None]) -> Any:
    """Whether the object store works."""
    found = await call.services.probes.storage()
    if found.ok:
        return Storage("ok", found.ms)
    body = Storage("unavailable", found.ms, f"the object store does not work: {found.error}")
    return Answer(body, status=503, headers={"retry-after": "2"})


async def metrics(call: Call[None, None]) -> Answer:
    """The metrics of this process."""
    return Answer(exposition(), media_type=CONTENT_TYPE)


async def root(call: Call[None, None]) -> Welcome:
    """A word of welcome."""
    return Welcome("Weir", VERSION, "/docs", "/openapi.json", "/health/ready")
