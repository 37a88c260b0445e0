"""The two sides of `bench.telemetry`, each `python -m bench.telemetry_servers ours|bare PORT`.

ours: the whole API as its role serves it, over the real log; only the credential is made up here,
and analytics and Postgres are absent, since this path asks neither. bare: Starlette and aiokafka
with nothing in between: decode, produce the same items as JSON, wait for the acknowledgement.
"""

import gc
import os
import sys
from collections.abc import Callable
from typing import Any

import msgspec
import uvicorn
import uvloop
from aiokafka import AIOKafkaProducer
from msgspec import Struct
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route as StarletteRoute

from api.app import build_app
from api.credentials import ApiKey, lookup_prefix
from api.services import Services
from infra.ids import Signer, secret_hash
from infra.kafka_batches import BatchingLog
from tests.api.harness import SECRET, memory_settings
from tests.api.memory import MemoryAnalytics, MemoryBus, MemoryCredentials, MemoryReads

TENANT = "ten_bench"
KEY = "wax_sk_" + "k" * 43
BARE_TOPIC = "bare.telemetry"


class Item(Struct):
    model: str
    tokens_in: int
    tokens_out: int
    cost: float | None = None
    task: str = ""
    prompt_preview: str = ""
    response_preview: str = ""


class Body(Struct):
    calls: list[Item]


async def ours(bootstrap: str) -> Any:
    """The API's application."""
    credentials = MemoryCredentials()
    credentials.api_keys[lookup_prefix(KEY)] = ApiKey(
        "key_1", TENANT, secret_hash(KEY), roles=frozenset({"developer"})
    )
    log = BatchingLog(bootstrap, "bench-ours", linger_ms=5)
    await log.start()
    services = Services(
        settings=memory_settings(),
        signer=Signer(SECRET),
        bus=MemoryBus(),
        reads=MemoryReads(),
        credentials=credentials,
        analytics=MemoryAnalytics(),
        log=log,
    )
    return build_app(services)


async def bare(bootstrap: str) -> Any:
    """A handler with no more in it than the figure is about."""
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap,
        enable_idempotence=True,
        acks="all",
        linger_ms=5,
        max_batch_size=1024 * 1024,
        compression_type="lz4",
    )
    await producer.start()
    decode, encode = msgspec.json.Decoder(Body).decode, msgspec.json.Encoder().encode

    async def record(request: Request) -> Response:
        body = decode(await request.body())
        key = request.path_params["run_id"].encode()
        await producer.send_and_wait(BARE_TOPIC, encode(body), key=key)
        answer = encode({"status": "ok", "count": len(body.calls)})
        return Response(answer, media_type="application/json")

    path = "/api/v1/observe/runs/{run_id}/llm-calls/"
    return Starlette(routes=[StarletteRoute(path, record, methods=["POST"])])


class Server(uvicorn.Server):
    """Says on standard output when it serves."""

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        sys.stdout.write("serving\n")
        sys.stdout.flush()


async def serve(app: Any, port: int) -> None:
    """Serve an application as the API's role does, until the process is told to end."""
    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=port,
        http="httptools",
        ws="none",
        lifespan="off",
        loop="none",
        log_config=None,
        access_log=False,
        server_header=False,
    )
    # As the API's role does: what start-up made need not be looked at again.
    gc.collect()
    gc.freeze()
    await Server(config).serve()


async def main(side: str, port: int) -> None:
    sides: dict[str, Callable[[str], Any]] = {"ours": ours, "bare": bare}
    await serve(await sides[side](os.environ["KAFKA_BOOTSTRAP_SERVERS"]), port)


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2])))
