"""Rate limits and lock-outs, on a clock of the tests' own."""

import pytest

from api.limits import Lockout, RateLimiter
from api.problems import Problem
from tests.api.harness import Harness
from tests.api.sample import COUNTER, ROUTES


class Ticks:
    """A monotonic clock that tests move."""

    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now


def test_a_bucket_empties_and_fills() -> None:
    ticks = Ticks()
    limiter = RateLimiter(60, 3, ticks)
    assert [limiter.take("a").remaining for _ in range(3)] == [2, 1, 0]
    refused = limiter.take("a")
    assert (refused.limit, refused.remaining, refused.retry_after, refused.reset) == (3, 0, 1, 3)
    assert limiter.take("b").remaining == 2
    ticks.now += 1.0
    assert limiter.take("a").retry_after == 0
    assert limiter.take("a").retry_after == 1
    ticks.now += 3600
    assert limiter.take("a").remaining == 2


def test_a_slow_rate_says_how_long_to_wait() -> None:
    ticks = Ticks()
    limiter = RateLimiter(1, 1, ticks)
    limiter.take("a")
    assert limiter.take("a").retry_after == 60
    ticks.now += 59.5
    assert limiter.take("a").retry_after == 1
    ticks.now += 0.5
    assert limiter.take("a").retry_after == 0


def test_looking_costs_nothing() -> None:
    ticks = Ticks()
    limiter = RateLimiter(60, 3, ticks)
    assert limiter.peek("a").remaining == 3
    limiter.take("a")
    limiter.take("a")
    assert [limiter.peek("a").remaining for _ in range(3)] == [1, 1, 1]
    ticks.now += 1
    assert (limiter.peek("a").remaining, limiter.peek("a").reset) == (2, 1)


def test_no_limit_refuses_nothing() -> None:
    limiter = RateLimiter(0, 1)
    assert all(limiter.take("a").retry_after == 0 for _ in range(100))


async def test_a_caller_over_the_limit_is_told_in_its_dialect() -> None:
    changes = {"rate_limit_per_minute": 60, "rate_limit_burst": 2}
    async with Harness(ROUTES, deciders=[COUNTER], changes=changes) as app:
        headers = app.human()
        seen = [
            await app.client.post("/v1/sums/1", json={"n": 1}, headers=headers) for _ in range(3)
        ]
        assert [answer.status_code for answer in seen] == [201, 201, 429]
        assert [answer.headers["ratelimit-remaining"] for answer in seen] == ["1", "0", "0"]
        assert seen[0].headers["ratelimit-limit"] == "2"
        refused = seen[2]
        assert refused.headers["retry-after"] == "1"
        assert refused.json()["retryAfter"] == refused.json()["error"]["retryAfter"] == 1
        assert refused.json()["error"]["code"] == "RATE_LIMITED"
        assert len(app.bus.requests) == 2
        # Another caller has a bucket of its own, and a preflight costs nothing.
        other = await app.client.post("/v1/sums/1", json={"n": 1}, headers=app.human())
        assert other.status_code == 201
        for _ in range(5):
            preflight = await app.client.options("/v1/sums/1")
            assert (preflight.status_code, preflight.headers["ratelimit-remaining"]) == (204, "2")


async def test_without_a_credential_the_address_is_counted() -> None:
    changes = {"rate_limit_per_minute": 60, "rate_limit_burst": 3}
    async with Harness(ROUTES, deciders=[COUNTER], changes=changes) as app:
        paths = ["/nowhere", "/api/v1/echo/1", "/nowhere", "/api/v1/echo/1", "/nowhere"]
        codes = [(await app.client.get(path)).status_code for path in paths]
        assert codes == [404, 401, 404, 429, 429]
        assert (await app.client.get("/api/v1/echo/1", headers=app.key())).status_code == 200


def locked(lockout: Lockout, subject: str) -> int:
    """Seconds that the subject has to wait, 0 when it need not."""
    try:
        lockout.check(subject)
    except Problem as problem:
        assert problem.status == 429
        return int(problem.headers["retry-after"])
    return 0


def test_different_guesses_lock_and_each_lock_is_longer() -> None:
    ticks = Ticks()
    lockout = Lockout(guesses=3, window=60, seconds=30, now=ticks)
    for expected in (30, 60, 120):
        for guess in ("a", "b", "c"):
            assert locked(lockout, "x") == 0
            lockout.failed(guess, "x")
        assert locked(lockout, "x") == expected
        ticks.now += expected
    for _ in range(20):
        for guess in ("a", "b", "c"):
            lockout.failed(guess, "x")
    assert locked(lockout, "x") == 3600
    assert locked(lockout, "y") == 0


def test_repeats_of_one_guess_lock_far_later() -> None:
    ticks = Ticks()
    lockout = Lockout(guesses=3, repeats=100, now=ticks)
    for _ in range(99):
        lockout.failed("same", "x")
    assert locked(lockout, "x") == 0
    lockout.failed("same", "x")
    assert locked(lockout, "x") == 60


def test_guesses_are_forgotten_after_the_window_or_a_success() -> None:
    ticks = Ticks()
    lockout = Lockout(guesses=2, window=60, now=ticks)
    lockout.failed("a", "x")
    ticks.now += 61
    lockout.failed("b", "x")
    assert locked(lockout, "x") == 0
    lockout.succeeded("x")
    lockout.failed("c", "x")
    assert locked(lockout, "x") == 0


def test_each_subject_is_counted_by_itself() -> None:
    lockout = Lockout(guesses=2, now=Ticks())
    lockout.failed("a", "address", "account")
    lockout.failed("b", "account")
    assert locked(lockout, "address") == 0
    with pytest.raises(Problem):
        lockout.check("address", "account")
