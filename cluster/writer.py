"""Puts and deletes -> the database, each write an atomic transaction of its own, many in one round trip.

Whoever writes hears one of three things: it is committed (`Written`), it certainly is not and never will be
(any error but one), or nobody knows (`WriteUncertain`: it was sent, and the connection was lost or time ran
out before the server said how it ended). No write whose outcome is unknown is sent again.

A fixed number of workers bounds the connections, a bounded queue the waiting. What waits together goes
together: one segment of `cluster.pipeline` for each write, so that an error in one touches no other, and
each is answered as soon as its own commit is.

In company no write waits for another transaction that writes its keys. It comes back undone, and goes once
more, alone and ready to wait, while at least one worker does not: a locked key holds up nobody else. Within a
node, two workers never write the same key. A round trip has ``timeout`` from its sending, then its connection
is closed, and the server gives up what it has not begun: an unknown outcome is open for that long.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final, cast

import psycopg
from psycopg.pq.abc import PGresult

from cluster.breaker import Breaker
from cluster.config import WriteConfig
from cluster.postgres import Connection, Connections, translate
from cluster.write_statement import arguments, backend_has_ended, outcome, statement, uncertain
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

_BATCH: Final = 32
"""Most writes in one round trip: each holds up those behind it for the time of a commit."""
_PATIENCE: Final = 0.8
"""Which part of its time a write waits for a lock, so that its caller hears that it was in vain."""
_LEAST_WAIT_S: Final = 0.001
_STOPPING: Final = "the node is stopping: ask another"

_log: Final = logging.getLogger("snapring.writer")


def session(config: WriteConfig) -> Mapping[str, str]:
    """The settings of connections that write: the server looks, while it works, whether somebody still listens."""
    return {"client_connection_check_interval": f"{max(1.0, config.timeout_s * 1000 / 10):.0f}"}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Write:
    keys: frozenset[Key]
    arguments: Sequence[bytes]
    deadline_s: float
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
        # Both in order. What is in neither any more has been sent, or withdrawn.
        self._waiting: dict[_Write, None] = {}
        self._blocked: dict[_Write, None] = {}  # came back undone: others write their keys
        self._under_way: set[Key] = set()
        self._patient: set[_Write] = set()  # under way alone, ready to wait
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
        return len(self._waiting) + len(self._blocked)

    @property
    def blocked(self) -> int:
        """How many of them because other transactions write their keys."""
        return len(self._blocked)

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
        loop, now = asyncio.get_running_loop(), self._clock()
        write = _Write(
            keys=frozenset(deed.key for deed in deeds),
            arguments=arguments(deeds),
            deadline_s=min(deadline_s, now + self._config.timeout_s),
            future=loop.create_future(),
        )
        timer = loop.call_later(max(0.0, write.deadline_s - now), self._expire, write)
        self._waiting[write] = None
        self._call_worker()
        try:
            return await write.future
        finally:
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
        waiting = (*self._blocked, *self._waiting)
        self._blocked.clear()
        self._waiting.clear()
        self._fail(waiting, error)

    def _lost(self) -> None:
        """Postgres is out of reach: waiting is in vain, and idle connections may be dead without a sign."""
        self.fail_waiting(self._breaker.refusal())
        self._connections.abandon()

    def _expire(self, write: _Write) -> None:
        if self._withdraw(write):
            self._fail([write], DeadlineExceeded("the write waited to be sent until its deadline: retry"))
        else:
            self._fail([write], uncertain("its deadline passed"))

    def _withdraw(self, write: _Write) -> bool:
        """Whether ``write`` waited to be sent; it does no longer."""
        found = write in self._waiting or write in self._blocked
        self._waiting.pop(write, None)
        self._blocked.pop(write, None)
        return found

    def _call_worker(self) -> None:
        """There may be something for another worker to do."""
        if len(self._tasks) < self._config.connections and not self._stopping and self._choose():
            self._tasks.add(asyncio.get_running_loop().create_task(self._work()))

    async def _work(self) -> None:
        try:
            while self._choose():
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
            self._release(batch)
            return
        batch = self._take()
        try:
            if batch:
                self._call_worker()
                await self._send(connection, batch)
        finally:
            self._release(batch)
            await asyncio.shield(self._connections.give_back(connection))

    async def _connection(self) -> Connection:
        self._breaker.guard()
        try:
            return await self._connections.take()
        except Unavailable as error:
            self._breaker.failed(str(error))
            raise

    def _choose(self) -> Sequence[_Write]:
        """What may go next: one that was blocked, if it may wait, or one worker's share of the others."""
        if len(self._patient) < max(1, self._config.connections - 1) and (
            batch := _free(self._blocked, self._under_way, 1)
        ):
            return batch
        share = -(-len(self._waiting) // self._config.connections)
        held = self._under_way.union(*(write.keys for write in self._blocked))
        return _free(self._waiting, held, min(share, _BATCH))

    def _take(self) -> Sequence[_Write]:
        """The same, under way from here on."""
        batch = self._choose()
        self._patient.update(write for write in batch if write in self._blocked)
        for write in batch:
            self._withdraw(write)
            self._under_way |= write.keys
        return batch

    def _release(self, batch: Sequence[_Write]) -> None:
        """None of ``batch`` is under way any longer. What was blocked behind one that waited is tried again."""
        for write in self._patient.intersection(batch):
            behind = [other for other in self._blocked if not write.keys.isdisjoint(other.keys)]
            for other in behind:
                del self._blocked[other]
            self._waiting = {**dict.fromkeys(behind), **self._waiting}
        self._patient.difference_update(batch)
        self._under_way.difference_update(*(write.keys for write in batch))
        self._call_worker()

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
        segments = [[statement(write.arguments, self._wait_s(write))] for write in unanswered]
        stale = False

        def take(results: list[PGresult], ended: bool) -> None:
            nonlocal stale
            write, found = unanswered.popleft(), outcome(results, ended=ended)
            stale |= isinstance(found, QueryFailed)
            if found is not None:
                self._end(write, found)
            elif not write.future.done():
                self._blocked[write] = None
            if not ended and backend_has_ended(results):
                self._fail(
                    unanswered, Unavailable("Postgres ended the connection before it came to the write")
                )
                unanswered.clear()

        async with asyncio.timeout(self._config.timeout_s):
            await connection.exchange(segments, take)
        if stale:
            await connection.close()  # what it prepared may not fit the schema any longer

    def _wait_s(self, write: _Write) -> float:
        """How long ``write`` may wait for others that write its keys; its caller is to hear of the end."""
        if write not in self._patient:
            return 0.0
        return max(_LEAST_WAIT_S, _PATIENCE * (write.deadline_s - self._clock()))

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


def _free(waiting: Iterable[_Write], held: AbstractSet[Key], most: int) -> Sequence[_Write]:
    """The first ``most`` writes of keys that are not ``held``, nor of a write before them that has to wait."""
    held = set(held)
    free: list[_Write] = []
    for write in waiting:
        if len(free) == most:
            break
        if write.keys.isdisjoint(held):
            free.append(write)
        else:
            held |= write.keys
    return free
