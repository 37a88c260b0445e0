"""How far a partition's jobs are done, when they end in another order than they came."""

from collections import deque


class Progress:
    """One partition, from its assignment to its revocation.

    What is `committable` has ended, and so has everything before it: after a crash, no unfinished
    job is skipped, and finished ones beyond the first unfinished are done again (harmlessly).
    """

    def __init__(self) -> None:
        self._begun: deque[int] = deque()
        self._ended: set[int] = set()
        self._committable: int | None = None

    def begin(self, offset: int) -> None:
        """A record was taken up; offsets come in order."""
        self._begun.append(offset)

    def end(self, offset: int) -> None:
        """The record needs nothing more."""
        self._ended.add(offset)
        while self._begun and self._begun[0] in self._ended:
            done = self._begun.popleft()
            self._ended.remove(done)
            self._committable = done + 1

    def take_committable(self) -> int | None:
        """The offset to commit, once; None when it has not moved since it was last taken."""
        taken, self._committable = self._committable, None
        return taken

    def give_back(self, offset: int) -> None:
        """The commit of `offset` failed: it, or a later one, is committable again."""
        if self._committable is None:
            self._committable = offset
