"""The JSON Schema of policies is what the API takes: what one refuses, so does the other."""

import json
from typing import Any

import jsonschema
import pytest

from tests.docs.documents import ROOT, blocks

SCHEMA = json.loads((ROOT / "docs" / "policies.schema.json").read_text())


NO_OPERATOR = {"path": "$.a", "operator": "is"}


def documented() -> Any:
    (block,) = [one for one in blocks(ROOT / "docs" / "policies.md") if one.language == "json"]
    return json.loads(block.text)


def test_the_documented_policies_fit() -> None:
    assert list(jsonschema.Draft202012Validator(SCHEMA).iter_errors(documented())) == []


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"timeout_minutes": 10_081}, ["timeout_minutes"]),
        ({"approvals_required": 0}, ["approvals_required"]),
        ({"typo": 1}, []),
        ({"rules": [{"action": "forbid", "when": {"riskk": ["low"]}}]}, ["rules", 0, "when"]),
        (
            {"rules": [{"action": "forbid", "when": {"context": [NO_OPERATOR]}}]},
            ["rules", 0, "when", "context", 0, "operator"],
        ),
    ],
)  # fmt: skip
def test_a_mistake_has_its_place(change: dict[str, Any], path: list[Any]) -> None:
    checker = jsonschema.Draft202012Validator(SCHEMA)
    (error,) = checker.iter_errors(documented() | change)
    assert list(error.absolute_path) == path
