"""Rules that a machine can hold. Each ban says why and what to write instead."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("schemas", "commands", "projections", "streams", "api", "fhe_workers", "infra")
BANNED_MODULE_NAMES = {"utils", "helpers", "common", "misc", "manager", "base"}
LINES_MAX = 500
FUNCTION_LINES_MAX = 80

# call -> (files that may, why, what instead)
BANNED_CALLS = {
    "datetime.now": ({"infra/clock.py"}, "instants are inputs", "a Clock, or the event's own time"),
    "datetime.utcnow": (set(), "it has no zone", "a Clock"),
    "time.time": ({"infra/clock.py"}, "instants are inputs", "a Clock"),
    "time.time_ns": ({"infra/clock.py", "infra/ids.py"}, "instants are inputs", "a Clock"),
    "begin_transaction": (
        {"infra/kafka_transactions.py"},
        "a lost send commits",
        "infra.kafka_transactions.Transactions",
    ),
    "commit_transaction": (
        {"infra/kafka_transactions.py"},
        "a lost send commits",
        "infra.kafka_transactions.Transactions",
    ),
    "AIOKafkaConsumer": ({"infra/kafka.py"}, "its defaults lose data", "infra.kafka.consumer"),
    "AIOKafkaProducer": (
        {"infra/kafka.py", "infra/kafka_transactions.py"},
        "a failed one stays broken",
        "infra.kafka.Log",
    ),
    "os.fork": (set(), "chDB and psycopg do not survive it", "multiprocessing's spawn"),
    "print": (
        {
            "infra/gen.py",
            "infra/up.py",
            "infra/cli.py",
            "infra/doctor.py",
            "infra/demo/__init__.py",
            "infra/demo/stage.py",
            "api/cli.py",
            "api/fhe/cli.py",
            "streams/cli.py",
            "streams/watchdog.py",
        },
        "logs are structured",
        "a logger, or Rich in the CLI",
    ),
}


def sources() -> list[Path]:
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def name_of(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{name_of(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def calls(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            yield node.lineno, name_of(node.func)


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_no_banned_call() -> None:
    found = []
    for path in sources():
        for line, call in calls(path):
            for banned, (allowed, why, instead) in BANNED_CALLS.items():
                if (call == banned or call.endswith("." + banned)) and relative(
                    path
                ) not in allowed:
                    found.append(f"{relative(path)}:{line} {banned}: {why}; use {instead}")
    assert found == []


def test_modules_have_telling_names() -> None:
    found = [relative(path) for path in sources() if path.stem in BANNED_MODULE_NAMES]
    assert found == []


def test_files_and_functions_stay_small() -> None:
    found = []
    for path in sources():
        text = path.read_text()
        if text.count("\n") > LINES_MAX:
            found.append(f"{relative(path)} has {text.count(chr(10))} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > FUNCTION_LINES_MAX:
                    found.append(f"{relative(path)}:{node.lineno} {node.name}: {length} lines")
    assert found == []


def test_every_module_says_what_it_is() -> None:
    found = [
        relative(path)
        for path in sources()
        if path.read_text().strip() and not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert found == []


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        (r"\bTODO\b|\bFIXME\b|\bXXX\b", "unfinished work belongs in an issue"),
        (r"(?<![\w.])/(root|home)/", "a path of one machine"),
        (
            r"files\.pythonhosted|pypi\.org/simple|repo1?\.maven|crates\.io-index",
            "a registry's host",
        ),
    ],
)
def test_no_committed_text_holds(pattern: str, why: str) -> None:
    kinds = {".py", ".md", ".toml", ".yaml", ".txt", ".lock", ".json", ".sh"}
    found = [
        f"{relative(path)}: {match.group(0)} ({why})"
        for path in sorted(ROOT.rglob("*"))
        if path.suffix in kinds
        and path.is_file()
        and not {part for part in path.relative_to(ROOT).parts if part.startswith(".")}
        and path != Path(__file__)
        for match in [re.search(pattern, path.read_text(errors="replace"))]
        if match
    ]
    assert found == []


def test_every_test_asserts() -> None:
    functions = {
        path: [
            node
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        ]
        for path in sorted((ROOT / "tests").rglob("*.py"))
    }
    # A function of the tests that asserts is a checker, and a test may leave it to one of those.
    checkers = {
        node.name
        for nodes in functions.values()
        for node in nodes
        if not node.name.startswith("test_") and _asserts(node, set())
    }
    found = [
        f"{relative(path)}:{node.lineno} {node.name}"
        for path, nodes in functions.items()
        for node in nodes
        if node.name.startswith("test_") and not _asserts(node, checkers)
    ]
    assert found == []


def _asserts(function: ast.AST, checkers: set[str]) -> bool:
    """An assert, pytest.raises, a `then…` or `assert_…` call, or a call of a checker."""
    for node in ast.walk(function):
        if isinstance(node, ast.Assert):
            return True
        if isinstance(node, ast.Call):
            attribute = node.func.attr if isinstance(node.func, ast.Attribute) else ""
            called = attribute or name_of(node.func)
            if called in {"raises", "fail", *checkers} or re.match(r"then|assert|expect", called):
                return True
    return False


def test_every_folder_of_tests_is_a_package() -> None:
    found = [
        relative(path)
        for path in (ROOT / "tests").rglob("*")
        if path.is_dir()
        and any(child.suffix == ".py" for child in path.iterdir())
        and not (path / "__init__.py").exists()
    ]
    assert found == []
