"""`weir gen`: write what is derived from the code, or with `--check` say what has drifted.

Avro: an event's or command's schema is `schemas/avro/<tag>.avsc`. Until it is released (its id is
at most `released` in `released.json`) a changed struct rewrites the file; after that a change makes
the next version (`<tag>.r2.avsc`) under a new id, and must be backward compatible.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from schemas import EVENTS
from schemas.avro_derivation import derive, tag_of

ROOT = Path(__file__).resolve().parent.parent


class Incompatible(ValueError):
    """A released schema changed in a way that today's reader cannot read."""


def avro_files() -> dict[Path, str]:
    """Path -> text of every Avro file as it should be. Raises Incompatible."""
    from commands import commands

    folder = ROOT / "schemas" / "avro"
    index_path = folder / "index.json"
    index: list[dict[str, Any]] = json.loads(index_path.read_text()) if index_path.exists() else []
    released = json.loads((folder / "released.json").read_text())["released"]
    files: dict[Path, str] = {}
    live = [*EVENTS, *commands()]
    tags = {tag_of(struct) for struct in live}
    if len(tags) != len(live):
        raise ValueError("two structs share a tag")
    # What was never released and is gone leaves no trace; ids of the rest never move.
    index = [entry for entry in index if entry["id"] <= released or entry["subject"] in tags]
    for struct in live:
        tag, schema = tag_of(struct), derive(struct)
        versions = [entry for entry in index if entry["subject"] == tag]
        newest = versions[-1] if versions else None
        if newest is not None and newest["id"] <= released:
            old = json.loads((folder / newest["file"]).read_text())
            if old == schema:
                continue
            check_backward(old, schema)
            newest = None
        if newest is None:
            version = len(versions) + 1
            name = f"{tag}.avsc" if version == 1 else f"{tag}.r{version}.avsc"
            next_id = max((entry["id"] for entry in index), default=released) + 1
            newest = {"id": next_id, "subject": tag, "version": version, "file": name}
            index.append(newest)
        files[folder / newest["file"]] = json.dumps(schema, indent=1) + "\n"
    for entry in index:
        path = folder / entry["file"]
        files.setdefault(path, path.read_text() if path.exists() else "")
    files[index_path] = json.dumps(index, indent=1) + "\n"
    return files


def check_backward(old: dict[str, Any], new: dict[str, Any]) -> None:
    """Refuse a reader `new` that cannot read records of the writer `old`. Raises Incompatible.

    Avro 1.11, "Schema Resolution": a field that only the reader has needs a default, and a field
    that both have keeps its type (we allow no promotion but long -> double and adding "null").
    """
    before = {field["name"]: field for field in old["fields"]}
    for field in new["fields"]:
        name = field["name"]
        if name not in before:
            if "default" not in field:
                raise Incompatible(f"{new['name']}.{name} is new and has no default")
            continue
        _check_type(before[name]["type"], field["type"], f"{new['name']}.{name}")


def _check_type(old: Any, new: Any, path: str) -> None:
    if old == new or (old == "long" and new == "double"):
        return
    if isinstance(new, list):
        _check_type(old[1] if isinstance(old, list) else old, new[1], path)
        return
    if isinstance(old, dict) and isinstance(new, dict) and old.get("type") == new.get("type"):
        if new["type"] == "record":
            check_backward(old, new)
        else:
            inner = "items" if new["type"] == "array" else "values"
            _check_type(old[inner], new[inner], path)
        return
    raise Incompatible(f"{path} changed from {old} to {new}")


def openapi_files() -> dict[Path, str]:
    """Path -> text of the OpenAPI document."""
    from api.app import ROUTES
    from api.openapi import build_openapi

    text = json.dumps(build_openapi(ROUTES), indent=1, ensure_ascii=False)
    return {ROOT / "api" / "openapi.json": text + "\n"}


def policy_files() -> dict[Path, str]:
    """Path -> text of the JSON Schema of a room's policies, for editors and other checkers."""
    import msgspec

    from api.approvals.policies import PoliciesBody

    found = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "The policies of a room",
        **msgspec.json.schema(PoliciesBody),
    }
    text = json.dumps(found, indent=1, ensure_ascii=False)
    return {ROOT / "docs" / "policies.schema.json": text + "\n"}


def event_files() -> dict[Path, str]:
    """Path -> text of what is said about the log: `docs/events.md` and the AsyncAPI document."""
    from commands import commands
    from infra.event_docs import build_asyncapi, events_markdown

    structs = commands()
    document = json.dumps(build_asyncapi(EVENTS, structs), indent=1, ensure_ascii=False)
    return {
        ROOT / "docs" / "events.md": events_markdown(EVENTS, structs),
        ROOT / "docs" / "asyncapi.json": document + "\n",
    }


def price_files() -> dict[Path, str]:
    """Path -> text of the system's prices. Needs genai-prices, a tool of development."""
    from commands.observability.system_prices import SystemPrices
    from infra.build.price_list import price_list

    def finder(document: Any) -> Callable[[str], str | None]:
        find = SystemPrices(document).find
        return lambda name: row.name if (row := find(name)) else None

    return {ROOT / "schemas" / "observability" / "system_prices.json": price_list(finder)}


def write(files: dict[Path, str]) -> list[Path]:
    """Write what differs; returns the paths written."""
    changed = [path for path, text in files.items() if _read(path) != text]
    for path in changed:
        path.parent.mkdir(exist_ok=True)
        path.write_text(files[path])
    kept = set(files) | {ROOT / "schemas" / "avro" / "released.json"}
    for stale in set((ROOT / "schemas" / "avro").glob("*.avsc")) - kept:
        stale.unlink()
        changed.append(stale)
    return changed


def drifted(files: dict[Path, str]) -> list[Path]:
    """Paths whose text on disk is not what it should be."""
    return [path for path, text in files.items() if _read(path) != text]


def _read(path: Path) -> str | None:
    return path.read_text() if path.exists() else None


def main(arguments: list[str]) -> int:
    """`python -m infra.gen [--check]`: 0 when all is (or now is) as it should be, else 1."""
    files = avro_files() | price_files() | openapi_files() | policy_files() | event_files()
    if "--check" in arguments:
        stale = drifted(files)
        for path in stale:
            print(f"{path.relative_to(ROOT)} has drifted: run `make gen`")
        return 1 if stale else 0
    for path in write(files):
        print(f"wrote {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
