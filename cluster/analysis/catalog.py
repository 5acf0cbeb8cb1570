"""Analysing a query: the I/O around the pure finding. Reads from the catalog what the finding needs."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

import psycopg
from psycopg import AsyncConnection, AsyncRawCursor
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow, tuple_row

from cluster.analysis.described import Described, describe
from cluster.analysis.nodetree import Node, NodeTextError, read
from cluster.analysis.overrides import Override, parse, resolve
from cluster.analysis.purity import (
    Function,
    Library,
    clock_parameters,
    operators_of,
    require_pure,
    types_used,
)
from cluster.analysis.relevance import reads
from cluster.analysis.scopes import Comparable
from cluster.analysis.statement import require_select
from cluster.dependencies import Column, Dependency, Relation, Schema, Tracked, find, require_captured
from snapring.errors import CacheRefused, CatalogChanging

_ATTEMPTS: Final = 3
_BEGIN: Final = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_HEAD: Final = "SELECT snapring.catalog_version()"
_NOT_INSTALLED: Final = (
    psycopg.errors.InvalidSchemaName,
    psycopg.errors.UndefinedFunction,
    psycopg.errors.UndefinedTable,
)

_NONDETERMINISTIC: Final = "SELECT oid FROM pg_collation WHERE NOT collisdeterministic"
_TYPES: Final = """
WITH RECURSIVE part(origin, type) AS (
    SELECT t.oid, t.oid FROM pg_type t WHERE t.oid = ANY ($1::oid[])
     UNION
    SELECT p.origin, below.type
      FROM part p
      JOIN pg_type t ON t.oid = p.type
      CROSS JOIN LATERAL (
            SELECT t.typelem UNION ALL SELECT t.typbasetype
             UNION ALL SELECT r.rngsubtype FROM pg_range r WHERE t.oid IN (r.rngtypid, r.rngmultitypid)
             UNION ALL SELECT a.atttypid FROM pg_attribute a
                        WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
      ) AS below(type)
     WHERE below.type <> 0
)
SELECT p.origin, t.oid, t.typtype::text,
       CASE WHEN t.typtype = 'b' AND t.typcategory <> 'A' AND n.nspname <> 'pg_catalog'
            THEN ARRAY[t.typinput::oid, t.typoutput::oid] ELSE '{}' END
  FROM part p JOIN pg_type t ON t.oid = p.type JOIN pg_namespace n ON n.oid = t.typnamespace
 ORDER BY p.origin
"""
_CHECKS: Final = """
SELECT contypid, conbin::text FROM pg_constraint WHERE contypid = ANY ($1::oid[]) AND contype = 'c'
"""
_OPERATORS: Final = "SELECT oid, oprcode::oid FROM pg_operator WHERE oid = ANY ($1::oid[])"
_FUNCTIONS: Final = """
WITH called AS (SELECT unnest($1::oid[]) AS oid),
parts AS (
    SELECT a.aggfnoid::oid AS whole, array_agg(DISTINCT part.oid) AS oids
      FROM pg_aggregate a
      JOIN pg_proc p ON p.oid = a.aggfnoid AND p.pronamespace <> 'pg_catalog'::regnamespace
      CROSS JOIN LATERAL unnest(ARRAY[a.aggtransfn::oid, a.aggfinalfn::oid, a.aggcombinefn::oid,
                 a.aggserialfn::oid, a.aggdeserialfn::oid, a.aggmtransfn::oid, a.aggminvtransfn::oid,
                 a.aggmfinalfn::oid]) AS part(oid)
     WHERE a.aggfnoid IN (SELECT oid FROM called) AND part.oid <> 0
     GROUP BY 1
)
SELECT p.oid, p.oid::regprocedure::text, n.nspname::text, p.proname::text, p.provolatile::text,
       p.proargtypes::oid[] || p.prorettype, coalesce(parts.oids, '{}')
  FROM pg_proc p
  JOIN pg_namespace n ON n.oid = p.pronamespace
  LEFT JOIN parts ON parts.whole = p.oid
 WHERE p.oid IN (SELECT oid FROM called UNION SELECT unnest(oids) FROM parts)
"""
_REGCLASS: Final = "SELECT name, to_regclass(name)::oid FROM unnest($1::text[]) AS name"
_RELATIONS: Final = """
SELECT c.oid, format('%I.%I', n.nspname, c.relname), n.nspname::text, c.relkind::text, c.relpersistence = 't'
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.oid = ANY ($1::oid[])
"""
_FAMILIES: Final = """
WITH RECURSIVE family(origin, rel) AS (
    SELECT oid, oid FROM pg_class WHERE oid = ANY ($1::oid[])
     UNION
    SELECT f.origin, i.inhrelid FROM family f JOIN pg_inherits i ON i.inhparent = f.rel
)
SELECT f.origin, format('%I.%I', n.nspname, c.relname), t.root
  FROM family f
  JOIN pg_class c ON c.oid = f.rel
  JOIN pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN snapring.tracked t ON t.rel = f.rel
 ORDER BY f.origin, 2
"""
_COLUMNS: Final = """
SELECT a.attrelid, a.attnum, a.attname::text, a.atttypid, a.attcollation, a.attgenerated = 'v',
       EXISTS (SELECT FROM pg_index i
                WHERE i.indrelid = a.attrelid AND i.indisunique AND i.indnkeyatts = 1
                  AND i.indkey[0] = a.attnum AND i.indpred IS NULL)
  FROM pg_attribute a
 WHERE a.attrelid = ANY ($1::oid[]) AND a.attnum > 0 AND NOT a.attisdropped
"""
_TRACKED: Final = """
SELECT t.rel, format('%I.%I', n.nspname, c.relname), a.attname::text, a.attnum
  FROM snapring.tracked t
  JOIN pg_class c ON c.oid = t.rel
  JOIN pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN pg_attribute a ON a.attrelid = t.rel AND a.attnum = ANY (t.columns) AND NOT a.attisdropped
 WHERE t.rel = ANY ($1::oid[])
 ORDER BY t.rel, a.attnum
"""
_DOMAINS: Final = """
WITH RECURSIVE base(type, below, kind, next) AS (
    SELECT oid, oid, typtype, typbasetype FROM pg_type WHERE typtype = 'd'
     UNION ALL
    SELECT b.type, t.oid, t.typtype, t.typbasetype
      FROM base b JOIN pg_type t ON t.oid = b.next WHERE b.kind = 'd'
)
SELECT type, below FROM base WHERE kind <> 'd'
"""
_DDL_FOLLOWED: Final = "SELECT snapring.ddl_captured()"


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """What is known of a cache's SQL under one version of the catalog.

    ``parameters``: how many; ``parameter_types``, ``column_types``: type oids. ``clock_parameters``: the
    parameters (from 1) read as a date or time, whose arguments must not be relative to now
    (`cluster.analysis.statement.reads_clock`). ``relations``: every relation that the query mentions, views
    included. ``overridden``: the dependencies are those of ``depends``. ``notes``: for the reader.
    """

    dependencies: tuple[Dependency, ...]
    parameters: int
    parameter_types: tuple[int, ...]
    columns: tuple[str, ...]
    column_types: tuple[int, ...]
    relations: tuple[int, ...]
    clock_parameters: tuple[int, ...]
    catalog_version: str
    overridden: bool = False
    notes: tuple[str, ...] = ()


class _CatalogMovedError(Exception):
    """The tree mentions something that the snapshot of the catalog does not have."""


async def analyse(
    connection: AsyncConnection[TupleRow], sql: str, *, depends: Sequence[str] | None = None
) -> Analysis:
    """Find what the answer of ``sql`` depends on, or take it from ``depends``.

    ``connection`` is idle and in autocommit. Everything is read in one snapshot, and
    ``catalog_version`` is of that snapshot. Raises `CacheRefused` where the query cannot be cached
    exactly, with the reason and the remedy, `CatalogChanging` where DDL gives it no time, and
    `psycopg.Error` where Postgres cannot be asked.
    """
    require_select(sql)
    overrides = None if depends is None else parse(depends)
    cursor = AsyncRawCursor(connection, row_factory=tuple_row)
    for _ in range(_ATTEMPTS):
        await cursor.execute(_BEGIN, prepare=False)
        try:
            return await _Catalog(cursor).analyse(sql, overrides)
        except _CatalogMovedError:
            continue
        except NodeTextError as error:
            raise CacheRefused(f"Snapring cannot follow the query: {error}") from error
        except RecursionError:
            raise CacheRefused("the query is nested too deeply for Snapring to follow it") from None
        finally:
            if connection.info.transaction_status in (TransactionStatus.INTRANS, TransactionStatus.INERROR):
                await cursor.execute("ROLLBACK", prepare=False)
    raise CatalogChanging("DDL follows on DDL faster than the query can be analysed anew: retry")


class _Catalog:
    """The catalog at one snapshot, read through a cursor that is in a transaction."""

    def __init__(self, cursor: AsyncRawCursor[TupleRow]) -> None:
        self._cursor = cursor

    async def analyse(self, sql: str, overrides: tuple[Override, ...] | None) -> Analysis:
        catalog_version = await self._head()
        query = await describe(self._cursor, sql)
        comparable = await self._comparable()
        library = await self._library(query)
        mentioned = relations_of(query.tree)
        named = await self._named(overrides or ())
        oids = {*mentioned, *(oid for oid in named.values() if oid is not None)}
        schema = await self._schema(sorted(oids), comparable)
        _require_no_system_views(mentioned, schema)
        require_pure(query.tree, library, sql, trust_stable=overrides is not None)
        found = find(reads(query.tree, comparable), schema)
        notes: tuple[str, ...] = ()
        if overrides is not None:
            said = resolve(overrides, named, schema, query.parameter_types, comparable)
            found, notes = said, _left_out(found, said)
        return Analysis(
            dependencies=found,
            parameters=len(query.parameter_types),
            parameter_types=query.parameter_types,
            columns=query.columns,
            column_types=query.column_types,
            relations=tuple(mentioned),
            clock_parameters=clock_parameters(query.tree, library, query.parameter_types),
            catalog_version=catalog_version,
            overridden=overrides is not None,
            notes=notes,
        )

    async def _head(self) -> str:
        try:
            ((catalog_version,),) = await self._rows(_HEAD)
        except _NOT_INSTALLED as error:
            raise CacheRefused("the database has no schema snapring yet: snapring init") from error
        return str(catalog_version)

    async def _comparable(self) -> Comparable:
        return Comparable(
            domains=dict(await self._rows(_DOMAINS)),
            nondeterministic=frozenset(oid for (oid,) in await self._rows(_NONDETERMINISTIC)),
        )

    async def _library(self, query: Described) -> Library:
        """What of the catalog the expressions of ``query`` use."""
        used = types_used(query.tree).union(query.parameter_types)
        contents: dict[int, frozenset[int]] = {}
        io: dict[int, tuple[int, ...]] = {}
        domains: set[int] = set()
        for origin, parts in groupby(await self._rows(_TYPES, sorted(used)), key=lambda row: row[0]):
            found = list(parts)
            contents[origin] = frozenset(row[1] for row in found)
            io.update((row[1], tuple(row[3])) for row in found)
            domains.update(row[1] for row in found if row[2] == "d")
        checks: dict[int, tuple[Node, ...]] = {}
        for domain, text in await self._rows(_CHECKS, sorted(domains)):
            checks[domain] = (*checks.get(domain, ()), *read(text))
        nodes = [node for tree in (query.tree, *sum(checks.values(), ())) for node in tree.walk()]
        operators = await self._operators({oid for node in nodes for oid in operators_of(node)})
        calls = {node.number(f) for node in nodes for f in ("funcid", "aggfnoid", "winfnoid") if f in node}
        called = calls.union(operators.values(), *io.values())
        functions = await self._functions(called)
        return Library(functions=functions, operators=operators, contents=contents, io=io, checks=checks)

    async def _operators(self, oids: set[int]) -> dict[int, int]:
        rows = await self._rows(_OPERATORS, sorted(oids))
        _require_all(oids, (row[0] for row in rows))
        return dict(rows)

    async def _functions(self, oids: set[int]) -> dict[int, Function]:
        rows = await self._rows(_FUNCTIONS, sorted(oids))
        _require_all(oids - {0}, (row[0] for row in rows))
        return {
            oid: Function(
                signature=signature,
                schema=schema,
                name=name,
                volatility=volatility,
                types=frozenset(types),
                parts=tuple(parts),
            )
            for oid, signature, schema, name, volatility, types, parts in rows
        }

    async def _named(self, overrides: Iterable[Override]) -> dict[str, int | None]:
        names = sorted({override.table for override in overrides})
        return dict(await self._rows(_REGCLASS, names)) if names else {}

    async def _schema(self, oids: list[int], comparable: Comparable) -> Schema:
        columns: dict[int, dict[int, Column]] = {}
        for rel, attnum, name, type_oid, collation, virtual, unique in await self._rows(_COLUMNS, oids):
            # A virtual generated column has no value in the transition tables that capture reads.
            family = None if virtual else comparable.family(type_oid, collation)
            column = Column(attnum=attnum, name=name, family=family, unique=unique)
            columns.setdefault(rel, {})[attnum] = column
        roots: dict[int, dict[int, None]] = {}
        uncaptured: dict[int, list[str]] = {}
        for origin, member, root in await self._rows(_FAMILIES, oids):
            if root is None:
                uncaptured.setdefault(origin, []).append(member)
            else:
                roots.setdefault(origin, {})[root] = None
        rows = await self._rows(_RELATIONS, oids)
        _require_all(oids, (row[0] for row in rows))
        relations = {
            oid: Relation(
                oid=oid,
                table=table,
                schema=schema,
                kind=kind,
                temporary=temporary,
                columns=columns.get(oid, {}),
                roots=tuple(roots.get(oid, ())),
                uncaptured=tuple(uncaptured.get(oid, ())),
            )
            for oid, table, schema, kind, temporary in rows
        }
        tracked = await self._tracked({root for found in roots.values() for root in found})
        ((followed,),) = await self._rows(_DDL_FOLLOWED)
        return Schema(relations=relations, tracked=tracked, refresh_followed=followed)

    async def _tracked(self, roots: set[int]) -> dict[int, Tracked]:
        rows = await self._rows(_TRACKED, sorted(roots))
        _require_all(roots, (row[0] for row in rows))
        found = {}
        for (oid, table), columns in groupby(rows, key=lambda row: (row[0], row[1])):
            numbers = {name: attnum for _, _, name, attnum in columns if name is not None}
            found[oid] = Tracked(oid=oid, table=table, columns=numbers)
        return found

    async def _rows(self, statement: str, *arguments: object) -> list[TupleRow]:
        await self._cursor.execute(statement, arguments, prepare=False)
        return await self._cursor.fetchall()


def relations_of(tree: Node) -> list[int]:
    """Every relation that a query mentions, views included."""
    entries = (node for node in tree.walk() if node.label == "RANGETBLENTRY" and "relid" in node)
    return sorted({entry.number("relid") for entry in entries} - {0})


def _require_all(sought: Iterable[int], found: Iterable[int]) -> None:
    if not set(sought) <= set(found):
        raise _CatalogMovedError


def _require_no_system_views(mentioned: Iterable[int], schema: Schema) -> None:
    for oid in mentioned:
        relation = schema.relations[oid]
        if relation.kind == "v" and relation.schema in ("pg_catalog", "information_schema"):
            require_captured(relation, schema)


def _left_out(found: Iterable[Dependency], said: Iterable[Dependency]) -> tuple[str, ...]:
    named = {dependency.rel for dependency in said}
    missing = dict.fromkeys(each.table for each in found if each.rel not in named)
    return tuple(f"the query reads {table}, whose changes depends leaves out" for table in missing)
