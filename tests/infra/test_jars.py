"""Only the pinned jars reach the class path, whatever a mirror serves.

The mirror here is a folder served on loopback, laid out as Maven repositories are.
"""

import functools
import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from infra.embedded import jars
from infra.embedded.jars import Jar, JarError, ensure_jars, findings, read_lock

CONTENT = b"not really a jar"


@pytest.fixture
def lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A lock of two jars that takes the place of the real one."""
    digest = hashlib.sha256(CONTENT).hexdigest()
    path = tmp_path / "jars.lock"
    path.write_text(
        f"# a comment\norg.one:first:1.0 sha256:{digest}\norg.two:second:2.0 sha256:{digest}\n"
    )
    monkeypatch.setattr(jars, "LOCK_FILE", path)
    monkeypatch.setattr("infra.embedded.jars.read_lock", functools.partial(read_lock, path))
    return path


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a Maven repository that is served while the test runs."""
    root = tmp_path / "mirror"
    for group, artifact, version in (("one", "first", "1.0"), ("two", "second", "2.0")):
        folder = root / "org" / group / artifact / version
        folder.mkdir(parents=True)
        (folder / f"{artifact}-{version}.jar").write_bytes(CONTENT)

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(root)))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    monkeypatch.setenv("WEIR_MAVEN_REPOSITORY", f"http://127.0.0.1:{server.server_port}")
    yield root
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    folder = tmp_path / "cache"
    folder.mkdir()
    return folder


@pytest.mark.usefixtures("lock", "mirror")
def test_missing_jars_are_fetched_once(cache: Path) -> None:
    fetched: list[str] = []
    found = ensure_jars(cache, fetched.append)
    assert [path.read_bytes() for path in found] == [CONTENT, CONTENT]
    assert sorted(fetched) == ["first-1.0.jar", "second-2.0.jar"]
    assert ensure_jars(cache, fetched.append) == found
    assert len(fetched) == 2
    assert sorted(path.name for path in cache.iterdir()) == ["first-1.0.jar", "second-2.0.jar"]


@pytest.mark.usefixtures("lock")
def test_another_file_from_the_mirror_is_refused(cache: Path, mirror: Path) -> None:
    (mirror / "org/one/first/1.0/first-1.0.jar").write_bytes(b"evil")
    with pytest.raises(JarError, match=r"org\.one:first:1\.0 has SHA-256"):
        ensure_jars(cache)
    assert not (cache / "first-1.0.jar").exists()


@pytest.mark.usefixtures("lock", "mirror")
def test_a_damaged_jar_is_found_and_replaced(cache: Path) -> None:
    first, _ = ensure_jars(cache)
    first.write_bytes(b"torn")
    assert findings(cache) == [f"{first} is not the file that the lock pins"]
    ensure_jars(cache)
    assert findings(cache) == []


@pytest.mark.usefixtures("lock")
def test_what_no_mirror_has_is_named_in_one_line(cache: Path, mirror: Path) -> None:
    (mirror / "org/two/second/2.0/second-2.0.jar").unlink()
    with pytest.raises(JarError, match=r"cannot fetch org\.two:second:2\.0") as caught:
        ensure_jars(cache)
    assert "\n" not in str(caught.value)
    assert findings(cache) == [f"second-2.0.jar is not in {cache}"]


@pytest.mark.usefixtures("lock", "mirror")
def test_several_may_fetch_at_once(cache: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(ensure_jars, [cache] * 4))
    assert all(result == results[0] for result in results)
    assert findings(cache) == []


@pytest.mark.parametrize("line", ["org.one:first", "org.one:first:1.0 sha256:12", "a b c"])
def test_a_malformed_line_of_the_lock_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "broken.lock"
    path.write_text(f"# comment\n{line}\n")
    with pytest.raises(JarError, match=r"broken\.lock:2"):
        read_lock(path)


def test_the_real_lock_pins_one_version_of_kafka_and_no_jar_twice() -> None:
    pinned = read_lock()
    kafka = {jar.version for jar in pinned if jar.group == "org.apache.kafka"}
    assert kafka == {jars.KAFKA_VERSION}
    names = [(jar.group, jar.artifact) for jar in pinned]
    assert len(names) == len(set(names))
    assert Jar("a.b", "c", "1", "0" * 64).filename == "c-1.jar"
