"""Status questions that wait for the answer."""

import asyncio
from typing import Any

from tests.api.approvals.client import PATIENCE
from tests.api.approvals.streaming import LiveWaitroom, live_waitroom
from tests.api.fake_log import dispatched
from tests.api.harness import TENANT


async def ask(it: LiveWaitroom, id: str, agent: dict[str, str], wait: int = 30) -> Any:
    async with asyncio.timeout(PATIENCE):
        answer = await it.call("GET", f"/v1/check-ins/{id}/status?wait={wait}", agent)
    assert answer.status_code == 200
    return answer.json()["data"]


async def test_the_answer_comes_with_the_decision() -> None:
    async with live_waitroom() as it:
        await it.room()
        agent = await it.agent()
        asked, other = await it.check_in(agent), await it.check_in(agent)
        waiting = asyncio.create_task(ask(it, asked["id"], agent))
        await it.listening()
        await it.person_calls("POST", f"/v1/check-ins/{other['id']}/approve")
        body = {"reason": "half", "modifications": {"amount": 1}}
        path = f"/v1/check-ins/{asked['id']}"
        await it.person_calls("POST", f"{path}/modify", body)
        found = await waiting
        assert (found["status"], found["modifications"]) == ("modified", {"amount": 1})
        assert found == (await it.call("GET", f"{path}/status", agent)).json()["data"]
        assert it.hub.listeners == 0


async def test_a_decision_that_the_views_do_not_show_yet_is_told() -> None:
    async with live_waitroom() as it:
        await it.room()
        agent = await it.agent()
        asked = await it.check_in(agent)
        it.views_lag = True
        await it.person_calls("POST", f"/v1/check-ins/{asked['id']}/approve")
        await dispatched(it.hub, it.log, it.hub.partition_of(TENANT))
        assert (await ask(it, asked["id"], agent, wait=0))["status"] == "pending"
        assert (await ask(it, asked["id"], agent))["status"] == "approved"


async def test_what_is_settled_is_told_at_once() -> None:
    async with live_waitroom() as it:
        await it.room()
        agent = await it.agent()
        asked = await it.check_in(agent)
        await it.person_calls("POST", f"/v1/check-ins/{asked['id']}/approve")
        assert (await ask(it, asked["id"], agent))["status"] == "approved"


async def test_who_waits_for_a_task_is_told_of_its_end_and_not_of_its_claim() -> None:
    async with live_waitroom() as it:
        await it.room()
        agent = await it.agent()
        task = await it.task()
        waiting = asyncio.create_task(ask(it, task["id"], agent))
        await it.listening()
        await it.acts(agent, "claim", task["id"])
        path = f"/v1/check-ins/{task['id']}"
        await it.call("POST", f"{path}/messages", agent, {"body": "done"})
        await it.person_calls("POST", f"{path}/approve", {"reason": "well done"})
        found = await waiting
        assert (found["status"], found["decision_reason"]) == ("approved", "well done")
        assert found == (await it.call("GET", f"{path}/status", agent)).json()["data"]


async def test_after_the_wait_it_is_still_pending() -> None:
    async with live_waitroom() as it:
        await it.room()
        agent = await it.agent()
        asked = await it.check_in(agent)
        assert (await ask(it, asked["id"], agent, wait=1))["status"] == "pending"


async def test_a_shutdown_answers_who_waits() -> None:
    async with live_waitroom() as it:
        await it.room()
        agent = await it.agent()
        asked = await it.check_in(agent)
        waiting = asyncio.create_task(ask(it, asked["id"], agent))
        await it.listening()
        it.hub.end_all("shutdown")
        assert (await waiting)["status"] == "pending"


async def test_without_a_tail_it_is_answered_at_once() -> None:
    async with live_waitroom() as it:
        await it.room()
        agent = await it.agent()
        asked = await it.check_in(agent)
        it.harness.services.live = None
        assert (await ask(it, asked["id"], agent))["status"] == "pending"


async def test_waiting_for_what_is_not_there_is_refused() -> None:
    async with live_waitroom() as it:
        answer = await it.call("GET", "/v1/check-ins/ci_none/status?wait=5", it.person)
        assert answer.status_code == 404
        for wait in (-1, 61):
            path = f"/v1/check-ins/ci_none/status?wait={wait}"
            assert (await it.call("GET", path, it.person)).status_code == 400
        assert it.hub.listeners == 0
