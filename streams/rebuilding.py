"""Which rebuild a view needs, and on which servers."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

from infra.clickhouse import ClickHouse
from infra.config import Settings, load_settings
from infra.embedded.data_folder import DataFolderError
from infra.embedded.stack import Stack, settings_of
from projections import CLICKHOUSE_VIEWS, VIEWS
from projections.clickhouse import ClickHouseView
from projections.statements import View
from streams.billing.usage_tables import NAME as USAGE
from streams.billing.usage_tables import UsageTables
from streams.rebuild import Rebuild, alone
from streams.rebuild_clickhouse import QUERY_SECONDS, ClickHouseRebuild
from streams.rebuild_report import Advance, CannotRebuild, Report
from streams.rebuild_view import ViewTables
from streams.runtime import codec, person_keys


class NoSuchView(Exception):
    """There is no view of that name."""


Rebuildable = View | ClickHouseView | UsageTables


def find_view(name: str) -> Rebuildable:
    """What is rebuilt under that name, in whichever database it is. Raises NoSuchView."""
    found: dict[str, Rebuildable] = {view.name: view for view in VIEWS}
    found |= {view.name: view for view in CLICKHOUSE_VIEWS}
    found[USAGE] = UsageTables(codec())
    if name not in found:
        raise NoSuchView(f"there is no view {name!r}; there are {', '.join(sorted(found))}")
    return found[name]


async def rebuild_view(
    settings: Settings, view: Rebuildable, advance: Advance, *, switch: bool = True
) -> Report:
    """Rebuild a view, in whichever database it is.

    Raises CannotRebuild, LogUnavailable, DatabaseUnavailable, AnalyticsUnavailable,
    ObjectsUnavailable.
    """
    bootstrap = settings.kafka_bootstrap_servers
    if not isinstance(view, ClickHouseView):
        tables = ViewTables(view, codec()) if isinstance(view, View) else view
        work = Rebuild(bootstrap, settings.database_url, tables, advance)
        return await work.run(switch=switch)
    refuse_a_taken_engine(settings)
    async with alone(settings.database_url):
        engine = ClickHouse(settings.clickhouse_url, query_seconds=QUERY_SECONDS)
        try:
            await engine.start()
            keys = person_keys(settings)
            rebuild = ClickHouseRebuild(bootstrap, engine, view, codec(), advance, person_keys=keys)
            return await rebuild.run(switch=switch)
        finally:
            await engine.stop()


def refuse_a_taken_engine(settings: Settings) -> None:
    """Raise CannotRebuild when another process has the engine: it locks a file in its folder.

    Opening it would fail too, but not without a page of its own on standard error.
    """
    if not settings.embedded_clickhouse:
        return
    status = Path(unquote(urlsplit(settings.clickhouse_url).path)) / "status"
    if not status.exists():
        return
    with status.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CannotRebuild(
                "the ClickHouse engine is inside the process that runs analytics: stop that one "
                "(`weir up`), then rebuild"
            ) from None


@contextmanager
def servers(data: Path | None) -> Iterator[Settings]:
    """The settings of running servers: the environment's without `data`, else the stack's there.

    A stack that does not run has its servers started, without its roles, while the block runs.
    Raises ConfigError, CannotRebuild, DataFolderError, PartFailed.
    """
    if data is None:
        yield load_settings()
        return
    if not (data / "identity.json").exists():
        raise CannotRebuild(f"{data} is no stack's folder")
    stack = Stack(data)
    try:
        stack.start()
        settings = stack.settings
    except DataFolderError:
        # `weir up` holds it, so its servers run.
        settings = settings_of(data)
    try:
        yield settings
    finally:
        stack.stop()
