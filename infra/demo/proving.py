"""What was done is on the audit trail, the trail proves itself, and the log can be read again."""

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

from infra.demo.scene import Scene, until
from infra.demo.stage import DemoFailed, expect

# What the steps before this one have done, as the trail names it.
ACTIONS = {
    ("approvals.create_room", "accepted"),
    ("approvals.replace_room_policies", "accepted"),
    ("approvals.create_check_in", "accepted"),
    ("approvals.create_check_in", "refused"),
    ("approvals.approve_check_in", "accepted"),
    ("approvals.reject_check_in", "refused"),
    ("billing.set_budget", "accepted"),
    ("billing.record_usage", "accepted"),
    ("fhe.register_evaluation_key", "accepted"),
    ("fhe.submit_job", "accepted"),
}
EVENTS = {
    "approvals.check_in_approved.v1",
    "billing.usage_recorded.v1",
    "billing.budget_reached.v1",
    "fhe.job_succeeded.v1",
}


async def list_the_trail(scene: Scene) -> list[str]:
    """The audit log, as an auditor reads it."""

    async def complete() -> dict[str, Any] | None:
        asked = {"limit": "1000", "start_date": scene.began}
        page = dict((await scene.call("person", "GET", "/waxell/v1/audit/", params=asked)).json())
        seen = {(item["action"], item["outcome"]) for item in page["audit_logs"]}
        return page if seen >= ACTIONS else None

    page = await until(complete, "the audit log of all that was done")
    refusals = [item for item in page["audit_logs"] if item["outcome"] == "refused"]
    return [
        f"{page['count']} records, each numbered and chained to the one before",
        f"what was refused is there too: {', '.join(item['code'] for item in refusals[:3])}",
    ]


async def verify(scene: Scene) -> list[str]:
    """`weir audit verify` walks the hash chain on the topic itself."""
    said = (await scene.weir("audit", "verify", "--tenant", scene.known.tenant_id)).strip()
    if "records hold, head " not in said:
        raise DemoFailed(f"the audit trail does not verify: {said}")
    return [f"weir audit verify: {said}"]


async def replay(scene: Scene) -> list[str]:
    """The topics `audit` and `events` read again from the beginning, into files with manifests."""
    folder = scene.data / "exports" / scene.mark
    (audit, trail), (events, _) = await asyncio.gather(
        _export(scene, "audit", folder), _export(scene, "events", folder)
    )
    said = (await scene.weir("audit", "verify", "--file", str(trail))).strip()
    if "records hold, head " not in said:
        raise DemoFailed(f"the exported trail does not verify: {said}")
    missing = EVENTS - set(events["types"])
    if missing:
        raise DemoFailed(f"the replay of events lacks {', '.join(sorted(missing))}")
    return [
        f"{trail}: {audit['records']} records, sha256 {audit['files'][0]['sha256'][:16]}…, "
        "verifies by itself",
        f"manifest: {_offsets(audit)}",
        f"events replayed: {events['records']} records of {len(events['types'])} types, "
        f"{_offsets(events)}",
    ]


async def _export(scene: Scene, topic: str, folder: Path) -> tuple[dict[str, Any], Path]:
    """Replay the tenant's records of a topic; returns the manifest, checked, and the file."""
    target = folder / f"{topic}.jsonl"
    await scene.weir("export", topic, "--tenant", scene.known.tenant_id, "-o", str(target))
    manifest = json.loads(target.with_name(target.name + ".manifest.json").read_text())
    content = target.read_bytes()
    expect(content.count(b"\n"), manifest["records"], f"the lines of {target}")
    digest = hashlib.sha256(content).hexdigest()
    expect(manifest["files"][0]["sha256"], digest, f"the SHA-256 of {target}")
    return manifest, target


def _offsets(manifest: dict[str, Any]) -> str:
    return ", ".join(
        f"partition {part['partition']} offsets {part['begin']}–{part['end']}"
        for part in manifest["partitions"]
        if part["records"]
    )
