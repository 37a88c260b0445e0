"""The compose file and the image fit the code: roles, settings, files, versions.

No container runs here; what is checked is everything that a file can promise.
"""

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from infra.cli import app
from infra.config import declared_variables, load_settings
from infra.embedded.jars import KAFKA_VERSION
from infra.roles import ROLES

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "infra" / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if service["image"] == "weir"}


def resolved(value: str) -> str:
    """A compose value with its defaults filled in, and a secret where one is demanded."""
    value = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value)
    return re.sub(r"\$\{\w+:\?[^}]*\}", "ab" * 32, value)


def test_every_role_is_a_service_of_its_own() -> None:
    played = {
        name: service["command"][1:]
        for name, service in OURS.items()
        if service["command"][0] == "run"
    }
    assert played == {role: [role] for role in ROLES}


def test_every_command_exists() -> None:
    commands = {
        (info.name or info.callback.__name__) for info in app.registered_commands if info.callback
    }
    assert {service["command"][0] for service in OURS.values()} <= commands


def test_the_environment_is_what_the_settings_read() -> None:
    declared = {variable.name for _, variable in declared_variables()}
    for service in OURS.values():
        foreign = set(service["environment"]) - declared
        # The object store's own client reads these.
        assert all(name.startswith("AWS_") for name in foreign)
        settings = load_settings({k: resolved(v) for k, v in service["environment"].items()})
        assert not settings.embedded_clickhouse
        assert settings.object_store_folder is None


def test_settings_point_at_services_that_exist() -> None:
    environment = {k: resolved(v) for k, v in OURS["api"]["environment"].items()}
    for name in ("DATABASE_URL", "CLICKHOUSE_URL", "AWS_ENDPOINT_URL"):
        assert urlsplit(environment[name]).hostname in SERVICES
    assert environment["KAFKA_BOOTSTRAP_SERVERS"].split(":")[0] in SERVICES


def test_dependencies_and_volumes_exist() -> None:
    for service in SERVICES.values():
        assert set(service.get("depends_on", [])) <= set(SERVICES)
        for volume in service.get("volumes", []):
            assert volume.split(":")[0] in COMPOSE["volumes"]


def test_kafka_is_the_version_that_is_tested() -> None:
    assert SERVICES["kafka"]["image"].endswith(f":{KAFKA_VERSION}")


def test_the_image_copies_only_what_exists() -> None:
    text = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")
    for line in text.splitlines():
        if line.startswith("COPY ") and "--from" not in line:
            *sources, _target = line.split()[1:]
            assert all((ROOT / source).exists() for source in sources), line
    for module in re.findall(r"python -m ([\w.]+)", text):
        if module.startswith("infra."):
            assert (ROOT / (module.replace(".", "/") + ".py")).exists()
    assert (DEPLOY / "../requirements/runtime.txt").exists()
