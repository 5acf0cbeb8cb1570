"""snapring check: every finding it can make, and that its remedy mends what it found."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from cluster import capture
from cluster.check import Finding, check
from servers import Server
from writes import Connection, connected, installed, left_by, of_table

SCHEMA = """
CREATE TABLE t (id int PRIMARY KEY, name text);
CREATE TABLE p (id int PRIMARY KEY, part int) PARTITION BY RANGE (id);
CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10);
"""
NO_EVENTS = "DROP EVENT TRIGGER snapring_ddl_start; DROP EVENT TRIGGER snapring_ddl_end; DROP EVENT TRIGGER snapring_ddl_drop"


@pytest.fixture
async def db(database: str) -> AsyncIterator[Connection]:
    """A database in which nothing is amiss."""
    async with installed(database, SCHEMA, "t", "p") as connection:
        yield connection


async def found(
    db: Connection, role: str | None = None, ignore: str = "event triggers do not"
) -> list[Finding]:
    """The findings but for those on what a test took away on purpose."""
    return [each for each in await check(db, role) if not each.problem.startswith(ignore)]


async def mend(db: Connection, finding: Finding) -> None:
    """Do what the remedy says, as a user would."""
    if ", then: " in finding.remedy:
        for each in finding.remedy.split(", then: "):
            await mend(db, replace(finding, remedy=each))
    elif finding.remedy == "snapring init":
        await capture.install(db)
    elif finding.remedy.startswith("snapring track "):
        words = finding.remedy.split()
        columns = words[words.index("--columns") + 1].split(",") if "--columns" in words else None
        limit = int(words[words.index("--bulk-limit") + 1]) if "--bulk-limit" in words else 1000
        await capture.track(db, words[2], columns, bulk_limit=limit)
    elif finding.remedy.startswith("snapring untrack "):
        await capture.untrack(db, finding.remedy.split()[2])
    else:
        await db.execute(finding.remedy.encode())


async def test_a_sound_installation_has_no_findings(db: Connection) -> None:
    """Nothing to see, nothing to do."""
    assert await check(db) == []


async def test_a_missing_schema_is_found(database: str) -> None:
    """The first thing anyone forgets."""
    async with connected(database) as db:
        (finding,) = await check(db)
        assert (finding.severity, finding.remedy) == ("error", "snapring init")
        await mend(db, finding)
        assert await check(db) == []


@pytest.mark.parametrize(("version", "word"), [(1, "older"), (3, "newer")])
async def test_another_version_is_found(db: Connection, version: int, word: str) -> None:
    """Nothing else can be said about it."""
    await db.execute("UPDATE snapring.version SET version = %s", (version,))
    (finding,) = await check(db)
    assert word in finding.problem


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        ("DROP TRIGGER snapring_update ON t", "snapring_update is missing"),
        ("ALTER TABLE t DISABLE TRIGGER snapring_insert", "snapring_insert is disabled"),
        ("ALTER TABLE t ENABLE TRIGGER snapring_delete", "snapring_delete is not ENABLE ALWAYS"),
        ("ALTER TABLE t ENABLE REPLICA TRIGGER snapring_delete", "snapring_delete is not ENABLE ALWAYS"),
        (
            (
                "DO $$ BEGIN EXECUTE format('CREATE OR REPLACE FUNCTION snapring.capture_%s_insert() RETURNS trigger"
                " LANGUAGE plpgsql AS ''BEGIN RETURN NULL; END''', 't'::regclass::oid); END $$"
            ),
            "snapring_insert was altered",
        ),
        (
            (
                "DO $$ BEGIN EXECUTE format('CREATE OR REPLACE TRIGGER snapring_update AFTER UPDATE OF name ON t"
                " FOR EACH STATEMENT EXECUTE FUNCTION snapring.capture_%s_truncate()', 't'::regclass::oid); END $$;"
                " ALTER TABLE t ENABLE ALWAYS TRIGGER snapring_update"
            ),
            "snapring_update was altered",
        ),
        (f"{NO_EVENTS}; ALTER TABLE t RENAME id TO key", "column id is now called key"),
        (f"{NO_EVENTS}; ALTER TABLE t DROP COLUMN id", "column id is gone"),
        (f"{NO_EVENTS}; ALTER TABLE t ALTER id TYPE numeric", "column id no longer tells rows apart"),
        (f"{NO_EVENTS}; ALTER TABLE t ALTER id TYPE bigint", "column id is now of type bigint"),
        (f"{NO_EVENTS}; DROP TABLE t", "the table is gone"),
        (
            f"{NO_EVENTS}; CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (20)",
            "joined public.p and is not",
        ),
        (f"{NO_EVENTS}; CREATE TABLE child () INHERITS (t)", "joined public.t and is not captured"),
        (
            "CREATE TABLE q (id int, part int) PARTITION BY LIST (part); ALTER TABLE q ATTACH PARTITION p DEFAULT",
            "also change through public.q",
        ),
        ("CREATE TABLE o (id int, name text); ALTER TABLE t INHERIT o", "also change through public.o"),
        ("DROP TRIGGER snapring_delete ON snapring.heads", "snapring_delete is missing"),
        ("CREATE TABLE c () INHERITS (snapring.heads)", "joined snapring.heads and is not captured"),
        (f"{NO_EVENTS}; ALTER TABLE snapring.heads RENAME key TO name", "column key is now called name"),
        (
            "CREATE TABLE o (z int); CREATE TABLE c (id int, name text) INHERITS (o); ALTER TABLE c ALTER id SET NOT NULL; ALTER TABLE c INHERIT t",
            "joined public.t",
        ),
    ],
)
async def test_what_breaks_capture_is_found_and_mended(db: Connection, damage: str, problem: str) -> None:
    """Each way in which a table's changes could go unseen, or be seen wrongly."""
    await db.execute(damage.encode())
    findings = await found(db)
    assert problem in " ".join(each.problem for each in findings)
    assert {each.severity for each in findings} == {"error"}
    for finding in {each.remedy: each for each in findings}.values():
        await mend(db, finding)
    assert [each for each in await found(db) if each.severity == "error"] == []


async def test_foreign_partitions_are_found(db: Connection) -> None:
    """Nobody here sees their rows change."""
    await db.execute(
        "CREATE FOREIGN DATA WRAPPER none; CREATE SERVER far FOREIGN DATA WRAPPER none;"
        "CREATE TABLE r (id int) PARTITION BY RANGE (id);"
    )
    await capture.track(db, "r", ["id"])
    await db.execute("CREATE FOREIGN TABLE r1 PARTITION OF r FOR VALUES FROM (0) TO (10) SERVER far")
    (finding,) = await check(db)
    assert "foreign table" in finding.problem
    await mend(db, finding)
    assert await check(db) == []


async def test_tables_of_subscriptions_are_found(server: Server, database: str) -> None:
    """Apply workers fire row triggers only, so such a table is not tracked."""
    async with installed(database, SCHEMA, "t", "p") as db:
        await db.execute(
            "CREATE SUBSCRIPTION s CONNECTION 'dbname=nowhere' PUBLICATION x WITH (connect = false, slot_name = NONE)"
        )
        try:
            # What CREATE SUBSCRIPTION writes when it connects.
            await db.execute(
                "INSERT INTO pg_subscription_rel SELECT oid, 't'::regclass, 'r', NULL FROM pg_subscription"
            )
            (finding,) = await check(db)
            assert "subscription" in finding.problem
            (state,) = [each for each in await capture.tracked(db) if each.table == "public.t"]
            assert state.flaw is not None
            await mend(db, finding)
            assert await check(db) == []
        finally:
            await db.execute("DROP SUBSCRIPTION s")


@pytest.mark.parametrize(
    "level", ["DATABASE {database}", "ROLE {role}", "ROLE {role} IN DATABASE {database}"]
)
@pytest.mark.parametrize(
    ("setting", "severity"),
    [
        ("synchronous_commit = off", "warning"),
        ("session_replication_role = replica", "note"),
        ("event_triggers = off", "error"),
    ],
)
async def test_dangerous_settings_are_found_at_every_level(
    db: Connection, level: str, setting: str, severity: str
) -> None:
    """With what is lost, and the statement that takes them back."""
    if "event_triggers" in setting and db.info.server_version < 170000:
        pytest.skip("event_triggers came with PostgreSQL 17")
    await db.execute("DROP ROLE IF EXISTS snapring_app; CREATE ROLE snapring_app")
    where = level.format(database=db.info.dbname, role="snapring_app")
    try:
        await db.execute(f"ALTER {where} SET {setting}".encode())
        (finding,) = await check(db)
        assert finding.severity == severity
        assert finding.remedy == f"ALTER {where} RESET {setting.split(maxsplit=1)[0]}"
        await mend(db, finding)
        assert await check(db) == []
    finally:
        await db.execute("DROP ROLE snapring_app")


async def test_missing_privileges_are_found(db: Connection) -> None:
    """All that a node's role lacks; granting what the findings say is enough to do a node's work."""
    await db.execute("DROP ROLE IF EXISTS snapring_reader; CREATE ROLE snapring_reader")
    try:
        findings = await check(db, "snapring_reader")
        assert {each.table for each in findings} == {None, "public.t", "public.p"}
        for finding in findings:
            await mend(db, finding)
        assert await check(db, "snapring_reader") == []
        await db.execute("SET ROLE snapring_reader")
        for work in (
            "SELECT * FROM t, p, snapring.changes, snapring.tracked, snapring.heads",
            "SELECT snapring.renew(), snapring.incarnation(), snapring.catalog_version(), snapring.trimmed()",
            "SELECT snapring.tag(5, 1, 'x')",
            "SELECT snapring.write('{a:1}', '{x}', '{0}'), snapring.listing('a:', '', 10, NULL)",
            "SELECT snapring.version_at('a:1', pg_current_snapshot()), snapring.sweep(0, 1, 1, 10)",
        ):
            await db.execute(work.encode())
    finally:
        await db.execute("RESET ROLE; DROP OWNED BY snapring_reader; DROP ROLE snapring_reader")


async def test_allow_grants_what_check_asks_for(db: Connection) -> None:
    """But for the tables themselves."""
    await db.execute("DROP ROLE IF EXISTS snapring_reader; CREATE ROLE snapring_reader")
    try:
        await capture.allow(db, "snapring_reader")
        assert {each.table for each in await check(db, "snapring_reader")} == {"public.t", "public.p"}
    finally:
        await db.execute("DROP OWNED BY snapring_reader; DROP ROLE snapring_reader")


async def test_row_security_is_found(db: Connection) -> None:
    """A policy may read what no dependency knows, so the table is not tracked for that role."""
    await db.execute(
        "DROP ROLE IF EXISTS snapring_reader; CREATE ROLE snapring_reader; GRANT SELECT ON t, p TO snapring_reader"
    )
    await capture.allow(db, "snapring_reader")
    try:
        await db.execute("ALTER TABLE t ENABLE ROW LEVEL SECURITY")
        assert await check(db) == []
        (finding,) = await check(db, "snapring_reader")
        assert (finding.table, finding.severity) == ("public.t", "error")
        await db.execute("SET ROLE snapring_reader")
        tracked = await (await db.execute("SELECT relation FROM snapring.tracked ORDER BY 1")).fetchall()
        assert tracked == [("public.p",), ("public.p1",), ("snapring.heads",)]
        await db.execute("RESET ROLE")
        await mend(db, finding)
        assert await check(db, "snapring_reader") == []
    finally:
        await db.execute("RESET ROLE; DROP OWNED BY snapring_reader; DROP ROLE snapring_reader")


async def test_event_triggers_that_are_missing_or_off_are_found(db: Connection) -> None:
    """The catalog is compared instead, and that costs something."""
    await db.execute("ALTER EVENT TRIGGER snapring_ddl_end ENABLE")
    (finding,) = await check(db)
    assert finding.severity == "warning"
    await mend(db, finding)
    assert await check(db) == []
    await db.execute(NO_EVENTS.encode())
    (finding,) = await check(db)
    assert finding.remedy == "as a superuser: snapring init"


async def test_notes_on_what_needs_no_mending(db: Connection) -> None:
    """Prepared transactions, unlogged tables, tables without tags."""
    await db.execute("CREATE UNLOGGED TABLE u (x text)")
    await capture.track(db, "u")
    await db.execute("BEGIN; INSERT INTO t VALUES (1); PREPARE TRANSACTION 'it''s'")
    findings = await check(db)
    assert {each.severity for each in findings} == {"note"}
    assert len(findings) == 3
    (prepared,) = [each for each in findings if "prepared" in each.problem]
    await mend(db, prepared)
    assert len(await check(db)) == 2


async def test_an_unknown_role_is_an_error(db: Connection) -> None:
    """And not a reason to fall over."""
    (finding,) = await check(db, "snapring_nobody")
    assert "no role" in finding.problem


async def test_capture_survives_what_check_does(db: Connection) -> None:
    """Looking changes nothing."""
    await check(db)
    assert await left_by(db, "INSERT INTO t VALUES (1)") == await of_table(db, "t", id=[1])
