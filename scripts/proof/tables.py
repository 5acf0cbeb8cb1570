"""The tables that a proof writes to and reads: small, so that everything meets everything."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from cluster import capture
from scripts.proof import journal

ITEMS: Final = 24
GROUPS: Final = 5
MOVED: Final = 1000
"""How far primary keys move when they do: item 7 becomes 1007, or comes back."""
BULK_LIMIT: Final = 3

SCHEMA: Final = """
CREATE TABLE groups (id int PRIMARY KEY, name text);
CREATE TABLE items (
    id int PRIMARY KEY, group_id int REFERENCES groups ON DELETE CASCADE ON UPDATE CASCADE, value int);
CREATE TABLE counts (id int PRIMARY KEY, entered int NOT NULL, left_it int NOT NULL);
CREATE TABLE ranks (id int PRIMARY KEY, points int);
CREATE TABLE flushed (id int PRIMARY KEY, value int);
CREATE TABLE wide (id int PRIMARY KEY, value int);
CREATE TABLE parts (id int, region int, value int, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES IN (1);
CREATE TABLE parts_2 (value int, region int NOT NULL, id int NOT NULL, PRIMARY KEY (id, region));
ALTER TABLE parts ATTACH PARTITION parts_2 FOR VALUES IN (2);
CREATE TABLE parts_3 PARTITION OF parts DEFAULT;
CREATE VIEW shown AS SELECT id, value FROM items;
CREATE FUNCTION scaled(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 * 2';
CREATE FUNCTION slowly(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
    'BEGIN PERFORM pg_sleep(0.008); RETURN $1; END';
CREATE FUNCTION hand_over(giver int, taker int, amount int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE ranks SET points = points - amount WHERE id = least(giver, taker);
    UPDATE ranks SET points = points + amount WHERE id = greatest(giver, taker);
END $$;
CREATE FUNCTION count_moves() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'INSERT' AND (TG_OP = 'DELETE' OR OLD.group_id IS DISTINCT FROM NEW.group_id) THEN
        UPDATE counts SET left_it = left_it + 1 WHERE id = OLD.group_id;
    END IF;
    IF TG_OP <> 'DELETE' AND (TG_OP = 'INSERT' OR OLD.group_id IS DISTINCT FROM NEW.group_id) THEN
        UPDATE counts SET entered = entered + 1 WHERE id = NEW.group_id;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER count_moves AFTER INSERT OR UPDATE OR DELETE ON items
    FOR EACH ROW EXECUTE FUNCTION count_moves();
CREATE MATERIALIZED VIEW totals AS
    SELECT group_id, count(*)::int AS n, sum(value)::int AS total FROM items GROUP BY group_id;
CREATE UNIQUE INDEX ON totals (group_id);
"""
KEYS: Final[Mapping[str, str]] = {
    "groups": "id",
    "items": "id",
    "counts": "id",
    "ranks": "id",
    "flushed": "id",
    "wide": "id",
    "parts": "id,region",
}
"""Every table, and the columns of its key."""

TRACKED: Final[Mapping[str, Sequence[str]]] = {
    "groups": ["id"],
    "items": ["id", "group_id"],
    "counts": ["id"],
    "ranks": ["id"],
    "flushed": ["id"],
    "wide": ["id"],
    "parts": ["id"],
}
"""Every table, and its columns that get tags of their own."""

DEFINITIONS: Final = "definitions"
"""In the journal, the table of what DDL says: a row each for ``shown``, ``scaled`` and ``wide``."""
TOTALS: Final = "totals"

FILL: Final = f"""
INSERT INTO groups SELECT n, 'group ' || n FROM generate_series(1, {GROUPS}) n;
INSERT INTO counts SELECT n, 0, 0 FROM generate_series(1, {GROUPS + 1}) n;
INSERT INTO items SELECT n, 1 + n % {GROUPS}, n FROM generate_series(1, {ITEMS}) n;
INSERT INTO ranks SELECT n, n FROM generate_series(1, {ITEMS}) n;
INSERT INTO flushed SELECT n, n FROM generate_series(1, {ITEMS}) n;
INSERT INTO wide SELECT n, n FROM generate_series(1, {ITEMS}) n;
INSERT INTO parts SELECT n, 1 + n % 3, n FROM generate_series(1, {ITEMS}) n;
""" + ";".join(
    (
        journal.entry(DEFINITIONS, "shown", """'{"source": "items", "plus": 0}'"""),
        journal.entry(DEFINITIONS, "scaled", """'{"factor": 2}'"""),
        journal.entry(DEFINITIONS, "wide", """'{"extra": null}'"""),
    )
)


async def prepare(
    dsn: str, alter: Callable[[AsyncConnection[TupleRow]], Awaitable[None]] | None = None
) -> None:
    """The tables, empty, under capture and under observation, in an empty database; ``alter`` comes last."""
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as owner:
        await owner.execute(SCHEMA.encode())
        await owner.execute((journal.SCHEMA + journal.observing(KEYS)).encode())
        await capture.install(owner)
        await track(owner)
        if alter is not None:
            await alter(owner)


async def track(owner: AsyncConnection[TupleRow]) -> None:
    """Put every table under capture, or write its capture anew."""
    for table, columns in TRACKED.items():
        await capture.track(owner, table, columns, bulk_limit=BULK_LIMIT)
