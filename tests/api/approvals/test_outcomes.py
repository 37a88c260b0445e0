"""What came of a check-in, over HTTP."""

from tests.api.approvals.conftest import Waitroom

REPORT = {"status": "failed", "message": "no such order", "details": {"code": 404}}


async def test_it_is_shown_in_the_check_in_and_in_its_thread(waitroom: Waitroom) -> None:
    await waitroom.room()
    agent = await waitroom.agent()
    path = f"/v1/check-ins/{(await waitroom.check_in(agent))['id']}"
    early = await waitroom.call("POST", f"{path}/outcome", agent, REPORT)
    assert (early.status_code, early.json()["error"]["code"]) == (409, "CONFLICT")
    await waitroom.person_calls("POST", f"{path}/approve")
    told = await waitroom.call("POST", f"{path}/outcome", agent, REPORT)
    assert told.status_code == 200
    outcome = told.json()["data"]["outcome"]
    assert REPORT.items() <= outcome.items()
    again = await waitroom.call("POST", f"{path}/outcome", agent, REPORT)
    assert again.json() == told.json()
    other = await waitroom.call("POST", f"{path}/outcome", agent, {"status": "succeeded"})
    error = other.json()["error"]
    assert (other.status_code, error["details"]["outcome"]) == (409, "failed")
    assert error["details"]["reported_at"] == outcome["reported_at"]
    found = (await waitroom.person_calls("GET", path)).json()["data"]
    assert found["outcome"] == outcome
    (message,) = found["messages"]
    assert (message["message_type"], message["body"]) == ("result", "no such order")
    assert message["metadata"] == {"outcome": "failed", "details": {"code": 404}}


async def test_only_the_agent_that_asked_tells_and_of_tasks_nobody(waitroom: Waitroom) -> None:
    await waitroom.room(policies={"default_action": "auto_approve"})
    agent, other = await waitroom.agent(), await waitroom.agent("Marvin")
    path = f"/v1/check-ins/{(await waitroom.check_in(agent))['id']}/outcome"
    for headers in (other, waitroom.person):
        answer = await waitroom.call("POST", path, headers, REPORT)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "FORBIDDEN")
    task = await waitroom.task()
    of_task = await waitroom.acts(agent, "outcome", task["id"], REPORT)
    assert (of_task.status_code, of_task.json()["error"]["code"]) == (403, "FORBIDDEN")
    assert (await waitroom.acts(agent, "outcome", "ci_nowhere", REPORT)).status_code == 404


async def test_what_is_too_much_is_refused(waitroom: Waitroom) -> None:
    await waitroom.room(policies={"default_action": "auto_approve"})
    agent = await waitroom.agent()
    path = f"/v1/check-ins/{(await waitroom.check_in(agent))['id']}/outcome"
    # `{"a":"…"}` with exactly 10 KB, and one byte more.
    most = {"a": "x" * (10_240 - 8)}
    for body, field in (
        ({"status": "done"}, "status"),
        ({"status": "failed", "message": "x" * 5001}, "message"),
        ({"status": "failed", "details": {"a": "x" * (10_240 - 7)}}, "details"),
    ):
        answer = await waitroom.call("POST", path, agent, body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "VALIDATION_ERROR")
        assert field in str(answer.json()["error"])
    right = {"status": "failed", "message": "x" * 5000, "details": most}
    assert (await waitroom.call("POST", path, agent, right)).status_code == 200
