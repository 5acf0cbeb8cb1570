"""What the world and its nodes tell each other. Values, most of them hashed all the time: named tuples."""

from dataclasses import dataclass
from typing import NamedTuple

from cluster.requests import Reply
from cluster.snapshots import Snapshot
from scripts.simulation.model import Row, Token


class Violation(Exception):
    """Something that must never be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The settings of a node that schedules depend on. Times are counted in ticks of the schedule."""

    log_max_changes: int = 100
    log_retention_s: int = 1_000
    max_changes_per_poll: int = 100
    memory_bytes: int = 2**20
    max_staleness_s: int = 6
    token_wait_s: int = 3


class Answer(NamedTuple):
    """What Postgres answered to a poll that was sent at ``sent_s``."""

    snapshot: Snapshot
    incarnation: int
    sent_s: float
    rows: tuple[Row, ...]
    trimmed: int
    catalog_version: str


class Load(NamedTuple):
    """What Postgres answered to a load, or another node handed over, that was sent at ``sent_s``."""

    key: str
    value: str
    snapshot: Snapshot
    incarnation: int
    sent_s: float


class Claim(NamedTuple):
    """A reply: ``value`` of ``key`` is true ``at`` a snapshot that was surely current at ``current_s``.

    ``at`` and ``since``, at or after which the reply was asked to be, count in the tokens known.
    """

    key: str
    value: str
    at: int
    current_s: float
    since: int


class Call(NamedTuple):
    """What a caller asked for."""

    caller: int
    key: str
    how: str
    token: Token | None
    asked_s: float
    deadline_s: float


class Outcome(NamedTuple):
    """What a caller got: a reply, an error, or its own cancellation."""

    call: Call
    reply: Reply | None
    error: BaseException | None
    cancelled: bool
    now_s: float
