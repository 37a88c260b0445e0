"""A policy check: the judging alone, and the whole application's own time, with 100 policies.

There is nothing of a library's to compare with: no server is asked. What a network adds is left out
(the application is called as the HTTP server calls it), so the figure is our own time.
"""

import asyncio
import time
from typing import Any

from api.app import build_app
from api.credentials import ApiKey, lookup_prefix
from api.observability.policy_memory import policy_memory
from api.services import Services
from bench.figure import Figure, timed_of
from commands.observability.policy_check import Asked
from infra.clock import SYSTEM_CLOCK
from infra.ids import Signer, secret_hash
from schemas.observability.policy import (
    AgentsRule,
    BudgetRule,
    Definition,
    ModelsRule,
    PolicyScope,
    RateRule,
    RedactionRule,
    Rules,
)
from tests.api.harness import SECRET, memory_settings
from tests.api.memory import MemoryAnalytics, MemoryBus, MemoryCredentials, MemoryLog, MemoryReads

POLICIES = 100
TENANT = "ten_bench"
KEY = "wax_sk_" + "k" * 43
BODY = b'{"agent_name": "billing-7", "workflow_name": "refunds", "model": "gpt-4o"}'
RULES = (
    Rules(budget=BudgetRule(unit="usd", limit=1000, window="day", action="block", warn_percent=80)),
    Rules(rate=RateRule(unit="calls", limit=10**6, window="minute", retry_after_seconds=None)),
    Rules(agents=AgentsRule(allow=[], deny=["rogue-*", "test"], action="block")),
    Rules(models=ModelsRule(allow=["gpt-*", "claude-*"], action="block")),
    Rules(redaction=RedactionRule(fields=["email"], patterns=[])),
)


def figures(seconds: float) -> list[Figure]:
    """Both figures, each over `seconds`."""
    return asyncio.run(_figures(seconds))


async def _figures(seconds: float) -> list[Figure]:
    services = _services()
    memory = policy_memory(services)
    for number in range(POLICIES):
        # A tenth of them speak of this agent; the others have to be looked at, too.
        scope = PolicyScope(agent_names=["billing-*" if number % 10 == 0 else f"agent-{number}"])
        rules = RULES[number // 10 % len(RULES)]
        definition = Definition(name=f"policy {number}", rules=rules, scope=scope)
        memory.apply(TENANT, f"pol_{number}", 1, definition)
    asked = Asked("billing-7", "refunds", model="gpt-4o")

    async def judge() -> None:
        verdict = await memory.judge(TENANT, asked)
        assert len(verdict.evaluations) == POLICIES // 10

    app = build_app(services)

    async def whole() -> None:
        assert await _post(app) == 200

    return [
        await _figure(f"policy check, {POLICIES} policies: the judging", judge, seconds),
        await _figure("the same, the application's own time in all", whole, seconds),
    ]


async def _figure(name: str, call: Any, seconds: float) -> Figure:
    for _ in range(200):
        await call()
    spent: list[float] = []
    began = time.perf_counter()
    while (start := time.perf_counter()) < began + seconds:
        await call()
        spent.append(time.perf_counter() - start)
    found = timed_of(spent, time.perf_counter() - began)
    return Figure(
        name,
        "1 ms asked",
        f"p50 {found.p50 * 1e3:.0f} us, p99 {found.p99 * 1e3:.0f} us, {found.rate:,.0f}/s",
        ratio=found.p50,
        at_most=1.0,
    )


async def _post(app: Any) -> int:
    """One request, as the server hands it to the application; the status of its answer."""
    headers = [(b"x-wax-key", KEY.encode()), (b"content-type", b"application/json")]
    path = "/api/v1/observe/policy-check/"
    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": headers,
        "client": ("127.0.0.1", 1),
    }
    status = 0

    async def receive() -> Any:
        return {"type": "http.request", "body": BODY, "more_body": False}

    async def send(message: Any) -> None:
        nonlocal status
        status = message.get("status", status)

    await app(scope, receive, send)
    return status


def _services() -> Services:
    credentials = MemoryCredentials()
    credentials.api_keys[lookup_prefix(KEY)] = ApiKey(
        "key_1", TENANT, secret_hash(KEY), roles=frozenset({"developer"})
    )
    return Services(
        settings=memory_settings(),
        signer=Signer(SECRET),
        bus=MemoryBus(),
        reads=MemoryReads(),
        credentials=credentials,
        analytics=MemoryAnalytics(),
        clock=SYSTEM_CLOCK,
        log=MemoryLog(),
    )
