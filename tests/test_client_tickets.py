"""Tickets of transactions, taken through the libraries that applications use, on a real database."""

import asyncio
from inspect import iscoroutinefunction
from typing import Any

import django
import psycopg
import pytest
from django.conf import settings
from django.db import ConnectionHandler
from psycopg.rows import dict_row
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from door_nodes import BEHIND, served
from snapring import AsyncClient, ticket
from snapring.errors import CallInvalid

SET = "UPDATE users SET name = 'by {}' WHERE id = 1"


def alchemy(url: str) -> str:
    """The same database for SQLAlchemy."""
    return url.replace("postgresql://", "postgresql+psycopg://")


def by_psycopg(url: str) -> int:
    """Whatever the connection makes of rows."""
    with psycopg.connect(url, row_factory=dict_row) as connection:
        connection.execute(SET.format("psycopg").encode())
        return int(ticket(connection))


def by_a_psycopg_transaction(url: str) -> int:
    """In a block of an autocommit connection."""
    with psycopg.connect(url, autocommit=True) as connection, connection.transaction():
        connection.execute(SET.format("a block").encode())
        return int(ticket(connection))


def by_sqlalchemy(url: str) -> int:
    """A connection of an engine."""
    engine = create_engine(alchemy(url))
    with engine.begin() as connection:
        connection.execute(text(SET.format("sqlalchemy")))
        found = int(ticket(connection))
    engine.dispose()
    return found


def by_a_session(url: str) -> int:
    """Of the ORM."""
    engine = create_engine(alchemy(url))
    with Session(engine) as session, session.begin():
        session.execute(text(SET.format("a session")))
        found = int(ticket(session))
    engine.dispose()
    return found


def by_a_scoped_session(url: str) -> int:
    """As web frameworks have it."""
    engine = create_engine(alchemy(url))
    session = scoped_session(sessionmaker(engine))
    session.execute(text(SET.format("a scoped session")))
    found = int(ticket(session))
    session.commit()
    session.remove()
    engine.dispose()
    return found


def django_connection(url: str) -> Any:
    """Django's connection, as `django.db.connection` gives it."""
    if not settings.configured:
        settings.configure()
        django.setup()
    parts = psycopg.conninfo.conninfo_to_dict(url)
    names = {"dbname": "NAME", "user": "USER", "password": "PASSWORD", "host": "HOST", "port": "PORT"}
    known = {names[name]: str(value) for name, value in parts.items() if name in names}
    handler = ConnectionHandler({"default": {"ENGINE": "django.db.backends.postgresql", **known}})
    return handler["default"]


def by_django(url: str) -> int:
    """In a transaction; `django.db.transaction.atomic` turns autocommit off in the same way."""
    connection = django_connection(url)
    connection.set_autocommit(False)
    with connection.cursor() as cursor:
        cursor.execute(SET.format("django"))
    found = int(ticket(connection))
    connection.commit()
    connection.close()
    return found


async def by_async_psycopg(url: str) -> int:
    """The same, awaited."""
    async with await psycopg.AsyncConnection.connect(url, row_factory=dict_row) as connection:
        await connection.execute(SET.format("async psycopg").encode())
        return int(await ticket(connection))


async def by_async_sqlalchemy(url: str) -> int:
    """An async connection, and an async session."""
    engine = create_async_engine(alchemy(url))
    async with engine.begin() as connection:
        assert await ticket(connection)
    async with AsyncSession(engine) as session, session.begin():
        await session.execute(text(SET.format("async sqlalchemy")))
        found = int(await ticket(session))
    await engine.dispose()
    return found


@pytest.mark.parametrize(
    "write",
    [
        by_psycopg, by_a_psycopg_transaction, by_sqlalchemy, by_a_session, by_a_scoped_session, by_django,
        by_async_psycopg, by_async_sqlalchemy,
    ],
)  # fmt: skip
async def test_a_read_with_the_ticket_sees_the_write(database: str, write: Any) -> None:
    """On a node that does not follow by itself, and has the row as it was."""
    async with served(database, BEHIND) as (node,), AsyncClient(node.address) as client:
        await client.get("user:1")
        awaited = iscoroutinefunction(write)
        found = await (write(database) if awaited else asyncio.to_thread(write, database))
        token = await client.token(ticket=found)
        assert (await client.get("user:1")).value["name"] == "user 1"
        assert (await client.get("user:1", at_least=token)).value["name"].startswith("by ")


def test_a_ticket_of_no_transaction_is_refused(database: str) -> None:
    """It would be of the question alone, and see nothing that was written."""
    engine = create_engine(alchemy(database), isolation_level="AUTOCOMMIT")
    plain = django_connection(database)
    with psycopg.connect(database, autocommit=True) as connection, engine.connect() as alchemist:
        for each in (connection, alchemist, plain):
            with pytest.raises(CallInvalid, match="begin a transaction"):
                ticket(each)
        with Session(engine) as session, pytest.raises(CallInvalid, match="begin a transaction"):
            ticket(session)
    plain.close()
    engine.dispose()
    with pytest.raises(CallInvalid, match="SELECT pg_current_xact_id"):
        ticket(object())
