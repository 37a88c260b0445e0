"""Bootstrapping with its true parameters: `python -m bench.fhe_bootstrap`.

The key has 25 parts and 907 MB; it is made once, in a temporary folder. First the helper alone, as
a worker has it: a job that has to load the key, and one that finds it. Then the same over HTTP
against a whole installation: the parts are sent by the resumable upload, each in two pieces, looked
at, made a key; one job refreshes a ciphertext without a level left, and its result is decrypted and
compared. Only where the helper is built. What API, worker and helper occupy is their most, looked
at every tenth of a second.
"""

import asyncio
import json
import sys
import tempfile
import threading
import time
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil

from bench.figure import Figure
from bench.installation import installation, part_of
from fhe_workers.bootstrapping import Bootstrapper, HelperLimits
from fhe_workers.messages import CIPHER, Work
from infra.build.bootstrap import cached_helper
from schemas.fhe.parameters import BOOTSTRAP_ERROR, CKKS_BOOT_N15
from tests.fhe_workers.refreshing import RefreshingClient

_SET = CKKS_BOOT_N15.params_id
_LOOK_SECONDS = 0.1


class Peaks:
    """The most that processes occupied while a block ran, in bytes, by a name."""

    def __init__(self, root: psutil.Process) -> None:
        self._api, self._worker = part_of(root, "api"), part_of(root, "fhe-worker")
        self.most: dict[str, int] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> "Peaks":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(_LOOK_SECONDS):
            self._note("API", self._api)
            self._note("worker", self._worker)
            for process in self._children(self._api):
                self._note("process that loads a part", process)
            for process in self._children(self._worker):
                if "serve" in self._line(process):
                    self._note("helper", process)

    def _note(self, name: str, process: psutil.Process) -> None:
        try:
            size = process.memory_info().rss
        except psutil.NoSuchProcess:
            return
        self.most[name] = max(size, self.most.get(name, 0))

    @staticmethod
    def _children(process: psutil.Process) -> list[psutil.Process]:
        try:
            return process.children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    @staticmethod
    def _line(process: psutil.Process) -> list[str]:
        try:
            return process.cmdline()
        except psutil.NoSuchProcess:
            return []

    def __str__(self) -> str:
        return ", ".join(f"{name} {size / 2**20:,.0f} MiB" for name, size in self.most.items())


async def alone(client: RefreshingClient) -> Figure:
    """The helper with nothing around it."""
    values = np.random.default_rng(1).uniform(-1, 1, 16)
    data = client.encrypt(list(values), level=2)
    work = Work("job", "bootstrap", _SET, "key", (CIPHER,), 60, True)
    took, error = [], 0.0
    async with Bootstrapper(client.program, HelperLimits()) as helper:
        for _ in range(2):
            began = time.perf_counter()
            result = await helper.run(work, [data], client.parts, client.part)
            took.append(time.perf_counter() - began)
            error = float(np.abs(np.array(client.decrypt(result.data)) - values).max())
        assert helper.pid is not None
        resident = psutil.Process(helper.pid).memory_info().rss
    return Figure(
        f"bootstrapping, {_SET}, key not loaded and loaded (error {error:.1g}, "
        f"{resident / 1e9:.1f} GB)",
        f"{took[0]:.1f} s",
        f"{took[1]:.1f} s",
        took[0] / took[1],
    )


def over_http(client: RefreshingClient) -> list[Figure]:
    """From the upload to the decrypted result, through every part of an installation."""
    with tempfile.TemporaryDirectory(prefix="weir-bench-") as folder:
        data = Path(folder, "data")
        with installation(data) as (root, _), Peaks(root) as peaks:
            known = json.loads((data / "credentials.json").read_text())
            api = httpx.Client(
                base_url=known["url"], headers={"X-Wax-Key": known["api_key"]}, timeout=120
            )
            began = time.perf_counter()
            key_id = _uploaded(api, client)
            took = time.perf_counter() - began
            size = sum(part.size_bytes for part in client.parts)
            uploading = Figure(
                f"a bootstrapping key of {len(client.parts)} parts and {size / 1e6:,.0f} MB "
                "uploaded over HTTP, each part loaded before it counts",
                "",
                f"{took:.0f} s, {size / took / 1e6:.0f} MB/s",
            )
            values = np.random.default_rng(2).uniform(-1, 1, 16)
            seconds, error = [], 0.0
            for round_ in range(2):
                worn = client.encrypt(list(values * (1 - 0.5 * round_)), level=2)
                began = time.perf_counter()
                job = _refreshed(api, key_id, worn)
                seconds.append(time.perf_counter() - began)
                found = np.array(client.decrypt(b64decode(job["result"]["ciphertext"])))
                error = max(error, float(np.abs(found - values * (1 - 0.5 * round_)).max()))
                assert (job["result"]["level"], error < BOOTSTRAP_ERROR) == (0, True), error
            api.delete(f"/api/v1/keys/{key_id}").raise_for_status()
        return [
            uploading,
            Figure(
                f"bootstrapping over HTTP, {_SET}, key not loaded and loaded (error {error:.1g})",
                f"{seconds[0]:.1f} s",
                f"{seconds[1]:.1f} s",
                seconds[0] / seconds[1],
            ),
            Figure("most memory meanwhile", "", str(peaks)),
        ]


def _uploaded(api: httpx.Client, client: RefreshingClient) -> str:
    """The id of the key, sent part by part, each in two pieces."""
    declared = [{"kind": part.kind, "size_bytes": part.size_bytes} for part in client.parts]
    opened = _ok(api.post("/api/v1/keys/uploads", json={"params_id": _SET, "parts": declared}))
    path = f"/api/v1/keys/uploads/{opened['upload_id']}"
    for number, part in enumerate(client.parts):
        data, middle = client.bytes_of(part.kind), part.size_bytes // 2
        for offset, piece in ((0, data[:middle]), (middle, data[middle:])):
            headers = {"Content-Type": "application/octet-stream", "Upload-Offset": str(offset)}
            _ok(api.patch(f"{path}/parts/{number}", content=piece, headers=headers))
    hashes = [part.sha256 for part in client.parts]
    return str(_ok(api.post(f"{path}/complete", json={"sha256s": hashes}))["key_id"])


def _refreshed(api: httpx.Client, key_id: str, worn: bytes) -> dict[str, Any]:
    operand = {"ciphertext": b64encode(worn).decode()}
    body = {"key_id": key_id, "operand": operand}
    job = _ok(api.post("/api/v1/compute/bootstrap?wait=60", json=body))
    if job["status"] == "queued":
        path = f"/api/v1/jobs/{job['job_id']}"
        _followed(api, f"{path}/events")
        job = _ok(api.get(path))
    if job["status"] != "succeeded":
        raise RuntimeError(f"the job ended as {job}")
    return job


def _followed(api: httpx.Client, path: str) -> None:
    """Wait until a job's events end."""
    with api.stream("GET", path) as answer:
        if "event: end" not in answer.iter_lines():
            raise RuntimeError(f"{path}: {answer.status_code}, and no end was told of")


def _ok(answer: httpx.Response) -> dict[str, Any]:
    if not answer.is_success:
        raise RuntimeError(f"{answer.request.url}: {answer.status_code} {answer.text[:300]}")
    return dict(answer.json())


def figures(seconds: float) -> list[Figure]:
    """See `bench.__main__.BENCHES`; about two minutes, whatever `seconds` says."""
    program = cached_helper()
    if program is None:
        return []
    with tempfile.TemporaryDirectory(prefix="weir-bench-") as folder:
        client = RefreshingClient(program, Path(folder), _SET)
        found = [asyncio.run(alone(client)), *over_http(client)]
    for figure in found:
        sys.stdout.write(figure.line() + "\n")
    return found


if __name__ == "__main__":
    figures(0.0)
