"""Which rows the answer of a query depends on. Pure.

For each table that a query reads: the rows in which one column equals one argument, where every row
that can matter has that value there; the table as a whole otherwise. A finding that says too much only
ends entries too early; one that says too little would be a lie, so whatever is in doubt is the whole table.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from cluster.analysis.relevance import Read
from snapring.errors import CacheRefused

_TABLES: Final = ("r", "p")
_MATERIALIZED: Final = "m"
_NOT_TABLES: Final = {
    "f": "is a foreign table, whose changes nobody here sees",
    "S": "is a sequence, which changes outside of transactions",
    "v": "is a view that Postgres did not expand",
}
_CATALOGS: Final = ("pg_catalog", "information_schema", "pg_toast")


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependency:
    """What one answer depends on in one table: the rows in which ``column`` equals the argument ``param``,
    or, where both are None, the table as a whole.

    ``rel`` and ``attnum`` are those of the table put under capture (for a partition: its root); ``table`` is
    its name, quoted for SQL. ``reason`` says why the finding is what it is.
    """

    rel: int
    table: str
    column: str | None
    attnum: int | None
    param: int | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of a relation. ``family``: its values are told apart by their text, and compare with those
    of types of the same family; None where they are not. ``unique``: it alone identifies a row."""

    attnum: int
    name: str
    family: int | None
    unique: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracked:
    """A table under capture, with the columns whose values its changes name, by column name."""

    oid: int
    table: str
    columns: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Relation:
    """A relation that a query reads, as the catalog has it.

    ``roots``: the tables under capture whose changes name rows of this one or of its children;
    ``uncaptured``: which of these are under no capture. ``kind`` is ``pg_class.relkind``.
    """

    oid: int
    table: str
    schema: str
    kind: str
    temporary: bool
    columns: Mapping[int, Column]
    roots: tuple[int, ...] = ()
    uncaptured: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """The relations that a query reads, and the tables under capture behind them.

    ``refresh_followed``: DDL, and so REFRESH MATERIALIZED VIEW, is written to the changes.
    """

    relations: Mapping[int, Relation]
    tracked: Mapping[int, Tracked]
    refresh_followed: bool = True


def find(reads: Iterable[Read], schema: Schema) -> tuple[Dependency, ...]:
    """What a query depends on that makes ``reads``, in the order of the tables' names.

    Raises `CacheRefused` if one of them reads something whose changes are not captured.
    """
    found: dict[tuple[int, int | None, int | None], Dependency] = {}
    for read in reads:
        for dependency in _of_read(read, schema):
            found.setdefault((dependency.rel, dependency.attnum, dependency.param), dependency)
    whole = {rel for rel, attnum, _ in found if attnum is None}
    needed = [each for each in found.values() if each.attnum is None or each.rel not in whole]
    return tuple(sorted(needed, key=lambda each: (each.table, each.attnum or 0, each.param or 0)))


def require_captured(relation: Relation, schema: Schema) -> None:
    """Raise `CacheRefused` unless every change of what ``relation`` holds is written down."""
    name = relation.table
    if relation.temporary:
        raise CacheRefused(f"{name} is temporary, and only its own session sees it: use a permanent table")
    if relation.schema in _CATALOGS:
        raise CacheRefused(f"{name} is part of the system catalog, whose changes are not captured")
    if relation.kind in _NOT_TABLES:
        raise CacheRefused(f"{name} {_NOT_TABLES[relation.kind]}: copy what you need into a table")
    if relation.kind == _MATERIALIZED:
        if not schema.refresh_followed:
            raise CacheRefused(
                f"{name} is a materialized view, and without event triggers nobody sees it refreshed: "
                "let a superuser run snapring init"
            )
        return
    if relation.kind not in _TABLES:
        raise CacheRefused(f"{name} is nothing whose changes can be captured")
    if relation.uncaptured:
        raise CacheRefused(_untracked(relation, schema))


def obstacle_to(column: Column, tracked: Tracked) -> str | None:
    """Why the changes of a table do not tell rows apart by ``column``, None if they do."""
    if column.family is None:
        return f"the values of {column.name} cannot be told apart by their text (by its type or collation)"
    if column.name not in tracked.columns:
        columns = ",".join((*tracked.columns, column.name))
        return f"column {column.name} is not tracked: snapring track {tracked.table} --columns {columns}"
    return None


def whole_table(tracked: Tracked, reason: str) -> Dependency:
    """The dependency on all of a table."""
    return Dependency(
        rel=tracked.oid, table=tracked.table, column=None, attnum=None, param=None, reason=reason
    )


def _untracked(relation: Relation, schema: Schema) -> str:
    missing = ", ".join(relation.uncaptured)
    if not relation.roots:
        return f"changes of {relation.table} are not captured: snapring track {relation.table}"
    roots = " ".join(schema.tracked[root].table for root in relation.roots)
    return f"{relation.table} is under capture, its child {missing} is not: snapring track {roots}"


def _of_read(read: Read, schema: Schema) -> Iterator[Dependency]:
    relation = schema.relations[read.relation]
    require_captured(relation, schema)
    if relation.kind == _MATERIALIZED:
        yield whole_table(
            Tracked(oid=relation.oid, table=relation.table), "a materialized view changes as a whole"
        )
    elif len(relation.roots) > 1:
        for root in relation.roots:
            yield whole_table(
                schema.tracked[root], f"{relation.table} has children under capture of their own"
            )
    else:
        yield from _of_table(read, relation, schema.tracked[relation.roots[0]])


def _of_table(read: Read, relation: Relation, tracked: Tracked) -> Iterator[Dependency]:
    reasons = []
    usable = []
    for attnum in sorted(read.bound):
        column = relation.columns[attnum]
        obstacle = obstacle_to(column, tracked)
        if obstacle is None:
            usable.append(column)
        else:
            reasons.append(f"{read.bound[attnum][1]}, but {obstacle}")
    if not usable:
        yield whole_table(tracked, "; ".join(reasons) or f"no column of {read.alias} must equal an argument")
        return
    column = min(usable, key=lambda each: (len(read.bound[each.attnum][0]), not each.unique, each.attnum))
    arguments, why = read.bound[column.attnum]
    for number in sorted(arguments):
        yield Dependency(
            rel=tracked.oid,
            table=tracked.table,
            column=column.name,
            attnum=tracked.columns[column.name],
            param=number,
            reason=why,
        )
