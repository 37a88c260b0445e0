"""The demo passes, and everything that the documents tell to type does what they say."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from infra.bootstrap import read_credentials
from tests.docs.documents import blocks, documents, name_of
from tests.docs.running import Demo, demo, run

RUNNABLE = [path for path in documents() if any(block.runs for block in blocks(path))]


@pytest.fixture(scope="module")
def passed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """The demo, whose stack goes on for the documents."""
    with demo(tmp_path_factory.mktemp("demo")) as running:
        yield running


def test_the_demo_passes_and_its_urls_are_there(passed: Demo) -> None:
    assert "All 7 steps held." in passed.summary
    known = read_credentials(passed.data / "credentials.json")
    assert known is not None
    urls = [word for word in passed.summary.split() if word.startswith("http://")]
    assert len(urls) == 4
    for url in urls:
        assert url.startswith(known.url)
        assert httpx.get(url, timeout=30).status_code == 200, url


@pytest.mark.parametrize("path", RUNNABLE, ids=name_of)
def test_what_a_document_tells_to_type_works(passed: Demo, path: Path, tmp_path: Path) -> None:
    done = run(path, tmp_path, passed.data)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
