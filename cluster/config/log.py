"""What the node writes to standard error."""

from dataclasses import dataclass, field
from typing import Literal

from cluster.settings.units import HOUR_S, Unit, setting

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
    requests: int = field(
        default=1,
        metadata=setting(
            Unit.COUNT,
            "requests a second of the doors for clients that get a line, picked at random, hits too: door, command, "
            "tenant, cache, source, age, time; never a value or a key's arguments. Too small: little to look at; too "
            "big: a long log, and work in place of hits. 0: none",
            most=1000,
        ),
    )
    slow_requests_s: float | None = field(
        default=1.0,
        metadata=setting(
            Unit.DURATION,
            "a request that took this long gets a line. Too small: the usual is reported; too big: what clients "
            "complain of is not. `none`: none does",
            least=0.0001,
            most=HOUR_S,
        ),
    )
    request_lines: int = field(
        default=10,
        metadata=setting(
            Unit.COUNT,
            "most lines a second about slow requests, and as many about those that failed; how many were left out "
            "is said. Too small: a fault is seen in part; too big: a flood of them floods the log. 0: none",
            most=10_000,
        ),
    )
