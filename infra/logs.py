"""What a process writes about itself: one line per record, JSON or for the eye.

structlog's and the standard library's loggers end in the same handler, so that what a dependency
says looks like what we say.
"""

import json
import logging
import re
import sys
from typing import Any

import msgspec
import structlog

from infra.config import LogFormat, LogLevel

# aiokafka reports every retry as an error, some hundred a second while a broker restarts; what
# matters of it our own loops say. openai would write down what models are asked.
QUIET = {
    "aiokafka": logging.CRITICAL,
    "kafka": logging.CRITICAL,
    "faust": logging.WARNING,
    "openai": logging.WARNING,
}


# What must never be readable in a log, wherever it slipped in (an exception's text, a URL).
_SECRETS = (
    (re.compile(r"\b(wax_sk_|wax_su_|wr_)[0-9A-Za-z_.-]{8,}"), r"\1[redacted]"),
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]+\.[\w-]*"), "[redacted token]"),
    (re.compile(r"(?i)\b(bearer\s+|sessionid=)[^\s;,'\"]+"), r"\1[redacted]"),
    (re.compile(r"(://[^/\s:@]*:)[^/\s@]+@"), r"\1[redacted]@"),
)


# What all of those contain: most texts have none of it, and one look is enough.
_SUSPECT = re.compile(r"(?i)wax_s|wr_|eyj|bearer|sessionid=|://")


def redacted(text: str) -> str:
    """The text without keys, tokens, cookies and passwords in URLs."""
    if not _SUSPECT.search(text):
        return text
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return text


def redact(
    _logger: Any, _name: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Take secrets out of every text of a record."""
    for name, value in event.items():
        if isinstance(value, str):
            event[name] = redacted(value)
    return event


def _json(event: structlog.typing.EventDict, **options: Any) -> str:
    """A record in one line; what the fast encoder does not take, such as half of a surrogate pair
    in the name of a file, the standard library's does."""
    try:
        return msgspec.json.encode(event, enc_hook=options["default"]).decode()
    except (OverflowError, ValueError):
        return json.dumps(event, default=options["default"])


def configure(level: LogLevel, form: LogFormat) -> None:
    """Send all records of `level` and above to standard error in the given form."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.stdlib.ExtraAdder(),
        structlog.processors.format_exc_info,
        redact,
    ]
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer(serializer=_json)
        if form == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
            foreign_pre_chain=shared,
        )
    )
    logging.root.handlers = [handler]
    logging.root.setLevel(level.upper())
    for name, floor in QUIET.items():
        logging.getLogger(name).setLevel(max(floor, logging.getLevelName(level.upper())))
