"""What must be under capture for the caches of a configuration: their tables, and the columns that can
give their entries key-grain dependencies.

The tables need not be under capture yet. A column is needed where a query compares it with an argument;
the primary-key and foreign-key columns come with every table, and those already tracked stay.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from psycopg import AsyncConnection, AsyncRawCursor
from psycopg.rows import TupleRow, tuple_row

from cluster.analysis.catalog import relations_of
from cluster.analysis.described import describe
from cluster.analysis.nodetree import NodeTextError
from cluster.analysis.overrides import Override, parse
from cluster.analysis.relevance import reads
from cluster.analysis.scopes import Comparable
from cluster.analysis.statement import require_select
from cluster.config import CacheConfig
from snapring.errors import CacheRefused, ConfigInvalid

Cursor = AsyncRawCursor[TupleRow]
Wanted = dict[int, set[str]]
"""Column names by the oid of a relation that a query reads."""

_UNSAFE: Final = "SELECT coalesce(array_agg(oid), '{}') FROM pg_collation WHERE NOT collisdeterministic"
_COLUMN: Final = "SELECT attname::text FROM pg_attribute WHERE attrelid = $1 AND attnum = $2"
_TABLE: Final = "SELECT to_regclass($1)::oid"
_TOPS: Final = """
SELECT format('%I.%I', n.nspname, t.relname),
       ARRAY(SELECT a.attname::text FROM pg_attribute a
              WHERE a.attrelid = top AND NOT a.attisdropped AND snapring.grain(top, a.attnum) IS NOT NULL
                AND (a.attname = ANY ($2::text[]) OR a.attname = ANY (snapring.default_columns(top))
                  OR a.attname = ANY (k.names))
              ORDER BY a.attnum)
  FROM pg_class c
  CROSS JOIN snapring.tops(c.oid) AS top
  JOIN pg_class t ON t.oid = top
  JOIN pg_namespace n ON n.oid = t.relnamespace
  LEFT JOIN snapring.captured k ON k.rel = top
 WHERE c.oid = $1 AND c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
   AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'snapring')
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """A table to put under capture for the sake of ``caches``; ``table`` is its name as SQL text."""

    table: str
    columns: tuple[str, ...]
    bulk_limit: int
    caches: tuple[str, ...]


async def needs(connection: AsyncConnection[Any], caches: Mapping[str, CacheConfig]) -> tuple[Need, ...]:
    """What ``caches`` need, in the order of the tables' names; the bulk limit is their smallest.

    ``connection`` is in autocommit, its database has the schema. Raises `ConfigInvalid` with the reason
    for every cache whose SQL Postgres refuses.
    """
    columns: defaultdict[str, dict[str, None]] = defaultdict(dict)
    readers: defaultdict[str, list[CacheConfig]] = defaultdict(list)
    problems = []
    for cache in caches.values():
        if cache.kind == "store":
            continue  # its table is the schema's own, and captured with it
        try:
            for table, found in (await _tables_of(connection, cache)).items():
                columns[table].update(dict.fromkeys(found))
                readers[table].append(cache)
        except (CacheRefused, NodeTextError) as error:
            problems.append(f"caches.{cache.name}.sql: {error}")
    if problems:
        raise ConfigInvalid(problems)
    return tuple(
        Need(
            table=table,
            columns=tuple(columns[table]),
            bulk_limit=min(cache.bulk_limit for cache in readers[table]),
            caches=tuple(cache.name for cache in readers[table]),
        )
        for table in sorted(columns)
    )


async def _tables_of(connection: AsyncConnection[Any], cache: CacheConfig) -> dict[str, list[str]]:
    """The tables that ``cache`` reads, a partition as the table it is of, with their columns."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    async with connection.transaction(force_rollback=True):
        cursor = AsyncRawCursor(connection, row_factory=tuple_row)
        wanted = await _compared(cursor, cache.select)
        for override in parse(cache.depends) if cache.depends else ():
            await _add_named(cursor, wanted, override)
        for rel, names in wanted.items():
            for table, columns in await _rows(cursor, _TOPS, rel, sorted(names)):
                found[table].extend(columns)
    return found


async def _compared(cursor: Cursor, sql: str) -> Wanted:
    """The relations that ``sql`` mentions, with the columns that it compares with arguments."""
    require_select(sql)
    tree = (await describe(cursor, sql)).tree
    ((unsafe,),) = await _rows(cursor, _UNSAFE)
    wanted: Wanted = {rel: set() for rel in relations_of(tree)}
    for read in reads(tree, Comparable(nondeterministic=frozenset(unsafe))):
        for attnum in read.bound:
            ((name,),) = await _rows(cursor, _COLUMN, read.relation, attnum)
            wanted.setdefault(read.relation, set()).add(name)
    return wanted


async def _add_named(cursor: Cursor, wanted: Wanted, override: Override) -> None:
    ((rel,),) = await _rows(cursor, _TABLE, override.table)
    if rel is None:
        raise CacheRefused(f"depends: there is no table {override.table}")
    wanted.setdefault(rel, set()).update({override.column} if override.column else ())


async def _rows(cursor: Cursor, statement: str, *arguments: object) -> Iterable[TupleRow]:
    await cursor.execute(statement.encode(), arguments, prepare=False)
    return await cursor.fetchall()
