"""Connections to Postgres, and what its errors mean here.

A fixed number of workers load, and each holds at most one connection, so the number of connections is
bounded by construction and a list of idle ones is all the pooling there is to do. psycopg_pool was
tried for this and left out: it hides the reason of a failed connection behind a timeout, and its
background workers knock on a database that the breaker has declared out of reach.
"""

import asyncio
import os
import re
import select
import socket
import struct
from collections.abc import Mapping, Sequence
from typing import Final, TypeVar

import psycopg
from psycopg import AsyncConnection, AsyncRawCursor
from psycopg.abc import PQGen
from psycopg.adapt import AdaptersMap
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq.abc import PGconn, PGresult
from psycopg.rows import AsyncRowFactory, TupleRow, tuple_row
from psycopg.waiting import wait_async

from cluster.config import PostgresConfig
from cluster.encoding import result_adapters
from cluster.pipeline import Prepared, Segment, Take, exchange, round_trip
from snapring.errors import (
    ArgumentInvalid,
    QueryFailed,
    QueryTimeout,
    SnapringError,
    SnapshotExpired,
    TokenAhead,
    Unavailable,
)

RV = TypeVar("RV")

_WAIT_INTERVAL_S: Final = 0.1
_RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER with which closing a connection resets it."""
_PINNED: Final = {
    "client_encoding": "UTF8",
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "iso_8601",
    "TimeZone": "UTC",
    "array_nulls": "on",
    "bytea_output": "hex",
    "default_transaction_deferrable": "off",
    "default_transaction_isolation": "read committed",
    "default_transaction_read_only": "off",
    "extra_float_digits": "1",
    "jit": "off",
    "lc_monetary": "C",
    "lc_numeric": "C",
    "lc_time": "C",
    "row_security": "off",
    "standard_conforming_strings": "on",
    "transform_null_equals": "off",
    "xmlbinary": "base64",
    "xmloption": "content",
}
"""Settings that change what a value looks like or how an argument is read: the same on every
connection, whatever the role, the database or the server say. Row security that begins to apply fails a load
instead of filtering it. (And jit, which costs a small query, or one
planned with enable_seqscan = off, a thousand times its own time.)"""

_INHERITED: Final = ("search_path", "default_text_search_config", "timezone_abbreviations")
"""Settings that are the user's to choose, but must not change under a running node."""

_ESCAPED: Final = re.compile(r"([\\\s])")
_ESCAPE: Final = r"\\\1"

_BAD_ARGUMENT: Final = ("22P02", "22P03", "22003", "22007", "22008", "22021", "22023", "42804")
_OUT_OF_REACH: Final = ("08", "53", "57P", "58", "F0", "XX")
_OUT_OF_TIME: Final[Mapping[str | None, str]] = {
    "57014": "the query took longer than statement_timeout",
    "55P03": "others kept what it needs locked",
}
_OUR_OWN: Final[Mapping[str, type[SnapringError]]] = {"SN001": SnapshotExpired, "SN002": TokenAhead}
"""What functions of the schema snapring raise."""
_RETRY: Final = ("40",)


class Connection(AsyncConnection[TupleRow]):
    """A connection that is given up at once when whoever waits for it is cancelled.

    `round_trip` serves the loader, `exchange` the writer; the feed and the analysis use psycopg's cursors. Where
    one connection does both, its cursors prepare nothing: psycopg would answer a ROLLBACK with DEALLOCATE ALL.

    psycopg would first try, for up to ten seconds, to cancel the query on the server: far too long where
    the server is what does not answer. ``statement_timeout`` ends what keeps running there.
    """

    def __init__(self, pgconn: PGconn, row_factory: AsyncRowFactory[TupleRow] = tuple_row) -> None:
        super().__init__(pgconn, row_factory)
        self._prepared_here = Prepared()

    async def round_trip(self, segments: Sequence[Segment]) -> list[list[PGresult]]:
        """The results of each segment's statements. Raises the first `psycopg.Error` among them."""
        async with self.lock:
            return await self.wait(round_trip(self.pgconn, self._prepared_here, segments))

    async def exchange(self, segments: Sequence[Segment], take: Take) -> None:
        """Give ``take`` the results of each segment as it ends; see `cluster.pipeline.exchange`."""
        async with self.lock:
            await self.wait(exchange(self.pgconn, self._prepared_here, segments, take))

    async def wait(
        self,
        gen: PQGen[RV],
        interval: float = _WAIT_INTERVAL_S,
        timeout: float | None = None,  # noqa: ASYNC109 - psycopg's own signature
    ) -> RV:
        """Run one of psycopg's generators; see `psycopg.AsyncConnection.wait`."""
        try:
            return await wait_async(gen, self.pgconn.socket, interval=interval, timeout=timeout)
        except asyncio.CancelledError:
            _drop_unsent(self.pgconn)
            self.pgconn.finish()
            raise


class _ResultContext:
    """psycopg's way of saying which adapters a connection starts from."""

    connection = None

    @property
    def adapters(self) -> AdaptersMap:
        return result_adapters()


async def connect(
    config: PostgresConfig, *, application_name: str, settings: Mapping[str, str] | None = None
) -> Connection:
    """A connection in autocommit with pinned settings, and ``settings``. Raises `Unavailable`, saying why."""
    try:
        async with asyncio.timeout(config.connect_timeout_s):
            connection = await Connection.connect(
                config.url,
                autocommit=True,
                application_name=application_name,
                options=_options(config, settings or {}),
                cursor_factory=AsyncRawCursor,
                prepare_threshold=0,
                context=_ResultContext(),
            )
    except TimeoutError as error:
        raise Unavailable(f"no connection to Postgres within {config.connect_timeout_s:g} s") from error
    except psycopg.Error as error:
        raise Unavailable(f"no connection to Postgres: {_first_line(error)}") from error
    connection.prepared_max = None
    return connection


class Sessions:
    """Opens the connections of one node, all of which mean the same by a query.

    What names and texts mean depends on settings that someone may change for the role or the database at
    any time, without DDL. Those that the node's first connection found are pinned on every later one.
    """

    def __init__(self, config: PostgresConfig) -> None:
        self._config = config
        self._inherited: Mapping[str, str] | None = None

    async def open(self, application_name: str, settings: Mapping[str, str] | None = None) -> Connection:
        """A connection, see `connect`. Raises `Unavailable`."""
        connection = await self._connect(application_name, settings)
        if self._inherited is None:
            found = await _settings(connection, self._config.connect_timeout_s)
            if self._inherited is None:  # another connection may have been first meanwhile
                self._inherited = found
            if self._inherited != found:
                await connection.close()
                return await self._connect(application_name, settings)
        return connection

    async def _connect(self, application_name: str, settings: Mapping[str, str] | None) -> Connection:
        pinned = {**(self._inherited or {}), **(settings or {})}
        return await connect(self._config, application_name=application_name, settings=pinned)


def translate(error: psycopg.Error) -> SnapringError:
    """What ``error`` means to the client whose query met it.

    `Unavailable` is the database's own failure, and the only one that the breaker counts.
    """
    state, message = error.sqlstate, _first_line(error)
    if state in _OUT_OF_TIME:
        return QueryTimeout(f"{message}: {_OUT_OF_TIME[state]}")
    if state is None or state.startswith(_OUT_OF_REACH + _RETRY):
        return Unavailable(f"Postgres failed: {message}")
    if state in _OUR_OWN:
        return _OUR_OWN[state](message)
    if state in _BAD_ARGUMENT:
        return ArgumentInvalid(message)
    return QueryFailed(f"{message} (SQLSTATE {state})")


class Connections:
    """The idle connections of a fixed number of workers, which the server knows by ``name``."""

    def __init__(
        self,
        sessions: Sessions,
        name: str = "snapring loader",
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self._sessions = sessions
        self._name = name
        self._settings = settings
        self._idle: list[Connection] = []
        self.opened = 0

    def __repr__(self) -> str:
        return f"<Connections idle={len(self._idle)} opened={self.opened}>"

    async def take(self) -> Connection:
        """An idle connection, or a new one. Raises `Unavailable`."""
        while self._idle:
            connection = self._idle.pop()
            if not connection.closed and _silent(connection):
                return connection
            await connection.close()
        self.opened += 1
        return await self._sessions.open(self._name, self._settings)

    async def give_back(self, connection: Connection) -> None:
        """Keep ``connection`` for the next load, or close it if it cannot serve another."""
        if connection.info.transaction_status is psycopg.pq.TransactionStatus.IDLE:
            self._idle.append(connection)
        else:
            await connection.close()

    def abandon(self) -> None:
        """Close what is idle, waiting for nothing."""
        for connection in self._idle:
            connection.pgconn.finish()
        self._idle.clear()

    async def close(self) -> None:
        """Close what is idle."""
        while self._idle:
            await self._idle.pop().close()


def _drop_unsent(pgconn: PGconn) -> None:
    """What the kernel has not delivered yet is not to be done any more, however soon the network is back."""
    if pgconn.status is not psycopg.pq.ConnStatus.OK:
        return
    with socket.socket(fileno=os.dup(pgconn.socket)) as connected:
        if connected.family is not socket.AF_UNIX:
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


async def _settings(connection: Connection, within_s: float) -> Mapping[str, str]:
    try:
        async with asyncio.timeout(within_s):
            cursor = await connection.execute(
                "SELECT name, current_setting(name) FROM unnest($1::text[]) AS name",
                (list(_INHERITED),),
                prepare=False,
            )
            return dict(await cursor.fetchall())
    except TimeoutError as error:  # which closed the connection, see `Connection.wait`
        raise Unavailable(f"Postgres did not answer within {within_s:g} s") from error
    except psycopg.Error as error:
        await connection.close()
        raise Unavailable(f"Postgres failed: {_first_line(error)}") from error


def _silent(connection: Connection) -> bool:
    """Whether nothing has come in while ``connection`` was idle: what does is its end, or news of it."""
    poll = select.poll()
    poll.register(connection.pgconn.socket, select.POLLIN)
    return not poll.poll(0)


def _options(config: PostgresConfig, settings: Mapping[str, str]) -> str:
    """The user's own ``options``, then ours, which win."""
    settings = {"statement_timeout": f"{config.statement_timeout_s * 1000:.0f}", **_PINNED, **settings}
    pinned = (f"-c {name}={_ESCAPED.sub(_ESCAPE, value)}" for name, value in settings.items())
    return " ".join((str(conninfo_to_dict(config.url).get("options") or ""), *pinned)).strip()


def _first_line(error: psycopg.Error) -> str:
    return (error.diag.message_primary or str(error).strip() or type(error).__name__).splitlines()[0]
