"""Which report each Idempotency-Key was used for, as far as this process knows.

Reports go to the log without a decider, which is who knows of keys elsewhere, and no database is
asked on their way. So another request under a used key is refused by the process that took the
first one, for a day and among the latest of them.
"""

from infra.clock import SYSTEM_CLOCK, Clock

_DAY_MICROS = 24 * 3600 * 1_000_000
_MOST = 100_000


class KeyedReports:
    """Command ids of keys, and what the requests were. most: beyond it the oldest are forgotten."""

    def __init__(self, clock: Clock = SYSTEM_CLOCK, most: int = _MOST) -> None:
        self._clock, self._most = clock, most
        self._known: dict[str, tuple[int, bytes]] = {}  # the oldest first

    def agrees(self, command_id: str, fingerprint: str) -> bool:
        """Note the request of a key, unless the key was used for another one: then False.

        fingerprint: SHA-256 in hex.
        """
        now, request = self._clock.now(), bytes.fromhex(fingerprint)[:16]
        noted = self._known.get(command_id)
        if noted is not None and noted[0] > now - _DAY_MICROS:
            return noted[1] == request
        self._known.pop(command_id, None)
        if len(self._known) >= self._most:
            del self._known[next(iter(self._known))]
        self._known[command_id] = (now, request)
        return True

    def forget(self, command_id: str) -> None:
        """The request had no effect: its key is free."""
        self._known.pop(command_id, None)
