"""What each kind of statement leaves in the changes, on a real PostgreSQL."""

from collections.abc import AsyncIterator

import psycopg
import pytest

from cluster import capture
from servers import Server, installations
from writes import Connection, connected, installed, left_by, of_table, rows, value

SCHEMA = """
CREATE TABLE teams (id int PRIMARY KEY, name text);
CREATE TABLE users (id int PRIMARY KEY, name text, team_id int REFERENCES teams ON UPDATE CASCADE ON DELETE CASCADE);
CREATE TABLE notes (text text);
INSERT INTO teams VALUES (1, 'one'), (2, 'two');
INSERT INTO users VALUES (1, 'a', 1), (2, 'b', 1), (3, 'c', NULL);
"""


@pytest.fixture
async def db(database: str) -> AsyncIterator[Connection]:
    """A database with teams, users and notes under capture."""
    async with installed(database, SCHEMA, "teams", "users", "notes") as connection:
        yield connection


async def test_an_insert_names_the_new_keys(db: Connection) -> None:
    """Primary key and foreign key of each new row."""
    left = await left_by(db, "INSERT INTO users VALUES (10, 'x', 1), (11, 'y', 2)")
    assert left == await of_table(db, "users", id=[10, 11], team_id=[1, 2])


async def test_one_row_and_many_rows_are_named_alike(db: Connection) -> None:
    """The quick way for rows that are alike gives what the general one gives."""
    left = await left_by(db, "UPDATE users SET name = 'z' WHERE id = 1")
    assert left == await of_table(db, "users", id=[1], team_id=[1])
    left = await left_by(db, "UPDATE users SET name = 'z'")
    assert left == await of_table(db, "users", id=[1, 2, 3], team_id=[1])


async def test_a_null_has_no_tag(db: Connection) -> None:
    """A row whose foreign key is null is named by its primary key alone."""
    assert await left_by(db, "UPDATE users SET name = 'z' WHERE id = 3") == await of_table(
        db, "users", id=[3]
    )


async def test_an_update_of_keys_names_old_and_new(db: Connection) -> None:
    """Both the rows as they were and as they are."""
    left = await left_by(db, "UPDATE users SET id = 7, team_id = 2 WHERE id = 1")
    assert left == await of_table(db, "users", id=[1, 7], team_id=[1, 2])
    left = await left_by(db, "UPDATE users SET team_id = NULL WHERE id = 7")
    assert left == await of_table(db, "users", id=[7], team_id=[2])


async def test_a_delete_names_the_old_keys(db: Connection) -> None:
    """What is gone, once."""
    left = await left_by(db, "DELETE FROM users WHERE team_id = 1")
    assert left == await of_table(db, "users", id=[1, 2], team_id=[1])


async def test_a_statement_that_touches_no_row_leaves_nothing(db: Connection) -> None:
    """Neither for tables with tracked columns nor for those without."""
    nothing = (
        "UPDATE users SET id = 5 WHERE false",
        "DELETE FROM notes",
        "INSERT INTO notes SELECT 'x' WHERE false",
    )
    assert await left_by(db, *nothing) == []


async def test_a_table_without_tracked_columns_gets_bulk_rows(db: Connection) -> None:
    """One for each statement, however many rows."""
    assert await left_by(db, "INSERT INTO notes VALUES ('a'), ('b')") == await of_table(db, "notes")
    assert await left_by(db, "UPDATE notes SET text = 'c'") == await of_table(db, "notes")


async def test_truncate_is_bulk_and_reaches_referencing_tables(db: Connection) -> None:
    """TRUNCATE … CASCADE empties more than it names."""
    expected = sorted(await of_table(db, "teams") + await of_table(db, "users"))
    assert await left_by(db, "TRUNCATE teams CASCADE") == expected


async def test_copy_is_captured(db: Connection) -> None:
    """COPY FROM is an insert."""
    await db.execute("DELETE FROM snapring.changes")
    async with db.cursor().copy("COPY users FROM STDIN") as copy:
        await copy.write_row((20, "x", 2))
    assert sorted(await rows(db, "SELECT rel::int8, tag FROM snapring.changes")) == await of_table(
        db, "users", id=[20], team_id=[2]
    )


async def test_on_conflict_names_inserted_and_updated_rows(db: Connection) -> None:
    """One statement, two triggers."""
    left = await left_by(
        db,
        "INSERT INTO teams VALUES (2, 'TWO'), (3, 'three') ON CONFLICT (id) DO UPDATE SET name = excluded.name",
    )
    assert left == await of_table(db, "teams", id=[2, 3])
    assert await left_by(db, "INSERT INTO teams VALUES (2, 'x') ON CONFLICT DO NOTHING") == []


async def test_merge_names_what_each_action_touched(db: Connection) -> None:
    """Matched, deleted and inserted rows."""
    if db.info.server_version < 150000:
        pytest.skip("MERGE came with PostgreSQL 15")
    left = await left_by(
        db,
        "MERGE INTO users u USING (VALUES (1), (2), (9)) s(id) ON u.id = s.id"
        " WHEN MATCHED AND s.id = 1 THEN UPDATE SET team_id = 2 WHEN MATCHED THEN DELETE"
        " WHEN NOT MATCHED THEN INSERT VALUES (s.id, 'new', NULL)",
    )
    assert set(left) == set(await of_table(db, "users", id=[1, 2, 9], team_id=[1, 2]))


async def test_foreign_keys_that_cascade_are_captured(db: Connection) -> None:
    """Rows that Postgres changes by itself have changed all the same."""
    left = await left_by(db, "UPDATE teams SET id = 5 WHERE id = 1")
    users = await of_table(db, "users", id=[1, 2], team_id=[1, 5])
    assert set(left) == set(users + await of_table(db, "teams", id=[1, 5]))
    left = await left_by(db, "DELETE FROM teams WHERE id = 5")
    assert set(left) == set(
        await of_table(db, "users", id=[1, 2], team_id=[5]) + await of_table(db, "teams", id=[5])
    )


async def test_writing_ctes_are_captured(db: Connection) -> None:
    """Also where two of them write to one table."""
    left = await left_by(
        db,
        "WITH a AS (INSERT INTO teams VALUES (8, 'x')), b AS (INSERT INTO teams VALUES (9, 'x'))"
        " UPDATE users SET name = 'q' WHERE id = 3",
    )
    assert set(left) == set(await of_table(db, "teams", id=[8, 9]) + await of_table(db, "users", id=[3]))


async def test_views_and_rules_lead_to_captured_writes(db: Connection) -> None:
    """What is rewritten into a write of the table fires its triggers."""
    await db.execute(
        "CREATE VIEW few AS SELECT id, name FROM users;"
        "CREATE RULE elsewhere AS ON INSERT TO notes DO INSTEAD INSERT INTO teams VALUES (77, new.text)"
    )
    assert await left_by(db, "DELETE FROM few WHERE id = 3") == await of_table(db, "users", id=[3])
    assert await left_by(db, "INSERT INTO notes VALUES ('x')") == await of_table(db, "teams", id=[77])


async def test_what_is_rolled_back_leaves_nothing(db: Connection) -> None:
    """A savepoint's changes go with it; all of a transaction's rows carry the id of the whole."""
    await db.execute("DELETE FROM snapring.changes")
    async with db.transaction():
        await db.execute("UPDATE teams SET name = 'x' WHERE id = 1")
        xid = await value(db, "SELECT pg_current_xact_id()::text")
        async with db.transaction(force_rollback=True):
            await db.execute("UPDATE teams SET name = 'x' WHERE id = 2")
        async with db.transaction():
            await db.execute("UPDATE users SET name = 'x' WHERE id = 3")
    left = await rows(db, "SELECT rel::int8, tag, xid::text FROM snapring.changes")
    assert {row[:2] for row in left} == set(
        await of_table(db, "teams", id=[1]) + await of_table(db, "users", id=[3])
    )
    assert {row[2] for row in left} == {xid}


async def test_prepared_transactions_are_captured(db: Connection) -> None:
    """Their changes appear when they commit, under their own id."""
    assert await left_by(db, "BEGIN; UPDATE teams SET name = 'x' WHERE id = 1; PREPARE TRANSACTION 'p'") == []
    await db.execute("COMMIT PREPARED 'p'")
    assert await rows(db, "SELECT rel::int8, tag FROM snapring.changes") == await of_table(
        db, "teams", id=[1]
    )


async def test_the_replica_role_is_captured(db: Connection) -> None:
    """Triggers are ENABLE ALWAYS: a session that switches ordinary triggers off does not switch these off."""
    left = await left_by(
        db,
        "SET session_replication_role = replica; UPDATE users SET name = 'x' WHERE id = 3; RESET session_replication_role",
    )
    assert left == await of_table(db, "users", id=[3])


async def test_more_tags_than_the_limit_are_one_bulk_row(db: Connection) -> None:
    """At the limit each tag is named, above it none."""
    await capture.track(db, "teams", ["id"], bulk_limit=3)
    left = await left_by(db, "INSERT INTO teams SELECT n, 'x' FROM generate_series(101, 103) n")
    assert left == await of_table(db, "teams", id=[101, 102, 103])
    left = await left_by(db, "INSERT INTO teams SELECT n, 'x' FROM generate_series(111, 114) n")
    assert left == await of_table(db, "teams")
    await capture.track(db, "users", ["id", "team_id"], bulk_limit=1)
    assert await left_by(db, "UPDATE users SET name = 'x' WHERE id = 1") == await of_table(db, "users")


async def test_a_writer_needs_no_rights_on_the_schema(db: Connection) -> None:
    """Triggers run with the rights of their owner, whatever the writer's search_path tries to slip in."""
    await db.execute(
        "DROP ROLE IF EXISTS snapring_writer; CREATE ROLE snapring_writer;"
        "GRANT INSERT, UPDATE, SELECT ON users TO snapring_writer; CREATE SCHEMA evil; GRANT ALL ON SCHEMA evil TO PUBLIC"
    )
    try:
        await db.execute(
            "SET ROLE snapring_writer;"
            "CREATE FUNCTION evil.no(bigint, bigint) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION $$evil$$; END';"
            "CREATE FUNCTION evil.min(bigint) RETURNS bigint LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION $$evil$$; END';"
            "CREATE OPERATOR evil.<> (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = evil.no);"
            "CREATE OPERATOR evil.= (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = evil.no);"
            "CREATE OPERATOR evil.> (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = evil.no);"
            "SET search_path = evil, public, pg_catalog"
        )
        await db.execute("UPDATE users SET name = 'x' WHERE id = 1")
        await db.execute("UPDATE users SET name = 'x'")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await db.execute("SELECT * FROM snapring.changes")
    finally:
        await db.execute(
            "RESET ROLE; RESET search_path; DROP SCHEMA evil CASCADE; DROP OWNED BY snapring_writer; DROP ROLE snapring_writer"
        )


async def test_a_virtual_column_has_no_tags(db: Connection) -> None:
    """It has no value in a trigger, so queries by it depend on the table as a whole."""
    if db.info.server_version < 180000:
        pytest.skip("virtual generated columns came with PostgreSQL 18")
    await db.execute("CREATE TABLE g (id int PRIMARY KEY, v int GENERATED ALWAYS AS (id + 1) VIRTUAL)")
    with pytest.raises(capture.CaptureRefused, match="column v"):
        await capture.track(db, "g", ["id", "v"])


async def test_partitions_are_captured_both_ways(db: Connection) -> None:
    """Through the root and directly, a row's move included, all under the root's tags."""
    await db.execute(
        "CREATE TABLE p (note text, id int, part int, PRIMARY KEY (id, part)) PARTITION BY LIST (part);"
        "CREATE TABLE p1 (part int NOT NULL, gone text, id int NOT NULL, note text); ALTER TABLE p1 DROP COLUMN gone;"
        "ALTER TABLE p ATTACH PARTITION p1 FOR VALUES IN (1);"
        "CREATE TABLE p2 PARTITION OF p FOR VALUES IN (2, 3) PARTITION BY LIST (part);"
        "CREATE TABLE p22 PARTITION OF p2 FOR VALUES IN (2)"
    )
    await capture.track(db, "p", ["id"])
    assert await left_by(db, "INSERT INTO p VALUES ('x', 5, 1), ('y', 6, 2)") == await of_table(
        db, "p", id=[5, 6]
    )
    assert await left_by(db, "UPDATE p SET part = 2, id = 7 WHERE id = 5") == await of_table(
        db, "p", id=[5, 7]
    )
    assert await left_by(db, "INSERT INTO p1 VALUES (1, 8, 'z')") == await of_table(db, "p", id=[8])
    assert await left_by(db, "UPDATE p22 SET note = 'q' WHERE id = 6") == await of_table(db, "p", id=[6])
    assert await left_by(db, "DELETE FROM p2 WHERE id = 6") == await of_table(db, "p", id=[6])
    assert set(await left_by(db, "TRUNCATE p1")) == set(await of_table(db, "p"))


async def test_inheritance_children_are_captured(db: Connection) -> None:
    """A query of the parent reads the children: writes to either name the parent's keys."""
    await db.execute(
        "CREATE TABLE base (id int PRIMARY KEY, note text); CREATE TABLE child (more int) INHERITS (base);"
        "INSERT INTO child VALUES (1, 'x', 1)"
    )
    await capture.track(db, "base")
    assert await left_by(db, "UPDATE base SET note = 'y' WHERE id = 1") == await of_table(db, "base", id=[1])
    assert await left_by(db, "DELETE FROM child WHERE id = 1") == await of_table(db, "base", id=[1])


async def test_a_refreshed_materialized_view_is_a_bulk_change(db: Connection) -> None:
    """Of the view alone: nothing else is void."""
    await db.execute("CREATE MATERIALIZED VIEW m AS SELECT * FROM teams; CREATE UNIQUE INDEX ON m (id)")
    for how in ("", "CONCURRENTLY "):
        await db.execute("UPDATE teams SET name = name || 'x'")
        assert await left_by(db, f"REFRESH MATERIALIZED VIEW {how}m") == await of_table(db, "m")


async def test_untracked_tables_leave_nothing(db: Connection) -> None:
    """untrack removes triggers, functions and the record."""
    await capture.untrack(db, "users")
    assert await left_by(db, "UPDATE users SET name = 'x'") == []
    assert [each.table for each in await capture.tracked(db)] == ["public.notes", "public.teams"]
    functions = await value(db, "SELECT count(*) FROM pg_proc WHERE proname LIKE 'capture\\_%\\_insert'")
    assert functions == 3, "those of the schema's own table among them"


async def test_tracking_waits_for_writers_that_began_before(database: str) -> None:
    """No transaction writes to a table unseen and commits after it was tracked."""
    async with installed(database, SCHEMA) as db, connected(database) as writer:
        await writer.execute("BEGIN; UPDATE teams SET name = 'x'")
        await db.execute("SET lock_timeout = '50ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            await capture.track(db, "teams")
        await writer.execute("COMMIT")
        await capture.track(db, "teams")


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        ("view_of", "view"),
        ("materialized", "materialized view"),
        ("temporary", "temporary"),
        ("part_1", "snapring track public.parted"),
        ("two", "several parents"),
        ("pg_class", "not a table of yours"),
        ("nowhere", "does not exist"),
    ],
)
async def test_what_cannot_be_captured_is_refused(db: Connection, table: str, reason: str) -> None:
    """With the reason, and what to do instead."""
    await db.execute(
        "CREATE VIEW view_of AS SELECT 1 AS x; CREATE MATERIALIZED VIEW materialized AS SELECT 1 AS x;"
        "CREATE TEMP TABLE temporary (x int); CREATE TABLE parted (x int) PARTITION BY LIST (x);"
        "CREATE TABLE part_1 PARTITION OF parted FOR VALUES IN (1);"
        "CREATE TABLE one (x int); CREATE TABLE other (x int); CREATE TABLE two () INHERITS (one, other)"
    )
    with pytest.raises(capture.CaptureRefused, match=reason):
        await capture.track(db, "one" if table == "two" else table)


async def test_columns_without_key_grain_are_refused(db: Connection) -> None:
    """And are left out of the default."""
    await db.execute("CREATE TABLE prices (amount numeric, code char(3), PRIMARY KEY (amount, code))")
    await capture.track(db, "prices")
    assert await left_by(db, "INSERT INTO prices VALUES (1.0, 'a')") == await of_table(db, "prices")
    for column in ("amount", "code", "nothing"):
        with pytest.raises(capture.CaptureRefused, match=f'column "?{column}'):
            await capture.track(db, "prices", [column])


@pytest.mark.parametrize("major", [16, 15, 14, 17])
async def test_another_major_version_captures_alike(major: int) -> None:
    """Installing, tracking and the main kinds of statements, where that version is on this machine."""
    programs = installations().get(major)
    if programs is None:
        pytest.skip(f"no PostgreSQL {major} on this machine")
    with Server(programs) as other, other.database() as name:
        async with installed(other.dsn(name), SCHEMA, "teams", "users", "notes") as db:
            await test_an_update_of_keys_names_old_and_new(db)
            await test_on_conflict_names_inserted_and_updated_rows(db)
            await db.execute("TRUNCATE teams, users; INSERT INTO teams VALUES (1), (2)")
            await db.execute("INSERT INTO users VALUES (1, 'a', 1), (2, 'b', 1)")
            if major >= 15:
                await test_merge_names_what_each_action_touched(db)
            await db.execute("TRUNCATE users; INSERT INTO users VALUES (1, 'a', 1), (2, 'b', 1)")
            await test_foreign_keys_that_cascade_are_captured(db)
            await db.execute("INSERT INTO teams VALUES (1)")
            await test_prepared_transactions_are_captured(db)
            await test_partitions_are_captured_both_ways(db)
            await test_inheritance_children_are_captured(db)
            await test_a_refreshed_materialized_view_is_a_bulk_change(db)
            assert (
                await rows(db, "SELECT relation FROM snapring.captured t WHERE snapring.flaw(t) IS NOT NULL")
                == []
            )
