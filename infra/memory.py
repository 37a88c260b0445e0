"""The memory of a long-lived process."""

import gc

# Counted in objects that may hold others. Python's own thresholds (700, 10, 10) are for scripts: a
# loop that remembers 50,000 states has each of them looked at again and again, a fifth of its time.
_YOUNG, _MIDDLE, _OLD = 50_000, 20, 100


def tune_collector() -> None:
    """Let the cyclic collector look seldom, and never at what was there when a process started.

    Nothing of ours makes cycles on a hot path: almost all memory is freed by counting references.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, _MIDDLE, _OLD)


def tune_arrow() -> None:
    """Let Arrow take memory from the system's allocator, in a process that uses it all the time.

    Its own allocator gives pages back at once and asks for them again, batch after batch.
    """
    import pyarrow as pa  # few roles use it, and it is slow to load

    pa.set_memory_pool(pa.system_memory_pool())
