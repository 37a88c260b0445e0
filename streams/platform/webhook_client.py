"""One POST of a webhook, as the Standard Webhooks specification wants it, and what came of it.

The receiver is somebody else's: it may be slow, huge, hostile, or mean an address of our own
network. So everything has a bound, and addresses are checked when they are connected to.
"""

import asyncio
import contextlib
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx
from standardwebhooks import Webhook

from infra.clock import Clock
from infra.egress import AddressRefused, AnswerRefused, egress_client
from infra.ids import Signer
from streams.platform.webhook_schedule import Answer

CONNECT_SECONDS = 5.0
TOTAL_SECONDS = 15.0
RESPONSE_BYTES_KEPT = 1024
# After the status has come, which is all that counts.
_BODY_SECONDS = 1.0
_ANSWER_BYTES_MAX = 64 * 1024
_ERROR_CHARACTERS_MAX = 300


class WebhookClient:
    """Posts webhooks. allowed: networks that may be reached although they are not public."""

    def __init__(self, signer: Signer, allowed: Iterable[str], clock: Clock) -> None:
        self._signer, self._clock = signer, clock
        self._client = egress_client(
            allowed,
            answer_bytes_max=_ANSWER_BYTES_MAX,
            timeout=httpx.Timeout(TOTAL_SECONDS, connect=CONNECT_SECONDS),
        )

    async def post(self, url: str, key_seeds: Sequence[str], event_id: str, body: str) -> Answer:
        """Post a body once, signed with each secret. Never raises for what the receiver does."""
        began = self._clock.now()
        try:
            async with asyncio.timeout(TOTAL_SECONDS):
                found = await self._post(url, self._headers(key_seeds, event_id, body), body)
        except AnswerRefused as error:
            # What it says does not matter, that it took the webhook does.
            found = Answer(0, status_code=error.status_code)
        except TimeoutError:
            found = Answer(0, error=f"no answer within {TOTAL_SECONDS:g} s")
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            found = Answer(0, error=_said(error))
        return found._replace(duration_ms=max(0, self._clock.now() - began) // 1000)

    async def stop(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _post(self, url: str, headers: dict[str, str], body: str) -> Answer:
        request = self._client.stream("POST", url, content=body.encode(), headers=headers)
        async with request as response:
            return Answer(
                0,
                status_code=response.status_code,
                response=await _beginning(response),
                retry_after=self._retry_after(response.headers.get("retry-after", "")),
            )

    def _headers(self, key_seeds: Sequence[str], event_id: str, body: str) -> dict[str, str]:
        seconds = self._clock.now() // 1_000_000
        at = datetime.fromtimestamp(seconds, UTC)
        webhooks = [Webhook(self._signer.webhook_secret(seed)) for seed in key_seeds]
        return {
            "content-type": "application/json",
            "user-agent": "Weir-Webhooks/1",
            "webhook-id": event_id,
            "webhook-timestamp": str(seconds),
            "webhook-signature": " ".join(one.sign(event_id, at, body) for one in webhooks),
        }

    def _retry_after(self, text: str) -> int | None:
        """Seconds from now, of a Retry-After that is a number or a date."""
        if text.isascii() and text.isdigit():
            return int(text[:9])
        with contextlib.suppress(ValueError, TypeError, OverflowError):
            until = parsedate_to_datetime(text).timestamp()
            return max(0, int(until - self._clock.now() / 1_000_000))
        return None


async def _beginning(response: httpx.Response) -> str:
    """What the answer's body begins with, of what comes soon; it decides nothing."""
    kept = b""
    with contextlib.suppress(TimeoutError, httpx.HTTPError):
        async with asyncio.timeout(_BODY_SECONDS):
            async for chunk in response.aiter_raw():
                kept += chunk[: RESPONSE_BYTES_KEPT - len(kept)]
                if len(kept) >= RESPONSE_BYTES_KEPT:
                    break
    # Postgres cannot hold a NUL.
    return kept.decode(errors="replace").replace("\x00", "\N{REPLACEMENT CHARACTER}")


def _said(error: Exception) -> str:
    if isinstance(error, httpx.TimeoutException):
        return f"no answer within {TOTAL_SECONDS:g} s"
    name = "" if isinstance(error, AddressRefused) else f"{type(error).__name__}: "
    text = (name + str(error)).rstrip(": ").replace("\x00", "")
    return text[:_ERROR_CHARACTERS_MAX]
