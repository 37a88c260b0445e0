"""The folder in which an embedded stack lives: its lock, its ports, its secrets, its logs."""

import fcntl
import os
import secrets
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import msgspec

from infra.embedded.ports import free_port, is_free

PORT_NAMES = ("kafka", "kafka_controller", "postgres", "api")


class DataFolderError(Exception):
    """The folder cannot be used; one line for a person."""


class Identity(msgspec.Struct, frozen=True):
    """What a data folder must remember to be the same stack again."""

    ports: dict[str, int]
    secret_key: str
    postgres_password: str
    kafka_cluster_id: str


class DataFolder:
    """One folder, held by one supervisor at a time.

    `open` takes the lock (an flock, so it is free again as soon as its holder is dead) and reads
    or makes the identity; ports that something else took meanwhile are replaced.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.logs = self.root / "logs"
        self.kafka = self.root / "kafka"
        self.postgres = self.root / "postgres"
        self.clickhouse = self.root / "clickhouse"
        self.objects = self.root / "objects"
        self.state = self.root / "state"
        self.credentials = self.root / "credentials.json"
        self._remembered = self.root / "identity.json"
        self._lock: IO[str] | None = None

    @property
    def remembers(self) -> bool:
        """Whether a stack has been here before, with ports of its own."""
        return self._remembered.exists()

    @property
    def is_held(self) -> bool:
        """Whether a supervisor has the folder at this moment; looked at, not taken from it."""
        try:
            with (self.root / "lock").open() as handle:
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def open(
        self,
        wanted_ports: Mapping[str, int] | None = None,
        preferred_ports: Mapping[str, int] | None = None,
    ) -> Identity:
        """Lock the folder and return its identity.

        `wanted_ports` overrides remembered ports by name; `preferred_ports` are tried for what is
        not remembered. Raises DataFolderError when another process holds the folder, a wanted
        port is taken, or the folder cannot be written.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            for folder in (self.logs, self.kafka, self.clickhouse, self.objects, self.state):
                # What customers store is nobody else's to read.
                folder.mkdir(mode=0o700, exist_ok=True)
            self._take_lock()
            try:
                return self._identity(wanted_ports or {}, preferred_ports or {})
            except BaseException:
                self.close()
                raise
        except OSError as error:
            raise DataFolderError(f"cannot use {self.root}: {error.strerror or error}") from error

    def close(self) -> None:
        """Let the folder go. Does nothing when it is not held."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _take_lock(self) -> None:
        handle = (self.root / "lock").open("a+")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            handle.seek(0)
            holder = handle.read().strip() or "unknown"
            handle.close()
            raise DataFolderError(
                f"{self.root} is in use by process {holder}: stop that one, or give another --data"
            ) from None
        handle.truncate(0)
        handle.write(str(os.getpid()))
        handle.flush()
        self._lock = handle

    def _identity(self, wanted: Mapping[str, int], preferred: Mapping[str, int]) -> Identity:
        path = self._remembered
        known: Identity | None = None
        if path.exists():
            try:
                known = msgspec.json.decode(path.read_bytes(), type=Identity)
            except msgspec.DecodeError as error:
                raise DataFolderError(f"{path} is damaged: {error}") from error
        for name, port in wanted.items():
            if not is_free(port):
                raise DataFolderError(f"port {port} (for {name}) is taken by another process")
        ports = {**preferred, **(known.ports if known else {}), **wanted}
        chosen: dict[str, int] = {}
        for name in PORT_NAMES:
            port = ports.get(name, 0)
            usable = port != 0 and port not in chosen.values() and is_free(port)
            chosen[name] = port if usable else free_port({*ports.values(), *chosen.values()})
        identity = Identity(
            ports=chosen,
            secret_key=known.secret_key if known else secrets.token_hex(32),
            postgres_password=known.postgres_password if known else secrets.token_hex(24),
            kafka_cluster_id=known.kafka_cluster_id if known else _cluster_id(),
        )
        if identity != known:
            write_private(path, msgspec.json.format(msgspec.json.encode(identity)))
        return identity


def _cluster_id() -> str:
    # Kafka reads an id that begins with a dash as an option of its format tool.
    while True:
        text = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not text.startswith("-"):
            return text


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read (mode 600), whole or not at all."""
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as handle:
        handle.write(content)
        handle.flush()
        os.fsync(handle.fileno())
    temporary.replace(path)
