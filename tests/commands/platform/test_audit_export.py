"""An export is asked for once and ended once, by the exporter alone."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commands.platform.audit_export import (
    DECIDER,
    AuditExport,
    CompleteAuditExport,
    FailAuditExport,
    RequestAuditExport,
)
from commands.refusals import (
    ActorForbidden,
    AlreadyDone,
    InvalidCommand,
    NotFound,
    Refusal,
)
from schemas.envelope import SYSTEM
from schemas.platform.audit_export import (
    AuditExportCompleted,
    AuditExportFailed,
    AuditExportRequested,
)
from tests.given import AGENT, HUMAN, NOW, Given

RESULT: dict[str, Any] = {
    "object": "audit-exports/a.json",
    "manifest": "audit-exports/a.manifest.json",
    "manifest_size": 7,
    "manifest_sha256": "1" * 64,
    "size": 5,
    "sha256": "0" * 64,
    "records": 2,
    "first_seq": 3,
    "last_seq": 4,
}
REQUESTED = AuditExportRequested("json", 1, 2)
COMPLETED = AuditExportCompleted(**RESULT, completed_at=NOW)
FAILED = AuditExportFailed("the disk is full", NOW)
COMPLETE = CompleteAuditExport(**RESULT)
FAIL = FailAuditExport("the disk is full")


def test_a_request_is_recorded() -> None:
    Given(DECIDER).when(RequestAuditExport("json", 1, 2)).then(REQUESTED)
    Given(DECIDER).when(RequestAuditExport("csv")).then(AuditExportRequested("csv"))


def test_a_repeated_request_stays_quiet() -> None:
    Given(DECIDER, REQUESTED).when(RequestAuditExport("json", 1, 2)).then_quiet()
    Given(DECIDER, REQUESTED, COMPLETED).when(RequestAuditExport("json", 1, 2)).then_quiet()


def test_the_same_export_with_other_bounds_is_refused() -> None:
    Given(DECIDER, REQUESTED).when(RequestAuditExport("csv", 1, 2)).then_refused(AlreadyDone)


@pytest.mark.parametrize(("start", "end"), [(2, 2), (3, 2)])
def test_a_range_that_ends_before_it_starts_is_refused(start: int, end: int) -> None:
    Given(DECIDER).when(RequestAuditExport("json", start, end)).then_refused(InvalidCommand)


def test_the_exporter_completes_it_once() -> None:
    Given(DECIDER, REQUESTED, actor=SYSTEM).when(COMPLETE).then(COMPLETED)
    Given(DECIDER, REQUESTED, COMPLETED, actor=SYSTEM).when(COMPLETE).then_quiet()
    Given(DECIDER, REQUESTED, FAILED, actor=SYSTEM).when(COMPLETE).then_refused(AlreadyDone)


def test_the_exporter_gives_up_once() -> None:
    Given(DECIDER, REQUESTED, actor=SYSTEM).when(FAIL).then(FAILED)
    Given(DECIDER, REQUESTED, FAILED, actor=SYSTEM).when(FAIL).then_quiet()
    Given(DECIDER, REQUESTED, COMPLETED, actor=SYSTEM).when(FAIL).then_refused(AlreadyDone)


@pytest.mark.parametrize("command", [COMPLETE, FAIL])
def test_nobody_else_ends_an_export(command: Any) -> None:
    for actor in (HUMAN, AGENT):
        Given(DECIDER, REQUESTED, actor=actor).when(command).then_refused(ActorForbidden)


@pytest.mark.parametrize("command", [COMPLETE, FAIL])
def test_an_export_that_nobody_asked_for_does_not_end(command: Any) -> None:
    Given(DECIDER, actor=SYSTEM).when(command).then_refused(NotFound)


@given(
    st.lists(st.sampled_from([RequestAuditExport("json", 1, 2), COMPLETE, FAIL]), max_size=12),
)
def test_an_export_never_ends_twice(commands: list[Any]) -> None:
    export = Given(DECIDER, actor=SYSTEM)
    events: list[Any] = []
    for command in commands:
        try:
            decided = export.when(command).decided()
        except Refusal:
            continue
        export.then(*decided)
        events += decided
    assert len(events) <= 2
    assert isinstance(export.state, AuditExport)
    assert [type(event) for event in events[:1]] in ([], [AuditExportRequested])
