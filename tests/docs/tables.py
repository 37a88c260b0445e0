"""The parts of the documents that are made from the code. `make gen` writes them.

Each is between `<!-- begin NAME -->` and `<!-- end NAME -->`; a test holds them fresh.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import get_args

from api.app import ROUTES
from api.observability.otlp import conventions
from api.problems import ENTERPRISE, FHE, OBSERVE, OTLP, SERVICE, WAITROOM
from api.problems import REGISTRY as SCHEMA_REGISTRY
from api.routing import Route
from infra.config import declared_variables
from infra.telemetry import REGISTRY
from schemas.approvals.policies import Conditions, Operator
from schemas.identity.roles import ROLES
from schemas.observability.personal import PERSONAL
from schemas.observability.run import LlmCall, RunCompleted, RunStarted, Score, Span, Step
from tests.docs.documents import documents, with_generated

_DIALECTS = {
    OBSERVE.name: "Observe",
    ENTERPRISE.name: "Enterprise",
    WAITROOM.name: "Waitroom",
    FHE.name: "FHE",
    SERVICE.name: "Service",
    SCHEMA_REGISTRY.name: "Schema Registry",
    OTLP.name: "OTLP",
}


_REPORTS = {
    RunStarted: "a run's start",
    RunCompleted: "its end",
    LlmCall: "LLM calls",
    Step: "steps",
    Span: "spans",
    Score: "scores",
}


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    cells = ([cell.replace("|", "\\|") for cell in line] for line in lines)
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)


def settings() -> str:
    """Every environment variable that a role reads."""
    rows = []
    for field, variable in declared_variables():
        if field.default is dataclasses.MISSING:
            default = "required"
        else:
            default = f"`{field.default}`" if field.default not in ("", ()) else ""
        rows.append([f"`{variable.name}`", default, variable.meaning])
    return table(["variable", "default", "what it is"], rows)


def routes() -> str:
    """Who may call what."""
    rows = []
    ordered = sorted(ROUTES, key=lambda route: (_DIALECTS[route.dialect.name], route.path))
    for _, of_path in groupby(ordered, key=lambda route: route.path):
        for route in of_path:
            rows.append(
                [
                    f"`{route.method} {route.path}`",
                    _DIALECTS[route.dialect.name],
                    ", ".join(sorted(_callers(route))) or "anybody",
                    _roles(route),
                ]
            )
    return table(["route", "dialect", "who", "roles"], rows)


def _callers(route: Route) -> set[str]:
    names = {"user": "people", "api_key": "API keys", "agent": "agents"}
    return {names[kind] for kind in route.who.kinds}


def _roles(route: Route) -> str:
    if not route.roles:
        return ""
    return ", ".join(role for role in ROLES if role in route.roles)


def metrics() -> str:
    """Every metric of ours."""
    rows = [
        # Prometheus shows a counter under its name and `_total`.
        [
            f"`{metric.name}{'_total' if metric.type == 'counter' else ''}`",
            metric.type,
            metric.documentation,
        ]
        for metric in REGISTRY.collect()
        if metric.name.startswith("weir_")
    ]
    return table(["metric", "type", "what it is"], sorted(rows))


def conditions() -> str:
    """What a policy's rule may ask, and the operators of its context tests."""
    names = ", ".join(f"`{name}`" for name in Conditions.__struct_fields__)
    operators = ", ".join(f"`{name}`" for name in get_args(Operator))
    return f"Conditions: {names}.\n\nOperators: {operators}.\n"


def otlp_kinds() -> str:
    """What OpenTelemetry's spans are, by the attributes of each convention."""
    rows = []
    for name, kinds in conventions.KINDS:
        by_kind: dict[str, list[str]] = {}
        for value, kind in kinds.items():
            by_kind.setdefault(kind, []).append(f"`{value}`")
        rows += [[f"`{name}`", ", ".join(by_kind[kind]), f"`{kind}`"] for kind in by_kind]
    return table(["attribute", "value", "kind"], rows)


def otlp_attributes() -> str:
    """Where each field of a run, of an LLM call and of a span is taken from."""
    service = (conventions.SERVICE_NAME,)

    def numbered(prefixes: Iterable[str]) -> list[str]:
        return [f"{prefix}.N.…" for prefix in prefixes]

    found: dict[str, Sequence[str]] = {
        "a run's agent": (*conventions.AGENT_NAME, *service),
        "its agent's id": conventions.AGENT_ID,
        "its workflow": conventions.WORKFLOW_NAME,
        "its session": conventions.SESSION_ID,
        "its user": conventions.USER_ID,
        "a call's model": conventions.MODEL,
        "its tokens in": conventions.TOKENS_IN,
        "its tokens out": conventions.TOKENS_OUT,
        "its cost in dollars": conventions.COST,
        "its task": conventions.TASK,
        "its provider, in the metadata": conventions.PROVIDER,
        "input": (
            *conventions.INPUT_MESSAGES,
            *numbered(conventions.INPUT_PREFIXES),
            *conventions.INPUT,
        ),
        "output": (
            *conventions.OUTPUT_MESSAGES,
            *numbered(conventions.OUTPUT_PREFIXES),
            *conventions.OUTPUT,
        ),
    }
    rows = [[field, ", ".join(f"`{name}`" for name in names)] for field, names in found.items()]
    return table(["field", "attributes"], rows)


def personal() -> str:
    """What is sealed of a person's run."""
    rows = [
        [_REPORTS[kind], ", ".join(f"`{name}`" for name in names)]
        for kind, names in PERSONAL.items()
    ]
    return table(["of", "sealed"], rows)


def parts() -> dict[str, str]:
    """All of them, by name."""
    made = (settings, routes, metrics, conditions, otlp_kinds, otlp_attributes, personal)
    return {make.__name__: make() for make in made}


def main() -> None:
    """Write them into the documents."""
    made = parts()
    for path in documents():
        text = path.read_text()
        fresh = with_generated(text, made)
        if fresh != text:
            path.write_text(fresh)
            print(f"wrote {path.name}")


if __name__ == "__main__":
    main()
