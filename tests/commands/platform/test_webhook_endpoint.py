"""An endpoint: opened by a domain, disabled by the sender; people and its owner do the rest."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commands.decider import Context, Emit
from commands.platform.webhook_endpoint import (
    DECIDER,
    OVERLAP_HOURS,
    RETIRING_MAX,
    STREAM,
    DisableWebhookEndpoint,
    EnableWebhookEndpoint,
    RedriveWebhook,
    RotateWebhookSecret,
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
    RetiringSecret,
    WebhookEndpointClosed,
    WebhookEndpointDisabled,
    WebhookEndpointEnabled,
    WebhookEndpointMoved,
    WebhookEndpointOpened,
    WebhookRedriven,
    WebhookRequested,
    WebhookSecretRotated,
)
from tests.given import AGENT, HUMAN, NOW, Given

OPENED = WebhookEndpointOpened("https://agents.example/hooks", "cmd_0", "agt_1", NOW)
DISABLED = WebhookEndpointDisabled("the endpoint answered 410 Gone", NOW)
CLOSED = WebhookEndpointClosed(NOW)
DISABLE = DisableWebhookEndpoint("the endpoint answered 410 Gone")
ENABLED = WebhookEndpointEnabled(NOW)
CONTEXT = Context("ten_1", "wat_1", AGENT, NOW, "cmd_0", {}, {})
HOUR = 3_600_000_000
SENT_AGAIN = (RedriveWebhook("evt_1"), EnableWebhookEndpoint(), RotateWebhookSecret())


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


@pytest.mark.parametrize("command", SENT_AGAIN)
def test_another_agent_has_no_say(command: Any) -> None:
    it = endpoint(OPENED, DISABLED, actor=Actor("agent", "agt_2"))
    it.when(command).then_refused(ActorForbidden)


@pytest.mark.parametrize("command", SENT_AGAIN)
def test_what_is_closed_or_never_was_is_not_there(command: Any) -> None:
    for events in ((), (OPENED, CLOSED), (OPENED, DISABLED, CLOSED)):
        endpoint(*events, actor=HUMAN).when(command).then_refused(WebhookEndpointNotFound)


@pytest.mark.parametrize("actor", [HUMAN, AGENT])
def test_a_disabled_endpoint_is_enabled_once_and_can_be_disabled_again(actor: Actor) -> None:
    it = endpoint(OPENED, DISABLED, actor=actor)
    it.when(EnableWebhookEndpoint()).then(ENABLED)
    it.when(EnableWebhookEndpoint()).then_quiet()
    assert it.state.status == "active"
    it.by(SYSTEM).when(DISABLE).then(DISABLED)


def rotated(seed: str, *retiring: RetiringSecret, at: int = NOW) -> WebhookSecretRotated:
    return WebhookSecretRotated(seed, list(retiring), at)


def test_a_rotated_secret_signs_beside_the_new_one_for_a_while() -> None:
    until = NOW + OVERLAP_HOURS * HOUR
    it = endpoint(OPENED, actor=AGENT)
    it.when(RotateWebhookSecret()).then(rotated("cmd_1", RetiringSecret("cmd_0", until)))
    it.when(RotateWebhookSecret()).then_quiet()  # the same command again
    assert (it.state.key_seed, it.state.status) == ("cmd_1", "active")


def test_a_second_rotation_keeps_what_the_first_promised_and_forgets_what_is_over() -> None:
    lately, over = RetiringSecret("cmd_b", NOW + 1), RetiringSecret("cmd_a", NOW)
    it = endpoint(OPENED, rotated("cmd_c", lately, over), actor=AGENT)
    kept = RetiringSecret("cmd_c", NOW + 2 * HOUR)
    it.when(RotateWebhookSecret(2)).then(rotated("cmd_1", kept, lately))


def test_a_leaked_secret_is_rotated_away_at_once_and_with_it_all_before() -> None:
    before = rotated("cmd_c", RetiringSecret("cmd_b", NOW + HOUR))
    endpoint(OPENED, before, actor=HUMAN).when(RotateWebhookSecret(0)).then(rotated("cmd_1"))


def test_only_so_many_secrets_sign_at_once() -> None:
    retiring = [RetiringSecret(f"cmd_{name}", NOW + HOUR) for name in "cba"]
    it = endpoint(OPENED, rotated("cmd_d", *retiring), actor=HUMAN).when(RotateWebhookSecret(1))
    (event,) = it.decided()
    assert [one.key_seed for one in event.retiring] == ["cmd_d", "cmd_c", "cmd_b"]
    assert len(event.retiring) == RETIRING_MAX


def test_a_disabled_endpoint_keeps_its_state_through_a_rotation() -> None:
    it = endpoint(OPENED, DISABLED, actor=HUMAN).when(RotateWebhookSecret(0)).then(rotated("cmd_1"))
    assert it.state.status == "disabled"


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
