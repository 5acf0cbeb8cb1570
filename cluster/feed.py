"""The feed: the stream of committed changes, polled from ``snapring.changes``, and the watermark it moves.

One statement returns the current snapshot, the incarnation, the trim position and every change that
this snapshot sees and the watermark does not; all of one snapshot, so no commit can fall between two
polls, whatever order transactions commit in. If Postgres is out of reach the watermark stands still. If
the feed cannot vouch for completeness (another incarnation, changes trimmed past the watermark, more
changes than the bound, DDL) everything is voided and the feed follows from the new snapshot.

The feed is also the one prober of the breaker: while it is open, nothing else touches Postgres.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from time import monotonic
from typing import Final

import psycopg

from cluster.breaker import Breaker
from cluster.config import BreakerConfig, FeedConfig
from cluster.entries import ENTIRE_DATABASE, Batch, Change, Timeline
from cluster.postgres import Connection, Sessions, translate
from cluster.snapshots import Snapshot
from cluster.tags import bulk_tag, table_tag
from snapring.errors import SnapringError, Unavailable

INCARNATION_MASK: Final = 2**64 - 1

_NOT_INSTALLED: Final = (
    psycopg.errors.InsufficientPrivilege,
    psycopg.errors.InvalidSchemaName,
    psycopg.errors.UndefinedFunction,
    psycopg.errors.UndefinedTable,
)
_POKES: Final = 2
"""How often one waiter hurries the feed: the poll under way may have begun too early, the next has not."""

_NOTHING: Final = Snapshot(1, 1)
_POLL: Final = """
SELECT pg_current_snapshot()::text, snapring.incarnation(), snapring.trimmed()::text,
       snapring.catalog_version(), news.xids, news.rels, news.tags
  FROM (SELECT array_agg(xid::text) AS xids, array_agg(rel::int8) AS rels, array_agg(tag) AS tags
          FROM (SELECT xid, rel, tag
                  FROM (SELECT c.xid, c.rel, c.tag FROM snapring.changes c WHERE c.xid >= $1::xid8
                         UNION ALL
                        SELECT c.xid, c.rel, c.tag FROM snapring.changes c WHERE c.xid = ANY ($2::xid8[])
                       ) AS recent
                 WHERE NOT pg_visible_in_snapshot(xid, $3::pg_snapshot)
                   AND pg_visible_in_snapshot(xid, pg_current_snapshot())
                 LIMIT $4) AS unseen
       ) AS news
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Poll:
    """What one poll returned. ``overflow``: there were more changes than the bound."""

    batch: Batch
    trimmed: int
    catalog_version: str
    overflow: bool


def complete(poll: Poll, watermark: Snapshot | None, incarnation: int | None, catalog_version: str) -> bool:
    """Whether ``poll`` holds every change since ``watermark``; if not, everything must be voided."""
    return (
        watermark is not None
        and poll.batch.incarnation == incarnation
        and poll.catalog_version == catalog_version
        and poll.trimmed <= watermark.xmin
        and not poll.overflow
    )


class Feed:
    """Polls, applies and probes. `run` is the one task; everything else asks or waits.

    ``on_poll`` is called after every attempt, successful or not, from within the loop. ``behind`` is by how many
    transactions the watermark was behind the last poll that got through.
    """

    def __init__(
        self,
        *,
        sessions: Sessions,
        config: FeedConfig,
        breaker_config: BreakerConfig,
        timeline: Timeline,
        breaker: Breaker,
        on_poll: Callable[[], None],
        clock: Callable[[], float] = monotonic,
        random: Random | None = None,
    ) -> None:
        self._sessions = sessions
        self._config = config
        self._reset_s = breaker_config.reset_s
        self._timeline = timeline
        self._breaker = breaker
        self._on_poll = on_poll
        self._clock = clock
        self._random = random or Random()
        self._connection: Connection | None = None
        self._poked = asyncio.Event()
        self._begun = asyncio.Event()
        self._waiters: set[asyncio.Future[None]] = set()
        self.catalog_version = ""
        self.polls = self.failures = self.changes = self.ended = self.voided = self.behind = 0
        self.last_error = ""

    def __repr__(self) -> str:
        return f"<Feed polls={self.polls} failures={self.failures} {self._timeline!r}>"

    async def run(self) -> None:
        """Follow the database until cancelled."""
        try:
            while True:
                started_s = self._clock()
                delay_s = await self._attempt()
                self._on_poll()
                self._begun.set()
                self._wake()
                await self._pause(delay_s - (self._clock() - started_s))
        finally:
            await self._disconnect()

    async def until(self, reached: Callable[[], bool], deadline_s: float) -> bool:
        """Wait until ``reached()`` after some poll, the first of them at once; False at the deadline.

        False also while polls fail and the breaker is open: none will succeed soon enough.
        """
        pokes = _POKES
        while not reached():
            if self.last_error and not self._breaker.closed:
                return False
            if pokes:
                self._poked.set()
                pokes -= 1
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.add(waiter)
            try:
                async with asyncio.timeout(max(0.0, deadline_s - self._clock())):
                    await waiter
            except TimeoutError:
                return reached()
            finally:
                self._waiters.discard(waiter)
        return True

    async def begun(self) -> None:
        """Wait until the first poll has got through or failed, which its timeouts see to."""
        await self._begun.wait()

    async def _attempt(self) -> float:
        """Poll once; return the seconds until the next one is due, counted from the start."""
        self._poked.clear()
        self._breaker.probing()
        try:
            await self._poll()
        except TimeoutError:
            return await self._failed("the poll timed out")
        except _NOT_INSTALLED as error:
            return await self._failed(f"{translate(error)}: run 'snapring init', then 'snapring check'")
        except psycopg.Error as error:
            return await self._failed(str(translate(error)))
        except SnapringError as error:
            return await self._failed(str(error))
        self.last_error = ""
        self._breaker.recovered()
        return self._config.poll_period_s

    async def _failed(self, reason: str) -> float:
        self.failures += 1
        self.last_error = reason
        self._breaker.failed(reason)
        await self._disconnect()
        if self._breaker.closed:
            return self._config.poll_period_s
        self._poked.clear()  # nobody hurries a database that is down
        return self._reset_s * self._random.uniform(1.0, 1.2)

    async def _poll(self) -> None:
        if self._connection is None:  # which has a timeout of its own
            self._connection = await self._sessions.open("snapring feed", {"enable_seqscan": "off"})
        async with asyncio.timeout(self._config.poll_timeout_s):
            poll = await self._ask(self._connection)
            if poll is None:
                await self._connection.execute("SELECT snapring.renew()")
                poll = await self._ask(self._connection)
            if poll is None:
                raise Unavailable("the database has no incarnation marker: run 'snapring init'")
            self._take(poll)

    async def _ask(self, connection: Connection) -> Poll | None:
        """One poll, None where the incarnation marker is missing."""
        since = self._timeline.watermark
        bound = self._config.max_changes_per_poll
        seen = since or _NOTHING
        sent_s = self._clock()
        cursor = await connection.execute(
            _POLL, (str(seen.xmax), list(map(str, seen.xip)), str(seen), bound + 1 if since else 0)
        )
        row = await cursor.fetchone()
        assert row is not None, "an aggregate without GROUP BY returns one row"
        snapshot, incarnation, trimmed, catalog_version, xids, rels, tags = row
        if incarnation is None:
            return None
        changes = zip(map(int, xids), rels, tags, strict=True) if xids else ()
        return Poll(
            batch=Batch(
                incarnation=incarnation & INCARNATION_MASK,
                snapshot=Snapshot.parse(snapshot),
                sent_s=sent_s,
                changes=tuple(dict.fromkeys(change for row in changes for change in _changes(*row))),
            ),
            trimmed=int(trimmed or 0),
            catalog_version=catalog_version,
            overflow=len(xids or ()) > bound,
        )

    def _take(self, poll: Poll) -> None:
        timeline, batch = self._timeline, poll.batch
        self.polls += 1
        self.behind = batch.snapshot.xmax - timeline.watermark.xmax if timeline.watermark else 0
        if complete(poll, timeline.watermark, timeline.incarnation, self.catalog_version):
            try:
                self.ended += timeline.apply(batch)
            except BaseException:
                timeline.suspend()  # I2: what was half applied must not be vouched for
                raise
            self.changes += len(batch.changes)
        else:
            self.voided += 1
            self.catalog_version = poll.catalog_version
            timeline.restart(batch.incarnation, batch.snapshot, batch.sent_s)

    async def _pause(self, delay_s: float) -> None:
        try:
            async with asyncio.timeout(max(0.0, delay_s)):
                await self._poked.wait()
        except TimeoutError:
            pass

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, set()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()


def _changes(xid: int, rel: int, tag: int | None) -> tuple[Change, ...]:
    """One change row as the tags it stands for."""
    if rel == 0:
        return (Change(xid, ENTIRE_DATABASE),)
    return (Change(xid, table_tag(rel)), Change(xid, bulk_tag(rel) if tag is None else tag))
