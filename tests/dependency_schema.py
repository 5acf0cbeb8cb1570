"""A schema to analyse queries on, and the shortest way to an analysis."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from psycopg import AsyncConnection, AsyncRawCursor

from cluster.analysis.catalog import Analysis, analyse
from cluster.analysis.described import describe
from cluster.analysis.nodetree import Node
from cluster.capture import install, track
from servers import Server

_SCHEMA: Final = """
CREATE TYPE plan AS ENUM ('free', 'paid');
CREATE DOMAIN code AS text CHECK (value <> '');
CREATE DOMAIN fleeting AS int CHECK (value < extract(epoch FROM now()));
CREATE TABLE teams (gone int, id int PRIMARY KEY, name text, plan plan, price numeric, made timestamptz);
ALTER TABLE teams DROP COLUMN gone;
CREATE TABLE users (
    id bigint PRIMARY KEY, email varchar(80) UNIQUE, born date, code code,
    ref uuid, raw bytea, tags int[], info jsonb, late timetz
);
CREATE TABLE members (team_id int REFERENCES teams, user_id bigint REFERENCES users, role text, kind smallint);
CREATE TABLE events (id int, region int, what text, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
CREATE TABLE events_1 PARTITION OF events FOR VALUES IN (1);
CREATE TABLE events_2 (what text, region int NOT NULL, id int NOT NULL);
ALTER TABLE events ATTACH PARTITION events_2 FOR VALUES IN (2);
CREATE TABLE untracked (id int);
CREATE TABLE secret (id int);
ALTER TABLE secret ENABLE ROW LEVEL SECURITY;
CREATE SEQUENCE counter;
CREATE MATERIALIZED VIEW ready AS SELECT id, name FROM teams;
CREATE VIEW paying AS SELECT id AS team, name FROM teams WHERE plan = 'paid';
CREATE VIEW roster AS SELECT p.team, m.user_id FROM paying p JOIN members m ON m.team_id = p.team;
CREATE FUNCTION reads(int) RETURNS bigint LANGUAGE sql STABLE RETURN (SELECT count(*) FROM teams);
CREATE FUNCTION pure(int) RETURNS int LANGUAGE sql IMMUTABLE RETURN $1 + 1;
CREATE FUNCTION lucky(int) RETURNS int LANGUAGE sql VOLATILE RETURN $1 * random();
CREATE OPERATOR === (LEFTARG = int, RIGHTARG = int, FUNCTION = lucky_equal);
"""
_LUCKY_EQUAL: Final = """
CREATE FUNCTION lucky_equal(int, int) RETURNS boolean LANGUAGE sql VOLATILE RETURN $1 = $2 AND random() < 2
"""
_TRACKED: Final = {
    "teams": ["id", "name"],
    "users": ["id", "email", "born", "code", "ref", "raw"],
    "members": ["team_id", "user_id", "kind"],
    "events": ["id", "region"],
    "secret": ["id"],
}


@contextmanager
def analysed_database(server: Server) -> Iterator[str]:
    """The URL of a database with the schema, under capture."""
    with server.database() as name:
        asyncio.run(_prepare(server.dsn(name)))
        yield server.dsn(name)


async def found(url: str, sql: str, depends: Sequence[str] | None = None) -> Analysis:
    """The analysis of ``sql``, on a connection like those that load."""
    connection = await AsyncConnection.connect(url, autocommit=True, cursor_factory=AsyncRawCursor)
    async with connection:
        return await analyse(connection, sql, depends=depends)


async def tree(url: str, sql: str) -> Node:
    """How Postgres understands ``sql``."""
    connection = await AsyncConnection.connect(url, cursor_factory=AsyncRawCursor)
    async with connection:
        return (await describe(AsyncRawCursor(connection), sql)).tree


async def grains(url: str, sql: str, depends: Sequence[str] | None = None) -> set[str]:
    """What ``sql`` depends on: ``table`` or ``table.column=$n``, without the schema's name."""
    analysis = await found(url, sql, depends)
    return {
        each.table.removeprefix("public.") + (f".{each.column}=${each.param}" if each.column else "")
        for each in analysis.dependencies
    }


async def _prepare(url: str) -> None:
    async with await AsyncConnection.connect(url, autocommit=True) as connection:
        for statement in filter(str.strip, (_LUCKY_EQUAL + ";" + _SCHEMA).split(";")):
            await connection.execute(statement.encode())
        await install(connection)
        for table, columns in _TRACKED.items():
            await track(connection, table, columns)
