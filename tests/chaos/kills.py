"""The kill supervisor: ends parts of a running stack at random moments of a seed's choosing."""

import random
import threading
import time

from infra.embedded.stack import Stack

# How long a loop is frozen: longer than its lease, so that it wakes up as a zombie.
FREEZE_SECONDS = 8.0
PAUSE_SECONDS = (3.0, 7.0)


class Kills(threading.Thread):
    """kill -9 of every part in turn, in rounds of random order, and frozen deciders between.

    `schedule` is what was done and when, to be printed with the seed.
    """

    def __init__(self, stack: Stack, seed: int, seconds: float) -> None:
        super().__init__(name="kills", daemon=True)
        self._stack, self._random, self._seconds = stack, random.Random(seed), seconds
        self._over = threading.Event()
        self.schedule: list[str] = []
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self._kill_until(time.monotonic() + self._seconds)
        except BaseException as error:
            self.error = error

    def finish(self) -> None:
        """No more kills; wait until the last part is whole again."""
        self._over.set()
        self.join()
        if self.error is not None:
            raise self.error

    def _kill_until(self, end: float) -> None:
        began = time.monotonic()
        round_: list[str] = []
        while time.monotonic() < end:
            if self._over.wait(self._random.uniform(*PAUSE_SECONDS)):
                return
            if not round_:
                round_ = [*self._stack.names, "freeze decider+scheduler"]
                self._random.shuffle(round_)
            target = round_.pop()
            self.schedule.append(f"{time.monotonic() - began:.1f} s {target}")
            if target.startswith("freeze "):
                name = target.removeprefix("freeze ")
                self._stack.pause(name)
                self._over.wait(FREEZE_SECONDS)
                self._stack.resume(name)
            else:
                self._stack.kill(target)
