"""The process that touches ciphertexts: one per core, limited, and expected to die now and then.

It is started with an almost empty environment, reads Work from its standard input and answers on
what was its standard output; whatever the engine prints goes to standard error. It has no
credentials, and it never sees a secret key. When its parent goes away, its input ends and it ends
too. Run as `python -m fhe_workers.child '<ChildLimits as JSON>'`.
"""

import contextlib
import os
import resource
import sys
import time
from typing import BinaryIO

import msgspec
import psutil

from fhe_workers import frames, jobs, messages
from fhe_workers.contexts import ContextCache
from fhe_workers.refusals import JobRefused

# Exit codes the parent can tell apart in its log.
EXIT_OUT_OF_MEMORY = 71
EXIT_PROTOCOL = 72


def main() -> None:
    """Limit this process, then answer requests until the input ends."""
    limits = msgspec.json.decode(sys.argv[1], type=messages.ChildLimits)
    answers = os.fdopen(os.dup(1), "wb", buffering=1 << 16)
    # A library that prints must not be able to write into a frame.
    os.dup2(2, 1)
    _limit(limits)
    cache = ContextCache(limits.cache_bytes)
    with contextlib.suppress(BrokenPipeError):
        while _serve_one(sys.stdin.buffer, answers, cache):
            pass


def _limit(limits: messages.ChildLimits) -> None:
    space = limits.address_space_bytes
    resource.setrlimit(resource.RLIMIT_AS, (space, space))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(limits.niceness)


def _serve_one(requests: BinaryIO, answers: BinaryIO, cache: ContextCache) -> bool:
    frame = frames.read(requests)
    if frame is None:
        return False
    message, operands = frame
    work = msgspec.msgpack.decode(message, type=messages.Work)
    _limit_cpu(work.cpu_seconds_max)
    try:
        answer, blobs = _answer(work, operands, requests, answers, cache)
    except JobRefused as error:
        refused = messages.Refused(work.job_id, error.reason, error.message, _resident_bytes())
        answer, blobs = refused, []
    except MemoryError:
        # The engine's pools may be in any state; the parent starts a fresh process.
        os._exit(EXIT_OUT_OF_MEMORY)
    frames.write(answers, msgspec.msgpack.encode(answer), blobs)
    return True


def _answer(
    work: messages.Work,
    operands: list[bytes],
    requests: BinaryIO,
    answers: BinaryIO,
    cache: ContextCache,
) -> tuple[messages.Computed | messages.Refused, list[bytes]]:
    context = jobs.context_for(work, cache)
    was_loaded = context is not None
    if context is None:
        wanted = msgspec.msgpack.encode(messages.KeyWanted(work.key_name))
        frames.write(answers, wanted, [])
        frame = frames.read(requests)
        if frame is None:
            os._exit(EXIT_PROTOCOL)
        message, parts = frame
        msgspec.msgpack.decode(message, type=messages.KeyMaterial)
        context = jobs.learn_key(work, parts, cache)
    start = time.process_time_ns()
    result, data = jobs.compute(work, context, operands)
    computed = messages.Computed(
        job_id=work.job_id,
        level=result.level,
        scale=result.scale,
        cpu_us=jobs.cpu_us_since(start),
        key_was_loaded=was_loaded,
        resident_bytes=_resident_bytes(),
    )
    return computed, [data]


def _limit_cpu(seconds: int) -> None:
    """Let the kernel kill this process when the coming job uses more processor time than that."""
    used = time.process_time()
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(used) + 1 + seconds, hard))


def _resident_bytes() -> int:
    return int(psutil.Process().memory_info().rss)


if __name__ == "__main__":
    main()
