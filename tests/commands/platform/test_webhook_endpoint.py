"""An endpoint: opened by a domain, disabled by the sender, redriven by whose it is or a person."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commands.decider import Context, Emit
from commands.platform.webhook_endpoint import (
    DECIDER,
    STREAM,
    DisableWebhookEndpoint,
    RedriveWebhook,
    WebhookEndpoint,
    WebhookEndpointIsDisabled,
    WebhookEndpointNotFound,
    closed,
    moved,
    opened,
    requested,
)
from commands.refusals import ActorForbidden, Refusal
from schemas.envelope import SYSTEM, Actor
from schemas.platform.webhook import (
    WebhookEndpointClosed,
    WebhookEndpointDisabled,
    WebhookEndpointMoved,
    WebhookEndpointOpened,
    WebhookRedriven,
    WebhookRequested,
)
from tests.given import AGENT, HUMAN, NOW, Given

OPENED = WebhookEndpointOpened("https://agents.example/hooks", "cmd_1", "agt_1", NOW)
DISABLED = WebhookEndpointDisabled("the endpoint answered 410 Gone", NOW)
CLOSED = WebhookEndpointClosed(NOW)
DISABLE = DisableWebhookEndpoint("the endpoint answered 410 Gone")
CONTEXT = Context("ten_1", "wat_1", AGENT, NOW, "cmd_1", {}, {})


def endpoint(*events: Any, actor: Actor = SYSTEM) -> Given:
    return Given(DECIDER, *events, id="wat_1", actor=actor)


def test_the_sender_disables_it_once() -> None:
    endpoint(OPENED).when(DISABLE).then(DISABLED)
    endpoint(OPENED, DISABLED).when(DISABLE).then_quiet()


def test_nobody_else_disables_it() -> None:
    for actor in (AGENT, HUMAN):
        endpoint(OPENED, actor=actor).when(DISABLE).then_refused(ActorForbidden)


@pytest.mark.parametrize("actor", [SYSTEM, HUMAN, AGENT])
def test_a_webhook_is_sent_again(actor: Actor) -> None:
    it = endpoint(OPENED, actor=actor)
    it.when(RedriveWebhook("evt_1")).then(WebhookRedriven("wat_1", "evt_1", NOW))


def test_another_agent_has_nothing_sent_again() -> None:
    it = endpoint(OPENED, actor=Actor("agent", "agt_2"))
    it.when(RedriveWebhook("evt_1")).then_refused(ActorForbidden)


def test_nothing_is_sent_again_to_what_is_over() -> None:
    again = RedriveWebhook("evt_1")
    endpoint(OPENED, DISABLED).when(again).then_refused(WebhookEndpointIsDisabled)
    endpoint(OPENED, CLOSED).when(again).then_refused(WebhookEndpointNotFound)
    endpoint().when(again).then_refused(WebhookEndpointNotFound)


def test_what_other_domains_emit() -> None:
    assert opened("wat_1", OPENED.url, CONTEXT) == Emit(STREAM, "wat_1", OPENED)
    active = WebhookEndpoint("agt_1", "active")
    assert closed("wat_1", active, CONTEXT) == [Emit(STREAM, "wat_1", CLOSED)]
    about = {"event_id": "evt_1", "event_type": "t", "body": "{}"}
    event = WebhookRequested("wat_1", "evt_1", "t", "{}", NOW)
    assert requested("wat_1", active, CONTEXT, **about) == [Emit(STREAM, "wat_1", event)]


@pytest.mark.parametrize("status", ["absent", "disabled", "closed"])
def test_nothing_is_requested_of_what_is_not_active(status: Any) -> None:
    it = WebhookEndpoint("agt_1", status)
    assert requested("wat_1", it, CONTEXT, event_id="e", event_type="t", body="{}") == []
    assert (closed("wat_1", it, CONTEXT) == []) == (status != "disabled")


@given(st.lists(st.sampled_from([DISABLE, RedriveWebhook("evt_1")])))
def test_once_disabled_nothing_is_sent(commands: list[Any]) -> None:
    it = endpoint(OPENED)
    for command in commands:
        disabled = it.state.status == "disabled"
        try:
            events = it.when(command).decided()
        except Refusal:
            assert disabled
            continue
        assert not (disabled and events)
        for event in events:
            it.state = DECIDER.evolve(it.state, event)


def test_an_endpoint_moves_and_keeps_its_status() -> None:
    elsewhere = "https://agents.example/elsewhere"
    event = WebhookEndpointMoved(elsewhere, NOW)
    state = endpoint(OPENED, DISABLED).state
    assert moved("wat_1", state, elsewhere, CONTEXT) == [Emit(STREAM, "wat_1", event)]
    there = DECIDER.evolve(state, event)
    assert (there.url, there.status) == (elsewhere, "disabled")
    assert moved("wat_1", there, elsewhere, CONTEXT) == []
    assert moved("wat_1", endpoint(OPENED, CLOSED).state, elsewhere, CONTEXT) == []
