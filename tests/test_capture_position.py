"""Incarnation, trim position and versions of the schema, through crashes, restores and upgrades."""

from collections.abc import Iterator

import psycopg
import pytest

from cluster import capture
from servers import Server
from writes import connected, installed, left_by, of_table, rows, value

SCHEMA = "CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t VALUES (1, 1)"


@pytest.fixture(scope="module")
def fragile() -> Iterator[Server]:
    """A server that these tests may crash and restart."""
    with Server() as running:
        yield running


async def test_a_clean_restart_keeps_the_incarnation(fragile: Server) -> None:
    """And the changes."""
    with fragile.database() as name:
        async with installed(fragile.dsn(name), SCHEMA, "t") as db:
            before = await value(db, "SELECT snapring.incarnation()")
            await left_by(db, "UPDATE t SET n = 2")
        fragile.restart()
        async with connected(fragile.dsn(name)) as db:
            assert await value(db, "SELECT snapring.incarnation()") == before
            assert await rows(db, "SELECT rel::int8, tag FROM snapring.changes") == await of_table(
                db, "t", id=[1]
            )


async def test_a_crash_empties_marker_and_changes_together(fragile: Server) -> None:
    """Until renew there is no incarnation, then another one; a prepared survivor voids everything."""
    with fragile.database() as name:
        async with installed(fragile.dsn(name), SCHEMA, "t") as db:
            before = await value(db, "SELECT snapring.incarnation()")
            await db.execute("BEGIN; UPDATE t SET n = 2; PREPARE TRANSACTION 'survivor'")
        fragile.crash()
        async with connected(fragile.dsn(name)) as db:
            assert await value(db, "SELECT snapring.incarnation()") is None
            assert await value(db, "SELECT snapring.catalog_version()") is None
            assert await value(db, "SELECT count(*) FROM snapring.changes") == 0
            after = await value(db, "SELECT snapring.renew()")
            assert after is not None
            assert after != before
            assert await value(db, "SELECT snapring.renew()") == after
            prepared = await value(db, "SELECT transaction::text FROM pg_prepared_xacts")
            orphans = await rows(db, "SELECT xid::text, rel::int8, tag FROM snapring.changes")
            assert orphans == [(prepared, 0, None)]
            await db.execute("SELECT snapring.trim(pg_current_xact_id(), 1000)")
            assert await value(db, "SELECT count(*) FROM snapring.changes") == 1, "kept until it ends"
            await db.execute("COMMIT PREPARED 'survivor'")
            await db.execute("SELECT snapring.trim(pg_current_xact_id(), 1000)")
            assert await value(db, "SELECT count(*) FROM snapring.changes") == 0


async def test_transaction_ids_keep_their_64_bits(fragile: Server) -> None:
    """The full id of a running transaction, also from the epoch before the newest one's."""
    with fragile.database() as name:
        async with installed(fragile.dsn(name)) as db, db.transaction():
            xid = await value(db, "SELECT pg_current_xact_id()::text")
            assert await value(db, "SELECT snapring.full_xid(pg_current_xact_id()::xid)::text") == xid
        fragile.stop()
        fragile.resetwal("-e", "3")
        fragile.start()
        async with connected(fragile.dsn(name)) as db:
            await db.execute("SELECT snapring.renew()")
            await db.execute("CREATE TABLE t (id int PRIMARY KEY)")
            await capture.track(db, "t")
            await left_by(db, "INSERT INTO t VALUES (1)")
            (xid,) = (await rows(db, "SELECT xid::text FROM snapring.changes"))[0]
            assert int(str(xid)) > 3 * 2**32
            early = "SELECT snapring.full_xid('4294967290'::xid)::text"
            assert await value(db, early) == str(3 * 2**32 - 6)


async def test_a_restored_dump_is_not_at_home(fragile: Server) -> None:
    """Its table oids mean nothing here: no incarnation until init has captured every table anew, by name."""
    with fragile.database() as name, fragile.database() as other:
        async with installed(fragile.dsn(name), SCHEMA) as db:
            await db.execute(
                "ALTER TABLE t ADD COLUMN gone int; ALTER TABLE t DROP COLUMN gone; ALTER TABLE t ADD k int"
            )
            await capture.track(db, "t", ["k"], bulk_limit=7)
        fragile.copy(name, other)
        async with connected(fragile.dsn(other)) as db:
            assert await value(db, "SELECT snapring.incarnation()") is None
            with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="another database"):
                await db.execute("SELECT snapring.renew()")
            await capture.install(db)
            assert await value(db, "SELECT snapring.incarnation()") is not None
            assert await left_by(db, "UPDATE t SET k = 5") == await of_table(db, "t", k=[5])
            (table,) = await capture.tracked(db)
            assert (table.table, table.columns, table.bulk_limit, table.flaw) == ("public.t", ("k",), 7, None)


async def test_incarnations_of_two_databases_differ(server: Server) -> None:
    """Tokens of one mean nothing in the other, a clone included."""
    with server.database() as name:
        async with installed(server.dsn(name)) as db:
            one = await value(db, "SELECT snapring.incarnation()")
        server.execute(f"CREATE DATABASE {name}_clone TEMPLATE {name}")
        try:
            async with connected(server.dsn(f"{name}_clone")) as db:
                assert await value(db, "SELECT snapring.incarnation()") is None
                await capture.install(db)
                assert await value(db, "SELECT snapring.incarnation()") not in (None, one)
        finally:
            server.execute(f"DROP DATABASE {name}_clone WITH (FORCE)")


async def test_trim_deletes_old_changes_in_bounded_steps(database: str) -> None:
    """It raises the position first, and never passes a running transaction."""
    async with installed(database, SCHEMA, "t") as db, connected(database) as running:
        await db.execute("DELETE FROM snapring.changes")
        for n in range(5):
            await db.execute("UPDATE t SET n = %s", (n,))
        end = await value(db, "SELECT pg_snapshot_xmax(pg_current_snapshot())::text")
        version = await value(db, "SELECT snapring.catalog_version()")
        await running.execute("BEGIN; SELECT pg_current_xact_id()")
        await db.execute("UPDATE t SET n = 9")
        assert await value(db, "SELECT snapring.trim('1000000', 3)") == 3
        assert await value(db, "SELECT snapring.trimmed()::text") == end
        assert await value(db, "SELECT snapring.trim('1000000', 1000)") == 2
        assert await value(db, "SELECT count(*) FROM snapring.changes") == 1
        assert await value(db, "SELECT count(*) FROM snapring.ddl") == 0
        assert await value(db, "SELECT snapring.catalog_version()") == version, "folded, not forgotten"


async def test_only_one_session_trims(database: str) -> None:
    """The others go on with their polls."""
    async with installed(database, SCHEMA, "t") as db, connected(database) as other, other.transaction():
        await other.execute("SELECT snapring.trim('1', 1)")
        await db.execute("SET lock_timeout = '1s'")
        assert await value(db, "SELECT snapring.trim('1000000', 1000)") == 0


async def test_installing_again_changes_nothing_but_mends(database: str) -> None:
    """Same incarnation, same tables; a broken function is whole again."""
    async with installed(database, SCHEMA, "t") as db:
        before = await value(db, "SELECT snapring.incarnation()")
        await db.execute("DROP TRIGGER snapring_update ON t")
        await capture.install(db)
        assert await value(db, "SELECT snapring.incarnation()") == before
        assert await left_by(db, "UPDATE t SET n = 3") == await of_table(db, "t", id=[1])


async def test_a_newer_schema_is_left_alone(database: str) -> None:
    """An old program must not write into what it does not know."""
    async with installed(database) as db:
        await db.execute("UPDATE snapring.version SET version = 99")
        with pytest.raises(capture.CaptureRefused, match="version 99"):
            await capture.install(db)
        with pytest.raises(capture.CaptureRefused, match="snapring init"):
            await capture.track(db, "pg_class")


async def test_a_foreign_schema_of_that_name_is_left_alone(database: str) -> None:
    """Whoever made it may need it."""
    async with connected(database) as db:
        await db.execute("CREATE SCHEMA snapring")
        with pytest.raises(capture.CaptureRefused, match="did not make"):
            await capture.install(db)


async def test_without_superuser_everything_but_event_triggers_works(database: str) -> None:
    """The owner of the tables can install and track."""
    async with connected(database) as db:
        name = await value(db, "SELECT current_database()")
        await db.execute("DROP ROLE IF EXISTS snapring_owner; CREATE ROLE snapring_owner LOGIN")
        await db.execute(
            f"GRANT ALL ON DATABASE {name} TO snapring_owner; GRANT ALL ON SCHEMA public TO snapring_owner".encode()
        )
        try:
            async with installed(database.replace("postgres@", "snapring_owner@"), SCHEMA, "t") as owner:
                assert not await value(owner, "SELECT snapring.ddl_captured()")
                assert await left_by(owner, "UPDATE t SET n = 3") == await of_table(owner, "t", id=[1])
                assert await value(owner, "SELECT snapring.incarnation()") is not None
        finally:
            await db.execute("DROP OWNED BY snapring_owner CASCADE; DROP ROLE snapring_owner")
