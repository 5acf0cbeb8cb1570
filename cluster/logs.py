"""The log of a node as a process: whatever is logged, by whom ever, becomes one line on standard error.

Loggers are those of Python's `logging`, and keep their names; structlog writes the lines for programs. No line holds
a value, a key's arguments or a credential: nothing that is logged does.
"""

import logging
import sys
from typing import Final, TextIO

import structlog
from structlog.typing import EventDict, Processor

from cluster.config import LogConfig

_CONSOLE: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def begin(config: LogConfig, *, node: str, stream: TextIO | None = None) -> None:
    """Log to ``stream``, by default standard error, from now on, and nowhere else."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_json(node) if config.format == "json" else _console())
    logging.basicConfig(level=config.level.upper(), handlers=[handler], force=True)


def events(name: str) -> structlog.stdlib.BoundLogger:
    """A logger of events with fields. What is bound to structlog's context variables is one of them."""
    logger: structlog.stdlib.BoundLogger = structlog.wrap_logger(
        logging.getLogger(name),
        wrapper_class=structlog.stdlib.BoundLogger,
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
    )
    return logger


def _console() -> logging.Formatter:
    """The message, then the fields as ``name=value``; a failure's traceback below."""
    return structlog.stdlib.ProcessorFormatter(
        fmt=_CONSOLE,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _for_people],
        keep_exc_info=True,
    )


def _for_people(_logger: object, _method: str, event: EventDict) -> str:
    message = str(event.pop("event", ""))
    event.pop("exc_info", None)
    return " ".join((message, *(f"{name}={value}" for name, value in event.items())))


def _json(node: str) -> logging.Formatter:
    def name_node(_logger: object, _method: str, event: EventDict) -> EventDict:
        event["node"] = node
        return event

    described: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        name_node,
    ]
    return structlog.stdlib.ProcessorFormatter(
        processors=[
            *described,
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
    )
