"""DDL: what voids everything, what does not, and how tables stay captured as they change shape."""

from collections.abc import AsyncIterator

import psycopg
import pytest

from cluster import capture
from writes import Connection, connected, installed, left_by, of_table, rows, value, voids

SCHEMA = """
CREATE TYPE mood AS ENUM ('sad', 'glad');
CREATE TABLE t (id int PRIMARY KEY, mood mood, other int);
CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id);
CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10);
CREATE VIEW v AS SELECT id FROM t;
CREATE FUNCTION f(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1';
CREATE INDEX t_other ON t (other);
INSERT INTO t VALUES (1, 'sad', 1);
"""

CAPTURED = "SELECT relation FROM snapring.tracked WHERE relation LIKE 'public.%' ORDER BY 1"


@pytest.fixture
async def db(database: str) -> AsyncIterator[Connection]:
    """A database with a table and a partitioned one under capture."""
    async with installed(database, SCHEMA, "t", "p") as connection:
        yield connection


async def test_what_may_change_answers_voids_everything(db: Connection) -> None:
    """Each of these can change what some query returns, without a row being written."""
    for statement in (
        "ALTER TABLE t ALTER other TYPE text",
        "ALTER TABLE t ADD COLUMN more int DEFAULT 5",
        "ALTER TABLE t DISABLE TRIGGER USER",
        "ALTER TABLE t ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY few ON t USING (id > 5)",
        "CREATE OR REPLACE VIEW v AS SELECT id + 1 AS id FROM t",
        "CREATE OR REPLACE FUNCTION f(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1 + 1'",
        "ALTER TYPE mood RENAME VALUE 'sad' TO 'blue'",
        "ALTER TABLE p DETACH PARTITION p1",
        "ALTER TABLE p ATTACH PARTITION p1 FOR VALUES FROM (0) TO (10)",
        "CREATE SCHEMA nearer CREATE TABLE t (id int)",
        "DROP TABLE nearer.t",
        "CREATE COLLATION mine (LOCALE = 'C')",
        "DROP VIEW v",
        "REVOKE ALL ON t FROM PUBLIC",
        "ALTER TABLE t RENAME TO u",
    ):
        assert await voids(db, statement), statement


async def test_what_changes_no_answer_voids_nothing(db: Connection) -> None:
    """Indexes, comments, rights, maintenance, temporary objects of any kind."""
    for statement in (
        "CREATE INDEX CONCURRENTLY again ON t (other)",
        "DROP INDEX again",
        "REINDEX TABLE t",
        "COMMENT ON TABLE t IS 'x'",
        "GRANT SELECT ON t TO PUBLIC",
        "CREATE STATISTICS s ON id, other FROM t",
        "VACUUM FULL t",
        "CLUSTER t USING t_pkey",
        "ANALYZE t",
        "CREATE TEMP TABLE scratch (id serial PRIMARY KEY, n int DEFAULT 3)",
        "ALTER TABLE scratch DROP COLUMN n",
        "CREATE TEMP VIEW glance AS SELECT * FROM t",
        "DROP TABLE scratch",
        "SELECT 1 AS x INTO TEMP copied",
        "CREATE TABLE IF NOT EXISTS t ()",
        "DROP TABLE IF EXISTS nonesuch",
        "DISCARD TEMP",
    ):
        assert not await voids(db, statement), statement


async def test_ddl_that_commits_midway_voids_in_each_half(database: str) -> None:
    """DETACH CONCURRENTLY hides the partition's rows before the command has ended."""
    async with installed(database, SCHEMA, "p") as db, connected(database) as reader:
        await reader.execute("BEGIN; SELECT * FROM p")
        await db.execute("SET lock_timeout = '100ms'")
        await db.execute("DELETE FROM snapring.changes")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            await db.execute("ALTER TABLE p DETACH PARTITION p1 CONCURRENTLY")
        await reader.execute("COMMIT")
        assert await value(db, "SELECT inhdetachpending FROM pg_inherits WHERE inhrelid = 'p1'::regclass")
        assert (0, None) in await rows(db, "SELECT rel::int8, tag FROM snapring.changes")
        assert await voids(db, "ALTER TABLE p DETACH PARTITION p1 FINALIZE")


async def test_ddl_that_is_rolled_back_voids_nothing(db: Connection) -> None:
    """Its rows go with it, also those of a savepoint before the same again."""
    assert not await voids(db, "BEGIN; CREATE TABLE x (); ROLLBACK")
    assert await voids(db, "BEGIN; SAVEPOINT s; CREATE TABLE x (); ROLLBACK TO s; CREATE TABLE x (); COMMIT")


async def test_tracking_and_untracking_void(db: Connection) -> None:
    """They change what nodes may cache."""
    await db.execute("DELETE FROM snapring.changes")
    before = await value(db, "SELECT snapring.catalog_version()")
    await capture.track(db, "t", ["id", "other"])
    tracked = await value(db, "SELECT snapring.catalog_version()")
    await capture.untrack(db, "t")
    assert len({before, tracked, await value(db, "SELECT snapring.catalog_version()")}) == 3
    assert await value(db, "SELECT count(*) FROM snapring.changes WHERE rel = 0") == 2


async def test_new_and_attached_partitions_are_captured_at_once(db: Connection) -> None:
    """Also partitions of partitions, and a table that was under capture by itself."""
    await db.execute("CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (20)")
    assert await left_by(db, "INSERT INTO p2 VALUES (11)") == await of_table(db, "p", id=[11])
    await db.execute(
        "CREATE TABLE p3 (id int PRIMARY KEY) PARTITION BY RANGE (id);"
        "CREATE TABLE p33 PARTITION OF p3 FOR VALUES FROM (20) TO (30)"
    )
    await capture.track(db, "p3")
    assert await left_by(db, "INSERT INTO p33 VALUES (21)") == await of_table(db, "p3", id=[21])
    await db.execute("ALTER TABLE p ATTACH PARTITION p3 FOR VALUES FROM (20) TO (30)")
    assert await left_by(db, "INSERT INTO p33 VALUES (22)") == await of_table(db, "p", id=[22])
    captured = [row[0] for row in await rows(db, CAPTURED)]
    assert captured == ["public.p", "public.p1", "public.p2", "public.p3", "public.p33", "public.t"]


async def test_an_ordinary_role_may_add_partitions(db: Connection) -> None:
    """Following its DDL takes rights that it does not have."""
    await db.execute("DROP ROLE IF EXISTS snapring_maker; CREATE ROLE snapring_maker")
    try:
        await db.execute(
            "ALTER TABLE p OWNER TO snapring_maker; GRANT CREATE ON SCHEMA public TO snapring_maker"
        )
        await db.execute(
            "SET ROLE snapring_maker; CREATE TABLE p4 PARTITION OF p FOR VALUES FROM (30) TO (40); RESET ROLE"
        )
        assert await left_by(db, "INSERT INTO p4 VALUES (31)") == await of_table(db, "p", id=[31])
    finally:
        await db.execute("RESET ROLE; DROP OWNED BY snapring_maker CASCADE; DROP ROLE snapring_maker")


async def test_renamed_dropped_and_retyped_columns_are_followed(db: Connection) -> None:
    """Writers never notice; a column that lost its grain loses its tags."""
    await capture.track(db, "t", ["id", "other"])
    await db.execute("DROP VIEW v; ALTER TABLE t RENAME id TO key")
    left = await left_by(db, "UPDATE t SET key = 2")
    assert left == await of_table(db, "t", key=[1, 2], other=[1])
    await db.execute(
        "ALTER TABLE t DROP COLUMN mood; ALTER TABLE t ALTER key TYPE bigint, ALTER other TYPE numeric"
    )
    assert await left_by(db, "UPDATE t SET key = 3") == await of_table(db, "t", key=[2, 3])
    await db.execute("ALTER TABLE t DROP COLUMN key")
    assert await left_by(db, "UPDATE t SET other = 4") == await of_table(db, "t")


async def test_dropped_tables_are_forgotten(db: Connection) -> None:
    """Their records and functions go with them."""
    await db.execute("DROP TABLE t CASCADE; DROP TABLE p1")
    assert await rows(db, CAPTURED) == [("public.p",)]
    functions = await value(db, "SELECT count(*) FROM pg_proc WHERE proname LIKE 'capture\\_%\\_insert'")
    assert functions == 2, "those of the schema's own table among them"


async def test_a_disabled_trigger_ends_capture(db: Connection) -> None:
    """The table is not tracked from then on, and everything is void at that moment."""
    assert await voids(db, "ALTER TABLE t DISABLE TRIGGER ALL")
    assert ("public.t",) not in await rows(db, CAPTURED)
    assert await voids(db, "ALTER TABLE t ENABLE TRIGGER ALL")
    assert ("public.t",) not in await rows(db, CAPTURED), "ENABLE ALWAYS was lost on the way"
    await capture.install(db)
    assert ("public.t",) in await rows(db, CAPTURED)


async def test_the_catalog_is_compared_where_event_triggers_are_missing(db: Connection) -> None:
    """Any DDL gives another version, temporary tables and writes do not."""
    await db.execute(
        "DROP EVENT TRIGGER snapring_ddl_start; DROP EVENT TRIGGER snapring_ddl_end; DROP EVENT TRIGGER snapring_ddl_drop"
    )
    assert not await value(db, "SELECT snapring.ddl_captured()")
    seen = [await value(db, "SELECT snapring.catalog_version()")]
    for statement in (
        "ALTER TABLE t ADD COLUMN more int",
        "CREATE OR REPLACE VIEW v AS SELECT id + 1 AS id FROM t",
        "ALTER TABLE t DISABLE TRIGGER USER",
        "ALTER TABLE t ENABLE TRIGGER USER",
        "ALTER TYPE mood RENAME VALUE 'sad' TO 'blue'",
        "CREATE OR REPLACE FUNCTION f(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1 + 1'",
        "ALTER TABLE p DETACH PARTITION p1",
        "DROP VIEW v",
    ):
        await db.execute(statement.encode())
        seen.append(await value(db, "SELECT snapring.catalog_version()"))
        await db.execute(
            "CREATE TEMP TABLE scratch (id serial PRIMARY KEY); INSERT INTO t VALUES (5); DELETE FROM t WHERE id = 5; DROP TABLE scratch"
        )
        assert await value(db, "SELECT snapring.catalog_version()") == seen[-1]
    assert len(set(seen)) == len(seen)


async def test_switching_an_event_trigger_off_and_on_is_noticed(db: Connection) -> None:
    """Whatever was done in between went unseen."""
    before = await value(db, "SELECT snapring.catalog_version()")
    await db.execute("ALTER EVENT TRIGGER snapring_ddl_end DISABLE")
    await db.execute("ALTER EVENT TRIGGER snapring_ddl_end ENABLE ALWAYS")
    assert await value(db, "SELECT snapring.catalog_version()") != before


async def test_the_replica_role_does_not_hide_ddl(db: Connection) -> None:
    """The event triggers are ENABLE ALWAYS as well."""
    assert await voids(
        db, "SET session_replication_role = replica; CREATE TABLE x (); RESET session_replication_role"
    )
