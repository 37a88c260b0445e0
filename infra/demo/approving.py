"""An agent asks before it acts, a person answers, and the room's listeners hear of it."""

import asyncio
import contextlib
from typing import Any

from infra.demo.scene import Scene
from infra.demo.stage import DemoFailed, expect

POLICIES = {
    "default_action": "require_approval",
    "timeout_minutes": 30,
    "timeout_action": "cancel",
    "rules": [
        {
            "name": "small refunds",
            "action": "auto_approve",
            "when": {
                "action": {"prefix": "refund"},
                "context": [{"path": "$.amount", "operator": "lte", "value": 50}],
            },
        },
        {
            "name": "no deletions",
            "action": "forbid",
            "reason": "Accounts are deleted by people",
            "when": {"action": {"glob": "delete *"}},
        },
    ],
}


class Listener:
    """Follows a room's event stream in the background; `wait` is for the n-th event."""

    def __init__(self, scene: Scene, room: str) -> None:
        self._scene, self._path = scene, f"/v1/rooms/{room}/events"
        self._changed = asyncio.Condition()
        self._open = False
        self.seen: list[tuple[str, Any]] = []

    async def __aenter__(self) -> "Listener":
        self._task = asyncio.create_task(self._follow())
        await self._until(lambda: self._open)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def wait(self, count: int) -> list[str]:
        """The names of the first events, once there are so many."""
        await self._until(lambda: len(self.seen) >= count)
        return [name for name, _ in self.seen[:count]]

    async def _follow(self) -> None:
        async for name, data in self._scene.events("person", self._path):
            async with self._changed:
                if name == "open":
                    self._open = True
                else:
                    self.seen.append((name, data))
                self._changed.notify_all()

    async def _until(self, holds: Any) -> None:
        async def waiting() -> None:
            async with self._changed:
                await self._changed.wait_for(holds)

        waiter = asyncio.create_task(waiting())
        done, _ = await asyncio.wait(
            {waiter, self._task}, timeout=30, return_when=asyncio.FIRST_COMPLETED
        )
        if waiter in done:
            return
        waiter.cancel()
        if self._task in done:
            await self._task  # raises what ended it
        raise DemoFailed(f"the event stream {self._path} told {len(self.seen)} events only")


async def ask_and_answer(scene: Scene) -> list[str]:
    """A room with policies, three questions, and one person's answer."""
    slug = f"refunds-{scene.mark}"
    room = {"name": f"Refunds {scene.mark}", "slug": slug}
    await scene.call("person", "POST", "/v1/rooms", room, status=201)
    await scene.call("person", "PUT", f"/v1/rooms/{slug}/policies", {"policies": POLICIES})
    path = f"/v1/rooms/{slug}/check-in"
    async with Listener(scene, slug) as listener:
        small = {"action": "refund order 1141", "context": {"amount": 12.5}}
        settled = (await scene.call("agent", "POST", path, small, status=201)).json()["data"]
        expect(settled["status"], "approved", "a small refund")
        deletion = {"action": "delete account 7"}
        refused = (await scene.call("agent", "POST", path, deletion, status=403)).json()["error"]
        large = {"action": "refund order 1142", "risk_level": "high", "context": {"amount": 129.0}}
        pending = (await scene.call("agent", "POST", path, large, status=201)).json()["data"]
        expect(pending["status"], "pending", "a large refund")
        # The agent holds its question open while a person reads it.
        status = f"/v1/check-ins/{pending['id']}/status"
        asking = asyncio.create_task(scene.call("agent", "GET", f"{status}?wait=60"))
        listed = (await scene.call("person", "GET", f"/v1/rooms/{slug}/pending")).json()["data"]
        expect([item["id"] for item in listed], [pending["id"]], "what waits for a person")
        answer = {"reason": "the customer is right", "payload_hash": pending["payload_hash"]}
        decided = (
            await scene.call("person", "POST", f"/v1/check-ins/{pending['id']}/approve", answer)
        ).json()["data"]
        told = (await asking).json()["data"]
        expect(told["decision_id"], decided["decision_id"], "the decision that the agent sees")
        late = await scene.call(
            "person",
            "POST",
            f"/v1/check-ins/{pending['id']}/reject",
            {"reason": "too late"},
            status=409,
        )
        heard = await listener.wait(4)
        expect(
            heard,
            ["check_in.created", "check_in.decided", "check_in.created", "check_in.decided"],
            "what the room's listeners hear",
        )
    return [
        f"refund of 12.5: approved by the policy {settled['policy']['rule_name']!r}",
        f"deletion of an account: refused, {refused['code']} ({refused['message']})",
        f"refund of 129: pending, then approved by {told['decided_by_name']}; the agent knows",
        f"a second answer: {late.json()['error']['code']}, one decision wins",
        f"server-sent events of the room: {', '.join(heard)}",
    ]
