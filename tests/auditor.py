"""An auditor: every answer of a running node is held against what Postgres said at the same snapshot.

The auditor reads the truth on connections of its own and asks the node for the same keys at the same
snapshot; clients read along with every consistency. What anyone says about a key at a snapshot, auditor or
node, goes into one ledger, in which a key has one value at a snapshot.
"""

import asyncio
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from time import monotonic
from typing import Final

import msgpack
import psycopg
from psycopg import AsyncConnection, AsyncRawCursor
from psycopg.rows import TupleRow

from cluster import feed
from cluster.config import CacheConfig
from cluster.node import Node
from cluster.requests import (
    BOUNDED,
    STRONG,
    AtLeast,
    Bounded,
    Consistency,
    Exactly,
    Reply,
    State,
    Strong,
    sees,
)
from cluster.snapshots import Snapshot
from cluster.tokens import Ticket
from snapring.errors import SnapringError, SnapshotUnavailable
from snapring.keys import parse

UPHEAVAL_LOCK: Final = 7_337
"""Advisory lock. Writers hold it through TRUNCATE, REFRESH and DDL, which show through older snapshots:
the auditor shares it while it reads, so that what it reads is the truth at its snapshot."""

DEADLINE_S: Final = 10.0
LEDGER_SIZE: Final = 400_000
WITNESSES: Final = 8

Value = object
Place = tuple[str, int, int, tuple[int, ...]]


class Violation(AssertionError):
    """The node said what was not so."""


@dataclass(slots=True)
class Tally:
    """What an audit did. ``confirmed``: answers of the node that met a truth at an equal snapshot."""

    truths: int = 0
    replies: int = 0
    exact_answered: int = 0
    exact_refused: int = 0
    confirmed: int = 0
    stale: int = 0
    errors: Counter[str] = field(default_factory=Counter)

    @property
    def exact_share(self) -> float:
        """Of the exact questions, the share answered instead of refused with SNAPSHOT_UNAVAILABLE."""
        return self.exact_answered / max(1, self.exact_answered + self.exact_refused)

    def __str__(self) -> str:
        errors = ", ".join(f"{code} {count}" for code, count in sorted(self.errors.items())) or "none"
        return (
            f"{self.replies:,} replies, {self.confirmed:,} confirmed by {self.truths:,} truths,"
            f" {self.exact_share:.0%} of {self.exact_answered + self.exact_refused:,} exact answered, {self.stale} stale, errors: {errors}"
        )


class Acknowledged:
    """The transactions whose commit a writer was told of, and when."""

    def __init__(self) -> None:
        self._times_s: list[float] = []
        self._xids: list[int] = []

    def add(self, xid: int) -> None:
        """The commit of ``xid`` was acknowledged just now."""
        self._times_s.append(monotonic())
        self._xids.append(xid)

    def before(self, time_s: float) -> list[int]:
        """The last few transactions acknowledged before ``time_s``."""
        end = bisect_left(self._times_s, time_s)
        return self._xids[max(0, end - WITNESSES) : end]


class Ledger:
    """What was said about each key at each snapshot, first come, first entered."""

    def __init__(self) -> None:
        self._entered: dict[Place, tuple[Value, str]] = {}

    def enter(self, key: str, snapshot: Snapshot, incarnation: int, value: Value, who: str) -> str | None:
        """Enter a claim; who claimed the same before, if anyone. Raises `Violation` at a contradiction."""
        place = (key, incarnation, *_settled(snapshot))
        before = self._entered.get(place)
        if before is None:
            if len(self._entered) >= LEDGER_SIZE:
                del self._entered[next(iter(self._entered))]
            self._entered[place] = (value, who)
            return None
        if before[0] != value:
            raise Violation(f"{key} at {snapshot}: {before[1]} said {before[0]!r}, {who} says {value!r}")
        if who == TRUTH:
            self._entered[place] = (value, who)
        return before[1]


TRUTH: Final = "Postgres"


def _settled(snapshot: Snapshot) -> tuple[int, tuple[int, ...]]:
    """The same for all snapshots that compare EQUAL: without running transactions at the upper end."""
    xmax, xip = snapshot.xmax, list(snapshot.xip)
    while xip and xip[-1] == xmax - 1:
        xmax = xip.pop()
    return xmax, tuple(xip)


class Auditor:
    """Asks ``node`` and Postgres, until ``going`` says no, and raises the first `Violation`."""

    def __init__(
        self,
        node: Node,
        keys: Sequence[str],
        acknowledged: Acknowledged,
        *,
        rng: Random,
        going: Callable[[], bool],
        pace_s: float = 0.003,
    ) -> None:
        self._node = node
        self._keys = keys
        self._acknowledged = acknowledged
        self._rng = rng
        self._going = going
        self._pace_s = pace_s
        self._ledger = Ledger()
        self.tally = Tally()

    async def audit(self, connection: AsyncConnection[TupleRow], *, keys: int = 10) -> None:
        """Learn the truth about some keys; ask the node for it at once, and again a little later."""
        while self._going():
            chosen = self._rng.sample(self._keys, min(keys, len(self._keys)))
            position = await self.learn(connection, chosen)
            later = self._rng.choice((0.0, 0.0, 0.02, 0.1))
            for wait_s in (0.0, later):
                await asyncio.sleep(wait_s)
                await asyncio.gather(*(self._ask_again(key, position) for key in chosen))

    async def check(self, connection: AsyncConnection[TupleRow], key: str) -> None:
        """Learn the truth about one key, and ask the node for it."""
        await self.ask(key, await self.learn(connection, [key]))

    async def attend(self) -> None:
        """One client with a session of its own: it never goes back in time."""
        session: Exactly | None = None
        while self._going():
            await asyncio.sleep(self._rng.random() * self._pace_s)
            key = self._rng.choice(self._keys)
            reply = await self.ask(key, self._wish(session))
            if reply is None:
                session = None  # after an error the client begins anew, a little later
                await asyncio.sleep(0.01)
                continue
            session = Exactly(reply.as_of, reply.incarnation)
            if self._rng.random() < 0.3:
                await self.ask(key, session)

    async def ask(self, key: str, consistency: Consistency) -> Reply | None:
        """One read, its answer held against all that is known; None where the node refuses."""
        started_s = monotonic()
        try:
            reply = await self._node.read(parse(key.encode())[0], consistency, started_s + DEADLINE_S)
        except SnapringError as error:
            if isinstance(error, SnapshotUnavailable):
                self.tally.exact_refused += 1
            else:
                self.tally.errors[error.code] += 1
            return None
        self.tally.replies += 1
        self.tally.exact_answered += isinstance(consistency, Exactly)
        self.tally.stale += reply.state is State.STALE
        try:
            self._judge(key, consistency, reply, started_s)
        except Violation as violation:
            raise Violation(f"{violation}\nasked {consistency}, {self._state(key)}") from None
        return reply

    async def _ask_again(self, key: str, position: Exactly) -> None:
        await self.ask(key, position)
        if self._rng.random() < 0.3:
            await self.ask(key, AtLeast(position.snapshot, position.incarnation))

    def _wish(self, session: Exactly | None) -> Consistency:
        if session is not None and self._rng.random() < 0.5:
            return AtLeast(session.snapshot, session.incarnation)
        known = self._acknowledged.before(monotonic())
        if known and self._rng.random() < 0.2 and self._node.timeline.incarnation is not None:
            return AtLeast(Ticket(self._rng.choice(known)), self._node.timeline.incarnation)
        return STRONG if self._rng.random() < 0.3 else BOUNDED

    async def learn(self, connection: AsyncConnection[TupleRow], keys: Sequence[str]) -> Exactly:
        """Enter the truth about ``keys``; at which snapshot that is."""
        position, answers = await truth(connection, self._node.config.caches, keys)
        self.tally.truths += len(answers)
        for key, value in answers.items():
            try:
                claimed = self._ledger.enter(key, position.snapshot, position.incarnation, value, TRUTH)
            except Violation as violation:
                raise Violation(f"{violation}\n{self._state(key)}") from None
            self.tally.confirmed += claimed is not None and claimed != TRUTH
        return position

    def _judge(self, key: str, asked: Consistency, reply: Reply, started_s: float) -> None:
        value = None if reply.value is None else msgpack.unpackb(reply.value)
        who = f"a {reply.state.value} reply ({reply.source.value}) to {type(asked).__name__}"
        met = self._ledger.enter(key, reply.as_of, reply.incarnation, value, who)
        self.tally.confirmed += met == TRUTH
        match asked:
            case Exactly(snapshot=snapshot):
                _require(reply.as_of == snapshot, f"{key}: asked at {snapshot}, answered at {reply.as_of}")
            case AtLeast(position=position):
                _require(sees(reply.as_of, position), f"{key}: {reply.as_of} does not see {position}")
            case Strong():
                self._require_seen(key, reply, started_s)
            case Bounded():
                limit_s = self._node.config.caches[key.partition(":")[0]].max_staleness_s
                fresh = reply.state is State.STALE or reply.age_s <= limit_s
                _require(fresh, f"{key}: a FRESH reply {reply.age_s} s old")
        self._require_seen(key, reply, started_s - reply.age_s)

    def _require_seen(self, key: str, reply: Reply, since_s: float) -> None:
        for xid in self._acknowledged.before(since_s):
            _require(
                reply.as_of.sees(xid),
                f"{key}: {reply.as_of}, {reply.age_s} s old, does not see {xid}, acknowledged before",
            )

    def _state(self, key: str) -> str:
        node = self._node
        return f"{node!r} {node.feed!r}\n{node.store.index.get(key.encode())!r} admissions={node.admissions}"


def _require(fulfilled: bool, otherwise: str) -> None:
    if not fulfilled:
        raise Violation(otherwise)


async def truth(
    connection: AsyncConnection[TupleRow], caches: Mapping[str, CacheConfig], keys: Sequence[str]
) -> tuple[Exactly, dict[str, Value]]:
    """What Postgres answers for ``keys`` at one snapshot, and which one that is."""
    await connection.execute(f"SELECT pg_advisory_lock_shared({UPHEAVAL_LOCK})".encode())
    async with connection.pipeline():
        await connection.execute(b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        head = await connection.execute(b"SELECT pg_current_snapshot()::text, snapring.incarnation()")
        cursors = [await _run(connection, caches, key) for key in keys]
        await connection.execute(b"COMMIT")
        ((snapshot, incarnation),) = await head.fetchall()
        answers = {key: await _value(caches, key, cursor) for key, cursor in zip(keys, cursors, strict=True)}
    await connection.execute(f"SELECT pg_advisory_unlock_shared({UPHEAVAL_LOCK})".encode())
    return Exactly(Snapshot.parse(snapshot), incarnation & feed.INCARNATION_MASK), answers


async def _run(
    connection: AsyncConnection[TupleRow], caches: Mapping[str, CacheConfig], key: str
) -> AsyncRawCursor[TupleRow]:
    cache, *arguments = key.split(":")
    cursor = AsyncRawCursor(connection)
    await cursor.execute(caches[cache].sql.encode(), arguments, prepare=False)
    return cursor


async def _value(caches: Mapping[str, CacheConfig], key: str, cursor: AsyncRawCursor[TupleRow]) -> Value:
    rows = await cursor.fetchall()
    columns = [column.name for column in cursor.description or ()]
    maps = [dict(zip(columns, row, strict=True)) for row in rows]
    if not caches[key.partition(":")[0]].single:
        return maps
    return maps[0] if maps else None


async def connect(url: str) -> AsyncConnection[TupleRow]:
    """A connection of the auditor."""
    return await psycopg.AsyncConnection.connect(url, autocommit=True, prepare_threshold=None)
