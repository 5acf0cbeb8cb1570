"""What a read asks for and what it gets: consistency, reply. Pure."""

from dataclasses import dataclass
from enum import Enum
from typing import Final

from cluster.snapshots import Snapshot
from cluster.tokens import Position


class State(Enum):
    """Whether a reply satisfies the consistency asked (FRESH) or is an old truth, labelled (STALE)."""

    FRESH = "FRESH"
    STALE = "STALE"


class Source(Enum):
    """Where a reply came from."""

    LOCAL = "local"
    PEER = "peer"
    BACKUP = "backup"
    LOAD = "load"


@dataclass(frozen=True, slots=True)
class Strong:
    """The answer's snapshot must be taken after the request arrived."""


@dataclass(frozen=True, slots=True)
class AtLeast:
    """The answer's snapshot must see ``position``, a place in the history of ``incarnation``."""

    position: Position
    incarnation: int


@dataclass(frozen=True, slots=True)
class Bounded:
    """No token: as fresh as the cache's ``max_staleness`` asks.

    ``floor``, where given, must be seen too as long as its incarnation lasts: the asker's own last write.
    """

    floor: AtLeast | None = None

    def allows(self, as_of: Snapshot, incarnation: int) -> bool:
        """Whether an answer may be as old as ``as_of``, but for its age."""
        floor = self.floor
        return floor is None or floor.incarnation != incarnation or sees(as_of, floor.position)


@dataclass(frozen=True, slots=True)
class Exactly:
    """The answer must be true at exactly ``snapshot`` of ``incarnation``."""

    snapshot: Snapshot
    incarnation: int


def sees(snapshot: Snapshot, position: Position) -> bool:
    """Whether ``snapshot`` is at or after ``position``."""
    if isinstance(position, Snapshot):
        return position.within(snapshot)
    return snapshot.sees(position.xid)


Consistency = Bounded | Strong | AtLeast | Exactly
BOUNDED: Final = Bounded()
STRONG: Final = Strong()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A value and the claim made about it: it equals what Postgres would have returned at ``as_of``.

    ``value`` is the encoded value (msgpack or JSON, as the cache says), or None where a ``single``
    query found no row, or a ``store`` cache no version. ``age_s`` is how long before the reply ``as_of`` was
    surely current, in seconds; infinity where that is no longer known. ``version``: see `Entry.version`.
    """

    value: bytes | None
    as_of: Snapshot
    incarnation: int
    age_s: float
    state: State
    source: Source
    version: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """Keys of a ``store`` cache, each with its version, ascending: all that there were at ``as_of``.

    ``age_s`` as in `Reply`.
    """

    keys: tuple[tuple[str, int], ...]
    as_of: Snapshot
    incarnation: int
    age_s: float
