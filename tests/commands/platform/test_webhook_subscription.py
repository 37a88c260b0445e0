"""A subscription: opened with its endpoint, told in order and never twice, silent once closed."""

from typing import Any, get_type_hints

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from commands.decider import Claim, Emit, Ref, Release
from commands.platform.webhook_endpoint import STREAM as ENDPOINT
from commands.platform.webhook_endpoint import (
    WebhookEndpoint,
    WebhookEndpointIsDisabled,
    WebhookEndpointNotFound,
)
from commands.platform.webhook_subscription import (
    DECIDER,
    WEBHOOKS_MAX,
    ReviseWebhook,
    SendTestWebhook,
    SubscribeWebhook,
    TriggerWebhook,
    UnsubscribeWebhook,
    WebhooksExhausted,
)
from commands.refusals import ActorForbidden, InvalidCommand
from schemas.envelope import SYSTEM, Actor
from schemas.platform.announcements import ANNOUNCEMENTS, selectable, selects
from schemas.platform.webhook import (
    WebhookEndpointClosed,
    WebhookEndpointMoved,
    WebhookEndpointOpened,
    WebhookRequested,
)
from schemas.platform.webhook_subscription import (
    WebhookDescribed,
    WebhookSubscribed,
    WebhookTriggered,
    WebhookTypesChosen,
    WebhookUnsubscribed,
)
from tests.given import AGENT, HUMAN, NOW, Given

ID, URL = "wh_1", "https://hooks.example/weir"
SUBSCRIBE = SubscribeWebhook(URL, ["job.failed", "job.completed", "job.failed"], "ours")
SUBSCRIBED = WebhookSubscribed(["job.completed", "job.failed"], "ours", 0, NOW)
OPENED = Emit(ENDPOINT, ID, WebhookEndpointOpened(URL, "cmd_1", "usr_1", NOW))
CLOSED = WebhookUnsubscribed(0, NOW)


def webhook(*events: Any, endpoint: str = "active", actor: Actor = HUMAN, taken: int = 0) -> Given:
    state = WebhookEndpoint("usr_1", endpoint, url=URL)  # type: ignore[arg-type]
    found = {("platform.webhook_slot", str(slot)): f"wh_{slot + 100}" for slot in range(taken)}
    return Given(
        DECIDER, *events, id=ID, actor=actor, states={Ref(ENDPOINT, ID): state}, found=found
    )


def trigger(offset: int, partition: int = 1) -> TriggerWebhook:
    return TriggerWebhook(f"evt_{offset}", "job.completed", "{}", partition, offset)


def triggered(offset: int, partition: int = 1) -> WebhookTriggered:
    return WebhookTriggered(f"evt_{offset}", "job.completed", partition, offset, NOW)


def requested(event_id: str, type: str = "job.completed", body: str = "{}") -> Emit:
    return Emit(ENDPOINT, ID, WebhookRequested(ID, event_id, type, body, NOW))


def test_a_subscription_opens_an_endpoint_whose_secret_derives_from_the_command() -> None:
    webhook().when(SUBSCRIBE).then(SUBSCRIBED, OPENED)
    webhook(SUBSCRIBED).when(SUBSCRIBE).then_quiet()


def test_what_nobody_tells_of_cannot_be_subscribed_to() -> None:
    for types in (["job.started"], ["job.completed", "invoice"], []):
        command = msgspec.structs.replace(SUBSCRIBE, event_types=types)
        refusal = webhook().when(command).then_refused(InvalidCommand)
        assert refusal.details["field"] == "event_types"


def test_a_tenant_has_so_many_and_a_closed_one_makes_room() -> None:
    webhook(taken=WEBHOOKS_MAX).when(SUBSCRIBE).then_refused(WebhooksExhausted)
    last = msgspec.structs.replace(SUBSCRIBED, slot=WEBHOOKS_MAX - 1)
    webhook(taken=WEBHOOKS_MAX - 1).when(SUBSCRIBE).then(last, OPENED)
    slot = ("platform.webhook_slot", "0")
    assert DECIDER.claims(SUBSCRIBED, ID) == [Claim(*slot)]
    assert DECIDER.claims(CLOSED, ID) == [Release(*slot)]


def test_only_what_changes_is_recorded() -> None:
    it = webhook(SUBSCRIBED)
    it.when(ReviseWebhook(URL, ["job.failed", "job.completed"], "ours")).then_quiet()
    moved = Emit(ENDPOINT, ID, WebhookEndpointMoved("https://else.example", NOW))
    it.when(ReviseWebhook("https://else.example", ["*"], "")).then(
        WebhookTypesChosen(["*"]), WebhookDescribed(""), moved
    )
    it.when(ReviseWebhook(event_types=["nothing"])).then_refused(InvalidCommand)


def test_a_test_event_is_sent_to_an_endpoint_that_takes_some() -> None:
    body = '{"type":"webhook.test","timestamp":"2023-11-14T22:13:20Z","data":{"webhook_id":"wh_1"}}'
    it = webhook(SUBSCRIBED)
    it.when(SendTestWebhook()).then(requested("evt_1", "webhook.test", body))
    disabled = webhook(SUBSCRIBED, endpoint="disabled")
    disabled.when(SendTestWebhook()).then_refused(WebhookEndpointIsDisabled)


def test_an_event_is_told_once_in_the_order_of_the_log() -> None:
    it = webhook(SUBSCRIBED, actor=SYSTEM)
    it.when(trigger(5)).then(triggered(5), requested("evt_5"))
    it.when(trigger(5)).then_quiet()
    it.when(trigger(4)).then_quiet()
    it.when(trigger(3, 2)).then(triggered(3, 2), requested("evt_3"))


@pytest.mark.parametrize(
    "it",
    [
        webhook(actor=SYSTEM),
        webhook(SUBSCRIBED, CLOSED, actor=SYSTEM),
        webhook(SUBSCRIBED, endpoint="disabled", actor=SYSTEM),
    ],
    ids=["absent", "closed", "disabled"],
)
def test_what_takes_no_more_is_told_nothing(it: Given) -> None:
    it.when(trigger(5)).then_quiet()


def test_only_the_log_triggers() -> None:
    for actor in (AGENT, HUMAN):
        webhook(SUBSCRIBED, actor=actor).when(trigger(5)).then_refused(ActorForbidden)


def test_unsubscribing_closes_the_endpoint_for_good() -> None:
    closed = Emit(ENDPOINT, ID, WebhookEndpointClosed(NOW))
    webhook(SUBSCRIBED).when(UnsubscribeWebhook()).then(CLOSED, closed)
    webhook(SUBSCRIBED, CLOSED).when(UnsubscribeWebhook()).then_quiet()
    for command in (ReviseWebhook(), SendTestWebhook()):
        webhook(SUBSCRIBED, CLOSED).when(command).then_refused(WebhookEndpointNotFound)
        webhook().when(command).then_refused(WebhookEndpointNotFound)
    webhook().when(UnsubscribeWebhook()).then_refused(WebhookEndpointNotFound)


def test_types_are_selected_by_name_by_group_and_all() -> None:
    assert {"*", "job.*", "job.completed", "key.deleted", "budget.threshold"} <= set(selectable())
    assert selects(["job.*"], "job.failed") and selects(["*"], "job.failed")
    assert selects(["key.created", "job.failed"], "job.failed")
    assert not selects(["key.*", "job.completed"], "job.failed")


def test_each_row_tells_what_its_event_has() -> None:
    assert len({row.event for row in ANNOUNCEMENTS}) == len(ANNOUNCEMENTS)
    for row in ANNOUNCEMENTS:
        for path in row.told:
            kind: Any = row.event
            for name in path.split("."):
                fields = get_type_hints(kind)
                assert name in fields, (row.type, path)
                kind = fields[name]


@given(st.lists(st.tuples(st.sampled_from(["trigger", "close"]), st.integers(0, 9))))
def test_each_event_is_told_once_in_order_and_never_after_the_end(
    steps: list[tuple[str, int]],
) -> None:
    it, sent, over = webhook(SUBSCRIBED), list[str](), False
    for kind, offset in steps:
        closing = kind == "close"
        command = UnsubscribeWebhook() if closing else trigger(offset)
        for event in it.by(HUMAN if closing else SYSTEM).when(command).decided():
            assert not over
            if not isinstance(event, Emit):
                it.state = DECIDER.evolve(it.state, event)
            elif isinstance(event.event, WebhookRequested):
                sent.append(event.event.event_id)
        over = over or closing
    assert sent == sorted(set(sent))
