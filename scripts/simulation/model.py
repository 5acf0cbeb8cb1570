"""A model of PostgreSQL: transactions, what each snapshot sees, crashes, and the log of changes. Pure.

A database is a value: every event makes another, so any number of histories can go on from one. The model
knows the truth by the order in which transactions committed; it computes no visibility with the code
under test. Its values are named tuples, not dataclasses, because exploring hashes them all the time.
"""

from math import inf
from typing import Final, NamedTuple

from cluster.snapshots import Snapshot

ROWS: Final = ("a", "b")
"""The rows of the one table."""
ALL: Final = "all"
"""What reads the whole table."""
KEYS: Final = (*ROWS, ALL)
BULK: Final = "bulk"
ANYTHING: Final = "anything"
TARGETS: Final = (*ROWS, BULK, ANYTHING)
"""What one statement may write: a row; all rows, logged as the table's bulk change or as a change of anything."""

REL: Final = 5
TAGS: Final = {"a": 101, "b": 102}
_FIRST_XID: Final = 10
_XIDS_PER_INCARNATION: Final = 10_000

Contents = tuple[int, ...]
"""The version of each row, then that of the catalog, which every value depends on."""


def value_of(key: str, contents: Contents) -> str:
    """What the query of ``key`` returns."""
    seen = contents if key == ALL else (contents[ROWS.index(key)], contents[-1])
    return ".".join(map(str, seen))


class Row(NamedTuple):
    """One row of ``snapring.changes``."""

    xid: int
    rel: int
    tag: int | None


class Transaction(NamedTuple):
    """A transaction that has written and not ended, known to schedules as ``name``."""

    name: int
    xid: int
    targets: tuple[str, ...]
    prepared: bool


class Commit(NamedTuple):
    """A commit, and the contents from then on."""

    xid: int
    at_s: float
    contents: Contents


class Token(NamedTuple):
    """A snapshot that somebody took, as clients hold it."""

    snapshot: Snapshot
    incarnation: int


class Truth(NamedTuple):
    """What a snapshot saw: the state after ``commits`` commits of its incarnation."""

    incarnation: int
    commits: int
    contents: Contents


class Past(NamedTuple):
    """An incarnation that ended."""

    commits: tuple[Commit, ...]
    ended_s: float


class Database(NamedTuple):
    """The primary. ``completed`` is the highest xid that has ended.

    ``tokens`` are all snapshots ever taken, the oldest first, and ``truths`` what each of them saw.
    """

    incarnation: int = 1
    completed: int = _FIRST_XID - 1
    next_xid: int = _FIRST_XID
    running: tuple[Transaction, ...] = ()
    commits: tuple[Commit, ...] = (Commit(0, -inf, (0, 0, 0)),)
    log: tuple[Row, ...] = ()
    trimmed: int = 0
    tokens: tuple[Token, ...] = ()
    truths: tuple[Truth, ...] = ()
    past: tuple[Past, ...] = ()

    @property
    def catalog_version(self) -> str:
        """What ``snapring.catalog_version()`` returns."""
        return str(self.commits[-1].contents[-1])

    @property
    def commits_of_this_incarnation(self) -> int:
        """How many commits a crash may lose."""
        return sum(commit.at_s > -inf for commit in self.commits)

    def transaction(self, name: int) -> Transaction | None:
        """The running transaction of that name."""
        for transaction in self.running:
            if transaction.name == name:
                return transaction
        return None

    def write(self, name: int, target: str) -> "Database":
        """A statement of transaction ``name``; its first begins it."""
        known = self.transaction(name)
        if known is None:
            begun = Transaction(name, self.next_xid, (target,), prepared=False)
            return self._replace(running=(*self.running, begun), next_xid=self.next_xid + 1)
        wrote = known._replace(targets=(*known.targets, target))
        return self._replace(running=tuple(wrote if one is known else one for one in self.running))

    def prepare(self, transaction: Transaction) -> "Database":
        """PREPARE TRANSACTION: it survives a crash."""
        prepared = transaction._replace(prepared=True)
        return self._replace(running=tuple(prepared if one is transaction else one for one in self.running))

    def commit(self, transaction: Transaction, now_s: float) -> "Database":
        """What it wrote is there, and logged, from now on."""
        return self._ended(transaction)._replace(
            commits=(*self.commits, self._committed(transaction, now_s)),
            log=(*self.log, *_rows(transaction)),
        )

    def roll_back(self, transaction: Transaction) -> "Database":
        """It never was."""
        return self._ended(transaction)

    def alter(self, now_s: float) -> "Database":
        """DDL, in a transaction of its own: every query means something else, and no row of the log says so."""
        xid = self.next_xid
        version = self.incarnation * _XIDS_PER_INCARNATION + xid
        contents = (*self.commits[-1].contents[:-1], version)
        return self._replace(
            next_xid=xid + 1, completed=xid, commits=(*self.commits, Commit(xid, now_s, contents))
        )

    def crash(self, lost: int, now_s: float) -> "Database":
        """The last ``lost`` commits were not yet on disk: they never were, and their xids are used again."""
        commits = self.commits[: len(self.commits) - lost]
        gone = {commit.xid for commit in self.commits[len(commits) :]}
        running = tuple(one for one in self.running if one.prepared)
        next_xid = 1 + max([_FIRST_XID - 1, *(c.xid for c in commits), *(one.xid for one in running)])
        return self._replace(
            incarnation=self.incarnation + 1,
            completed=next_xid - 1,
            next_xid=next_xid,
            running=running,
            commits=tuple(commit._replace(at_s=-inf) for commit in commits),
            log=tuple(row for row in self.log if row.xid not in gone),
            past=(*self.past, Past(self.commits, now_s)),
        )

    def trim(self) -> "Database":
        """Forget the changes that every snapshot from now on sees."""
        horizon = self.snapshot().xmin
        return self._replace(trimmed=horizon, log=tuple(row for row in self.log if row.xid >= horizon))

    def snapshot(self) -> Snapshot:
        """``pg_current_snapshot()``."""
        xmax = self.completed + 1
        running = tuple(sorted(one.xid for one in self.running if one.xid < xmax))
        return Snapshot(running[0] if running else xmax, xmax, running)

    def take(self) -> "tuple[Database, Token]":
        """Take a snapshot, and remember what it sees."""
        token = Token(self.snapshot(), self.incarnation)
        if token in self.tokens:
            return self, token
        truth = Truth(self.incarnation, len(self.commits), self.commits[-1].contents)
        return self._replace(tokens=(*self.tokens, token), truths=(*self.truths, truth)), token

    def unseen_by(self, since: Snapshot) -> tuple[Row, ...]:
        """The logged changes that are visible now and were not in ``since``."""
        return tuple(row for row in self.log if not visible(row.xid, since))

    def truth(self, snapshot: Snapshot, incarnation: int) -> Truth | None:
        """What ``snapshot`` saw; None if nobody took it."""
        token = Token(snapshot, incarnation)
        return self.truths[self.tokens.index(token)] if token in self.tokens else None

    def current_until_s(self, truth: Truth) -> float:
        """When something was committed that ``truth`` lacks; infinite if nothing was."""
        if truth.incarnation == self.incarnation:
            commits, ended_s = self.commits, inf
        else:
            commits, ended_s = self.past[truth.incarnation - 1]
        return commits[truth.commits].at_s if truth.commits < len(commits) else ended_s

    def _ended(self, transaction: Transaction) -> "Database":
        return self._replace(
            running=tuple(one for one in self.running if one is not transaction),
            completed=max(self.completed, transaction.xid),
        )

    def _committed(self, transaction: Transaction, now_s: float) -> Commit:
        contents = list(self.commits[-1].contents)
        version = self.incarnation * _XIDS_PER_INCARNATION + transaction.xid
        for target in transaction.targets:
            for row in (target,) if target in ROWS else ROWS:
                contents[ROWS.index(row)] = version
        return Commit(transaction.xid, now_s, tuple(contents))


def visible(xid: int, snapshot: Snapshot) -> bool:
    """``pg_visible_in_snapshot``, from its documentation."""
    return xid < snapshot.xmax and xid not in snapshot.xip


def _rows(transaction: Transaction) -> list[Row]:
    return [_row(transaction.xid, target) for target in dict.fromkeys(transaction.targets)]


def _row(xid: int, target: str) -> Row:
    if target == ANYTHING:
        return Row(xid, 0, None)
    return Row(xid, REL, None if target == BULK else TAGS[target])
