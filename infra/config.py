"""The one place where the environment becomes settings.

Each field of `Settings` declares its environment variable, how its text is read and what it means.
`load_settings` reads them all and reports every missing or malformed one in a single line, so that
nothing else in the code base looks at `os.environ` for configuration.
"""

# ruff: noqa: RUF009 - `_setting` wraps dataclasses.field, whose results are meant to be defaults.

import base64
import binascii
import dataclasses
import ipaddress
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast
from urllib.parse import unquote, urlsplit

LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["json", "console"]

MINIMUM_SECRET_BYTES = 32


class ConfigError(Exception):
    """The environment cannot be turned into settings; one line, or each problem by itself."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def _text(value: str) -> str:
    return value


def _host_ports(value: str) -> str:
    for entry in value.split(","):
        host, _, port = entry.strip().rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise ValueError("give host:port, several separated by commas")
    return ",".join(entry.strip() for entry in value.split(","))


def _url(*schemes: str) -> Callable[[str], str]:
    def read(value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in schemes or not (parts.netloc or parts.path or parts.query):
            raise ValueError(
                "give a URL that starts with " + " or ".join(f"{s}://" for s in schemes)
            )
        return value

    return read


def _urls(value: str) -> tuple[str, ...]:
    read = _url("http", "https")
    return tuple(read(entry.strip()) for entry in value.split(",") if entry.strip())


def _origins(value: str) -> tuple[str, ...]:
    read = _url("http", "https")
    entries = (entry.strip() for entry in value.split(",") if entry.strip())
    return tuple(entry if entry == "*" else read(entry) for entry in entries)


def _networks(value: str) -> tuple[str, ...]:
    entries = (entry.strip() for entry in value.split(",") if entry.strip())
    return tuple(str(ipaddress.ip_network(entry)) for entry in entries)


def _secret(value: str) -> bytes:
    """Hex, base64 or URL-safe base64 of at least 32 bytes.

    Hex is tried first: 64 hex digits are also valid base64, and hex is what `openssl rand -hex`
    and our own supervisor write.
    """
    raw: bytes | None = None
    try:
        raw = bytes.fromhex(value)
    except ValueError:
        padded = value.replace("-", "+").replace("_", "/")
        padded += "=" * (-len(padded) % 4)
        try:
            raw = base64.b64decode(padded, validate=True)
        except binascii.Error:
            raise ValueError("give hex or base64") from None
    if len(raw) < MINIMUM_SECRET_BYTES:
        raise ValueError(
            f"give at least {MINIMUM_SECRET_BYTES} bytes as hex or base64 (`openssl rand -hex 32`)"
        )
    return raw


def _hs256_secret(value: str) -> str:
    """The shared secret of a foreign issuer, used as it stands (RFC 7518 wants 32 bytes)."""
    if len(value.encode()) < MINIMUM_SECRET_BYTES:
        raise ValueError(f"give at least {MINIMUM_SECRET_BYTES} characters")
    return value


def _whole(low: int, high: int) -> Callable[[str], int]:
    def read(value: str) -> int:
        if not value.isascii() or not value.isdigit() or not low <= int(value) <= high:
            raise ValueError(f"give a whole number from {low} to {high}")
        return int(value)

    return read


def _one_of(*choices: str) -> Callable[[str], str]:
    def read(value: str) -> str:
        if value.lower() not in choices:
            raise ValueError("give one of " + ", ".join(choices))
        return value.lower()

    return read


@dataclass(frozen=True)
class Variable:
    """How one setting appears in the environment."""

    name: str
    read: Callable[[str], Any]
    meaning: str
    secret: bool = False


def _setting(
    name: str,
    read: Callable[[str], Any],
    meaning: str,
    *,
    default: Any = dataclasses.MISSING,
    secret: bool = False,
) -> Any:
    # Secrets and URLs (which may hold a password) stay out of repr, hence out of logs.
    return dataclasses.field(
        default=default,
        repr=not secret,
        metadata={"variable": Variable(name, read, meaning, secret)},
    )


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a role needs to know. Equal environments give equal settings; nothing here changes."""

    kafka_bootstrap_servers: str = _setting(
        "KAFKA_BOOTSTRAP_SERVERS", _host_ports, "the Kafka cluster, host:port[,host:port]"
    )
    database_url: str = _setting(
        "DATABASE_URL",
        _url("postgresql", "postgres"),
        "PostgreSQL, postgresql://user:password@host:port/database",
        secret=True,
    )
    clickhouse_url: str = _setting(
        "CLICKHOUSE_URL",
        _url("chdb", "http", "https"),
        "ClickHouse, http(s)://user:password@host:port/database, or chdb:///folder for the engine "
        "inside the process",
        secret=True,
    )
    object_store_url: str = _setting(
        "OBJECT_STORE_URL",
        _url("file", "s3", "memory"),
        "where large bytes go, file:///folder or s3://bucket/prefix",
    )
    secret_key: bytes = _setting(
        "WEIR_SECRET_KEY",
        _secret,
        "the master secret, 32 bytes or more as hex or base64; the same in every process",
        secret=True,
    )
    host: str = _setting("WEIR_HOST", _text, "address the API listens on", default="127.0.0.1")
    port: int = _setting("WEIR_PORT", _whole(1, 65535), "port the API listens on", default=8080)
    public_url: str = _setting(
        "WEIR_PUBLIC_URL",
        _url("http", "https"),
        "how clients reach the API (default: http://host:port)",
        default="",
    )
    state_dir: str = _setting(
        "WEIR_STATE_DIR",
        _text,
        "folder in which an API process notes the requests that it has not answered yet, so that "
        "their repeats are known after a crash, too",
        default="",
    )
    log_level: LogLevel = _setting(
        "WEIR_LOG_LEVEL",
        _one_of("debug", "info", "warning", "error"),
        "debug, info, warning or error",
        default="info",
    )
    log_format: LogFormat = _setting(
        "WEIR_LOG_FORMAT", _one_of("json", "console"), "json or console", default="json"
    )
    partitions: int = _setting(
        "WEIR_PARTITIONS",
        _whole(1, 1024),
        "partitions of a topic when it is created; keys move when it changes later",
        default=4,
    )
    jwks_urls: tuple[str, ...] = _setting(
        "WEIR_JWKS_URLS", _urls, "key sets of foreign issuers whose JWTs we accept", default=()
    )
    jwt_hs256_secret: str = _setting(
        "WEIR_JWT_HS256_SECRET",
        _hs256_secret,
        "shared secret of a foreign issuer whose HS256 JWTs we accept",
        default="",
        secret=True,
    )
    jwt_audience: str = _setting(
        "WEIR_JWT_AUDIENCE", _text, "audience that foreign JWTs must name, if set", default=""
    )
    rate_limit_per_minute: int = _setting(
        "WEIR_RATE_LIMIT_PER_MINUTE",
        _whole(0, 100_000_000),
        "requests per minute for each credential, 0 for no limit",
        default=60_000,
    )
    rate_limit_burst: int = _setting(
        "WEIR_RATE_LIMIT_BURST",
        _whole(1, 100_000_000),
        "requests that may come at once before the limit per minute counts",
        default=5_000,
    )
    cors_origins: tuple[str, ...] = _setting(
        "WEIR_CORS_ORIGINS",
        _origins,
        "origins whose pages may call the API with a key or a token, * for any; never with cookies",
        default=(),
    )
    trusted_proxies: str = _setting(
        "WEIR_TRUSTED_PROXIES",
        _text,
        "addresses (or networks) of proxies whose X-Forwarded-For we believe, comma-separated",
        default="",
    )
    stripe_api_key: str = _setting(
        "STRIPE_API_KEY",
        _text,
        "the secret key of the Stripe account that bills subscriptions; without one they are off",
        default="",
        secret=True,
    )
    stripe_webhook_secret: str = _setting(
        "STRIPE_WEBHOOK_SECRET",
        _text,
        "the signing secret of the webhook endpoint /api/v1/billing/stripe_webhook at Stripe",
        default="",
        secret=True,
    )
    stripe_api_base: str = _setting(
        "STRIPE_API_BASE",
        _url("http", "https"),
        "where Stripe's API is",
        default="https://api.stripe.com",
    )
    egress_allow: tuple[str, ...] = _setting(
        "WEIR_EGRESS_ALLOW",
        _networks,
        "networks that we connect to for tenants although they are not public, comma-separated: "
        "127.0.0.0/8 for a model server on this machine",
        default=(),
    )

    def __post_init__(self) -> None:
        if not self.public_url:
            host = f"[{self.host}]" if ":" in self.host else self.host
            object.__setattr__(self, "public_url", f"http://{host}:{self.port}")

    @property
    def embedded_clickhouse(self) -> bool:
        """Whether ClickHouse is the engine inside this process, of which there can be only one."""
        return self.clickhouse_url.startswith("chdb:")

    @property
    def object_store_folder(self) -> Path | None:
        """The local folder of a `file://` object store; None for any other store."""
        parts = urlsplit(self.object_store_url)
        return Path(unquote(parts.path)) if parts.scheme == "file" else None

    def to_env(self) -> dict[str, str]:
        """The environment from which `load_settings` makes these settings again."""
        return {
            variable.name: _written(getattr(self, field.name))
            for field, variable in declared_variables()
            if getattr(self, field.name) not in ("", ())
        }


def _written(value: object) -> str:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, tuple):
        return ",".join(value)
    return str(value)


def declared_variables() -> list[tuple["dataclasses.Field[Any]", Variable]]:
    """Every setting with its environment variable, in order of declaration."""
    return [
        (field, cast(Variable, field.metadata["variable"]))
        for field in dataclasses.fields(Settings)
    ]


def load_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """Settings from `environ` (the process's own by default).

    An empty variable counts as not set. Raises ConfigError with one line that names every
    variable that is missing or malformed; a secret's value is never repeated in it.
    """
    source = os.environ if environ is None else environ
    values: dict[str, Any] = {}
    problems: list[str] = []
    for field, variable in declared_variables():
        text = source.get(variable.name, "").strip()
        if not text:
            if field.default is dataclasses.MISSING:
                problems.append(f"{variable.name} is not set ({variable.meaning})")
            continue
        try:
            values[field.name] = variable.read(text)
        except ValueError as error:
            shown = "" if variable.secret else f" {text[:80]!r}"
            problems.append(f"{variable.name}{shown} is malformed: {error}")
    if problems:
        raise ConfigError(problems)
    return Settings(**values)
