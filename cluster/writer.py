"""Puts and deletes -> the database, each write an atomic transaction of its own, many in one round trip.

Whoever writes hears one of three things: it is committed (`Written`), it certainly is not and never will be
(any error but one), or nobody knows (`WriteUncertain`: it was sent, and the connection was lost or time ran
out before the server said how it ended). No write is ever sent twice.

A fixed number of workers bounds the connections, a bounded queue the waiting. What waits together goes
together: one segment of `cluster.pipeline` for each write, so that an error in one touches no other, and
each is answered as soon as its own commit is.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, cast

import psycopg
from psycopg.pq.abc import PGresult

from cluster.breaker import Breaker
from cluster.config import WriteConfig
from cluster.pipeline import Statement
from cluster.postgres import Connection, Connections, translate
from cluster.write_statement import backend_has_ended, outcome, statement, uncertain
from cluster.writes import Deed, Written
from snapring.errors import (
    DeadlineExceeded,
    NodeStopping,
    Overloaded,
    QueryFailed,
    SnapringError,
    Unavailable,
    VersionMismatch,
    WriteUncertain,
)

_BATCH: Final = 32
"""Most writes in one round trip: one that waits for a lock holds up those behind it."""
_STOPPING: Final = "the node is stopping: ask another"

_log: Final = logging.getLogger("snapring.writer")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Write:
    statement: Statement
    future: asyncio.Future[Written]

    def end(self, found: Written | SnapringError) -> None:
        if self.future.done():
            return  # nobody waits for it any longer
        if isinstance(found, Written):
            self.future.set_result(found)
        else:
            self.future.set_exception(found)


class Writer:
    """The workers between writes and Postgres, for one event loop."""

    def __init__(
        self, *, config: WriteConfig, connections: Connections, breaker: Breaker, clock: Callable[[], float]
    ) -> None:
        self._config = config
        self._connections = connections
        self._breaker = breaker
        self._clock = clock
        self._waiting: dict[_Write, None] = {}  # in order; what is not here any more has been sent
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = False
        breaker.when_opened(self._lost)
        self.written = self.mismatched = self.batches = self.failures = self.uncertain = self.refused = 0

    def __repr__(self) -> str:
        workers = f"{len(self._tasks)}/{self._config.connections}"
        return f"<Writer queued={self.queued} workers={workers} written={self.written}>"

    @property
    def queued(self) -> int:
        """How many writes wait for a connection."""
        return len(self._waiting)

    async def write(self, deeds: Sequence[Deed], deadline_s: float) -> Written:
        """Do all of ``deeds`` or none, by the monotonic time ``deadline_s``.

        Raises `WriteUncertain` if the outcome is not known by then; the write goes on, and goes on too if
        the caller is cancelled after it was sent. Not written, and never will be, after any other error:
        `VersionMismatch`, `Unavailable`, `QueryTimeout` (its keys were locked for too long), `Overloaded`,
        `DeadlineExceeded`, `NodeStopping`.
        """
        if self._stopping:
            raise NodeStopping(_STOPPING)
        self._breaker.guard()
        if self.queued >= self._config.queue:
            self.refused += 1
            raise Overloaded(f"{self.queued} writes are waiting", retry_after_s=self._config.timeout_s / 10)
        loop = asyncio.get_running_loop()
        write = _Write(statement=statement(deeds), future=loop.create_future())
        left_s = min(deadline_s - self._clock(), self._config.timeout_s)
        timer = loop.call_later(max(0.0, left_s), self._expire, write)
        self._waiting[write] = None
        if len(self._tasks) < self._config.connections:
            self._tasks.add(loop.create_task(self._work()))
        try:
            return await write.future
        finally:
            timer.cancel()
            self._waiting.pop(write, None)

    async def stop(self) -> None:
        """Refuse what comes and what waits with `NodeStopping`, give up what was sent, close connections."""
        self._stopping = True
        self.fail_waiting(NodeStopping(_STOPPING))
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*tuple(self._tasks), return_exceptions=True)
        await self._connections.close()

    def fail_waiting(self, error: SnapringError) -> None:
        """Fail every write that has not been sent."""
        self._fail(self._take(self.queued), error)

    def _lost(self) -> None:
        """Postgres is out of reach: waiting is in vain, and idle connections may be dead without a sign."""
        self.fail_waiting(self._breaker.refusal())
        self._connections.abandon()

    def _expire(self, write: _Write) -> None:
        if write in self._waiting:
            del self._waiting[write]
            self._fail(
                [write], DeadlineExceeded("the write waited for a connection until its deadline: retry")
            )
        else:
            self._fail([write], uncertain("its deadline passed"))

    async def _work(self) -> None:
        try:
            while self._waiting:
                await self._turn()
        finally:
            # In the same step as the empty queue was seen: a write from now on starts a new worker.
            self._tasks.discard(cast("asyncio.Task[None]", asyncio.current_task()))

    async def _turn(self) -> None:
        """Send what waits, or this worker's share of it."""
        try:
            connection = await self._connection()
        except SnapringError as error:
            self._fail(self._batch(), error)
            return
        try:
            if batch := self._batch():
                await self._send(connection, batch)
        finally:
            await asyncio.shield(self._connections.give_back(connection))

    async def _connection(self) -> Connection:
        self._breaker.guard()
        try:
            return await self._connections.take()
        except Unavailable as error:
            self._breaker.failed(str(error))
            raise

    def _batch(self) -> list[_Write]:
        share = -(-self.queued // self._config.connections)
        return self._take(min(share, _BATCH))

    def _take(self, count: int) -> list[_Write]:
        taken = [write for _, write in zip(range(count), self._waiting, strict=False)]
        for write in taken:
            del self._waiting[write]
        return taken

    async def _send(self, connection: Connection, batch: Sequence[_Write]) -> None:
        """One round trip. Each write has its answer when this returns or raises."""
        unanswered = deque(batch)
        self.batches += 1
        try:
            await self._exchange(connection, unanswered)
        except asyncio.CancelledError:
            self._fail(unanswered, uncertain("the node stopped"))
            raise
        except TimeoutError:
            self._breaker.silent("a write timed out", self._clock() - self._config.timeout_s)
            self._fail(unanswered, uncertain("Postgres did not answer"))
        except psycopg.Error as error:
            reason = str(translate(error))
            self._breaker.failed(reason)
            self._fail(unanswered, uncertain(reason))
        except Exception as defect:  # noqa: BLE001  # a defect in one write must not strand those behind it
            _log.exception("a write failed of a defect")
            self._fail(unanswered, uncertain(f"Snapring has a defect: {defect!r}"))
            await connection.close()

    async def _exchange(self, connection: Connection, unanswered: deque[_Write]) -> None:
        """Raises `TimeoutError` when the server has ended no write for ``timeout_s``."""
        loop = asyncio.get_running_loop()
        segments = [[write.statement] for write in unanswered]
        stale = False

        def take(results: list[PGresult], ended: bool) -> None:
            nonlocal stale
            if not patience.expired():
                patience.reschedule(loop.time() + self._config.timeout_s)
            found = outcome(results, ended=ended)
            stale |= isinstance(found, QueryFailed)
            self._end(unanswered.popleft(), found)
            if not ended and backend_has_ended(results):
                self._fail(
                    unanswered, Unavailable("Postgres ended the connection before it came to the write")
                )
                unanswered.clear()

        async with asyncio.timeout(self._config.timeout_s) as patience:
            await connection.exchange(segments, take)
        if stale:
            await connection.close()  # what it prepared may not fit the schema any longer

    def _end(self, write: _Write, found: Written | SnapringError) -> None:
        if isinstance(found, Written):
            self.written += 1
        elif isinstance(found, VersionMismatch):
            self.mismatched += 1
        else:
            self.failures += 1
            self.uncertain += isinstance(found, WriteUncertain)
        write.end(found)

    def _fail(self, writes: Sequence[_Write] | deque[_Write], error: SnapringError) -> None:
        for write in writes:
            if not write.future.done():
                self._end(write, error)
