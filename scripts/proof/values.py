"""Whether a value is what the database held at the snapshot that a reply names. Pure.

The rows are carried along the course, incarnation after incarnation, snapshot after snapshot; at each one,
what was said of it is held against what the rows make. A transaction of which nobody knows whether it
committed may be in or out, but not both: what a value proves of it holds for all that come after.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Final

import msgpack

from cluster.snapshots import Snapshot
from scripts.proof.caches import Cache
from scripts.proof.course import Course, Stretch
from scripts.proof.history import UNKNOWN_XID, History, State, Write

Said = tuple[int, int]
"""The number of a key and the number of a value that was given for it."""

_UNREADABLE: Final = object()


class Values:
    """Judges what was said, given the numbered texts of ``keys`` and ``values``."""

    def __init__(
        self, caches: Mapping[str, Cache], keys: Sequence[str], values: Sequence[bytes | None]
    ) -> None:
        self._asked = [_split(key, caches) for key in keys]
        self._values = [_decoded(value) for value in values]
        self._known: dict[int, tuple[list[int], object]] = {}
        self._decided: dict[int, bool] = {}

    def false(
        self, history: History, course: Course, said: Mapping[tuple[int, Snapshot], Iterable[Said]]
    ) -> Iterator[tuple[int, Snapshot, Said, object]]:
        """What was ``said`` at each incarnation's snapshots and is not so, with what is instead."""
        for stretch in course.stretches:
            state = State()
            self._known.clear()
            before = [row for write in history.before(stretch.era) for row in write.rows]
            state.apply(sorted(before, key=lambda row: row.seq))
            for step in stretch.steps:
                for xid in step.newly:
                    state.apply(stretch.certain[xid].rows)
                for snapshot in step.snapshots:
                    for each in said.get((stretch.era.incarnation, snapshot), ()):
                        if not self._is_so(each, state, stretch, snapshot):
                            yield stretch.era.incarnation, snapshot, each, self._truth(each[0], state)

    def found(self, number: int) -> object:
        """The value of that number, decoded."""
        return self._values[number]

    def _is_so(self, said: Said, state: State, stretch: Stretch, snapshot: Snapshot) -> bool:
        maybe = [
            write
            for write in stretch.ambiguous
            if snapshot.sees(write.xid) and self._concerns(write, said[0])
        ]
        if not maybe:
            return bool(self._truth(said[0], state) == self._values[said[1]])
        matching = [worlds for worlds in self._worlds(maybe) if self._holds(said, state, worlds)]
        for write in maybe if matching else ():
            if len({write in world for world in matching}) == 1:
                self._decide(write, committed=write in matching[0])
        return bool(matching)

    def _decide(self, write: Write, *, committed: bool) -> None:
        """A snapshot that does not show it may be an earlier one, where nobody knows its xid."""
        if committed or write.xid != UNKNOWN_XID:
            self._decided[write.nonce] = committed

    def _worlds(self, maybe: Sequence[Write]) -> Iterator[tuple[Write, ...]]:
        """What of ``maybe`` may have been committed, as far as that is not decided."""
        given = [write for write in maybe if self._decided.get(write.nonce)]
        open_ = [write for write in maybe if write.nonce not in self._decided]
        for count in range(len(open_) + 1):
            for chosen in combinations(open_, count):
                yield (*given, *chosen)

    def _holds(self, said: Said, state: State, world: Sequence[Write]) -> bool:
        there = state.copy() if world else state
        for write in world:
            there.apply(write.rows)
        cache, argument = self._asked[said[0]]
        return bool(cache.truth(there, argument) == self._values[said[1]])

    def _concerns(self, write: Write, key: int) -> bool:
        tables = self._asked[key][0].tables
        return any(row.table in tables for row in write.rows)

    def _truth(self, key: int, state: State) -> object:
        cache, argument = self._asked[key]
        changes = [state.changes.get(table, 0) for table in cache.tables]
        known = self._known.get(key)
        if known is None or known[0] != changes:
            known = self._known[key] = changes, cache.truth(state, argument)
        return known[1]


def _split(key: str, caches: Mapping[str, Cache]) -> tuple[Cache, str]:
    name, _, argument = key.partition(":")
    return caches.get(name, _NO_CACHE), argument


def _decoded(value: bytes | None) -> object:
    if value is None:
        return None
    try:
        return msgpack.unpackb(value)
    except ValueError:
        return _UNREADABLE


_NO_CACHE: Final = Cache(name="", sql="", tables=(), truth=lambda *_: _UNREADABLE)
