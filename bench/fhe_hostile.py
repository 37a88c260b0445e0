"""Hostile bytes, thousands of them: `python -m bench.fhe_hostile [COUNT]`.

Twice the corpus of the tests (truncated, bit-flipped, foreign, zip bombs, huge length prefixes),
from one seed. First straight to a child, past the gateway's readers: operands, and keys that it has
to load. Then over HTTP to a whole installation: uploads of keys, whose last look is a process of
its own, and operands of additions. What is printed is who died, and how memory goes: a flipped bit
of a residue is a key like any other and is kept while there is room, so a child grows until its
cache is full, and then no more.
"""

import asyncio
import json
import random
import sys
import tempfile
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import psutil

from bench.figure import Figure
from bench.installation import installation, part_of
from fhe_workers.child_process import PoolLimits
from fhe_workers.messages import CIPHER, Work
from fhe_workers.pool import Pool
from fhe_workers.refusals import JobRefused
from schemas.fhe.parameters import CIPHERTEXT_BYTES_MAX
from tests.fhe_workers.clients import Client
from tests.fhe_workers.mutations import MUTATIONS

COUNT, SEED = 10_000, 20261127
_SHARES = (0.1, 0.2, 0.5, 1.0)


class Memory:
    """What processes occupy after a tenth, a fifth, half and all of the work."""

    def __init__(self, count: int, processes: Callable[[], dict[str, psutil.Process]]) -> None:
        self._at = {int(count * share) for share in _SHARES}
        self._processes = processes
        self.taken: dict[str, list[int]] = {}

    def look(self, done: int) -> None:
        """Note it when `done` is such a number."""
        if done in self._at:
            for name, process in self._processes().items():
                size = process.memory_info().rss >> 20
                self.taken.setdefault(name, []).append(size)

    def __str__(self) -> str:
        rows = (f"{name} {', '.join(map(str, sizes))} MiB" for name, sizes in self.taken.items())
        return "; ".join(rows)


async def through_pool(count: int) -> Figure:
    """Straight to one child, which keeps what it can load."""
    client, rng = Client(), random.Random(SEED)
    honest, refused = client.encrypt(np.ones(4)), 0
    # No recycling: else a leak would not show.
    limits = PoolLimits(children=1, jobs_per_child_max=10 * count, resident_bytes_max=1 << 40)
    async with Pool(limits) as pool:
        (pid,) = pool.pids
        memory = Memory(
            count, lambda: {"parent": psutil.Process(), "child": psutil.Process(pool.pids[0])}
        )
        for number in range(count):
            is_key = number % 4 == 0
            data = MUTATIONS[number // 4 % len(MUTATIONS)](client.relin if is_key else honest, rng)

            async def source(parts: bytes = data if is_key else client.relin) -> list[bytes]:
                return [parts]

            name = f"key-{number if is_key else 0}"
            work = Work("job", "multiply", "ckks-n13", name, (CIPHER, CIPHER), 60, True)
            try:
                operands = [honest, honest if is_key else data[:CIPHERTEXT_BYTES_MAX]]
                await pool.run(work, operands, source)
            except JobRefused:
                refused += 1
            memory.look(number + 1)
        deaths = int(pool.pids != [pid])
    return Figure(
        f"{count:,} hostile operands and keys straight to a child ({refused:,} refused), "
        f"memory after {_said(count)}",
        "",
        f"{deaths} deaths; {memory}",
    )


async def over_http(count: int) -> Figure:
    """Uploads and operands to a whole installation, whose parts must all live on."""
    with tempfile.TemporaryDirectory(prefix="weir-bench-") as folder:
        data = Path(folder, "data")
        with installation(data) as (root, _):
            known = json.loads((data / "credentials.json").read_text())
            parts = {"api": part_of(root, "api"), "worker": part_of(root, "fhe-worker")}
            memory = Memory(count, lambda: {**parts, "child": parts["worker"].children()[0]})
            statuses: dict[int, int] = {}
            headers = {"X-Wax-Key": known["api_key"]}
            async with httpx.AsyncClient(
                base_url=known["url"], headers=headers, timeout=90
            ) as http:
                await _send(http, count, statuses, memory)
            alive = all(part.is_running() for part in parts.values())
    said = ", ".join(f"{number} x {status}" for status, number in sorted(statuses.items()))
    return Figure(
        f"{count:,} hostile uploads and operands over HTTP ({said}), memory after {_said(count)}",
        "",
        f"{'0 deaths' if alive else 'a death'} of API and worker; {memory}",
    )


async def _send(
    http: httpx.AsyncClient, count: int, statuses: dict[int, int], memory: Memory
) -> None:
    client, rng = Client(), random.Random(SEED)
    octets = {"Content-Type": "application/octet-stream"}
    honest = client.encrypt(np.ones(4))
    answer = await http.post("/api/v1/keys", content=client.relin, headers=octets)
    key_id = answer.raise_for_status().json()["key_id"]
    for number in range(count):
        is_key = number % 4 == 0
        mutate = MUTATIONS[number // 4 % len(MUTATIONS)]
        if is_key:
            hostile = mutate(client.relin, rng)
            answer = await http.post("/api/v1/keys", content=hostile, headers=octets)
            # 200: a mutation that changed nothing, so the key is the honest one.
            if answer.status_code == 201:
                await http.delete(f"/api/v1/keys/{answer.json()['key_id']}")
        else:
            operand = {"ciphertext": b64encode(mutate(honest, rng)).decode()}
            body = {"key_id": key_id, "operands": [operand, {"value": number}]}
            answer = await http.post("/api/v1/compute/add?wait=60", json=body)
        statuses[answer.status_code] = statuses.get(answer.status_code, 0) + 1
        memory.look(number + 1)


def _said(count: int) -> str:
    return ", ".join(f"{int(count * share):,}" for share in _SHARES)


def figures(seconds: float, count: int = COUNT) -> list[Figure]:
    """See `bench.__main__.BENCHES`; takes as long as so many take, some minutes."""
    found = []
    for hostile in (through_pool, over_http):
        found.append(asyncio.run(hostile(count)))
        print(found[-1].line(), flush=True)
    return found


if __name__ == "__main__":
    figures(0.0, int(sys.argv[1]) if len(sys.argv) > 1 else COUNT)
