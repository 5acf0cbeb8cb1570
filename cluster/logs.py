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
    handler.setFormatter(_json(node) if config.format == "json" else logging.Formatter(_CONSOLE))
    logging.basicConfig(level=config.level.upper(), handlers=[handler], force=True)


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
        foreign_pre_chain=described,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
    )
