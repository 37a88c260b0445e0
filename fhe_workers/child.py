"""The process that touches ciphertexts: one per core, limited, and expected to die now and then.

It is started with an almost empty environment, reads Work from its standard input and answers on
what was its standard output; whatever the engine prints goes to standard error. It has no
credentials, and it never sees a secret key. When its parent goes away, its input ends and it ends
too. Run as `python -m fhe_workers.child '<ChildLimits as JSON>' <descriptor of the region>`.
"""

import contextlib
import os
import resource
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import BinaryIO

import msgspec
import psutil

from fhe_workers import frames, jobs, messages
from fhe_workers.contexts import ContextCache
from fhe_workers.engines import PROGRESS
from fhe_workers.messages import PROGRESS_MAX
from fhe_workers.refusals import JobRefused
from fhe_workers.region import Region

# Exit codes the parent can tell apart in its log.
EXIT_OUT_OF_MEMORY = 71
EXIT_PROTOCOL = 72

_THIS = psutil.Process()
# Reading the size of this process takes as long as a small copy, and it changes slowly.
_JOBS_PER_LOOK = 16
_QUIET_SECONDS = 1.0


def main() -> None:
    """Limit this process, then answer requests until the input ends."""
    limits = msgspec.json.decode(sys.argv[1], type=messages.ChildLimits)
    answers = os.fdopen(os.dup(1), "wb", buffering=1 << 16)
    # A library that prints must not be able to write into a frame.
    os.dup2(2, 1)
    _limit(limits)
    service = _Service(answers, Region(int(sys.argv[2])), ContextCache(limits.cache_bytes))
    with contextlib.suppress(BrokenPipeError):
        while service.serve_one():
            pass


def _limit(limits: messages.ChildLimits) -> None:
    space = limits.address_space_bytes
    resource.setrlimit(resource.RLIMIT_AS, (space, space))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(limits.niceness)


class _Service:
    def __init__(self, answers: BinaryIO, region: Region, cache: ContextCache) -> None:
        self._answers, self._region, self._cache = answers, region, cache
        self._jobs, self._resident_bytes = 0, 0
        self._ahead: deque[messages.Work] = deque()

    def serve_one(self) -> bool:
        """Do one piece of work; False when there is none any more."""
        work = self._ahead.popleft() if self._ahead else self._next_work()
        if work is None:
            return False
        _limit_cpu(work.cpu_seconds_max)
        try:
            self._say(self._computed(work))
        except JobRefused as error:
            resident = self._looked_up_resident_bytes()
            self._say(messages.Refused(work.job_id, error.reason, error.message, resident))
        except MemoryError:
            # The engine's pools may be in any state; the parent starts a fresh process.
            os._exit(EXIT_OUT_OF_MEMORY)
        return True

    def _computed(self, work: messages.Work) -> messages.Computed:
        context = jobs.context_for(work, self._cache)
        was_loaded = context is not None
        if context is None:
            context = jobs.learn_key(work, self._fetch_key(work), self._cache)
        PROGRESS.set(_Progress(work.job_id, self._say).tell)
        start = time.process_time_ns()
        operands = self._region.take_operands(work.slot, work.operand_bytes)
        result = jobs.compute(work, context, operands)
        return messages.Computed(
            job_id=work.job_id,
            level=result.level,
            scale=result.scale,
            cpu_us=jobs.cpu_us_since(start),
            key_was_loaded=was_loaded,
            resident_bytes=self._looked_up_resident_bytes(),
            result_bytes=self._region.put_result(work.slot, result.data),
            count=result.count,
        )

    def _looked_up_resident_bytes(self) -> int:
        if self._jobs % _JOBS_PER_LOOK == 0:
            self._resident_bytes = int(_THIS.memory_info().rss)
        self._jobs += 1
        return self._resident_bytes

    def _next_work(self) -> messages.Work | None:
        frame = frames.read(sys.stdin.buffer)
        return msgspec.msgpack.decode(frame[0], type=messages.Work) if frame else None

    def _fetch_key(self, work: messages.Work) -> list[bytes]:
        self._say(messages.KeyWanted(work.key_name))
        while (frame := frames.read(sys.stdin.buffer)) is not None:
            request = msgspec.msgpack.decode(frame[0], type=messages.Request)
            if isinstance(request, messages.KeyMaterial):
                return frame[1]
            # The next job was sent ahead by then.
            self._ahead.append(request)
        os._exit(EXIT_PROTOCOL)

    def _say(self, answer: messages.Answer) -> None:
        frames.write(self._answers, msgspec.msgpack.encode(answer), [])


class _Progress:
    """Tells the parent how far a job is: not of short ones, and not too often of long ones."""

    def __init__(self, job_id: str, say: Callable[[messages.Answer], None]) -> None:
        self._job_id, self._say = job_id, say
        self._next_at, self._next_done = time.monotonic() + _QUIET_SECONDS, 0

    def tell(self, done: int, total: int) -> None:
        now = time.monotonic()
        if done < self._next_done or done >= total or now < self._next_at:
            return
        self._next_at, self._next_done = now + _QUIET_SECONDS, done + total // PROGRESS_MAX
        self._say(messages.Progressed(self._job_id, done, total))


def _limit_cpu(seconds: int) -> None:
    """Let the kernel kill this process when the coming job uses more processor time than that."""
    used = time.process_time()
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(used) + 1 + seconds, hard))


if __name__ == "__main__":
    main()
