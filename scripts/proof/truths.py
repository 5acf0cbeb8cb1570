"""The caches over `scripts.proof.tables`, each with the answer that its SQL stands for. Pure."""

from collections.abc import Iterable
from typing import Final

from scripts.proof.caches import Cache
from scripts.proof.history import Fields, State
from scripts.proof.tables import DEFINITIONS, GROUPS, ITEMS, MOVED, TOTALS

_IDS: Final = tuple(str(n) for n in (*range(1, ITEMS + 3), *range(MOVED + 1, MOVED + 7)))
"""Those that a deed can touch, among them some that are rarely or never there."""
_GROUP_IDS: Final = tuple(str(n) for n in range(1, GROUPS + 3))


def _item(state: State, argument: str) -> object:
    return state.get("items", argument)


def _members(state: State, argument: str) -> list[Fields]:
    return [_only(row, "id", "value") for row in _in_group(state, argument)]


def _named(state: State, argument: str) -> object:
    group = state.get("groups", argument)
    return [{**row, "name": group["name"]} for row in _members(state, argument)] if group else []


def _summed(state: State, argument: str) -> object:
    values = [row["value"] for row in _in_group(state, argument)]
    return {"n": len(values), "total": sum(values) if values else None}


def _counted(state: State, argument: str) -> object:
    row = state.get("counts", argument)
    return row and _only(row, "entered", "left_it")


def _top(state: State, _: str) -> object:
    return sorted(state.rows("ranks"), key=lambda row: (-row["points"], row["id"]))[:4]


def _rank(state: State, argument: str) -> object:
    return state.get("ranks", argument)


def _flushed(state: State, argument: str) -> object:
    row = state.get("flushed", argument)
    return row and _only(row, "value")


def _left(state: State, _: str) -> object:
    return {"n": len(state.rows("flushed"))}


def _shown(state: State, argument: str) -> object:
    definition = state.get(DEFINITIONS, "shown") or {}
    if definition["source"] == "ranks":
        row = state.get("ranks", argument)
        return row and {"id": row["id"], "value": row["points"]}
    row = state.get("items", argument)
    return row and {"id": row["id"], "value": row["value"] + definition["plus"]}


def _scaled(state: State, argument: str) -> object:
    row, definition = state.get("items", argument), state.get(DEFINITIONS, "scaled") or {}
    return row and {"id": row["id"], "value": row["value"] * definition["factor"]}


def _wide(state: State, argument: str) -> object:
    """A row as the journal has it lacks a column that came later, and has one that went since."""
    row, extra = state.get("wide", argument), (state.get(DEFINITIONS, "wide") or {})["extra"]
    if row is None or extra is None:
        return row and _only(row, "id", "value")
    written_since = state.seq("wide", argument) > state.seq(DEFINITIONS, "wide")
    return {**_only(row, "id", "value"), "extra": row["extra"] if written_since else extra}


def _part(state: State, argument: str) -> object:
    found = [row for row in state.rows("parts") if row["id"] == int(argument)]
    return _sorted((_only(row, "region", "value") for row in found), "region")


def _totals(state: State, argument: str) -> object:
    row = state.get(TOTALS, argument)
    return row and _only(row, "n", "total")


def _in_group(state: State, argument: str) -> list[Fields]:
    return _sorted((row for row in state.rows("items") if row["group_id"] == int(argument)), "id")


def _sorted(rows: Iterable[Fields], column: str) -> list[Fields]:
    return sorted(rows, key=lambda row: row[column])


def _only(row: Fields, *columns: str) -> Fields:
    return {column: row[column] for column in columns}


ITEM: Final = Cache(
    name="item",
    sql="SELECT id, group_id, value FROM items WHERE id = $1",
    single=True,
    tables=("items",),
    truth=_item,
    arguments=_IDS,
)
MEMBERS: Final = Cache(
    name="members",
    sql="SELECT id, value FROM items WHERE group_id = $1 ORDER BY id",
    tables=("items",),
    truth=_members,
    arguments=_GROUP_IDS,
)
NAMED: Final = Cache(
    name="named",
    sql="SELECT i.id, i.value, g.name FROM items i JOIN groups g ON g.id = i.group_id"
    " WHERE g.id = $1 ORDER BY i.id",
    tables=("items", "groups"),
    truth=_named,
    arguments=_GROUP_IDS,
)
SUMMED: Final = Cache(
    name="summed",
    sql="SELECT count(*)::int AS n, sum(value)::int AS total FROM items WHERE group_id = $1",
    single=True,
    tables=("items",),
    truth=_summed,
    arguments=_GROUP_IDS,
)
COUNTED: Final = Cache(
    name="counted",
    sql="SELECT entered, left_it FROM counts WHERE id = $1",
    single=True,
    tables=("counts",),
    truth=_counted,
    arguments=_GROUP_IDS,
)
SLOW: Final = Cache(
    name="slow",
    sql="SELECT id, slowly(value) AS value FROM items WHERE group_id = $1 ORDER BY id",
    tables=("items",),
    truth=_members,
    arguments=_GROUP_IDS,
)
TOP: Final = Cache(
    name="top",
    sql="SELECT id, points FROM ranks ORDER BY points DESC, id LIMIT 4",
    tables=("ranks",),
    truth=_top,
)
RANK: Final = Cache(
    name="rank",
    sql="SELECT id, points FROM ranks WHERE id = $1",
    single=True,
    tables=("ranks",),
    truth=_rank,
    arguments=_IDS[:ITEMS],
)
FLUSHED: Final = Cache(
    name="flushed",
    sql="SELECT value FROM flushed WHERE id = $1",
    single=True,
    tables=("flushed",),
    truth=_flushed,
    arguments=_IDS[: ITEMS + 1],
)
LEFT: Final = Cache(
    name="left",
    sql="SELECT count(*)::int AS n FROM flushed",
    single=True,
    tables=("flushed",),
    truth=_left,
)
SHOWN: Final = Cache(
    name="shown",
    sql="SELECT id, value FROM shown WHERE id = $1",
    single=True,
    tables=("items", "ranks", DEFINITIONS),
    truth=_shown,
    arguments=_IDS[:6],
)
SCALED: Final = Cache(
    name="scaled",
    sql="SELECT id, scaled(value) AS value FROM items WHERE id = $1",
    single=True,
    tables=("items", DEFINITIONS),
    truth=_scaled,
    arguments=_IDS[:6],
)
WIDE: Final = Cache(
    name="wide",
    sql="SELECT * FROM wide WHERE id = $1",
    single=True,
    tables=("wide", DEFINITIONS),
    truth=_wide,
    arguments=_IDS[: ITEMS + 1],
)
PART: Final = Cache(
    name="part",
    sql="SELECT region, value FROM parts WHERE id = $1 ORDER BY region",
    tables=("parts",),
    truth=_part,
    arguments=_IDS[: ITEMS + 1],
)
SUMMARY: Final = Cache(
    name="totals",
    sql="SELECT n, total FROM totals WHERE group_id = $1",
    single=True,
    tables=(TOTALS,),
    truth=_totals,
    arguments=_GROUP_IDS,
)

WRITERS: Final = 3
"""How many writers the store cache has, at most."""
SHARED_KEYS: Final = tuple(f"shared:{n}" for n in range(3))


def mark_of(writer: int) -> str:
    """The key that a writer replaces with each write."""
    return f"mark:{writer}"


def own_keys_of(writer: int) -> tuple[str, ...]:
    """Keys that nobody else writes to."""
    return tuple(f"own:{writer}:{n}" for n in range(4))


SETTINGS: Final = Cache(
    name="settings",
    tables=("settings",),
    truth=lambda state, argument: state.get("settings", argument),
    arguments=(
        *(key for writer in range(WRITERS) for key in (mark_of(writer), *own_keys_of(writer))),
        *SHARED_KEYS,
        "never",
    ),
)

ROWS: Final = (ITEM, MEMBERS, NAMED, SUMMED, COUNTED, RANK, TOP, PART)
SHAPES: Final = (FLUSHED, LEFT, SHOWN, SCALED, WIDE, SUMMARY)
EVERY: Final = (*ROWS, *SHAPES, SETTINGS)
BY_NAME: Final = {cache.name: cache for cache in (*EVERY, SLOW)}
