"""Taking one guard out of the schema ``snapring``: the functions here change it before the tables are filled."""

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from scripts.proof.tables import track


async def forget_old_rows(owner: AsyncConnection[TupleRow]) -> None:
    """A row that is updated counts as what it has become."""
    await _rewrite(owner, "snapring.trigger_source", "{old_rows,new_rows}", "{new_rows}")
    await track(owner)


async def overlook_truncate(owner: AsyncConnection[TupleRow]) -> None:
    """The trigger for TRUNCATE does nothing."""
    entered = r"    INSERT INTO snapring.changes (rel) VALUES (%s);\n    RETURN NULL;"
    await _rewrite(owner, "snapring.trigger_source", entered, r"    RETURN NULL; -- %s\n")
    await track(owner)


async def overlook_ddl(owner: AsyncConnection[TupleRow]) -> None:
    """The event triggers do nothing."""
    await _rewrite(owner, "snapring.void", "IF NOT EXISTS", "IF false AND NOT EXISTS")


async def forget_prepared_transactions(owner: AsyncConnection[TupleRow]) -> None:
    """After a crash nobody expects what was prepared before it."""
    await _rewrite(owner, "snapring.renew", "WHERE p.database = current_database()", "WHERE false")


async def answer_from_what_is_left(owner: AsyncConnection[TupleRow]) -> None:
    """Of a snapshot older than the history, what has not been deleted yet is read."""
    await _rewrite(
        owner, "snapring.require_history", "(pg_snapshot_xmin(at) >= floor) IS NOT TRUE", "floor IS NULL"
    )


async def demand_no_version(owner: AsyncConnection[TupleRow]) -> None:
    """A write replaces whatever is there."""
    await _rewrite(owner, "snapring.write", "<> w.wanted", "<> w.wanted AND false")


async def _rewrite(owner: AsyncConnection[TupleRow], function: str, part: str, other: str) -> None:
    found = await owner.execute(b"SELECT pg_get_functiondef(%s::regproc)", (function,))
    ((source,),) = await found.fetchall()
    assert part in source, f"{function} has changed"
    await owner.execute(source.replace(part, other).encode())
