"""Foreign writers that do to a small schema whatever PostgreSQL lets them, and caches that read it.

A deed is one transaction, told as statements and pauses (seconds) by a generator that decides everything;
`Writer` carries it out.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from random import Random
from typing import Final

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from auditor import UPHEAVAL_LOCK, Acknowledged
from cluster import capture
from cluster.config import CacheConfig

ITEMS: Final = 24
GROUPS: Final = 5
BULK_LIMIT: Final = 3

SCHEMA: Final = f"""
CREATE TABLE groups (id int PRIMARY KEY, name text);
CREATE TABLE items (
    id int PRIMARY KEY, group_id int REFERENCES groups ON DELETE CASCADE ON UPDATE CASCADE, value int);
CREATE TABLE ranks (id int PRIMARY KEY, points int);
CREATE TABLE flushed (id int PRIMARY KEY, value int);
CREATE TABLE wide (id int PRIMARY KEY, value int);
CREATE TABLE parts (id int, region int, value int, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES IN (1);
CREATE TABLE parts_2 (value int, region int NOT NULL, id int NOT NULL, PRIMARY KEY (id, region));
ALTER TABLE parts ATTACH PARTITION parts_2 FOR VALUES IN (2);
CREATE TABLE parts_3 PARTITION OF parts DEFAULT;
INSERT INTO groups SELECT n, 'group ' || n FROM generate_series(1, {GROUPS}) n;
INSERT INTO items SELECT n, 1 + n % {GROUPS}, n FROM generate_series(1, {ITEMS}) n;
INSERT INTO ranks SELECT n, n FROM generate_series(1, {ITEMS}) n;
INSERT INTO flushed SELECT n, n FROM generate_series(1, {ITEMS}) n;
INSERT INTO wide SELECT n, n FROM generate_series(1, {ITEMS}) n;
INSERT INTO parts SELECT n, 1 + n % 3, n FROM generate_series(1, {ITEMS}) n;
CREATE VIEW shown AS SELECT id, value FROM items;
CREATE FUNCTION scaled(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 * 2';
CREATE FUNCTION slowly(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
    'BEGIN PERFORM pg_sleep(0.008); RETURN $1; END';
CREATE MATERIALIZED VIEW totals AS
    SELECT group_id, count(*)::int AS n, sum(value)::int AS total FROM items GROUP BY group_id;
CREATE UNIQUE INDEX ON totals (group_id);
"""
TRACKED: Final = {
    "groups": ["id"],
    "items": ["id", "group_id"],
    "ranks": ["id"],
    "flushed": ["id"],
    "wide": ["id"],
    "parts": ["id"],
}

ITEM: Final = CacheConfig(name="item", sql="SELECT id, group_id, value FROM items WHERE id = $1", single=True)
MEMBERS: Final = CacheConfig(
    name="members", sql="SELECT id, value FROM items WHERE group_id = $1 ORDER BY id"
)
NAMED: Final = CacheConfig(
    name="named",
    sql="SELECT i.id, i.value, g.name FROM items i JOIN groups g ON g.id = i.group_id WHERE g.id = $1 ORDER BY i.id",
)
SUMMED: Final = CacheConfig(
    name="summed",
    sql="SELECT count(*)::int AS n, sum(value)::int AS total FROM items WHERE group_id = $1",
    single=True,
)
SLOW: Final = CacheConfig(
    name="slow",
    sql="SELECT id, slowly(value) AS value FROM items WHERE group_id = $1 ORDER BY id",
)
TOP: Final = CacheConfig(name="top", sql="SELECT id, points FROM ranks ORDER BY points DESC, id LIMIT 4")
FLUSHED: Final = CacheConfig(name="flushed", sql="SELECT value FROM flushed WHERE id = $1", single=True)
LEFT: Final = CacheConfig(name="left", sql="SELECT count(*)::int AS n FROM flushed", single=True)
SHOWN: Final = CacheConfig(name="shown", sql="SELECT id, value FROM shown WHERE id = $1", single=True)
SCALED: Final = CacheConfig(
    name="scaled", sql="SELECT id, scaled(value) AS value FROM items WHERE id = $1", single=True
)
WIDE: Final = CacheConfig(name="wide", sql="SELECT * FROM wide WHERE id = $1", single=True)
PART: Final = CacheConfig(name="part", sql="SELECT region, value FROM parts WHERE id = $1 ORDER BY region")
TOTALS: Final = CacheConfig(
    name="totals", sql="SELECT n, total FROM totals WHERE group_id = $1", single=True, ttl_s=0.5
)
CACHES: Final = (
    ITEM, MEMBERS, NAMED, SUMMED, SLOW, TOP, FLUSHED, LEFT, SHOWN, SCALED, WIDE, PART, TOTALS,
)  # fmt: skip
_BY_GROUP: Final = ("members", "named", "summed", "slow", "totals")
_SINGULAR: Final = ("top", "left")

Deed = Callable[[Random], Iterator[str | float]]


def keys_of(cache: CacheConfig) -> list[str]:
    """Every key of ``cache`` that a deed can touch, and one that never exists."""
    if cache.name in _SINGULAR:
        return [cache.name]
    return [f"{cache.name}:{n}" for n in range(1, (GROUPS if cache.name in _BY_GROUP else ITEMS) + 2)]


@asynccontextmanager
async def prepared(url: str) -> AsyncIterator[AsyncConnection[TupleRow]]:
    """The schema under capture in an empty database; a superuser's connection to it."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as owner:
        await owner.execute(SCHEMA.encode())
        await capture.install(owner)
        await track(owner)
        yield owner


async def track(owner: AsyncConnection[TupleRow]) -> None:
    """Put every table under capture, or write its capture anew."""
    for table, columns in TRACKED.items():
        await capture.track(owner, table, columns, bulk_limit=BULK_LIMIT)


class Writer:
    """One connection that does deeds. ``mostly``: how many of a hundred are committed."""

    def __init__(
        self,
        connection: AsyncConnection[TupleRow],
        deeds: Mapping[Deed, float],
        acknowledged: Acknowledged,
        *,
        rng: Random,
        pace_s: float,
        mostly: int = 90,
    ) -> None:
        self._connection = connection
        self._deeds = list(deeds)
        self._weights = list(deeds.values())
        self._acknowledged = acknowledged
        self._rng = rng
        self._pace_s = pace_s
        self._mostly = mostly

    async def work(self, going: Callable[[], bool], undisturbed: asyncio.Event) -> None:
        """Do one deed after another while ``going``; none begins unless ``undisturbed``."""
        await self._connection.execute(b"SET lock_timeout = '1s'")
        while going():
            await undisturbed.wait()
            (deed,) = self._rng.choices(self._deeds, self._weights)
            try:
                await self.do(deed)
            except (psycopg.IntegrityError, psycopg.OperationalError):
                if self._connection.closed:
                    raise
            await asyncio.sleep(self._rng.expovariate(1 / self._pace_s))

    async def do(self, deed: Deed) -> None:
        """Carry out one deed."""
        commits = self._rng.randrange(100) < self._mostly
        async with self._connection.transaction(force_rollback=not commits):
            for step in deed(self._rng):
                if isinstance(step, float):
                    await asyncio.sleep(step)
                else:
                    await self._connection.execute(step.encode())
            cursor = await self._connection.execute(b"SELECT pg_current_xact_id_if_assigned()::text")
            ((xid,),) = await cursor.fetchall()
        if commits and xid is not None:
            self._acknowledged.add(int(xid))


def touch(rng: Random) -> Iterator[str | float]:
    """One row of each kind of table, or of one."""
    table, column = rng.choice(
        (("items", "value"), ("items", "value"), ("wide", "value"), ("parts", "value"))
    )
    yield f"UPDATE {table} SET {column} = {column} + {rng.randint(1, 9)} WHERE id = {_item(rng)}"


def rank(rng: Random) -> Iterator[str | float]:
    """A row of the table that is cached as a whole."""
    yield f"UPDATE ranks SET points = {rng.randint(1, 99)} WHERE id = {_item(rng)}"


def move(rng: Random) -> Iterator[str | float]:
    """A row leaves one group and enters another."""
    yield f"UPDATE items SET group_id = {_group(rng)} WHERE id = {_item(rng)}"


def appear(rng: Random) -> Iterator[str | float]:
    """A row that was not there is."""
    yield (
        f"INSERT INTO items VALUES ({_item(rng)}, {_group(rng)}, {rng.randint(1, 99)})"
        " ON CONFLICT (id) DO UPDATE SET value = excluded.value"
    )


def vanish(rng: Random) -> Iterator[str | float]:
    """A row that was there is not."""
    yield f"DELETE FROM items WHERE id = {_item(rng)}"


def sweep(rng: Random) -> Iterator[str | float]:
    """More rows in one statement than have tags of their own."""
    yield f"UPDATE items SET value = value + 1 WHERE id % 3 = {rng.randrange(3)}"


def hold(rng: Random) -> Iterator[str | float]:
    """A transaction with an early xid that commits late."""
    yield from touch(rng)
    yield rng.random() * 0.04
    yield from rng.choice((touch, rank, move))(rng)


def waver(rng: Random) -> Iterator[str | float]:
    """Savepoints, kept and not."""
    yield "SAVEPOINT a"
    yield from touch(rng)
    yield "ROLLBACK TO a"
    yield "SAVEPOINT b"
    yield from move(rng)
    yield "RELEASE b"
    yield "SAVEPOINT c"
    yield from vanish(rng)
    yield "ROLLBACK TO c"


def cascade(rng: Random) -> Iterator[str | float]:
    """A foreign key takes the members of a group along."""
    group, other = _group(rng), GROUPS + 1
    if rng.random() < 0.5:
        yield f"UPDATE groups SET id = {other} WHERE id = {group}"
        yield f"INSERT INTO groups VALUES ({group}, 'again') ON CONFLICT DO NOTHING"
    yield f"DELETE FROM groups WHERE id = {other}"
    yield f"UPDATE groups SET name = 'group {rng.randint(1, 99)}' WHERE id = {group}"


def migrate(rng: Random) -> Iterator[str | float]:
    """A row moves between partitions, or is written in its partition directly."""
    item, region = _item(rng), rng.randint(1, 3)
    if rng.random() < 0.7:
        yield f"UPDATE parts SET region = {region}, value = value + 1 WHERE id = {item}"
    else:
        yield f"UPDATE parts_{region} SET value = value + 1, id = {_item(rng)} WHERE id = {item}"


def refill(rng: Random) -> Iterator[str | float]:
    """TRUNCATE, which shows through older snapshots."""
    yield _ALONE
    yield "TRUNCATE flushed"
    yield f"INSERT INTO flushed SELECT n, {rng.randint(1, 99)} FROM generate_series(1, {rng.randint(1, ITEMS)}) n"


def refresh(rng: Random) -> Iterator[str | float]:
    """A materialized view is made anew, in place or not."""
    yield _ALONE
    yield f"REFRESH MATERIALIZED VIEW {rng.choice(('', 'CONCURRENTLY '))}totals"


def reinterpret(rng: Random) -> Iterator[str | float]:
    """A view reads another table."""
    yield _ALONE
    source = rng.choice(
        (f"id, value + {rng.randint(0, 9)} AS value FROM items", "id, points AS value FROM ranks")
    )
    yield f"CREATE OR REPLACE VIEW shown AS SELECT {source}"


def redefine(rng: Random) -> Iterator[str | float]:
    """A function means something else."""
    yield _ALONE
    yield (
        "CREATE OR REPLACE FUNCTION scaled(int) RETURNS int LANGUAGE sql IMMUTABLE"
        f" AS 'SELECT $1 * {rng.randint(2, 9)}'"
    )


def reshape(rng: Random) -> Iterator[str | float]:
    """A table gains a column, loses one or is rewritten."""
    yield _ALONE
    yield "ALTER TABLE wide " + rng.choice((
        f"ADD COLUMN IF NOT EXISTS extra int DEFAULT {rng.randint(1, 9)}",
        "DROP COLUMN IF EXISTS extra",
        f"ALTER COLUMN value TYPE {rng.choice(('int', 'bigint'))}",
    ))  # fmt: skip


def block(rng: Random) -> Iterator[str | float]:
    """Nobody else reads a table for a while: loads wait before they have a snapshot."""
    yield f"LOCK TABLE {rng.choice(('items', 'ranks'))} IN ACCESS EXCLUSIVE MODE"
    yield rng.random() * 0.03


def trim(rng: Random) -> Iterator[str | float]:
    """Another node, with a watermark ahead of everyone's, deletes the changes it has seen."""
    yield "SELECT snapring.trim(pg_snapshot_xmin(pg_current_snapshot()), 1000)"


def _item(rng: Random) -> int:
    return rng.randint(1, ITEMS)


def _group(rng: Random) -> int:
    return rng.randint(1, GROUPS)


_ALONE: Final = f"SELECT pg_advisory_xact_lock({UPHEAVAL_LOCK})"

EVERYDAY: Final[Mapping[Deed, float]] = {
    touch: 8, rank: 2, move: 4, appear: 2, vanish: 2, sweep: 1, hold: 3, waver: 2, cascade: 1, migrate: 3,
}  # fmt: skip
UPHEAVAL: Final[Mapping[Deed, float]] = {
    refill: 2,
    refresh: 1,
    block: 0.5,
    reinterpret: 0.2,
    redefine: 0.2,
    reshape: 0.2,
}
