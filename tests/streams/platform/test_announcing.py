"""The fan-out to webhooks: which subscriptions an event triggers, and what they are told."""

from typing import Any

import msgspec
import pytest

from commands.platform.webhook_subscription import TriggerWebhook
from schemas.billing.subscription import InvoiceChanged, StripeInvoice
from schemas.envelope import SYSTEM, Actor, Envelope
from schemas.fhe.evaluation_key import EvaluationKeyRegistered
from schemas.fhe.job import JobFailed
from streams.following import Followed
from streams.platform.announcing import announcements
from tests.commands.fhe.cases import FINGERPRINT, RELIN

AT = 1_700_000_000_000_000
FAILED = JobFailed("ek_1", "level_exhausted", "no level is left", AT)


def followed(event: Any = FAILED, tenant: str = "ten_1", stream: str = "fhe.job/job_1") -> Followed:
    envelope = Envelope(
        "evt_1", "x", tenant, stream, 1, AT, Actor("user", "usr_1"), correlation_id="req_1"
    )
    return Followed(envelope, event, 2, 7)


def subscription(**fields: Any) -> dict[str, Any]:
    row = {"tenant": "ten_1", "id": "wh_1", "event_types": ["job.*"], "created_at": AT}
    return {**row, **fields}


def test_a_match_is_a_command_whose_id_follows_from_the_two() -> None:
    (request,) = announcements([followed()], [subscription()])
    assert (request.tenant, request.stream_id, request.actor) == ("ten_1", "wh_1", SYSTEM)
    assert request.correlation_id == "req_1" and request.fingerprint
    command = request.command
    assert isinstance(command, TriggerWebhook)
    assert (command.event_id, command.partition, command.offset) == ("evt_1", 2, 7)
    assert msgspec.json.decode(command.body) == {
        "type": "job.failed",
        "timestamp": "2023-11-14T22:13:20Z",
        "data": {
            "job_id": "job_1",
            "key_id": "ek_1",
            "reason": "level_exhausted",
            "message": "no level is left",
            "failed_at": "2023-11-14T22:13:20Z",
        },
    }
    (again,) = announcements([followed()], [subscription()])
    assert again.command_id == request.command_id
    (other,) = announcements([followed()], [subscription(id="wh_2")])
    assert other.command_id != request.command_id


@pytest.mark.parametrize(
    "fields",
    [{"event_types": ["job.completed", "key.*"]}, {"tenant": "ten_2"}, {"created_at": AT + 1}],
    ids=["another type", "another tenant", "made later"],
)
def test_what_does_not_match_triggers_nothing(fields: dict[str, Any]) -> None:
    assert announcements([followed()], [subscription(**fields)]) == []


def test_an_invoice_and_its_subscription_are_told_by_their_fields() -> None:
    invoice = StripeInvoice(
        invoice_id="in_1",
        number="W-1",
        customer_id="cus_1",
        subscription_id="sub_1",
        status="paid",
        currency="usd",
        amount_due_minor=19_900,
        amount_paid_minor=19_900,
        period_start=0,
        period_end=0,
        created=0,
        version=1,
    )
    event = followed(InvoiceChanged(invoice=invoice), stream="billing.invoice/in_1")
    (request,) = announcements([event], [subscription(event_types=["invoice.*"])])
    assert isinstance(request.command, TriggerWebhook)
    told = msgspec.json.decode(request.command.body)
    assert told["type"] == "invoice.updated"
    assert told["data"] == {
        "invoice_id": "in_1",
        "number": "W-1",
        "subscription_id": "sub_1",
        "status": "paid",
        "currency": "usd",
        "amount_due_minor": 19_900,
        "amount_paid_minor": 19_900,
    }


def test_every_subscription_is_told_in_the_order_of_the_log() -> None:
    key = EvaluationKeyRegistered("ek_1", "ckks-n13", FINGERPRINT, "mine", [RELIN], AT)
    events = [followed(), followed(key, stream="fhe.evaluation_key/ek_1")]
    found = announcements(events, [subscription(event_types=["*"]), subscription(id="wh_2")])
    told = [(one.stream_id, msgspec.structs.asdict(one.command)["event_type"]) for one in found]
    assert told == [("wh_1", "job.failed"), ("wh_2", "job.failed"), ("wh_1", "key.created")]
    # Where the bytes lie is told nobody.
    assert RELIN.object not in found[-1].command.body  # type: ignore[attr-defined]
