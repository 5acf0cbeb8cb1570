"""Whom clients may ask for what: the ring, and where each of its nodes is found. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from peers.ring import Ring

Run = tuple[int, int, tuple[str, ...]]
"""A first and a last slot, and whom to ask for those between."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """Where clients find a node. ``host`` is empty where that is the address by which they came to the one they ask."""

    host: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Circle:
    """The nodes as ``me`` sees them. ``doors`` are of those that are reached now, and of ``me``."""

    me: str
    ring: Ring
    doors: Mapping[str, Door]

    def who(self, owner: str, backup: str | None) -> tuple[str, ...]:
        """Whom of the two to ask, the owner first, at least one of ``doors``: any node answers any key."""
        return tuple(name for name in (owner, backup) if name is not None and name in self.doors) or (
            self.me,
        )


def door_of(text: str, host: str) -> Door | None:
    """The door that a hello names, where the host that it leaves out is ``host``; None if it names none."""
    named, _, port = text.rpartition(":")
    if not port.isdecimal():
        return None
    return Door(host=named.strip("[]") or host, port=int(port))


def runs(circle: Circle) -> Sequence[Run]:
    """The slots in order, in as few runs as there can be."""
    pairs = list(zip(circle.ring.owners, circle.ring.backups, strict=True))
    who = {pair: circle.who(*pair) for pair in set(pairs)}
    found, first = [], 0
    for asked, together in groupby(map(who.__getitem__, pairs)):
        after = first + sum(1 for _ in together)
        found.append((first, after - 1, asked))
        first = after
    return found


def merged(told: Iterable[Run]) -> Sequence[Run]:
    """The same, of whom the first is to be asked alone."""
    together = ((name, list(alike)) for name, alike in groupby(told, lambda run: run[2][0]))
    return [(alike[0][0], alike[-1][1], (name,)) for name, alike in together]
