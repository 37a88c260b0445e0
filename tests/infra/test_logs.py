"""What a process writes about itself: one line per record, and no secret in it."""

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from infra.logs import configure, redacted

KEY = "wax_sk_" + "0123456789abcdefghjkmnpqrs" * 2
JWT = "eyJhbGciOiJFZDI1NTE5In0.eyJzdWIiOiJ1c3JfMSJ9.c2lnbmF0dXJl"


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Logging as it was: other tests read it too."""
    handlers, level = list(logging.root.handlers), logging.root.level
    yield
    logging.root.handlers = handlers
    logging.root.setLevel(level)
    structlog.reset_defaults()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"key {KEY}.", "key wax_sk_[redacted]"),
        ("agent wr_" + "0" * 52, "agent wr_[redacted]"),
        (f"token {JWT} ends", "token [redacted token] ends"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer [redacted]"),
        ("Cookie: sessionid=abc; a=b", "Cookie: sessionid=[redacted]; a=b"),
        ("postgresql://weir:pass@host/db", "postgresql://weir:[redacted]@host/db"),
        ("run_0123 on room wr_1", "run_0123 on room wr_1"),
        ("http://127.0.0.1:8080/path", "http://127.0.0.1:8080/path"),
    ],
)
def test_secrets_are_taken_out_of_text(text: str, expected: str) -> None:
    assert redacted(text) == expected


def test_a_line_is_json_with_its_fields_and_without_secrets(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure("info", "json")
    logger = logging.getLogger("some.module")
    try:
        raise RuntimeError(f"cannot use {KEY}")
    except RuntimeError:
        logger.exception("failed for %s", JWT, extra={"request_id": "r-1", "given": KEY})
    logger.debug("not at this level")
    (line,) = capsys.readouterr().err.strip().splitlines()
    record = json.loads(line)
    assert record["event"] == "failed for [redacted token]"
    assert (record["level"], record["logger"]) == ("error", "some.module")
    assert (record["request_id"], record["given"]) == ("r-1", "wax_sk_[redacted]")
    assert "RuntimeError" in record["exception"]
    assert KEY not in line and JWT not in line


def test_structlog_and_the_standard_library_look_alike(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure("info", "json")
    structlog.get_logger("one").info("said", number=1, key=KEY)
    logging.getLogger("two").info("said", extra={"number": 1, "key": KEY})
    one, two = (json.loads(line) for line in capsys.readouterr().err.strip().splitlines())
    for record in (one, two):
        del record["timestamp"], record["logger"]
    assert one == two
    assert one["key"] == "wax_sk_[redacted]"


@pytest.mark.parametrize("odd", ["half \ud800", 2**70, object, {1: {2.5: None}}])
def test_a_line_is_written_whatever_its_fields_hold(
    capsys: pytest.CaptureFixture[str], odd: object
) -> None:
    configure("info", "json")
    logging.getLogger("odd").info("said", extra={"odd": odd})
    (line,) = capsys.readouterr().err.strip().splitlines()
    record = json.loads(line)
    assert record["event"] == "said" and record["odd"] is not None
