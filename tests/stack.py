"""The servers for tests: one embedded Kafka and PostgreSQL, started once per test session.

`stack` is the running stack (tests may kill and halt its parts, and must leave them ready);
`settings` is what a role on it needs, with a database, a ClickHouse folder and an object store
that are the test's own. Kafka's topics are shared by the session, so a test uses its own tenants.
"""

import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from infra.config import Settings
from infra.embedded.stack import Stack

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """PostgreSQL and Kafka for the whole session; a failure to start fails the tests."""
    with Stack(tmp_path_factory.mktemp("stack")) as running:
        yield running


@pytest.fixture
def settings(stack: Stack, tmp_path: Path) -> Settings:
    """Settings on the session's servers, with empty stores of this test's own."""
    return fresh_stores(stack, tmp_path)


def fresh_stores(stack: Stack, folder: Path) -> Settings:
    """The stack's settings with a new database and with stores in `folder`."""
    url = stack.settings.database_url
    name = f"test_{next(_numbers)}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    for part in ("clickhouse", "objects"):
        (folder / part).mkdir(exist_ok=True)
    return dataclasses.replace(
        stack.settings,
        database_url=f"{url.rpartition('/')[0]}/{name}",
        clickhouse_url=f"chdb://{folder / 'clickhouse'}",
        object_store_url=(folder / "objects").as_uri(),
    )
