"""A server that speaks as much of Stripe's API as we use, and signs webhooks as Stripe does.

It keeps what it made, answers a repeated idempotency key with what it answered first, and can be
made to fail before it has done anything, or to lose the answer of what it did.
"""

import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any, Literal
from urllib.parse import parse_qsl, urlsplit

API_KEY, WEBHOOK_SECRET = "sk_test_weir", "whsec_test_weir"
PERIOD_END = 1_900_000_000
Fault = Literal["", "away", "answer_lost"]
Answer = tuple[int, dict[str, Any]]


class StripeServer:
    """What is at Stripe. fault: what happens to every write; requests: `(method, path, key)`.

    lost_at: the end of the path at which the answers to writes are lost.
    """

    def __init__(self) -> None:
        self.url = ""
        self.fault: Fault = ""
        self.lost_at = ""
        self.invoices: dict[str, dict[str, Any]] = {}
        self.customers: dict[str, dict[str, Any]] = {}
        self.subscriptions: dict[str, dict[str, Any]] = {}
        self.requests: list[tuple[str, str, str]] = []
        self._answers: dict[str, tuple[Any, Answer]] = {}
        self._events = 0
        self._lock = Lock()

    def answer(self, method: str, target: str, body: str, key: str) -> Answer | None:
        """What to answer a request; None to hang up without an answer."""
        parts = urlsplit(target)
        asked = _nested(body or parts.query)
        with self._lock:
            self.requests.append((method, parts.path, key))
            if method == "GET":
                return self._read(parts.path, asked)
            if self.fault == "away":
                return 503, {"error": {"type": "api_error", "message": "away"}}
            if key in self._answers:
                before, answer = self._answers[key]
                if before != asked:
                    message = "Keys for idempotent requests can only be used with the same ones"
                    return 400, {"error": {"type": "idempotency_error", "message": message}}
            else:
                answer = self._write(method, parts.path, asked)
                self._answers[key] = asked, answer
            lost = self.lost_at and parts.path.endswith(self.lost_at)
            return None if lost or self.fault == "answer_lost" else answer

    def forget_keys(self) -> None:
        """Forget all idempotency keys, as Stripe does after 24 hours."""
        self._answers.clear()

    def _read(self, path: str, asked: dict[str, Any]) -> Answer:
        if path == "/v1/prices":
            [lookup_key] = asked["lookup_keys"].values()
            return 200, {"object": "list", "data": [_price(lookup_key)], "has_more": False}
        if path == "/v1/customers/search":
            _, tenant, _ = asked["query"].rsplit("'", 2)
            of_tenant = [
                customer
                for customer in self.customers.values()
                if customer["metadata"]["weir_tenant"] == tenant
            ]
            return 200, {"object": "search_result", "data": of_tenant, "has_more": False}
        if path == "/v1/invoices":
            of_customer = [
                invoice
                for invoice in self.invoices.values()
                if invoice["customer"] == asked["customer"]
                and invoice["created"] >= int(asked["created"]["gte"])
            ]
            return 200, {"object": "list", "data": of_customer, "has_more": False}
        found = self.subscriptions.get(path.rsplit("/", 1)[1])
        if found is None:
            return 404, {"error": {"type": "invalid_request_error", "message": "No such thing"}}
        if "expand" not in asked:
            return 200, found
        url = f"{self.url}/pay/{found['id']}"
        invoice = {"object": "invoice", "id": "in_1", "status": "open", "hosted_invoice_url": url}
        return 200, {**found, "latest_invoice": invoice}

    def _write(self, method: str, path: str, asked: dict[str, Any]) -> Answer:
        if path == "/v1/customers":
            id = f"cus_{len(self.customers) + 1}"
            self.customers[id] = {"id": id, "object": "customer", "created": PERIOD_END, **asked}
            return 200, self.customers[id]
        if path.startswith("/v1/invoice"):
            return self._write_invoice(path, asked)
        if path == "/v1/subscriptions":
            id = f"sub_stripe{len(self.subscriptions) + 1}"
            price = asked["items"]["0"]["price"]
            self.subscriptions[id] = _subscription(id, asked["customer"], price, asked["metadata"])
            return 200, self.subscriptions[id]
        held = self.subscriptions[path.rsplit("/", 1)[1]]
        if method == "DELETE":
            held["status"] = "canceled"
        if "items" in asked:
            held["items"]["data"][0]["price"] = _price(_lookup_key(asked["items"]["0"]["price"]))
        if asked.get("cancel_at_period_end"):
            held["cancel_at_period_end"] = True
        return 200, json.loads(json.dumps(held))

    def _write_invoice(self, path: str, asked: dict[str, Any]) -> Answer:
        if path == "/v1/invoices":
            id = f"in_usage{len(self.invoices) + 1}"
            self.invoices[id] = {
                **invoice({"customer": asked["customer"], "metadata": {}, "id": ""}, "draft"),
                "id": id,
                "parent": None,
                "amount_due": 0,
                "created": PERIOD_END,
                "metadata": asked["metadata"],
                "lines": {"object": "list", "data": []},
            }
        elif path == "/v1/invoiceitems":
            id = asked["invoice"]
            held = self.invoices[id]
            assert held["status"] == "draft", "items go on a draft"
            held["amount_due"] += int(asked["amount"])
            item = {"object": "line_item", "amount": int(asked["amount"])}
            held["lines"]["data"].append(item)
            return 200, {"id": f"ii_{id}", "object": "invoiceitem"}
        else:
            *_, id, action = path.split("/")
            assert action == "finalize", path
            if self.invoices[id]["status"] != "draft":
                message = "This invoice is already finalized"
                return 400, {"error": {"type": "invalid_request_error", "message": message}}
            self.invoices[id]["status"] = "open"
        return 200, json.loads(json.dumps(self.invoices[id]))

    def event(
        self, kind: str, content: dict[str, Any], *, created: int | None = None, id: str = ""
    ) -> tuple[bytes, dict[str, str]]:
        """The body and headers of a webhook."""
        self._events += 1
        event = {
            "id": id or f"evt_{self._events}",
            "object": "event",
            "type": kind,
            "created": created or int(time.time()),
            "data": {"object": content},
        }
        payload = json.dumps(event).encode()
        return payload, {"Stripe-Signature": signature(payload)}


def signature(payload: bytes, secret: str = WEBHOOK_SECRET, at: int | None = None) -> str:
    """The header `Stripe-Signature` of a payload."""
    at = int(time.time()) if at is None else at
    digest = hmac.new(secret.encode(), f"{at}.".encode() + payload, hashlib.sha256).hexdigest()
    return f"t={at},v1={digest}"


def invoice(subscription: dict[str, Any], status: str, number: str = "W-1") -> dict[str, Any]:
    """An invoice of a subscription, as its events carry it."""
    details = {"metadata": subscription["metadata"], "subscription": subscription["id"]}
    return {
        "id": f"in_{number}",
        "object": "invoice",
        "number": number,
        "customer": subscription["customer"],
        "parent": {"type": "subscription_details", "subscription_details": details},
        "status": status,
        "currency": "usd",
        "amount_due": 19_900,
        "amount_paid": 19_900 if status == "paid" else 0,
        "period_start": 1_800_000_000,
        "period_end": PERIOD_END,
        "created": 1_800_000_000,
    }


def _subscription(id: str, customer: str, price: str, metadata: dict[str, str]) -> dict[str, Any]:
    item = {
        "id": f"si_{id}",
        "object": "subscription_item",
        "price": _price(_lookup_key(price)),
        "current_period_end": PERIOD_END,
    }
    return {
        "id": id,
        "object": "subscription",
        "customer": customer,
        "status": "incomplete",
        "cancel_at_period_end": False,
        "metadata": metadata,
        "items": {"object": "list", "data": [item]},
    }


def _price(lookup_key: str) -> dict[str, Any]:
    return {"id": f"price_{lookup_key}", "object": "price", "lookup_key": lookup_key}


def _lookup_key(price_id: str) -> str:
    return price_id.removeprefix("price_")


def _nested(encoded: str) -> dict[str, Any]:
    """`items[0][price]=x` as `{"items": {"0": {"price": "x"}}}`."""
    found: dict[str, Any] = {}
    for name, value in parse_qsl(encoded, keep_blank_values=True):
        *path, last = name.replace("]", "").split("[")
        place = found
        for step in path:
            place = place.setdefault(step, {})
        place[last] = value
    return found


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    stripe: StripeServer

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        assert self.headers["Authorization"] == f"Bearer {API_KEY}"
        key = self.headers.get("Idempotency-Key") or ""
        answer = self.stripe.answer(self.command, self.path, body, key)
        if answer is None:
            self.close_connection = True
            return
        status, document = answer
        content = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        # It decides whether our client asks again by itself, which would only take time here.
        self.send_header("Stripe-Should-Retry", "false")
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_DELETE = _serve

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@contextmanager
def stripe_server() -> Iterator[StripeServer]:
    """The server, running."""
    stripe = StripeServer()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"stripe": stripe}))
    stripe.url = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield stripe
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
