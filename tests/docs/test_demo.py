"""The demo's manners: quiet where nobody watches, one line when it fails, nothing left behind."""

import asyncio
import io
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from rich.console import Console

from infra import demo
from infra.bootstrap import Credentials
from infra.clock import ManualClock
from infra.demo import metering, observing, scene
from infra.demo.scene import Scene, until
from infra.demo.stage import DemoFailed, Stage, expect
from infra.up import Stopped
from tests.docs.running import environment

KNOWN = Credentials(
    url="http://weir.test",
    kafka="",
    tenant_id="ten_1",
    api_key="wax_sk_1",
    agent_key="wr_1",
    admin_email="",
    admin_password="",
    admin_token="jwt",
)


def talking_to(server: httpx.MockTransport, folder: Path) -> Scene:
    client = httpx.AsyncClient(base_url=KNOWN.url, transport=server)
    return Scene(client, KNOWN, folder, ManualClock())


async def test_an_answer_of_another_status_is_one_line(tmp_path: Path) -> None:
    server = httpx.MockTransport(lambda _: httpx.Response(500, text="it\nbroke"))
    with pytest.raises(DemoFailed, match=r"^GET /x answered 500: it broke$"):
        await talking_to(server, tmp_path).call("key", "GET", "/x")


async def test_a_server_that_is_gone_is_one_line(tmp_path: Path) -> None:
    def gone(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    with pytest.raises(DemoFailed, match=r"^GET /x: ConnectError refused$"):
        await talking_to(httpx.MockTransport(gone), tmp_path).call("key", "GET", "/x")


async def test_a_wrong_answer_fails_the_step(tmp_path: Path) -> None:
    """A run that is started anew by the repeat of its start, as a broken idempotency would do."""
    runs = iter(("run_1", "run_2"))
    server = httpx.MockTransport(lambda _: httpx.Response(200, json={"run_id": next(runs)}))
    with pytest.raises(DemoFailed, match=r"should be 'run_1', but is 'run_2'"):
        await observing.report(talking_to(server, tmp_path))


async def test_usage_that_is_counted_twice_fails_at_once(tmp_path: Path) -> None:
    def server(request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            return httpx.Response(200, json={"totals": [{"quantity": 105, "records": 4}]})
        return httpx.Response(201 if request.method == "POST" else 200, json={})

    with pytest.raises(DemoFailed, match="105 are counted of 85 used"):
        await metering.use_and_reach_a_budget(talking_to(httpx.MockTransport(server), tmp_path))


async def test_what_does_not_come_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scene, "PATIENCE_SECONDS", 0)

    async def never() -> int | None:
        await asyncio.sleep(0)
        return None

    with pytest.raises(DemoFailed, match="the sum has not come"):
        await until(never, "the sum")


async def test_a_command_that_fails_says_why(tmp_path: Path) -> None:
    nobody = httpx.MockTransport(lambda _: httpx.Response(200))
    with pytest.raises(DemoFailed, match=r"^weir tail nothing ended with 2: weir: "):
        await talking_to(nobody, tmp_path).weir("tail", "nothing")


def shown(terminal: bool) -> str:
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=100)
    with Stage(console, 1) as stage, stage.step("A step") as said:
        said.append("what it found")
    return text.getvalue()


def test_steps_are_shown_on_a_terminal_and_nowhere_else() -> None:
    assert "A step" in shown(terminal=True)
    assert "what it found" in shown(terminal=True)
    assert shown(terminal=False) == ""


def test_a_failure_names_its_step() -> None:
    stage = Stage(Console(file=io.StringIO()), 1)
    match = r"^A step: the sum should be 1, but is 2$"
    with pytest.raises(DemoFailed, match=match), stage, stage.step("A step"):
        expect(2, 1, "the sum")


def folder_after(error: BaseException | None) -> bool:
    """Whether the temporary folder is still there after the demo has ended so."""
    try:
        with demo._folder(None) as folder:
            if error is not None:
                raise error
    except BaseException as raised:
        assert raised is error
    kept = folder.exists()
    if kept:
        folder.rmdir()
    return kept


def test_a_temporary_folder_stays_only_for_who_must_look() -> None:
    assert not folder_after(None)
    assert not folder_after(Stopped())
    assert folder_after(DemoFailed("a step"))


def test_a_demo_that_is_interrupted_leaves_nothing(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "infra.cli", "demo"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(TMPDIR=str(tmp_path)),
        text=True,
    ) as running:
        while not list(tmp_path.glob("weir-demo-*/identity.json")):
            assert running.poll() is None
            time.sleep(0.05)
        running.send_signal(signal.SIGINT)
        output, errors = running.communicate(timeout=120)
    assert (running.returncode, output, errors) == (130, "", "")
    assert list(tmp_path.glob("weir-demo-*")) == []
