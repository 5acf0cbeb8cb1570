"""The functions that write and read versions of store caches: what each promises, in its hardest case."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import closing
from importlib.resources import files
from typing import cast

import psycopg
import pytest

from cluster import capture
from cluster.analysis.catalog import analyse
from cluster.config import CURRENT_VERSION
from cluster.embedded import EmbeddedPostgres
from cluster.writes import MAX_VERSION
from nodes import blocked
from servers import THROWAWAY, Server
from snapring.keys import Key
from writes import Connection, connected, installed, left_by, of_table, rows, value

WRITE = "SELECT xid::text, refused, version FROM snapring.write(%s, %s, %s::bigint[])"
NOW = "SELECT pg_current_snapshot()::text"
HISTORY = "SELECT key, number, created::text, expired::text FROM snapring.history ORDER BY 1, 2"


@pytest.fixture
async def db(database: str) -> AsyncIterator[Connection]:
    """A database with the schema."""
    async with installed(database) as connection:
        yield connection


@pytest.fixture(scope="module")
def fragile() -> Iterator[Server]:
    """A server that these tests may crash."""
    with Server() as running:
        yield running


async def write(db: Connection, **values: bytes | None) -> str:
    """Write unconditionally; the transaction."""
    ((xid, _, _),) = await rows(
        db, WRITE, [f"c:{key}" for key in values], list(values.values()), [None] * len(values)
    )
    return str(xid)


async def read(db: Connection, key: str, at: object) -> object:
    """The value of a key at a snapshot, None if there was none."""
    found = await rows(db, "SELECT value FROM snapring.version_at(%s, %s::pg_snapshot)", f"c:{key}", at)
    return found[0][0] if found else None


async def listed(
    db: Connection, prefix: str, at: object = None, after: str = "", most: int = 9
) -> list[object]:
    """The keys of a listing."""
    query = "SELECT key FROM snapring.listing(%s, %s, %s, %s::pg_snapshot)"
    return [key for (key,) in await rows(db, query, prefix, after, most, at)]


async def test_a_transaction_that_began_first_may_write_last(database: str) -> None:
    """Versions follow each other as their transactions commit, whatever order their ids have."""
    async with installed(database) as db, connected(database) as late:
        await write(db, a=b"0")
        await late.execute("BEGIN; SELECT pg_current_xact_id()")
        looks = []
        for n in range(3):
            await write(db, a=b"early %d" % n)
            looks.append((await value(db, NOW), b"early %d" % n))
        await write(late, a=b"late")
        looks.append((await value(db, NOW), b"early 2"))
        await late.execute("COMMIT")
        looks.append((await value(db, NOW), b"late"))
        for n in range(3):
            await write(db, a=b"later %d" % n)
        assert [(at, await read(db, "a", at)) for at, _ in looks] == looks


async def test_what_nobody_could_see_is_no_version(db: Connection) -> None:
    """Several writes of one transaction leave one version, and one entry in the history."""
    first = await write(db, a=b"1")
    async with db.transaction():
        for content in (b"2", None, b"3", b"4"):
            second = await write(db, a=content)
        await write(db, b=b"brief")
        await write(db, b=None)
    assert await rows(db, HISTORY) == [("c:a", 1, first, second)]
    assert await rows(db, "SELECT key, created::text, value FROM snapring.heads") == [("c:a", second, b"4")]


async def test_a_savepoint_that_is_rolled_back_wrote_nothing(db: Connection) -> None:
    """Neither head nor history nor lock is left of it; what is said is the whole transaction."""
    async with db.transaction():
        xid = await write(db, a=b"1")
        async with db.transaction(force_rollback=True):
            await write(db, a=b"2", b=b"2")
        async with db.transaction():
            assert await write(db, d=b"3") == xid
    assert await rows(db, HISTORY) == []
    assert await listed(db, "c:") == ["c:a", "c:d"]


async def test_no_two_writes_have_one_version(db: Connection) -> None:
    """Not even of one transaction, nor of one that is undone, whose id a crash may give out again."""
    given = []
    async with db.transaction():
        for _ in range(3):
            async with db.transaction(force_rollback=True):
                given += await rows(db, WRITE, ["c:a"], [b"1"], [None])
        given += await rows(db, WRITE, ["c:a"], [b"1"], [None])
    assert len({xid for xid, _, _ in given}) == 1
    assert len({version for _, _, version in given}) == 4
    assert all(0 < cast("int", version) <= MAX_VERSION for _, _, version in given)


@pytest.mark.parametrize(
    "key",
    [
        "a",
        "c",
        "c:a%2fb",
        "c:a%41",
        "c:a/b",
        "c:{a}",
        "c:a%",
        "c:\n",
        "1c:a",
        "default/c:a",
        "c:" + 1023 * "a",
    ],
)
async def test_a_key_that_no_node_asks_for_is_refused(db: Connection, key: str) -> None:
    """What an application writes under another spelling nobody would find."""
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="no key is written so"):
        await rows(db, WRITE, ["c:b", key], [b"1", b"2"], [None, None])
    assert await listed(db, "") == []


async def test_every_key_that_a_node_asks_for_can_be_written(db: Connection) -> None:
    """Whatever characters its arguments have."""
    arguments = [("",), ("", ""), *((chr(point),) for point in range(0x180)), ("\U0001f511", "x" * 1000)]
    keys = [
        str(Key(tenant=tenant, cache="c-_1", args=args)) for tenant in ("default", "t") for args in arguments
    ]
    await rows(db, WRITE, keys, [b""] * len(keys), [None] * len(keys))
    assert await value(db, "SELECT count(*) FROM snapring.heads") == len(keys)


async def test_a_demand_that_does_not_hold_writes_nothing(db: Connection) -> None:
    """The first key that is refused is told with the version it has, and no transaction id is used up."""
    ((_, _, version),) = await rows(db, WRITE, ["c:a"], [b"1"], [0])
    before = await value(db, NOW)
    for key, wanted, present in (("c:a", 0, version), ("c:a", 5, version), ("c:x", version, 0)):
        answer = await rows(db, WRITE, ["c:b", key], [b"2", b"2"], [None, wanted])
        assert answer == [(None, key, present)]
    assert await value(db, NOW) == before
    assert await listed(db, "c:") == ["c:a"]


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
async def test_a_transaction_with_an_old_snapshot_is_refused(db: Connection, level: str) -> None:
    """What it demands would be judged by what was there when it began."""
    async with db.transaction():
        await db.execute(f"SET TRANSACTION ISOLATION LEVEL {level}".encode())
        with pytest.raises(psycopg.errors.ActiveSqlTransaction, match=f"READ COMMITTED, this one is {level}"):
            async with db.transaction():
                await write(db, a=b"1")


@pytest.mark.parametrize(
    ("keys", "values", "versions"),
    [
        ([], [], []),
        (["c:a"], [b"1", b"2"], [None]),
        (["c:a"], [b"1"], []),
        (["c:a", "c:a"], [b"1", b"2"], [None, None]),
        (["c:a", None], [b"1", b"2"], [None, None]),
        (None, [b"1"], [None]),
    ],
)
async def test_arguments_that_mean_nothing_are_refused(
    db: Connection, keys: object, values: object, versions: object
) -> None:
    """Nothing to write, another number of values, a key twice, a key that is null."""
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=r"snapring\.write takes"):
        await rows(db, WRITE, keys, values, versions)


async def test_writes_of_a_key_take_turns(database: str) -> None:
    """The second waits for the first, and its demand is judged by what the first left."""
    async with installed(database) as db, connected(database) as other:
        async with db.transaction():
            ((_, _, version),) = await rows(db, WRITE, ["c:a"], [b"1"], [None])
            waiting = asyncio.create_task(rows(other, WRITE, ["c:a"], [b"2"], [0]))
            async with connected(database) as observer:
                await blocked(observer)
        assert await waiting == [(None, "c:a", version)]


async def test_writes_of_many_keys_do_not_deadlock(database: str) -> None:
    """In whatever order the keys are named: no increment is lost, and none fails."""
    keys = [f"c:{n}" for n in range(12)]

    async def increments(named: Sequence[str]) -> None:
        async with connected(database) as mine:
            for _ in range(20):
                await rows(mine, WRITE, named, [b"x"] * len(named), [None] * len(named))

    async with installed(database) as db:
        await asyncio.gather(*(increments(named) for named in (keys, keys[::-1], keys[6:] + keys[:6])))
        counted = "SELECT count(DISTINCT created), count(DISTINCT expired), max(number) FROM snapring.history"
        assert await rows(db, counted) == [(59, 59, 59)]


async def test_a_prepared_write_holds_its_keys_through_a_crash(fragile: Server) -> None:
    """Nobody writes them until it ends; then every snapshot sees it before what follows."""
    with fragile.database() as name:
        async with installed(fragile.dsn(name)) as db:
            await write(db, a=b"1")
            await db.execute("BEGIN")
            await write(db, a=b"2")
            await db.execute("PREPARE TRANSACTION 'p'")
        fragile.crash()
        async with connected(fragile.dsn(name)) as db:
            with pytest.raises(psycopg.errors.CannotConnectNow, match="no incarnation"):
                await write(db, b=b"1")
            await db.execute("SELECT snapring.renew()")
            before = await value(db, NOW)
            await db.execute("SET lock_timeout = '50ms'")
            with pytest.raises(psycopg.errors.LockNotAvailable):
                await write(db, a=b"3")
            await db.execute("COMMIT PREPARED 'p'")
            between = await value(db, NOW)
            await write(db, a=b"3")
            assert [await read(db, "a", at) for at in (before, between)] == [b"1", b"2"]


async def test_a_promoted_standby_goes_on_with_the_versions(fragile: Server) -> None:
    """Values and history are there, in another incarnation; what is written next follows them."""
    standby = EmbeddedPostgres(bin_dir=fragile.programs(), settings=THROWAWAY)
    with fragile.database() as name, closing(standby):
        async with installed(fragile.dsn(name)) as db:
            first = await write(db, a=b"1")
            second = await write(db, a=b"2")
            before = await value(db, "SELECT snapring.incarnation()")
            standby.follow(fragile)
        standby.start()
        async with connected(standby.dsn(name)) as db:
            with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
                await db.execute("SELECT snapring.renew()")
            await db.execute("SELECT pg_promote()")
            assert await value(db, "SELECT snapring.renew()") != before
            at = await value(db, NOW)
            third = await write(db, a=b"3")
            assert await read(db, "a", at) == b"2"
            assert await rows(db, HISTORY) == [("c:a", 1, first, second), ("c:a", 2, second, third)]


async def test_a_clone_keeps_the_values_and_forgets_the_past(server: Server) -> None:
    """No transaction id of another database means anything here; until init nothing is written either."""
    with server.database() as name, server.database() as other:
        async with installed(server.dsn(name)) as db:
            await write(db, a=b"1", b=b"1")
            await write(db, a=b"2")
        server.copy(name, other)
        async with connected(server.dsn(other)) as db:
            with pytest.raises(psycopg.errors.CannotConnectNow):
                await write(db, a=b"3")
            before = await value(db, NOW)
            await capture.install(db)
            with pytest.raises(psycopg.DatabaseError, match="history reaches back to transaction") as refusal:
                await read(db, "a", before)
            assert refusal.value.sqlstate == "SN001"
            now = await value(db, NOW)
            assert [await read(db, "a", now), await read(db, "b", now)] == [b"2", b"1"]
            assert await left_by(db, WRITE % ("'{c:a}'", "'{x}'", "'{NULL}'")) == await of_table(
                db, "snapring.heads", key=["c:a"]
            )


async def test_an_upgrade_adds_the_versions_and_keeps_the_rest(database: str) -> None:
    """From version 1: what it tracked is tracked, what it knew of changes stays, and who ran a node still may."""
    async with connected(database) as db:
        sources = files("cluster") / "sql"
        for part in ("tables_1.sql", "position.sql", "capture.sql", "ddl.sql"):
            await db.execute((sources / part).read_bytes())
        await db.execute(
            "INSERT INTO snapring.version SELECT true, 1, system_identifier, (SELECT oid FROM pg_database"
            " WHERE datname = current_database()) FROM pg_control_system(); SELECT snapring.renew();"
            "INSERT INTO snapring.grains VALUES (23, '(%s)::pg_catalog.text');"
            "CREATE TABLE t (id int PRIMARY KEY); SELECT snapring.track('t', NULL, 7);"
            "DROP ROLE IF EXISTS snapring_node; CREATE ROLE snapring_node; GRANT USAGE ON SCHEMA snapring TO snapring_node;"
            "GRANT EXECUTE ON FUNCTION snapring.incarnation() TO snapring_node"
        )
        incarnation = await value(db, "SELECT snapring.incarnation()")
        await capture.install(db)
        assert await capture.installed_version(db) == 2
        assert await value(db, "SELECT snapring.incarnation()") == incarnation
        assert [(each.table, each.bulk_limit) for each in await capture.tracked(db)] == [("public.t", 7)]
        await db.execute("SET ROLE snapring_node")
        assert await write(db, a=b"1") == await value(db, "SELECT created::text FROM snapring.heads")
        await db.execute("SELECT snapring.sweep(1, 1, 1, 1)")
        await db.execute("RESET ROLE; DROP OWNED BY snapring_node; DROP ROLE snapring_node")


async def test_rows_are_written_in_no_other_way(db: Connection) -> None:
    """Whoever owns the tables would leave versions without a history."""
    await write(db, a=b"1")
    await write(db, a=b"2")
    for table in ("snapring.heads", "snapring.history"):
        for statement in (f"TRUNCATE {table}", f"DELETE FROM {table}", f"UPDATE {table} SET value = ''"):
            with pytest.raises(psycopg.errors.FeatureNotSupported, match=r"through snapring\.write alone"):
                await db.execute(statement.encode())
    with pytest.raises(capture.CaptureRefused, match="part of the schema"):
        await capture.untrack(db, "snapring.heads")


async def test_a_snapshot_that_is_not_reached_is_refused(db: Connection) -> None:
    """What it sees may not have happened here."""
    await write(db, a=b"1")
    for at in ("90000:90000:", "3:90000:5"):
        with pytest.raises(psycopg.DatabaseError, match="has not reached") as refusal:
            await read(db, "a", at)
        assert refusal.value.sqlstate == "SN002"


async def test_a_listing_is_in_the_order_of_bytes(db: Connection) -> None:
    """Whatever the database's collation, and without what only begins like the prefix's neighbours."""
    await write(db, Ab=b"", a=b"", ab=b"", **{"a%2F": b"", "ä": b"", "a\U0010ffff": b"", "b": b""})
    now = await value(db, NOW)
    for at in (None, now):
        assert await listed(db, "c:a", at) == ["c:a", "c:a%2F", "c:ab", "c:a\U0010ffff"]
        assert await listed(db, "c:", at, most=2) == ["c:Ab", "c:a"]
        assert await listed(db, "c:", at, after="c:b") == ["c:ä"]
        assert await listed(db, "c:", at, most=0) == []


async def test_old_versions_are_found_without_looking_at_all(db: Connection) -> None:
    """Of many versions of one key, and of one key among many, a handful is read."""
    await db.execute(
        "SET snapring.writing = 'on'; INSERT INTO snapring.history"
        " SELECT 'c:many', n, (n + 3)::text::xid8, (n + 4)::text::xid8, n, n::text::bytea FROM generate_series(1, 500) n"
        " UNION ALL SELECT 'c:one' || n, 1, '3', '400', 1, '' FROM generate_series(1, 500) n;"
        "SET snapring.writing = ''"
    )
    looked = "SELECT seq_scan, idx_tup_fetch FROM pg_stat_xact_all_tables WHERE relid = 'snapring.history'::regclass"
    async with db.transaction():
        before = await rows(db, looked)
        assert await read(db, "many", "204:204:") == b"200"
        assert await read(db, "many", "4:4:") is None, "before the first of them"
        assert await read(db, "one77", "300:300:") == b""
        assert await listed(db, "c:", "4:4:", most=2) == ["c:one1", "c:one10"]
        after = await rows(db, looked)
    assert after[0][0] == before[0][0], "a sequential scan"
    assert cast("int", after[0][1]) - cast("int", before[0][1]) < 60


async def test_a_read_of_a_key_depends_on_that_key(db: Connection) -> None:
    """What a node runs to load an entry is analysed like any other query."""
    async with await psycopg.AsyncConnection.connect(db.info.dsn, autocommit=True) as connection:
        (found,) = (await analyse(connection, CURRENT_VERSION)).dependencies
    assert (found.table, found.param) == ("snapring.heads", 1)
