"""Puts and deletes -> the database, each write an atomic transaction of its own, many in one round trip.

Whoever writes hears one of three things: it is committed (`Written`), it certainly is not and never will be
(any error but one), or nobody knows (`WriteUncertain`: it was sent, and the connection was lost or time ran
out before the server said how it ended). No write whose outcome is unknown is sent again.

A fixed number of workers bounds the connections, a bounded queue the waiting. What waits together goes
together: one segment of `cluster.pipeline` for each write, so that an error in one touches no other, and
each is answered as soon as its own commit is.

No write waits for another transaction that is writing its keys: it comes back undone and is tried again, so
that a locked key holds up nobody else (`cluster.turns`). A round trip has ``timeout`` from its sending, then its
connection is closed, and the server gives up what it has not begun: an unknown outcome is open for that long.
"""

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Final, cast

import psycopg
from psycopg.pq.abc import PGresult

from cluster.breaker import Breaker
from cluster.config import WriteConfig
from cluster.pipeline import Statement
from cluster.postgres import Connection, Connections, translate
from cluster.tracing.seam import current, round_trip
from cluster.turns import Turns
from cluster.write_statement import Busy, backend_has_ended, outcome, statement, uncertain
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
from snapring.keys import Key

if TYPE_CHECKING:
    from cluster.tracing.traced import Traced

_BATCH: Final = 32
"""Most writes in one round trip: each holds up those behind it for the time of a commit."""
_REST_S: Final = 0.002
_REST: Final = 0.25
"""How long a write rests that came back: this part of the time since it first did, `_REST_S` at least."""
_TRY_S: Final = 0.1
"""Less is not enough for a try: its caller shall hear that it was not done, not that nobody knows."""
_STOPPING: Final = "the node is stopping: ask another"

_log: Final = logging.getLogger("snapring.writer")


def session(config: WriteConfig) -> Mapping[str, str]:
    """The settings of connections that write: the server looks, while it works, whether somebody still listens."""
    return {"client_connection_check_interval": f"{max(1.0, config.timeout_s * 1000 / 10):.0f}"}


@dataclass(slots=True, kw_only=True, eq=False)
class _Write:
    keys: frozenset[Key]
    statement: Statement
    deadline_s: float
    future: asyncio.Future[Written]
    traced: "Traced | None"
    busy: Busy | None = None
    came_back_s: float = inf

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
        self,
        *,
        config: WriteConfig,
        connections: Connections,
        breaker: Breaker,
        clock: Callable[[], float],
        fills: Callable[[str, int], int] | None = None,
    ) -> None:
        self._fills = fills
        self._of_tenant: Counter[str] = Counter()  # waiting, or under way
        self._config = config
        self._connections = connections
        self._breaker = breaker
        self._clock = clock
        self._turns: Turns[_Write] = Turns()  # what is not in here any more has been sent, or withdrawn
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = False
        breaker.when_opened(self._lost)
        self.written = self.mismatched = self.batches = self.failures = self.uncertain = self.refused = 0

    def __repr__(self) -> str:
        workers = f"{len(self._tasks)}/{self._config.connections}"
        return f"<Writer queued={self.queued} workers={workers} written={self.written}>"

    @property
    def queued(self) -> int:
        """How many writes wait to be sent."""
        return len(self._turns)

    @property
    def blocked(self) -> int:
        """How many of them because others write their keys."""
        return self._turns.held_up

    async def write(self, deeds: Sequence[Deed], deadline_s: float) -> Written:
        """Do all of ``deeds`` or none, by the monotonic time ``deadline_s``.

        Raises `WriteUncertain` if the outcome is not known by then; the write goes on, and goes on too if
        the caller is cancelled after it was sent. Not written, and never will be, after any other error:
        `VersionMismatch`, `Unavailable`, `QueryTimeout`, `Overloaded`, `NodeStopping`, or `DeadlineExceeded`:
        it could not be sent, or another transaction kept writing one of its keys.
        """
        if self._stopping:
            raise NodeStopping(_STOPPING)
        self._breaker.guard()
        keys = frozenset(deed.key for deed in deeds)
        tenant = deeds[0].key.tenant
        self._admit(keys, tenant)
        loop, now = asyncio.get_running_loop(), self._clock()
        write = _Write(
            keys=keys,
            statement=statement(deeds),
            deadline_s=min(deadline_s, now + self._config.timeout_s),
            future=loop.create_future(),
            traced=current(),
        )
        timer = loop.call_later(max(0.0, write.deadline_s - now), self._expire, write)
        self._turns.add(write)
        self._of_tenant[tenant] += 1
        self._call_worker()
        try:
            return await write.future
        finally:
            self._of_tenant[tenant] -= 1
            if not self._of_tenant[tenant]:
                del self._of_tenant[tenant]
            timer.cancel()
            self._withdraw(write)

    async def stop(self) -> None:
        """Refuse what comes and what waits with `NodeStopping`, give up what was sent, close connections."""
        self._stopping = True
        self.fail_waiting(NodeStopping(_STOPPING))
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*tuple(self._tasks), return_exceptions=True)
        await self._connections.close()

    def fail_waiting(self, error: SnapringError) -> None:
        """Fail every write that waits to be sent."""
        self._fail(self._turns.clear(), error)

    def _lost(self) -> None:
        """Postgres is out of reach: waiting is in vain, and idle connections may be dead without a sign."""
        self.fail_waiting(self._breaker.refusal())
        self._connections.abandon()

    def _admit(self, keys: frozenset[Key], tenant: str) -> None:
        """Raise `Overloaded` if the queue is full, or the tenant's part, or half of it waits for one of ``keys``."""
        own, fills = self._of_tenant[tenant], self._fills
        if fills is not None and own >= fills(tenant, self._config.queue):
            self.refused += 1
            raise Overloaded(
                f"{own} writes of the tenant are waiting", retry_after_s=self._config.timeout_s / 10
            )
        behind = self._turns.waiting_for(keys)
        if self.queued >= self._config.queue or 2 * behind > self._config.queue:
            self.refused += 1
            waiting = f"{self.queued} writes are waiting, {behind} of them for one of the keys"
            raise Overloaded(waiting, retry_after_s=self._config.timeout_s / 10)

    def _expire(self, write: _Write) -> None:
        if not self._withdraw(write):
            self._fail([write], uncertain("its deadline passed"))
        elif write.busy is None:
            self._fail([write], DeadlineExceeded("the write waited to be sent until its deadline: retry"))
        else:
            why = f"another transaction kept writing {write.busy.key} until the write's deadline: retry"
            self._fail([write], DeadlineExceeded(why))

    def _withdraw(self, write: _Write) -> bool:
        """Whether ``write`` waited to be sent; it does no longer, and others may go in its place."""
        found = self._turns.withdraw(write)
        if found:
            self._call_worker()
        return found

    def _call_worker(self) -> None:
        """There may be something for another worker to do."""
        if len(self._tasks) < self._config.connections and not self._stopping and self._turns.any():
            self._tasks.add(asyncio.get_running_loop().create_task(self._work()))

    async def _work(self) -> None:
        try:
            while self._turns.any():
                await self._turn()
        finally:
            # In the same step as nothing was found to send: what may go from now on calls a new worker.
            self._tasks.discard(cast("asyncio.Task[None]", asyncio.current_task()))

    async def _turn(self) -> None:
        """Send what may go next, if anything still may."""
        try:
            connection = await self._connection()
        except SnapringError as error:
            batch = self._take()
            self._fail(batch, error)
            self._done(batch)
            return
        batch = self._take()
        try:
            if batch:
                self._call_worker()
                await self._send(connection, batch)
        finally:
            self._done(batch)
            await asyncio.shield(self._connections.give_back(connection))

    def _take(self) -> Sequence[_Write]:
        return self._turns.take(self._config.connections, _BATCH)

    def _done(self, batch: Sequence[_Write]) -> None:
        self._turns.done(batch)
        self._call_worker()

    def _try_again(self, write: _Write, busy: Busy) -> None:
        """``write`` was not done: it goes once more after a while, if its caller still waits by then."""
        if write.future.done():
            return
        now = self._clock()
        write.busy, write.came_back_s = busy, min(write.came_back_s, now)
        key = next(key for key in write.keys if str(key) == busy.key)
        rest_s = max(_REST_S, _REST * (now - write.came_back_s))
        if self._turns.came_back(write, key) and now + rest_s + _TRY_S < write.deadline_s:
            asyncio.get_running_loop().call_later(rest_s, self._again, write)

    def _again(self, write: _Write) -> None:
        self._turns.again(write)
        self._call_worker()

    async def _connection(self) -> Connection:
        self._breaker.guard()
        try:
            return await self._connections.take()
        except Unavailable as error:
            self._breaker.failed(str(error))
            raise

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
        """Raises `TimeoutError` when the server has not ended all within ``timeout_s``."""
        segments = [[write.statement] for write in unanswered]
        stale = False

        def take(results: list[PGresult], ended: bool) -> None:
            nonlocal stale
            write, found = unanswered.popleft(), outcome(results, ended=ended)
            stale |= isinstance(found, QueryFailed)
            if isinstance(found, Busy):
                self._try_again(write, found)
            else:
                self._end(write, found)
            if not ended and backend_has_ended(results):
                self._fail(
                    unanswered, Unavailable("Postgres ended the connection before it came to the write")
                )
                unanswered.clear()

        with round_trip("WRITE", "", [write.traced for write in unanswered]):
            async with asyncio.timeout(self._config.timeout_s):
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
