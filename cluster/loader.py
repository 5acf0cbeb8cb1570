"""Misses -> batched loads, each batch at one snapshot in one round trip.

A batch is one read-only transaction, sent in one piece (`cluster.pipeline`): locks that keep TRUNCATE
and DDL out, key tags, snapshot and incarnation, the queries, COMMIT. After it, in the same piece, the
catalog's version: if it is still the plan's, nothing that the queries meant changed on the way. The
loader holds no xid, so it delays nothing on the server. Misses of one cache that wait together go together; a fixed number of
workers bounds the connections, a bounded queue the waiting. Whose turn it is: `cluster.lanes`.

A query that fails ends its transaction for all of the batch: then each load is sent alone, so that one
bad argument fails only whoever sent it. A failure of the database itself fails the batch at once, and once it has opened
the breaker, all that wait.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast

import psycopg

from cluster.breaker import Breaker
from cluster.config import LoadConfig
from cluster.distribution import SECONDS, SIZES, Distribution
from cluster.encoding import Rows
from cluster.feed import INCARNATION_MASK
from cluster.lanes import Lanes
from cluster.pipeline import Statement, array
from cluster.plans import Plan, Plans
from cluster.postgres import Connection, Connections, translate
from cluster.snapshots import Snapshot
from cluster.tracing.seam import current, round_trip
from snapring.errors import (
    CatalogChanging,
    DeadlineExceeded,
    NodeStopping,
    Overloaded,
    SnapringError,
    TooManyRows,
    Unavailable,
)

if TYPE_CHECKING:
    from cluster.tracing.traced import Traced

_BEGIN: Final = Statement(b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", ())
_HEAD: Final = Statement(b"SELECT pg_current_snapshot()::text, snapring.incarnation()", ())
_AFTERWARDS: Final = (Statement(b"COMMIT", ()), Statement(b"SELECT snapring.catalog_version()", ()))
_REVALIDATION: Final = "RevalidateCachedQuery"
"""The function of the server that says "cached plan must not change result type"."""

_NOT_PREPARED: Final = "26000"
"""What the connection had prepared is gone: something between deallocated it, a pooler for example."""

_log: Final = logging.getLogger("snapring.loader")

_UNTOUCHED: Final = b"""
SELECT bool_and(relfilenode = pg_relation_filenode(oid)) FROM pg_class WHERE oid = ANY ($1::oid[])
"""
"""Whether the file of each relation as of the transaction's snapshot is the one it has now."""
_CATALOG_ATTEMPTS: Final = 3
_STOPPING: Final = "the node is stopping: ask another"

T = TypeVar("T")


class _PreparedBeforeError(Exception):
    """What the connection has prepared is of a catalog that has changed, or gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """The rows of one query and all that is known about them.

    True at ``snapshot`` of ``incarnation``, read by a transaction begun after monotonic ``sent_s``.
    """

    plan: Plan
    rows: Sequence[Sequence[object]]
    tags: tuple[int, ...]
    snapshot: Snapshot
    incarnation: int
    sent_s: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Miss(Generic[T]):
    cache: str
    args: tuple[str, ...]
    deadline_s: float
    land: Callable[[Loaded], T]
    future: asyncio.Future[T]
    traced: "Traced | None"

    def fail(self, error: SnapringError) -> bool:
        if self.future.done():
            return False
        self.future.set_exception(error)
        return True


class Loader:
    """The workers between misses and Postgres, for one event loop.

    ``took`` is, by cache, the seconds from a miss to its rows; ``batch_sizes`` the loads in one round trip.
    """

    def __init__(
        self,
        *,
        config: LoadConfig,
        workers: int,
        connections: Connections,
        plans: Plans,
        breaker: Breaker,
        clock: Callable[[], float],
        fills: Callable[[str, int], int] | None = None,
    ) -> None:
        self._config = config
        self._workers = workers
        self._connections = connections
        self._plans = plans
        self._breaker = breaker
        self._clock = clock
        self._lanes: Lanes[_Miss[Any]] = Lanes(workers, fills)
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = False
        self.took: dict[str, Distribution] = {}
        self.batch_sizes = Distribution(SIZES)
        self.loads = self.batches = self.failures = self.refused = 0
        breaker.when_opened(self._lost)

    def __repr__(self) -> str:
        return f"<Loader queued={self.queued} workers={len(self._tasks)}/{self._workers} loads={self.loads}>"

    @property
    def queued(self) -> int:
        """How many loads wait for a connection."""
        return self._lanes.queued

    def submit(
        self, cache: str, args: tuple[str, ...], land: Callable[[Loaded], T], tenant: str
    ) -> asyncio.Future[T]:
        """Queue one load for ``tenant``. The future brings what ``land`` makes of it, or a `SnapringError`.

        ``land`` is called as soon as the load is there, whether anyone still waits for it or not.
        Raises `Unavailable` while the breaker is not closed, `Overloaded` when the queue is full, or the
        tenant's part of it, and
        `NodeStopping` after `stop`.
        """
        if self._stopping:
            raise NodeStopping(_STOPPING)
        self._breaker.guard()
        lane = self._lanes.lane(cache, tenant)
        try:
            self._lanes.check(lane, self._config.queue, self._config.timeout_s / 10)
        except Overloaded:
            self.refused += 1
            raise
        loop = asyncio.get_running_loop()
        miss = _Miss(
            cache=cache,
            args=args,
            deadline_s=self._clock() + self._config.timeout_s,
            land=land,
            future=loop.create_future(),
            traced=current(),
        )
        self._lanes.add(lane, miss)
        if len(self._tasks) < self._workers and self._lanes.may_go(lane):
            self._tasks.add(loop.create_task(self._work()))
        return miss.future

    async def stop(self) -> None:
        """Refuse new loads, fail those under way and waiting with `NodeStopping`, close connections."""
        self._stopping = True
        self.fail_waiting(NodeStopping(_STOPPING))
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*tuple(self._tasks), return_exceptions=True)
        await self._connections.close()

    def fail_waiting(self, error: SnapringError) -> None:
        """Fail every load that still waits for a connection."""
        for misses in self._lanes.clear():
            self._fail(misses, error)

    def _lost(self) -> None:
        """Postgres is out of reach: waiting is in vain, and idle connections may be dead without a sign."""
        self.fail_waiting(self._breaker.refusal())
        self._connections.abandon()

    async def _work(self) -> None:
        try:
            while taken := self._lanes.take(self._config.batch):
                lane, batch = taken
                self._lanes.began(lane)
                try:
                    await self._answer(batch)
                finally:
                    self._lanes.ended(lane)
        finally:
            # In the same step as the empty queue was seen: a submit from now on starts a new worker.
            self._tasks.discard(cast("asyncio.Task[None]", asyncio.current_task()))

    async def _answer(self, batch: list[_Miss[Any]]) -> None:
        try:
            await self._serve(batch)
        except asyncio.CancelledError:
            self._fail(batch, NodeStopping(_STOPPING))
            raise
        except SnapringError as error:
            self._fail(batch, error)
        except Exception as defect:  # noqa: BLE001 - a defect in one load must not strand those behind it
            _log.exception("a load failed of a defect")
            self._fail(batch, SnapringError(f"a defect in Snapring: {defect!r}"))

    async def _serve(self, batch: list[_Miss[Any]]) -> None:
        batch = self._in_time(batch)
        if not batch:
            return
        self._breaker.guard()
        deadline_s = max(miss.deadline_s for miss in batch)
        try:
            async with asyncio.timeout(deadline_s - self._clock()):
                await self._with_connection(batch)
        except TimeoutError as error:
            self._breaker.silent("a load timed out", deadline_s - self._config.timeout_s)
            raise Unavailable(f"Postgres did not answer within {self._config.timeout_s:g} s") from error
        except Unavailable as error:
            self._breaker.failed(str(error))
            raise

    async def _with_connection(self, batch: list[_Miss[Any]]) -> None:
        for _ in range(self._workers + 1):
            connection = await self._connections.take()
            try:
                return await self._run(connection, batch)
            except _PreparedBeforeError:
                # "cached plan must not change result type": this connection had prepared the query before
                # the catalog changed, and so may every other idle one.
                await connection.close()
            except psycopg.Error as error:
                raise translate(error) from error
            finally:
                await asyncio.shield(self._connections.give_back(connection))
        raise CatalogChanging("DDL follows on DDL faster than the query can be prepared anew: retry")

    async def _run(self, connection: Connection, batch: list[_Miss[Any]]) -> None:
        """Load ``batch`` at one snapshot under a plan made for the catalog of that snapshot."""
        for _ in range(_CATALOG_ATTEMPTS):
            plan = await self._plans.get(batch[0].cache, connection)
            batch = self._checked(plan, batch)
            if not batch:
                return
            try:
                if await self._load(connection, plan, batch):
                    return
            except psycopg.Error as error:
                if error.diag.source_function == _REVALIDATION:
                    self._plans.discard(plan)
                if error.diag.source_function == _REVALIDATION or error.sqlstate == _NOT_PREPARED:
                    raise _PreparedBeforeError from error
                await self._after_error(connection, batch, error)
                return
            self._plans.discard(plan)
        raise CatalogChanging("DDL follows on DDL faster than the query can be analysed anew: retry")

    async def _after_error(
        self, connection: Connection, batch: list[_Miss[Any]], error: psycopg.Error
    ) -> None:
        """One query ended the transaction of all: find out which by sending each alone."""
        failure = translate(error)
        if isinstance(failure, Unavailable):
            raise failure from error
        if len(batch) == 1:
            self._fail(batch, failure)
            return
        for miss in batch:
            if alone := self._in_time([miss]):
                await self._run(connection, alone)

    async def _load(self, connection: Connection, plan: Plan, batch: list[_Miss[Any]]) -> bool:
        """One round trip; False, and nothing delivered, if the plan is of another catalog."""
        self.batches += 1
        self.batch_sizes.observe(len(batch))
        sent_s = self._clock()
        with round_trip("SELECT", plan.cache.name, [miss.traced for miss in batch]):
            results, (_, afterwards) = await connection.round_trip((_transaction(plan, batch), _AFTERWARDS))
        ((catalog_version,),) = Rows(connection)(afterwards)
        if plan.catalog_version not in (None, catalog_version):
            return False
        if plan.unlockable:
            ((untouched,),) = Rows(connection)(results.pop())
            if not untouched:
                return False
        ((snapshot, incarnation),) = Rows(connection)(results[-len(batch) - 1])
        if incarnation is None:
            raise Unavailable("the database has no incarnation marker yet: retry")
        at = Snapshot.parse(snapshot)
        tags = Rows(connection)(results[-len(batch) - 2]) if plan.tag_sql is not None else [()] * len(batch)
        read = Rows(connection)
        for miss, result, key_tags in zip(batch, results[-len(batch) :], tags, strict=True):
            loaded = Loaded(
                plan=plan,
                rows=read(result),
                tags=(*key_tags, *plan.tags),
                snapshot=at,
                incarnation=incarnation & INCARNATION_MASK,
                sent_s=sent_s,
            )
            self._deliver(miss, loaded)
        return True

    def _deliver(self, miss: _Miss[Any], loaded: Loaded) -> None:
        plan = loaded.plan
        if len(loaded.rows) > plan.max_rows:
            limit = "single = true allows" if plan.cache.single else f"max_rows = {plan.max_rows}"
            self._fail(
                [miss], TooManyRows(f"cache {plan.cache.name}: the query returned more rows than {limit}")
            )
            return
        self.loads += 1
        self._time(miss)
        landed = miss.land(loaded)
        if not miss.future.done():
            miss.future.set_result(landed)

    def _time(self, miss: _Miss[Any]) -> None:
        took = self.took.get(miss.cache)
        if took is None:
            took = self.took[miss.cache] = Distribution(SECONDS)
        took.observe(self._clock() - (miss.deadline_s - self._config.timeout_s))

    def _checked(self, plan: Plan, batch: list[_Miss[Any]]) -> list[_Miss[Any]]:
        """Those whose arguments fit ``plan``; the others fail here."""
        fitting = []
        for miss in batch:
            try:
                plan.check(miss.args)
            except SnapringError as error:
                self._fail([miss], error)
            else:
                fitting.append(miss)
        return fitting

    def _in_time(self, batch: list[_Miss[Any]]) -> list[_Miss[Any]]:
        now = self._clock()
        late = [miss for miss in batch if miss.deadline_s <= now]
        self._fail(late, DeadlineExceeded("the load waited for a connection until its deadline: retry"))
        return [miss for miss in batch if miss.deadline_s > now]

    def _fail(self, batch: Sequence[_Miss[Any]], error: SnapringError) -> None:
        self.failures += sum(miss.fail(error) for miss in batch)


def _transaction(plan: Plan, batch: Sequence[_Miss[Any]]) -> list[Statement]:
    """The batch at one snapshot, which the first SELECT takes: after the locks, see `Plan.lock`."""
    statements = [_BEGIN]
    if plan.lock is not None:
        statements.append(Statement(plan.lock.encode(), ()))
    if plan.tag_sql is not None:
        columns = plan.tag_arguments([miss.args for miss in batch])
        statements.append(Statement(plan.tag_sql.encode(), [_texts(column) for column in columns]))
    statements.append(_HEAD)
    sql = plan.sql.encode()
    statements += (Statement(sql, [argument.encode() for argument in miss.args]) for miss in batch)
    if plan.unlockable:
        statements.append(Statement(_UNTOUCHED, [_texts(map(str, plan.unlockable))]))
    return statements


def _texts(items: Iterable[str]) -> bytes:
    return array([item.encode() for item in items])
