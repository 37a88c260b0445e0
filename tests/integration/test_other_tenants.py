"""Every route with another tenant's ids: 404, whoever asks, and nothing of it is changed.

Built from the declared routes: one that is new fails here until its id is made below.
"""

import asyncio
import base64
from typing import Any

import httpx
import numpy as np
import pytest
from msgspec import Struct

from api.app import ROUTES
from api.openapi import operation_id
from api.problems import OBSERVE
from api.provision import connected, provision_tenant
from api.routing import Route
from commands.billing.invoice import RecordStripeInvoice
from commands.billing.subscription_state import RequestSubscription
from infra.bootstrap import Credentials
from infra.config import Settings
from infra.ids import command_id, new_id
from schemas.billing.subscription import StripeInvoice
from schemas.envelope import SYSTEM
from streams.bus import CommandRequest
from tests.api.test_every_route import NAMES_ANYTHING, body_of, check_error
from tests.fhe_workers.clients import Client
from tests.integration.served import Served, headers_of

BY_ID = [
    route
    for route in ROUTES
    if route.who.kinds and "{" in route.path and operation_id(route) not in NAMES_ANYTHING
]
# What comes behind the id of the tenant's own, and has to be well-formed.
FURTHER = {
    "meter": "llm.calls",
    "window": "month",
    "version_num": "1",
    "label": "live",
    "event": "evt_1",
    "delivery_id": "evt_1",
    "part": "0",
}


def owned(route: Route) -> str:
    """The part of a path that names what a tenant owns: up to the first parameter."""
    return route.path[: route.path.index("}") + 1]


def filled(route: Route, id: str) -> str:
    """The route's path with `id` for the first parameter."""
    path = route.path.replace(owned(route), owned(route).partition("{")[0] + id, 1)
    for name, value in FURTHER.items():
        path = path.replace(f"{{{name}}}", value)
    return path


class World:
    """Two tenants; one has made one of everything. ids: by the part of a path that names it."""

    def __init__(self, served: Served, other: Credentials) -> None:
        self.mine, self.theirs = headers_of(served.made), headers_of(other)
        self.client = httpx.Client(base_url=served.url, timeout=60)
        tenant = served.made.tenant_id
        self.ids = {"/api/v1/billing/tenants/{tenant_id}": tenant}
        self._make_run()
        self._make_check_in()
        self._make_credentials(tenant)
        self._make_computation()
        self._make_model_cost()
        self._make_prompt()
        self._make_webhook()
        self._make_erasure()
        asyncio.run(self._make_bills(served.settings, tenant))
        rule = {"kind": "agents", "deny": ["x"]}
        policy = self._post("/api/v1/observe/policies/", "user", {"name": "p", "rule": rule})
        self.ids["/api/v1/observe/policies/{policy_id}"] = policy["policy_id"]
        export = self._post("/waxell/v1/audit/export/", "api_key", {"format": "json"})
        self.ids["/waxell/v1/audit/export/{export_id}"] = export["export_id"]

    def _post(self, path: str, kind: str, body: Any, **headers: str) -> Any:
        answer = self.client.post(path, json=body, headers={**self.mine[kind], **headers})
        assert answer.status_code < 300, answer.text
        return answer.json()

    def _get(self, path: str, kind: str) -> Any:
        answer = self.client.get(path, headers=self.mine[kind])
        assert answer.status_code == 200, answer.text
        return answer.json()

    def _make_run(self) -> None:
        named = {"agent_name": "a", "session_id": "the-session", "user_id": "the-user"}
        run = self._post("/api/v1/observe/runs/start/", "api_key", named)
        self.ids["/api/v1/observability/sessions/{session_id}"] = named["session_id"]
        self.ids["/api/v1/observability/users/{user_id}"] = named["user_id"]
        self.ids["/api/v1/observe/runs/{run_id}"] = run["run_id"]
        calls = {"calls": [{"model": "m", "tokens_in": 1, "tokens_out": 1}]}
        path = f"/api/v1/observe/runs/{run['run_id']}/llm-calls/"
        answer = self.client.post(path, json=calls, headers=self.mine["api_key"])
        position = answer.headers["x-log-position"]
        event = {"events": [{"event_type": "override"}]}
        answer = self.client.post(
            "/api/v1/observe/events/", json=event, headers=self.mine["api_key"]
        )
        recorded = answer.headers["x-log-position"]
        self._get(f"/api/v1/observability/events/?min_position={recorded}", "user")
        listed = self._get(f"/api/v1/observability/llm-calls/?min_position={position}", "user")
        self.ids["/api/v1/observability/llm-calls/{call_id}"] = listed["results"][0]["id"]

    def _make_erasure(self) -> None:
        named = {"agent_name": "a", "user_id": "the-erased-user"}
        self._post("/api/v1/observe/runs/start/", "api_key", named)
        path = "/api/v1/observability/users/the-erased-user/"
        answer = self.client.delete(path, headers=self.mine["user"])
        assert answer.status_code == 202, answer.text
        self.ids["/api/v1/observability/erasures/{erasure_id}"] = answer.json()["erasure_id"]

    def _make_check_in(self) -> None:
        key = {"Idempotency-Key": "the room"}
        room = self._post("/v1/rooms", "user", {"name": "Other tenants"}, **key)["data"]
        self.ids["/v1/rooms/{room}"] = room["id"]
        check_in = self._post(f"/v1/rooms/{room['id']}/check-in", "agent", {"action": "x"})
        self.ids["/v1/check-ins/{id}"] = check_in["data"]["id"]
        task = self._post(f"/v1/rooms/{room['id']}/tasks", "user", {"action": "x"})
        self.task_id = task["data"]["id"]
        watch = {"event_types": ["signal.broadcast"]}
        watcher = self._post(f"/v1/rooms/{room['id']}/watch", "agent", watch)
        self.ids["/v1/watchers/{id}"] = watcher["data"]["id"]
        agent = self._get("/v1/agents/me", "agent")["data"]
        self.ids["/v1/agents/{agent}"] = agent["id"]

    def _make_model_cost(self) -> None:
        path = "/api/v1/observe/model-costs/{model_id}"
        self.ids[path] = "acme/our-own:v1.2"
        cost = {"input_cost_per_million": 1, "output_cost_per_million": 2}
        url = path.format(model_id=self.ids[path])
        answer = self.client.put(url, json=cost, headers=self.mine["api_key"])
        assert answer.status_code == 200, answer.text

    def _make_credentials(self, tenant: str) -> None:
        sessions = self._get("/api/v1/auth/sessions", "user")["sessions"]
        self.ids["/api/v1/auth/sessions/{session_id}"] = sessions[0]["id"]
        issued = self._post("/api/v1/api-keys", "user", {"name": "k", "roles": ["viewer"]})
        self.ids["/api/v1/api-keys/{api_key_id}"] = issued["id"]
        me = self._get("/api/v1/auth/me", "user")
        command = command_id(tenant, "the room", scope=f"user:{me['user_id']}")
        self.ids["/api/v1/commands/{command_id}"] = command
        self.ids["/commands/{command_id}"] = command

    def _make_computation(self) -> None:
        client = Client()
        octets = {**self.mine["api_key"], "Content-Type": "application/octet-stream"}
        key = self.client.post("/api/v1/keys", content=client.relin, headers=octets).json()
        self.ids["/api/v1/keys/{key_id}"] = key["key_id"]
        parts = [{"kind": "relin", "size_bytes": len(client.relin)}]
        body = {"params_id": "ckks-n13", "parts": parts}
        upload = self._post("/api/v1/keys/uploads", "api_key", body)
        self.ids["/api/v1/keys/uploads/{upload_id}"] = upload["upload_id"]
        cipher = base64.b64encode(client.encrypt(np.array([1.0]))).decode()
        body = {"key_id": key["key_id"], "operands": [{"ciphertext": cipher}] * 2}
        job = self._post("/api/v1/compute/add?wait=0", "api_key", body)
        self.ids["/api/v1/jobs/{job_id}"] = job["job_id"]
        # Models are everybody's; the key that one runs under is not.
        self.ids["/api/v1/compute/models/{model_id}"] = "digits-linear-v1"
        # No id, but what is asked for: the key in the body is nobody's.
        self.ids["/api/v1/tfhe/gates/{gate}"] = "and"

    def _make_webhook(self) -> None:
        body = {"url": "https://hooks.example/", "event_types": ["*"]}
        webhook = self._post("/api/v1/webhooks", "api_key", body)
        self.ids["/api/v1/webhooks/{webhook_id}"] = webhook["webhook_id"]

    def _make_prompt(self) -> None:
        body = {"name": "other-tenants", "content": "x"}
        prompt = self._post("/api/v1/prompts/", "user", body)
        label = f"/api/v1/prompts/{prompt['id']}/labels/live/"
        answer = self.client.put(label, json={"version": 1}, headers=self.mine["user"])
        assert answer.status_code == 200, answer.text
        self.ids["/api/v1/prompts/{prompt_id}"] = prompt["id"]
        self.ids["/api/v1/observe/prompts/{name}"] = body["name"]

    async def _make_bills(self, settings: Settings, tenant: str) -> None:
        """A subscription and an invoice, as Stripe would have told of them."""
        told = StripeInvoice(
            invoice_id="in_other_tenants",
            number="W-1",
            customer_id="cus_1",
            subscription_id="sub_other_tenants",
            status="open",
            currency="usd",
            amount_due_minor=1,
            amount_paid_minor=0,
            period_start=1,
            period_end=2,
            created=1,
            version=1,
        )
        commands: dict[str, Struct] = {
            told.subscription_id: RequestSubscription("pro"),
            told.invoice_id: RecordStripeInvoice(told),
        }
        async with connected(settings) as installation:
            for id, command in commands.items():
                reply = await installation.bus.send(
                    CommandRequest(
                        tenant=tenant,
                        stream_id=id,
                        command=command,
                        actor=SYSTEM,
                        command_id=new_id("cmd"),
                    )
                )
                assert reply.status == "accepted"
        self.ids["/api/v1/billing/subscriptions/{subscription_id}"] = told.subscription_id
        self.ids["/api/v1/billing/invoices/{invoice_id}"] = told.invoice_id


async def _another(settings: Settings) -> Credentials:
    async with connected(settings) as installation:
        return await provision_tenant(installation, name="Other", email="other@weir.test")


@pytest.fixture(scope="module")
def world(served: Served) -> World:
    return World(served, asyncio.run(_another(served.settings)))


@pytest.mark.parametrize("route", BY_ID, ids=operation_id)
def test_another_tenant_s_id_is_not_found(world: World, route: Route) -> None:
    assert owned(route) in world.ids, "make one of these in World"
    path = filled(route, world.ids[owned(route)])
    for kind in route.who.kinds:
        answer = world.client.request(
            route.method, path, headers=world.theirs[kind], **body_of(route)
        )
        check_error(answer, 404, route.dialect)


@pytest.mark.parametrize(
    "route",
    [route for route in BY_ID if owned(route) == "/v1/check-ins/{id}"],
    ids=operation_id,
)
def test_another_tenant_s_task_is_not_found(world: World, route: Route) -> None:
    for kind in route.who.kinds:
        path = filled(route, world.task_id)
        answer = world.client.request(
            route.method, path, headers=world.theirs[kind], **body_of(route)
        )
        check_error(answer, 404, route.dialect)


def test_a_trial_key_computes_and_does_nothing_else(world: World) -> None:
    trial = world.client.post("/api/v1/onboarding/temp-key").json()
    headers = {"Authorization": f"Bearer {trial['key']}"}
    listed = world.client.get("/api/v1/jobs", headers=headers)
    assert (listed.status_code, listed.json()["data"]) == (200, [])
    for path in ("/api/v1/api-keys", "/api/v1/billing/invoices", "/api/v1/prompts/"):
        answer = world.client.get(path, headers=headers)
        assert answer.status_code == 403, path
    others = world.ids["/api/v1/keys/{key_id}"]
    assert world.client.get(f"/api/v1/keys/{others}", headers=headers).status_code == 404


LISTS = [
    "/api/v1/observability/llm-calls/",
    "/api/v1/observability/sessions/",
    "/api/v1/observability/users/",
    "/api/v1/observability/events/",
    "/api/v1/observability/erasures/",
    "/api/v1/evaluations/scores/",
]


def test_another_tenant_s_runs_and_calls_cannot_be_scored(world: World) -> None:
    call_id = world.ids["/api/v1/observability/llm-calls/{call_id}"]
    for scored in ("run_id", world.ids["/api/v1/observe/runs/{run_id}"]), ("llm_call_id", call_id):
        body = {"name": "n", "value": 1, scored[0]: scored[1]}
        path = "/api/v1/evaluations/scores/create/"
        for kind in ("api_key", "user"):
            answer = world.client.post(path, json=body, headers=world.theirs[kind])
            check_error(answer, 404, OBSERVE)
        mine = world.client.post(path, json=body, headers=world.mine["user"])
        assert mine.status_code == 201
        position = mine.headers["x-log-position"]
    for path in LISTS:
        asked = {"min_position": position}
        theirs = world.client.get(path, params=asked, headers=world.theirs["user"]).json()
        assert (path, theirs["results"], theirs["count"]) == (path, [], 0)
        mine = world.client.get(path, params=asked, headers=world.mine["user"])
        assert mine.json()["count"] > 0


@pytest.mark.parametrize(
    "route",
    [route for route in BY_ID if route.method == "GET" and not route.stream],
    ids=operation_id,
)
def test_its_owner_finds_it_as_it_was(world: World, route: Route) -> None:
    path = filled(route, world.ids[owned(route)])
    kind = sorted(route.who.kinds)[-1]
    answer = world.client.get(path, headers=world.mine[kind])
    assert answer.status_code != 404, answer.text


def test_the_same_model_has_each_tenants_own_cost(world: World) -> None:
    path = "/api/v1/observe/model-costs/"
    model = world.ids["/api/v1/observe/model-costs/{model_id}"]

    def own(headers: dict[str, str]) -> list[float]:
        rows = world.client.get(path, headers=headers).json()["models"]
        return [row["input_cost_per_million"] for row in rows if row["model_id"] == model]

    mine, theirs = world.mine["api_key"], world.theirs["api_key"]
    assert (own(mine), own(theirs)) == ([1.0], [])
    cost = {"input_cost_per_million": 7, "output_cost_per_million": 7}
    assert world.client.put(f"{path}{model}/", json=cost, headers=theirs).status_code == 200
    assert (own(mine), own(theirs)) == ([1.0], [7.0])
    assert world.client.delete(f"{path}{model}/", headers=theirs).status_code == 204
    assert (own(mine), own(theirs)) == ([1.0], [])
