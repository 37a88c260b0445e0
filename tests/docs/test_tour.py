"""The demo passes, everything that the documents tell to type does what they say, and the log is
enough to have all of that again."""

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from infra.bootstrap import Credentials, read_credentials
from tests.docs.documents import ROOT, blocks, documents, name_of
from tests.docs.running import DEMO_GOES_ON, IS_READY, Stack, environment, run, weir

RUNNABLE = [path for path in documents() if any(block.runs for block in blocks(path))]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
PATIENCE_SECONDS = 90


@pytest.fixture(scope="module")
def passed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The demo, whose stack goes on for the documents."""
    data = tmp_path_factory.mktemp("demo")
    with weir("demo", "--keep", data=data, ready=DEMO_GOES_ON) as running:
        yield running


def known(stack: Stack) -> Credentials:
    found = read_credentials(stack.data / "credentials.json")
    assert found is not None
    return found


def test_the_demo_passes_and_its_urls_are_there(passed: Stack) -> None:
    assert "All 7 steps held." in passed.said
    urls = [word for word in passed.said.split() if word.startswith("http://")]
    assert len(urls) == 4
    for url in urls:
        assert url.startswith(known(passed).url)
        assert httpx.get(url, timeout=30).status_code == 200, url


@pytest.mark.parametrize("path", RUNNABLE, ids=name_of)
def test_what_a_document_tells_to_type_works(passed: Stack, path: Path, tmp_path: Path) -> None:
    done = run(path, tmp_path, passed.data)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("path", EXAMPLES, ids=name_of)
def test_an_example_runs(passed: Stack, path: Path) -> None:
    done = subprocess.run(
        [sys.executable, path, passed.data / "credentials.json"],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert done.stdout.startswith("decrypted: ")


def until_at_rest(stack: Stack) -> None:
    """Return once every loop has read all there is, so that no view is about to change."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        loops = httpx.get(f"{known(stack).url}/health/ready", timeout=30).json()["loops"]
        if loops and all(loop["lag"] == 0 for loop in loops.values()):
            return
        assert time.monotonic() < deadline, loops
        time.sleep(0.5)


def answers(stack: Stack) -> dict[str, Any]:
    """What the API tells of everything that the demo and the documents have done."""
    credentials = known(stack)
    billing = f"/api/v1/billing/tenants/{credentials.tenant_id}"
    token = {"Authorization": f"Bearer {credentials.admin_token}"}
    found = {}
    with httpx.Client(base_url=credentials.url, headers=token, timeout=30) as client:
        rooms = client.get("/v1/rooms").json()["data"]
        prompts = client.get("/api/v1/prompts/").json()["results"]
        for path in (
            "/api/v1/auth/me",
            "/api/v1/api-keys",
            "/api/v1/observability/llm-calls/?limit=100",
            "/api/v1/observability/analytics/models/?period=30d",
            "/api/v1/prompts/",
            *(f"/api/v1/prompts/{prompt['id']}/" for prompt in prompts),
            "/v1/rooms",
            "/v1/agents",
            *(f"/v1/rooms/{room['slug']}/pending" for room in rooms),
            *(f"/v1/rooms/{room['slug']}/pending?status=approved" for room in rooms),
            f"{billing}/usage?window=month",
            f"{billing}/budgets",
            f"{billing}/events?limit=100",
            "/api/v1/keys",
            "/api/v1/jobs",
            "/api/v1/webhooks",
            "/waxell/v1/audit/?limit=1000",
        ):
            answer = client.get(path)
            assert answer.status_code == 200, answer.text
            found[path] = answer.json()
    # How far the log was read is another number, and should be: it was read again.
    found[f"{billing}/usage?window=month"].pop("positions")
    return found


def test_without_its_databases_a_stack_comes_back_the_same_from_the_log(passed: Stack) -> None:
    """The last test here: it ends the demo's stack and starts another on what Kafka has kept."""
    until_at_rest(passed)
    before = answers(passed)
    assert len(before["/api/v1/jobs"]["data"]) >= 2
    passed.stop()
    for database in ("postgres", "clickhouse"):
        shutil.rmtree(passed.data / database)
    with weir("up", data=passed.data, ready=IS_READY) as again:
        deadline = time.monotonic() + PATIENCE_SECONDS
        after = answers(again)
        while after != before and time.monotonic() < deadline:
            time.sleep(0.5)
            after = answers(again)
        assert after == before
