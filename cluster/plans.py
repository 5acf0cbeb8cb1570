"""A cache's SQL, analysed and made ready to run: what a load sends and which tags its entries get.

A plan is true for one version of the catalog. Every load reads the version once it has read its rows; where
it is not the plan's, the plan is made again before anything of the load is used.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import psycopg
from pglast import ast, parse_sql
from psycopg.rows import TupleRow

from cluster.analysis.catalog import Analysis, analyse
from cluster.analysis.statement import reads_clock
from cluster.config import CacheConfig
from cluster.dependencies import Dependency
from cluster.postgres import Connection
from cluster.tags import bulk_tag, table_tag, tag_expression
from snapring.errors import ArgumentInvalid, CacheRefused, CatalogChanging

_SETTLING_ATTEMPTS: Final = 100
_SETTLING_PAUSE_S: Final = 0.01
"""A commit of DDL takes microseconds from showing in snapshots to having told every session."""

_LOCKABLE: Final = ("r", "p", "v")
_READABLE: Final = """
SELECT c.oid, format('%I.%I', n.nspname, c.relname), c.relkind::text
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.oid = ANY ($1::oid[]) AND (c.relkind = 'm' OR has_table_privilege(c.oid, 'SELECT')) ORDER BY c.oid
"""
_TYPE_NAMES: Final = """
SELECT format_type(type, NULL) FROM unnest($1::oid[]) WITH ORDINALITY AS p(type, place) ORDER BY place
"""

HISTORY: Final = "@history"
"""The plan that finds the version of a key at a snapshot: its arguments."""

LISTING: Final = "@listing"
"""The plan that lists keys: prefix, the key after which, how many, and the snapshot or nothing for now."""

MAX_LISTED: Final = 10_000

_BUILT_IN: Final = {
    HISTORY: ("SELECT value, version FROM snapring.version_at($1, $2::pg_snapshot)", 2),
    LISTING: ("SELECT key, version FROM snapring.listing($1, $2, $3::int, nullif($4, '')::pg_snapshot)", 4),
}
"""What the functions of the schema answer: SQL and number of parameters, by the name of the plan."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to run for one cache.

    ``sql`` returns at most ``max_rows`` + 1 rows. ``tag_sql``, where there are key-grain dependencies,
    takes one text array per parameter in ``tag_parameters`` and returns a row per array position:
    the key tags of a load with those arguments. ``tags`` are those of every entry.

    TRUNCATE, and DDL that rewrites a table, show through older snapshots: they must not come between
    the snapshot of a load and its reading the table. ``lock`` keeps them out where Postgres can lock;
    ``unlockable`` are the materialized views, which it cannot, and whose files must not have changed.
    ``catalog_version`` is the one that the plan is for, None for any.
    """

    cache: CacheConfig
    sql: str
    max_rows: int
    parameters: int
    clock_parameters: tuple[int, ...]
    columns: tuple[str, ...]
    tag_sql: str | None
    tag_parameters: tuple[int, ...]
    tags: tuple[int, ...]
    lock: str | None
    unlockable: tuple[int, ...]
    catalog_version: str | None

    def check(self, args: Sequence[str]) -> None:
        """Raise `ArgumentInvalid` where ``args`` cannot be the query's arguments."""
        if len(args) != self.parameters:
            bound = int(self.cache.tenant_argument)  # $1 is the tenant, which is no argument of the key
            raise ArgumentInvalid(
                f"cache {self.cache.name} takes {self.parameters - bound} argument(s),"
                f" the key has {len(args) - bound}"
            )
        if any("\0" in argument for argument in args):
            raise ArgumentInvalid("an argument has a NUL character, which no text in Postgres can have")
        for number in self.clock_parameters:
            if reads_clock(args[number - 1]):
                raise ArgumentInvalid(f"argument {number} reads the clock: write the date or time itself")

    def tag_arguments(self, batch: Sequence[Sequence[str]]) -> list[list[str]]:
        """The arguments of ``tag_sql`` for a batch of loads' ``args``."""
        return [[args[number - 1] for args in batch] for number in self.tag_parameters]


def make_plan(
    cache: CacheConfig,
    analysis: Analysis,
    type_names: Sequence[str],
    relations: Sequence[tuple[int, str, str]],
) -> Plan:
    """The plan of ``cache`` under ``analysis`` of its SQL.

    ``type_names``: of its parameters, for SQL. ``relations``: oid, quoted name and ``relkind`` of what the
    load's role may read itself (what it reads through a view is locked with the view), and of every
    materialized view.
    """
    keyed = [found for found in analysis.dependencies if found.param is not None]
    numbers = tuple(sorted({found.param for found in keyed if found.param is not None}))
    static = {bulk_tag(found.rel) if found.param else table_tag(found.rel) for found in analysis.dependencies}
    max_rows = 1 if cache.one_row else cache.max_rows
    return Plan(
        cache=cache,
        sql=_bounded(cache.select, max_rows),
        max_rows=max_rows,
        parameters=analysis.parameters,
        clock_parameters=analysis.clock_parameters,
        columns=analysis.columns,
        tag_sql=_tag_sql(keyed, numbers, analysis.parameter_types, type_names) if keyed else None,
        tag_parameters=numbers,
        tags=tuple(sorted(static)),
        lock=_lock_statement(name for _, name, kind in relations if kind in _LOCKABLE),
        unlockable=tuple(oid for oid, _, kind in relations if kind not in _LOCKABLE),
        catalog_version=analysis.catalog_version,
    )


def _lock_statement(names: Iterable[str]) -> str | None:
    listed = ", ".join(names)
    return f"LOCK TABLE {listed} IN ACCESS SHARE MODE" if listed else None


def built_in_plan(cache: CacheConfig) -> Plan:
    """One of the plans that belong to no cache: what they load depends on nothing, since none of it is kept."""
    sql, parameters = _BUILT_IN[cache.name]
    return Plan(
        cache=cache,
        sql=sql,
        max_rows=cache.max_rows,
        parameters=parameters,
        clock_parameters=(),
        columns=(),
        tag_sql=None,
        tag_parameters=(),
        tags=(),
        lock=_lock_statement(("snapring.heads", "snapring.history")),
        unlockable=(),
        catalog_version=None,
    )


def _tag_sql(
    keyed: Sequence[Dependency], numbers: Sequence[int], types: Sequence[int], type_names: Sequence[str]
) -> str:
    """One row of key tags for each position of the argument arrays, in their order."""
    tags = []
    for found in keyed:
        assert found.param is not None, "key grain has a parameter"
        assert found.attnum is not None, "key grain has a column"
        argument = f"a.p{found.param}::{type_names[found.param - 1]}"
        tags.append(tag_expression(found.rel, found.attnum, argument, types[found.param - 1]))
    arrays = ", ".join(f"${position}::text[]" for position in range(1, len(numbers) + 1))
    names = ", ".join(f"p{number}" for number in numbers)
    return f"SELECT {', '.join(tags)} FROM unnest({arrays}) WITH ORDINALITY AS a({names}, place) ORDER BY a.place"


def _bounded(sql: str, max_rows: int) -> str:
    """The query with a LIMIT one above what is allowed, unless it has a LIMIT of its own."""
    (parsed,) = parse_sql(sql)
    assert isinstance(parsed.stmt, ast.SelectStmt), "the analysis lets nothing else through"
    if parsed.stmt.limitCount is not None:
        return sql
    end = (parsed.stmt_location or 0) + parsed.stmt_len if parsed.stmt_len else len(sql)
    return f"{sql[:end]}\nLIMIT {max_rows + 1}"


class Plans:
    """The plan of every cache, or why it has none, under the newest catalog seen."""

    def __init__(self, caches: Mapping[str, CacheConfig]) -> None:
        built_in = {name: CacheConfig(name=name, kind="store", max_rows=MAX_LISTED) for name in _BUILT_IN}
        self._caches = {**caches, **built_in}
        self._plans: dict[str, Plan | CacheRefused] = {}
        self._analysing = {name: asyncio.Lock() for name in self._caches}
        self._forgotten = 0

    def __repr__(self) -> str:
        return f"<Plans {len(self._plans)} of {len(self._caches)} known, {len(self.refusals())} refused>"

    def known(self, cache: str) -> Plan | None:
        """The plan of ``cache``, None where it must be analysed (again). Raises `CacheRefused`."""
        found = self._plans.get(cache)
        if isinstance(found, CacheRefused):
            raise found
        return found

    async def get(self, cache: str, connection: Connection) -> Plan:
        """The plan of ``cache``, made now where there is none. Raises `CacheRefused`, `psycopg.Error`."""
        async with self._analysing[cache]:  # one at a time for this cache; another must not wait for it
            plan = self.known(cache)
            if plan is None:
                plan = await self._make(self._caches[cache], connection)
            return plan

    def discard(self, plan: Plan) -> None:
        """``plan`` was made for another catalog than the one a load met."""
        if self._plans.get(plan.cache.name) is plan:
            del self._plans[plan.cache.name]

    def forget(self) -> None:
        """The catalog changed: analyse every cache again before its next load."""
        self._forgotten += 1
        self._plans.clear()

    def refusals(self) -> dict[str, CacheRefused]:
        """Every cache that cannot be served under the current catalog, and why."""
        return {name: why for name, why in self._plans.items() if isinstance(why, CacheRefused)}

    async def _make(self, cache: CacheConfig, connection: Connection) -> Plan:
        if cache.name in _BUILT_IN:
            return built_in_plan(cache)
        forgotten = self._forgotten
        try:
            analysis = await _analyse(cache, connection)
        except (CacheRefused, psycopg.errors.InsufficientPrivilege) as refusal:
            named = CacheRefused(f"cache {cache.name}: {refusal}")
            if forgotten == self._forgotten:  # else it may no longer be true, and nothing would end it
                self._plans[cache.name] = named
            raise named from refusal
        types = await _fetch(connection, _TYPE_NAMES, analysis.parameter_types)
        relations = await _fetch(connection, _READABLE, analysis.relations)
        plan = make_plan(cache, analysis, [name for (name,) in types], relations)
        self._plans[cache.name] = plan
        return plan


async def _analyse(cache: CacheConfig, connection: Connection) -> Analysis:
    """The analysis of ``cache`` at a version of the catalog that every session had heard of before."""
    for _ in range(_SETTLING_ATTEMPTS):
        settled = await _settled(connection)
        analysis = await analyse(connection, cache.select, depends=cache.depends)
        if analysis.catalog_version == settled:
            return analysis
        await asyncio.sleep(_SETTLING_PAUSE_S)
    raise CatalogChanging("DDL follows on DDL faster than the query can be analysed anew: retry")


async def _settled(connection: Connection) -> str | None:
    try:
        cursor = await connection.execute("SELECT snapring.settled_catalog_version()", prepare=False)
    except (psycopg.errors.UndefinedFunction, psycopg.errors.InvalidSchemaName):
        return None  # the analysis says what is missing
    ((version,),) = await cursor.fetchall()
    return version if isinstance(version, str) else None


async def _fetch(connection: Connection, sql: str, oids: Sequence[int]) -> list[TupleRow]:
    cursor = await connection.execute(sql, (list(oids),), prepare=False)
    return await cursor.fetchall()
