"""The journal in the database: every row written, entered by triggers in the transaction that wrote it.

Cascades, other triggers, functions, COPY, MERGE and ON CONFLICT all pass through row triggers, so none of
them needs to be known here. What rows do not show (DDL, a materialized view) its writer enters himself.
"""

from collections.abc import Mapping
from typing import Final

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from scripts.proof.history import LogRow

SCHEMA: Final = """
CREATE SCHEMA proof;
CREATE TABLE proof.deeds (nonce bigint PRIMARY KEY);
CREATE TABLE proof.log (
    seq bigserial, xid xid8 NOT NULL DEFAULT pg_current_xact_id(), what text NOT NULL, key text, value jsonb
) WITH (autovacuum_enabled = off);
CREATE INDEX ON proof.log (xid);
CREATE FUNCTION proof.key_of(item jsonb, names text) RETURNS text LANGUAGE sql IMMUTABLE AS
    $$ SELECT string_agg(item ->> name, ':' ORDER BY place)
         FROM unnest(string_to_array(names, ',')) WITH ORDINALITY AS n(name, place) $$;
CREATE FUNCTION proof.enter_row() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    was text := CASE WHEN TG_OP <> 'INSERT' THEN proof.key_of(to_jsonb(OLD), TG_ARGV[1]) END;
    is_now text := CASE WHEN TG_OP <> 'DELETE' THEN proof.key_of(to_jsonb(NEW), TG_ARGV[1]) END;
BEGIN
    IF was IS DISTINCT FROM is_now AND was IS NOT NULL THEN
        INSERT INTO proof.log (what, key) VALUES (TG_ARGV[0], was);
    END IF;
    IF is_now IS NOT NULL THEN
        INSERT INTO proof.log (what, key, value) VALUES (TG_ARGV[0], is_now, to_jsonb(NEW));
    END IF;
    RETURN NULL;
END $$;
CREATE FUNCTION proof.enter_truncate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO proof.log (what) VALUES (TG_ARGV[0]);
    RETURN NULL;
END $$;
"""

_OBSERVE: Final = """
CREATE TRIGGER proof_row AFTER INSERT OR UPDATE OR DELETE ON {table}
    FOR EACH ROW EXECUTE FUNCTION proof.enter_row('{table}', '{keys}');
CREATE TRIGGER proof_truncate AFTER TRUNCATE ON {table}
    FOR EACH STATEMENT EXECUTE FUNCTION proof.enter_truncate('{table}');
"""
_MINE: Final = b"""
WITH entered AS (INSERT INTO proof.deeds VALUES (%s) RETURNING nonce)
SELECT pg_current_xact_id()::text, snapring.incarnation() FROM entered
"""
_ROWS: Final = b"""
SELECT seq, what, key, value FROM proof.log WHERE xid = pg_current_xact_id() ORDER BY seq
"""
_UNSIGNED: Final = 2**64 - 1


def observing(tables: Mapping[str, str]) -> str:
    """The statements that put ``tables`` under observation; each with its key's columns, after commas."""
    return "".join(_OBSERVE.format(table=table, keys=keys) for table, keys in tables.items())


def entry(what: str, key: str, value: str) -> str:
    """A statement that enters what no row trigger sees. ``value`` is an SQL expression of type jsonb."""
    return f"INSERT INTO proof.log (what, key, value) VALUES ('{what}', '{key}', {value})"


async def signed(
    connection: AsyncConnection[TupleRow], nonce: int
) -> tuple[int, int | None, tuple[LogRow, ...]]:
    """Sign the present transaction with ``nonce``; its xid, its incarnation and what it has written."""
    async with connection.pipeline():
        head = await connection.execute(_MINE, (nonce,))
        body = await connection.execute(_ROWS)
        ((xid, incarnation),) = await head.fetchall()
        rows = tuple(LogRow(*row) for row in await body.fetchall())
    return int(xid), unsigned(incarnation), rows


def unsigned(incarnation: int | None) -> int | None:
    """An incarnation as tokens have it."""
    return None if incarnation is None else incarnation & _UNSIGNED
