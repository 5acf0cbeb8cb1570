"""Change capture in the database: installing the schema ``snapring``, tracking and untracking tables.

Everything happens in one transaction each, so a failure leaves what was there before. The work itself is
done by functions of the schema (``cluster/sql``); event triggers need the same ones.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final

import psycopg
from psycopg import AsyncConnection, AsyncCursor, sql
from psycopg.rows import TupleRow, tuple_row

from cluster.tags import EXPRESSIONS
from snapring.errors import SnapringError

VERSION: Final = 2
"""The version of the schema that this release reads and writes."""

READER_FUNCTIONS: Final = (
    "snapring.tag(oid, integer, text)",
    "snapring.incarnation()",
    "snapring.renew()",
    "snapring.trimmed()",
    "snapring.catalog_version()",
    "snapring.settled_catalog_version()",
    "snapring.ddl_captured()",
    "snapring.flaw(snapring.captured)",
    "snapring.write(text[], bytea[], bigint[], boolean)",
    "snapring.version_at(text, pg_snapshot)",
    "snapring.listing(text, text, integer, pg_snapshot)",
    "snapring.sweep(float8, float8, float8, integer)",
)
"""What the role of a node must be able to call."""

READER_TABLES: Final = ("snapring.changes", "snapring.tracked", "snapring.heads", "snapring.history")
"""What the role of a node must be able to read."""

Cursor = AsyncCursor[TupleRow]

_PARTS: Final = ("position.sql", "capture.sql", "ddl.sql", "versions.sql", "retention.sql", "release.sql")
"""The functions, in their order; written anew with every installation."""

_LOCK: Final = "SELECT pg_advisory_xact_lock(hashtextextended('snapring.install', 0))"
_REFUSALS: Final = (
    psycopg.errors.FeatureNotSupported,
    psycopg.errors.InsufficientPrivilege,
    psycopg.errors.InvalidName,
    psycopg.errors.UndefinedObject,
    psycopg.errors.UndefinedTable,
)


class CaptureRefused(SnapringError):
    """The schema or a table cannot be put under capture; the message says why and what to do."""

    code = "CAPTURE_REFUSED"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackedTable:
    """A table under capture. ``members`` counts its partitions and children, ``flaw`` says what is amiss."""

    table: str
    columns: tuple[str, ...]
    bulk_limit: int
    members: int
    flaw: str | None


async def installed_version(connection: AsyncConnection[Any]) -> int | None:
    """The version of the schema in the database, None where there is none."""
    cursor = _cursor(connection)
    if (await _one(cursor, "SELECT to_regclass('snapring.version') IS NULL"))[0]:
        return None
    version: int = (await _one(cursor, "SELECT version FROM snapring.version"))[0]
    return version


async def install(connection: AsyncConnection[Any]) -> None:
    """Install the schema, bring an older one up to date, or mend what is amiss with this one.

    Roles that were allowed to run a node stay so. Everything cached is void afterwards. Only a superuser can also install the event triggers; without
    them ``check`` says what is lost. Raises `CaptureRefused`.
    """
    async with _transaction(connection) as cursor:
        await cursor.execute(_LOCK)
        before = await installed_version(connection)
        if before is not None and before > VERSION:
            raise CaptureRefused(
                f"the schema snapring is of version {before}, this program knows up to {VERSION}: upgrade it"
            )
        if before is None and (await _one(cursor, "SELECT to_regnamespace('snapring') IS NOT NULL"))[0]:
            raise CaptureRefused("a schema snapring is there that Snapring did not make: rename or drop it")
        for version in range((before or 0) + 1, VERSION + 1):
            await _run(cursor, f"tables_{version}.sql")
        for part in _PARTS:
            await _run(cursor, part)
        await _write_grains(cursor)
        await cursor.execute("SELECT snapring.settle(%s)", (VERSION,))
        for role in await _allowed(cursor):
            await _grant(cursor, role)
        await _install_event_triggers(cursor)


async def track(
    connection: AsyncConnection[Any],
    table: str,
    columns: Sequence[str] | None = None,
    *,
    bulk_limit: int = 1000,
) -> None:
    """Put ``table`` and its partitions or children under capture, or change how it is.

    ``table`` is a name as SQL has it. ``columns``: those with tags of their own, by default the
    primary-key and foreign-key columns of suitable types. A statement that touches more than
    ``bulk_limit`` different tags says only that it touched the table. Waits for the transactions that
    write to the table. Raises `CaptureRefused`.
    """
    if bulk_limit < 1:
        raise CaptureRefused("bulk_limit must be at least 1")
    names = None if columns is None else list(columns)
    async with _transaction(connection) as cursor:
        await _require_schema(connection)
        await cursor.execute(
            "SELECT snapring.track(%s::regclass, %s::name[], %s)", (table, names, bulk_limit)
        )


async def untrack(connection: AsyncConnection[Any], table: str) -> None:
    """Take ``table`` and its partitions or children off capture. Raises `CaptureRefused`."""
    async with _transaction(connection) as cursor:
        await _require_schema(connection)
        await cursor.execute("SELECT snapring.untrack(%s::regclass)", (table,))


async def tracked(connection: AsyncConnection[Any]) -> list[TrackedTable]:
    """The user's tables under capture, by name."""
    await _require_schema(connection)
    found = await _cursor(connection).execute(
        "SELECT r.relation, r.names::text[], r.bulk_limit, count(*)::int - 1,"
        "       string_agg(m.relation || ': ' || snapring.flaw(m), '; ' ORDER BY m.relation)"
        "  FROM snapring.captured AS r JOIN snapring.captured AS m ON m.root = r.rel"
        " WHERE r.relation <> 'snapring.heads'"
        " GROUP BY r.rel ORDER BY r.relation"
    )
    return [
        TrackedTable(table=table, columns=tuple(names), bulk_limit=limit, members=members, flaw=flaw)
        async for table, names, limit, members, flaw in found
    ]


async def allow(connection: AsyncConnection[Any], role: str) -> None:
    """Let ``role`` do what a node does with the schema. It still needs SELECT on the tables it caches."""
    async with _transaction(connection) as cursor:
        await _require_schema(connection)
        await _grant(cursor, role)


def grants(role: str) -> tuple[str, ...]:
    """The statements that let ``role`` do what a node does with the schema."""
    name = sql.Identifier(role).as_string(None)
    return (
        f"GRANT USAGE ON SCHEMA snapring TO {name}",
        f"GRANT SELECT ON {', '.join(READER_TABLES)} TO {name}",
        f"GRANT EXECUTE ON FUNCTION {', '.join(READER_FUNCTIONS)} TO {name}",
    )


@asynccontextmanager
async def _transaction(connection: AsyncConnection[Any]) -> AsyncIterator[Cursor]:
    try:
        async with connection.transaction():
            yield _cursor(connection)
    except _REFUSALS as error:
        told = error.diag.message_primary or str(error)
        hint = f": {error.diag.message_hint}" if error.diag.message_hint else ""
        raise CaptureRefused(f"{told}{hint}") from error


async def _require_schema(connection: AsyncConnection[Any]) -> None:
    if await installed_version(connection) != VERSION:
        raise CaptureRefused(f"the database has no schema snapring of version {VERSION}: run 'snapring init'")


async def _grant(cursor: Cursor, role: str) -> None:
    for grant in grants(role):
        await cursor.execute(grant.encode())


async def _allowed(cursor: Cursor) -> list[str]:
    """The roles that may run a node, by this release or an older one."""
    await cursor.execute(
        "SELECT DISTINCT r.rolname FROM pg_proc AS p, aclexplode(p.proacl) AS a"
        "  JOIN pg_roles AS r ON r.oid = a.grantee"
        " WHERE p.oid = 'snapring.incarnation()'::regprocedure AND a.grantee <> p.proowner"
    )
    return [role for (role,) in await cursor.fetchall()]


async def _write_grains(cursor: Cursor) -> None:
    await cursor.execute("TRUNCATE snapring.grains")
    await cursor.executemany(
        "INSERT INTO snapring.grains VALUES (%s, %s)",
        [(oid, expression.format("%s")) for oid, expression in EXPRESSIONS.items()],
    )


async def _install_event_triggers(cursor: Cursor) -> None:
    try:
        async with cursor.connection.transaction():
            await _run(cursor, "event_triggers.sql")
    except psycopg.errors.InsufficientPrivilege:
        return


async def _run(cursor: Cursor, name: str) -> None:
    await cursor.execute((files("cluster") / "sql" / name).read_bytes())


async def _one(cursor: Cursor, query: str) -> TupleRow:
    await cursor.execute(query.encode())
    row = await cursor.fetchone()
    assert row is not None, "the query returns one row"
    return row


def _cursor(connection: AsyncConnection[Any]) -> Cursor:
    return AsyncCursor(connection, row_factory=tuple_row)  # whatever the connection's own factories are
