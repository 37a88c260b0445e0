"""What a bench ran on, without anything that identifies the machine."""

import os
import platform
from pathlib import Path

from infra.clock import Clock, iso


def machine(clock: Clock) -> str:
    """The instant, the processor, the memory and the load, on one line."""
    minutes = " ".join(f"{load:.1f}" for load in os.getloadavg())
    return (
        f"{iso(clock.now())[:16]}Z, {_processor()}, {len(os.sched_getaffinity(0))} cores, "
        f"{_memory_gib():.0f} GiB, Python {platform.python_version()}, load average {minutes}"
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _memory_gib() -> float:
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return pages * size / 2**30
