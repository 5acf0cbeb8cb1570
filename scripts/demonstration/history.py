"""Reads pgbench's journal as it grows."""

from typing import Final

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from cluster.snapshots import Snapshot
from scripts.demonstration.truth import Posting, Truth

PREPARE: Final = (
    "ALTER TABLE pgbench_history ADD COLUMN xid xid8 NOT NULL DEFAULT pg_current_xact_id()",
    "CREATE INDEX pgbench_history_xid ON pgbench_history (xid)",
)
"""Makes pgbench, which names the columns it inserts, record each transaction's id as well."""

# One statement, hence one snapshot for the rows and for what it says of itself; the join keeps that
# row where nothing is new.
_NEW: Final = """
WITH now AS MATERIALIZED (SELECT pg_current_snapshot() AS snapshot)
SELECT now.snapshot::text, h.xid::text, h.aid, h.tid, h.bid, h.delta, {committed}
FROM now LEFT JOIN pgbench_history h
  ON (h.xid >= %(xmax)s::xid8 OR h.xid = ANY(%(xip)s::xid8[]))
 AND NOT pg_visible_in_snapshot(h.xid, %(seen)s::pg_snapshot)
"""
_UNSIGNED: Final = 2**64 - 1
_COMMITTED: Final = "extract(epoch FROM pg_xact_commit_timestamp(h.xid::xid))::float8"


class History:
    """The journal's reader: each `follow` brings ``truth`` up to the database's present."""

    def __init__(self, connection: AsyncConnection[TupleRow], *, timed: bool) -> None:
        self._connection = connection
        self._statement = _NEW.format(committed=_COMMITTED if timed else "NULL::float8").encode()
        self.timed = timed

    @classmethod
    async def open(cls, url: str) -> "History":
        """A reader on a connection of its own; commit times where the server records them."""
        connection = await psycopg.AsyncConnection.connect(url, autocommit=True, prepare_threshold=None)
        found = await (await connection.execute("SHOW track_commit_timestamp")).fetchone()
        return cls(connection, timed=found is not None and found[0] == "on")

    async def beginning(self) -> Truth:
        """The truth at the present snapshot of an empty journal."""
        row = await (await self._connection.execute("SELECT pg_current_snapshot()::text")).fetchone()
        assert row is not None
        return Truth(Snapshot.parse(row[0]))

    async def follow(self, truth: Truth) -> None:
        """Enter every transaction that has become visible since ``truth.complete_to``."""
        seen = truth.complete_to
        parameters = {"xmax": str(seen.xmax), "xip": list(map(str, seen.xip)), "seen": str(seen)}
        rows = await (await self._connection.execute(self._statement, parameters)).fetchall()
        truth.extend(map(_posting, (row for row in rows if row[1] is not None)), Snapshot.parse(rows[0][0]))

    async def incarnation(self) -> int:
        """The database's incarnation as tokens write it."""
        row = await (await self._connection.execute("SELECT snapring.incarnation()")).fetchone()
        if row is None or row[0] is None:
            raise RuntimeError("the database has no incarnation: 'snapring init' makes one")
        return int(row[0]) & _UNSIGNED

    async def aclose(self) -> None:
        """Close the connection."""
        await self._connection.close()


def _posting(row: TupleRow) -> Posting:
    _, xid, account, teller, branch, delta, committed_s = row
    return Posting(
        xid=int(xid), account=account, teller=teller, branch=branch, delta=delta, committed_s=committed_s
    )
