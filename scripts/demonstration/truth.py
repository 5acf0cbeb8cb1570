"""What pgbench's balances were at any snapshot, computed from its own journal. Pure.

Every TPC-B transaction adds one delta to one account, teller and branch and inserts it into
``pgbench_history``, together with its transaction id. A balance at snapshot Q is thus the sum of the deltas
of the transactions that Q sees: a record that neither the capture triggers nor the cache has a part in.
"""

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from math import inf
from typing import Literal

from cluster.snapshots import Snapshot

Kind = Literal["account", "teller", "branch"]
Row = tuple[Kind, int]
"""One row with a balance: which table, and its primary key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Posting:
    """One committed transaction of pgbench. ``committed_s`` is Unix time, None where it is not recorded."""

    xid: int
    account: int
    teller: int
    branch: int
    delta: int
    committed_s: float | None

    @property
    def rows(self) -> tuple[Row, ...]:
        """The three rows to whose balances ``delta`` was added."""
        return ("account", self.account), ("teller", self.teller), ("branch", self.branch)


class Ledger:
    """The deltas of one balance: xids ascending, each with the sum up to and including it."""

    __slots__ = ("_committed_s", "_sums", "_xids")

    def __init__(self) -> None:
        self._xids: list[int] = []
        self._sums: list[int] = []
        self._committed_s: list[float | None] = []

    def add(self, posting: Posting) -> None:
        """Enter a transaction. One that committed late may come before those already here."""
        at = bisect_left(self._xids, posting.xid)
        self._xids.insert(at, posting.xid)
        self._committed_s.insert(at, posting.committed_s)
        self._sums.insert(at, self._sums[at - 1] if at else 0)
        for later in range(at, len(self._sums)):
            self._sums[later] += posting.delta

    def balance(self, snapshot: Snapshot) -> int:
        """The sum of the deltas that ``snapshot`` sees."""
        settled = bisect_left(self._xids, snapshot.xmin)
        total = self._sums[settled - 1] if settled else 0
        for at in range(settled, bisect_left(self._xids, snapshot.xmax)):
            if self._xids[at] not in snapshot.xip:
                total += self._sums[at] - (self._sums[at - 1] if at else 0)
        return total

    def first_unseen_s(self, snapshot: Snapshot) -> float:
        """When the first transaction that ``snapshot`` does not see was committed; infinity if none was."""
        first_s = inf
        for at in range(bisect_left(self._xids, snapshot.xmin), len(self._xids)):
            committed_s = self._committed_s[at]
            if committed_s is not None and committed_s < first_s and not snapshot.sees(self._xids[at]):
                first_s = committed_s
        return first_s


class Truth:
    """Every balance at every snapshot up to ``complete_to``, the one at which the journal was last read."""

    def __init__(self, start: Snapshot) -> None:
        self.complete_to = start
        self._ledgers: dict[Row, Ledger] = {}
        self.transactions = 0

    def extend(self, postings: Iterable[Posting], complete_to: Snapshot) -> None:
        """Enter what became visible between the previous ``complete_to`` and this one."""
        for posting in postings:
            self.transactions += 1
            for row in posting.rows:
                self._ledgers.setdefault(row, Ledger()).add(posting)
        self.complete_to = complete_to

    def balance(self, row: Row, snapshot: Snapshot) -> int:
        """The row's balance at ``snapshot``, which is within ``complete_to``. All begin at 0."""
        ledger = self._ledgers.get(row)
        return ledger.balance(snapshot) if ledger else 0

    def first_unseen_s(self, rows: Iterable[Row], snapshot: Snapshot) -> float:
        """When the first change of any of ``rows`` that ``snapshot`` does not see was committed."""
        ledgers = (self._ledgers[row] for row in rows if row in self._ledgers)
        return min((ledger.first_unseen_s(snapshot) for ledger in ledgers), default=inf)
