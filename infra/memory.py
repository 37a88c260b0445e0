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
