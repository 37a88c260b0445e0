"""A start-up archive for the broker's JVM: loaded classes and profiles, kept once per machine.

The JRE wheel comes without one, so a broker spends most of its start on loading and verifying
classes. A training run records them (JEP 514 and 515); with the archive a start costs half the
processor time. Without it, or when the JVM finds that it does not fit, all works as before.
"""

import asyncio
import signal
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from infra.embedded.cache import cache_folder, exclusive
from infra.embedded.data_folder import DataFolder
from infra.embedded.kafka import KafkaBroker, archive_path
from infra.embedded.part import Launch, PartFailed
from infra.embedded.ports import LOOPBACK
from infra.embedded.supervisor import Supervised

TRAINING_TOPIC = "training"
# Writing the archive happens after the broker's own end and takes a processor for a while.
ARCHIVE_SECONDS = 300.0


@dataclass(frozen=True)
class TrainingBroker(KafkaBroker):
    """A broker that writes the archive when it ends."""

    archive: str = ""
    stop_seconds: float = ARCHIVE_SECONDS
    stop_signal: signal.Signals = signal.SIGTERM

    def launch(self) -> Launch:
        return self.launch_with(f"-XX:AOTCacheOutput={self.archive}")


def ensure_archive() -> Path:
    """The archive, recorded if this machine has none yet (half a minute). Raises PartFailed."""
    path = archive_path()
    with exclusive(cache_folder("archives") / "lock"):
        if not path.exists():
            _record(path)
    return path


def _record(path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="weir-warm-") as scratch:
        folder = DataFolder(Path(scratch))
        identity = folder.open()
        fresh = Path(scratch) / "fresh.aot"
        broker = TrainingBroker(
            folder.kafka,
            identity.ports["kafka"],
            identity.ports["kafka_controller"],
            identity.kafka_cluster_id,
            archive=str(fresh),
        )
        supervised = Supervised(broker, folder.logs / "kafka.log", {})
        supervised.start()
        try:
            supervised.wait_ready()
            asyncio.run(_exercise(f"{LOOPBACK}:{broker.port}"))
        finally:
            supervised.halt()
            folder.close()
        if not fresh.exists():
            raise PartFailed(f"the JVM wrote no archive: {supervised.log_tail(1)}")
        partial = path.with_suffix(".part")
        partial.write_bytes(fresh.read_bytes())
        partial.rename(path)


async def _exercise(bootstrap: str) -> None:
    """Do what the stack will do, so that the archive holds what that needs."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(TRAINING_TOPIC, 4, 1)])
    await admin.close()
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap, transactional_id="training", compression_type="lz4"
    )
    await producer.start()
    for _ in range(20):
        async with producer.transaction():
            for number in range(20):
                await producer.send(TRAINING_TOPIC, b"x" * 300, partition=number % 4)
    await producer.stop()
    consumer = AIOKafkaConsumer(
        TRAINING_TOPIC,
        bootstrap_servers=bootstrap,
        group_id="training",
        isolation_level="read_committed",
        auto_offset_reset="earliest",
    )
    await consumer.start()
    seen = 0
    while seen < 400:
        seen += sum(map(len, (await consumer.getmany(timeout_ms=1000)).values()))
    await consumer.commit()
    await consumer.stop()


if __name__ == "__main__":
    if not archive_path().exists():
        print("weir: recording a start-up archive for Kafka, once on this machine", file=sys.stderr)
    try:
        ensure_archive()
    except PartFailed as error:
        sys.exit(f"weir: {error}")
