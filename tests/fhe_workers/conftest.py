"""Keys take up to a tenth of a second each, so the tests of this folder share them."""

from pathlib import Path

import pytest

from infra.build.bootstrap import ensure_helper
from schemas.fhe.parameters import CKKS_N13, CKKS_N14, CKKS_N14D5
from tests.fhe_workers.clients import BitsClient, Client, GateClient
from tests.fhe_workers.refreshing import RefreshingClient


@pytest.fixture(scope="session")
def alice() -> Client:
    return Client(CKKS_N13, rotations=(1, 8, -4))


@pytest.fixture(scope="session")
def bob() -> Client:
    return Client(CKKS_N13)


@pytest.fixture(scope="session")
def alice_n14() -> Client:
    return Client(CKKS_N14)


@pytest.fixture(scope="session")
def alice_n14d5() -> Client:
    return Client(CKKS_N14D5)


@pytest.fixture(scope="session")
def carol() -> BitsClient:
    return BitsClient()


@pytest.fixture(scope="session")
def dora() -> GateClient:
    return GateClient()


@pytest.fixture(scope="session")
def program() -> Path:
    """The bootstrapping helper."""
    found = ensure_helper()
    assert found is not None, "these tests need Go"
    return found


@pytest.fixture(scope="session")
def erin(program: Path, tmp_path_factory: pytest.TempPathFactory) -> RefreshingClient:
    return RefreshingClient(program, tmp_path_factory.mktemp("erin"))
