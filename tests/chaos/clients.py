"""Clients that work through kills, and the ledger of what they were told.

Each does what a careful client does: a key with every write, the same request again after a lost
answer or a 503, until it has an answer. A 5xx other than 503 ends the run: nothing may break.
"""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import httpx

PATIENCE_SECONDS = 120.0


@dataclass
class Prompt:
    """versions: the hashes of their contents, in order. labels: where each points."""

    versions: list[str] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)


@dataclass
class Told:
    """What one run of the load was acknowledged."""

    calls: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    tokens: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    cost: dict[str, Decimal] = field(default_factory=lambda: defaultdict(Decimal))
    completed: set[str] = field(default_factory=set)
    check_ins: dict[str, str] = field(default_factory=dict)
    usage: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    jobs: set[str] = field(default_factory=set)
    tasks: dict[str, str] = field(default_factory=dict)
    watchers: dict[str, str] = field(default_factory=dict)
    webhooks: str = ""  # the watcher that has some
    received: list[str] = field(default_factory=list)  # their ids, in the order of their arrival
    prompts: dict[str, Prompt] = field(default_factory=lambda: defaultdict(Prompt))
    unkeyed: dict[str, set[str]] = field(default_factory=dict)  # runs, by agent
    persons: dict[str, str] = field(default_factory=dict)  # by run; nobody, once erased
    erasures: set[str] = field(default_factory=set)
    secret: str = ""  # of persons
    requests: int = 0
    retries: int = 0

    def reported(self, run: str, calls: Sequence[dict[str, Any]]) -> None:
        """LLM calls of a run were acknowledged."""
        self.calls[run] |= {call["id"] for call in calls}
        self.tokens[run] += sum(call["tokens_in"] + call["tokens_out"] for call in calls)
        self.cost[run] += sum(Decimal(repr(call["cost"])) for call in calls)


class Client:
    """One credential's HTTP client; every write carries a key and is repeated until answered."""

    def __init__(self, http: httpx.AsyncClient, headers: dict[str, str], told: Told) -> None:
        self._http, self._headers, self._told = http, headers, told

    async def call(self, method: str, path: str, key: str, body: Any = None) -> dict[str, Any]:
        """The JSON of the first 2xx answer. Raises AssertionError on what may never happen."""
        headers = {**self._headers, **({"Idempotency-Key": key} if key else {})}
        deadline = asyncio.get_running_loop().time() + PATIENCE_SECONDS
        while True:
            self._told.requests += 1
            seen = "no answer"
            try:
                response = await self._http.request(method, path, json=body, headers=headers)
            except httpx.TransportError as error:
                seen = repr(error)
            else:
                if response.is_success:
                    return dict(response.json()) if response.content else {}
                seen = f"{response.status_code} {response.text}"
                assert response.status_code in (503, 429), f"{method} {path}: {seen}"
                assert "retry-after" in response.headers
            now = asyncio.get_running_loop().time()
            assert now < deadline, f"{method} {path} had no answer in time: {seen}"
            self._told.retries += 1
            await asyncio.sleep(0.2)
