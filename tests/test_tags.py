"""Tags: triggers and loads agree on the text of a value, whatever a session's settings are."""

import psycopg
import pytest

from cluster import capture
from cluster.entries import ENTIRE_DATABASE
from cluster.tags import EXPRESSIONS, bulk_tag, key_grain, table_tag, tag_expression
from writes import installed, rows, value

VALUES = {
    "boolean": "'yes'",
    "bytea": "'\\x00ff41'",
    "name": "'a_name'",
    "bigint": "9007199254740993",
    "smallint": "-5",
    "integer": "42",
    "text": "'Łódź “x”'",
    "oid": "4294967295",
    "varchar(9)": "'padded  '",
    "date": "'2024-02-29'",
    "uuid": "'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'",
    "positive": "7",
}

ODD = """
SET DateStyle = 'SQL, DMY'; SET bytea_output = 'escape'; SET extra_float_digits = -15; SET TimeZone = 'Asia/Kathmandu';
SET IntervalStyle = 'sql_standard'; SET quote_all_identifiers = on; SET lc_monetary = 'C'; SET xmloption = 'document'
"""


async def test_triggers_and_loads_agree_under_any_settings(database: str) -> None:
    """For every type with a grain, the trigger's tag in an odd session is the load's tag in a plain one."""
    async with installed(database, "CREATE DOMAIN positive AS int") as db:
        columns = ", ".join(f"c{n} {kind}" for n, kind in enumerate(VALUES, 1))
        await db.execute(f"CREATE TABLE every ({columns})".encode())
        await capture.track(db, "every", [f"c{n}" for n in range(1, len(VALUES) + 1)])
        async with await psycopg.AsyncConnection.connect(database, autocommit=True) as writer:
            await writer.execute(ODD)
            await writer.execute(f"INSERT INTO every VALUES ({', '.join(VALUES.values())})".encode())
        written = {
            tag for (tag,) in await rows(db, "SELECT tag FROM snapring.changes WHERE rel = 'every'::regclass")
        }
        loaded = set()
        for attnum, (kind, literal) in enumerate(VALUES.items(), 1):
            base = {"positive": "integer"}.get(kind, kind)
            rel = await value(db, "SELECT 'every'::regclass::oid::int8")
            type_oid = await value(db, "SELECT %s::regtype::oid::int8", base.split("(")[0])
            assert isinstance(rel, int)
            assert isinstance(type_oid, int)
            expression = tag_expression(rel, attnum, f"{literal}::{base}", type_oid)
            loaded.add(await value(db, f"SELECT {expression}"))
    assert written == loaded
    assert len(written) == len(VALUES)


@pytest.mark.parametrize(
    ("kind", "one", "other"),
    [
        ("boolean", "'t'", "'on'"),
        ("date", "'2024-02-29'", "'Feb 29 2024'"),
        ("bytea", "'a'", r"'\x61'"),
        ("integer", "7", "'+07'"),
    ],
)
async def test_equal_values_have_equal_texts(database: str, kind: str, one: str, other: str) -> None:
    """However they were written."""
    async with installed(database) as db:
        type_oid = await value(db, "SELECT %s::regtype::oid::int8", kind)
        assert isinstance(type_oid, int)
        left, right = (tag_expression(1, 1, f"{each}::{kind}", type_oid) for each in (one, other))
        assert await value(db, f"SELECT {left} = {right}")


async def test_a_null_has_no_tag(database: str) -> None:
    """No row equals null."""
    async with installed(database) as db:
        for type_oid in EXPRESSIONS:
            kind = await value(db, "SELECT %s::regtype::text", type_oid)
            assert await value(db, f"SELECT {tag_expression(1, 1, f'NULL::{kind}', type_oid)}") is None


async def test_the_database_and_this_module_have_one_list_of_grains(database: str) -> None:
    """snapring.grain decides as key_grain does, for every type that a column can have."""
    async with installed(database) as db:
        await db.execute("CREATE TYPE mood AS ENUM ('x')")
        types = await rows(
            db,
            "SELECT oid::int8, typtype::text, format_type(oid, NULL) FROM pg_type WHERE typtype IN ('b', 'e')"
            " AND typcategory <> 'A' AND (typnamespace = 'pg_catalog'::regnamespace OR typname = 'mood')",
        )
        columns = ", ".join(f"c{n} {row[2]}" for n, row in enumerate(types, 1))
        await db.execute(f"CREATE TABLE wide ({columns})".encode())
        decided = await rows(
            db,
            "SELECT atttypid::int8, snapring.grain(attrelid, attnum) IS NOT NULL FROM pg_attribute"
            " WHERE attrelid = 'wide'::regclass AND attnum > 0",
        )
    assert dict(decided) == {oid: key_grain(oid, kind, deterministic=True) for oid, kind, _ in types}  # type: ignore[arg-type]


def test_a_nondeterministic_collation_has_no_grain() -> None:
    """Equal values may have different texts there."""
    assert key_grain(25, "b", deterministic=True)
    assert not key_grain(25, "b", deterministic=False)


async def test_a_nondeterministic_collation_has_no_grain_in_the_database(database: str) -> None:
    """Neither by choice of collation nor by default."""
    async with installed(database, "CREATE COLLATION lax (LOCALE = 'C')") as db:
        # Only ICU makes them, which not every build has: what counts is what the catalog says.
        await db.execute("UPDATE pg_collation SET collisdeterministic = false WHERE collname = 'lax'")
        await db.execute("CREATE TABLE words (word text COLLATE lax, plain text)")
        grains = await rows(
            db,
            "SELECT snapring.grain(attrelid, attnum) IS NOT NULL FROM pg_attribute"
            " WHERE attrelid = 'words'::regclass AND attnum > 0 ORDER BY attnum",
        )
    assert grains == [(False,), (True,)]


def test_tags_of_tables_never_meet_others() -> None:
    """Table tags and bulk tags differ from each other, from key tags and from the tag of everything."""
    tags = [tag(rel) for rel in (1, 2, 16384, 2**32 - 1) for tag in (table_tag, bulk_tag)]
    assert len(set(tags)) == len(tags)
    assert all(tag >= 2**64 for tag in tags)
    assert ENTIRE_DATABASE not in tags
