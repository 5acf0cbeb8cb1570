"""How Postgres itself understands a query: its analysed tree, parameters and columns. Nothing is run.

A query is not resolved here by its names. Postgres parses and analyses it, exactly as it will for every
load, and tells the result: with ``debug_print_rewritten`` on, the tree comes as a message of level LOG, names
resolved, views expanded, operators and casts made explicit. Any role may ask for that; the server's log
gets a copy of the message.
"""

from dataclasses import dataclass
from typing import Final

import psycopg
from psycopg import AsyncRawCursor, generators
from psycopg.errors import Diagnostic
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGresult
from psycopg.rows import TupleRow

from cluster.analysis.nodetree import Node, read
from snapring.errors import CacheRefused

_LISTEN: Final = """
SELECT set_config('debug_pretty_print', 'off', true), set_config('client_min_messages', 'log', true)
"""
_PRINT: Final = "SELECT set_config('debug_print_rewritten', $1, true)"
_MESSAGE: Final = "rewritten parse tree:"
_REFUSED_BY_POSTGRES: Final = ("0A", "22", "3F", "42")


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """What Postgres makes of a query. Types are oids; ``columns`` are the distinct names of its output."""

    tree: Node
    parameter_types: tuple[int, ...]
    columns: tuple[str, ...]
    column_types: tuple[int, ...]


async def describe(cursor: AsyncRawCursor[TupleRow], sql: str) -> Described:
    """Have Postgres analyse ``sql``, through a cursor that is in a transaction of its own.

    The settings made are the transaction's: it must end with what the caller does next. Raises
    `CacheRefused` where Postgres refuses the query, `cluster.analysis.nodetree.NodeTextError` where its tree cannot
    be read.
    """
    connection = cursor.connection
    messages: list[str] = []

    def listen(diagnostic: Diagnostic) -> None:
        if diagnostic.message_primary == _MESSAGE:
            messages.append(diagnostic.message_detail or "")

    await cursor.execute(_LISTEN, prepare=False)
    await cursor.execute(_PRINT, ("on",), prepare=False)
    connection.add_notice_handler(listen)
    try:
        connection.pgconn.send_prepare(b"", sql.encode(connection.info.encoding))
        await _result(cursor)
        connection.pgconn.send_describe_prepared(b"")
        described = await _result(cursor)
    finally:
        connection.remove_notice_handler(listen)
    await cursor.execute(_PRINT, ("off",), prepare=False)
    return Described(
        tree=_newest_tree(messages),
        parameter_types=tuple(described.param_type(index) for index in range(described.nparams)),
        columns=_distinct(described, connection.info.encoding),
        column_types=tuple(described.ftype(index) for index in range(described.nfields)),
    )


async def _result(cursor: AsyncRawCursor[TupleRow]) -> PGresult:
    connection = cursor.connection
    results: list[PGresult] = await connection.wait(generators.execute(connection.pgconn))
    if results[0].status == ExecStatus.FATAL_ERROR:
        error = psycopg.errors.error_from_result(results[0], encoding=connection.info.encoding)
        if (error.sqlstate or "").startswith(_REFUSED_BY_POSTGRES):
            raise CacheRefused(f"Postgres refuses the query: {error.diag.message_primary}") from error
        raise error
    return results[0]


def _newest_tree(messages: list[str]) -> Node:
    """The tree told last: Postgres analyses again, and tells again, if something changed meanwhile."""
    trees = [read(message) for message in messages]
    if not trees or any(len(tree) != 1 for tree in trees):
        raise CacheRefused(
            "Postgres did not tell how it understands the query: connect to it directly, or through a pooler "
            "that passes messages of level LOG on"
        )
    return trees[-1][0]


def _distinct(described: PGresult, encoding: str) -> tuple[str, ...]:
    names = [(described.fname(index) or b"").decode(encoding) for index in range(described.nfields)]
    for name in names:
        if names.count(name) > 1:
            raise CacheRefused(f"two columns of the answer are named {name}: give one another name with AS")
    return tuple(names)
