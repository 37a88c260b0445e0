"""Keys take up to a tenth of a second each, so the tests of this folder share them."""

import pytest

from schemas.fhe.parameters import CKKS_N13, CKKS_N14, CKKS_N14D5
from tests.fhe_workers.clients import BitsClient, Client, GateClient


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
