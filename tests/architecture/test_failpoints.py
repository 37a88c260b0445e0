"""Every failpoint is passed by the product, told in the registry, and died at by a test."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from infra.failpoints import POINTS
from tests.architecture.test_tidy import ROOT, name_of, relative, sources

NAME = re.compile(r"(\w+\.\w+)(:\d+(:SIG[A-Z]+)?|:)?")


def passed() -> Iterator[tuple[str, str]]:
    """Place and name of each call of `failpoint` in the product."""
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and name_of(node.func).endswith("failpoint"):
                (argument,) = node.args
                place = f"{relative(path)}:{node.lineno}"
                assert isinstance(argument, ast.Constant), f"{place}: name it in the call"
                yield place, argument.value


def died_at() -> set[str]:
    """The names that tests of failpoints give; `WEIR_FAILPOINT` takes `name:passes:signal`."""
    names = set()
    for path in sorted((ROOT / "tests").rglob("*.py")):
        text = path.read_text()
        if path == Path(__file__) or not re.search("WEIR_FAILPOINT|RoleProcess", text):
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found = NAME.fullmatch(node.value)
                if found and found[1] in POINTS:
                    names.add(found[1])
    return names


def test_every_failpoint_is_registered_and_passed_at_one_place() -> None:
    places = list(passed())
    assert sorted(name for _, name in places) == sorted(POINTS), places


def test_a_test_dies_at_every_failpoint() -> None:
    assert sorted(set(POINTS) - died_at()) == []
