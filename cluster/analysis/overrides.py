"""``depends = ["users", "members.team_id=$1"]``: what a query depends on, said instead of found. Pure.

Grammar::

    item  = table | table "." column "=" "$" number
    table = [schema "."] name

Names are as in SQL: folded to lower case unless in double quotes.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from cluster.analysis.scopes import Comparable
from cluster.dependencies import Dependency, Schema, obstacle_to, require_captured, whole_table
from snapring.errors import CacheRefused

_NAME: Final = r'(?:[^\W\d][\w$]*|"(?:[^"]|"")+")'
_ITEM: Final = re.compile(rf"\s*({_NAME}(?:\s*\.\s*{_NAME})*)\s*(?:=\s*\$(\d{{1,5}})\s*)?")
_PART: Final = re.compile(_NAME)
_REASON: Final = "depends says so"


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    """One item of ``depends``. ``table`` is the name as SQL text; ``column`` is folded as SQL does."""

    text: str
    table: str
    column: str | None
    param: int | None


def parse(depends: Sequence[str]) -> tuple[Override, ...]:
    """The items of ``depends``. Raises `CacheRefused`."""
    if not depends:
        raise CacheRefused("depends names no table: leave it out to have the dependencies found")
    return tuple(map(_parse_item, depends))


def resolve(
    overrides: Sequence[Override],
    oids: Mapping[str, int | None],
    schema: Schema,
    types: Sequence[int],
    comparable: Comparable,
) -> tuple[Dependency, ...]:
    """The dependencies that ``overrides`` name. Raises `CacheRefused` for what the catalog does not have.

    ``oids``: the relation behind each override's table text; ``types``: those of the query's parameters.
    """
    return tuple(_resolve(each, oids[each.table], schema, types, comparable) for each in overrides)


def _parse_item(text: str) -> Override:
    match = _ITEM.fullmatch(text)
    names = _PART.findall(match[1]) if match else []
    keyed = match is not None and match[2] is not None
    if match is None or not (2 if keyed else 1) <= len(names) <= (3 if keyed else 2):
        raise CacheRefused(f"depends: {text!r} is neither table nor table.column=$n")
    table = ".".join(names[:-1] if keyed else names)
    return Override(
        text=text,
        table=table,
        column=_fold(names[-1]) if keyed else None,
        param=int(match[2]) if keyed else None,
    )


def _fold(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name.lower()


def _resolve(
    override: Override, oid: int | None, schema: Schema, types: Sequence[int], comparable: Comparable
) -> Dependency:
    if oid is None:
        raise CacheRefused(f"depends: there is no table {override.table}")
    relation = schema.relations[oid]
    if relation.kind == "v":
        raise CacheRefused(f"depends: {relation.table} is a view: name the tables that it reads")
    require_captured(relation, schema)
    if not relation.roots or len(relation.roots) > 1:
        raise CacheRefused(f"depends: {relation.table} is not a table under capture of its own")
    tracked = schema.tracked[relation.roots[0]]
    if override.column is None or override.param is None:
        return whole_table(tracked, _REASON)
    column = next((each for each in relation.columns.values() if each.name == override.column), None)
    if column is None:
        raise CacheRefused(f"depends: {relation.table} has no column {override.column}")
    if not 0 < override.param <= len(types):
        raise CacheRefused(f"depends: {override.text!r}, but the query has {len(types)} parameter(s)")
    obstacle = obstacle_to(column, tracked)
    if obstacle is not None:
        raise CacheRefused(f"depends: {override.text!r}, but {obstacle}")
    if comparable.argument_family(types[override.param - 1]) != column.family:
        raise CacheRefused(f"depends: {override.text!r}, but ${override.param} is of another type: cast it")
    return Dependency(
        rel=tracked.oid,
        table=tracked.table,
        column=column.name,
        attnum=tracked.columns[column.name],
        param=override.param,
        reason=_REASON,
    )
