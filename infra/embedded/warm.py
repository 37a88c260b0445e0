"""A start-up archive for the broker's JVM: loaded classes and profiles, kept once per machine.

The JRE wheel comes without one, so a broker spends most of its start on loading and verifying
classes. A training run records them (JEP 514 and 515); with the archive a start costs half the
processor time. Without it, or when the JVM finds that it does not fit, all works as before.
"""

import asyncio
import logging
import signal
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from aiokafka import TopicPartition

from infra.embedded.cache import cache_folder, exclusive
from infra.embedded.data_folder import DataFolder
from infra.embedded.kafka import KafkaBroker, archive_path
from infra.embedded.part import Launch, PartFailed
from infra.embedded.ports import LOOPBACK
from infra.embedded.supervisor import Supervised
from infra.kafka import Record, consumer, create_topics, stop_consumer
from infra.kafka_transactions import Transactions

TRAINING_TOPIC = "events"
TRAINING_PARTITIONS = 4
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
    await create_topics(bootstrap, TRAINING_PARTITIONS)
    transactions = Transactions(bootstrap, "training")
    await transactions.fence()
    for _ in range(20):
        async with transactions.txn() as txn:
            for number in range(20):
                partition = number % TRAINING_PARTITIONS
                await txn.send(TRAINING_TOPIC, Record(b"k", b"x" * 300, [], partition))
    await transactions.stop()
    reader = consumer(bootstrap, "training", group_id="training")
    await reader.start()
    assigned = [TopicPartition(TRAINING_TOPIC, number) for number in range(TRAINING_PARTITIONS)]
    reader.assign(assigned)
    await reader.seek_to_beginning(*assigned)
    seen = 0
    while seen < 400:
        seen += sum(map(len, (await reader.getmany(timeout_ms=1000)).values()))
    await reader.commit()
    await stop_consumer(reader)


if __name__ == "__main__":
    # It speaks of every retry while the broker makes its first group coordinator.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    if not archive_path().exists():
        sys.stderr.write("weir: recording a start-up archive for Kafka, once on this machine\n")
    try:
        ensure_archive()
    except PartFailed as error:
        sys.exit(f"weir: {error}")
