"""The foreign writers: they do deeds on connections of their own, and the chronicle knows what they committed."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from random import Random
from time import monotonic
from typing import Final

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from scripts.proof.chronicle import Chronicle
from scripts.proof.deeds import Copy, Deed, InTwoPhases, Step
from scripts.proof.history import Write
from scripts.proof.journal import signed

_AGAIN_S: Final = 0.05
_CONNECT_S: Final = 5
_PROMISES_KEPT: Final = 0.85


class Writer:
    """Does ``deeds`` by their weights, one each ``pace_s`` on average, until `stop`.

    Of a hundred transactions, ``kept`` are committed. Survives any end of its connection.
    """

    def __init__(
        self,
        dsn: Callable[[], str],
        chronicle: Chronicle,
        deeds: Mapping[Deed, float],
        *,
        rng: Random,
        pace_s: float,
        kept: int = 90,
    ) -> None:
        self._dsn = dsn
        self._chronicle = chronicle
        self._deeds = list(deeds)
        self._weights = list(deeds.values())
        self._rng = rng
        self._pace_s = pace_s
        self._kept = kept
        self._stopping = False

    def stop(self) -> None:
        """Let `run` return after the deed it is at."""
        self._stopping = True

    async def run(self) -> None:
        """Do one deed after another."""
        while not self._stopping:
            with contextlib.suppress(psycopg.Error):
                async with connected(self._dsn(), self._chronicle) as connection:
                    await self._work(connection)
            if not self._stopping:
                await asyncio.sleep(_AGAIN_S)

    async def _work(self, connection: AsyncConnection[TupleRow]) -> None:
        while not self._stopping:
            (deed,) = self._rng.choices(self._deeds, self._weights)
            try:
                await self.do(connection, deed)
            except psycopg.Error:
                if connection.closed:
                    raise
                await connection.rollback()
            await asyncio.sleep(self._rng.expovariate(1 / self._pace_s))

    async def do(self, connection: AsyncConnection[TupleRow], deed: Deed) -> None:
        """Carry out one deed. Raises `psycopg.Error`; the transaction may then still be open."""
        await connection.execute(b"BEGIN")
        last: Step | None = None
        for last in deed(self._rng):
            await _take(connection, last)
        if self._rng.randrange(100) >= self._kept:
            await connection.rollback()
            return
        nonce = self._chronicle.nonce()
        xid, incarnation, rows = await signed(connection, nonce)
        assert incarnation is not None, "the chronicle has met it"
        write = Write(
            nonce=nonce, xid=xid, incarnation=incarnation, rows=rows, sent_s=monotonic(), acked_s=None
        )
        if isinstance(last, InTwoPhases):
            await self._chronicle.prepare(connection, write)
        else:
            await self._chronicle.commit(connection, write)


class Finisher:
    """Ends what was prepared, whoever prepared it and before whatever crash: commits most of it.

    Whatever is prepared waits for at most ``after_s``, while there are connections to be had.
    """

    def __init__(self, dsn: Callable[[], str], chronicle: Chronicle, *, rng: Random, after_s: float) -> None:
        self._dsn = dsn
        self._chronicle = chronicle
        self._rng = rng
        self._after_s = after_s
        self._stopping = False

    def stop(self) -> None:
        """Let `run` return soon."""
        self._stopping = True

    async def run(self) -> None:
        """Go on until `stop`."""
        while not self._stopping:
            with contextlib.suppress(psycopg.Error):
                async with connected(self._dsn(), self._chronicle) as connection:
                    while not self._stopping:
                        await asyncio.sleep(self._rng.random() * self._after_s)
                        await self.finish(connection)
            await asyncio.sleep(_AGAIN_S)

    async def finish(self, connection: AsyncConnection[TupleRow]) -> None:
        """End everything that is prepared now."""
        found = await connection.execute(
            b"SELECT gid FROM pg_prepared_xacts WHERE database = current_database()"
        )
        for (gid,) in await found.fetchall():
            if self._rng.random() < _PROMISES_KEPT:
                await self._chronicle.commit_prepared(connection, gid)
            else:
                await connection.execute(f"ROLLBACK PREPARED '{gid}'".encode())


@contextlib.asynccontextmanager
async def connected(dsn: str, chronicle: Chronicle) -> AsyncIterator[AsyncConnection[TupleRow]]:
    """A writer's connection, which ``chronicle`` has met; in autocommit, for it says BEGIN itself."""
    async with await psycopg.AsyncConnection.connect(
        dsn, autocommit=True, prepare_threshold=None, connect_timeout=_CONNECT_S, options="-c lock_timeout=1s"
    ) as connection:
        await chronicle.meet(connection)
        yield connection


async def _take(connection: AsyncConnection[TupleRow], step: Step) -> None:
    match step:
        case str():
            await connection.execute(step.encode())
        case float():
            await asyncio.sleep(step)
        case Copy(statement, rows):
            async with connection.cursor().copy(statement.encode()) as stream:
                for row in rows:
                    await stream.write_row(row)
