"""Lock-out of those who guess passwords, in memory per API process.

Three counters of *different* wrong guesses within 15 minutes, each locking for a minute first and
twice as long each further time, an hour at most:
- an account from one address: 5. Stops the usual guesser and leaves the owner elsewhere alone;
- an account from anywhere: 25. Bounds a guess that is spread over many addresses, at the price that
  its victim has to wait as well;
- an address over all accounts: 50. Bounds trying one password on many accounts.
The counters know nothing of whether an account exists, so a lock tells nothing either. Several API
processes count apart: the bounds multiply by their number. The account of a known user also gets a
`LoginFailed` event, hence an audit record, for each wrong guess.
"""

import asyncio
import hashlib
import logging
import os
import time

from api.identity.passwords import Passwords
from api.limits import Lockout, Monotonic
from api.services import Services
from commands.identity.user import RecordFailedLogin
from infra.ids import new_id
from infra.kafka import LogUnavailable
from schemas.envelope import Actor
from streams.bus import CommandBus, CommandRequest, OutcomeUnknown

logger = logging.getLogger(__name__)

WINDOW_SECONDS = 900.0
LOCK_SECONDS = 60.0
PER_ACCOUNT_AND_ADDRESS = 5
PER_ACCOUNT = 25
PER_ADDRESS = 50
CACHE = "identity.password_guard"  # its name in Services.caches
_REPORTS_MAX = 200  # on their way at once; the attack that would send more is already counted


class PasswordGuard:
    """What this process knows of password guesses, and the workers that verify passwords."""

    def __init__(
        self,
        bus: CommandBus,
        passwords: Passwords | None = None,
        now: Monotonic = time.monotonic,
    ) -> None:
        def lockout(guesses: int) -> Lockout:
            return Lockout(guesses=guesses, window=WINDOW_SECONDS, seconds=LOCK_SECONDS, now=now)

        self.passwords = passwords or Passwords()
        self._bus = bus
        self._pairs = lockout(PER_ACCOUNT_AND_ADDRESS)
        self._accounts = lockout(PER_ACCOUNT)
        self._addresses = lockout(PER_ADDRESS)
        # Guesses are told apart under a key of this process; what was guessed is not kept.
        self._key = os.urandom(32)
        self._reports: set[asyncio.Task[None]] = set()

    def check(self, account: str, address: str) -> None:
        """Raise Problem (429, Retry-After) while this account or this address is locked out."""
        self._pairs.check((account, address))
        self._accounts.check(account)
        self._addresses.check(address)

    def failed(self, account: str, address: str, password: str) -> None:
        """Count a wrong guess."""
        guess = self._digest(account, password)
        self._pairs.failed(guess, (account, address))
        self._accounts.failed(guess, account)
        self._addresses.failed(guess, address)

    def succeeded(self, account: str, address: str) -> None:
        """Forget the pair's guesses. The others stay: one's own account must not clear them."""
        self._pairs.succeeded((account, address))

    def report(self, tenant: str, user_id: str, address: str, request_id: str) -> None:
        """Put a wrong guess for a known user on the log, without keeping the answer waiting.

        Waiting would tell a known account from an unknown one by its time.
        """
        if len(self._reports) >= _REPORTS_MAX:
            logger.warning("a failed login is not on the audit log: too many at once")
            return
        request = CommandRequest(
            tenant=tenant,
            stream_id=user_id,
            command=RecordFailedLogin(address),
            actor=Actor("anonymous", "anonymous"),
            command_id=new_id("cmd"),
            correlation_id=request_id,
        )
        task = asyncio.create_task(self._post(request))
        self._reports.add(task)
        task.add_done_callback(self._reports.discard)

    async def settle(self) -> None:
        """Wait until what `report` began is on the log (or has failed)."""
        while self._reports:
            await asyncio.gather(*self._reports)

    async def _post(self, request: CommandRequest) -> None:
        try:
            await self._bus.post(request)
        except (LogUnavailable, OutcomeUnknown):
            logger.warning("a failed login is not on the audit log: the log is unavailable")

    def _digest(self, account: str, password: str) -> str:
        text = f"{account}\0{password}".encode()
        return hashlib.blake2b(text, key=self._key, digest_size=16).hexdigest()


def guard_of(services: Services) -> PasswordGuard:
    """The process's guard."""
    guard = services.caches.get(CACHE)
    if guard is None:
        guard = services.caches[CACHE] = PasswordGuard(services.bus)
    assert isinstance(guard, PasswordGuard)
    return guard
