"""The house: one name per domain everywhere, our packages are ours, generated files are fresh."""

import importlib.util
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from infra.gen import avro_files, drifted

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("schemas", "commands", "projections", "streams", "api", "fhe_workers", "infra")
BY_DOMAIN = ("schemas", "commands", "projections", "streams", "api")
DOMAINS = {
    "identity",
    "tenancy",
    "observability",
    "prompts",
    "approvals",
    "billing",
    "fhe",
    "assistants",
    "platform",
}


def test_sub_packages_are_domains_spelled_alike() -> None:
    for package in BY_DOMAIN:
        found = {path.parent.name for path in (ROOT / package).glob("*/__init__.py")}
        assert found <= DOMAINS, f"{package}: {sorted(found - DOMAINS)}"


def test_every_decided_domain_tells_its_vocabulary() -> None:
    missing = [
        path.parent.name
        for path in (ROOT / "commands").glob("*/__init__.py")
        if not (path.parent / "README.md").is_file()
    ]
    assert missing == []


def test_our_names_resolve_to_this_tree_and_nobody_else_claims_them() -> None:
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        assert spec is not None
        assert spec.origin is not None
        assert Path(spec.origin).is_relative_to(ROOT), f"{package} comes from {spec.origin}"
    owners = metadata.packages_distributions()
    claimed = {name: set(owners.get(name, [])) - {"weir"} for name in PACKAGES}
    assert {name: found for name, found in claimed.items() if found} == {}


def test_generated_files_are_fresh() -> None:
    assert [path.name for path in drifted(avro_files())] == []


def test_imports_point_one_way() -> None:
    found = subprocess.run(
        [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stdout + found.stderr
