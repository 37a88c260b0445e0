"""When a webhook is tried again, and when no more. Pure: the dice are thrown elsewhere."""

from typing import NamedTuple

from schemas.platform.webhook import WebhookOutcome
from streams.platform.webhook_queue import Queue

SCHEDULE_SECONDS = (5, 300, 1_800, 7_200, 18_000, 36_000, 36_000)
"""The pauses between attempts, each up to a tenth shorter or longer."""
ATTEMPTS_MAX = len(SCHEDULE_SECONDS) + 1
LIFETIME_SECONDS = sum(SCHEDULE_SECONDS)
"""How long a webhook may wait, 27.6 hours: its last attempt is made then at the latest."""
GIVE_UP_SECONDS = 5 * 86_400
"""An endpoint that fails for so long without a success in between is disabled."""
RETRY_AFTER_SECONDS_MAX = 86_400
_SECOND = 1_000_000
_JITTER = 0.1
_GONE = 410
# They ask for more time than our schedule gives, and may say how much.
_ASKING_FOR_TIME = frozenset({429, 502, 503, 504})


class Answer(NamedTuple):
    """What came of a POST.

    status_code: None without an answer, and then `error` says why. response: the beginning of its
    body. retry_after: seconds that the endpoint asks for.
    """

    duration_ms: int
    status_code: int | None = None
    error: str = ""
    response: str = ""
    retry_after: int | None = None

    @property
    def delivered(self) -> bool:
        """Only 2xx is; a redirect is not followed."""
        return self.status_code is not None and 200 <= self.status_code < 300


class Judgement(NamedTuple):
    """What follows from an answer. disable: why the endpoint gets nothing more, if it doesn't."""

    outcome: WebhookOutcome
    retry_at: int | None = None
    disable: str = ""


def judge(answer: Answer, queue: Queue, now: int, dice: float) -> Judgement:
    """What follows for the first that waits.

    now: when the attempt ended, microseconds UTC. dice: in [0, 1), where in the jitter.
    """
    if answer.delivered:
        return Judgement("delivered")
    if answer.status_code == _GONE:
        return Judgement("dropped", disable="the endpoint answered 410 Gone")
    since = queue.failing_since or now
    if now - since >= GIVE_UP_SECONDS * _SECOND:
        days = GIVE_UP_SECONDS // 86_400
        return Judgement("dropped", disable=f"no webhook could be delivered for {days} days")
    first = queue.waiting[0]
    last_at = first.since + LIFETIME_SECONDS * _SECOND
    if first.attempts + 1 >= ATTEMPTS_MAX or now >= last_at:
        return Judgement("dead")
    return Judgement("failed", min(now + _pause(answer, queue.failures, dice), last_at))


def _pause(answer: Answer, failures: int, dice: float) -> int:
    """How long to wait, in microseconds; longer for an endpoint that has failed more often."""
    seconds = SCHEDULE_SECONDS[min(failures, len(SCHEDULE_SECONDS) - 1)]
    pause = int(seconds * _SECOND * (1 - _JITTER + 2 * _JITTER * dice))
    if answer.retry_after is not None and answer.status_code in _ASKING_FOR_TIME:
        return max(pause, min(answer.retry_after, RETRY_AFTER_SECONDS_MAX) * _SECOND)
    return pause
