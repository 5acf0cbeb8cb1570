"""The proof's writers on a real PostgreSQL: the journal has every row they write, and the caches' truths are true."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from random import Random

import psycopg
import pytest
from psycopg import AsyncConnection, AsyncRawCursor
from psycopg.rows import TupleRow

from scripts.proof import deeds
from scripts.proof.chronicle import Chronicle
from scripts.proof.deeds import DDL, EVERYDAY, PROMISES, TRUNCATION, Deed, InTwoPhases, Step
from scripts.proof.history import State
from scripts.proof.tables import FILL, prepare
from scripts.proof.truths import ROWS, SHAPES
from scripts.proof.writers import Finisher, Writer, connected
from servers import Server

EVERY_DEED = {**EVERYDAY, **PROMISES, **TRUNCATION, **DDL}
CACHES = (*ROWS, *SHAPES)


@pytest.fixture
async def chronicle(database: str) -> Chronicle:
    """Of a database that has been filled."""
    await prepare(database)
    chronicle = Chronicle(lambda *_: None)
    async with at_work(database, chronicle) as (writer, connection):
        await writer.do(connection, everything)
    return chronicle


@asynccontextmanager
async def at_work(
    dsn: str, chronicle: Chronicle, *chosen: Deed, seed: int = 1
) -> AsyncIterator[tuple[Writer, AsyncConnection[TupleRow]]]:
    """A writer that commits all it does, and its connection."""
    writer = Writer(
        lambda: dsn, chronicle, dict.fromkeys(chosen, 1), rng=Random(seed), pace_s=0.001, kept=100
    )
    async with connected(dsn, chronicle) as connection:
        yield writer, connection


def everything(_: Random) -> Iterator[Step]:
    """The first transaction."""
    yield FILL


def state_of(chronicle: Chronicle) -> State:
    """The rows after all that was committed."""
    state = State()
    state.apply(
        sorted((row for write in chronicle.history.writes for row in write.rows), key=lambda row: row.seq)
    )
    return state


async def differences(dsn: str, state: State) -> list[tuple[str, str, object, object]]:
    """Where the truth computed from ``state`` is not what PostgreSQL answers."""
    found = []
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        for cache in CACHES:
            for argument in cache.arguments:
                cursor = AsyncRawCursor(connection)
                await cursor.execute(cache.sql.encode(), [argument] if argument else [], prepare=False)
                columns = [column.name for column in cursor.description or ()]
                rows: object = [dict(zip(columns, row, strict=True)) for row in await cursor.fetchall()]
                if cache.single:
                    assert isinstance(rows, list)
                    rows = rows[0] if rows else None
                truth = cache.truth(state, argument)
                if truth != rows:
                    found.append((cache.name, argument, truth, rows))
    return found


async def finished(dsn: str, chronicle: Chronicle) -> None:
    """End what is prepared."""
    async with connected(dsn, chronicle) as connection:
        await Finisher(lambda: dsn, chronicle, rng=Random(1), after_s=0.0).finish(connection)


@pytest.mark.parametrize("deed", EVERY_DEED, ids=lambda deed: deed.__name__)
async def test_the_journal_has_what_a_deed_did(database: str, chronicle: Chronicle, deed: Deed) -> None:
    """After a few deeds of one kind, every cache's truth is what PostgreSQL answers."""
    async with at_work(database, chronicle, deed) as (writer, connection):
        for _ in range(12):
            try:
                await writer.do(connection, deed)
            except psycopg.IntegrityError:
                await connection.rollback()
            await finished(database, chronicle)
    assert await differences(database, state_of(chronicle)) == []


async def test_the_journal_has_what_all_of_them_did(database: str, chronicle: Chronicle) -> None:
    """At once, with savepoints, rollbacks, deadlocks and two-phase commits."""
    writers = [
        Writer(lambda: database, chronicle, EVERY_DEED, rng=Random(seed), pace_s=0.001) for seed in range(4)
    ]
    tasks = [asyncio.create_task(writer.run()) for writer in writers]
    while chronicle.commits < 150:
        await finished(database, chronicle)
    for writer in writers:
        writer.stop()
    await asyncio.gather(*tasks)
    await finished(database, chronicle)
    assert await differences(database, state_of(chronicle)) == []


async def test_a_commit_whose_answer_never_came_is_found(database: str, chronicle: Chronicle) -> None:
    """Or it is found that it did not happen."""
    for seed, happens in ((1, True), (2, False)):
        before = chronicle.commits
        async with at_work(database, chronicle, deeds.rank, seed=seed) as (writer, connection):
            commit = "COMMIT" if happens else "ROLLBACK"
            await _cut(connection, commit)
            with pytest.raises(psycopg.OperationalError):
                await writer.do(connection, deeds.rank)
        await chronicle.witness(database)
        assert chronicle.commits - before == happens
    assert await differences(database, state_of(chronicle)) == []


async def _cut(connection: AsyncConnection[TupleRow], how: str) -> None:
    """Let ``COMMIT`` on ``connection`` do ``how`` instead, and its answer be lost."""
    execute = connection.execute

    async def lossy(statement: bytes, *rest: object) -> object:
        if statement != b"COMMIT":
            return await execute(statement, *rest)  # type: ignore[arg-type]
        await execute(how.encode())
        await connection.close()
        raise psycopg.OperationalError("the answer is lost")

    connection.execute = lossy  # type: ignore[method-assign,assignment]


async def test_what_a_crash_lost_is_not_among_the_survivors() -> None:
    """And what was prepared before it can be committed after it."""
    settings = {"synchronous_commit": "off", "wal_writer_delay": "10s", "wal_writer_flush_after": "100MB"}
    with Server(settings=settings) as server:
        await prepare(server.dsn())
        chronicle = Chronicle(lambda *_: None)
        async with at_work(server.dsn(), chronicle) as (writer, connection):
            await writer.do(connection, everything)
            await writer.do(connection, prepared)  # which flushes what came before
            for _ in range(5):
                await writer.do(connection, deeds.rank)
            server.crash()
        await finished(server.dsn(), chronicle)
        first, second = chronicle.history.eras
        after = [write for write in chronicle.history.writes if write.incarnation == second.incarnation]
        assert len(after) == 1
        lost = [write for write in chronicle.history.during(first) if write.nonce not in second.survivors]
        assert lost
        state = State()
        for write in (*chronicle.history.before(second), *after):
            state.apply(write.rows)
        assert await differences(server.dsn(), state) == []


def prepared(rng: Random) -> Iterator[Step]:
    """A transaction in two phases."""
    yield "UPDATE wide SET value = 77 WHERE id = 7"
    yield InTwoPhases()
