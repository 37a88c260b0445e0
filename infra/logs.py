"""What a process writes about itself: one line per record, JSON or for the eye.

structlog's and the standard library's loggers end in the same handler, so that what a dependency
says looks like what we say.
"""

import logging
import sys

import structlog

from infra.config import LogFormat, LogLevel

# aiokafka reports every retry as an error, some hundred a second while a broker restarts; what
# matters of it our own loops say.
QUIET = {"aiokafka": logging.CRITICAL, "kafka": logging.CRITICAL, "faust": logging.WARNING}


def configure(level: LogLevel, form: LogFormat) -> None:
    """Send all records of `level` and above to standard error in the given form."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.stdlib.ExtraAdder(),
        structlog.processors.format_exc_info,
    ]
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
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
