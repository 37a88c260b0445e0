"""The broker's jars: pinned in a lock file, fetched once per machine, checked before every use.

The lock (`infra/requirements/kafka-jars.lock`) holds coordinates and SHA-256 sums and no hosts.
jgo, a Maven resolver in Python, does the fetching; the sums are ours, so neither a mirror nor a
torn download can put another file on the broker's class path.
"""

import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from infra.embedded.cache import cache_folder

LOCK_FILE = Path(__file__).parents[1] / "requirements" / "kafka-jars.lock"
KAFKA_VERSION = "4.1.2"
# Kafka logs through slf4j 1.7 and brings log4j's core; only the binding between them is missing.
ROOTS = (f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}",)
BINDING = "org.apache.logging.log4j:log4j-slf4j-impl"
FETCH_TIMEOUT_SECONDS = 60
FETCH_ATTEMPTS = 3


class JarError(Exception):
    """A jar cannot be had or is not the one that the lock pins; one line for a person."""


class Jar(NamedTuple):
    """One pinned artifact."""

    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def filename(self) -> str:
        return f"{self.artifact}-{self.version}.jar"

    @property
    def coordinate(self) -> str:
        return f"{self.group}:{self.artifact}:{self.version}"


def read_lock(path: Path = LOCK_FILE) -> list[Jar]:
    """The pinned jars. Raises JarError on a missing file or a malformed line."""
    try:
        text = path.read_text()
    except OSError as error:
        raise JarError(f"cannot read {path}: {error.strerror}") from error
    jars = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        coordinate, _, digest = line.partition(" sha256:")
        fields = coordinate.split(":")
        if len(fields) != 3 or len(digest) != 64:
            raise JarError(f"{path.name}:{number}: not `group:artifact:version sha256:<sum>`")
        group, artifact, version = fields
        jars.append(Jar(group, artifact, version, digest))
    return jars


def sha256_of(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def findings(folder: Path | None = None) -> list[str]:
    """What is wrong with the cached jars, one line each; an empty list when all is well."""
    where = folder or cache_folder("jars")
    problems = []
    for jar in read_lock():
        path = where / jar.filename
        if not path.exists():
            problems.append(f"{jar.filename} is not in {where}")
        elif sha256_of(path) != jar.sha256:
            problems.append(f"{path} is not the file that the lock pins")
    return problems


def ensure_jars(
    folder: Path | None = None, progress: Callable[[str], None] = lambda _: None
) -> list[Path]:
    """The broker's class path: `fetched` of every pinned jar."""
    return fetched(read_lock(), folder, progress)


def fetched(
    jars: Sequence[Jar],
    folder: Path | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> list[Path]:
    """Where the jars are: each fetched if missing, and checked against its SHA-256.

    `progress` gets the name of each jar that is fetched. Safe to run in several processes at
    once: a jar appears by rename. Raises JarError when one cannot be fetched or does not match.
    """
    where = folder or cache_folder("jars")
    missing = [
        jar
        for jar in jars
        if not (where / jar.filename).exists() or sha256_of(where / jar.filename) != jar.sha256
    ]
    if missing:

        def fetch(jar: Jar) -> None:
            _fetch(jar, where)
            progress(jar.filename)

        with ThreadPoolExecutor(max_workers=4) as pool:
            list(pool.map(fetch, missing))
    return [where / jar.filename for jar in jars]


def _fetch(jar: Jar, where: Path) -> None:
    """Fetch one jar into `where`; a fresh folder each try, since jgo trusts what it finds there."""
    last: Exception | None = None
    for _ in range(FETCH_ATTEMPTS):
        with tempfile.TemporaryDirectory(dir=where, prefix=".fetch-") as scratch:
            try:
                component = _maven(Path(scratch)).project(jar.group, jar.artifact)
                artifact = component.at_version(jar.version).artifact().resolve()
            except Exception as error:  # jgo raises whatever its HTTP client does
                last = error
                continue
            found = sha256_of(artifact)
            if found != jar.sha256:
                raise JarError(
                    f"{jar.coordinate} has SHA-256 {found}, the lock pins {jar.sha256}: "
                    "the mirror serves another file, or the lock is wrong"
                )
            artifact.replace(where / jar.filename)
            return
    raise JarError(f"cannot fetch {jar.coordinate}: {str(last).splitlines()[0]}")


def _maven(scratch: Path) -> Any:
    from jgo.maven import MavenContext

    mirror = os.environ.get("WEIR_MAVEN_REPOSITORY")
    return MavenContext(
        repo_cache=scratch,
        local_repos=[],
        remote_repos={"mirror": mirror} if mirror else None,
        timeout=FETCH_TIMEOUT_SECONDS,
    )


def resolve_lock() -> list[Jar]:
    """Resolve the roots anew and sum what comes: the content of a new lock (`make lock`).

    The logging binding is added without its own dependencies: resolved together with Kafka, its
    managed versions would win and bring an old kafka-clients.
    """
    with tempfile.TemporaryDirectory(prefix="weir-jars-") as scratch:
        maven = _maven(Path(scratch))
        roots = [maven.create_dependency(root) for root in ROOTS]
        inputs, transitive = maven.resolver.resolve(roots)
        artifacts = [dependency.artifact for dependency in (*inputs, *transitive)]
        log4j = next(a.version for a in artifacts if a.artifactId == "log4j-core")
        group, artifact = BINDING.split(":")
        artifacts.append(maven.project(group, artifact).at_version(log4j).artifact())
        jars = [Jar(a.groupId, a.artifactId, a.version, sha256_of(a.resolve())) for a in artifacts]
    wrong = [
        j.coordinate for j in jars if j.group == "org.apache.kafka" and j.version != KAFKA_VERSION
    ]
    if wrong:
        raise JarError(f"resolved Kafka parts of another version: {', '.join(wrong)}")
    return sorted(jars)


def write_lock(path: Path = LOCK_FILE) -> None:
    """Write the lock from a fresh resolution, atomically."""
    lines = [
        f"# Jars of the embedded broker (Kafka {KAFKA_VERSION}); written by `make lock`.",
        *(f"{jar.coordinate} sha256:{jar.sha256}" for jar in resolve_lock()),
    ]
    temporary = path.with_suffix(".new")
    temporary.write_text("\n".join(lines) + "\n")
    shutil.move(temporary, path)


def main(arguments: list[str]) -> None:
    """`python -m infra.embedded.jars fetch` fills the cache, `... lock` writes the lock anew."""
    try:
        if arguments == ["lock"]:
            write_lock()
        elif arguments == ["fetch"]:
            ensure_jars()
        else:
            raise JarError("say fetch or lock")
    except JarError as error:
        sys.exit(f"weir: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
