"""The platform's own routes."""

from functools import partial

from api.platform import audit, audit_exports, docs, health, outcomes, schema_registry, webhooks
from api.problems import FHE, SERVICE
from api.routing import Route, Who

_public = partial(Route, "GET", dialect=SERVICE, who=Who.PUBLIC, tags=("health",), quiet=True)


def _outcome(path: str) -> Route:
    return Route(
        "GET",
        path,
        outcomes.get_outcome,
        dialect=SERVICE,
        who=Who.EVERYONE,
        response=outcomes.Outcome,
        tags=("commands",),
        summary="What became of a command",
        description="Settles a 503 `outcome_unknown`. Outcomes are kept for 24 hours.",
    )


ROUTES = [
    _public("/", health.root, summary="Root", response=health.Welcome, tags=("default",)),
    _public("/health", health.health, summary="Health Check", response=health.Health),
    _public("/health/ready", health.ready, summary="Readiness Check", response=health.Ready),
    _public("/health/storage", health.storage, summary="Storage Health", response=health.Storage),
    _public(
        "/api/v1/health",
        health.health,
        summary="Public liveness probe",
        response=health.Health,
        dialect=FHE,
    ),
    _public(
        "/metrics",
        health.metrics,
        summary="Prometheus metrics",
        response=str,
        media_type="text/plain",
    ),
    _public("/openapi.json", docs.openapi, summary="This document", tags=("docs",)),
    _public(
        "/asyncapi.json", docs.asyncapi, summary="The topics and events of the log", tags=("docs",)
    ),
    _public(
        "/docs",
        docs.page,
        summary="This document, to be read",
        response=str,
        media_type="text/html",
        tags=("docs",),
    ),
    _public(
        "/.well-known/jwks.json", docs.jwks, summary="Keys of our access tokens", tags=("auth",)
    ),
    _outcome("/api/v1/commands/{command_id}"),
    _outcome("/commands/{command_id}"),
    *audit.ROUTES,
    *audit_exports.ROUTES,
    *schema_registry.ROUTES,
    *webhooks.ROUTES,
]
