"""What foreign writers do: whatever PostgreSQL lets them.

A deed is one transaction, told step by step by a generator that decides everything; a writer carries it out.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from random import Random
from typing import Final

from scripts.proof import journal
from scripts.proof.tables import DEFINITIONS, GROUPS, ITEMS, MOVED, TOTALS


@dataclass(frozen=True, slots=True)
class Copy:
    """COPY FROM STDIN of ``rows``."""

    statement: str
    rows: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class InTwoPhases:
    """The last step of a transaction that is only prepared; someone commits it later, or rolls it back."""


Step = str | float | Copy | InTwoPhases
"""A statement, a pause in seconds, or one of the others."""
Deed = Callable[[Random], Iterator[Step]]


def touch(rng: Random) -> Iterator[Step]:
    """One row of some table."""
    table = rng.choice(("items", "items", "wide", "parts", "flushed"))
    yield f"UPDATE {table} SET value = value + {rng.randint(1, 9)} WHERE id = {_item(rng)}"


def rank(rng: Random) -> Iterator[Step]:
    """A row of a table that is also cached as a whole."""
    yield f"UPDATE ranks SET points = {rng.randint(1, 99)} WHERE id = {_item(rng)}"


def move(rng: Random) -> Iterator[Step]:
    """A row leaves one group and enters another; a trigger counts that."""
    yield f"UPDATE items SET group_id = {_group(rng)} WHERE id = {_item(rng)}"


def appear(rng: Random) -> Iterator[Step]:
    """A row that was not there is; or is written all the same."""
    yield (
        f"INSERT INTO items VALUES ({_item(rng)}, {_group(rng)}, {rng.randint(1, 99)})"
        f" ON CONFLICT (id) DO {rng.choice(('NOTHING', 'UPDATE SET value = excluded.value'))}"
    )


def vanish(rng: Random) -> Iterator[Step]:
    """A row that was there is not."""
    yield f"DELETE FROM {rng.choice(('items', 'items', 'flushed'))} WHERE id = {_item(rng)}"


def sweep(rng: Random) -> Iterator[Step]:
    """More rows in one statement than have tags of their own."""
    yield f"UPDATE items SET value = value + 1 WHERE id % 3 = {rng.randrange(3)}"


def merge(rng: Random) -> Iterator[Step]:
    """MERGE inserts, updates and deletes in one statement."""
    rows = ", ".join(f"({_item(rng)}, {rng.randint(1, 99)})" for _ in range(rng.randint(1, 3)))
    yield (
        f"MERGE INTO items AS i USING (SELECT DISTINCT ON (id) id, value FROM (VALUES {rows}) AS v(id, value)"
        " ORDER BY id) AS n ON n.id = i.id"
        " WHEN MATCHED AND n.value < 20 THEN DELETE"
        " WHEN MATCHED THEN UPDATE SET value = n.value"
        f" WHEN NOT MATCHED THEN INSERT VALUES (n.id, {_group(rng)}, n.value)"
    )


def copy(rng: Random) -> Iterator[Step]:
    """Rows are deleted, and come back through COPY."""
    first = rng.randint(1, ITEMS - 4)
    ids = range(first, first + rng.randint(1, 5))
    yield f"DELETE FROM items WHERE id BETWEEN {ids[0]} AND {ids[-1]}"
    yield Copy(
        "COPY items (id, group_id, value) FROM STDIN",
        tuple((n, _group(rng), rng.randint(1, 99)) for n in ids),
    )


def rename(rng: Random) -> Iterator[Step]:
    """A primary key changes, or changes back."""
    near = rng.randint(1, 6)
    far = near + MOVED
    old, new = rng.choice(((near, far), (far, near), (far, near)))
    yield f"UPDATE items SET id = {new} WHERE id = {old}"


def hand_over(rng: Random) -> Iterator[Step]:
    """A function writes."""
    yield f"SELECT hand_over({_item(rng)}, {_item(rng)}, {rng.randint(1, 9)})"


def hold(rng: Random) -> Iterator[Step]:
    """A transaction with an early xid that commits late."""
    yield from touch(rng)
    yield rng.random() * 0.06
    yield from rng.choice((touch, rank, move))(rng)


def waver(rng: Random) -> Iterator[Step]:
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


def cascade(rng: Random) -> Iterator[Step]:
    """A foreign key takes the members of a group along."""
    group, other = _group(rng), GROUPS + 1
    if rng.random() < 0.5:
        yield f"UPDATE groups SET id = {other} WHERE id = {group}"
        yield f"INSERT INTO groups VALUES ({group}, 'again') ON CONFLICT DO NOTHING"
    yield f"DELETE FROM groups WHERE id = {other}"
    yield f"UPDATE groups SET name = 'group {rng.randint(1, 99)}' WHERE id = {group}"


def migrate(rng: Random) -> Iterator[Step]:
    """A row moves between partitions, or is written in its partition directly."""
    item, region = _item(rng), rng.randint(1, 3)
    if rng.random() < 0.7:
        yield f"UPDATE parts SET region = {region}, value = value + 1 WHERE id = {item}"
    else:
        yield f"UPDATE parts_{region} SET value = value + 1, id = {_item(rng)} WHERE id = {item}"


def promise(rng: Random) -> Iterator[Step]:
    """Two-phase commit."""
    yield from rng.choice((touch, rank, move, appear))(rng)
    yield InTwoPhases()


def refill(rng: Random) -> Iterator[Step]:
    """TRUNCATE, which shows through older snapshots."""
    most = rng.randint(1, ITEMS)
    yield "TRUNCATE flushed"
    yield f"INSERT INTO flushed SELECT n, {rng.randint(1, 99)} FROM generate_series(1, {most}) n"


def refresh(rng: Random) -> Iterator[Step]:
    """A materialized view is made anew, in place or not; the journal gets to know what it holds."""
    yield f"REFRESH MATERIALIZED VIEW {rng.choice(('', 'CONCURRENTLY '))}totals"
    yield f"INSERT INTO proof.log (what) VALUES ('{TOTALS}')"
    yield (
        "INSERT INTO proof.log (what, key, value)"
        f" SELECT '{TOTALS}', group_id::text, to_jsonb(totals) FROM totals WHERE group_id IS NOT NULL"
    )


def reinterpret(rng: Random) -> Iterator[Step]:
    """A view reads another table."""
    if rng.random() < 0.5:
        source, plus, query = "ranks", 0, "id, points AS value FROM ranks"
    else:
        plus = rng.randint(0, 9)
        source, query = "items", f"id, value + {plus} AS value FROM items"
    yield f"CREATE OR REPLACE VIEW shown AS SELECT {query}"
    yield journal.entry(DEFINITIONS, "shown", f"jsonb_build_object('source', '{source}', 'plus', {plus})")


def redefine(rng: Random) -> Iterator[Step]:
    """A function means something else."""
    factor = rng.randint(2, 9)
    yield "SELECT pg_advisory_xact_lock(7338)"  # nothing else orders those who replace a function
    yield (
        f"CREATE OR REPLACE FUNCTION scaled(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 * {factor}'"
    )
    yield journal.entry(DEFINITIONS, "scaled", f"jsonb_build_object('factor', {factor})")


def reshape(rng: Random) -> Iterator[Step]:
    """A table gains a column, loses one or is rewritten."""
    extra: int | None = rng.randint(1, 9)
    match rng.randrange(3):
        case 0:
            yield f"ALTER TABLE wide ALTER COLUMN value TYPE {rng.choice(('int', 'bigint'))}"
            return
        case 1:
            yield "ALTER TABLE wide DROP COLUMN IF EXISTS extra"
            yield f"ALTER TABLE wide ADD COLUMN extra int DEFAULT {extra}"
        case _:
            extra = None
            yield "ALTER TABLE wide DROP COLUMN IF EXISTS extra"
    yield journal.entry(DEFINITIONS, "wide", f"jsonb_build_object('extra', {extra or 'NULL'}::int)")


def block(rng: Random) -> Iterator[Step]:
    """Nobody else reads a table for a while: loads wait before they have a snapshot."""
    yield f"LOCK TABLE {rng.choice(('items', 'ranks'))} IN ACCESS EXCLUSIVE MODE"
    yield rng.random() * 0.03


def trim(_: Random) -> Iterator[Step]:
    """Another node, with a watermark ahead of everyone's, deletes the changes it has seen."""
    yield "SELECT snapring.trim(pg_snapshot_xmin(pg_current_snapshot()), 1000)"


def _item(rng: Random) -> int:
    return rng.randint(1, ITEMS)


def _group(rng: Random) -> int:
    return rng.randint(1, GROUPS)


EVERYDAY: Final[Mapping[Deed, float]] = {
    touch: 8, rank: 2, move: 4, appear: 2, vanish: 2, sweep: 1, merge: 1, copy: 1, rename: 1.5,
    hand_over: 1.5, hold: 3, waver: 2, cascade: 1, migrate: 3,
}  # fmt: skip
PROMISES: Final[Mapping[Deed, float]] = {promise: 1}
TRUNCATION: Final[Mapping[Deed, float]] = {refill: 0.5, block: 0.2}
DDL: Final[Mapping[Deed, float]] = {refresh: 0.05, reinterpret: 0.03, redefine: 0.03, reshape: 0.04}
"""Each voids everything that a node has in memory."""
