"""What a new installation needs before it serves, and the credentials its owner gets."""

import importlib
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, cast

import msgspec

from infra.config import Settings
from infra.embedded.data_folder import write_private
from infra.kafka import create_topics


class Credentials(msgspec.Struct, frozen=True):
    """The content of `credentials.json`: where the installation is and how to get in."""

    url: str
    kafka: str
    tenant_id: str
    api_key: str
    agent_key: str
    admin_email: str
    admin_password: str
    admin_token: str


# Makes the first tenant with its owner and keys, or, when the credentials of an earlier start are
# given, brings those up to date (the token is short-lived, the address may have changed).
Provision = Callable[[Settings, Credentials | None], Coroutine[Any, Any, Credentials]]
PROVISION = "api.provision:provision"


class BootstrapError(Exception):
    """The installation cannot be made ready; one line for a person."""


async def prepare(settings: Settings) -> list[str]:
    """Create the topics that are missing; returns their names. Safe to repeat and to run twice."""
    return await create_topics(settings.kafka_bootstrap_servers, settings.partitions)


def find_provision() -> Provision:
    """The function that makes the first tenant; named, not imported: it lives in a layer above."""
    module, _, function = PROVISION.partition(":")
    return cast(Provision, getattr(importlib.import_module(module), function))


def read_credentials(path: Path) -> Credentials | None:
    """The credentials of an earlier start, None when there was none. Raises BootstrapError."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Credentials)
    except FileNotFoundError:
        return None
    except (msgspec.DecodeError, OSError) as error:
        raise BootstrapError(f"{path} is damaged: {error}") from error


def write_credentials(path: Path, credentials: Credentials) -> None:
    """Write the credentials for their owner alone (mode 600), whole or not at all."""
    write_private(path, msgspec.json.format(msgspec.json.encode(credentials)) + b"\n")
