"""`weir keys`: a client of the API, as the key that it finds."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer
from typer.testing import CliRunner

from api.calling import CredentialsMissing, RequestRefused
from api.cli import register

KEY = {
    "last_used_at": None,
    "previous_valid_until": "2030-01-02T00:00:00Z",
    "id": "key_1",
    "name": "ci",
    "prefix": "wax_sk_0123456789ab",
    "roles": ["admin"],
    "scopes": [],
    "created_at": "2026-01-01T00:00:00Z",
    "created_by": "usr_1",
    "expires_at": None,
    "revoked_at": None,
}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, Any, str]]:
    """What the API was asked: method, URL, body, key. It answers from `ANSWERS`."""
    found: list[tuple[str, str, Any, str]] = []
    monkeypatch.delenv("WEIR_URL", raising=False)
    monkeypatch.delenv("WEIR_API_KEY", raising=False)

    def request(method: str, url: str, *, json: Any, headers: Any, **_: Any) -> Any:
        found.append((method, url, json, headers["X-Wax-Key"]))
        status, body = ANSWERS[method]
        return httpx.Response(status, json=body) if body is not None else httpx.Response(status)

    monkeypatch.setattr(httpx, "request", request)
    return found


ANSWERS: dict[str, tuple[int, Any]] = {
    "POST": (201, {**KEY, "key": "wax_sk_secret"}),
    "GET": (200, {"data": [KEY], "next_cursor": None, "has_more": False}),
    "DELETE": (204, None),
}


def run(*arguments: str) -> Any:
    app = typer.Typer()
    register(app)
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"})


def folder(tmp_path: Path) -> str:
    names = ["kafka", "tenant_id", "agent_key", "admin_email", "admin_password", "admin_token"]
    content = dict.fromkeys(names, "x") | {"url": "http://weir.test/", "api_key": "wax_sk_root"}
    (tmp_path / "credentials.json").write_text(json.dumps(content))
    return str(tmp_path)


def test_a_key_is_issued_and_alone_on_standard_output(asked: list[Any], tmp_path: Path) -> None:
    given = ("--role", "admin", "--expires", "2030-01-01")
    done = run("keys", "issue", "ci", *given, "--data", folder(tmp_path))
    assert done.exit_code == 0, done.output
    assert done.stdout == "wax_sk_secret\n"
    assert "key_1" in done.stderr
    body = {"name": "ci", "roles": ["admin"], "expires_at": "2030-01-01"}
    assert asked == [("POST", "http://weir.test/api/v1/api-keys", body, "wax_sk_root")]


def test_keys_are_listed(asked: list[Any], tmp_path: Path) -> None:
    done = run("keys", "list", "--data", folder(tmp_path))
    assert done.exit_code == 0, done.output
    assert "key_1" in done.stdout
    assert "wax_sk_0123456789ab" in done.stdout


def test_a_key_is_rotated_and_its_secret_alone_on_standard_output(
    asked: list[Any], tmp_path: Path
) -> None:
    done = run("keys", "rotate", "key_1", "--grace", "60", "--data", folder(tmp_path))
    assert done.exit_code == 0, done.output
    assert done.stdout == "wax_sk_secret\n"
    assert "2030-01-02" in done.stderr
    url = "http://weir.test/api/v1/api-keys/key_1/rotate"
    assert asked == [("POST", url, {"grace_seconds": 60}, "wax_sk_root")]


def test_a_key_is_revoked_at_the_address_and_with_the_key_that_are_given(asked: list[Any]) -> None:
    done = run("keys", "revoke", "key/1", "--url", "http://other.test", "--api-key", "wax_sk_mine")
    assert done.exit_code == 0, done.output
    url = "http://other.test/api/v1/api-keys/key%2F1"
    assert asked == [("DELETE", url, None, "wax_sk_mine")]


def test_without_an_address_or_a_key_one_line_says_what_to_give(
    asked: list[Any], tmp_path: Path
) -> None:
    done = run("keys", "list", "--data", str(tmp_path / "none"))
    assert isinstance(done.exception, CredentialsMissing)
    assert "WEIR_API_KEY" in str(done.exception)
    assert asked == []


def test_a_refusal_is_one_line_with_the_request_id(
    asked: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = {"code": "forbidden", "message": "One of the roles admin", "request_id": "req_1"}
    monkeypatch.setitem(ANSWERS, "GET", (403, {"error": error}))
    done = run("keys", "list", "--data", folder(tmp_path))
    assert isinstance(done.exception, RequestRefused)
    assert str(done.exception) == "403: One of the roles admin (request req_1)"
