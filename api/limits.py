"""Rate limits and lock-outs, in memory per API process, bounded in size.

Rate limit: a token bucket per credential (per client address where there is none). Lock-out:
credentials that keep being wrong make their sender wait. Repeats of one and the same wrong secret
are a client that is set up badly rather than someone guessing, hence a far higher bound.
"""

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable

from api.problems import Problem

Monotonic = Callable[[], float]

_MAX_BUCKETS = 50_000


class Permit:
    """What a response tells of the limit: requests at once, how many are left, seconds to full."""

    __slots__ = ("limit", "remaining", "reset", "retry_after")

    def __init__(self, limit: int, remaining: int, reset: int, retry_after: int) -> None:
        self.limit, self.remaining, self.reset = limit, remaining, reset
        self.retry_after = retry_after  # seconds; 0 when the request may go on


class _Bucket:
    __slots__ = ("at", "tokens")

    def __init__(self, tokens: float, at: float) -> None:
        self.tokens, self.at = tokens, at


class RateLimiter:
    """`per_minute` requests for each key, `burst` of them at once; per_minute 0 means no limit."""

    def __init__(self, per_minute: int, burst: int, now: Monotonic = time.monotonic) -> None:
        self._rate = per_minute / 60
        self._burst = burst
        self._now = now
        self._buckets: OrderedDict[Hashable, _Bucket] = OrderedDict()

    def take(self, key: Hashable) -> Permit:
        """Count one request."""
        if not self._rate:
            return Permit(self._burst, self._burst, 0, 0)
        now, buckets = self._now(), self._buckets
        bucket = buckets.get(key)
        if bucket is None:
            bucket = buckets[key] = _Bucket(float(self._burst), now)
            if len(buckets) > _MAX_BUCKETS:
                buckets.popitem(last=False)
        else:
            tokens = bucket.tokens + (now - bucket.at) * self._rate
            bucket.tokens = tokens if tokens < self._burst else float(self._burst)
            bucket.at = now
            buckets.move_to_end(key)
        retry_after = 0
        if bucket.tokens >= 1:
            bucket.tokens -= 1
        else:
            retry_after = max(1, math.ceil((1 - bucket.tokens) / self._rate))
        reset = math.ceil((self._burst - bucket.tokens) / self._rate)
        return Permit(self._burst, int(bucket.tokens), reset, retry_after)

    def peek(self, key: Hashable) -> Permit:
        """How a key stands, without counting anything."""
        bucket = self._buckets.get(key)
        if not self._rate or bucket is None:
            return Permit(self._burst, self._burst, 0, 0)
        tokens = min(float(self._burst), bucket.tokens + (self._now() - bucket.at) * self._rate)
        return Permit(self._burst, int(tokens), math.ceil((self._burst - tokens) / self._rate), 0)


class _Record:
    __slots__ = ("guesses", "locked_until", "repeats", "since", "strikes")

    def __init__(self, since: float) -> None:
        self.since = since
        self.guesses: set[str] = set()
        self.repeats = 0
        self.locked_until = 0.0
        self.strikes = 0


class Lockout:
    """Makes whoever guesses credentials wait.

    guesses: different wrong secrets within `window` seconds that lock a subject out; repeats: the
    same for one wrong secret over and over. The first lock lasts `seconds`, each further one twice
    as long, an hour at most.
    """

    def __init__(
        self,
        guesses: int = 10,
        repeats: int = 2_000,
        window: float = 60.0,
        seconds: float = 60.0,
        now: Monotonic = time.monotonic,
    ) -> None:
        self._guesses, self._repeats = guesses, repeats
        self._window, self._seconds, self._now = window, seconds, now
        self._records: OrderedDict[Hashable, _Record] = OrderedDict()

    def check(self, *subjects: Hashable) -> None:
        """Raise Problem (429) while any subject is locked out."""
        if not self._records:
            return
        now = self._now()
        for subject in subjects:
            record = self._records.get(subject)
            if record is not None and record.locked_until > now:
                wait = math.ceil(record.locked_until - now)
                raise Problem(
                    429,
                    "rate_limited",
                    f"Too many failed attempts; try again in {wait} s",
                    headers={"retry-after": str(wait)},
                )

    def failed(self, secret_hash: str, *subjects: Hashable) -> None:
        """Note a wrong secret for each subject (an address, an address and an account)."""
        now = self._now()
        for subject in subjects:
            record = self._records.get(subject)
            if record is None or now - record.since > self._window:
                before = record
                record = self._records[subject] = _Record(now)
                if before is not None and now - before.since < 3600:
                    record.strikes, record.locked_until = before.strikes, before.locked_until
                self._records.move_to_end(subject)
                if len(self._records) > _MAX_BUCKETS:
                    self._records.popitem(last=False)
            record.guesses.add(secret_hash)
            record.repeats += 1
            if len(record.guesses) >= self._guesses or record.repeats >= self._repeats:
                record.locked_until = now + min(3600.0, self._seconds * 2**record.strikes)
                record.strikes += 1
                record.guesses.clear()
                record.repeats = 0

    def succeeded(self, *subjects: Hashable) -> None:
        """Forget what was noted: the right secret came."""
        if self._records:
            for subject in subjects:
                self._records.pop(subject, None)
