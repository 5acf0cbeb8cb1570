"""The ticket of a transaction of the application's own: what `Client.token` makes a token of.

It is the number that Postgres gives the transaction, asked for on its own connection. Nothing is imported that
the application has not imported itself.
"""

from collections.abc import Awaitable
from typing import Any, Final

from snapring.errors import CallInvalid

_STATEMENT: Final = "SELECT pg_current_xact_id()::text"
_OUTSIDE: Final = (
    "the connection is in autocommit mode and in no transaction, so that the ticket would be of this question alone:"
    " begin a transaction, write, take the ticket, commit"
)


def ticket(connection: Any) -> Any:
    """The ticket of the transaction that ``connection`` is in: an int; of an async connection, an awaitable of one.

    ``connection``: a psycopg (Async)Connection, a SQLAlchemy (Async)Connection, (Async)Session or scoped session,
    or Django's ``django.db.connection``. Take it inside the transaction that writes, and after its commit give
    ``client.token(ticket=...)`` to ``at_least``. It assigns the transaction its number, as a write does. Raises
    `CallInvalid` in autocommit mode outside of a transaction, and for anything that is no connection.
    """
    for kind in type(connection).__mro__:
        asking = _KINDS.get((kind.__module__.partition(".")[0], kind.__name__))
        if asking is not None:
            return asking(connection)
    raise CallInvalid(
        f"expected a connection of psycopg, SQLAlchemy or Django, not {type(connection).__name__}: with another"
        f" library run {_STATEMENT!r} in the transaction and pass the number on"
    )


def _psycopg(connection: Any) -> int:
    _require_transaction(connection)
    with connection.cursor(row_factory=_first) as cursor:
        return _number(cursor.execute(_STATEMENT).fetchone())


def _async_psycopg(connection: Any) -> Awaitable[int]:
    async def ask() -> int:
        _require_transaction(connection)
        async with connection.cursor(row_factory=_first) as cursor:
            await cursor.execute(_STATEMENT)
            return _number(await cursor.fetchone())

    return ask()


def _require_transaction(connection: Any) -> None:
    idle = 0  # PQTRANS_IDLE of libpq
    if connection.autocommit and connection.info.transaction_status == idle:
        raise CallInvalid(_OUTSIDE)


def _first(_cursor: Any) -> Any:
    """Rows as their first column, whatever the connection makes of rows."""
    return lambda values: values[0]


def _sqlalchemy(connection: Any) -> int:
    from sqlalchemy import text  # noqa: PLC0415  # there is a connection of it

    bound = (
        connection.connection()
        if hasattr(connection, "scalars") and hasattr(connection, "flush")
        else connection
    )
    if _autocommits(bound):
        raise CallInvalid(_OUTSIDE)
    return _number(connection.execute(text(_STATEMENT)).scalar_one())


def _async_sqlalchemy(connection: Any) -> Awaitable[int]:
    async def ask() -> int:
        return int(await connection.run_sync(_sqlalchemy))

    return ask()


def _autocommits(connection: Any) -> bool:
    """The driver knows: asyncpg's by its isolation level, all others by a flag."""
    driver = connection.connection.dbapi_connection
    return (
        getattr(driver, "autocommit", False) is True or getattr(driver, "isolation_level", "") == "autocommit"
    )


def _django(connection: Any) -> int:
    if connection.get_autocommit():  # False inside atomic()
        raise CallInvalid(_OUTSIDE)
    with connection.cursor() as cursor:
        cursor.execute(_STATEMENT)
        return _number(cursor.fetchone()[0])


def _number(text: Any) -> int:
    return int(text)


_KINDS: Final = {
    ("psycopg", "Connection"): _psycopg,
    ("psycopg", "AsyncConnection"): _async_psycopg,
    ("sqlalchemy", "Connection"): _sqlalchemy,
    ("sqlalchemy", "Session"): _sqlalchemy,
    ("sqlalchemy", "scoped_session"): _sqlalchemy,
    ("sqlalchemy", "AsyncConnection"): _async_sqlalchemy,
    ("sqlalchemy", "AsyncSession"): _async_sqlalchemy,
    ("django", "BaseDatabaseWrapper"): _django,
    ("django", "ConnectionProxy"): _django,
}
