"""Events of `platform.webhook_endpoint`: where webhooks go, and what became of each of them.

Any domain may have endpoints: a watcher of a room has one under its own id.
"""

from typing import Literal

from msgspec import Struct

from schemas.types import Count, Json, Micros, Text

# What an attempt came to: delivered; failed and tried again; dead, after the last; dropped, with
# all that waits for the endpoint, because it takes no more.
WebhookOutcome = Literal["delivered", "failed", "dead", "dropped"]


class WebhookEndpointOpened(Struct, frozen=True, tag="platform.webhook_endpoint_opened.v1"):
    """Webhooks may be sent to a URL.

    key_seed: what the signing secret derives from, together with the installation's master secret;
    it is no secret itself. owner_id: the user or agent who opened it.
    """

    url: Text
    key_seed: str
    owner_id: str
    opened_at: Micros


class WebhookEndpointMoved(Struct, frozen=True, tag="platform.webhook_endpoint_moved.v1"):
    """What is sent from now on, and what waits, goes to another URL; the secret stays."""

    url: Text
    moved_at: Micros


class WebhookEndpointDisabled(Struct, frozen=True, tag="platform.webhook_endpoint_disabled.v1"):
    """The endpoint said that it is gone, or has failed for days. Nothing is sent to it any more."""

    reason: Text
    disabled_at: Micros


class WebhookEndpointEnabled(Struct, frozen=True, tag="platform.webhook_endpoint_enabled.v1"):
    """It was disabled and webhooks may be sent to it again. What was dropped stays dropped."""

    enabled_at: Micros


class RetiringSecret(Struct, frozen=True):
    """A secret that was replaced: webhooks are signed with it, too, before `valid_until`."""

    key_seed: str
    valid_until: Micros


class WebhookSecretRotated(Struct, frozen=True, tag="platform.webhook_secret_rotated.v1"):
    """A new secret signs the endpoint's webhooks; those it replaced do so for a while.

    key_seed: of the new one. retiring: of those before it that count still, newest first.
    """

    key_seed: str
    retiring: list[RetiringSecret]
    rotated_at: Micros


class WebhookEndpointClosed(Struct, frozen=True, tag="platform.webhook_endpoint_closed.v1"):
    """Whose it was has taken it away. Final."""

    closed_at: Micros


class WebhookRequested(Struct, frozen=True, tag="platform.webhook_requested.v1"):
    """A body is to be posted to an endpoint, behind all that was requested for it before.

    event_id: what it tells of, `webhook-id` of every attempt. event_type: as receivers know it.
    """

    endpoint_id: str
    event_id: str
    event_type: Text
    body: Json
    requested_at: Micros


class WebhookRedriven(Struct, frozen=True, tag="platform.webhook_redriven.v1"):
    """Somebody wants a settled delivery sent again: the same body under the same id."""

    endpoint_id: str
    event_id: str
    redriven_at: Micros


class WebhookAttempted(Struct, frozen=True, kw_only=True, tag="platform.webhook_attempted.v1"):
    """The sender posted the first that waits for an endpoint, or could not.

    number: 1 for the first attempt since it was requested or redriven. attempted_at: when it ended.
    status_code: None without an answer, and then `error` says why. response: the beginning of the
    answer's body. retry_at: when it is tried again, if it is.
    """

    endpoint_id: str
    event_id: str
    number: Count
    outcome: WebhookOutcome
    attempted_at: Micros
    duration_ms: Count
    status_code: int | None = None
    error: Text = ""
    response: Text = ""
    retry_at: Micros | None = None


WebhookEndpointEvent = (
    WebhookEndpointOpened
    | WebhookEndpointMoved
    | WebhookEndpointDisabled
    | WebhookEndpointEnabled
    | WebhookSecretRotated
    | WebhookEndpointClosed
    | WebhookRequested
    | WebhookRedriven
)
