"""Deleting what is past: old changes, and versions of ``store`` caches that nobody can ask for any more.

One node of all sweeps: the one whose session holds an advisory lock of the database, until that session
ends. The database keeps the clock that ages are measured by; the node that sweeps tells it how much time
has passed since its last sweep was done, by its own monotonic clock. Time that nobody can vouch for is not
told, so a change of the sweeping node, a pause or a crash makes things stay longer, never shorter.

A sweep that fails is no failure of the database's serving, and the breaker does not hear of it.
"""

import asyncio
import logging
from collections.abc import Callable
from random import Random
from time import monotonic
from typing import Final

import psycopg

from cluster.breaker import Breaker
from cluster.config import RetentionConfig
from cluster.postgres import Connection, Sessions, translate
from snapring.errors import SnapringError

_HOLD: Final = "SELECT pg_try_advisory_lock(hashtextextended('snapring.sweep', 0))"
_SWEEP: Final = "SELECT changes, history, more FROM snapring.sweep($1, $2, $3, $4::int)"
_ANSWER_S: Final = 10.0
"""A database that answers later than this does not answer."""

_SWEEPS_PER_ROUND: Final = 100

_log: Final = logging.getLogger("snapring.retention")


class Retention:
    """Sweeps in rounds, as long as no other node does. `run` is the one task.

    ``rounds``, ``changes`` and ``history`` count what this node has done: rounds, rows deleted.
    """

    def __init__(
        self,
        *,
        sessions: Sessions,
        config: RetentionConfig,
        breaker: Breaker,
        clock: Callable[[], float] = monotonic,
        random: Random | None = None,
    ) -> None:
        self._sessions = sessions
        self._config = config
        self._breaker = breaker
        self._clock = clock
        self._random = random or Random()
        self._connection: Connection | None = None
        self._swept_s: float | None = None
        self.rounds = self.changes = self.history = self.failures = 0
        self.last_error = ""

    def __repr__(self) -> str:
        held = "holder" if self.holder else "waiting"
        return f"<Retention {held} rounds={self.rounds} changes={self.changes} history={self.history}>"

    @property
    def holder(self) -> bool:
        """Whether this node is the one that sweeps."""
        return self._connection is not None

    async def run(self) -> None:
        """A round now and then, until cancelled."""
        try:
            while True:
                await asyncio.sleep(self._config.period_s * self._random.uniform(0.8, 1.0))
                await self.attempt()
        finally:
            await self._disconnect()

    async def attempt(self) -> None:
        """One round, if this node holds the lock or can have it. Never raises what the database does wrong."""
        if not self._breaker.closed:
            return
        try:
            if self._connection is None:
                self._connection = await self._as_holder()
            if self._connection is not None:
                await self._round(self._connection)
            self.last_error = ""
        except TimeoutError:
            await self._failed(f"no answer within {_ANSWER_S:g} s")
        except psycopg.Error as error:
            await self._failed(str(translate(error)))
        except SnapringError as error:
            await self._failed(str(error))

    async def _as_holder(self) -> Connection | None:
        """A connection that holds the lock, None where another's does."""
        connection = await self._sessions.open("snapring retention")
        held = False
        try:
            async with asyncio.timeout(_ANSWER_S):
                ((held,),) = await (await connection.execute(_HOLD)).fetchall()
        finally:
            if not held:
                await connection.close()
        return connection if held else None

    async def _round(self, connection: Connection) -> None:
        """Sweep until nothing is left to delete, or for long enough."""
        for _ in range(_SWEEPS_PER_ROUND):
            if not await self._sweep(connection):
                break
        self.rounds += 1

    async def _sweep(self, connection: Connection) -> bool:
        """Whether there is more."""
        elapsed_s = 0.0 if self._swept_s is None else self._clock() - self._swept_s
        kept = self._config
        async with asyncio.timeout(_ANSWER_S):
            cursor = await connection.execute(
                _SWEEP, (elapsed_s, kept.changes_s, kept.history_s, kept.batch), prepare=False
            )
            ((changes, history, more),) = await cursor.fetchall()
        self._swept_s = self._clock()
        self.changes += changes
        self.history += history
        return bool(more)

    async def _failed(self, reason: str) -> None:
        self.failures += 1
        self.last_error = reason
        _log.warning("what is past could not be deleted: %s", reason)
        await self._disconnect()

    async def _disconnect(self) -> None:
        connection, self._connection, self._swept_s = self._connection, None, None
        if connection is not None:
            await connection.close()
