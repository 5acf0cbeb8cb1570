"""A dumb model of the versions of store caches: what every transaction sees, kept in dictionaries.

Several sessions write through `snapring.write` in transactions with savepoints that may be rolled back, begin
early and commit late; at any moment the ledger can look, remember what is there, and be asked at the end
whether history still says so. A step that would wait for another session's lock is left out.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final

import psycopg

KEYS: Final = ("a", "b", "c")
KEPT_S: Final = 2
SWEPT: Final = 2

Versions = dict[str, tuple[int, bytes]]
"""The version and value of each key that is there."""

Deed = tuple[str, bytes | None, str]
"""A key, its new value or None, and what it demands: ``nothing``, ``absent``, ``current`` or ``another``."""


@dataclass
class Session:
    """A connection, and what its transaction has done: a level for itself, one for each savepoint."""

    connection: psycopg.Connection[Any]
    levels: list[dict[str, tuple[int, bytes] | None]] = field(default_factory=list)
    locked: list[set[int]] = field(default_factory=list)
    xid: int | None = None


@dataclass(frozen=True)
class Look:
    """What was there at a snapshot, and at which second of the sweeper's clock that was."""

    snapshot: str
    versions: Versions
    clock_s: int


class Ledger:
    """Writes to a database, and to its own dictionaries alike."""

    _prefixes = count(1)

    def __init__(self, url: str, sessions: int) -> None:
        self._stack = ExitStack()
        self._observer, *connections = (
            self._stack.enter_context(psycopg.connect(url, autocommit=True)) for _ in range(sessions + 1)
        )
        self.sessions = [Session(connection) for connection in connections]
        self.clock_s = 0
        self._given: set[int] = set()
        self.begin_anew()

    def begin_anew(self) -> None:
        """Other keys, nothing remembered."""
        for session in self.sessions:
            self.rollback(session)
        self.prefix = f"ledger_{next(self._prefixes)}:"
        self.committed: Versions = {}
        self.looks: list[Look] = []
        self._buckets = {
            key: self._one("SELECT hashtextextended(%s, 0) & 1023", self.prefix + key)[0] for key in KEYS
        }

    def close(self) -> None:
        """Let go of the database."""
        self._stack.close()

    def begin(self, session: Session) -> None:
        """Open a transaction whose id is older than all that come."""
        if not session.levels:
            session.connection.execute("BEGIN")
            (xid,) = session.connection.execute("SELECT pg_current_xact_id()::text").fetchone() or ("",)
            session.levels, session.locked, session.xid = [{}], [set()], int(xid)

    def savepoint(self, session: Session) -> None:
        """Open one more level of the transaction."""
        if session.levels:
            session.connection.execute(f"SAVEPOINT s{len(session.levels)}".encode())
            session.levels.append({})
            session.locked.append(set())

    def undo(self, session: Session) -> None:
        """Roll back to the newest savepoint, which lets go of the locks taken since."""
        if len(session.levels) > 1:
            session.levels.pop()
            session.locked.pop()
            session.connection.execute(f"ROLLBACK TO s{len(session.levels)}".encode())

    def commit(self, session: Session) -> None:
        """Everyone sees what the transaction did."""
        if session.levels:
            session.connection.execute("COMMIT")
            for level in session.levels:
                self._settle(level)
            session.levels, session.locked, session.xid = [], [], None

    def rollback(self, session: Session) -> None:
        """Nobody ever sees it."""
        if session.levels:
            session.connection.execute("ROLLBACK")
        session.levels, session.locked, session.xid = [], [], None

    def write(self, session: Session, deeds: Sequence[Deed]) -> None:
        """One call, with the outcome that the dictionaries foretell."""
        buckets = {self._buckets[key] for key, _, _ in deeds}
        if any(buckets & held for other in self.sessions if other is not session for held in other.locked):
            return
        there = [self._current(session, key) for key, _, _ in deeds]
        wanted = [_wanted(demand, found) for (_, _, demand), found in zip(deeds, there, strict=True)]
        xid, version, *outcome = self._call(session, deeds, wanted)
        if session.locked:
            session.locked[-1] |= buckets
        for (key, _, _), found, demanded in zip(deeds, there, wanted, strict=True):
            current = found[0] if found else 0
            if demanded not in (None, current):
                assert (xid, version, *outcome) == (None, current, None, self.prefix + key)
                return
        assert outcome == [sum(found is not None for found in there), None]
        assert session.xid in (None, int(xid)), "it is the transaction, not the savepoint"
        assert version not in self._given
        self._given.add(version)
        level = {key: None if value is None else (version, value) for key, value, _ in deeds}
        if session.levels:
            session.levels[-1].update(level)
        else:
            self._settle(level)

    def look(self) -> None:
        """Remember what is there now."""
        snapshot, keys, versions, values = self._one(
            "SELECT pg_current_snapshot()::text, array_agg(key), array_agg(version), array_agg(value)"
            "  FROM snapring.heads WHERE starts_with(key, %s)",
            self.prefix,
        )
        found = zip(keys or (), versions or (), values or (), strict=True)
        there = {key.removeprefix(self.prefix): (version, value) for key, version, value in found}
        assert there == self.committed
        self.looks.append(Look(snapshot, there, self.clock_s))

    def sweep(self) -> None:
        """A second later, delete some of what nobody looked at for long."""
        self.clock_s += 1
        self._one("SELECT snapring.sweep(1, 1, %s, %s)", KEPT_S, SWEPT)

    def verify(self) -> None:
        """Whether history says at every snapshot what was seen at it, or that it reaches back no further."""
        for look in self.looks:
            try:
                found = {key: self._version_at(key, look.snapshot) for key in KEYS}
            except psycopg.DatabaseError as error:
                assert error.sqlstate == "SN001"
                assert self.clock_s - look.clock_s > KEPT_S, "it was promised for longer"
                continue
            assert {key: version for key, version in found.items() if version} == look.versions
            listed = [(self.prefix + key, look.versions[key][0]) for key in sorted(look.versions)]
            for page in (1, 3, 100):
                assert self._listed(page, look.snapshot) == listed
        self.look()
        listed = [(self.prefix + key, self.committed[key][0]) for key in sorted(self.committed)]
        assert self._listed(2, None) == listed

    def _call(self, session: Session, deeds: Sequence[Deed], wanted: Sequence[int | None]) -> Any:
        return session.connection.execute(
            "SELECT xid::text, version, existed, refused FROM snapring.write(%s, %s, %s::bigint[])",
            (
                [self.prefix + key for key, _, _ in deeds],
                [value for _, value, _ in deeds],
                wanted,
            ),
        ).fetchone()

    def _version_at(self, key: str, snapshot: str) -> tuple[int, bytes] | None:
        row = self._observer.execute(
            "SELECT version, value FROM snapring.version_at(%s, %s::pg_snapshot)",
            (self.prefix + key, snapshot),
        ).fetchone()
        return None if row is None else (row[0], row[1])

    def _listed(self, page: int, snapshot: str | None) -> list[tuple[str, int]]:
        found: list[tuple[str, int]] = []
        while True:
            rows = self._observer.execute(
                "SELECT key, version FROM snapring.listing(%s, %s, %s, %s::pg_snapshot)",
                (self.prefix, found[-1][0] if found else "", page, snapshot),
            ).fetchall()
            found += rows
            if len(rows) < page:
                return found

    def _current(self, session: Session, key: str) -> tuple[int, bytes] | None:
        for level in reversed(session.levels):
            if key in level:
                return level[key]
        return self.committed.get(key)

    def _settle(self, level: dict[str, tuple[int, bytes] | None]) -> None:
        for key, version in level.items():
            if version is None:
                self.committed.pop(key, None)
            else:
                self.committed[key] = version

    def _one(self, query: str, *arguments: object) -> Any:
        return self._observer.execute(query.encode(), arguments).fetchone()


def _wanted(demand: str, found: tuple[int, bytes] | None) -> int | None:
    """The version that a deed demands of a key that is ``found``."""
    if demand == "nothing":
        return None
    if demand == "absent":
        return 0
    return 5 if demand == "another" else found[0] if found else 0
