"""The embedded stack as one object: a data folder, its servers, and the roles on top of them.

`with Stack(folder) as stack:` (or `async with`) starts PostgreSQL and Kafka, then the roles that
were asked for, and ends everything in the reverse order. `weir up`, the tests and the chaos
supervisor all use this one class.
"""

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from infra.config import Settings, load_settings
from infra.embedded.data_folder import DataFolder, Identity
from infra.embedded.kafka import KafkaBroker
from infra.embedded.part import Launch, Part, PartFailed, ProcessPart
from infra.embedded.ports import LOOPBACK
from infra.embedded.postgres import PostgresServer
from infra.embedded.supervisor import State, Supervised

CHECKOUT = Path(__file__).parents[2]

# How the roles share processes: chDB allows one engine per process and one process per folder,
# so the API and the analytics loop, which both need it, live together.
DEFAULT_ROLES: tuple[tuple[str, ...], ...] = (
    ("api", "analytics"),
    ("decider", "scheduler"),
    ("streams",),
    ("fhe-worker",),
)


class Stack:
    """PostgreSQL, Kafka and groups of roles on one data folder; each group is one process.

    `roles` are groups as in DEFAULT_ROLES, none for the servers alone. `after_servers` is called
    with the settings when the servers are up and before any role starts (topics, migrations).
    Optional settings come from this process's environment, as for any role; `extra` (environment
    variables by name) wins over it. `report` hears of each step, `warn` of each restart.
    """

    def __init__(
        self,
        data: Path,
        roles: Sequence[Sequence[str]] = (),
        *,
        port: int | None = None,
        preferred_port: int | None = None,
        extra: Mapping[str, str] | None = None,
        after_servers: Callable[[Settings], None] = lambda _: None,
        report: Callable[[str], None] = lambda _: None,
        warn: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.folder = DataFolder(data)
        self._roles = [tuple(group) for group in roles]
        self._wanted_ports = {} if port is None else {"api": port}
        self._preferred_ports = {} if preferred_port is None else {"api": preferred_port}
        self._extra = dict(extra or {})
        self._after_servers = after_servers
        self._report = report
        self._warn = warn
        self._settings: Settings | None = None
        self._parts: dict[str, Supervised] = {}

    @property
    def settings(self) -> Settings:
        """What a role on this stack is configured with. Only after the start."""
        if self._settings is None:
            raise PartFailed("the stack has not been started")
        return self._settings

    def env(self) -> dict[str, str]:
        """This process's environment with the stack's settings over it, for a subprocess."""
        path = os.pathsep.join(filter(None, (str(CHECKOUT), os.environ.get("PYTHONPATH"))))
        return {**os.environ, **self.settings.to_env(), "PYTHONPATH": path}

    @property
    def names(self) -> list[str]:
        """The names of all parts, in the order in which they start."""
        return list(self._parts)

    def start(self) -> None:
        """Start everything and wait until it serves.

        Raises DataFolderError when the folder cannot be used and PartFailed when a part does not
        come up; nothing is left running then.
        """
        identity = self.folder.open(self._wanted_ports, self._preferred_ports)
        try:
            self._settings = self.settings_for(identity)
            servers: list[Part] = [self._postgres(identity), self._kafka(identity)]
            self._bring_up(servers, {})
            self._after_servers(self._settings)
            self._bring_up([self._role(group) for group in self._roles], self.env())
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the roles, all at once, then the servers. Does nothing when nothing runs."""
        servers = {"postgres", "kafka"}
        _together([part.halt for name, part in self._parts.items() if name not in servers])
        _together([part.halt for name, part in self._parts.items() if name in servers])
        self._parts.clear()
        self.folder.close()

    def pid(self, name: str) -> int | None:
        """The process id of a part while it runs."""
        return self._part(name).pid

    def state(self, name: str) -> State:
        """Where a part is in its life."""
        return self._part(name).state

    def restarts(self, name: str) -> int:
        """How often the supervisor has started a part again."""
        return self._part(name).restarts

    def log(self, name: str) -> Path:
        """The file that a part writes to."""
        return self._part(name).log

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Signal a part, which the supervisor starts again; see Supervised.kill."""
        self._part(name).kill(number)

    def pause(self, name: str) -> None:
        """Freeze a part and its children."""
        self._part(name).pause()

    def resume(self, name: str) -> None:
        """Let a frozen part go on."""
        self._part(name).resume()

    def halt(self, name: str) -> None:
        """End a part cleanly and leave it down until `launch`."""
        self._part(name).halt()

    def launch(self, name: str) -> None:
        """Start a halted part and wait until it serves."""
        self._part(name).start()
        self._part(name).wait_ready()

    def restart(self, name: str) -> None:
        """End a part cleanly, start it again and wait until it serves."""
        self.halt(name)
        self.launch(name)

    def wait_ready(self, name: str, timeout_seconds: float | None = None) -> None:
        """Wait until a part serves. Raises PartFailed when it is late."""
        self._part(name).wait_ready(timeout_seconds)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self.start)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await asyncio.to_thread(self.stop)

    def _part(self, name: str) -> Supervised:
        """A part by its name, or the process that has the role of that name."""
        for known, part in self._parts.items():
            if name == known or name in known.split("+"):
                return part
        raise PartFailed(f"there is no part {name!r}; there are {', '.join(self._parts)}")

    def _bring_up(self, parts: Sequence[Part], environment: Mapping[str, str]) -> None:
        plain = {key: value for key, value in os.environ.items() if not key.startswith("WEIR_")}
        for part in parts:
            log = self.folder.logs / f"{part.name}.log"
            supervised = Supervised(part, log, environment or plain, self._warn)
            self._parts[part.name] = supervised
            supervised.start()
        names = [part.name for part in parts]
        while names:
            self._report(f"starting {', '.join(names)}")
            self._parts[names[0]].wait_ready()
            self._report(f"{names.pop(0)} is ready")

    def settings_for(self, identity: Identity) -> Settings:
        """The settings that follow from a data folder's identity and this process's environment."""
        return load_settings(
            {
                **os.environ,
                "WEIR_PORT": str(identity.ports["api"]),
                **self._extra,
                "KAFKA_BOOTSTRAP_SERVERS": f"{LOOPBACK}:{identity.ports['kafka']}",
                "DATABASE_URL": self._postgres(identity).url,
                "CLICKHOUSE_URL": f"chdb://{self.folder.clickhouse}",
                "OBJECT_STORE_URL": self.folder.objects.as_uri(),
                "WEIR_SECRET_KEY": identity.secret_key,
                "WEIR_STATE_DIR": str(self.folder.state),
            }
        )

    def _postgres(self, identity: Identity) -> PostgresServer:
        return PostgresServer(
            self.folder.postgres, identity.ports["postgres"], identity.postgres_password
        )

    def _kafka(self, identity: Identity) -> KafkaBroker:
        return KafkaBroker(
            self.folder.kafka,
            identity.ports["kafka"],
            identity.ports["kafka_controller"],
            identity.kafka_cluster_id,
        )

    def _role(self, group: tuple[str, ...]) -> ProcessPart:
        command = (sys.executable, "-m", "infra.cli", "run", *group)
        return ProcessPart(
            name="+".join(group),
            launched=Launch(command, {}, self.folder.root),
            roles=frozenset(group),
        )


def _together(calls: Sequence[Callable[[], None]]) -> None:
    """Make blocking calls side by side and wait for all."""
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
