"""How faults talk to the primary: as superuser, past the proxy."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from time import monotonic
from typing import Final

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from scripts.proof.faults.fault import FaultFailed

_CONNECT_S: Final = 10
_POLL_S: Final = 0.02


@asynccontextmanager
async def operator(dsn: str) -> AsyncIterator[AsyncConnection[TupleRow]]:
    """A connection in autocommit."""
    async with await AsyncConnection.connect(
        dsn, autocommit=True, connect_timeout=_CONNECT_S, application_name="proof operator"
    ) as connection:
        yield connection


async def ask(connection: AsyncConnection[TupleRow], query: str, *arguments: object) -> str:
    """The one value that ``query`` returns, as text; empty where it is null."""
    row = await (await connection.execute(query.encode(), arguments or None)).fetchone()
    return "" if row is None or row[0] is None else str(row[0])


async def commit(connection: AsyncConnection[TupleRow]) -> int:
    """Commit a transaction that leaves its mark in the log only; the xid of what was acknowledged."""
    async with connection.transaction():
        xid = await ask(connection, "SELECT pg_current_xact_id()")
        await connection.execute(b"SELECT pg_logical_emit_message(true, 'proof', '')")
    return int(xid)


async def next_xid(connection: AsyncConnection[TupleRow]) -> int:
    """The first xid that has not been given out."""
    return int(await ask(connection, "SELECT pg_snapshot_xmax(pg_current_snapshot())"))


async def until(what: str, reached: Callable[[], Awaitable[bool]], within_s: float) -> None:
    """Wait until ``reached()``. Raises `FaultFailed`, which names ``what`` did not come true."""
    deadline_s = monotonic() + within_s
    while not await reached():
        if monotonic() > deadline_s:
            raise FaultFailed(f"{what}: not within {within_s:g} s")
        await asyncio.sleep(_POLL_S)


async def cut_off(connection: AsyncConnection[TupleRow], within_s: float) -> None:
    """Wait until the server ends ``connection``, as it does when it starts over. Raises `FaultFailed`."""
    try:
        async with asyncio.timeout(within_s):
            await connection.execute(b"SELECT pg_sleep(%s)", (2 * within_s,))
    except psycopg.OperationalError:
        return
    except TimeoutError:
        pass
    raise FaultFailed(f"PostgreSQL did not end its connections within {within_s:g} s")
