"""A schema, and random rows and writes in it, for the differential test of the dependency finding.

Everything is drawn from a `Choices`, which remembers what it drew: a query can be made again from a
shortened record, and where the record ends the simplest option is taken. That is how cases shrink.
"""

from collections.abc import Sequence
from random import Random
from typing import Final, TypeVar

T = TypeVar("T")

SCHEMA: Final = """
CREATE TYPE mood AS ENUM ('sad', 'ok', 'glad');
CREATE TABLE t0 (gone int, id int PRIMARY KEY, a int, b int, s text, f bool);
ALTER TABLE t0 DROP COLUMN gone;
CREATE TABLE t1 (id int PRIMARY KEY, t0_id int REFERENCES t0 ON DELETE CASCADE ON UPDATE CASCADE,
                 a int8, s varchar(10), n numeric, e mood);
CREATE TABLE t2 (id int8 PRIMARY KEY, t1_id int REFERENCES t1 ON DELETE SET NULL ON UPDATE CASCADE,
                 a int2, s text COLLATE "C", d date);
CREATE TABLE t3 (k int, a int, s text);
CREATE TABLE p (id int, r int, a int, s text, PRIMARY KEY (id, r)) PARTITION BY LIST (r);
CREATE TABLE p_0 PARTITION OF p FOR VALUES IN (0, 1);
CREATE TABLE p_x (s text, a int, r int NOT NULL, id int NOT NULL, PRIMARY KEY (id, r)) PARTITION BY LIST (r);
CREATE TABLE p_2 PARTITION OF p_x FOR VALUES IN (2, 3);
CREATE TABLE p_3 PARTITION OF p_x DEFAULT;
ALTER TABLE p ATTACH PARTITION p_x DEFAULT;
CREATE TABLE h (id int, a int, s text);
CREATE TABLE h_0 (extra int) INHERITS (h);
CREATE VIEW v_plain AS SELECT id AS ident, a, s AS label FROM t0 WHERE b IS NOT NULL;
CREATE VIEW v_join AS SELECT t1.id, t0.id AS zero, t1.a, t0.s FROM t1 LEFT JOIN t0 ON t0.id = t1.t0_id;
CREATE VIEW v_group AS SELECT a, count(*) AS n, max(s) AS s FROM t3 GROUP BY a;
CREATE VIEW v_rank AS SELECT k, a, rank() OVER (PARTITION BY k ORDER BY a) AS n FROM t3;
CREATE VIEW v_union AS SELECT id, a, s FROM t0 UNION ALL SELECT id, a, s FROM p;
CREATE VIEW v_first AS SELECT DISTINCT ON (a) a, id, s FROM t0 ORDER BY a, id;
CREATE VIEW v_top AS SELECT k, a, s FROM t3 ORDER BY k, a, s LIMIT 4;
CREATE VIEW v_deep AS SELECT ident, zero FROM v_plain JOIN v_join ON v_join.a = v_plain.a;
"""

TABLES: Final = {
    "t0": {"id": "int", "a": "int", "b": "int", "s": "text", "f": "bool"},
    "t1": {"id": "int", "t0_id": "int", "a": "int8", "s": "text", "n": "numeric", "e": "mood"},
    "t2": {"id": "int8", "t1_id": "int", "a": "int2", "s": "text", "d": "date"},
    "t3": {"k": "int", "a": "int", "s": "text"},
    "p": {"id": "int", "r": "int", "a": "int", "s": "text"},
    "h": {"id": "int", "a": "int", "s": "text"},
}
PARTS: Final = {
    "p_0": TABLES["p"],
    "p_x": TABLES["p"],
    "p_3": TABLES["p"],
    "h_0": {"id": "int", "a": "int", "s": "text", "extra": "int"},
}
VIEWS: Final = {
    "v_plain": {"ident": "int", "a": "int", "label": "text"},
    "v_join": {"id": "int", "zero": "int", "a": "int8", "s": "text"},
    "v_group": {"a": "int", "n": "int8", "s": "text"},
    "v_rank": {"k": "int", "a": "int", "n": "int8"},
    "v_union": {"id": "int", "a": "int", "s": "text"},
    "v_first": {"a": "int", "id": "int", "s": "text"},
    "v_top": {"k": "int", "a": "int", "s": "text"},
    "v_deep": {"ident": "int", "zero": "int"},
}
INTS: Final = ("int", "int8", "int2")
VALUES: Final = {
    "int": ("0", "1", "2", "3", "4"),
    "int8": ("0", "1", "2", "3", "4"),
    "int2": ("0", "1", "2", "3"),
    "text": ("'a'", "'b'", "'c'", "''"),
    "bool": ("true", "false"),
    "numeric": ("1", "1.0", "2.50", "2.5"),
    "mood": ("'sad'", "'ok'", "'glad'"),
    "date": ("'2026-01-01'", "'2026-01-02'"),
}


class Choices:
    """Numbers drawn at random, or again from a record; after the record's end, zeros."""

    def __init__(self, rng: Random | None = None, record: Sequence[int] = ()) -> None:
        self._rng = rng
        self._replayed = list(record)
        self.record: list[int] = []

    def below(self, end: int) -> int:
        """A number from 0 to ``end`` - 1; 0 is the simplest."""
        at = len(self.record)
        if at < len(self._replayed):
            number = self._replayed[at] % end
        else:
            number = self._rng.randrange(end) if self._rng is not None else 0
        self.record.append(number)
        return number

    def of(self, options: Sequence[T]) -> T:
        """One of ``options``; the first is the simplest."""
        return options[self.below(len(options))]

    def chance(self, percent: int) -> bool:
        """True in ``percent`` of 100 draws; False is the simplest."""
        return self.below(100) >= 100 - percent


def arguments(choices: Choices, types: Sequence[str]) -> list[str | None]:
    """An argument for each parameter type, as text."""
    return [None if choices.chance(3) else choices.of(VALUES[kind]).strip("'") for kind in types]


def tracked(choices: Choices) -> dict[str, list[str]]:
    """Which columns of which table to put under capture: most of those that can be told apart by text."""
    able = (*INTS, "text", "bool", "date")
    return {
        table: [name for name, kind in columns.items() if kind in able and not choices.chance(15)]
        for table, columns in TABLES.items()
    }


def rows(choices: Choices) -> list[str]:
    """Statements that fill the tables, a row each; one may refer to a row that is not there."""
    counts = {"t0": 10, "t1": 12, "t2": 12, "t3": 14, "p": 10, "h": 5, "h_0": 4}
    return [_insert(choices, table, 1) for table, count in counts.items() for _ in range(count)]


def write(choices: Choices) -> list[str]:
    """The statements of one random write transaction."""
    return [_write(choices) for _ in range(choices.of((1, 1, 1, 1, 2, 3)))]


def _write(choices: Choices) -> str:
    table = choices.of((*TABLES, *PARTS))
    columns = TABLES.get(table) or PARTS[table]
    kind = choices.below(20)
    if kind < 7:
        return _insert(choices, table, choices.of((1, 1, 1, 2, 4)))
    where = _narrow(choices, columns)
    if kind < 11:
        return f"DELETE FROM {table}{where}"
    if kind < 17:
        name = choices.of(list(columns))
        other = choices.of([None, *(c for c in columns if c != name)])
        sets = f"{name} = {_value(choices, columns[name])}"
        if other is not None:
            sets += f", {other} = {_value(choices, columns[other])}"
        return f"UPDATE {table} SET {sets}{where}"
    if kind < 18:
        return f"UPDATE {table} SET a = a + 1"
    if kind < 19 and table == "t3":
        return (
            f"MERGE INTO t3 USING t0 ON t3.k = t0.a WHEN MATCHED THEN UPDATE SET s = {_value(choices, 'text')} "
            "WHEN NOT MATCHED THEN INSERT (k, a) VALUES (t0.a, t0.b)"
        )
    return f"TRUNCATE {table} CASCADE" if choices.chance(10) else f"DELETE FROM {table}{where}"


def _narrow(choices: Choices, columns: dict[str, str]) -> str:
    name = choices.of(list(columns))
    return f" WHERE {name} = {choices.of(VALUES[columns[name]])}" if not choices.chance(8) else ""


def _insert(choices: Choices, table: str, count: int) -> str:
    columns = TABLES.get(table) or PARTS[table]
    made = []
    for _ in range(count):
        values = [str(choices.below(8))] if "id" in columns else [_value(choices, "int")]
        for name, kind in list(columns.items())[1:]:
            required = name == "r"
            values.append(choices.of(VALUES[kind]) if required else _value(choices, kind))
        made.append(f"({', '.join(values)})")
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES {', '.join(made)} ON CONFLICT DO NOTHING"


def _value(choices: Choices, kind: str) -> str:
    return "NULL" if choices.chance(15) else choices.of(VALUES[kind])
