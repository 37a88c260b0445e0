"""The documents tell the truth: links lead somewhere, commands exist, tables are fresh."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import typer.main

from api.approvals.policies import PoliciesBody, policies_of
from commands import DECIDERS
from commands.approvals.policy import check
from commands.decider import Decider
from infra.cli import compose
from tests.docs.documents import (
    ROOT,
    anchors,
    blocks,
    commands,
    documents,
    generated,
    links,
    name_of,
)
from tests.docs.tables import parts

ALL = documents()
NOT_RUN_MAX = 5  # may only fall
LANGUAGES = {"sh", "python", "json", "mermaid", "text", "toml"}


@pytest.mark.parametrize("path", ALL, ids=name_of)
def test_links_lead_somewhere(path: Path) -> None:
    broken = []
    for link in links(path):
        if link.startswith(("http://", "https://")):
            continue
        target, _, anchor = link.partition("#")
        found = (path.parent / target).resolve() if target else path
        fine = found.exists() and found.is_relative_to(ROOT)
        if fine and anchor:
            fine = found.suffix == ".md" and anchor in anchors(found)
        if not fine:
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("path", ALL, ids=name_of)
def test_blocks_have_a_language_that_is_read(path: Path) -> None:
    assert {block.language for block in blocks(path)} <= LANGUAGES


def test_few_blocks_are_not_run() -> None:
    kept = [(name_of(path), block.line) for path in ALL for block in blocks(path) if block.reason]
    assert len(kept) <= NOT_RUN_MAX, kept


@pytest.mark.parametrize("path", ALL, ids=name_of)
def test_generated_parts_are_fresh(path: Path) -> None:
    made = parts()
    stale = [name for name, text in generated(path.read_text()).items() if text != made[name]]
    assert stale == [], "run `make gen`"


def test_every_generated_part_is_shown_somewhere() -> None:
    shown = {name for path in ALL for name in generated(path.read_text())}
    assert shown == set(parts())


def weir_commands() -> dict[str, set[str]]:
    """`keys issue` -> its options."""
    found: dict[str, set[str]] = {}

    def walk(command: object, name: str) -> None:
        inner = getattr(command, "commands", None)
        if inner is None:
            found[name] = {
                option
                for parameter in getattr(command, "params", [])
                for option in [*parameter.opts, *parameter.secondary_opts]
            } | {"--help"}
            return
        for word, sub in inner.items():
            walk(sub, f"{name} {word}".strip())

    walk(typer.main.get_command(compose()), "")
    return found


def named_commands(path: Path) -> Iterator[list[str]]:
    """What a document says after `weir`, in blocks and in running text."""
    text = path.read_text()
    inline = re.findall(r"`(?:\.venv/bin/)?weir ([^`]+)`", text)
    for line in [*commands(path), *(f"weir {found}" for found in inline)]:
        for called in re.findall(r"(?:^|[\s|(;&])weir ((?:[^|;&)\n#]|\\\|)+)", line):
            yield called.split()


@pytest.mark.parametrize("path", ALL, ids=name_of)
def test_commands_and_their_options_exist(path: Path) -> None:
    known = weir_commands()
    unknown = []
    for words in named_commands(path):
        name = next((" ".join(words[:n]) for n in (2, 1) if " ".join(words[:n]) in known), None)
        options = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
        group = any(command.startswith(f"{words[0]} ") for command in known) and len(words) == 1
        if name is None and not group:
            unknown.append(" ".join(words))
        elif name is not None and not options <= known[name]:
            unknown.append(f"{name}: {sorted(options - known[name])}")
    assert unknown == []


@pytest.mark.parametrize("path", ALL, ids=name_of)
def test_targets_of_make_exist(path: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    named = set(re.findall(r"`make ([a-z-]+)", path.read_text()))
    named |= {
        word for line in commands(path) for word in re.findall(r"(?:^|\s)make ([a-z-]+)", line)
    }
    assert named <= targets


@pytest.mark.parametrize("decider", DECIDERS, ids=lambda decider: decider.stream)
def test_every_stream_is_at_its_domains_door_with_its_commands_and_events(
    decider: Decider[Any, Any, Any],
) -> None:
    domain = decider.stream.partition(".")[0]
    lines = (ROOT / "commands" / domain / "README.md").read_text().splitlines()
    rows = [line for line in lines if line.startswith(f"| `{decider.stream}/")]
    assert len(rows) == 1, f"{decider.stream} has no row"
    words = set(re.findall(r"\w+", rows[0]))
    assert {cls.__name__ for cls in (*decider.commands, *decider.events)} <= words


def test_every_policy_shown_is_one() -> None:
    shown = 0
    for path in ALL:
        for block in blocks(path):
            if block.language == "json" and '"default_action"' in block.text:
                check(policies_of(msgspec.json.decode(block.text, type=PoliciesBody)))
                shown += 1
    assert shown >= 2


def test_every_guarantee_names_tests_that_exist() -> None:
    text = (ROOT / "docs" / "guarantees.md").read_text()
    promises = re.findall(r"^- (.+?)\n((?:  .+\n)+)", text, re.M)
    assert len(promises) >= 15
    assert len(re.findall(r"^- ", text, re.M)) == len(promises), "a promise names no test"
    missing = []
    for promise, rest in promises:
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", rest)
        missing += [] if named else [promise]
        missing += [f"{file}::{test}" for file, test in named if test not in names_in(ROOT / file)]
    assert missing == []


def names_in(path: Path) -> set[str]:
    if not path.exists():
        return set()
    return {
        node.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def test_decisions_are_numbered_without_a_gap_and_short() -> None:
    found = sorted((ROOT / "docs" / "adr").glob("*.md"))
    assert [path.name[:4] for path in found] == [f"{n:04}" for n in range(1, len(found) + 1)]
    for path in found:
        text = path.read_text()
        assert text.startswith(f"# {int(path.name[:4])}. "), f"{path.name} has another number"
        assert len(text.splitlines()) <= 50, f"{path.name} is more than a page"
        for part in ("## Context", "## Decision", "## Consequences"):
            assert part in text, f"{path.name} lacks {part}"


def test_every_part_of_the_repository_is_on_the_map() -> None:
    tracked = subprocess.run(
        ["git", "ls-tree", "-d", "--name-only", "HEAD"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    text = (ROOT / "README.md").read_text()
    missing = [name for name in tracked if not name.startswith(".") and f"`{name}/`" not in text]
    assert missing == []
