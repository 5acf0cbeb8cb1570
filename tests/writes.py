"""What a write leaves in ``snapring.changes``, told against what it should leave there."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import psycopg

from cluster import capture

Connection = psycopg.AsyncConnection[psycopg.rows.TupleRow]
Row = tuple[int, int | None]

BULK: Iterable[object] = ()


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Connection]:
    """A superuser's connection in autocommit."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        yield connection


@asynccontextmanager
async def installed(url: str, schema: str = "", *tables: str) -> AsyncIterator[Connection]:
    """A connection to a database with ``schema`` in which ``tables`` are under capture by their key columns."""
    async with connected(url) as connection:
        await capture.install(connection)
        if schema:
            await connection.execute(schema.encode())
        for table in tables:
            await capture.track(connection, table)
        yield connection


async def rows(connection: Connection, query: str, *arguments: object) -> list[tuple[object, ...]]:
    """All rows of a query."""
    return await (await connection.execute(query.encode(), arguments or None)).fetchall()


async def value(connection: Connection, query: str, *arguments: object) -> object:
    """The one value of a query."""
    return (await rows(connection, query, *arguments))[0][0]


async def left_by(connection: Connection, *statements: str) -> list[Row]:
    """The changes that ``statements`` leave, without their xids, sorted."""
    await connection.execute("DELETE FROM snapring.changes")
    for statement in statements:
        await connection.execute(statement.encode())
    found = await rows(connection, "SELECT rel::int8, tag FROM snapring.changes")
    return sorted(found, key=_order)  # type: ignore[arg-type]


async def of_table(connection: Connection, table: str, **columns: Iterable[object]) -> list[Row]:
    """The changes that name these values of columns; one bulk row where there are none."""
    rel = await value(connection, "SELECT %s::regclass::oid::int8", table)
    assert isinstance(rel, int)
    tags: list[int] = [
        await value(  # type: ignore[misc]
            connection,
            "SELECT snapring.tag(attrelid, attnum, %s::text) FROM pg_attribute WHERE attrelid = %s AND attname = %s",
            str(each),
            rel,
            column,
        )
        for column, values in columns.items()
        for each in values
    ]
    found: list[Row] = [(rel, tag) for tag in tags] or [(rel, None)]
    return sorted(found, key=_order)


async def voids(connection: Connection, *statements: str) -> bool:
    """Whether ``statements`` void everything: a row for the entire database, and another catalog version."""
    before = await value(connection, "SELECT snapring.catalog_version()")
    everything = (0, None) in await left_by(connection, *statements)
    moved = before != await value(connection, "SELECT snapring.catalog_version()")
    assert everything == moved, "a void and a new catalog version go together"
    return everything


def _order(row: Row) -> tuple[int, bool, int]:
    return row[0], row[1] is None, row[1] or 0
