"""What the demonstration reads: its caches over pgbench's tables, and what each must answer. Pure."""

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from cluster.snapshots import Snapshot
from scripts.demonstration.truth import Row, Truth

ACCOUNTS_PER_BRANCH: Final = 100_000
TELLERS_PER_BRANCH: Final = 10
TOP: Final = 5
TRACKED: Final = {
    "pgbench_accounts": ("aid",),
    "pgbench_tellers": ("tid", "bid"),
    "pgbench_branches": ("bid",),
}
"""The tables put under capture, with the columns that get tags of their own."""

_ZIPF_EXPONENT: Final = 0.99
_SCATTER: Final = 7_368_787  # a prime: neighbours in popularity are not neighbours on disk


@dataclass(frozen=True, slots=True, kw_only=True)
class Cache:
    """One cache of the demonstration.

    ``population`` is how many arguments there are at a scale, 0 for a query without; ``rows`` are the
    balances that an answer is made of, ``expected`` what it must be at a snapshot. ``share`` is the
    part of the reads that goes to it, in percent.
    """

    name: str
    sql: str
    single: bool
    share: int
    population: Callable[[int], int]
    rows: Callable[[int, int], Iterable[Row]]
    expected: Callable[[Truth, int, int, Snapshot], object]


@dataclass(frozen=True, slots=True)
class Read:
    """One read: a cache and its argument (0 where the query takes none)."""

    cache: Cache
    argument: int

    @property
    def key(self) -> bytes:
        """The key's text."""
        return f"{self.cache.name}:{self.argument}".encode() if self.argument else self.cache.name.encode()


def branch_of_account(account: int) -> int:
    """The branch in which ``pgbench -i`` put an account."""
    return (account - 1) // ACCOUNTS_PER_BRANCH + 1


def branch_of_teller(teller: int) -> int:
    """The branch in which ``pgbench -i`` put a teller."""
    return (teller - 1) // TELLERS_PER_BRANCH + 1


def tellers_of(branch: int) -> range:
    """The tellers of a branch."""
    return range((branch - 1) * TELLERS_PER_BRANCH + 1, branch * TELLERS_PER_BRANCH + 1)


def _account(truth: Truth, aid: int, _scale: int, at: Snapshot) -> object:
    return {"aid": aid, "bid": branch_of_account(aid), "abalance": truth.balance(("account", aid), at)}


def _teller(truth: Truth, tid: int, _scale: int, at: Snapshot) -> object:
    return {"tid": tid, "bid": branch_of_teller(tid), "tbalance": truth.balance(("teller", tid), at)}


def _branch_total(truth: Truth, bid: int, _scale: int, at: Snapshot) -> object:
    total = sum(truth.balance(("teller", tid), at) for tid in tellers_of(bid))
    return {"total": total, "tellers": TELLERS_PER_BRANCH}


def _account_with_branch(truth: Truth, aid: int, _scale: int, at: Snapshot) -> object:
    bid = branch_of_account(aid)
    account, branch = truth.balance(("account", aid), at), truth.balance(("branch", bid), at)
    return {"aid": aid, "abalance": account, "bid": bid, "bbalance": branch}


def _top_tellers(truth: Truth, _argument: int, scale: int, at: Snapshot) -> object:
    balances = ((truth.balance(row, at), row[1]) for row in _all_tellers(0, scale))
    top = sorted(balances, key=lambda found: (-found[0], found[1]))[:TOP]
    return [{"tid": tid, "tbalance": balance} for balance, tid in top]


def _all_tellers(_argument: int, scale: int) -> Iterator[Row]:
    return (("teller", tid) for tid in range(1, scale * TELLERS_PER_BRANCH + 1))


CACHES: Final = (
    Cache(
        name="account_by_id",
        sql="SELECT aid, bid, abalance FROM pgbench_accounts WHERE aid = $1",
        single=True,
        share=84,
        population=lambda scale: scale * ACCOUNTS_PER_BRANCH,
        rows=lambda aid, _scale: [("account", aid)],
        expected=_account,
    ),
    Cache(
        name="teller_by_id",
        sql="SELECT tid, bid, tbalance FROM pgbench_tellers WHERE tid = $1",
        single=True,
        share=6,
        population=lambda scale: scale * TELLERS_PER_BRANCH,
        rows=lambda tid, _scale: [("teller", tid)],
        expected=_teller,
    ),
    Cache(
        name="branch_total",
        sql="SELECT sum(tbalance) AS total, count(*) AS tellers FROM pgbench_tellers WHERE bid = $1",
        single=True,
        share=4,
        population=lambda scale: scale,
        rows=lambda bid, _scale: [("teller", tid) for tid in tellers_of(bid)],
        expected=_branch_total,
    ),
    Cache(
        name="account_with_branch",
        sql="SELECT a.aid, a.abalance, b.bid, b.bbalance FROM pgbench_accounts a "
        "JOIN pgbench_branches b ON b.bid = a.bid WHERE a.aid = $1",
        single=True,
        share=3,
        population=lambda scale: scale * ACCOUNTS_PER_BRANCH,
        rows=lambda aid, _scale: [("account", aid), ("branch", branch_of_account(aid))],
        expected=_account_with_branch,
    ),
    Cache(
        name="top_tellers",
        sql=f"SELECT tid, tbalance FROM pgbench_tellers ORDER BY tbalance DESC, tid LIMIT {TOP}",
        single=False,
        share=3,
        population=lambda _scale: 0,
        rows=_all_tellers,
        expected=_top_tellers,
    ),
)


class Reads:
    """An endless supply of reads: caches by their share, arguments by Zipf's law (exponent 0.99)."""

    def __init__(self, scale: int, *, seed: int) -> None:
        self._random = random.Random(seed)
        self._shares = list(accumulate(cache.share for cache in CACHES))
        self._populations = {cache.name: cache.population(scale) for cache in CACHES}
        self._weights = {size: _zipf(size) for size in self._populations.values() if size}

    def take(self, count: int) -> list[Read]:
        """The next ``count`` reads."""
        caches = self._random.choices(CACHES, cum_weights=self._shares, k=count)
        return [Read(cache, self._argument(self._populations[cache.name])) for cache in caches]

    def _argument(self, size: int) -> int:
        if not size:
            return 0
        rank = self._random.choices(range(size), cum_weights=self._weights[size])[0]
        return rank * _SCATTER % size + 1


def _zipf(size: int) -> Sequence[float]:
    return list(accumulate(1 / rank**_ZIPF_EXPONENT for rank in range(1, size + 1)))
