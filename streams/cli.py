"""The `weir` commands that read the log again: tail, export, rebuild, audit verify, and redrive.

What they do lives in modules of their own, imported inside the commands so that `weir --help` is
quick. Most need no more than a broker: `--kafka`, KAFKA_BOOTSTRAP_SERVERS, or the data folder of a
stack that `weir up` runs on this machine. A rebuild needs the servers that the environment names,
or the data folder, whose servers it starts itself when `weir up` does not run.
"""

import asyncio
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streams.console import describe_chain, describe_report, progress

if TYPE_CHECKING:
    from infra.config import Settings
    from schemas.codec import Codec
    from schemas.platform.audit_chain import Link
    from streams.export_files import Format
    from streams.replay import Bound
    from streams.sealing import Keyring

Kafka = Annotated[
    str,
    typer.Option(
        "--kafka", envvar="KAFKA_BOOTSTRAP_SERVERS", help="Brokers, host:port[,host:port]."
    ),
]
Data = Annotated[
    Path, typer.Option("--data", help="Folder of a running `weir up`, to find its broker by.")
]
Topic = Annotated[str, typer.Argument(help="events, audit, billing, telemetry, commands ...")]
Tenant = Annotated[str, typer.Option("--tenant", help="Only this tenant's records.")]
Type = Annotated[str, typer.Option("--type", help="Only these event types, such as billing.*")]
Stream = Annotated[
    str, typer.Option("--stream", help="Only these streams, such as approvals.room/*")
]
Key = Annotated[str, typer.Option("--key", help="Only records with this key.")]


def tail(
    topic: Topic,
    *,
    kafka: Kafka = "",
    data: Data = Path("data"),
    tenant: Tenant = "",
    type: Type = "",
    stream: Stream = "",
    key: Key = "",
    from_beginning: Annotated[
        bool, typer.Option("--from-beginning", help="Start with the oldest record.")
    ] = False,
    since: Annotated[
        str, typer.Option("--since", help="Start at an instant, an offset or a position.")
    ] = "",
    limit: Annotated[int | None, typer.Option("--limit", "-n", min=0, help="At most so many.")] = (
        None
    ),
    follow: Annotated[
        bool, typer.Option("--follow/--no-follow", help="Go on when the end is reached.")
    ] = True,
    format: Annotated[str, typer.Option("--format", help="pretty or json.")] = "pretty",
) -> None:
    """Show records of a topic as they arrive, decoded."""
    from rich.console import Console

    from streams import tail as tailing
    from streams.replay import UNBOUNDED, Filter

    if format not in ("pretty", "json"):
        raise typer.BadParameter(f"{format!r} is not pretty or json", param_hint="--format")
    if from_beginning and since:
        raise typer.BadParameter("give it or --since, not both", param_hint="--from-beginning")
    console = Console(highlight=False, soft_wrap=True)
    start = _bound(since, topic, "--since") if since else UNBOUNDED if from_beginning else None
    # Nothing lies behind the end that is there now: who does not follow reads what there is.
    start = start if follow or start is not None else UNBOUNDED

    async def show() -> None:
        async for entry in tailing.tail(
            _bootstrap(kafka, data),
            topic,
            _codec(),
            start=start,
            wanted=Filter(tenant, type, stream, key),
            limit=limit,
            follow=follow,
            keyring=_keyring(kafka, data),
        ):
            if format == "pretty" and console.is_terminal:
                console.print(tailing.pretty_line(entry))
            else:
                line = tailing.pretty_line(entry).plain
                print(tailing.json_line(entry) if format == "json" else line, flush=follow)

    asyncio.run(show())


def export(
    topic: Topic,
    *,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="A folder, or a file named after the format.")
    ],
    kafka: Kafka = "",
    data: Data = Path("data"),
    start: Annotated[
        str, typer.Option("--from", help="First instant, offset or position (inclusive).")
    ] = "",
    end: Annotated[
        str, typer.Option("--to", help="Last instant, offset or position (exclusive).")
    ] = "",
    tenant: Tenant = "",
    type: Type = "",
    stream: Stream = "",
    key: Key = "",
    format: Annotated[
        str, typer.Option("--format", help="jsonl, csv, parquet or avro (default: by -o, jsonl).")
    ] = "",
) -> None:
    """Write a part of the log to a file, with a manifest of what is in it."""
    from streams import export as exporting
    from streams.replay import Filter

    request = exporting.Request(
        topic=topic,
        format=_format(format, output),
        start=_bound(start, topic, "--from"),
        end=_bound(end, topic, "--to"),
        start_text=start,
        end_text=end,
        filter=Filter(tenant, type, stream, key),
    )
    with progress(f"exporting {topic}") as advance:
        target, manifest = _run(
            exporting.export(
                _bootstrap(kafka, data),
                _codec(),
                request,
                output,
                lambda at: advance(at.passed, at.total, f"{at.records:,} records"),
                keyring=_keyring(kafka, data),
            )
        )
    written = manifest.files[0]
    print(f"{target}: {manifest.records:,} records, {written.bytes:,} bytes, {written.sha256}")
    if manifest.undecodable:
        print(f"weir: {manifest.undecodable} records could not be decoded", file=sys.stderr)


def audit_verify(
    *,
    kafka: Kafka = "",
    data: Data = Path("data"),
    tenant: Annotated[str, typer.Option("--tenant", help="One tenant's chain; else all.")] = "",
    file: Annotated[
        Path | None, typer.Option("--file", help="An export of the audit topic.", exists=True)
    ] = None,
    window: Annotated[
        bool, typer.Option("--window", help="The file may begin in the middle of a chain.")
    ] = False,
    seen: Annotated[
        str, typer.Option("--seen", help="SEQ:HASH kept from before; the chain must hold it.")
    ] = "",
) -> None:
    """Walk the hash chain of the audit trail and name its first break. Exit code 1 if it breaks."""
    from streams.audit_verification import verify_file, verify_topic

    kept = _link(seen)
    if kept and not tenant:
        raise typer.BadParameter("needs --tenant: each has a chain of its own", param_hint="--seen")
    problem = ""
    if file is not None:
        verdict = verify_file(file, tenant, kept, window)
        chains, problem = verdict.chains, verdict.manifest_problem
    else:
        with progress("verifying the audit trail") as advance:
            chains = _run(
                verify_topic(
                    _bootstrap(kafka, data),
                    _codec(),
                    tenant,
                    kept,
                    lambda passed, total: advance(passed, total, ""),
                )
            )
    failed = bool(problem)
    for chain in chains:
        print(describe_chain(chain))
        failed |= chain.broken is not None
    if problem:
        print(f"weir: {problem}", file=sys.stderr)
    if not any(chain.records or chain.broken for chain in chains):
        print(f"weir: no audit records of {tenant or 'anybody'} there", file=sys.stderr)
        failed = True
    raise typer.Exit(1 if failed else 0)


def rebuild(
    view: Annotated[str, typer.Argument(help="rooms, llm_calls, audit_records, usage_windows ...")],
    *,
    data: Annotated[
        Path | None,
        typer.Option("--data", help="A stack's folder; without it, the environment's servers."),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Compare only: the live table stays, whatever comes.")
    ] = False,
) -> None:
    """Fold a read model anew from the log, beside the live one, and switch to it.

    Ends with 1 when the live table was not what the log says.
    """
    from streams.rebuilding import NoSuchView, find_view, rebuild_view, servers

    try:
        found = find_view(view)
    except NoSuchView as error:
        raise typer.BadParameter(str(error), param_hint="VIEW") from None
    with servers(data) as settings, progress(f"rebuilding {view}") as advance:
        report = _run(rebuild_view(settings, found, advance, switch=not check))
    for line in describe_report(report):
        print(line)
    raise typer.Exit(0 if report.agree else 1)


def webhooks_redrive(
    *,
    data: Annotated[
        Path | None,
        typer.Option("--data", help="A stack's folder; without it, the environment's servers."),
    ] = None,
    tenant: Tenant = "",
    endpoint: Annotated[
        str, typer.Option("--endpoint", help="Only this endpoint's, such as a watcher's id.")
    ] = "",
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="At most so many.")] = 1000,
) -> None:
    """Send dead webhooks again, oldest first; each goes behind what waits for its endpoint."""
    from infra.postgres import Reads
    from streams.platform.redriving import redrive
    from streams.rebuilding import servers
    from streams.runtime import command_bus

    async def run(settings: "Settings") -> int:
        bus, reads = command_bus(settings), Reads(settings.database_url, size=1)
        await bus.start()
        await reads.start()
        try:
            return await redrive(bus, reads, tenant=tenant, endpoint=endpoint, limit=limit)
        finally:
            await bus.stop()
            await reads.stop()

    with servers(data) as settings:
        print(f"{_run(run(settings))} webhooks will be sent again")


def register(app: typer.Typer) -> None:
    """Add the commands to the `weir` app."""
    app.command()(tail)
    app.command()(export)
    app.command()(rebuild)
    audit = typer.Typer(help="The audit trail.", no_args_is_help=True)
    audit.command("verify")(audit_verify)
    app.add_typer(audit, name="audit")
    webhooks = typer.Typer(help="Webhooks on their way.", no_args_is_help=True)
    webhooks.command("redrive")(webhooks_redrive)
    app.add_typer(webhooks, name="webhooks")


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


def _codec() -> "Codec":
    from schemas.codec import Codec, load_schemas
    from schemas.platform.audit import AuditRecorded

    return Codec([AuditRecorded], load_schemas())


def _bootstrap(kafka: str, data: Path) -> str:
    """The brokers: as given, else those of the stack that runs on the data folder."""
    from infra.bootstrap import read_credentials

    if kafka:
        return kafka
    credentials = read_credentials(data / "credentials.json")
    if credentials is None:
        raise typer.BadParameter(
            f"give it, set KAFKA_BOOTSTRAP_SERVERS, or name a stack's folder with --data "
            f"({data} is none)",
            param_hint="--kafka",
        )
    return credentials.kafka


def _keyring(kafka: str, data: Path) -> "Keyring | None":
    """What opens sealed reports: the keys of the environment's installation, else of the stack on
    the data folder. None where neither is whole: what is sealed is shown sealed then."""
    from infra.config import ConfigError, load_settings
    from infra.embedded.stack import settings_of
    from streams.runtime import person_keys
    from streams.sealing import Keyring
    from streams.telemetry import codec

    try:
        settings = load_settings() if kafka else settings_of(data)
    except ConfigError:
        return None
    return Keyring(person_keys(settings), codec())


def _bound(text: str, topic: str, option: str) -> "Bound":
    from streams.replay import parse_bound

    try:
        return parse_bound(text, topic)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None


def _format(text: str, output: Path) -> "Format":
    from streams.export_files import FORMATS

    suffix = output.suffix.removeprefix(".")
    named = suffix if suffix in FORMATS and not output.is_dir() else ""
    wanted = text or named or "jsonl"
    for known in FORMATS:
        if known == wanted:
            if named and named != known:
                raise typer.BadParameter(f"{output} is not named .{known}", param_hint="--output")
            return known
    raise typer.BadParameter(f"{wanted!r} is not {', '.join(FORMATS)}", param_hint="--format")


def _link(text: str) -> "Link | None":
    from schemas.platform.audit_chain import Link

    if not text:
        return None
    seq, _, digest = text.partition(":")
    if not seq.isdigit() or len(digest) != 64:
        raise typer.BadParameter(f"{text!r} is not SEQ:HASH", param_hint="--seen")
    return Link(int(seq), digest)
