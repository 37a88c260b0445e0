"""Settings come from the environment whole, or not at all with one line that says what is wrong."""

import base64

import pytest

from infra.config import ConfigError, Settings, declared_variables, load_settings

ENVIRON = {
    "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9092, broker-2:9093",
    "DATABASE_URL": "postgresql://weir:pass@127.0.0.1:5432/weir",
    "CLICKHOUSE_URL": "chdb:///var/lib/weir/clickhouse",
    "OBJECT_STORE_URL": "file:///var/lib/weir/objects",
    "WEIR_SECRET_KEY": "ab" * 32,
}


def without(name: str) -> dict[str, str]:
    return {key: value for key, value in ENVIRON.items() if key != name}


def test_the_required_variables_suffice() -> None:
    settings = load_settings(ENVIRON)
    assert settings.kafka_bootstrap_servers == "127.0.0.1:9092,broker-2:9093"
    assert settings.secret_key == bytes.fromhex("ab" * 32)
    assert settings.port == 8080
    assert settings.public_url == "http://127.0.0.1:8080"
    assert settings.embedded_clickhouse
    assert str(settings.object_store_folder) == "/var/lib/weir/objects"


@pytest.mark.parametrize("name", sorted(ENVIRON))
def test_a_missing_variable_is_named_in_one_line(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(without(name))
    message = str(caught.value)
    assert message.startswith(f"{name} is not set")
    assert "\n" not in message


def test_an_empty_variable_counts_as_not_set() -> None:
    with pytest.raises(ConfigError, match="DATABASE_URL is not set"):
        load_settings({**ENVIRON, "DATABASE_URL": "  "})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("KAFKA_BOOTSTRAP_SERVERS", "broker"),
        ("KAFKA_BOOTSTRAP_SERVERS", "broker:0"),
        ("KAFKA_BOOTSTRAP_SERVERS", "a:1,,b:2"),
        ("DATABASE_URL", "mysql://localhost/weir"),
        ("CLICKHOUSE_URL", "localhost:8123"),
        ("OBJECT_STORE_URL", "/var/lib/weir"),
        ("WEIR_SECRET_KEY", "ab" * 31),
        ("WEIR_SECRET_KEY", "not a secret at all, but long enough to be one!"),
        ("WEIR_PORT", "99999"),
        ("WEIR_PORT", "-1"),
        ("WEIR_PORT", "٣"),
        ("WEIR_PARTITIONS", "0"),
        ("WEIR_LOG_LEVEL", "loud"),
        ("WEIR_LOG_FORMAT", "xml"),
        ("WEIR_JWKS_URLS", "https://a.example/keys,ftp://b.example"),
        ("WEIR_JWT_HS256_SECRET", "short"),
        ("WEIR_RATE_LIMIT_PER_MINUTE", "many"),
        ("WEIR_EGRESS_ALLOW", "localhost"),
        ("WEIR_EGRESS_ALLOW", "10.0.0.1/8"),
    ],
)
def test_a_malformed_value_is_named_in_one_line(name: str, value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings({**ENVIRON, name: value})
    message = str(caught.value)
    assert message.startswith(name)
    assert "is malformed" in message
    assert "\n" not in message


def test_all_problems_come_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings({"WEIR_PORT": "no"})
    for name in [*ENVIRON, "WEIR_PORT"]:
        assert name in str(caught.value)


def test_no_secret_is_ever_shown() -> None:
    secret = "hunter2-hunter2"
    with pytest.raises(ConfigError) as caught:
        load_settings({**ENVIRON, "WEIR_SECRET_KEY": secret, "DATABASE_URL": f"x://:{secret}@h/d"})
    assert secret not in str(caught.value)
    settings = load_settings(ENVIRON)
    assert "pass@" not in repr(settings)
    assert "ab" * 8 not in repr(settings)
    assert repr(settings.secret_key) not in repr(settings)


@pytest.mark.parametrize(
    "text",
    [
        bytes(range(40)).hex(),
        base64.b64encode(bytes(range(40))).decode(),
        base64.urlsafe_b64encode(bytes(range(40))).decode().rstrip("="),
    ],
)
def test_the_master_secret_is_hex_or_base64(text: str) -> None:
    assert load_settings({**ENVIRON, "WEIR_SECRET_KEY": text}).secret_key == bytes(range(40))


def test_settings_written_as_an_environment_read_back_equal() -> None:
    settings = load_settings(
        {
            **ENVIRON,
            "WEIR_JWKS_URLS": "https://a.example/keys,https://b.example/keys",
            "WEIR_JWT_HS256_SECRET": "s" * 40,
            "WEIR_PORT": "9999",
            "WEIR_EGRESS_ALLOW": "127.0.0.1, fd00::/8",
        }
    )
    assert settings.egress_allow == ("127.0.0.1/32", "fd00::/8")
    assert load_settings(settings.to_env()) == settings


def test_each_variable_is_declared_once() -> None:
    names = [variable.name for _, variable in declared_variables()]
    assert len(names) == len(set(names))
    assert isinstance(load_settings(ENVIRON), Settings)
