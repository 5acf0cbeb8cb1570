"""Keeps the history while it happens: what was committed in which incarnation, and what may have been.

Whoever writes shows his connection here before he begins (`Chronicle.meet`): a new incarnation is noted
before anyone can have committed in it. What became of a COMMIT whose answer never came is asked of the
database, as soon as there is one again.
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from time import monotonic
from typing import Final

import msgpack
import psycopg
from psycopg import AsyncConnection
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow

from scripts.proof.history import Era, History, Write
from scripts.proof.journal import unsigned

_NO_TELLING: Final = (TransactionStatus.UNKNOWN, TransactionStatus.ACTIVE)
_POLL_S: Final = 0.02
_PREFIX: Final = "proof_"
_MARKS: Final = """
SELECT value FROM snapring.heads WHERE starts_with(key, 'settings:mark:')
 UNION ALL SELECT value FROM snapring.history WHERE starts_with(key, 'settings:mark:')
"""
"""Whoever writes to the store cache signs with one of these; see `scripts.proof.store`."""
_STATUS: Final = f"""
SELECT EXISTS (SELECT FROM proof.deeds WHERE nonce = %(nonce)s),
       CASE WHEN EXISTS (SELECT FROM pg_prepared_xacts WHERE gid = '{_PREFIX}' || %(nonce)s) THEN 'prepared'
            WHEN %(same)s THEN pg_xact_status(%(xid)s::text::xid8) END
"""


class Chronicle:
    """What is known of the database. ``tell`` hears of each acknowledged commit: incarnation and xid."""

    def __init__(self, tell: Callable[[int, int], None]) -> None:
        self.tell = tell
        self._eras: list[Era] = []
        self._writes: dict[tuple[int, int], Write] = {}
        self._unknown: list[Write] = []
        self._prepared: dict[str, Write] = {}
        self._meeting = asyncio.Lock()
        self._nonces = 0

    def __repr__(self) -> str:
        return f"<Chronicle eras={len(self._eras)} writes={len(self._writes)} unknown={len(self._unknown)}>"

    @property
    def eras(self) -> int:
        """How many incarnations there have been."""
        return len(self._eras)

    @property
    def incarnation(self) -> int:
        """The last one that was met."""
        return self._eras[-1].incarnation

    @property
    def commits(self) -> int:
        """How many transactions were committed, or may have been."""
        return len(self._writes)

    @property
    def history(self) -> History:
        """What is known by now."""
        return History(eras=tuple(self._eras), writes=tuple(self._writes.values()))

    def nonce(self) -> int:
        """A number that no transaction has had."""
        self._nonces += 1
        return self._nonces

    async def meet(self, connection: AsyncConnection[TupleRow]) -> int:
        """Learn in which incarnation ``connection`` is, and what of earlier ones is left. Raises `psycopg.Error`."""
        async with self._meeting:
            incarnation = await _incarnation(connection)
            if incarnation not in (era.incarnation for era in self._eras):
                self._eras.append(Era(incarnation=incarnation, survivors=await _survivors(connection)))
            await self._resolve(connection, incarnation)
            return incarnation

    async def witness(self, dsn: str) -> None:
        """`meet` on a connection of its own."""
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
            await self.meet(connection)

    async def commit(self, connection: AsyncConnection[TupleRow], write: Write) -> None:
        """End the transaction that wrote ``write``. Raises `psycopg.Error`."""
        await self._end(connection, "COMMIT", write)

    async def prepare(self, connection: AsyncConnection[TupleRow], write: Write) -> None:
        """Prepare the transaction that wrote ``write``, for `commit_prepared`. Raises `psycopg.Error`."""
        gid = f"{_PREFIX}{write.nonce}"
        self._prepared[gid] = write
        await connection.execute(f"PREPARE TRANSACTION '{gid}'".encode())

    async def commit_prepared(self, connection: AsyncConnection[TupleRow], gid: str) -> None:
        """End a prepared transaction, in whatever incarnation this now is. Raises `psycopg.Error`."""
        incarnation = await _incarnation(connection)
        write = replace(self._prepared[gid], incarnation=incarnation, sent_s=monotonic())
        await self._end(connection, f"COMMIT PREPARED '{gid}'", write)

    async def _end(self, connection: AsyncConnection[TupleRow], how: str, write: Write) -> None:
        try:
            await connection.execute(how.encode())
        except BaseException:  # cancelled, it is as unknown as when the connection broke
            if connection.info.transaction_status in _NO_TELLING:
                self._unknown.append(write)
            raise
        self.acknowledged(write)

    def acknowledged(self, write: Write) -> None:
        """The commit of ``write`` was acknowledged just now."""
        self._enter(replace(write, acked_s=monotonic()))
        self.tell(write.incarnation, write.xid)

    def found(self, write: Write) -> None:
        """``write`` has been committed, or may have been; of which nobody was told."""
        self._enter(write)

    def era_of(self, write: Write, seen_in: int) -> int | None:
        """In which incarnation ``write`` was committed that is there in ``seen_in``; None if that is news."""
        for era in self._eras:
            if era.incarnation == seen_in:
                return write.incarnation if write.nonce in era.survivors else seen_in
        return None

    def _enter(self, write: Write) -> None:
        self._writes[write.incarnation, write.nonce] = write

    async def _resolve(self, connection: AsyncConnection[TupleRow], incarnation: int) -> None:
        unknown, self._unknown = self._unknown, []
        try:
            while unknown:
                if not await self._resolved(connection, incarnation, unknown[-1]):
                    await asyncio.sleep(_POLL_S)
                    continue
                unknown.pop()
        finally:
            self._unknown += unknown

    async def _resolved(self, connection: AsyncConnection[TupleRow], incarnation: int, write: Write) -> bool:
        """Whether it is settled now what became of ``write``: nobody can know, where its incarnation ended."""
        same = incarnation == write.incarnation
        given = {"nonce": write.nonce, "same": same, "xid": str(write.xid)}
        ((there, status),) = await (await connection.execute(_STATUS.encode(), given)).fetchall()
        if there:
            self._enter(write)
        elif not same or status is None:
            self._enter(replace(write, ambiguous=True))
        return bool(there) or status != "in progress"


async def _survivors(connection: AsyncConnection[TupleRow]) -> frozenset[int]:
    found = await (await connection.execute(b"SELECT nonce FROM proof.deeds")).fetchall()
    marks = await (await connection.execute(_MARKS.encode())).fetchall()
    return frozenset((*(nonce for (nonce,) in found), *(msgpack.unpackb(value)["n"] for (value,) in marks)))


async def _incarnation(connection: AsyncConnection[TupleRow]) -> int:
    """That of the database, made now where a crash has just ended the one before."""
    while True:
        found = await connection.execute(b"SELECT coalesce(snapring.incarnation(), snapring.renew())")
        ((incarnation,),) = await found.fetchall()
        known = unsigned(incarnation)
        if known is not None:
            return known
        await asyncio.sleep(_POLL_S)
