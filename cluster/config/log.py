"""What the node writes to standard error."""

from dataclasses import dataclass, field
from typing import Literal

from cluster.settings.units import Unit, setting

LogFormat = Literal["console", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LogConfig:
    """The log."""

    format: LogFormat = field(
        default="console",
        metadata=setting(
            Unit.CHOICE,
            "`console` for people; `json` for programs: an object a line, with timestamp (UTC), level, logger, node "
            "and event",
            choices=("console", "json"),
        ),
    )
    level: LogLevel = field(
        default="info",
        metadata=setting(
            Unit.CHOICE, "the least that is worth a line", choices=("debug", "info", "warning", "error")
        ),
    )
