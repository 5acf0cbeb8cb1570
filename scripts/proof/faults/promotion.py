"""A standby that lags takes over, without commits that the primary acknowledged."""

import asyncio
from random import Random
from typing import Final

from cluster.embedded import EmbeddedPostgres
from scripts.proof.faults.blocking import in_full
from scripts.proof.faults.fault import FaultFailed
from scripts.proof.faults.operator import ask, commit, next_xid, operator, until
from scripts.proof.ground import Ground
from scripts.proof.proxy import HOST, Proxy

_WITHIN_S: Final = 60.0
_SOUND: Final = {"full_page_writes": "on"}
"""Without it a promoted PostgreSQL 18.4 may not survive the death of a backend: its recovery then takes pages of
tables that were dropped later for lost ones, and gives up ("WAL contains references to invalid pages")."""


async def promoted(ground: Ground, rng: Random, *, longest_s: float = 2.0) -> str:
    """Copy the primary, follow it, cut the line between the two, kill the primary, promote the copy."""
    primary, lag_s = ground.server, rng.uniform(longest_s / 2, longest_s)
    settings = {**primary.settings, **_SOUND}
    standby = EmbeddedPostgres(bin_dir=primary.bin_dir, settings=settings, environment=primary.environment)
    try:
        async with Proxy((HOST, primary.port)) as line:
            await _follow(standby, primary, line.port)
            line.refuse()
            lost = await _lag(ground, lag_s)
        await in_full(primary.kill)
        detail = await _take_over(standby, lost)
    except BaseException:
        standby.close()
        raise
    ground.promoted(standby)
    await in_full(primary.close)
    await ground.settled()
    return f"{detail}, {lag_s:.1f} s behind"


async def _follow(standby: EmbeddedPostgres, primary: EmbeddedPostgres, port: int) -> None:
    """Until the standby streams, and has replayed what was written when it began to."""
    await in_full(lambda: standby.follow(primary, port=port))
    await in_full(standby.start)
    async with operator(primary.dsn()) as source, operator(standby.dsn()) as copy:
        await commit(source)
        written = await ask(source, "SELECT pg_current_wal_lsn()")

        async def replayed() -> bool:
            return await ask(copy, "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", written) == "True"

        await until("a standby that follows", replayed, _WITHIN_S)


async def _lag(ground: Ground, seconds: float) -> int:
    """Let the primary go on alone; the xid of a commit that it acknowledged at the end."""
    async with operator(ground.dsn()) as connection:
        await asyncio.sleep(seconds)
        return await commit(connection)


async def _take_over(standby: EmbeddedPostgres, lost: int) -> str:
    """Promote it: nobody writes there yet, so the next xid says whether it lacks ``lost``."""
    async with operator(standby.dsn()) as connection:
        if await ask(connection, f"SELECT pg_promote(true, {_WITHIN_S:.0f})") != "True":
            raise FaultFailed("the standby was not promoted")
        unused = await next_xid(connection)
        timeline = await ask(connection, "SELECT pg_walfile_name(pg_current_wal_insert_lsn())")
    if unused > lost:
        raise FaultFailed(f"the standby has xid {unused - 1}, so it did not lag behind {lost}")
    return f"promoted to timeline {int(timeline[:8], 16)} without what was acknowledged of xids {unused} to {lost}"
