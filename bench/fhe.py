"""Encrypted jobs against raw Pyfhel: `python -m bench.fhe [seconds]`.

Raw: as many processes as children, each in a loop over Pyfhel alone: two ciphertexts from bytes,
multiply, relinearise, rescale, to bytes. With files: the same, the bytes read from files and the
result written to one, which is what a worker cannot do without. Ours: the same multiplication as
jobs, through the pool of children (shared memory, checks), and through the whole worker (Kafka in,
object store, report to Kafka out, offsets committed). All run in turns, so that a busy machine
slows all; the processor time of a job (parent and children, not the broker) says the same with
less noise. With as many children as cores, the broker and the worker itself take their part from
the children; with one fewer, they have a core of their own.
"""

import asyncio
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from hashlib import sha256
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import psutil
import uvloop
from Pyfhel import PyCtxt, Pyfhel

from bench.figure import Figure
from fhe_workers.bootstrapping import Bootstrapper
from fhe_workers.child_process import PoolLimits
from fhe_workers.execution import Execution
from fhe_workers.messages import CIPHER, ChildLimits, Work
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
from schemas.fhe.parameters import CKKS_SETS, SealParameters
from streams.bus import CommandRequest
from streams.runtime import codec, command_bus
from tests.fhe_workers.clients import Client

CORES = os.cpu_count() or 1
ROUNDS = 5


class Rate(NamedTuple):
    """Multiplications per second, and the processor seconds of one."""

    per_second: float
    cpu_seconds: float


class Stopwatch:
    """Wall time, and the processor time of this process and the pool's children."""

    def __init__(self, pool: Pool) -> None:
        self._children = [psutil.Process(pid) for pid in pool.pids]
        self._began, self._used = time.perf_counter(), self._cpu()

    def _cpu(self) -> float:
        return time.process_time() + sum(sum(c.cpu_times()[:2]) for c in self._children)

    def rate(self, count: int) -> Rate:
        """So many were done since this was made."""
        return Rate(count / (time.perf_counter() - self._began), (self._cpu() - self._used) / count)


def raw_loop(
    params_id: str, blobs: list[bytes], folder: str, seconds: float, out: Connection
) -> None:
    """One process of the bare side; sends how many it did per second, and the seconds for one."""
    params, (key, left, right) = CKKS_SETS[params_id], blobs
    names = [Path(folder) / f"{os.getpid()}-{number}" for number in range(3)]
    if folder:
        names[0].write_bytes(left)
        names[1].write_bytes(right)
    # As nice as our children are: else a busy machine would decide the comparison.
    os.nice(ChildLimits().niceness)
    engine = Pyfhel()
    engine.contextGen(
        "ckks",
        n=params.ring_degree,
        scale=params.scale,
        qi_sizes=list(params.prime_bits),
        sec=params.security_bits,
    )
    engine.from_bytes_relin_key(key)
    out.send("ready")
    out.recv()
    count, began, used = 0, time.perf_counter(), time.process_time()
    while (took := time.perf_counter() - began) < seconds:
        if folder:
            left, right = names[0].read_bytes(), names[1].read_bytes()
        a = PyCtxt(pyfhel=engine, bytestring=left)
        b = PyCtxt(pyfhel=engine, bytestring=right)
        product = engine.multiply(a, b, True)
        engine.relinearize(product)
        engine.rescale_to_next(product)
        data = product.to_bytes("none")
        if folder:
            part = names[2].with_suffix(".part")
            part.write_bytes(data)
            part.rename(names[2])
        count += 1
    out.send((count / took, (time.process_time() - used) / count))


def raw(
    params: SealParameters, blobs: list[bytes], folder: str, seconds: float, count: int
) -> Rate:
    """So many processes with nothing of ours; with files in `folder`, if there is one."""
    spawn = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    for _ in range(count):
        here, there = spawn.Pipe()
        arguments = (params.params_id, blobs, folder, seconds, there)
        process = spawn.Process(target=raw_loop, args=arguments)
        process.start()
        pipes.append(here)
        processes.append(process)
    for pipe in pipes:
        assert pipe.recv() == "ready"
    for pipe in pipes:
        pipe.send("go")
    rates = [pipe.recv() for pipe in pipes]
    for process in processes:
        process.join()
    return Rate(sum(rate for rate, _ in rates), sum(used for _, used in rates) / len(rates))


async def through_pool(
    pool: Pool, children: int, params: SealParameters, blobs: list[bytes], seconds: float
) -> Rate:
    """Through the children alone."""
    work = Work("job", "multiply", params.params_id, params.params_id, (CIPHER, CIPHER), 60, True)
    key, *operands = blobs

    async def source() -> list[bytes]:
        return [key]

    async def client(ends: float) -> int:
        count = 0
        while time.perf_counter() < ends:
            await pool.run(work, operands, source)
            count += 1
        return count

    await asyncio.gather(*(pool.run(work, operands, source) for _ in range(2 * children)))
    watch, ends = Stopwatch(pool), time.perf_counter() + seconds
    return watch.rate(sum(await asyncio.gather(*(client(ends) for _ in range(2 * children)))))


class Counted:
    """The command bus, counting; `reached` is set with the last of so many reports."""

    def __init__(self, bus: Any, total: int, pool: Pool) -> None:
        self._bus, self._missing, self._pool = bus, total, pool
        self._watch: Stopwatch | None = None
        self._count = 0
        self.rate = Rate(0.0, 0.0)
        self.reached = asyncio.Event()

    async def post_many(self, requests: Sequence[CommandRequest]) -> None:
        await self._bus.post_many(requests)
        self._missing -= len(requests)
        if self._watch is None:
            # The first reports start the clock: joining the group is not throughput.
            self._watch = Stopwatch(self._pool)
            return
        self._count += len(requests)
        if self._missing <= 0:
            self.rate = self._watch.rate(self._count)
            self.reached.set()


class Bench:
    """The servers and one parameter set's key and operands."""

    def __init__(self, settings: Settings, params: SealParameters) -> None:
        self.settings, self.params = settings, params
        client, rng = Client(params), np.random.default_rng(1)
        self.key = client.relin
        self.operands = [client.encrypt(rng.uniform(-1, 1, params.slots)) for _ in range(2)]
        self.objects = Objects(settings.object_store_url, in_place=True)

    async def submit(self, count: int) -> None:
        """Put so many jobs on the log, each with operands of its own, as the API would."""
        log, tenant = Log(self.settings.kafka_bootstrap_servers, "bench"), new_id("ten")
        key_name = f"fhe/{tenant}/key"
        await self.objects.put(key_name, self.key)
        part = StoredPart("relin", key_name, sha256(self.key).hexdigest(), len(self.key))
        digests = [sha256(data).hexdigest() for data in self.operands]
        records = []
        for _ in range(count):
            job_id = new_id("job")
            names = [f"fhe/{tenant}/jobs/{job_id}/{number}" for number in range(2)]
            for name, data in zip(names, self.operands, strict=True):
                await self.objects.put(name, data)
            stored = [
                Operand("cipher", name, digest, len(data), 0, self.params.scale)
                for name, digest, data in zip(names, digests, self.operands, strict=True)
            ]
            event = JobSubmitted(
                job_id, tenant, self.params.params_id, "multiply", stored, [part], names, 0, 2**57
            )
            envelope = Envelope(
                new_id("evt"), tag_of(JobSubmitted), tenant, f"fhe.job/{job_id}", 1, 0, SYSTEM
            )
            records.append(Record(tenant.encode(), codec().encode(event), to_headers(envelope)))
        await log.append(TOPIC, records, timeout=30)
        await log.stop()

    async def through_worker(self, pool: Pool, children: int, count: int) -> Rate:
        """From the log to the log."""
        await self.submit(count)
        bus, stop = command_bus(self.settings), asyncio.Event()
        await bus.start()
        dead_letters = Log(self.settings.kafka_bootstrap_servers, "bench-dead-letters")
        counted = Counted(bus, count, pool)
        worker = Worker(
            connect=lambda: jobs_consumer(self.settings.kafka_bootstrap_servers, "bench"),
            execution=Execution(
                pool=pool,
                objects=self.objects,
                reports=counted,
                clock=SYSTEM_CLOCK,
                bootstrapper=Bootstrapper(None),
            ),
            codec=codec(),
            dead_letters=dead_letters,
            capacity=children,
        )
        running = asyncio.create_task(worker.run(stop, lambda: None))
        await counted.reached.wait()
        stop.set()
        await running
        await dead_letters.stop()
        await bus.stop()
        return counted.rate


async def measure(bench: Bench, children: int, seconds: float) -> list[Figure]:
    """Print the lines of one parameter set and so many processes; the figures are the worker's."""
    params = bench.params
    bare: list[Rate] = []
    filed: list[Rate] = []
    pooled: list[Rate] = []
    worked: list[Rate] = []
    blobs = [bench.key, *bench.operands]
    async with Pool(PoolLimits(children=children, jobs_per_child_max=10**9)) as pool:
        for _ in range(ROUNDS):
            pooled.append(await through_pool(pool, children, params, blobs, seconds))
            bare.append(await asyncio.to_thread(raw, params, blobs, "", seconds, children))
            # Between the two that it is compared with, since a machine's load comes and goes.
            count = max(40, int(bare[-1].per_second * seconds))
            worked.append(await bench.through_worker(pool, children, count))
            with tempfile.TemporaryDirectory(prefix="weir-bench-") as folder:
                filed.append(await asyncio.to_thread(raw, params, blobs, folder, seconds, children))
    base = _median(bare)
    for name, rates in (
        ("raw Pyfhel", bare),
        ("children", pooled),
        ("with files", filed),
        ("worker", worked),
    ):
        rate = _median(rates)
        _show(
            f"{params.params_id:11} {children} x {name:11} {rate.per_second:7.1f}/s"
            f" ({rate.per_second / base.per_second:4.0%})"
            f"   {rate.cpu_seconds * 1e3:6.2f} ms of processor time"
            f" ({base.cpu_seconds / rate.cpu_seconds:4.0%})"
        )
    name = f"encrypted jobs, {params.params_id}, {children} of {CORES} cores"
    wall = [ours.per_second / raw.per_second for ours, raw in zip(worked, bare, strict=True)]
    figure = Figure(
        name=name,
        bare=f"{base.per_second:,.1f}/s",
        ours=f"{_median(worked).per_second:,.1f}/s",
        ratio=median(wall),
        at_least=0.9,
    )
    if children < CORES:
        return [figure]
    return [
        figure,
        _processor_time(f"{name}, processor time", bare, worked, at_least=0.9),
        _processor_time(f"{name}, beside raw Pyfhel with files", filed, worked, at_least=None),
    ]


def _processor_time(
    name: str, bare: list[Rate], ours: list[Rate], at_least: float | None
) -> Figure:
    """The ratio is the median of the rounds' own, so that a slow minute is in both sides."""
    return Figure(
        name=name,
        bare=f"{_median(bare).cpu_seconds * 1e3:.2f} ms",
        ours=f"{_median(ours).cpu_seconds * 1e3:.2f} ms",
        ratio=median(b.cpu_seconds / o.cpu_seconds for b, o in zip(bare, ours, strict=True)),
        at_least=at_least,
    )


def _median(rates: list[Rate]) -> Rate:
    return Rate(
        median(rate.per_second for rate in rates), median(rate.cpu_seconds for rate in rates)
    )


def _show(line: str, write: Callable[[str], Any] = sys.stdout.write) -> None:
    write(line + "\n")
    sys.stdout.flush()


async def bench(settings: Settings, seconds: float) -> list[Figure]:
    """The whole table on a running stack."""
    await create_topics(settings.kafka_bootstrap_servers, settings.partitions)
    _show(f"multiply + relinearise + rescale, median of {ROUNDS} rounds")
    found: list[Figure] = []
    for params in CKKS_SETS.values():
        one_set = Bench(settings, params)
        for children in sorted({max(1, CORES - 1), CORES}):
            found += await measure(one_set, children, seconds)
    return found


def figures(seconds: float) -> list[Figure]:
    """Everything this module measures, on a stack of its own."""
    with tempfile.TemporaryDirectory(prefix="weir-bench-") as folder, Stack(Path(folder)) as stack:
        # The loop that `weir run fhe-worker` uses.
        return uvloop.run(bench(stack.settings, seconds))


if __name__ == "__main__":
    figures(float(sys.argv[1]) if len(sys.argv) > 1 else 5.0)
