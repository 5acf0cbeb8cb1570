"""Rows as doors send them: exact, and readable by msgpack and JSON alike."""

import json
from collections.abc import AsyncIterator

import msgpack
import pytest

from cluster.config import PostgresConfig
from cluster.encoding import encoder, rows_to_value
from cluster.postgres import Connection, connect


@pytest.fixture
async def connection(database: str) -> AsyncIterator[Connection]:
    """A connection as loads use it."""
    connection = await connect(PostgresConfig(url=database), application_name="test")
    async with connection:
        yield connection


@pytest.mark.parametrize(
    ("expression", "field"),
    [
        ("1::int2", 1),
        ("9223372036854775807::int8", 2**63 - 1),
        ("0.1::float8", 0.1),
        ("true", True),
        ("null::int", None),
        ("'ü\n'::text", "ü\n"),
        ("'ab'::char(4)", "ab  "),
        ("12345678901234567890.10::numeric", "12345678901234567890.10"),
        ("'2026-03-01 12:00:00+02'::timestamptz", "2026-03-01 10:00:00+00"),
        ("'2026-03-01'::date", "2026-03-01"),
        ("'1 day 2 hours'::interval", "P1DT2H"),
        ("'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
        ("""'{"n": 1.10}'::json""", '{"n": 1.10}'),
        ("""'{"n": 1.10}'::jsonb""", '{"n": 1.10}'),
        ("'{1,null,3}'::int[]", [1, None, 3]),
        ("'{{a,b},{c,d}}'::text[]", [["a", "b"], ["c", "d"]]),
        ("'{1.50}'::numeric[]", ["1.50"]),
        ("'[1,5)'::int4range", "[1,5)"),
        ("row(1,'a')", "(1,a)"),
        ("'192.168.0.1/24'::inet", "192.168.0.1/24"),
    ],
)
async def test_fields_keep_what_both_encodings_can_say(
    connection: Connection, expression: str, field: object
) -> None:
    """Numbers, booleans, text and arrays natively; everything else is Postgres' own text."""
    cursor = await connection.execute(f"SELECT {expression} AS field")
    value = rows_to_value(["field"], await cursor.fetchall())
    assert value == [{"field": field}]
    assert msgpack.unpackb(encoder("msgpack")(value)) == value
    assert json.loads(encoder("json")(value)) == value


async def test_bytes_are_binary_in_msgpack_and_hex_in_json(connection: Connection) -> None:
    """JSON has no binary; hex text as Postgres writes it is unambiguous."""
    cursor = await connection.execute(r"SELECT '\x00ff'::bytea AS field, array['\x01'::bytea] AS fields")
    value = rows_to_value(["field", "fields"], await cursor.fetchall())
    assert msgpack.unpackb(encoder("msgpack")(value)) == [{"field": b"\x00\xff", "fields": [b"\x01"]}]
    assert json.loads(encoder("json")(value)) == [{"field": "\\x00ff", "fields": ["\\x01"]}]


async def test_numbers_that_json_lacks_are_text(connection: Connection) -> None:
    """NaN and the infinities would make the document unreadable."""
    cursor = await connection.execute(
        "SELECT 'NaN'::float8 AS a, '-Infinity'::float8 AS b, 'Infinity'::float4 AS c"
    )
    value = rows_to_value(["a", "b", "c"], await cursor.fetchall())
    assert json.loads(encoder("json")(value)) == [{"a": "NaN", "b": "-Infinity", "c": "Infinity"}]


async def test_settings_of_role_and_url_do_not_change_a_value(database: str) -> None:
    """What a value looks like is pinned, whatever the URL's options say."""
    url = f"{database}{'&' if '?' in database else '?'}options=-c%20timezone%3DAsia%2FTokyo%20-c%20datestyle%3DGerman"
    async with await connect(PostgresConfig(url=url), application_name="test") as connection:
        cursor = await connection.execute("SELECT '2026-03-01 12:00+00'::timestamptz, '2026-03-01'::date")
        assert await cursor.fetchone() == ("2026-03-01 12:00:00+00", "2026-03-01")
