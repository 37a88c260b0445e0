"""Encrypted jobs, by operation: `python -m bench.fhe_operations [seconds]`.

What the engines take for each operation over bytes, as a child calls them. What a job that is alone
takes beyond that: from its record on the log to its report there, and over HTTP against a whole
installation, new and done before. How many jobs several children do. What a loaded key occupies,
and how often a job finds its key loaded when there are more keys than fit.
"""

import asyncio
import contextlib
import json
import random
import sys
import tempfile
import time
from base64 import b64encode
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import numpy as np
import psutil
import uvloop

from bench.fhe_products import cpu_ms
from bench.figure import Figure
from bench.installation import installation
from fhe_workers import jobs
from fhe_workers.bootstrapping import Bootstrapper
from fhe_workers.child_process import PoolLimits
from fhe_workers.contexts import ContextCache
from fhe_workers.execution import Execution
from fhe_workers.messages import CIPHER, PLAIN, ChildLimits, Work
from fhe_workers.pool import Pool
from fhe_workers.worker import TOPIC, Worker, jobs_consumer
from infra.clock import SYSTEM_CLOCK
from infra.config import Settings
from infra.embedded.stack import Stack
from infra.ids import new_id
from infra.kafka import Log, Record, create_topics
from infra.objects import Objects
from schemas.avro_derivation import tag_of
from schemas.envelope import SYSTEM, Envelope, to_headers
from schemas.fhe.evaluation_key import StoredPart
from schemas.fhe.job import JobSubmitted, Operand
from schemas.fhe.parameters import BGV_N13, CKKS_N13, CKKS_N14, CKKS_SETS, TFHE_132, SealParameters
from streams.bus import CommandRequest
from streams.runtime import codec, command_bus
from tests.fhe_workers.clients import BitsClient, Client, GateClient

ADDED_MS_MAX = 15.0
JOBS = 60
CHILDREN = (1, 2, 4)
TENANTS, ROOM = 24, 8
BOTH = (CIPHER, CIPHER)


def work_of(
    params_id: str,
    operation: str,
    kinds: tuple[str, ...] = BOTH,
    *,
    key: str = "key",
    arguments: str = "{}",
    counts: tuple[int, ...] = (),
) -> Work:
    """A job as a child is told of it."""
    return Work("job", operation, params_id, key, kinds, 600, True, arguments, counts=counts)


def engines(seconds: float) -> list[Figure]:
    """Processor time of each operation of each set: from bytes to bytes, key loaded."""
    each = seconds / 20
    found = []
    for params in CKKS_SETS.values():
        client = Client(params, rotations=(1, 8, -8))
        data = client.encrypt(np.full(params.slots, 0.5))
        values = np.full(params.slots, 0.5).tobytes()
        matrix = np.random.default_rng(1).uniform(-1, 1, (64, 64)).tobytes()
        size = '{"size":64}'
        rows: dict[str, tuple[Work, list[bytes]]] = {
            "add": (work_of(params.params_id, "add"), [data, data]),
            "add values": (work_of(params.params_id, "add", (CIPHER, PLAIN)), [data, values]),
            "multiply": (work_of(params.params_id, "multiply"), [data, data]),
            "multiply by values": (
                work_of(params.params_id, "multiply", (CIPHER, PLAIN)),
                [data, values],
            ),
            "64 x 64 by vector": (
                work_of(params.params_id, "matmul", (CIPHER, PLAIN), arguments=size),
                [data, matrix],
            ),
        }
        if params.depth >= 3:
            rows["8 x 8 by 8 x 8"] = (
                work_of(params.params_id, "matmul", arguments='{"size":8}'),
                [data, data],
            )
        found.append(_timed(params.params_id, [client.relin, client.rotate], rows, each))
    bits, gates = BitsClient(), GateClient()
    ones = np.ones(BGV_N13.slots, dtype=np.int64)
    for params_id, parts, wires in (
        (BGV_N13.params_id, [bits.relin], [bits.encrypt(ones) for _ in range(3)]),
        (TFHE_132.params_id, [gates.server_key], [gates.encrypt([1]) for _ in range(3)]),
    ):
        rows = {
            name.upper(): (
                work_of(params_id, name, (CIPHER,) * arity, counts=(1,) * arity),
                wires[:arity],
            )
            for name, arity in (("nand", 2), ("xor", 2), ("mux", 3), ("not", 1))
        }
        found.append(_timed(params_id, parts, rows, each))
    return found


def _timed(
    params_id: str, parts: list[bytes], rows: dict[str, tuple[Work, list[bytes]]], seconds: float
) -> Figure:
    cache = ContextCache(1 << 40)
    loading = cpu_ms(lambda: jobs.learn_key(next(iter(rows.values()))[0], parts, cache), seconds)
    context = cache.get("key")
    assert context is not None
    said = [
        f"{name} {cpu_ms(partial(jobs.compute, work, context, operands), seconds):.1f}"
        for name, (work, operands) in rows.items()
    ]
    name = f"engine, {params_id}, processor time in ms"
    return Figure(name, "", f"{', '.join(said)}; to load the key {loading:.0f}")


class Reported:
    """The command bus; `last` is done when the report of the job at hand is on the log."""

    def __init__(self, bus: Any) -> None:
        self._bus = bus
        self.last = asyncio.get_running_loop().create_future()

    async def post_many(self, requests: Sequence[CommandRequest]) -> None:
        await self._bus.post_many(requests)
        if not self.last.done():
            self.last.set_result(None)


class OneAtATime:
    """A worker on a running stack, and jobs for it, one after the other."""

    def __init__(self, settings: Settings, params: SealParameters) -> None:
        self._settings, self._params = settings, params
        self._client = Client(params)
        self._objects = Objects(settings.object_store_url, in_place=True)
        self._tenant = new_id("ten")
        self.operands = [self._client.encrypt(np.full(8, value)) for value in (0.5, 0.25)]

    def engine_ms(self, seconds: float) -> float:
        """Wall time of the bare engine for the same job, in this process."""
        work, cache = work_of(self._params.params_id, "multiply"), ContextCache(1 << 40)
        context = jobs.learn_key(work, [self._client.relin], cache)
        took = []
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            began = time.perf_counter()
            jobs.compute(work, context, self.operands)
            took.append((time.perf_counter() - began) * 1e3)
        return median(took)

    async def latencies(self, count: int) -> list[float]:
        """Milliseconds from each job's record to its report, after some that do not count."""
        bootstrap = self._settings.kafka_bootstrap_servers
        key, relin = f"fhe/{self._tenant}/key", self._client.relin
        await self._objects.put(key, relin)
        part = StoredPart("relin", key, sha256(relin).hexdigest(), len(relin))
        async with contextlib.AsyncExitStack() as running:
            log, dead = Log(bootstrap, "bench"), Log(bootstrap, "bench-dead-letters")
            running.push_async_callback(log.stop)
            running.push_async_callback(dead.stop)
            bus = command_bus(self._settings)
            await bus.start()
            running.push_async_callback(bus.stop)
            pool = await running.enter_async_context(Pool(PoolLimits(children=1)))
            reported, stop, ready = Reported(bus), asyncio.Event(), asyncio.Event()
            worker = Worker(
                connect=lambda: jobs_consumer(bootstrap, new_id("bench")),
                execution=Execution(
                    pool=pool,
                    objects=self._objects,
                    reports=reported,
                    clock=SYSTEM_CLOCK,
                    bootstrapper=Bootstrapper(None),
                ),
                codec=codec(),
                dead_letters=dead,
                capacity=1,
            )
            serving = asyncio.create_task(worker.run(stop, ready.set))
            await ready.wait()
            took = [await self._one(log, reported, part) for _ in range(count + 5)]
            stop.set()
            await serving
        return took[5:]

    async def _one(self, log: Log, reported: Reported, part: StoredPart) -> float:
        job_id, operands = new_id("job"), []
        for number, data in enumerate(self.operands):
            name = f"fhe/{self._tenant}/jobs/{job_id}/{number}"
            await self._objects.put(name, data)
            digest = sha256(data).hexdigest()
            operands.append(Operand("cipher", name, digest, len(data), 0, self._params.scale))
        names = [operand.object for operand in operands]
        event = JobSubmitted(
            job_id,
            "key",
            self._params.params_id,
            "multiply",
            operands,
            [part],
            names,
            0,
            2**57,
        )
        envelope = Envelope(
            new_id("evt"), tag_of(JobSubmitted), self._tenant, f"fhe.job/{job_id}", 1, 0, SYSTEM
        )
        record = Record(self._tenant.encode(), codec().encode(event), to_headers(envelope))
        reported.last = asyncio.get_running_loop().create_future()
        began = time.perf_counter()
        await log.append(TOPIC, [record], timeout=30)
        await asyncio.wait_for(reported.last, 30)
        return (time.perf_counter() - began) * 1e3


async def alone(settings: Settings, seconds: float) -> list[Figure]:
    """What a job takes beyond its engine when nothing else waits."""
    await create_topics(settings.kafka_bootstrap_servers, settings.partitions)
    found = []
    for params in CKKS_SETS.values():
        rig = OneAtATime(settings, params)
        engine = rig.engine_ms(seconds / 4)
        took = median(await rig.latencies(JOBS))
        found.append(
            Figure(
                f"one multiply at a time, {params.params_id}, from log to log; the ratio is "
                f"{took - engine:.1f} ms added, of {ADDED_MS_MAX:.0f}",
                f"{engine:.1f} ms",
                f"{took:.1f} ms",
                (took - engine) / ADDED_MS_MAX,
                at_most=1.0,
            )
        )
    return found


def over_http() -> list[Figure]:
    """A new product and one that was done before, one at a time, as a client sees them."""
    with tempfile.TemporaryDirectory(prefix="weir-bench-") as folder:
        data = Path(folder, "data")
        with installation(data):
            known = json.loads((data / "credentials.json").read_text())
            api = httpx.Client(
                base_url=known["url"], headers={"X-Wax-Key": known["api_key"]}, timeout=90
            )
            client = Client(CKKS_N14)
            octets = {"Content-Type": "application/octet-stream"}
            key = api.post("/api/v1/keys", content=client.relin, headers=octets)
            key_id = key.raise_for_status().json()["key_id"]
            bytes_ = client.encrypt(np.full(8, 0.5))
            handle: dict[str, Any] = {"ciphertext": b64encode(bytes_).decode()}
            new: list[float] = []
            cached: list[float] = []
            for number in range(JOBS):
                body = {"key_id": key_id, "operands": [handle, {"value": 1 + number / 100}]}
                for took in (new, cached):
                    began = time.perf_counter()
                    answer = api.post("/api/v1/compute/add?wait=60", json=body).raise_for_status()
                    took.append((time.perf_counter() - began) * 1e3)
                    assert answer.json()["cached"] is (took is cached)
                handle = {"handle": answer.json()["result"]["handle"]}
    return [
        Figure(
            "a value added over HTTP, ckks-n14, handle in, 1 MB out: new work and work done before",
            f"{median(new[5:]):.1f} ms",
            f"{median(cached[5:]):.1f} ms",
            median(new[5:]) / median(cached[5:]),
        )
    ]


async def children(seconds: float) -> Figure:
    """Jobs per second of several children under one parent."""
    client = Client(CKKS_N14)
    data, work = client.encrypt(np.full(8, 0.5)), work_of("ckks-n14", "multiply")
    said = []
    for count in CHILDREN:
        async with Pool(PoolLimits(children=count)) as pool:
            run = partial(pool.run, work, [data, data], _source([client.relin]))
            await asyncio.gather(*(run() for _ in range(4 * count)))
            done, began = 0, time.perf_counter()

            async def loop(run: Callable[[], Awaitable[Any]] = run, began: float = began) -> None:
                nonlocal done
                while time.perf_counter() < began + seconds / 2:
                    await run()
                    done += 1

            await asyncio.gather(*(loop() for _ in range(2 * count)))
            said.append(f"{count}: {done / (time.perf_counter() - began):.0f}/s")
    cores = psutil.cpu_count()
    return Figure(f"multiply, ckks-n14, by children on {cores} cores", "", ", ".join(said))


async def memory_of_keys() -> Figure:
    """What a child grows by for each key that it loads, and what its cache counts for one."""
    said = []
    for params in CKKS_SETS.values():
        client, count = Client(params), 6
        data = client.encrypt(np.full(8, 0.5))
        async with Pool(PoolLimits(children=1)) as pool:
            sizes = []
            for number in range(count):
                work = work_of(params.params_id, "multiply", key=f"key-{number}")
                await pool.run(work, [data, data], _source([client.relin]))
                sizes.append(psutil.Process(pool.pids[0]).memory_info().rss / 1e6)
        counted = jobs.learn_key(work, [client.relin], ContextCache(1)).resident_bytes / 1e6
        each = (sizes[-1] - sizes[0]) / (count - 1)
        said.append(
            f"{params.params_id} {each:.0f} MB (key {len(client.relin) / 1e6:.1f}, "
            f"counted {counted:.0f})"
        )
    return Figure("memory of a loaded key", "", ", ".join(said))


async def hit_rate() -> Figure:
    """How often a job finds its key loaded, with three times the keys that two children hold."""
    client = Client(CKKS_N13)
    data, rng = client.encrypt(np.full(8, 0.5)), random.Random(1)
    one = jobs.learn_key(work_of("ckks-n13", "multiply"), [client.relin], ContextCache(1))
    limits = ChildLimits(cache_bytes=ROOM * one.resident_bytes // 2)
    said = []
    # The first tenant asks most: a quarter of all, the second half as often, and so on.
    zipf = [1 / (rank + 1) for rank in range(TENANTS)]
    equal = [1.0] * TENANTS
    for name, weights, burst in (
        ("equal tenants", equal, 1),
        ("unequal ones", zipf, 1),
        ("equal ones that ask ten times in a row", equal, 10),
    ):
        async with Pool(PoolLimits(children=2, child=limits)) as pool:
            drawn = rng.choices(range(TENANTS), weights, k=400 // burst)
            tenants = [tenant for tenant in drawn for _ in range(burst)]
            hits: list[bool] = []
            turn = asyncio.Semaphore(3)

            async def job(
                tenant: int,
                pool: Pool = pool,
                hits: list[bool] = hits,
                turn: asyncio.Semaphore = turn,
            ) -> None:
                async with turn:
                    work = work_of("ckks-n13", "multiply", key=f"key-{tenant}")
                    result = await pool.run(work, [data, data], _source([client.relin]))
                    hits.append(result.computed.key_was_loaded)

            await asyncio.gather(*map(job, tenants))
            said.append(f"{name} {sum(hits[100:]) / len(hits[100:]):.0%}")
    return Figure(
        f"jobs that find their key loaded, {TENANTS} tenants, room for {ROOM} keys in all",
        "",
        ", ".join(said),
    )


def _source(parts: list[bytes]) -> Callable[[], Awaitable[list[bytes]]]:
    async def given() -> list[bytes]:
        return parts

    return given


def figures(seconds: float) -> list[Figure]:
    """See `bench.__main__.BENCHES`."""
    found = _shown(engines(seconds))
    with tempfile.TemporaryDirectory(prefix="weir-bench-") as folder, Stack(Path(folder)) as stack:
        # The loop that `weir run fhe-worker` uses.
        found += _shown(uvloop.run(alone(stack.settings, seconds)))
    found += _shown(over_http())
    for measured in (children(seconds), memory_of_keys(), hit_rate()):
        found += _shown([uvloop.run(measured)])
    return found


def _shown(found: list[Figure]) -> list[Figure]:
    for figure in found:
        print(figure.line(), flush=True)
    return found


if __name__ == "__main__":
    figures(float(sys.argv[1]) if len(sys.argv) > 1 else 2.0)
